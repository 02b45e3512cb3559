//! Another machine's API, which this node has joined or is about to.
//!
//! # Flow
//!
//! 1. With a token: the server has to show the authority that the token names. Then the node asks for a
//!    client certificate, and keeps it with the authority ([`super::enrol`]).
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

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::Timestamp;
use mainstay_client::Calls;
use mainstay_node::ApiAccess;
use mainstay_node::node_api::{NodeApi, NodeAuth};
use mainstay_pki::{Identity, JoinToken, KeyHash, Leaf, NodeCertificate, NodeCredentials, Renewal};
use tokio::net::TcpListener;

use super::enrol::{Asker, ask, client_leaf, is_usable, look, on_disk, pause_before, wait_until};
use super::node_auth::{ApiAuth, Held};
use super::pinned::Pinned;
use super::remote::{Remote, Server};
use super::serving::{self, Serving, Shown};
use super::tls::{Current, Trust, certified, node_tls};
use super::upstream::Upstream;
use super::{RENEWAL_INTERVAL, blocking, retry, serve_plain};
use crate::config::NodeServer;

/// What to do when the API does not know the node.
const REMEDY: &str = "`mainstay token create`, on the machine with the API, makes a new token";

/// What an API is joined with.
#[derive(Clone, Debug)]
pub(crate) struct JoinConfig {
    pub(crate) node_name: String,
    /// The node's addresses; with none the machine is asked.
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) server: Server,
    pub(crate) token: Option<JoinToken>,
    /// Where the node's own API is.
    pub(crate) node_server: NodeServer,
    pub(crate) root_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

/// The API, as far as it has been joined.
pub(crate) struct Joined {
    config: JoinConfig,
    upstream: Upstream,
}

impl Joined {
    /// Nothing is asked yet. Only the port of the node's own API is taken, which the node registers with.
    pub(crate) fn new(config: JoinConfig) -> Self {
        let upstream = Upstream::new(&config.node_server, &config.run_dir);
        Self { config, upstream }
    }

    /// How the agent reaches it.
    pub(crate) fn access(&self) -> ApiAccess {
        self.upstream.access()
    }

    /// Who may ask the node's API.
    pub(crate) fn node_auth(&self) -> Arc<dyn NodeAuth> {
        let (name, settings) = (&self.config.node_name, &self.config.node_server.auth);
        Arc::new(ApiAuth::new(self.upstream.calls(), name, settings.clone(), Held::ByTls))
    }

    /// Joins, and stays joined. Never ends.
    pub(crate) async fn run(mut self, node: NodeApi) {
        let listener = self.upstream.take_port();
        let config = &self.config;
        let health = serve_plain(&config.node_server, &config.run_dir, node.clone());
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
        let there = look(credentials, NodeCertificate::Client, self.leaf()).await?;
        match there.filter(|_| !other) {
            Some((identity, renewal)) if is_usable(&renewal, Timestamp::now()) => Ok(identity),
            _ => self.enrol(credentials).await,
        }
    }

    /// The node, by its certificate.
    fn asker(&self) -> Asker {
        Asker { calls: self.upstream.calls(), token: None, remedy: REMEDY }
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
        let asker = Asker { calls, token: Some(token.clone()), remedy: REMEDY };
        let which = NodeCertificate::Client;
        let certificate = ask(credentials, which, self.leaf(), &asker).await?;
        // It has answered, so it was believed.
        let authority = pinned.found().context("the server has shown no authority")?.clone();
        on_disk(credentials, move |it| {
            it.trust(&authority)?;
            Ok(it.keep(which, &certificate, Timestamp::now())?)
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
        let shown = Current::new(certified(identity, None)?);
        let link = Link { trust, shown };
        self.connect(&link);
        Ok(link)
    }

    /// Makes connections anew from now on, which show the certificate as it is now.
    fn connect(&self, link: &Link) {
        let tls = link.trust.client(link.shown.clone());
        self.upstream.connect(Remote::new(&self.config.server, &tls, None));
    }

    /// Renews the client certificate, for ever.
    async fn keep_client(&self, credentials: &NodeCredentials, link: &Link) {
        let which = NodeCertificate::Client;
        let look = || look(credentials, which, self.leaf());
        loop {
            let there = retry("look at the node's certificate", look).await;
            if let Some((_, Renewal::Keep { until })) = there {
                tokio::time::sleep(wait_until(until, RENEWAL_INTERVAL)).await;
                continue;
            }
            let renewed = retry("renew the node's certificate", async || {
                let identity = match look().await? {
                    Some((_, renewal)) if is_usable(&renewal, Timestamp::now()) => {
                        let asked = ask(credentials, which, self.leaf(), &self.asker()).await?;
                        let keep = move |it: &NodeCredentials| {
                            Ok(it.keep(which, &asked, Timestamp::now())?)
                        };
                        on_disk(credentials, keep).await?
                    }
                    _ => self.enrol(credentials).await?,
                };
                Ok((certified(&identity, None)?, identity.not_after()))
            });
            let (certified, end) = Box::pin(renewed).await;
            link.shown.replace(certified);
            tracing::info!("the node's client certificate was renewed");
            self.connect(link);
            tokio::time::sleep(pause_before(end, Timestamp::now())).await;
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
        let serving = Serving {
            credentials,
            asker: self.asker(),
            node_name: &self.config.node_name,
            node_ips: &self.config.node_ips,
        };
        let settings = &self.config.node_server.tls;
        let shown = Arc::new(Shown::default());
        let tls = || node_tls::server(link.trust.clients(), shown.clone(), settings);
        tokio::join!(serving::serve(listener, node, tls), serving.keep(&shown));
    }

    fn leaf(&self) -> Leaf {
        client_leaf(&self.config.node_name)
    }
}

/// Whom the node trusts, and what it shows.
struct Link {
    trust: Trust,
    shown: Arc<Current>,
}
