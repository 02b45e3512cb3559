//! `mainstay run`

mod join;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jiff::SignedDuration;
use mainstay_controllers::{NodeTimes, Selection};
use mainstay_engine::{CniConfig, CredentialProviders};
use mainstay_linux::cgroup::{Hierarchies, Layout};
use mainstay_node::{ManifestPaths, OwnGroup, PodsGroup};
use mainstay_pki::SubjectName;
use mainstay_plan::node_status::LEASE_DURATION;
use mainstay_pod::NodeName;
use mainstay_proxy::Proxies;
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use self::join::JoinFlags;
use super::Validate;
use crate::api::{ApiConfig, Cluster, ClusterConfig};
use crate::config::{
    CgroupDriver, Config, EtcdFlags, KubeletFlags, NodeServer, Registries, credential_providers,
    duration,
};
use crate::instance::{Instance, NodeRecord};
use crate::wiring::{Node, NodeConfig, Purpose, node};
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
    /// A KubeletConfiguration. What becomes of each field is in docs/configuration.md; what asks for
    /// something that is not done is named in the log. A kubelet's flags for its fields are taken too.
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
    #[command(flatten)]
    cni: CniFlags,
    /// Give pods no names for each other. Otherwise those of the built-in network ask a resolver of the node,
    /// unless the configuration has a clusterDNS.
    #[arg(long)]
    no_pod_dns: bool,
    /// What to do about unknown and duplicate fields of a manifest.
    #[arg(long, value_enum, default_value_t)]
    validate: Validate,
    #[command(flatten)]
    api: ApiFlags,
    #[command(flatten)]
    join: JoinFlags,
    #[command(flatten)]
    kubelet: KubeletFlags,
}

/// Where networks of CNI plugins are.
#[derive(Debug, Args)]
struct CniFlags {
    /// The directory of CNI configurations. The first *.conflist, *.conf or *.json there, by its
    /// name, says from which plugins pods get their network; without one, or with an empty DIR, they
    /// get the built-in one. Those that podman and nerdctl have for themselves are passed over.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// The directories of CNI plugins, in the order in which they are looked through.
    #[arg(
        long,
        value_name = "DIR",
        value_delimiter = ',',
        default_values = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"],
    )]
    cni_bin_dir: Vec<PathBuf>,
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
    /// The port of the node's own API. 0 picks a free one and writes it to RUN-DIR/port. Default: port of
    /// the configuration, else 10250.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The port of /healthz. 0 picks a free one and writes it to RUN-DIR/healthz-port. Default:
    /// healthzPort of the configuration, else 10248.
    #[arg(long, value_name = "PORT")]
    healthz_port: Option<u16>,
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
    #[command(flatten)]
    etcd: EtcdFlags,
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
        let (config, api) = self.resolve(instance)?;
        let _ownership = config.instance.own()?;
        stay_with_runtime(&config)?;
        config.instance.remember(&NodeRecord {
            root_dir: config.instance.root_dir.clone(),
            run_dir: config.instance.run_dir.clone(),
            node_name: config.node_name.as_str().to_owned(),
            cgroup_root: config.cgroup_root.clone(),
            log_directory: config.log_directory(),
            runtime_socket: config.runtime_socket(),
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
            let socket = config.instance.cri_socket();
            let Node { agent, cri, .. } = node(config, Some(access)).await?;
            let node_api = agent.node_api(api.node_auth());
            // Nothing that runs pods waits for them.
            let mut controllers = JoinSet::new();
            controllers.spawn(api.controllers());
            let mut beside = JoinSet::new();
            beside.spawn(api.run(node_api));
            // A runtime that is another program has a socket of its own.
            if let Some(cri) = cri {
                let listener = mainstay_node::http::listen(&socket)
                    .with_context(|| format!("cannot listen on {}", socket.display()))?;
                beside.spawn(mainstay_cri_grpc::serve(listener, cri));
            }
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
                Some(error) => {
                    Err(error).context("the Kubernetes API or the CRI broke, and pods run on")
                }
                None => Ok(()),
            }
        });
        // File work that is under way is not waited for: it can be done again.
        runtime.shutdown_background();
        result.map(|()| ExitCode::SUCCESS)
    }

    /// Takes flags, files and the machine together.
    fn resolve(self, instance: Instance) -> anyhow::Result<(NodeConfig, ClusterConfig)> {
        let mut config = Config::read(self.config.as_deref(), &self.kubelet)?;
        let in_vain = config.without_effect.iter().chain(&self.kubelet.in_vain).map(String::as_str);
        let of_others = self.join.in_vain(&config);
        let in_vain: Vec<&str> = in_vain.chain(of_others.iter().copied()).collect();
        if !in_vain.is_empty() {
            let fields = in_vain.join(", ");
            tracing::warn!(fields, "what the configuration asks for and is not done here");
        }
        config.node.labels.clone_from(&self.kubelet.node_labels);
        self.api.override_ports(&mut config.server);
        prepare_process(&config)?;
        let proxies = Proxies::of_environment().unwrap_or_else(|error| {
            tracing::warn!(%error, "the environment's HTTPS_PROXY or ALL_PROXY is not used");
            Proxies::none()
        });
        let mut registries = Registries::read(self.registries.as_deref())?;
        registries.config.proxies = proxies.clone();
        let credential_providers =
            match (self.image_credential_provider_config, self.image_credential_provider_bin_dir) {
                (Some(path), Some(programs)) => credential_providers(&path, &programs)?,
                _ => CredentialProviders::default(),
            };
        let mut paths = self.pod_manifest_path;
        if paths.is_empty() {
            paths.extend(config.static_pod_path.clone());
        }
        // Beside a server too: pods of this directory may run.
        if paths.is_empty() {
            let usual = PathBuf::from(DEFAULT_MANIFESTS);
            std::fs::create_dir_all(&usual)
                .with_context(|| format!("cannot make {}", usual.display()))?;
            paths.push(usual);
        }
        // What the ledger remembers has to mean the same whatever the working directory is.
        let paths = paths.iter().map(std::path::absolute).collect::<Result<_, _>>();
        let paths = paths.context("cannot use a manifest path")?;
        let (cgroup_root, pods_group): (_, Arc<dyn PodsGroup>) = match cgroup_driver(&config)? {
            CgroupDriver::Cgroupfs => {
                let root = instance.cgroup_root();
                (root.clone(), Arc::new(OwnGroup(root)))
            }
            CgroupDriver::Systemd => {
                systemd::delegate(&instance)?;
                let group = systemd::DelegatedGroup(instance.clone());
                (systemd::delegated(&instance), Arc::new(group))
            }
        };
        let node_name = node_name(self.hostname_override)?;
        let joined = self.join.resolve(&node_name, &self.node_ip, &config, &instance, &proxies)?;
        let api = joined.unwrap_or_else(|| {
            let server = config.server.clone();
            ClusterConfig::Embedded(self.api.resolve(&node_name, &self.node_ip, server, &instance))
        });
        let node = NodeConfig {
            purpose: Purpose::Run,
            node_name,
            instance,
            manifests: ManifestPaths {
                paths,
                recursive: self.recursive,
                url: config.manifest_url.as_ref().map(|url| url.name().to_owned()),
            },
            validation: self.validate.into(),
            node_ips: self.node_ip,
            config,
            registries,
            credential_providers,
            cni: self.cni.resolve()?,
            pod_dns: !self.no_pod_dns,
            cgroup_root,
            pods_group,
        };
        Ok((node, api))
    }
}

impl CniFlags {
    fn resolve(self) -> anyhow::Result<CniConfig> {
        // Plugins are called from elsewhere, and by those who come later.
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))
        };
        let given = Some(&self.cni_conf_dir).filter(|path| !path.as_os_str().is_empty());
        Ok(CniConfig {
            conf_dir: given.map(absolute).transpose()?,
            bin_dirs: self.cni_bin_dir.iter().map(absolute).collect::<anyhow::Result<_>>()?,
        })
    }
}

/// Pods that another runtime has would run on beside those that this one starts.
fn stay_with_runtime(config: &NodeConfig) -> anyhow::Result<()> {
    let named = |socket: &Option<PathBuf>| match socket {
        Some(socket) => format!("the runtime at {}", socket.display()),
        None => "the embedded runtime".to_owned(),
    };
    let wanted = config.runtime_socket();
    match config.instance.last_runtime()? {
        Some(last) if last != wanted => anyhow::bail!(
            "the pods of this instance are with {}, and are to be run by {}; `mainstay down` stops them, and \
             after it this can be started",
            named(&last),
            named(&wanted)
        ),
        _ => Ok(()),
    }
}

impl ApiFlags {
    /// What is said of ports counts more than the file.
    fn override_ports(&self, server: &mut NodeServer) {
        let ports = [(&mut server.address, self.port), (&mut server.healthz, self.healthz_port)];
        let defaults = NodeServer::default();
        for ((address, port), default) in
            ports.into_iter().zip([defaults.address, defaults.healthz])
        {
            if let Some(port) = port {
                *address = address.or(default).map(|it| (it.ip(), port).into());
            }
        }
    }

    fn resolve(
        self,
        node_name: &NodeName,
        node_ips: &[IpAddr],
        node_server: NodeServer,
        instance: &Instance,
    ) -> ApiConfig {
        ApiConfig {
            node_name: node_name.as_str().to_owned(),
            addresses: mainstay_node::addresses::now(node_ips).ips,
            bind_address: self.bind_address,
            secure_port: self.secure_port,
            node_server,
            names: self.tls_san.into_iter().collect(),
            kubeconfig: self.write_kubeconfig.unwrap_or_else(|| instance.kubeconfig()),
            token_auth_file: self.token_auth_file,
            etcd: Arc::new(self.etcd),
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

/// Sees to it that the machine is as the agent's configuration wants it, and the agent too.
///
/// # Errors
///
/// When the machine has what the configuration does not want, or lacks what it needs.
fn prepare_process(config: &Config) -> anyhow::Result<()> {
    let process = config.process;
    // The shims, which inherit it, are killed as late as the agent.
    if let Err(error) =
        std::fs::write("/proc/self/oom_score_adj", process.oom_score_adj.to_string())
    {
        // Not allowed within some containers; the agent can be killed, and pods run on.
        tracing::debug!(%error, "cannot set oom_score_adj");
    }
    let has_swap = || mainstay_linux::machine::machine().is_ok_and(|machine| machine.swap != 0);
    anyhow::ensure!(
        !process.fails_with_swap || !has_swap(),
        "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
    );
    if process.fails_with_cgroup_v1 || config.limited_swap {
        let is_v2 = Hierarchies::mounted()?.layout() == Layout::V2;
        anyhow::ensure!(
            is_v2 || !process.fails_with_cgroup_v1,
            "this machine has control groups of version 1; boot it with those of version 2, or set \
             failCgroupV1 to false"
        );
        anyhow::ensure!(
            is_v2 || !config.limited_swap,
            "memorySwap.swapBehavior: LimitedSwap is only supported with control groups of version 2"
        );
    }
    Ok(())
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
