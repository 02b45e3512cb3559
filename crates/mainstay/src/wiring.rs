//! Putting the agent and its runtime together. The only place that knows both.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use mainstay_cri::SeccompProfile;
use mainstay_engine::network::{Cluster, Peer};
use mainstay_engine::{CredentialProviders, Engine, EngineImages, ImagesConfig, Keyrings};
use mainstay_linux::machine::machine;
use mainstay_node::{Agent, AgentConfig, ApiAccess, ManifestPaths, PodNetwork};
use mainstay_plan::admission::Kernel;
use mainstay_plan::pod_network::PodCluster;
use mainstay_plan::translate::NodeFacts;
use mainstay_pod::{NodeName, Validation};

use crate::config::{Config, Registries};
use crate::instance::Instance;

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
    /// The control group of all that runs.
    pub(crate) cgroup_root: String,
}

/// An agent on the embedded runtime.
pub(crate) struct Node {
    pub(crate) agent: Agent,
    pub(crate) engine: Engine,
}

impl NodeConfig {
    /// Where container logs go.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.config.pod_logs_dir.clone().unwrap_or_else(|| self.instance.log_directory())
    }
}

/// Opens the embedded runtime and an agent on it.
///
/// With an API, the node registers there as itself.
pub(crate) async fn node(config: NodeConfig, api: Option<ApiAccess>) -> anyhow::Result<Node> {
    let instance = &config.instance;
    let engine = Engine::own(instance.engine(&config.cgroup_root, config.config.pod_cidr)?);
    let engine = engine.await.context("cannot open the engine")?;
    let images = ImagesConfig {
        files: instance.image_files(),
        files_record: instance.root_dir.join("image-files.json"),
        registries: config.registries.config.clone(),
        keyrings: Keyrings {
            providers: config.credential_providers.clone(),
            ..keyrings(instance, &config.registries)
        },
    };
    let store = engine.store().clone();
    let images = match config.purpose {
        Purpose::Run => EngineImages::open(store, images).context("cannot open the images")?,
        Purpose::Stop => EngineImages::unattended(store, images),
    };
    let facts = NodeFacts {
        name: config.node_name.as_str().to_owned(),
        pods_directory: instance.root_dir.join("pods"),
        log_directory: config.log_directory(),
        cgroup_root: config.cgroup_root.clone(),
        // What the kernel does not tell is not there.
        machine_memory: machine().unwrap_or_default().memory,
        allocatable: mainstay_node::allocatable(&instance.root_dir),
        seccomp_directory: instance.root_dir.join("seccomp"),
        seccomp_default: match config.config.seccomp_default {
            true => SeccompProfile::RuntimeDefault,
            false => SeccompProfile::Unconfined,
        },
        cluster_dns: config.config.cluster_dns.clone(),
        kernel: Kernel {
            sysctls: config.config.allowed_sysctls.clone(),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        },
    };
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
        eviction: config.config.eviction.clone(),
        image_gc: config.config.image_gc,
        pod_network: Some(Arc::new(EngineNetwork(engine.clone()))),
        api,
    };
    let runtime = Arc::new(engine.clone());
    let agent =
        Agent::open(agent, runtime, Arc::new(images)).await.context("cannot open the agent")?;
    Ok(Node { agent, engine })
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
        self.0.pod_range().map(|range| range.to_string())
    }

    fn join(
        &self,
        cluster: PodCluster,
    ) -> Pin<Box<dyn Future<Output = mainstay_cri::Result<()>> + Send + '_>> {
        let peers = cluster.peers.into_iter().filter_map(|peer| {
            let IpAddr::V4(address) = peer.address else { return None };
            Some(Peer { name: peer.name, range: peer.range.parse().ok()?, address })
        });
        let range = cluster.range.and_then(|range| range.parse().ok());
        Box::pin(self.0.join(Cluster { range, peers: peers.collect() }))
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
