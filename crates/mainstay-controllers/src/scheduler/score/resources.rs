//! How much of a node is left, and how evenly it is used.
//!
//! Source: `pkg/scheduler/framework/plugins/noderesources/{least_allocated,balanced_allocation}.go`.

use super::super::pod::PodInfo;
use super::super::snapshot::NodeInfo;
use super::{Feasible, MAX, real, whole};

/// The more is left, the better: of CPU and memory, and what requests nothing counts, too.
pub(super) fn least_allocated(pod: &PodInfo, nodes: &[Feasible<'_>]) -> Vec<i64> {
    nodes.iter().map(|feasible| left(pod, feasible.info)).collect()
}

fn left(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let has = [info.capacity.resources.cpu, info.capacity.resources.memory];
    let parts = has.into_iter().zip(info.scored).zip(pod.scored).filter(|((has, _), _)| *has != 0);
    let (mut sum, mut count) = (0, 0);
    for ((has, used), wanted) in parts {
        let used = used.saturating_add(wanted);
        if used <= has {
            // Bytes times a hundred are more than fits.
            let part = i128::from(has - used) * i128::from(MAX) / i128::from(has);
            sum += i64::try_from(part).unwrap_or(0);
        }
        count += 1;
    }
    if count == 0 { 0 } else { sum / count }
}

/// The more alike the used parts of CPU and memory become, the better. A pod that requests nothing changes
/// nothing.
pub(super) fn balanced(pod: &PodInfo, nodes: &[Feasible<'_>]) -> Vec<i64> {
    if pod.requests.cpu == 0 && pod.requests.memory == 0 {
        return Vec::new();
    }
    let score = |feasible: &Feasible<'_>| {
        let without = balance(feasible.info, [0, 0]);
        let with = balance(feasible.info, [pod.requests.cpu, pod.requests.memory]);
        MAX / 2 + (MAX / 2 + with - without) / 2
    };
    nodes.iter().map(score).collect()
}

fn balance(info: &NodeInfo, more: [i64; 2]) -> i64 {
    let part = |has: i64, used: i64, more: i64| {
        (has != 0).then(|| (real(used.saturating_add(more)) / real(has)).min(1.0))
    };
    let has = &info.capacity.resources;
    let cpu = part(has.cpu, info.requested.cpu, more[0]);
    let memory = part(has.memory, info.requested.memory, more[1]);
    let deviation = match (cpu, memory) {
        (Some(cpu), Some(memory)) => ((cpu - memory) / 2.0).abs(),
        _ => 0.0,
    };
    whole((1.0 - deviation) * real(MAX))
}
