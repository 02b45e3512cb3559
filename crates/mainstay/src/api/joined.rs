//! Another machine's API, which this node has joined or is about to.
//!
//! # Flow
//!
//! 1. With a token: the server has to show the authority that the token names. Then the node asks for a
//!    client certificate, and keeps it with the authority ([`enrol`]).
//! 2. With that certificate the agent acts as `system:node:<name>`; it is renewed in time, with itself as
//!    the proof.
//! 3. A serving certificate is asked for the same way, for the node's name and its addresses as they are,
//!    and the node's own API is served with it.
//!
//! # Guarantees
//!
//! - Nothing that runs pods waits for any of this, and nothing of it ends: what fails is told once, with its
//!   remedy, and tried again.
//! - A token is used until there is a certificate, and after that only if it names another authority, or the
//!   certificate has ended.

mod enrol;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use mainstay_client::Calls;
use mainstay_node::ApiAccess;
use mainstay_node::node_api::{self, NodeApi, NodeAuth};
use mainstay_pki::{
    Identity, JoinToken, KeyHash, Leaf, NodeCertificate, NodeCredentials, Reason, Renewal,
    SubjectName, Usage,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::enrol::Request;
use super::node_auth::ApiAuth;
use super::pinned::Pinned;
use super::remote::{Remote, Server, late_client};
use super::tls::{Current, Trust};
use super::{NodePort, RENEWAL_INTERVAL, blocking, retry, serve_health};

/// How often the node's addresses are compared with those of its serving certificate.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(10);
/// How long a certificate that was just made is left alone, if its life is long enough.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long certificates are left alone at least.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// What an API is joined with.
#[derive(Clone, Debug)]
pub(crate) struct JoinConfig {
    pub(crate) node_name: String,
    /// The node's addresses; with none the machine is asked.
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) server: Server,
    pub(crate) token: Option<JoinToken>,
    /// The node API's port; 0 is a free one.
    pub(crate) node_port: u16,
    pub(crate) healthz_port: u16,
    pub(crate) root_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

/// The API, as far as it has been joined.
pub(crate) struct Joined {
    config: JoinConfig,
    remote: watch::Sender<Option<Arc<Remote>>>,
    node: NodePort,
}

impl Joined {
    /// Nothing is asked yet. Only the port of the node's own API is taken, which the node registers with.
    pub(crate) fn new(config: JoinConfig) -> Self {
        let node = NodePort::bind(config.node_port, &config.run_dir);
        // Whoever looks there looks for an API of this instance.
        let stale = config.run_dir.join("secure-port");
        if let Err(error) = std::fs::remove_file(&stale)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove {}", stale.display());
        }
        Self { config, remote: watch::Sender::new(None), node }
    }

    /// How the agent reaches it.
    pub(crate) fn access(&self) -> ApiAccess {
        ApiAccess { client: self.client(), node_port: self.node.port() }
    }

    /// Who may ask the node's API.
    pub(crate) fn node_auth(&self) -> Arc<dyn NodeAuth> {
        Arc::new(ApiAuth::new(self.calls(), &self.config.node_name))
    }

    fn client(&self) -> kube::Client {
        late_client(self.remote.subscribe())
    }

    fn calls(&self) -> Calls {
        Calls::new(self.client(), super::AGENT)
    }

    /// Joins, and stays joined. Never ends.
    pub(crate) async fn run(mut self, node: NodeApi) {
        let listener = self.node.take();
        let config = &self.config;
        let health = serve_health(config.healthz_port, &config.run_dir, node.clone());
        let rest = async {
            let directory = config.root_dir.join("joined");
            let open = || {
                let directory = directory.clone();
                blocking(move || Ok(NodeCredentials::open(&directory)?))
            };
            let credentials = retry("open the node's credentials", open).await;
            let joining = format!("join {}", config.server);
            let first = Box::pin(retry(&joining, || self.first(&credentials))).await;
            let link =
                retry("use the node's certificate", async || self.link(&credentials, &first).await)
                    .await;
            tracing::info!(server = %config.server, node = config.node_name, "joined");
            tokio::join!(
                Box::pin(self.keep_client(&credentials, &link)),
                Box::pin(self.keep_serving(&credentials, &link, listener, node.clone())),
            );
        };
        tokio::join!(health, rest);
    }

    /// A client certificate: the one that is there, or the first one.
    async fn first(&self, credentials: &NodeCredentials) -> anyhow::Result<Identity> {
        let pinned = self.config.token.as_ref().map(JoinToken::authority);
        let trusted = on_disk(credentials, |it| Ok(it.authority()?)).await?;
        let other = pinned.is_some() && trusted.as_ref().and_then(KeyHash::of) != pinned;
        let there = self.look(credentials, NodeCertificate::Client, self.client_leaf()).await?;
        match there.filter(|_| !other) {
            Some((identity, renewal)) if is_usable(&renewal, Timestamp::now()) => Ok(identity),
            _ => self.enrol(credentials).await,
        }
    }

    /// What there is of a certificate.
    async fn look(
        &self,
        credentials: &NodeCredentials,
        which: NodeCertificate,
        wanted: Leaf,
    ) -> anyhow::Result<Option<(Identity, Renewal)>> {
        on_disk(credentials, move |it| Ok(it.identity(which, &wanted, Timestamp::now())?)).await
    }

    /// Asks for another one, with the one that there is.
    async fn ask(
        &self,
        credentials: &NodeCredentials,
        which: NodeCertificate,
        wanted: Leaf,
    ) -> anyhow::Result<Identity> {
        let request =
            on_disk(credentials, move |it| Request::new(it, which, &wanted, None)).await?;
        let certificate = request.certificate(&self.calls()).await?;
        on_disk(credentials, move |it| Ok(it.keep(which, &certificate)?)).await
    }

    /// A client certificate for the token.
    async fn enrol(&self, credentials: &NodeCredentials) -> anyhow::Result<Identity> {
        let Some(token) = &self.config.token else {
            bail!(
                "this node has no certificate of that API that is still good, and no token to ask \
                 for one; give it --token, which `mainstay token create` makes on the machine with \
                 the API"
            );
        };
        let pinned = Pinned::new(token.authority());
        let remote = Remote::new(&self.config.server, &pinned.client(), Some(&token.bearer()));
        let calls = Calls::new(remote.client(), super::AGENT);
        let (which, wanted) = (NodeCertificate::Client, self.client_leaf());
        let own = token.clone();
        let request = on_disk(credentials, move |it| Request::new(it, which, &wanted, Some(&own)));
        let certificate = request.await?.certificate(&calls).await?;
        // It has answered, so it was believed.
        let authority = pinned.found().context("the server has shown no authority")?.clone();
        on_disk(credentials, move |it| {
            it.trust(&authority)?;
            Ok(it.keep(which, &certificate)?)
        })
        .await
    }

    /// Acts as the node from now on.
    async fn link(
        &self,
        credentials: &NodeCredentials,
        identity: &Identity,
    ) -> anyhow::Result<Link> {
        let authority = on_disk(credentials, |it| Ok(it.authority()?)).await?;
        let authority = authority.context("there is no authority to trust")?;
        let trust = Trust::new(&[authority])?;
        let shown = Current::new(trust.certified(identity, None)?);
        let link = Link { trust, shown };
        self.connect(&link);
        Ok(link)
    }

    /// Makes connections anew from now on, which show the certificate as it is now.
    fn connect(&self, link: &Link) {
        let tls = link.trust.client(link.shown.clone());
        self.remote.send_replace(Some(Arc::new(Remote::new(&self.config.server, &tls, None))));
    }

    /// Renews the client certificate, for ever.
    async fn keep_client(&self, credentials: &NodeCredentials, link: &Link) {
        let which = NodeCertificate::Client;
        let look = || self.look(credentials, which, self.client_leaf());
        loop {
            let there = retry("look at the node's certificate", look).await;
            if let Some((_, Renewal::Keep { until })) = there {
                tokio::time::sleep(wait_until(until, RENEWAL_INTERVAL)).await;
                continue;
            }
            let renewed = retry("renew the node's certificate", async || {
                let identity = match look().await? {
                    Some((_, renewal)) if is_usable(&renewal, Timestamp::now()) => {
                        self.ask(credentials, which, self.client_leaf()).await?
                    }
                    _ => self.enrol(credentials).await?,
                };
                Ok((link.trust.certified(&identity, None)?, identity.not_after()))
            });
            let (certified, end) = Box::pin(renewed).await;
            link.shown.replace(certified);
            tracing::info!("the node's client certificate was renewed");
            self.connect(link);
            tokio::time::sleep(pause_before(end)).await;
        }
    }

    /// Gets and renews the serving certificate, and serves the node's API with it, for ever.
    async fn keep_serving(
        &self,
        credentials: &NodeCredentials,
        link: &Link,
        listener: Option<TcpListener>,
        node: NodeApi,
    ) {
        let Some(listener) = listener else { return };
        let (shown, mut there) = watch::channel(None::<Arc<Current>>);
        let serve = async {
            let Ok(current) = there.wait_for(Option::is_some).await.map(|it| it.clone()) else {
                return;
            };
            let Some(current) = current else { return };
            node_api::serve(listener, link.trust.server(current), node).await;
        };
        let keep = async {
            loop {
                let kept = retry("get a certificate for the node's own API", || {
                    self.serving(credentials, link, &shown)
                });
                let (wanted, until) = Box::pin(kept).await;
                while Timestamp::now() < until && self.serving_leaf() == wanted {
                    tokio::time::sleep(wait_until(until, ADDRESS_INTERVAL)).await;
                }
            }
        };
        tokio::join!(serve, keep);
    }

    /// Sees to it that the serving certificate is what is wanted now; answers what that is, and when to look
    /// again.
    async fn serving(
        &self,
        credentials: &NodeCredentials,
        link: &Link,
        shown: &watch::Sender<Option<Arc<Current>>>,
    ) -> anyhow::Result<(Leaf, Timestamp)> {
        let (which, wanted) = (NodeCertificate::Serving, self.serving_leaf());
        let show = |identity: &Identity| -> anyhow::Result<()> {
            let certified = link.trust.certified(identity, None)?;
            let current = shown.borrow().clone();
            match current {
                Some(current) => current.replace(certified),
                None => drop(shown.send_replace(Some(Current::new(certified)))),
            }
            Ok(())
        };
        match self.look(credentials, which, wanted.clone()).await? {
            Some((identity, Renewal::Keep { until })) => {
                show(&identity)?;
                return Ok((wanted, until));
            }
            // Better than none, while another one is asked for.
            Some((identity, renewal)) if is_usable(&renewal, Timestamp::now()) => show(&identity)?,
            _ => {}
        }
        let identity = self.ask(credentials, which, wanted.clone()).await?;
        show(&identity)?;
        let pause = pause_before(identity.not_after());
        Ok((wanted, Timestamp::now().saturating_add(pause).unwrap_or(Timestamp::MAX)))
    }

    fn client_leaf(&self) -> Leaf {
        Leaf {
            common_name: format!("system:node:{}", self.config.node_name),
            organization: Some("system:nodes".to_owned()),
            usage: Usage::Client,
            names: BTreeSet::new(),
        }
    }

    fn serving_leaf(&self) -> Leaf {
        let addresses = mainstay_node::addresses::now(&self.config.node_ips).ips;
        let name = self.config.node_name.parse::<SubjectName>().ok();
        Leaf {
            usage: Usage::Server,
            names: addresses.into_iter().map(SubjectName::Ip).chain(name).collect(),
            ..self.client_leaf()
        }
    }
}

/// Work on the node's files and keys, which is not for those who start pods.
async fn on_disk<T: Send + 'static>(
    credentials: &NodeCredentials,
    work: impl FnOnce(&NodeCredentials) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let credentials = credentials.clone();
    blocking(move || work(&credentials)).await
}

/// Whom the node trusts, and what it shows.
struct Link {
    trust: Trust,
    shown: Arc<Current>,
}

/// Whether a certificate can still be shown, if only to get the next one.
fn is_usable(renewal: &Renewal, now: Timestamp) -> bool {
    match renewal {
        Renewal::Keep { .. } => true,
        Renewal::Issue(reason) => match reason {
            Reason::Ending(when) => *when > now,
            Reason::Names(_) | Reason::UnsetClock | Reason::NotYetValid => true,
            Reason::OtherAuthority
            | Reason::OtherKey
            | Reason::OtherSubject
            | Reason::OtherUsage => false,
        },
    }
}

/// How long a new certificate is left alone that ends then. One that is not good by this machine's clock,
/// since that is not set, or the API's is not, is not asked for without end.
fn pause_before(end: Timestamp) -> Duration {
    let life = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
    (life / 10).clamp(Duration::from_secs(1), LONGEST_PAUSE)
}

fn wait_until(until: Timestamp, longest: Duration) -> Duration {
    let wait = until.duration_since(Timestamp::now());
    Duration::try_from(wait).unwrap_or_default().clamp(SHORTEST_PAUSE, longest)
}
