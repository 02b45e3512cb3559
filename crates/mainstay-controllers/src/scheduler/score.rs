//! Which of the nodes that a pod may have is the best.
//!
//! Each plugin gives each node 0 to 100; the sum by weight counts. Source: `getDefaultPlugins` in
//! `pkg/scheduler/apis/config/v1/default_plugins.go`.

mod affinity;
mod images;
mod node;
mod resources;
mod spread;

use k8s_openapi::api::core::v1::Node;

use super::pod::PodInfo;
use super::snapshot::{NodeInfo, Slot, Snapshot};

/// The best that there is.
const MAX: i64 = 100;

/// A node that a pod may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feasible<'a> {
    pub(super) slot: Slot,
    pub(super) info: &'a NodeInfo,
    pub(super) node: &'a Node,
}

/// What each node is worth, in their order.
pub(super) fn scores(pod: &PodInfo, snapshot: &Snapshot, nodes: &[Feasible<'_>]) -> Vec<i64> {
    let mut sums = vec![0_i64; nodes.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (sum, score) in sums.iter_mut().zip(scores) {
            *sum += weight * score;
        }
    };
    add(3, node::taints(pod, nodes));
    add(2, node::affinity(pod, nodes));
    add(1, resources::least_allocated(pod, nodes));
    add(2, spread::scores(pod, snapshot, nodes));
    add(2, affinity::scores(pod, snapshot, nodes));
    add(1, resources::balanced(pod, nodes));
    add(1, images::scores(pod, snapshot, nodes));
    sums
}

/// Scores in proportion to the highest, from 0 to [`MAX`]. Source: `DefaultNormalizeScore`.
fn normalize(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0).max(0);
    for score in scores {
        let part = if highest == 0 { 0 } else { MAX * *score / highest };
        *score = if reverse { MAX - part } else { part };
    }
}

/// A number without its fraction.
fn whole(number: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is meant; what is too large becomes the largest"
    )]
    let whole = number as i64;
    whole
}

/// A count, to be calculated with: 2^53 is not reached, and if it were, nobody would notice.
const fn real(count: i64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
