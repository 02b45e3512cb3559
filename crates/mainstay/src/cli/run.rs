//! `mainstay run`

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jiff::SignedDuration;
use mainstay_controllers::{NodeTimes, Selection};
use mainstay_engine::CredentialProviders;
use mainstay_linux::cgroup::{Hierarchies, Layout};
use mainstay_node::ManifestPaths;
use mainstay_pki::{JoinToken, SubjectName};
use mainstay_plan::node_status::LEASE_DURATION;
use mainstay_pod::NodeName;
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::Validate;
use crate::api::remote::Server;
use crate::api::{ApiConfig, Cluster, ClusterConfig, JoinConfig};
use crate::config::{CgroupDriver, Config, Registries, credential_providers, duration};
use crate::instance::{Instance, NodeRecord};
use crate::wiring::{NodeConfig, Purpose, node};
use crate::{logging, systemd};

/// Where manifests are looked for when nothing says otherwise.
const DEFAULT_MANIFESTS: &str = "/etc/mainstay/manifests";

/// Run the node: watch the manifests and keep their pods running.
///
/// It ends with SIGTERM or SIGINT; pods run on, and the next start finds them. `mainstay down`
/// stops them.
///
/// What is logged: MAINSTAY_LOG=debug, or another filter of tracing's EnvFilter.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// A directory with Pod manifests (*.yaml, *.yml, *.json), or one manifest. May be given
    /// several times. Default: staticPodPath of the configuration, else /etc/mainstay/manifests.
    #[arg(long, value_name = "PATH")]
    pod_manifest_path: Vec<PathBuf>,
    /// Look for manifests in the directories below, too.
    #[arg(long)]
    recursive: bool,
    /// A KubeletConfiguration. Effective are staticPodPath, fileCheckFrequency, podLogsDir,
    /// containerLogMaxSize, containerLogMaxFiles, cgroupDriver, podCIDR, resolvConf, clusterDNS,
    /// clusterDomain, seccompDefault, allowedUnsafeSysctls, evictionHard, evictionSoft,
    /// evictionSoftGracePeriod, evictionMinimumReclaim, evictionPressureTransitionPeriod,
    /// evictionMaxPodGracePeriod, mergeDefaultEvictionSettings, imageGCHighThresholdPercent,
    /// imageGCLowThresholdPercent, imageMinimumGCAge and imageMaximumGCAge; others are named in the
    /// log.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Mirrors, credentials and certificate authorities of registries, as k3s has them in
    /// registries.yaml. Default: /etc/mainstay/registries.yaml if it is there.
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
    /// Programs that have credentials for registries, as a kubelet has them: a CredentialProviderConfig,
    /// or a directory with several.
    #[arg(long, value_name = "PATH", requires = "image_credential_provider_bin_dir")]
    image_credential_provider_config: Option<PathBuf>,
    /// Where these programs are.
    #[arg(long, value_name = "DIR", requires = "image_credential_provider_config")]
    image_credential_provider_bin_dir: Option<PathBuf>,
    /// The node's name, which pods' names end in. Default: the host's name.
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// The node's addresses, the primary one first. Default: what the machine would leave with.
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// What to do about unknown and duplicate fields of a manifest.
    #[arg(long, value_enum, default_value_t)]
    validate: Validate,
    #[command(flatten)]
    api: ApiFlags,
    #[command(flatten)]
    join: JoinFlags,
}

/// Which API the node joins, if it is not to have one of its own.
#[derive(Debug, Args)]
struct JoinFlags {
    /// Be a node of the API of another mainstay, such as https://192.0.2.10:6443, and have none of
    /// one's own. Static pods run whether it answers or not.
    #[arg(
        long,
        value_name = "URL",
        conflicts_with_all = [
            "bind_address", "secure_port", "write_kubeconfig", "tls_san", "controllers",
            "cluster_signing_duration", "node_monitor_grace_period", "token_auth_file",
        ],
    )]
    server: Option<Server>,
    /// What `mainstay token create` printed on the machine with the API: it says whom to trust there
    /// and lets the node ask for its certificate. Not needed any more once the node has joined.
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "server",
        env = "MAINSTAY_TOKEN",
        hide_env_values = true
    )]
    token: Option<JoinToken>,
}

/// Where the Kubernetes API is, and who may use it.
#[derive(Debug, Args)]
struct ApiFlags {
    /// Where the Kubernetes API listens.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    bind_address: IpAddr,
    /// The Kubernetes API's port. 0 picks a free one and writes it to RUN-DIR/secure-port.
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    secure_port: u16,
    /// The port of the node's own API. 0 picks a free one and writes it to RUN-DIR/port.
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    port: u16,
    /// The port of /healthz on 127.0.0.1. 0 picks a free one and writes it to RUN-DIR/healthz-port.
    #[arg(long, value_name = "PORT", default_value_t = 10248)]
    healthz_port: u16,
    /// Where the admin's kubeconfig is written. Default: ROOT-DIR/kubeconfig.
    #[arg(long, value_name = "FILE")]
    write_kubeconfig: Option<PathBuf>,
    /// One more name or address that the API's certificate is for. May be given several times.
    #[arg(long, value_name = "NAME")]
    tls_san: Vec<SubjectName>,
    /// Controllers that run, by the names that a kube-controller-manager has for them, and
    /// kube-scheduler: `*` is all, `*,-deployment-controller` all but one, and nothing none.
    #[arg(long, value_name = "LIST", default_value = "*")]
    controllers: Selection,
    /// How long a node may say nothing before it is taken to be away, such as 50s.
    #[arg(long, value_name = "DURATION", default_value = "50s", value_parser = node_grace_period)]
    node_monitor_grace_period: Duration,
    /// For how long certificates are good at most that the API signs for others, such as those of
    /// nodes.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = signing_duration)]
    cluster_signing_duration: SignedDuration,
    /// Users with tokens, a line for each: token,name,uid,"group,group".
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
}

/// Nodes renew their leases every ten seconds; who waits less moves pods for nothing.
fn node_grace_period(text: &str) -> anyhow::Result<Duration> {
    let period = duration(text)?;
    anyhow::ensure!(
        period > LEASE_DURATION / 4,
        "{text} is less than a node takes to renew its lease; give it some more than 10s"
    );
    Ok(period)
}

/// What one node has to do does not need more, and each has a stack.
const WORKERS: usize = 2;
const BLOCKING_THREADS: usize = 16;

impl Run {
    pub(super) fn run(self, instance: Instance) -> anyhow::Result<ExitCode> {
        logging::start();
        // What whoever started us left open is not for shims and pods.
        mainstay_linux::process::close_on_exec_from(3).context("cannot close inherited files")?;
        // What containers see is not a matter of who started this.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        survive_want_of_memory();
        let (config, api) = self.resolve(instance)?;
        let _ownership = config.instance.own()?;
        config.instance.remember(&NodeRecord {
            root_dir: config.instance.root_dir.clone(),
            run_dir: config.instance.run_dir.clone(),
            node_name: config.node_name.as_str().to_owned(),
            cgroup_root: config.cgroup_root.clone(),
            log_directory: config.log_directory(),
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
            .context("cannot start")?;
        let result = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let version = env!("CARGO_PKG_VERSION");
            tracing::info!(version, node = config.node_name.as_str(), "mainstay starts");
            let api = Cluster::new(api);
            let access = api.access(config.node_name.as_str());
            let agent = node(config, Some(access)).await?.agent;
            let node_api = agent.node_api(api.node_auth());
            // Nothing that runs pods waits for them.
            let mut controllers = JoinSet::new();
            controllers.spawn(api.controllers());
            let mut beside = JoinSet::new();
            beside.spawn(api.run(node_api));
            systemd::tell_ready();
            let mut broken = None;
            let ended = agent
                .run(async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                        // Cancel-safe per docs on `JoinSet::join_next`. It has no end of its own.
                        Some(ended) = beside.join_next() => broken = ended.err(),
                    }
                    systemd::tell_stopping();
                    tracing::info!("mainstay ends; pods run on");
                })
                .await;
            // In this order, so that none is surprised by an API that is gone.
            controllers.shutdown().await;
            beside.shutdown().await;
            ended.context("the agent ends before its time, and pods run on")?;
            match broken {
                Some(error) => Err(error).context("the Kubernetes API broke, and pods run on"),
                None => Ok(()),
            }
        });
        // File work that is under way is not waited for: it can be done again.
        runtime.shutdown_background();
        result.map(|()| ExitCode::SUCCESS)
    }

    /// Takes flags, files and the machine together.
    fn resolve(self, instance: Instance) -> anyhow::Result<(NodeConfig, ClusterConfig)> {
        let config = self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
        if !config.without_effect.is_empty() {
            let fields = config.without_effect.join(", ");
            tracing::warn!(fields, "fields of the configuration that have no effect here");
        }
        let registries = Registries::read(self.registries.as_deref())?;
        let credential_providers =
            match (self.image_credential_provider_config, self.image_credential_provider_bin_dir) {
                (Some(path), Some(programs)) => credential_providers(&path, &programs)?,
                _ => CredentialProviders::default(),
            };
        let mut paths = self.pod_manifest_path;
        if paths.is_empty() {
            paths.extend(config.static_pod_path.clone());
        }
        if paths.is_empty() {
            let usual = PathBuf::from(DEFAULT_MANIFESTS);
            std::fs::create_dir_all(&usual)
                .with_context(|| format!("cannot make {}", usual.display()))?;
            paths.push(usual);
        }
        // What the ledger remembers has to mean the same whatever the working directory is.
        let paths = paths.iter().map(std::path::absolute).collect::<Result<_, _>>();
        let paths = paths.context("cannot use a manifest path")?;
        let cgroup_root = match cgroup_driver(&config)? {
            CgroupDriver::Cgroupfs => instance.cgroup_root(),
            CgroupDriver::Systemd => {
                systemd::delegate(&instance)?;
                systemd::delegated(&instance)
            }
        };
        let node_name = node_name(self.hostname_override)?;
        let api = match self.join.server {
            Some(server) => ClusterConfig::Joined(JoinConfig {
                node_name: node_name.as_str().to_owned(),
                node_ips: self.node_ip.clone(),
                server,
                token: self.join.token,
                node_port: self.api.port,
                healthz_port: self.api.healthz_port,
                root_dir: instance.root_dir.clone(),
                run_dir: instance.run_dir.clone(),
            }),
            None => ClusterConfig::Embedded(self.api.resolve(&node_name, &self.node_ip, &instance)),
        };
        let node = NodeConfig {
            purpose: Purpose::Run,
            node_name,
            instance,
            manifests: ManifestPaths { paths, recursive: self.recursive },
            validation: self.validate.into(),
            node_ips: self.node_ip,
            config,
            registries,
            credential_providers,
            cgroup_root,
        };
        Ok((node, api))
    }
}

impl ApiFlags {
    fn resolve(self, node_name: &NodeName, node_ips: &[IpAddr], instance: &Instance) -> ApiConfig {
        ApiConfig {
            node_name: node_name.as_str().to_owned(),
            addresses: mainstay_node::addresses::now(node_ips).ips,
            bind_address: self.bind_address,
            secure_port: self.secure_port,
            node_port: self.port,
            healthz_port: self.healthz_port,
            names: self.tls_san.into_iter().collect(),
            kubeconfig: self.write_kubeconfig.unwrap_or_else(|| instance.kubeconfig()),
            token_auth_file: self.token_auth_file,
            controllers: self.controllers,
            node_times: NodeTimes {
                monitor_grace_period: self.node_monitor_grace_period,
                ..NodeTimes::default()
            },
            signing_duration: self.cluster_signing_duration,
            root_dir: instance.root_dir.clone(),
            run_dir: instance.run_dir.clone(),
        }
    }
}

/// A duration as Go writes it, above nothing.
fn signing_duration(text: &str) -> anyhow::Result<SignedDuration> {
    let duration = SignedDuration::try_from(duration(text)?)?;
    anyhow::ensure!(duration.is_positive(), "{text:?} is no time");
    Ok(duration)
}

/// Lets the kernel kill the agent, and the shims that it starts, last of all. Source:
/// `pkg/kubelet/qos/policy.go`, `KubeletOOMScoreAdj`.
fn survive_want_of_memory() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-999") {
        // Not allowed within some containers; the agent can be killed, and pods run on.
        tracing::debug!(%error, "cannot lower oom_score_adj");
    }
}

/// The node's name. Source: `GetHostname` in `pkg/util/node/node.go`: without spaces around it,
/// in lower case.
pub(super) fn node_name(given: Option<String>) -> anyhow::Result<NodeName> {
    let name =
        given.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let name = name.trim().to_lowercase();
    NodeName::new(&name).with_context(|| {
        format!("{name:?} cannot be the node's name; give another one with --hostname-override")
    })
}

/// Whoever makes control groups when the configuration does not say: systemd where the whole tree
/// is its own, which is version 2.
fn cgroup_driver(config: &Config) -> anyhow::Result<CgroupDriver> {
    if let Some(driver) = config.cgroup_driver {
        return Ok(driver);
    }
    let layout = Hierarchies::mounted()?.layout();
    Ok(match layout {
        Layout::V2 if systemd::is_running() => CgroupDriver::Systemd,
        Layout::V1 | Layout::Hybrid | Layout::V2 => CgroupDriver::Cgroupfs,
    })
}
