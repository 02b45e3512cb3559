//! What requests and limits mean to the kernel.
//!
//! Source: `pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go`
//! and `pkg/kubelet/qos/policy.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use mainstay_cri::HugepageLimit;
use mainstay_pod::resources::{huge_pages, parse, requests_of};
use mainstay_pod::{Amounts, Pod, QosClass, Role};

use crate::resize::Requirements;

/// How limits of processor time are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuotas {
    /// Whether they are kept at all. Source: `cpuCFSQuota`.
    pub enforced: bool,
    /// Microseconds of a scheduling period, 1000 to 1000000. Source: `cpuCFSQuotaPeriod`.
    pub period: u64,
}

impl Default for CpuQuotas {
    /// Those of a kubelet.
    fn default() -> Self {
        Self { enforced: true, period: 100_000 }
    }
}

/// What a container or a pod may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// 2 to 262144; 1024 stands for one CPU.
    pub cpu_shares: u64,
    /// Microseconds in each period; `None` is no limit.
    pub cpu_quota: Option<u64>,
    /// Bytes; `None` is no limit.
    pub memory: Option<u64>,
}

impl Limits {
    /// Of one container of a pod, after defaulting has copied limits to requests. One that has no limit
    /// has that of all containers together, if the pod has one. Source: `getCPULimit`,
    /// `getMemoryLimit`.
    pub fn of_container(pod: &Pod, container: &Container, quotas: CpuQuotas) -> Self {
        Self::of(&Requirements::of_container(pod, container), quotas)
    }

    /// Of a whole pod. Where one container has no limit, the pod has none.
    pub fn of_pod(pod: &Pod, quotas: CpuQuotas) -> Self {
        Self::of(&Requirements::of_pod(pod), quotas)
    }

    /// Of what a container or a pod has.
    pub fn of(has: &Requirements, quotas: CpuQuotas) -> Self {
        let Requirements { requests, limits } = has;
        let cpu_limit = limits.cpu_milli.filter(|milli| *milli != 0 && quotas.enforced);
        Self {
            cpu_shares: shares(requests.cpu_milli.or(limits.cpu_milli).unwrap_or(0)),
            cpu_quota: cpu_limit.map(|milli| quota(milli, quotas.period)),
            memory: limits.memory_bytes.filter(|bytes| *bytes != 0),
        }
    }
}

/// The huge pages that a container may have, of each of the machine's `sizes` in bytes. Without a limit of its
/// own it may have what the pod has as a whole. Source: `GetHugepageLimitsFromResources`.
pub(crate) fn huge_pages_of_container(
    pod: &Pod,
    container: &Container,
    sizes: &[u64],
) -> Vec<HugepageLimit> {
    let levels = [pod.spec().resources.as_ref(), container.resources.as_ref()];
    let lists = levels.into_iter().flatten().map(|it| huge_pages(&parse(it.limits.as_ref())));
    of_sizes(&lists.flatten().collect(), sizes)
}

/// The huge pages that all containers of a pod may have together. Source: `ResourceConfigForPod`, and
/// `maybeSetHugetlb` in `pkg/kubelet/cm/cgroup_manager_linux.go`.
pub fn huge_pages_of_pod(pod: &Pod, sizes: &[u64]) -> Vec<HugepageLimit> {
    of_sizes(&huge_pages(&requests_of(pod.spec())), sizes)
}

fn of_sizes(bytes: &BTreeMap<u64, u64>, sizes: &[u64]) -> Vec<HugepageLimit> {
    let limit = |size: &u64| HugepageLimit {
        page_size: page_size(*size),
        limit: bytes.get(size).copied().unwrap_or(0),
    };
    sizes.iter().map(limit).collect()
}

/// A size of huge pages as files of control groups are named after it: `64KB`, `2MB`, `1GB`. Source:
/// `HugePageUnitSizeFromByteSize` in `pkg/apis/core/v1/helper/helpers.go`.
fn page_size(bytes: u64) -> String {
    let fitting =
        [(30, "GB"), (20, "MB"), (10, "KB")].into_iter().find(|(bits, _)| bytes >> bits != 0);
    fitting.map_or_else(|| format!("{bytes}B"), |(bits, unit)| format!("{}{unit}", bytes >> bits))
}

/// Source: `MilliCPUToShares`.
pub(crate) fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// Source: `MilliCPUToQuota`; the kernel takes no less than a millisecond.
fn quota(milli: u64, period: u64) -> u64 {
    (milli.saturating_mul(period) / 1000).max(1000)
}

/// Bytes of the machine's `swap` that a container may use, where containers may use some of it: as large a
/// part of it as its request is of the machine's memory. Critical pods, those of the other classes and
/// containers that ask for all that they are limited to have none.
///
/// Source: `GetContainerSwapBehavior`, `calcSwapForBurstablePods` in
/// `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go`.
pub fn limited_swap(pod: &Pod, container: &Container, machine_memory: u64, swap: u64) -> u64 {
    let of = |amounts: Amounts| amounts.memory_bytes.unwrap_or(0);
    let (request, limit) = (of(Amounts::requested_by(container)), of(Amounts::limit_of(container)));
    let burstable = pod.qos_class() == QosClass::Burstable;
    if pod.is_critical() || !burstable || request == limit || request > machine_memory {
        return 0;
    }
    let part = u128::from(request) * u128::from(swap);
    u64::try_from(part / u128::from(machine_memory.max(1))).unwrap_or(0)
}

/// How soon the kernel kills a container's processes when memory is short, -1000 to 1000.
///
/// Source: `GetContainerOOMScoreAdjust`: the fewer of the machine's bytes a burstable container
/// asked for, the sooner; a sidecar not sooner than those that it is there for.
pub fn oom_score_adj(pod: &Pod, container: &Container, machine_memory: u64) -> i32 {
    const GUARANTEED: i32 = -997;
    const BEST_EFFORT: i32 = 1000;
    if pod.spec().priority_class_name.as_deref() == Some("system-node-critical") {
        return GUARANTEED;
    }
    match pod.qos_class() {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let request = |it: &Container| Amounts::requested_by(it).memory_bytes.unwrap_or(0);
            let least = match pod.container(&container.name) {
                Some((Role::Sidecar, _)) => pod.spec().containers.iter().map(request).min(),
                _ => None,
            };
            let request = request(container).max(least.unwrap_or(0));
            let request = request.saturating_add(share_of_rest(pod));
            let used = u128::from(request) * 1000 / u128::from(machine_memory.max(1));
            let score = 1000 - i32::try_from(used).unwrap_or(1000).min(1000);
            // Between those of the other classes, whose edges are theirs alone.
            score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// What of the memory that a pod requests as a whole its containers do not, in equal shares for each of
/// them. Source: `pkg/kubelet/qos/helpers.go`, `remainingPodMemReqPerContainer`.
fn share_of_rest(pod: &Pod) -> u64 {
    let spec = pod.spec();
    let own = spec.resources.as_ref().map(Amounts::request_in).unwrap_or_default();
    let Some(own) = own.memory_bytes else { return 0 };
    let containers = pod.containers().count();
    let rest = own.saturating_sub(Amounts::requested_by_containers(spec).memory_bytes.unwrap_or(0));
    u64::try_from(containers).ok().and_then(|count| rest.checked_div(count)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
