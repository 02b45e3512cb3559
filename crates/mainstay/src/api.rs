//! The Kubernetes API and the node's own: opened or joined beside the agent, which does not wait for them.
//!
//! [`Cluster`] is the API that the node belongs to. It is embedded ([`Api`]), another mainstay's
//! ([`Joined`]), or that of any cluster ([`Member`]).
//!
//! What keeps the API from being opened (a port that is taken, a damaged store, a full disk) is told with
//! its remedy, and tried again; static pods run meanwhile.

mod cluster;
mod controllers;
mod enrol;
mod etcd;
mod joined;
mod kubeconfig;
mod late;
mod member;
mod node_auth;
mod pinned;
pub(crate) mod remote;
mod serving;
pub(crate) mod tls;
mod upstream;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use mainstay_apiserver::{Access, ApiServer, Config, Nodes, User, serve};
use mainstay_client::Calls;
use mainstay_controllers::{Facts, NodeTimes, Selection};
use mainstay_linux::netlink::RouteSocket;
use mainstay_node::node_api::{self, NodeApi};
use mainstay_pki::{Kubeconfig, Note, Pki, StaticTokens, SubjectName, Wanted};
use mainstay_store::Store;
use mainstay_store::embedded::{EmbeddedStore, Options};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) use cluster::{Cluster, ClusterConfig};
pub(crate) use joined::{JoinConfig, Joined};
pub(crate) use late::LateApi;
pub(crate) use member::{Member, MemberConfig};
use node_auth::{ApiAuth, Held};
use tls::Credentials;

use crate::config::{Cached, EtcdFlags, NodeAuthSettings, NodeServer};

/// Who asks, where it is not the agent or a controller.
pub(crate) const AGENT: &str = concat!("mainstay/", env!("CARGO_PKG_VERSION"));

/// The first and the longest wait after something could not be opened.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// How often the credentials are looked at at least: the clock may be set.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3600);

/// How long the credentials are left alone at least.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// What the API is opened with.
#[derive(Clone, Debug)]
pub(crate) struct ApiConfig {
    pub(crate) node_name: String,
    /// The node's addresses.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) bind_address: IpAddr,
    /// The API's port; 0 is a free one.
    pub(crate) secure_port: u16,
    /// Where the node's own API is.
    pub(crate) node_server: NodeServer,
    /// More names of the API.
    pub(crate) names: BTreeSet<SubjectName>,
    /// Where the kubeconfig of the admin goes.
    pub(crate) kubeconfig: PathBuf,
    /// Tokens of users, as kube-apiserver's `--token-auth-file` has them.
    pub(crate) token_auth_file: Option<PathBuf>,
    /// Where the objects are, if not in a file here.
    pub(crate) etcd: Arc<EtcdFlags>,
    /// Which controllers run.
    pub(crate) controllers: Selection,
    /// How long they wait for nodes.
    pub(crate) node_times: NodeTimes,
    /// For how long certificates are good at most that are signed for others.
    pub(crate) signing_duration: SignedDuration,
    pub(crate) root_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

/// The API, as far as it is there.
pub(crate) struct Api {
    config: ApiConfig,
    server: watch::Sender<Option<ApiServer>>,
    /// What controllers are told of it; there before the server is.
    facts: Arc<OnceLock<Facts>>,
    node: NodePort,
}

/// The port of the node's own API, which the node registers with.
pub(crate) struct NodePort(Option<(std::net::TcpListener, u16)>);

impl NodePort {
    /// Without one, pods run and the reason is told.
    fn bind(server: &NodeServer, run_dir: &Path) -> Self {
        let Some(address) = server.address else { return Self(None) };
        match bind(address, run_dir, "port") {
            Ok(bound) => Self(Some(bound)),
            Err(error) => {
                let port = address.port();
                tracing::error!(
                    "cannot listen on port {port} (--port): {error:#}; kubectl's logs, exec and the \
                     like will not work until the agent is started with another one"
                );
                Self(None)
            }
        }
    }

    fn port(&self) -> Option<u16> {
        self.0.as_ref().map(|(_, port)| *port)
    }

    fn take(&mut self) -> Option<TcpListener> {
        self.0.take().and_then(|(it, _)| TcpListener::from_std(it).ok())
    }
}

impl Api {
    /// An API that is not opened yet. Only the port of the node's own is taken, which the node registers
    /// with.
    pub(crate) fn new(config: ApiConfig) -> Self {
        let node = NodePort::bind(&config.node_server, &config.run_dir);
        Self { config, server: watch::Sender::new(None), facts: Arc::default(), node }
    }

    /// The API for somebody in this process, who may ask before it is there.
    pub(crate) fn client(&self, user: User) -> LateApi {
        LateApi::new(self.server.subscribe(), user)
    }

    /// Runs the controllers from when the API is there, and keeps house in it. Never ends.
    pub(crate) fn controllers(&self) -> impl Future<Output = ()> + Send + use<> {
        let (name, selection) = (self.config.node_name.clone(), self.config.controllers.clone());
        controllers::run(self.server.subscribe(), self.facts.clone(), name, selection)
    }

    /// The port of the node's own API, if it has one.
    pub(crate) fn node_port(&self) -> Option<u16> {
        self.node.port()
    }

    /// Who may ask the node's API.
    pub(crate) fn node_auth(&self) -> Arc<dyn node_api::NodeAuth> {
        let client = self.client(User::master("system:node-api"));
        let calls = Calls::new(kube::Client::new(client, "default"), AGENT);
        // Nobody is asked over a wire, so nothing has to be remembered.
        let settings = self.config.node_server.auth.clone();
        let settings = NodeAuthSettings { cached: Cached::default(), ..settings };
        Arc::new(ApiAuth::new(calls, &self.config.node_name, settings, Held::ByTls))
    }

    /// Opens everything, and keeps it open. Never ends.
    pub(crate) async fn run(mut self, node: NodeApi) {
        let listener = self.node.take();
        let config = &self.config;
        let health = serve_plain(&config.node_server, &config.run_dir, node.clone());
        let rest = async {
            let keys = || {
                let config = config.clone();
                blocking(move || {
                    let pki = open_pki(&config)?;
                    let credentials = Credentials::of(&pki)?;
                    Ok((Arc::new(pki), credentials))
                })
            };
            let (pki, credentials) = retry("open the API's keys", keys).await;
            let node_side = async {
                if let Some(listener) = listener {
                    let tls = || async { credentials.node_server(&config.node_server.tls) };
                    let tls = retry("serve the node's own API", tls).await;
                    node_api::serve(listener, tls, node.clone()).await;
                }
            };
            let api_side = async {
                let address = (config.bind_address, config.secure_port).into();
                let (listener, port) =
                    listen(address, "--secure-port", &config.run_dir, "secure-port").await;
                write_kubeconfig(config, &pki, port).await;
                let server =
                    retry("open the Kubernetes API", || self.open(&pki, &credentials)).await;
                // Set nowhere else.
                let _ = self.facts.set(Facts {
                    root_ca: pki.authority().certificates_pem().to_owned(),
                    authority: Some(pki.authority().clone()),
                    node_times: config.node_times,
                    signing_duration: config.signing_duration,
                    api_names: pki.api_server_names().clone(),
                });
                self.server.send_replace(Some(server.clone()));
                tracing::info!(%address, port, kubeconfig = %config.kubeconfig.display(), "the Kubernetes API is there");
                let endpoint =
                    mainstay_apiserver::reachable(config.bind_address, &config.addresses);
                let endpoint = endpoint.map(|ip| SocketAddr::new(ip, port));
                tokio::join!(
                    server.keep_endpoint(endpoint),
                    serve::serve(listener, credentials.api_server(), server.clone()),
                    renew(config, pki, &credentials, port),
                );
            };
            tokio::join!(node_side, api_side);
        };
        tokio::join!(health, rest);
    }

    /// Opens the store and the server over it.
    async fn open(&self, pki: &Pki, credentials: &Credentials) -> anyhow::Result<ApiServer> {
        let tokens = self.config.token_auth_file.clone();
        let tokens = blocking(move || static_tokens(tokens.as_deref())).await?;
        let config = Config {
            store: self.store(pki).await?,
            access: Access::new(pki.tokens().clone(), tokens),
            nodes: Some(Nodes::new(credentials.node_client())),
            version: mainstay_node::version(),
        };
        let server = ApiServer::open(config).await;
        server.map_err(|error| anyhow::anyhow!("{}", error.message))
    }
}

impl Api {
    /// Opens what the objects are in.
    async fn store(&self, pki: &Pki) -> anyhow::Result<Arc<dyn Store>> {
        let flags = &self.config.etcd;
        if let Some(address) = &flags.store {
            return etcd::open(address, flags, pki).await;
        }
        let path = self.config.root_dir.join("api.redb");
        let open = move || Ok(EmbeddedStore::open(&path, Options::default())?);
        Ok(Arc::new(blocking(open).await?))
    }
}

/// Work on files, and with keys, is not for those who start pods.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("this process is ending")?
}

/// Does something, however often it takes, and tells a failure once. `what` it is, as in `open the door`.
async fn retry<T, F>(what: &str, mut open: impl FnMut() -> F) -> T
where
    F: Future<Output = anyhow::Result<T>>,
{
    let (mut wait, mut told) = (FIRST_WAIT, String::new());
    loop {
        let error = match open().await {
            Ok(opened) => return opened,
            Err(error) => format!("cannot {what}: {error:#}"),
        };
        if told != error {
            tracing::error!("{error}; it is tried again, and pods run without it");
            told = error;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Says without TLS how the node is, and what everybody may read if that is wanted. Never ends.
async fn serve_plain(server: &NodeServer, run_dir: &Path, node: NodeApi) {
    let health = async {
        let Some(address) = server.healthz else { return };
        let (listener, _) = listen(address, "--healthz-port", run_dir, "healthz-port").await;
        node_api::serve_health(listener, node.clone()).await;
    };
    let read_only = async {
        let Some(address) = server.read_only else { return };
        let (listener, _) = listen(address, "readOnlyPort", run_dir, "read-only-port").await;
        node_api::serve_read_only(listener, node.clone()).await;
    };
    tokio::join!(health, read_only);
}

/// Listens on a port, and writes down which one it is.
async fn listen(address: SocketAddr, flag: &str, run_dir: &Path, file: &str) -> (TcpListener, u16) {
    let bound = || async {
        let (listener, port) = bind(address, run_dir, file)?;
        Ok((TcpListener::from_std(listener)?, port))
    };
    retry(&format!("open port {} ({flag})", address.port()), bound).await
}

fn bind(
    address: SocketAddr,
    run_dir: &Path,
    file: &str,
) -> anyhow::Result<(std::net::TcpListener, u16)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let path = run_dir.join(file);
    std::fs::write(&path, format!("{port}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok((listener, port))
}

fn open_pki(config: &ApiConfig) -> anyhow::Result<Pki> {
    let mut addresses: BTreeSet<IpAddr> = config.addresses.iter().copied().collect();
    if !config.bind_address.is_unspecified() {
        addresses.insert(config.bind_address);
    }
    let mut extra = config.names.clone();
    if config.bind_address.is_unspecified() {
        extra.extend(listened_at(config.bind_address).into_iter().map(SubjectName::Ip));
    }
    open_instance_pki(&config.root_dir, &config.node_name, addresses, extra)
}

/// The instance's own authority, and what it has signed for these names and addresses.
fn open_instance_pki(
    root_dir: &Path,
    node_name: &str,
    addresses: BTreeSet<IpAddr>,
    extra: BTreeSet<SubjectName>,
) -> anyhow::Result<Pki> {
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let wanted = Wanted { node_name: node_name.to_owned(), host_name, addresses, extra };
    let (pki, notes) = Pki::open(&root_dir.join("pki"), &wanted, Timestamp::now())?;
    for note in notes {
        match &note {
            Note::Made { path } => tracing::debug!(path = %path.display(), "made"),
            Note::Renewed { path, reason } => {
                tracing::info!(path = %path.display(), %reason, "a certificate was renewed");
            }
            Note::Warning { path, text } => tracing::warn!(path = %path.display(), "{text}"),
        }
    }
    Ok(pki)
}

/// Whoever looks at its port looks for an API of this instance.
fn forget_own_port(run_dir: &Path) {
    let stale = run_dir.join("secure-port");
    if let Err(error) = std::fs::remove_file(&stale)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot remove {}", stale.display());
    }
}

/// The addresses of this machine that an unspecified one stands for.
fn listened_at(bind: IpAddr) -> BTreeSet<IpAddr> {
    let listed = RouteSocket::open().and_then(|mut socket| socket.addresses());
    let listed = listed.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the machine's addresses; the API's certificate is for the node's only");
        Vec::new()
    });
    // Those of one link only are of no use without its name. An unspecified one of the second family
    // means both.
    let fits = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => bind.is_ipv6() && !ip.is_unicast_link_local(),
    };
    listed.into_iter().map(|it| it.address).filter(fits).collect()
}

fn static_tokens(path: Option<&Path>) -> anyhow::Result<StaticTokens> {
    let Some(path) = path else { return Ok(StaticTokens::default()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {} (--token-auth-file)", path.display()))?;
    let tokens = StaticTokens::parse(&text)
        .with_context(|| format!("{} (--token-auth-file) is not valid", path.display()))?;
    for line in tokens.doubtful_lines() {
        tracing::warn!(
            "{}:{line}: the token is empty, or stands in an earlier line that does not count now",
            path.display()
        );
    }
    Ok(tokens)
}

/// Writes the admin's kubeconfig.
async fn write_kubeconfig(config: &ApiConfig, pki: &Arc<Pki>, port: u16) {
    let host = match config.bind_address {
        // The one that others reach, if there is one.
        address if address.is_unspecified() => {
            config.addresses.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]))
        }
        address => address,
    };
    let (path, pki) = (config.kubeconfig.clone(), pki.clone());
    let written = blocking(move || {
        let kubeconfig = Kubeconfig {
            server: &format!("https://{}", SocketAddr::new(host, port)),
            authority_pem: pki.authority().certificates_pem(),
            user: "kubernetes-admin",
            identity: pki.admin(),
        };
        Ok(kubeconfig.write(&path)?)
    });
    if let Err(error) = written.await {
        tracing::warn!("cannot write the kubeconfig {}: {error:#}", config.kubeconfig.display());
    }
}

/// Looks after the credentials for ever: when they have had most of their time, and now and then, since
/// the clock may be set.
async fn renew(config: &ApiConfig, mut pki: Arc<Pki>, credentials: &Credentials, port: u16) {
    loop {
        let now = Timestamp::now();
        let due = pki.next_renewal(now).duration_since(now);
        let due = Duration::try_from(due).unwrap_or_default();
        tokio::time::sleep(due.clamp(RENEWAL_PAUSE, RENEWAL_INTERVAL)).await;
        let wanted = config.clone();
        match blocking(move || open_pki(&wanted)).await {
            Ok(renewed) => {
                pki = Arc::new(renewed);
                if let Err(error) = credentials.replace(&pki) {
                    tracing::warn!("cannot use the renewed certificates: {error:#}");
                }
                write_kubeconfig(config, &pki, port).await;
            }
            Err(error) => tracing::warn!("cannot look after the certificates: {error:#}"),
        }
    }
}
