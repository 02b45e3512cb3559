//! New pods come as old ones go.
//!
//! Source: `pkg/controller/deployment/rolling.go`.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::decide::Rollout;
use super::sets;
use super::strategy::Strategy;

/// The next step: up, or down, or nothing but to tidy up.
pub(super) fn step(rollout: &mut Rollout<'_>) {
    let new = rollout.new_or_create();
    if scale_new(rollout, &new) || scale_old(rollout, &new) {
        return;
    }
    if rollout.is_complete() {
        rollout.clean_up();
    }
}

fn scale_new(rollout: &mut Rollout<'_>, new: &Arc<ReplicaSet>) -> bool {
    let size = match sets::size(new) {
        size if size > rollout.strategy.wanted => rollout.strategy.wanted,
        size => new_size(&rollout.strategy, &rollout.old, size),
    };
    rollout.scale(new, size)
}

/// How many pods the new ReplicaSet may have beside the old ones. Source: `NewRSNewReplicas`.
pub(super) fn new_size(strategy: &Strategy, old: &[Arc<ReplicaSet>], size: i64) -> i64 {
    if strategy.recreate {
        return strategy.wanted;
    }
    let free = strategy.most() - sets::total(old, sets::size) - size;
    size + free.min(strategy.wanted - size).max(0)
}

/// Source: `reconcileOldReplicaSets`.
fn scale_old(rollout: &mut Rollout<'_>, new: &Arc<ReplicaSet>) -> bool {
    let fewest = rollout.strategy.fewest_available();
    let mut old: Vec<(Arc<ReplicaSet>, i64)> =
        rollout.old.iter().map(|set| (set.clone(), sets::size(set))).collect();
    old.retain(|(_, size)| *size > 0);
    // New pods that are not available yet are not counted on.
    let all = sets::total(&rollout.all(), sets::size);
    let pending = sets::size(new) - sets::available(new);
    let most = all - fewest - pending;
    if old.is_empty() || most <= 0 {
        return false;
    }
    // Those that are unavailable anyway first, or they might hold up everything.
    let mut gone = 0;
    for (set, size) in &mut old {
        let unavailable = *size - sets::available(set);
        if gone >= most {
            break;
        }
        // It is being scaled down still, and what it counts is not to be relied on.
        if unavailable < 0 {
            return false;
        }
        let fewer = unavailable.min(most - gone);
        rollout.scale_from(set, *size, *size - fewer);
        *size -= fewer;
        gone += fewer;
    }
    let mut spare = sets::total(&rollout.all(), sets::available) - fewest;
    for (set, size) in &old {
        let fewer = (*size).min(spare).max(0);
        rollout.scale_from(set, *size, *size - fewer);
        spare -= fewer;
        gone += fewer;
    }
    gone > 0
}
