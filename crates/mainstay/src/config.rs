//! The configuration file: `KubeletConfiguration`, as kubelets have it.
//!
//! Two stages. [`raw`] is a mirror of the file; [`Config`] is what the rest of the program uses,
//! with every default filled in.

mod credential_providers;
mod endpoint;
mod etcd;
mod eviction;
mod fields;
mod flags;
mod gates;
mod image_gc;
mod manifest_url;
mod memory_qos;
mod node;
mod node_auth;
mod pulls;
mod raw;
mod registries;
mod server;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mainstay_cri_grpc::REQUEST_TIMEOUT;
use mainstay_engine::network::{Range, parse_ranges};
use mainstay_node::{LogBounds, ManifestUrl, NodeTimes, PullLimits};
use mainstay_plan::dns::ClusterDns;
use mainstay_plan::image_gc::Policy;
use mainstay_plan::memory_qos::MemoryQos;
use mainstay_plan::node_shutdown::Periods;
use mainstay_plan::node_status::NodeSettings;
use mainstay_plan::pressure::Thresholds;
use mainstay_plan::resources::CpuQuotas;
use mainstay_plan::sysctls::AllowedSysctls;
use mainstay_pod::Quantity;
use mainstay_pod::validate::names::is_subdomain;

pub(crate) use credential_providers::credential_providers;
pub(crate) use endpoint::Endpoint;
pub(crate) use etcd::{EtcdAddress, EtcdFlags};
pub(crate) use flags::KubeletFlags;
pub(crate) use node_auth::{Cached, NodeAuthSettings};
use raw::Raw;
pub(crate) use registries::Registries;
pub(crate) use server::{NodeServer, NodeTls};

/// How often logs are looked at. Source: `SetDefaults_KubeletConfiguration`.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How often manifests are looked at although nothing was heard of them. The kubelet has 20 s.
const FILE_CHECK_FREQUENCY: Duration = Duration::from_secs(5);
/// More often would do nothing else, more rarely would not be the safety net that it is meant for.
const FILE_CHECK_FREQUENCIES: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);

/// Who makes control groups. Source: `cgroupDriver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupDriver {
    /// We do, directly below the root of the hierarchies.
    Cgroupfs,
    /// We do, below a service that systemd made and handed over.
    Systemd,
}

/// What the configuration file says, or its absence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Directory or file with manifests.
    pub(crate) static_pod_path: Option<PathBuf>,
    /// Where container logs go.
    pub(crate) pod_logs_dir: Option<PathBuf>,
    /// How often manifests are looked at in any case.
    pub(crate) file_check_frequency: Duration,
    /// Bounds for container logs.
    pub(crate) log_bounds: LogBounds,
    /// Who makes control groups; `None` is what suits the machine.
    pub(crate) cgroup_driver: Option<CgroupDriver>,
    /// Addresses of pods, the primary kind first; with none they are chosen.
    pub(crate) pod_cidr: Vec<Range>,
    /// The resolver settings that pods get.
    pub(crate) resolv_conf: PathBuf,
    /// Whether containers that say nothing get the seccomp profile `RuntimeDefault`.
    pub(crate) seccomp_default: bool,
    /// From where on memory, disk or processes are short.
    pub(crate) eviction: Thresholds,
    /// When images are removed that nobody uses.
    pub(crate) image_gc: Policy,
    /// The DNS of the cluster that the node is in.
    pub(crate) cluster_dns: ClusterDns,
    /// The kernel settings that pods may set.
    pub(crate) allowed_sysctls: AllowedSysctls,
    /// How memory is kept and throttled; `None` if it is not.
    pub(crate) memory_qos: Option<MemoryQos>,
    /// How often logs are looked at.
    pub(crate) log_interval: Duration,
    /// What the node is, and what of it pods can have.
    pub(crate) node: NodeSettings,
    /// When something of it is told.
    pub(crate) node_times: NodeTimes,
    /// Whether it registers itself.
    pub(crate) registers: bool,
    /// How limits of processor time are kept.
    pub(crate) cpu_quotas: CpuQuotas,
    /// Whether containers may have some of the machine's swap.
    pub(crate) limited_swap: bool,
    /// How many processes a pod can have.
    pub(crate) pod_pids_limit: Option<u64>,
    /// The longest wait before a container is started again; `None` is the usual one.
    pub(crate) longest_wait: Option<Duration>,
    /// How many images are pulled.
    pub(crate) pulls: PullLimits,
    /// The node's own API.
    pub(crate) server: NodeServer,
    /// Whether a node of somebody else's cluster has client certificates of its own.
    pub(crate) rotates_certificates: bool,
    /// Whether it asks for its serving certificate.
    pub(crate) asks_for_serving: bool,
    /// Where else manifests are.
    pub(crate) manifest_url: Option<ManifestUrl>,
    /// What the agent asks of the machine.
    pub(crate) process: Process,
    /// Where a container runtime is, if it is not the embedded one.
    pub(crate) runtime_endpoint: Option<Endpoint>,
    /// How long a call of that runtime may take.
    pub(crate) runtime_request_timeout: Duration,
    /// How long pods have at a shutdown of the machine; nothing of it ends them in no order.
    pub(crate) shutdown_periods: Periods,
    /// What of the file asks for something that is not done.
    pub(crate) without_effect: Vec<String>,
    /// File and flags themselves, but for secrets.
    pub(crate) said: serde_json::Value,
}

/// What the agent asks of the machine that it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// How soon the kernel kills the agent, -1000 to 1000. Source: `oomScoreAdj`.
    pub(crate) oom_score_adj: i32,
    /// Whether it does not start where there is swap. Source: `failSwapOn`.
    pub(crate) fails_with_swap: bool,
    /// Whether it does not start on control groups of version 1. Source: `failCgroupV1`.
    pub(crate) fails_with_cgroup_v1: bool,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            // Source: `KubeletOOMScoreAdj` in `pkg/kubelet/qos/policy.go`.
            oom_score_adj: -999,
            fails_with_swap: false,
            fails_with_cgroup_v1: false,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            static_pod_path: None,
            pod_logs_dir: None,
            file_check_frequency: FILE_CHECK_FREQUENCY,
            log_bounds: LogBounds::default(),
            cgroup_driver: None,
            pod_cidr: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            seccomp_default: false,
            eviction: Thresholds::default(),
            image_gc: Policy::default(),
            cluster_dns: ClusterDns::default(),
            allowed_sysctls: AllowedSysctls::default(),
            log_interval: LOG_INTERVAL,
            node: NodeSettings::default(),
            node_times: NodeTimes::default(),
            registers: true,
            cpu_quotas: CpuQuotas::default(),
            limited_swap: false,
            pod_pids_limit: None,
            longest_wait: None,
            pulls: PullLimits::default(),
            server: NodeServer::default(),
            rotates_certificates: false,
            asks_for_serving: false,
            manifest_url: None,
            process: Process::default(),
            runtime_endpoint: None,
            runtime_request_timeout: REQUEST_TIMEOUT,
            shutdown_periods: Periods::default(),
            memory_qos: None,
            without_effect: Vec::new(),
            said: empty(),
        }
    }
}

impl Config {
    /// Reads a file, if there is one, and what flags say instead of it.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is not a `KubeletConfiguration`, has a field that there is not, or a
    /// value that cannot be; the message names file and field.
    pub(crate) fn read(path: Option<&Path>, flags: &KubeletFlags) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return of(flags.over(empty()), Path::new("/")).context("the flags");
        };
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.display().to_string();
        let value = read_value(&name, &bytes)?;
        // What is kept must mean the same whatever the working directory is.
        let path = std::path::absolute(path).with_context(|| name.clone())?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        of(flags.over(value), directory).with_context(|| name)
    }
}

fn of(mut said: serde_json::Value, directory: &Path) -> anyhow::Result<Config> {
    let config = resolve(&Raw::parse(said.clone())?, directory)?;
    // Who may read the configuration need not know what it is fetched with.
    let headers = said.get_mut("staticPodURLHeader").and_then(serde_json::Value::as_object_mut);
    headers.into_iter().flatten().for_each(|(_, values)| *values = "<masked>".into());
    Ok(Config { said, ..config })
}

/// A configuration that says nothing.
fn empty() -> serde_json::Value {
    serde_json::json!({"apiVersion": raw::API_VERSION, "kind": raw::KIND})
}

/// A file of one value, as JSON or YAML.
pub(crate) fn read_value(name: &str, bytes: &[u8]) -> anyhow::Result<serde_json::Value> {
    mainstay_pod::read_value(name, bytes).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

fn resolve(raw: &Raw, directory: &Path) -> anyhow::Result<Config> {
    let default = Config::default();
    let path = |text: &Option<String>| said(text).map(|text| directory.join(text));
    let frequency = time("fileCheckFrequency", &raw.file_check_frequency)?;
    if frequency.is_some_and(|frequency| !FILE_CHECK_FREQUENCIES.contains(&frequency)) {
        bail!("fileCheckFrequency: must be from 10ms to 1h, or 0 for the default");
    }
    let max_size = raw.container_log_max_size.as_deref();
    let max_size = max_size.map(|text| bytes(text).context("containerLogMaxSize")).transpose()?;
    let max_files = raw.container_log_max_files;
    if max_files.is_some_and(|files| files < 2) {
        bail!("containerLogMaxFiles: must be 2 or more");
    }
    let cgroup_driver = match raw.cgroup_driver.as_deref() {
        None | Some("") => None,
        Some("cgroupfs") => Some(CgroupDriver::Cgroupfs),
        Some("systemd") => Some(CgroupDriver::Systemd),
        Some(other) => bail!("cgroupDriver: {other:?} is neither \"cgroupfs\" nor \"systemd\""),
    };
    let pod_cidr =
        said(&raw.pod_cidr).map(|text| parse_ranges(text).context("podCIDR")).transpose()?;
    let endpoint = said(&raw.container_runtime_endpoint);
    let endpoint =
        endpoint.map(|text| text.parse().context("containerRuntimeEndpoint")).transpose()?;
    let timeout = time("runtimeRequestTimeout", &raw.runtime_request_timeout)?;
    let bounds = default.log_bounds;
    let eviction = eviction::thresholds(raw)?;
    let log_interval = match raw.container_log_monitor_interval.as_deref() {
        None => default.log_interval,
        Some(text) => duration(text).context("containerLogMonitorInterval")?,
    };
    if log_interval < Duration::from_secs(3) {
        bail!(
            "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s"
        );
    }
    if raw.container_log_max_workers.is_some_and(|workers| workers < 1) {
        bail!("containerLogMaxWorkers must be greater than or equal to 1");
    }
    if raw.run_once {
        bail!("runOnce: Runonce mode has been deprecated and should not be set");
    }
    Ok(Config {
        static_pod_path: path(&raw.static_pod_path),
        pod_logs_dir: path(&raw.pod_logs_dir),
        file_check_frequency: frequency.unwrap_or(default.file_check_frequency),
        log_bounds: LogBounds {
            max_size: max_size.unwrap_or(bounds.max_size),
            max_files: max_files.unwrap_or(bounds.max_files),
        },
        cgroup_driver,
        pod_cidr: pod_cidr.unwrap_or_default(),
        resolv_conf: path(&raw.resolv_conf).unwrap_or(default.resolv_conf),
        seccomp_default: raw.seccomp_default.unwrap_or(default.seccomp_default),
        log_interval,
        node: node::settings(raw, &eviction)?,
        node_times: node::times(raw)?,
        registers: raw.register_node.unwrap_or(default.registers),
        cpu_quotas: node::cpu_quotas(raw)?,
        limited_swap: node::has_limited_swap(raw)?,
        // Not above 0 is as many as there can be.
        pod_pids_limit: raw
            .pod_pids_limit
            .and_then(|it| u64::try_from(it).ok())
            .filter(|it| *it > 0),
        longest_wait: node::longest_wait(raw)?,
        pulls: pulls::limits(raw)?,
        server: server::server(raw, directory)?,
        rotates_certificates: raw.rotate_certificates.unwrap_or(default.rotates_certificates),
        asks_for_serving: raw.server_tls_bootstrap.unwrap_or(default.asks_for_serving),
        manifest_url: manifest_url::manifest_url(raw)?,
        process: process(raw)?,
        eviction,
        image_gc: image_gc::policy(raw)?,
        cluster_dns: cluster_dns(raw)?,
        allowed_sysctls: AllowedSysctls::new(raw.allowed_unsafe_sysctls.as_deref().unwrap_or(&[]))
            .map_err(anyhow::Error::msg)
            .context("allowedUnsafeSysctls")?,
        runtime_endpoint: endpoint,
        runtime_request_timeout: timeout.unwrap_or(default.runtime_request_timeout),
        shutdown_periods: shutdown_periods(raw)?,
        memory_qos: memory_qos::memory_qos(raw)?,
        without_effect: raw
            .in_vain()
            .chain(eviction::without_effect(raw))
            .chain(node::in_vain(raw))
            .chain(server::in_vain(raw))
            .chain(gates::in_vain(&raw.feature_gates)?)
            .chain(memory_qos::in_vain(raw))
            .collect(),
        said: default.said,
    })
}

fn shutdown_periods(raw: &Raw) -> anyhow::Result<Periods> {
    let period = |text: &Option<String>, field: &'static str| {
        text.as_deref().map_or(Ok(Duration::ZERO), |text| duration(text).context(field))
    };
    let all = period(&raw.shutdown_grace_period, "shutdownGracePeriod")?;
    let critical =
        period(&raw.shutdown_grace_period_critical_pods, "shutdownGracePeriodCriticalPods")?;
    let by_priority = raw.shutdown_grace_period_by_pod_priority.iter();
    let by_priority = by_priority.map(|it| (it.priority, it.shutdown_grace_period_seconds));
    Periods::new(all, critical, &by_priority.collect::<Vec<_>>()).map_err(anyhow::Error::msg)
}

fn process(raw: &Raw) -> anyhow::Result<Process> {
    let default = Process::default();
    let score = raw.oom_score_adj.unwrap_or(default.oom_score_adj);
    if !(-1000..=1000).contains(&score) {
        bail!("oomScoreAdj {score} must be between -1000 and 1000, inclusive");
    }
    Ok(Process {
        oom_score_adj: score,
        fails_with_swap: raw.fail_swap_on.unwrap_or(default.fails_with_swap),
        fails_with_cgroup_v1: raw.fail_cgroup_v1.unwrap_or(default.fails_with_cgroup_v1),
    })
}

/// What a text says, if it says something.
fn said(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// A duration above 0, which is how the kubelet's file says "the default".
fn time(field: &'static str, text: &Option<String>) -> anyhow::Result<Option<Duration>> {
    let time = text.as_deref().map(|text| duration(text).context(field)).transpose()?;
    Ok(time.filter(|time| !time.is_zero()))
}

fn cluster_dns(raw: &Raw) -> anyhow::Result<ClusterDns> {
    let servers = raw.cluster_dns.iter().flatten();
    let address = |text: &String| {
        text.parse::<IpAddr>().with_context(|| format!("clusterDNS: {text:?} is no IP address"))
    };
    let domain = raw.cluster_domain.clone().unwrap_or_default();
    // Names of DNS have 255 bytes, and the pods' names below it need some of them.
    ensure!(
        domain.is_empty() || is_subdomain(domain.trim_end_matches('.')) && domain.len() <= 128,
        "clusterDomain: {domain:?} is no domain such as cluster.local"
    );
    Ok(ClusterDns { servers: servers.map(address).collect::<anyhow::Result<_>>()?, domain })
}

/// Durations as Go writes them: `1m30s`, `500ms`, `0s`, `0`.
pub(crate) fn duration(text: &str) -> anyhow::Result<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let invalid = || anyhow::anyhow!("{text:?} is not a duration such as 20s or 1m30s");
    let (mut rest, mut seconds) = (text, 0.0);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &rest[..end]).ok_or_else(invalid)?;
        seconds += number * unit.1;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

fn bytes(text: &str) -> anyhow::Result<u64> {
    let quantity = Quantity::parse(text)?;
    u64::try_from(quantity.units())
        .ok()
        .filter(|bytes| *bytes > 0)
        .with_context(|| format!("{text:?} is not a number of bytes above 0"))
}

#[cfg(test)]
mod tests;
