//! Putting the agent and its runtime together. The only place that knows both.

pub(crate) mod remote;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use mainstay_cri::{Images, Runtime, SeccompProfile};
use mainstay_cri_grpc::ServerConfig;
use mainstay_engine::network::{Cluster, Peer, show_ranges};
use mainstay_engine::{
    CniConfig, CredentialProviders, Engine, EngineConfig, EngineImages, ImagesConfig, Keyrings,
    NamesConfig,
};
use mainstay_linux::dbus::system_bus;
use mainstay_linux::machine::huge_pages;
use mainstay_node::{
    Agent, AgentConfig, ApiAccess, GracefulShutdown, ManifestPaths, NodeApiSettings, PodNetwork,
    PodsGroup, look_at_processors, look_at_resources,
};
use mainstay_plan::admission::Kernel;
use mainstay_plan::dns::ClusterDns;
use mainstay_plan::pod_network::PodCluster;
use mainstay_plan::translate::NodeFacts;
use mainstay_pod::{NodeName, Validation};

use crate::config::{Config, Registries};
use crate::instance::Instance;
use crate::systemd::logind_settings;

/// Where the environment says that the machine's message bus is. Source: the D-Bus specification.
const BUS_ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// What pods' names end in, unless the configuration says so: what most clusters have.
const POD_DOMAIN: &str = "cluster.local";

/// What a node is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run pods.
    Run,
    /// To stop them.
    Stop,
}

/// What a node is started with, resolved.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    pub(crate) purpose: Purpose,
    pub(crate) instance: Instance,
    pub(crate) node_name: NodeName,
    pub(crate) manifests: ManifestPaths,
    pub(crate) validation: Validation,
    /// The node's addresses; with none the machine is asked.
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) config: Config,
    pub(crate) registries: Registries,
    /// Programs that have credentials for registries.
    pub(crate) credential_providers: CredentialProviders,
    /// Where configurations and plugins of networks are.
    pub(crate) cni: CniConfig,
    /// Whether pods have names for each other.
    pub(crate) pod_dns: bool,
    /// The control group of all that runs.
    pub(crate) cgroup_root: String,
    /// Who sets its limits.
    pub(crate) pods_group: Arc<dyn PodsGroup>,
}

/// An agent and what is below it.
pub(crate) struct Node {
    pub(crate) agent: Agent,
    /// The embedded runtime, if it is what runs the pods.
    pub(crate) engine: Option<Engine>,
    /// The same as others are served it.
    pub(crate) cri: Option<ServerConfig>,
}

/// What an agent is put on.
struct Below {
    runtime: Arc<dyn Runtime>,
    images: Arc<dyn Images>,
    network: Option<Arc<dyn PodNetwork>>,
    engine: Option<Engine>,
    cri: Option<ServerConfig>,
}

impl NodeConfig {
    /// Where container logs go.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.config.pod_logs_dir.clone().unwrap_or_else(|| self.instance.log_directory())
    }

    /// The socket of the runtime, if it is not the embedded one.
    pub(crate) fn runtime_socket(&self) -> Option<PathBuf> {
        self.config.runtime_endpoint.as_ref().map(|endpoint| endpoint.socket.clone())
    }

    /// Whether new pods have names for each other. Where there is a cluster's DNS, that is asked.
    fn gives_names(&self) -> bool {
        self.pod_dns
            && self.runtime_socket().is_none()
            && self.config.cluster_dns.servers.is_empty()
    }

    /// What these names end in.
    fn pod_domain(&self) -> String {
        let domain = self.config.cluster_dns.domain.trim_end_matches('.');
        if domain.is_empty() { POD_DOMAIN.to_owned() } else { domain.to_owned() }
    }

    /// The DNS of the cluster that pods take themselves to be in: where they have names, what they are called in
    /// their own files is what others find them by.
    fn cluster_dns(&self) -> ClusterDns {
        let configured = self.config.cluster_dns.clone();
        match self.gives_names() {
            true => ClusterDns { domain: self.pod_domain(), ..configured },
            false => configured,
        }
    }

    fn keyrings(&self) -> Keyrings {
        Keyrings {
            providers: self.credential_providers.clone(),
            ..keyrings(&self.instance, &self.registries)
        }
    }
}

/// Opens the runtime, if it is the embedded one, and an agent on it. Another runtime need not be there yet.
///
/// With an API, the node registers there as itself.
pub(crate) async fn node(config: NodeConfig, api: Option<ApiAccess>) -> anyhow::Result<Node> {
    let Below { runtime, images, network, engine, cri } = match config.runtime_socket() {
        Some(socket) => remote::below(&config, socket)?,
        None => embedded(&config).await?,
    };
    let instance = &config.instance;
    let machine = look_at_resources(&instance.root_dir);
    let allocation = &config.config.node.allocation;
    if config.purpose == Purpose::Run {
        let online = look_at_processors().unwrap_or_default();
        allocation.check(&machine, &online).map_err(anyhow::Error::msg)?;
    }
    let facts = NodeFacts {
        name: config.node_name.as_str().to_owned(),
        pods_directory: instance.root_dir.join("pods"),
        log_directory: config.log_directory(),
        cgroup_root: config.cgroup_root.clone(),
        // What the kernel does not tell is not there.
        machine_memory: machine.memory,
        memory_qos: config.config.memory_qos,
        huge_page_sizes: huge_pages().into_keys().collect(),
        allocatable: allocation.amounts(&machine),
        cpu_quotas: config.config.cpu_quotas,
        limited_swap: config.config.limited_swap.then_some(machine.swap),
        pod_pids_limit: config.config.pod_pids_limit,
        longest_wait: config.config.longest_wait,
        seccomp_directory: instance.root_dir.join("seccomp"),
        seccomp_default: match config.config.seccomp_default {
            true => SeccompProfile::RuntimeDefault,
            false => SeccompProfile::Unconfined,
        },
        cluster_dns: config.cluster_dns(),
        pod_domain: config.gives_names().then(|| config.pod_domain()),
        kernel: Kernel {
            sysctls: config.config.allowed_sysctls.clone(),
            apparmor: mainstay_linux::apparmor::is_enabled(),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        },
    };
    let graceful_shutdown = graceful_shutdown(&config)?;
    let agent = AgentConfig {
        node_name: config.node_name.clone(),
        manifests: config.manifests.clone(),
        validation: config.validation,
        manifest_interval: config.config.file_check_frequency,
        ledger_directory: instance.root_dir.join("ledger"),
        control_socket: instance.control_socket(),
        facts,
        resolv_conf: config.config.resolv_conf.clone(),
        addresses: config.node_ips.clone(),
        log_bounds: config.config.log_bounds,
        log_interval: config.config.log_interval,
        pulls: config.config.pulls,
        node_api: NodeApiSettings {
            debugging: config.config.server.debugging,
            idle: config.config.server.idle_timeout,
            configuration: config.config.said.clone(),
        },
        node: Arc::new(config.config.node.clone()),
        machine,
        node_times: config.config.node_times,
        registers: config.config.registers,
        pods_group: config.pods_group,
        manifest_url: config.config.manifest_url.clone(),
        eviction: config.config.eviction.clone(),
        image_gc: config.config.image_gc,
        graceful_shutdown,
        // Source: systemd.exec(5), "Credentials".
        credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        pod_network: network,
        api,
    };
    let agent = Agent::open(agent, runtime, images).context("cannot open the agent")?;
    Ok(Node { agent, engine, cri })
}

/// How pods end at a shutdown of the machine, if the configuration says so.
fn graceful_shutdown(config: &NodeConfig) -> anyhow::Result<Option<GracefulShutdown>> {
    let periods = Arc::new(config.config.shutdown_periods.clone());
    if periods.is_empty() {
        return Ok(None);
    }
    let address = std::env::var(BUS_ADDRESS).ok();
    let bus = system_bus(address.as_deref()).with_context(|| {
        format!("{BUS_ADDRESS} is not unix:path=PATH, where logind could be asked")
    })?;
    Ok(Some(GracefulShutdown { periods, bus, settings: logind_settings(&config.instance) }))
}

/// Opens the embedded runtime.
async fn embedded(config: &NodeConfig) -> anyhow::Result<Below> {
    let instance = &config.instance;
    let engine = instance.engine(&config.cgroup_root, &config.config.pod_cidr)?;
    // Who only stops pods gives no names, and leaves those that they have.
    let names = (config.purpose == Purpose::Run).then(|| NamesConfig {
        offered: config.gives_names(),
        domain: config.pod_domain(),
        resolv_conf: config.config.resolv_conf.clone(),
        machine: mainstay_node::addresses::now(&config.node_ips).ips,
    });
    let cni = config.cni.clone();
    let engine = Engine::own(EngineConfig { cni, names, ..engine });
    let engine = engine.await.context("cannot open the engine")?;
    let images = ImagesConfig {
        files: instance.image_files(),
        files_record: instance.root_dir.join("image-files.json"),
        registries: config.registries.config.clone(),
        keyrings: config.keyrings(),
    };
    let store = engine.store().clone();
    let images = match config.purpose {
        Purpose::Run => EngineImages::open(store, images).context("cannot open the images")?,
        Purpose::Stop => EngineImages::unattended(store, images),
    };
    let images: Arc<dyn Images> = Arc::new(images);
    let cri = ServerConfig {
        runtime: Arc::new(engine.for_clients()),
        images: images.clone(),
        image_dir: instance.store(),
        container_dir: instance.root_dir.clone(),
    };
    Ok(Below {
        runtime: Arc::new(engine.clone()),
        images,
        network: Some(Arc::new(EngineNetwork(engine.clone()))),
        engine: Some(engine),
        cri: Some(cri),
    })
}

/// The engine's network, as the agent tells it of other nodes.
struct EngineNetwork(Engine);

impl std::fmt::Debug for EngineNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EngineNetwork")
    }
}

impl PodNetwork for EngineNetwork {
    fn range(&self) -> Option<String> {
        let ranges = self.0.pod_ranges();
        (!ranges.is_empty()).then(|| show_ranges(&ranges))
    }

    fn join(
        &self,
        cluster: PodCluster,
    ) -> Pin<Box<dyn Future<Output = mainstay_cri::Result<()>> + Send + '_>> {
        let peers = cluster.peers.into_iter().filter_map(|peer| {
            Some(Peer { range: peer.range.parse().ok()?, name: peer.name, address: peer.address })
        });
        let ranges = cluster.ranges.iter().filter_map(|range| range.parse().ok()).collect();
        Box::pin(self.0.join(Cluster { ranges, peers: peers.collect() }))
    }

    fn resolvers(
        &self,
    ) -> Pin<Box<dyn Future<Output = mainstay_cri::Result<Vec<IpAddr>>> + Send + '_>> {
        Box::pin(self.0.resolvers())
    }

    fn shadowed(
        &self,
        server: IpAddr,
    ) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
        Box::pin(self.0.shadowed(server))
    }

    fn node_has(&self, addresses: Vec<IpAddr>) {
        self.0.machine_has(addresses);
    }
}

/// Where credentials for registries come from. Source for the order: the kubelet's
/// `pkg/credentialprovider/config.go`, whose own root directory comes first.
pub(crate) fn keyrings(instance: &Instance, registries: &Registries) -> Keyrings {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    Keyrings {
        configured: registries.keyring.clone(),
        files: vec![instance.root_dir.join("config.json"), home.join(".docker/config.json")],
        providers: CredentialProviders::default(),
    }
}

#[cfg(test)]
mod tests;
