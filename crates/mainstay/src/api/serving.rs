//! The node's own API, served with a certificate that the cluster's API signs.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use mainstay_node::node_api::{self, NodeApi};
use mainstay_pki::{Identity, Leaf, NodeCertificate, NodeCredentials, Renewal, SubjectName, Usage};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;

use super::enrol::{Asker, ask, client_leaf, is_usable, look, on_disk, pause_before, wait_until};
use super::retry;
use super::tls::certified;

/// How often the node's addresses are compared with those of its serving certificate.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(10);

/// What the node's own API is served with. While there is nothing, who connects is told at once that there is
/// none, and waits for nothing. Source: `GetCertificate` in `NewMainKubelet` of `pkg/kubelet/kubelet.go`.
#[derive(Debug, Default)]
pub(super) struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

/// A serving certificate that is asked for and renewed.
pub(super) struct Serving<'a> {
    pub(super) credentials: &'a NodeCredentials,
    /// The node, by its certificate.
    pub(super) asker: Asker,
    pub(super) node_name: &'a str,
    /// The node's addresses; with none the machine is asked.
    pub(super) node_ips: &'a [IpAddr],
}

/// Serves the node's own API from when its TLS can be set up. Never ends.
pub(super) async fn serve(
    listener: TcpListener,
    node: NodeApi,
    tls: impl Fn() -> anyhow::Result<Arc<ServerConfig>>,
) {
    let tls = retry("serve the node's own API", async || tls()).await;
    node_api::serve(listener, tls, node).await;
}

impl Shown {
    /// Shows this one from now on.
    pub(super) fn show(&self, identity: &Identity) -> anyhow::Result<()> {
        let certified = Arc::new(certified(identity, None)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(certified);
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Serving<'_> {
    /// Keeps one that is shown, for ever.
    pub(super) async fn keep(&self, shown: &Shown) {
        loop {
            let kept = retry("get a certificate for the node's own API", || self.see_to_it(shown));
            let (wanted, until) = Box::pin(kept).await;
            while Timestamp::now() < until && self.leaf() == wanted {
                tokio::time::sleep(wait_until(until, ADDRESS_INTERVAL)).await;
            }
        }
    }

    /// Sees to it that the serving certificate is what is wanted now; answers what that is, and when to look
    /// again.
    async fn see_to_it(&self, shown: &Shown) -> anyhow::Result<(Leaf, Timestamp)> {
        let (which, wanted) = (NodeCertificate::Serving, self.leaf());
        match look(self.credentials, which, wanted.clone()).await? {
            Some((identity, Renewal::Keep { until })) => {
                shown.show(&identity)?;
                return Ok((wanted, until));
            }
            // Better than none, while another one is asked for.
            Some((identity, renewal)) if is_usable(&renewal, Timestamp::now()) => {
                shown.show(&identity)?;
            }
            _ => {}
        }
        let certificate = ask(self.credentials, which, wanted.clone(), &self.asker).await?;
        let keep =
            move |it: &NodeCredentials| Ok(it.keep(which, &certificate, Timestamp::now())?);
        let identity = on_disk(self.credentials, keep).await?;
        shown.show(&identity)?;
        let now = Timestamp::now();
        let pause = pause_before(identity.not_after(), now);
        Ok((wanted, now.saturating_add(pause).unwrap_or(Timestamp::MAX)))
    }

    fn leaf(&self) -> Leaf {
        let addresses = mainstay_node::addresses::now(self.node_ips).ips;
        let name = self.node_name.parse::<SubjectName>().ok();
        Leaf {
            usage: Usage::Server,
            names: addresses.into_iter().map(SubjectName::Ip).chain(name).collect(),
            ..client_leaf(self.node_name)
        }
    }
}
