//! The connection to the API, and who the node is on it.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use mainstay_client::Calls;
use mainstay_pki::{Identity, NodeCertificate, NodeCredentials, Reason, Renewal};
use mainstay_proxy::Proxies;
use tokio::sync::watch;
use tokio::time::Instant;

use super::decide::{Found, Given, Kept, Proof, Step, decide};
use super::{LOOK_INTERVAL, Member, MemberConfig};
use crate::api::blocking;
use crate::api::enrol::{Asker, ask, client_leaf, look, on_disk, pause_before, wait_until};
use crate::api::kubeconfig::{self, Brought, Exec, Kubeconfig, Missing, Trusted};
use crate::api::remote::Remote;
use crate::api::tls::{Current, certified, client};

const CLIENT: NodeCertificate = NodeCertificate::Client;

/// How long a first certificate is not asked for again, after the API did not know the node.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);

/// What to do when the API does not know the node.
pub(super) const REMEDY: &str =
    "`kubeadm token create`, or whoever looks after the cluster, makes a new one";

/// The connection, as it is.
pub(super) struct Link<'a> {
    member: &'a Member,
    credentials: &'a NodeCredentials,
    connected: Option<Connection>,
    /// Whether the API knows who asks; `None` until it has said something.
    known: watch::Sender<Option<bool>>,
    heard: watch::Receiver<Option<bool>>,
    /// Until when the newest certificate is left alone.
    fresh: Option<Instant>,
    /// Until when being refused is no reason for a first certificate.
    refused: Option<Instant>,
    /// Whether it was told that a first certificate is asked for.
    begins: bool,
    /// What a program has brought last, and when.
    brought: Option<(Exec, Brought, Instant)>,
}

/// What a connection is made with. One that is equal need not be made again.
#[derive(PartialEq)]
struct Connection {
    cluster: Kubeconfig,
    certificate: Option<String>,
    token: Option<String>,
}

/// What was read of the files.
struct Files {
    kubeconfig: anyhow::Result<Kubeconfig>,
    kept: Option<(Identity, Renewal)>,
}

impl<'a> Link<'a> {
    pub(super) fn new(member: &'a Member, credentials: &'a NodeCredentials) -> Self {
        let (known, heard) = watch::channel(None);
        let (connected, fresh, refused) = (None, None, None);
        let (begins, brought) = (false, None);
        Self { member, credentials, connected, known, heard, fresh, refused, begins, brought }
    }

    fn config(&self) -> &'a MemberConfig {
        &self.member.config
    }

    /// Waits for so long, or until the API says something else of the node than before.
    pub(super) async fn rest(&mut self, wait: Duration) {
        let before = *self.heard.borrow();
        // Whoever is refused is refused in all that he asks.
        let news = self.heard.wait_for(|now| *now != before);
        // A timeout is what was waited for. The sender is ours.
        let Ok(Ok(_)) = tokio::time::timeout(wait, news).await else { return };
        let (now, server) = (*self.heard.borrow(), self.config().kubeconfig.display());
        match (before, now) {
            (_, Some(false)) => tracing::error!(
                "the API does not take the credentials that {server} has for this node (401 Unauthorized): they \
                 may have expired, been revoked, or be another cluster's; {REMEDY}; pods run on"
            ),
            (Some(false), Some(true)) => {
                tracing::info!("the API takes the node's credentials again");
            }
            _ => {}
        }
    }

    /// Looks at what there is, does what is to be done about it, and says when to look again.
    pub(super) async fn see_to_it(&mut self) -> anyhow::Result<Duration> {
        let Files { kubeconfig, kept } = self.read().await?;
        let now = Timestamp::now();
        let found = self.found(&kubeconfig, kept.as_ref());
        let kept_identity = kept.as_ref().map(|(identity, _)| identity);
        let path = self.config().kubeconfig.display();
        if found.refused {
            // What somebody has mended is tried before anything else.
            let step = decide(&Found { refused: false, ..found }, now);
            if let (Step::Show(proof) | Step::Renew(proof), Ok(cluster)) = (step, &kubeconfig)
                && self.connect(cluster, proof, kept_identity)?
            {
                return Ok(LOOK_INTERVAL);
            }
        }
        match decide(&found, now) {
            Step::Unreadable => {
                let error = kubeconfig.err().context("the kubeconfig cannot be read")?;
                let until_then = match self.connected {
                    Some(_) => "what it said before holds",
                    None => "the API cannot be asked",
                };
                return Err(error.context(until_then));
            }
            Step::Ended(when) => anyhow::bail!(
                "the certificate that {path} has for this node ended at {when}; {REMEDY}, for \
                 --bootstrap-kubeconfig"
            ),
            Step::Show(proof) => {
                self.connect(&kubeconfig?, proof, kept_identity)?;
            }
            Step::Renew(proof) => {
                // One that is due with a kubeconfig that is not there is one of the other cluster.
                let cluster = match kubeconfig {
                    Ok(cluster) => cluster,
                    Err(error) => self.bootstrap(Some(&error)).await?,
                };
                self.connect(&cluster, proof, kept_identity)?;
                let calls = self.member.upstream.calls();
                self.ask(&Asker { calls, token: None, remedy: REMEDY }).await?;
                tracing::info!("the node has another client certificate");
                return Ok(Duration::ZERO);
            }
            Step::Settle => {
                let cluster = self.bootstrap(kubeconfig.as_ref().err()).await?;
                self.settle(cluster).await?;
                return Ok(Duration::ZERO);
            }
            Step::Bootstrap => {
                if !std::mem::replace(&mut self.begins, true) {
                    let why = match &kubeconfig {
                        Err(error) => format!("{error:#}"),
                        Ok(_) if found.refused => "the API does not take what it says".to_owned(),
                        Ok(_) => format!("{path} has no certificate that is good"),
                    };
                    tracing::info!(why, "a first certificate is asked for");
                }
                let cluster = self.bootstrap(kubeconfig.as_ref().err()).await?;
                let shown = Connection::of(&cluster, cluster.identity().as_ref(), true);
                let remote = shown.remote(cluster.identity().as_ref(), &self.config().proxies)?;
                let calls = Calls::new(remote.client(), crate::api::AGENT);
                let asker = Asker { calls, token: None, remedy: REMEDY };
                self.ask(&asker).await.context("cannot get a first certificate")?;
                self.refused = found.refused.then(|| Instant::now() + REFUSED_PAUSE);
                self.settle(cluster).await?;
                self.begins = false;
                tracing::info!("the node has a client certificate");
                return Ok(Duration::ZERO);
            }
        }
        let due = kept.and_then(|(_, renewal)| match renewal {
            Renewal::Keep { until } if self.config().rotates => Some(until),
            Renewal::Keep { .. } | Renewal::Issue(_) => None,
        });
        Ok(due.map_or(LOOK_INTERVAL, |until| wait_until(until, LOOK_INTERVAL)))
    }

    async fn read(&mut self) -> anyhow::Result<Files> {
        let path = self.config().kubeconfig.clone();
        let kubeconfig = match blocking(move || Ok(Kubeconfig::read(&path))).await? {
            Ok(read) => self.complete(read).await,
            Err(error) => Err(error),
        };
        let kept = look(self.credentials, CLIENT, client_leaf(&self.config().node_name)).await?;
        // One of another name was this node's under another name.
        let is_own = |renewal: &Renewal| {
            let others = [Reason::OtherSubject, Reason::OtherUsage, Reason::OtherKey];
            !others.iter().any(|it| *renewal == Renewal::Issue(it.clone()))
        };
        Ok(Files { kubeconfig, kept: kept.filter(|(_, renewal)| is_own(renewal)) })
    }

    /// With what its program brings, which is run when that is over, or the API does not take it.
    async fn complete(&mut self, read: Kubeconfig) -> anyhow::Result<Kubeconfig> {
        let Some(exec) = read.exec.clone() else { return Ok(read) };
        let soon = Timestamp::now().saturating_add(LOOK_INTERVAL * 2).unwrap_or(Timestamp::MAX);
        let is_refused = *self.heard.borrow() == Some(false);
        let brought = match self.brought.take() {
            Some((of, brought, at))
                if of == exec
                    && brought.until.is_none_or(|until| soon < until)
                    && !(is_refused && at.elapsed() >= LOOK_INTERVAL) =>
            {
                self.brought = Some((of, brought.clone(), at));
                brought
            }
            _ => {
                let path = self.config().kubeconfig.display();
                let brought = exec.run().await.with_context(|| path.to_string())?;
                self.brought = Some((exec, brought.clone(), Instant::now()));
                brought
            }
        };
        read.with(brought)
    }

    fn found(
        &self,
        kubeconfig: &anyhow::Result<Kubeconfig>,
        kept: Option<&(Identity, Renewal)>,
    ) -> Found {
        let config = self.config();
        let is_past = |until: Option<Instant>| until.is_none_or(|it| it <= Instant::now());
        let given = match kubeconfig {
            Ok(read) => match (read.identity(), &read.token) {
                (Some(identity), _) => Given::Certificate(identity.not_after()),
                (None, Some(_)) => Given::Token,
                (None, None) => Given::Nothing,
            },
            Err(error) if error.is::<Missing>() => Given::Missing,
            Err(_) => Given::Unreadable,
        };
        let fresh = !is_past(self.fresh);
        let kept = kept.map(|(identity, renewal)| {
            let due = match renewal {
                // The clock will be set, and until then no other one is better.
                Renewal::Keep { .. } | Renewal::Issue(Reason::NotYetValid) => false,
                Renewal::Issue(_) => true,
            };
            Kept { ends: identity.not_after(), due, fresh }
        });
        Found {
            given,
            kept,
            bootstrap: config.bootstrap.is_some(),
            rotates: config.rotates,
            refused: *self.heard.borrow() == Some(false) && is_past(self.refused),
        }
    }

    /// The other kubeconfig, and what is wrong with the first one if that cannot be read, either.
    async fn bootstrap(&self, wrong: Option<&anyhow::Error>) -> anyhow::Result<Kubeconfig> {
        let path = self.config().bootstrap.clone().context("there is no --bootstrap-kubeconfig")?;
        let why = match wrong {
            Some(error) => format!("{error:#}, and --bootstrap-kubeconfig does not help"),
            None => {
                let given = self.config().kubeconfig.display();
                format!("{given} has no certificate that is good")
            }
        };
        blocking(move || Kubeconfig::read(&path).context(why)).await
    }

    /// Asks for a client certificate, and keeps it.
    async fn ask(&mut self, asker: &Asker) -> anyhow::Result<()> {
        let leaf = client_leaf(&self.config().node_name);
        let certificate = ask(self.credentials, CLIENT, leaf, asker).await?;
        let keep =
            move |it: &NodeCredentials| Ok(it.keep(CLIENT, &certificate, Timestamp::now())?);
        let identity = on_disk(self.credentials, keep).await?;
        self.fresh = Some(Instant::now() + pause_before(identity.not_after(), Timestamp::now()));
        Ok(())
    }

    /// Has the kubeconfig name the node's own certificate.
    async fn settle(&self, cluster: Kubeconfig) -> anyhow::Result<()> {
        let path = self.config().kubeconfig.clone();
        on_disk(self.credentials, move |it| {
            let certificate = std::path::absolute(it.current_path(CLIENT))?;
            kubeconfig::write(&path, &cluster, &certificate)
        })
        .await
    }

    /// Makes connections anew from now on, unless they are as they should be. Tells which.
    fn connect(
        &mut self,
        cluster: &Kubeconfig,
        proof: Proof,
        kept: Option<&Identity>,
    ) -> anyhow::Result<bool> {
        let given = cluster.identity();
        let (identity, has_token) = match proof {
            Proof::Given => (given.as_ref(), true),
            Proof::Kept => (kept, false),
        };
        let wanted = Connection::of(cluster, identity, has_token);
        if self.connected.as_ref() == Some(&wanted) {
            return Ok(false);
        }
        let (server, path) = (&wanted.cluster.server, self.config().kubeconfig.display());
        let remote = wanted
            .remote(identity, &self.config().proxies)
            .with_context(|| format!("cannot use {path}"))?;
        if wanted.cluster.trusted == Trusted::Anybody {
            tracing::warn!(
                "{path} says insecure-skip-tls-verify: whoever answers at {server} is believed to be the API, and \
                 can have this machine do anything"
            );
        }
        tracing::info!(%server, kubeconfig = %path, "the node belongs to this API");
        self.known.send_replace(None);
        let remote = remote.telling(self.known.clone());
        self.member.upstream.connect(remote);
        self.connected = Some(wanted);
        Ok(true)
    }
}

impl Connection {
    fn of(cluster: &Kubeconfig, identity: Option<&Identity>, has_token: bool) -> Self {
        Self {
            cluster: cluster.clone(),
            certificate: identity.map(|it| it.certificate_pem().to_owned()),
            token: cluster.token.clone().filter(|_| has_token),
        }
    }

    /// The API there, behind these proxies if the kubeconfig names none.
    fn remote(&self, identity: Option<&Identity>, proxies: &Proxies) -> anyhow::Result<Remote> {
        let shown = identity.map(|it| certified(it, None)).transpose()?.map(Current::new);
        let tls = match &self.cluster.trusted {
            Trusted::Authorities(all) => client::of(all, shown)?,
            // They are in many files.
            Trusted::Machines => tokio::task::block_in_place(|| client::of_machine(shown))?,
            Trusted::Anybody => client::unverified(shown)?,
        };
        let proxy = self.cluster.proxy.as_deref().map(Proxies::one).transpose()?;
        let proxies = proxy.as_ref().unwrap_or(proxies);
        let name = self.cluster.server_name.as_ref();
        Ok(Remote::named(&self.cluster.server, name, proxies, &tls, self.token.as_deref()))
    }
}
