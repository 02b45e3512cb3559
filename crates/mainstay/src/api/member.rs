//! The API of any Kubernetes cluster, of which this node is one by a kubeconfig.
//!
//! # Flow
//!
//! One task looks at the kubeconfig, the files that it names and the node's own certificate, every ten seconds
//! and when something is due. What it is to do about them is decided in [`decide`]: it connects with what
//! there is, asks for the next certificate, or for the first one with the bootstrap kubeconfig. Another task
//! serves the node's own API.
//!
//! # Guarantees
//!
//! - Nothing that runs pods waits for any of this, and nothing of it ends: what fails is told once, with its
//!   remedy, and tried again.
//! - Files that others replace are taken as they are within ten seconds.
//! - The files are a kubelet's, so that a kubelet can go on with them.

mod decide;
mod link;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_client::wait_after;
use mainstay_node::ApiAccess;
use mainstay_node::node_api::{NodeApi, NodeAuth};
use mainstay_pki::NodeCredentials;
use mainstay_proxy::Proxies;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use self::link::Link;
use super::enrol::Asker;
use super::kubeconfig::{Kubeconfig, Missing};
use super::node_auth::{ApiAuth, Held};
use super::serving::{self, Serving, Shown};
use super::tls::client_ca::Clients;
use super::tls::node_tls;
use super::upstream::Upstream;
use super::{
    LONGEST_WAIT, RENEWAL_INTERVAL, RENEWAL_PAUSE, blocking, open_instance_pki, retry, serve_plain,
};
use crate::config::NodeServer;

/// How often the files are looked at. Source: `UpdateTransport` in `pkg/kubelet/certificate/transport.go`.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How a kubelet calls the newest certificate of a node, with its key.
const CURRENT: &str = "kubelet-client-current.pem";

/// What a member is made with.
#[derive(Clone, Debug)]
pub(crate) struct MemberConfig {
    pub(crate) node_name: String,
    /// The node's addresses; with none the machine is asked.
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) kubeconfig: PathBuf,
    /// The proxies on the way to an API whose kubeconfig names none.
    pub(crate) proxies: Proxies,
    /// What the first certificate is asked for with, if that has to be.
    pub(crate) bootstrap: Option<PathBuf>,
    /// Where certificates are; `None` is where the kubeconfig has its own, else in the root directory.
    pub(crate) certificates: Option<PathBuf>,
    /// Whether the node has client certificates of its own.
    pub(crate) rotates: bool,
    /// Whether the API signs the certificate of the node's own API.
    pub(crate) asks_for_serving: bool,
    /// Where the node's own API is.
    pub(crate) node_server: NodeServer,
    pub(crate) root_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

/// The API, as far as it can be asked.
pub(crate) struct Member {
    config: MemberConfig,
    upstream: Upstream,
    /// Whose certificates clients of the node's own API have, if anybody's.
    clients: Option<Arc<Clients>>,
}

impl Member {
    /// Nothing is asked yet. Only the port of the node's own API is taken, which the node registers
    /// with.
    pub(crate) fn new(config: MemberConfig) -> Self {
        let upstream = Upstream::new(&config.node_server, &config.run_dir);
        let clients = config.node_server.auth.client_ca.as_deref().map(Clients::of);
        Self { config, upstream, clients }
    }

    /// How the agent reaches it.
    pub(crate) fn access(&self) -> ApiAccess {
        self.upstream.access()
    }

    /// Who may ask the node's API.
    pub(crate) fn node_auth(&self) -> Arc<dyn NodeAuth> {
        let (name, settings) = (&self.config.node_name, &self.config.node_server.auth);
        let held = Held::Here(self.clients.clone());
        Arc::new(ApiAuth::new(self.upstream.calls(), name, settings.clone(), held))
    }

    /// Becomes a node, and stays one. Never ends.
    pub(crate) async fn run(mut self, node: NodeApi) {
        let listener = self.upstream.take_port();
        let config = &self.config;
        let health = serve_plain(&config.node_server, &config.run_dir, node.clone());
        let opened = OnceCell::new();
        let link = async { self.keep_link(self.credentials(&opened).await).await };
        let serving = self.keep_serving(&opened, listener, node.clone());
        tokio::join!(health, Box::pin(link), Box::pin(serving));
    }

    /// The node's certificates, which are opened once it is known where they are.
    async fn credentials<'a>(&self, opened: &'a OnceCell<NodeCredentials>) -> &'a NodeCredentials {
        let open = || {
            let config = self.config.clone();
            blocking(move || Ok(NodeCredentials::of_kubelet(&config.directory()?)?))
        };
        opened.get_or_init(|| retry("open the node's certificates", open)).await
    }

    /// Shows the API who the node is, for ever.
    async fn keep_link(&self, credentials: &NodeCredentials) {
        let mut link = Link::new(self, credentials);
        let (mut told, mut failures) = (String::new(), 0u32);
        loop {
            let wait = match Box::pin(link.see_to_it()).await {
                Ok(wait) => {
                    failures = 0;
                    if !std::mem::take(&mut told).is_empty() {
                        tracing::info!("the node can show the API again who it is");
                    }
                    wait
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if told != error {
                        tracing::error!("{error}; it is tried again, and pods run on");
                        told = error;
                    }
                    failures += 1;
                    wait_after(failures, LONGEST_WAIT).min(LOOK_INTERVAL)
                }
            };
            link.rest(wait).await;
        }
    }

    /// Serves the node's own API, for ever: also while it is not known where the node's certificates are.
    async fn keep_serving(
        &self,
        opened: &OnceCell<NodeCredentials>,
        listener: Option<TcpListener>,
        node: NodeApi,
    ) {
        let Some(listener) = listener else { return };
        let settings = &self.config.node_server.tls;
        let clients: Arc<dyn ClientCertVerifier> = if let Some(clients) = self.clients.clone() {
            clients
        } else {
            tracing::warn!(
                "authentication.x509.clientCAFile (--client-ca-file) is not set: the node's own API knows \
                 nobody by a certificate, and kubectl's logs, exec and the like will not work"
            );
            WebPkiClientVerifier::no_client_auth()
        };
        // What the API signs goes before files. Source: `NewMainKubelet` in `pkg/kubelet/kubelet.go`.
        if let Some(files) = &settings.files
            && !self.config.asks_for_serving
        {
            let tls = || node_tls::of_files(clients.clone(), files, settings);
            return serving::serve(listener, node, tls).await;
        }
        let shown = Arc::new(Shown::default());
        let tls = || node_tls::of(clients.clone(), shown.clone(), settings);
        let serve = serving::serve(listener, node, tls);
        if !self.config.asks_for_serving {
            tokio::join!(serve, Box::pin(self.keep_own(&shown)));
            return;
        }
        let asker = Asker { calls: self.upstream.calls(), token: None, remedy: link::REMEDY };
        let (node_name, node_ips) = (&self.config.node_name, &self.config.node_ips);
        let kept = async {
            let credentials = self.credentials(opened).await;
            Serving { credentials, asker, node_name, node_ips }.keep(&shown).await;
        };
        tokio::join!(serve, Box::pin(kept));
    }

    /// Keeps a serving certificate of the instance's own authority that is shown, for ever.
    async fn keep_own(&self, shown: &Arc<Shown>) {
        loop {
            let kept = retry("make a certificate for the node's own API", || {
                let (config, shown) = (self.config.clone(), shown.clone());
                blocking(move || {
                    let addresses = mainstay_node::addresses::now(&config.node_ips).ips;
                    let addresses = addresses.into_iter().collect();
                    let (root_dir, name) = (&config.root_dir, &config.node_name);
                    let pki = open_instance_pki(root_dir, name, addresses, BTreeSet::new())?;
                    shown.show(pki.node())?;
                    Ok(pki.next_renewal(Timestamp::now()))
                })
            });
            let due = kept.await.duration_since(Timestamp::now());
            let due = Duration::try_from(due).unwrap_or_default();
            tokio::time::sleep(due.clamp(RENEWAL_PAUSE, RENEWAL_INTERVAL)).await;
        }
    }
}

impl MemberConfig {
    /// Where the node's certificates are: where the kubeconfig has the newest one of a kubelet, so that who
    /// goes on with it goes on with that, too.
    ///
    /// # Errors
    ///
    /// When the kubeconfig is there and does not say it: in another place the node would be another one.
    fn directory(&self) -> anyhow::Result<PathBuf> {
        if let Some(given) = &self.certificates {
            return Ok(given.clone());
        }
        let file = match Kubeconfig::read(&self.kubeconfig) {
            Ok(read) => read.certificate_file,
            // The first certificate is asked for, and nothing is known of where others have theirs.
            Err(error) if error.is::<Missing>() && self.bootstrap.is_some() => None,
            Err(error) => return Err(error),
        };
        let named = file.filter(|file| file.file_name() == Some(OsStr::new(CURRENT)));
        let named = named.as_deref().and_then(Path::parent).map(Path::to_owned);
        Ok(named.unwrap_or_else(|| self.root_dir.join("kubelet")))
    }
}
