//! Which pod is ended first, and which one is started again first.
//!
//! Source: `rankMemoryPressure`, `rankPIDPressure` and `rankDiskPressureFunc` in
//! `pkg/kubelet/eviction/helpers.go`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use mainstay_pod::{Amounts, Pod};

use super::Resource;

/// What a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Bytes of memory that would be missed.
    pub memory: u64,
    /// Bytes of disk: volumes, written layers, logs.
    pub disk: u64,
    /// Files of the same.
    pub inodes: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Its running containers, by name.
    pub containers: BTreeMap<String, ContainerUsage>,
}

/// What a container uses, as far as it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Bytes of memory that would be missed.
    pub memory: Option<u64>,
    /// Bytes of its written layer and its logs.
    pub disk: Option<u64>,
}

/// A pod that may be ended.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it uses; `None` if that cannot be told.
    pub usage: Option<&'a PodUsage>,
}

/// Which of the pods is ended first when something is short; `None` when the node needs them all.
///
/// What nothing is known of goes first; then who uses more than it asked for, who is less important, and
/// who uses most beyond what it asked for. Of processes nobody can ask for any.
///
/// A static pod, which nobody starts elsewhere, is not ended in vain: only if it is known to use what is
/// short. A disk may be full of what no pod has written, and stay so for ever: for that it has to have at
/// least a tenth of what is missing.
pub fn victim(resource: Resource, missing: u64, candidates: &[Candidate<'_>]) -> Option<usize> {
    let helps = |candidate: &Candidate<'_>| {
        let used = candidate.usage.map(|usage| of(resource, candidate.pod, usage));
        let (used, requested) = used.unwrap_or_default();
        let beyond = used.saturating_sub(requested);
        let enough =
            if resource.is_of_disk() { beyond > 0 && beyond >= missing / 10 } else { used > 0 };
        enough || !candidate.pod.source().is_static()
    };
    let key = |candidate: &Candidate<'_>| {
        let (used, requested) = match candidate.usage {
            Some(usage) => of(resource, candidate.pod, usage),
            None => (u64::MAX, 0),
        };
        let is_known = candidate.usage.is_some();
        let exceeds = used > requested && resource != Resource::Pids;
        let priority = candidate.pod.priority();
        // By pids the priority comes before what is known.
        let first = (resource != Resource::Pids).then_some((is_known, !exceeds));
        let beyond = i128::from(used) - i128::from(requested);
        (first, priority, is_known, Reverse(beyond))
    };
    let all = candidates.iter().enumerate();
    let least = all.filter(|(_, candidate)| !candidate.pod.is_critical() && helps(candidate));
    least.min_by_key(|(_, candidate)| key(candidate)).map(|(index, _)| index)
}

/// Which of the static pods that were ended is started again first: the most important one.
pub fn returning<'a>(ended: impl IntoIterator<Item = &'a Pod>) -> Option<&'a Pod> {
    ended.into_iter().min_by_key(|pod| Reverse(pod.priority()))
}

/// What a pod uses and what it asked for.
fn of(resource: Resource, pod: &Pod, usage: &PodUsage) -> (u64, u64) {
    let requested = || Amounts::requested_by_pod(pod.spec());
    match resource {
        Resource::Memory => (usage.memory, requested().memory_bytes.unwrap_or(0)),
        Resource::EphemeralStorage => {
            (usage.disk, requested().ephemeral_storage_bytes.unwrap_or(0))
        }
        Resource::Inodes => (usage.inodes, 0),
        Resource::Pids => (usage.processes, 0),
    }
}
