//! A Deployment is scaled while it is paused, or in the middle of a rollout: the old and the new
//! ReplicaSets grow and shrink alike, so that the rollout is as far as before.
//!
//! Source: `scale` in `pkg/controller/deployment/sync.go` and `GetReplicaSetProportion` in
//! `pkg/controller/deployment/util/deployment_util.go`.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::decide::Rollout;
use super::strategy::Strategy;
use super::{annotations, sets};

pub(super) fn scale(rollout: &mut Rollout<'_>) {
    let Strategy { wanted, recreate, .. } = rollout.strategy;
    let mut active = rollout.all();
    active.retain(|set| sets::is_active(set));
    match &*active {
        // All of them to the newest, of which the new one is the newest.
        [] => {
            if let Some(newest) = rollout.new.clone().or_else(|| rollout.old.last().cloned()) {
                rollout.scale(&newest, wanted);
            }
        }
        // It may have been scaled by somebody else, and has to know for whom it is.
        [only] => rollout.resize(only, wanted),
        _ if rollout.new.as_deref().is_some_and(|new| is_saturated(new, wanted)) => {
            for old in rollout.old.clone() {
                rollout.scale(&old, 0);
            }
        }
        _ if recreate => {}
        _ => scale_all(rollout, active),
    }
}

/// Whether the new ReplicaSet has all pods that there should be. Source: `IsSaturated`.
fn is_saturated(new: &ReplicaSet, wanted: i64) -> bool {
    sets::size(new) == wanted
        && sets::number(new, annotations::DESIRED) == Some(wanted)
        && sets::available(new) == wanted
}

fn scale_all(rollout: &mut Rollout<'_>, mut active: Vec<Arc<ReplicaSet>>) {
    let most = if rollout.strategy.wanted > 0 { rollout.strategy.most() } else { 0 };
    let to_add = most - sets::total(&active, sets::size);
    // The largest first; of those that are as large the newer grow first, the older shrink first.
    active.sort_by(|one, other| {
        let (older, newer) = (sets::age(one), sets::age(other));
        let by_age = if to_add > 0 { newer.cmp(&older) } else { older.cmp(&newer) };
        Reverse(sets::size(one)).cmp(&Reverse(sets::size(other))).then(by_age)
    });
    let mut left = to_add;
    let mut sizes = Vec::with_capacity(active.len());
    for set in &active {
        let share = share(rollout, set);
        let share = if to_add > 0 { share.min(left) } else { share.max(left) };
        let share = if left == 0 { 0 } else { share };
        sizes.push(sets::size(set) + share);
        left -= share;
    }
    // What is left by rounding is the largest one's.
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + left).max(0);
    }
    for (set, size) in active.iter().zip(sizes) {
        rollout.resize(set, size);
    }
}

/// By how many pods a ReplicaSet would grow, or shrink, as the whole does. Source:
/// `getReplicaSetFraction`.
fn share(rollout: &Rollout<'_>, set: &ReplicaSet) -> i64 {
    let size = sets::size(set);
    if rollout.strategy.wanted == 0 {
        return -size;
    }
    let before = sets::number(set, annotations::MAX).filter(|before| *before != 0);
    match before.unwrap_or_else(|| rollout.last_count()) {
        // Nobody knows, and there are no pods.
        0 => 0,
        before => {
            let (size, before) = (i128::from(size), i128::from(before));
            // To the nearest.
            let scaled = (2 * size * i128::from(rollout.strategy.most()) + before) / (2 * before);
            i64::try_from(scaled - size).unwrap_or(i64::MAX)
        }
    }
}
