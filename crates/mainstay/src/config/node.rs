//! What the node is, and what of it pods can have.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Taint;
use mainstay_node::NodeTimes;
use mainstay_plan::allocatable::{self, Allocation, Reserved};
use mainstay_plan::node_status::NodeSettings;
use mainstay_plan::pressure::Thresholds;
use mainstay_plan::resources::CpuQuotas;
use mainstay_pod::validate::names;

use super::raw::Raw;
use super::{said, time};

/// What of the machine pods can have. Source: `ValidateKubeletConfiguration`, `parseResourceList`.
pub(super) fn allocation(raw: &Raw, thresholds: &Thresholds) -> anyhow::Result<Allocation> {
    let default = Allocation::default();
    let count = |field: &str, said: Option<i32>, default: u32| match said {
        None => Ok(default),
        Some(count) => u32::try_from(count)
            .with_context(|| format!("{field} {count} must not be a negative number")),
    };
    let cpus = raw.reserved_system_cpus.as_deref().unwrap_or_default();
    let cpus = allocatable::cpus(cpus).map_err(anyhow::Error::msg).context("reservedSystemCPUs")?;
    let has_cgroups = said(&raw.system_reserved_cgroup).or(said(&raw.kube_reserved_cgroup));
    if let Some(group) = has_cgroups.filter(|_| !cpus.is_empty()) {
        bail!(
            "can't use reservedSystemCPUs with systemReservedCgroup or kubeReservedCgroup {group:?}"
        );
    }
    let reserved = |list, field: &'static str| {
        Reserved::parse(list).map_err(anyhow::Error::msg).context(field)
    };
    let max_pods = count("maxPods", raw.max_pods, default.max_pods)?;
    Ok(Allocation {
        system: reserved(&raw.system_reserved, "systemReserved")?,
        kube: reserved(&raw.kube_reserved, "kubeReserved")?,
        cpus,
        hard: thresholds.iter().filter(|it| it.is_hard()).copied().collect(),
        enforced: enforced(raw)?,
        // 0 is how the kubelet's file says "the default".
        max_pods: if max_pods == 0 { default.max_pods } else { max_pods },
        pods_per_core: count("podsPerCore", raw.pods_per_core, default.pods_per_core)?,
        has_storage: raw.local_storage_capacity_isolation.unwrap_or(default.has_storage),
    })
}

/// Levels of enforcement beside the one for pods, with the field that each needs.
fn level(raw: &Raw, name: &str) -> Option<(&'static str, bool)> {
    match name {
        "system-reserved" | "system-reserved-compressible" => {
            Some(("systemReservedCgroup", said(&raw.system_reserved_cgroup).is_some()))
        }
        "kube-reserved" | "kube-reserved-compressible" => {
            Some(("kubeReservedCgroup", said(&raw.kube_reserved_cgroup).is_some()))
        }
        _ => None,
    }
}

/// Whether pods together are held to what they can have.
fn enforced(raw: &Raw) -> anyhow::Result<bool> {
    const FIELD: &str = "enforceNodeAllocatable";
    let Some(levels) = &raw.enforce_node_allocatable else { return Ok(true) };
    let mut seen = BTreeSet::new();
    for name in levels {
        ensure!(seen.insert(name.as_str()), "{FIELD}: duplicated enforcements {name:?}");
        match (name.as_str(), level(raw, name)) {
            ("pods", _) | (_, Some((_, true))) => {}
            ("none", _) => ensure!(
                levels.len() == 1,
                "{FIELD}: may not contain additional enforcements when \"none\" is specified"
            ),
            (_, Some((field, false))) => bail!("{FIELD}: {name:?} needs {field}"),
            (_, None) => bail!(
                "{FIELD}: {name:?} is none of \"pods\", \"system-reserved\", \
                 \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" \
                 and \"none\""
            ),
        }
    }
    for kind in ["system-reserved", "kube-reserved"] {
        let both = seen.contains(kind) && seen.contains(format!("{kind}-compressible").as_str());
        ensure!(
            !both,
            "{FIELD}: both {kind:?} and its compressible form cannot be specified together"
        );
    }
    Ok(seen.contains("pods"))
}

/// Enforcement of what is not done: other people's control groups are theirs.
pub(super) fn in_vain(raw: &Raw) -> impl Iterator<Item = String> {
    let levels = raw.enforce_node_allocatable.iter().flatten();
    let others = levels.filter(|name| level(raw, name).is_some());
    others.map(|name| format!("enforceNodeAllocatable[{name}]"))
}

/// What its Node says.
pub(super) fn settings(raw: &Raw, thresholds: &Thresholds) -> anyhow::Result<NodeSettings> {
    let default = NodeSettings::default();
    let max_images = match raw.node_status_max_images {
        None => default.max_images,
        Some(-1) => None,
        Some(count) => {
            let count = usize::try_from(count);
            Some(count.ok().context("nodeStatusMaxImages: must be -1 or greater")?)
        }
    };
    let mut seen = BTreeSet::new();
    for taint in &raw.register_with_taints {
        check_taint(taint).context("registerWithTaints")?;
        ensure!(
            seen.insert((&taint.key, &taint.effect)),
            "registerWithTaints: duplicated taints with the same key and effect: {}",
            taint.key
        );
    }
    Ok(NodeSettings {
        allocation: allocation(raw, thresholds)?,
        max_images,
        labels: default.labels,
        taints: raw.register_with_taints.clone(),
        provider_id: raw.provider_id.clone().unwrap_or_default(),
    })
}

/// Source: `CheckTaintValidation` in `pkg/util/taints/taints.go`; an API server wants an effect.
fn check_taint(taint: &Taint) -> anyhow::Result<()> {
    let Taint { key, value, effect, time_added } = taint;
    let messages = names::label_key(key);
    ensure!(messages.is_empty(), "invalid taint key {key:?}: {}", messages.join("; "));
    let messages = names::label_value(value.as_deref().unwrap_or_default());
    ensure!(messages.is_empty(), "invalid taint value {value:?}: {}", messages.join("; "));
    ensure!(
        ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&&**effect),
        "invalid taint effect: {effect:?}, unsupported taint effect"
    );
    ensure!(time_added.is_none(), "taint.TimeAdded is not nil");
    Ok(())
}

/// When something of it is told.
pub(super) fn times(raw: &Raw) -> anyhow::Result<NodeTimes> {
    let default = NodeTimes::default();
    let update = time("nodeStatusUpdateFrequency", &raw.node_status_update_frequency)?;
    let report = time("nodeStatusReportFrequency", &raw.node_status_report_frequency)?;
    let lease = match raw.node_lease_duration_seconds {
        // 0 is how the kubelet's file says "the default".
        None | Some(0) => default.lease,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => bail!("nodeLeaseDurationSeconds must be greater than 0"),
        },
    };
    Ok(NodeTimes {
        update: update.unwrap_or(default.update),
        // As in a kubelet, whoever says one of them says the other.
        report: report.or(update).unwrap_or(default.report),
        lease,
    })
}

/// How limits of processor time are kept.
pub(super) fn cpu_quotas(raw: &Raw) -> anyhow::Result<CpuQuotas> {
    let default = CpuQuotas::default();
    let period = match raw.cpu_cfs_quota_period.as_deref() {
        None => default.period,
        Some(text) => {
            let period = super::duration(text).context("cpuCFSQuotaPeriod")?;
            ensure!(
                (Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period),
                "cpuCFSQuotaPeriod {text} must be between 1ms and 1sec, inclusive"
            );
            u64::try_from(period.as_micros()).unwrap_or(default.period)
        }
    };
    Ok(CpuQuotas { enforced: raw.cpu_cfs_quota.unwrap_or(default.enforced), period })
}

/// The longest wait before a container is started again.
pub(super) fn longest_wait(raw: &Raw) -> anyhow::Result<Option<Duration>> {
    let Some(text) = &raw.crash_loop_back_off.max_container_restart_period else {
        return Ok(None);
    };
    let longest = super::duration(text).context("crashLoopBackOff.maxContainerRestartPeriod")?;
    ensure!(
        (Duration::from_secs(1)..=Duration::from_secs(300)).contains(&longest),
        "crashLoopBackOff.maxContainerRestartPeriod (got: {text}) must be set between 1s and 300s"
    );
    Ok(Some(longest))
}

/// Whether containers may have some of the machine's swap.
pub(super) fn has_limited_swap(raw: &Raw) -> anyhow::Result<bool> {
    match raw.memory_swap.swap_behavior.as_deref() {
        None | Some("" | "NoSwap") => Ok(false),
        Some("LimitedSwap") => Ok(true),
        Some(other) => bail!(
            "memorySwap.swapBehavior {other:?} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""
        ),
    }
}
