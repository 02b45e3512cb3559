//! The configuration file: `KubeletConfiguration`, as kubelets have it.
//!
//! Two stages. [`raw`] is a mirror of the file; [`Config`] is what the rest of the program uses,
//! with every default filled in.

mod credential_providers;
mod eviction;
mod image_gc;
mod raw;
mod registries;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use mainstay_engine::network::Range;
use mainstay_node::LogBounds;
use mainstay_plan::dns::ClusterDns;
use mainstay_plan::image_gc::Policy;
use mainstay_plan::pressure::Thresholds;
use mainstay_plan::sysctls::AllowedSysctls;
use mainstay_pod::Quantity;

pub(crate) use credential_providers::credential_providers;
use raw::Raw;
pub(crate) use registries::Registries;

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
    /// Addresses of pods; `None` chooses them.
    pub(crate) pod_cidr: Option<Range>,
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
    /// Fields of the file that have no effect here.
    pub(crate) without_effect: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            static_pod_path: None,
            pod_logs_dir: None,
            file_check_frequency: FILE_CHECK_FREQUENCY,
            log_bounds: LogBounds::default(),
            cgroup_driver: None,
            pod_cidr: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            seccomp_default: false,
            eviction: Thresholds::default(),
            image_gc: Policy::default(),
            cluster_dns: ClusterDns::default(),
            allowed_sysctls: AllowedSysctls::default(),
            without_effect: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is not a `KubeletConfiguration`, has a field that there is not, or a
    /// value that cannot be; the message names file and field.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.display().to_string();
        let value = read_value(&name, &bytes)?;
        // What is kept must mean the same whatever the working directory is.
        let path = std::path::absolute(path).with_context(|| name.clone())?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let raw = Raw::parse(value).with_context(|| name.clone())?;
        resolve(&raw, directory).with_context(|| name)
    }
}

/// A file of one value, as JSON or YAML.
fn read_value(name: &str, bytes: &[u8]) -> anyhow::Result<serde_json::Value> {
    mainstay_pod::read_value(name, bytes).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

fn resolve(raw: &Raw, directory: &Path) -> anyhow::Result<Config> {
    let default = Config::default();
    let path = |text: &Option<String>| {
        text.as_deref().filter(|text| !text.is_empty()).map(|text| directory.join(text))
    };
    let frequency = raw.file_check_frequency.as_deref();
    let frequency =
        frequency.map(|text| duration(text).context("fileCheckFrequency")).transpose()?;
    // 0 is how the kubelet's file says "the default".
    let frequency = frequency.filter(|frequency| !frequency.is_zero());
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
    let pod_cidr = raw.pod_cidr.as_deref().filter(|text| !text.is_empty());
    let pod_cidr = pod_cidr.map(|text| text.parse::<Range>().context("podCIDR")).transpose()?;
    let bounds = default.log_bounds;
    Ok(Config {
        static_pod_path: path(&raw.static_pod_path),
        pod_logs_dir: path(&raw.pod_logs_dir),
        file_check_frequency: frequency.unwrap_or(default.file_check_frequency),
        log_bounds: LogBounds {
            max_size: max_size.unwrap_or(bounds.max_size),
            max_files: max_files.unwrap_or(bounds.max_files),
        },
        cgroup_driver,
        pod_cidr,
        resolv_conf: path(&raw.resolv_conf).unwrap_or(default.resolv_conf),
        seccomp_default: raw.seccomp_default.unwrap_or(default.seccomp_default),
        eviction: eviction::thresholds(raw)?,
        image_gc: image_gc::policy(raw)?,
        cluster_dns: cluster_dns(raw)?,
        allowed_sysctls: AllowedSysctls::new(raw.allowed_unsafe_sysctls.as_deref().unwrap_or(&[]))
            .map_err(anyhow::Error::msg)
            .context("allowedUnsafeSysctls")?,
        without_effect: raw
            .without_effect()
            .into_iter()
            .chain(eviction::without_effect(raw))
            .collect(),
    })
}

fn cluster_dns(raw: &Raw) -> anyhow::Result<ClusterDns> {
    let servers = raw.cluster_dns.iter().flatten();
    let address = |text: &String| {
        text.parse::<IpAddr>().with_context(|| format!("clusterDNS: {text:?} is no IP address"))
    };
    Ok(ClusterDns {
        servers: servers.map(address).collect::<anyhow::Result<_>>()?,
        domain: raw.cluster_domain.clone().unwrap_or_default(),
    })
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
