//! The status of a DaemonSet.
//!
//! Source: `updateDaemonSetStatus` in `pkg/controller/daemon/daemon_controller.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Node;

use super::decide::min_ready;
use super::place::{Takes, takes};
use super::template;
use crate::pods::{self, Pod};

/// The status, if it is another one than that which there is. `is_current` says whether it was decided
/// by the set as it is now.
pub(super) fn compute(
    set: &DaemonSet,
    hash: &str,
    nodes: &[Arc<Node>],
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    is_current: bool,
    now: Timestamp,
) -> Option<DaemonSetStatus> {
    let before = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
        observed_generation: match is_current {
            true => set.metadata.generation,
            false => before.observed_generation,
        },
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let first = pods.get(name).and_then(|pods| pods.first());
        if takes(set, node) != Takes::Yes {
            status.number_misscheduled += i32::from(first.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = first else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        let from = pods::available_from(pod, min_ready(set));
        available += i32::from(from.is_some_and(|from| from <= now));
        updated += i32::from(template::is_current(set, hash, pod));
    }
    let nonzero = |number: i32| (number != 0).then_some(number);
    status.updated_number_scheduled = nonzero(updated);
    status.number_available = nonzero(available);
    status.number_unavailable = nonzero(status.desired_number_scheduled - available);
    (before != status).then_some(status)
}

/// After what time the next pod that is ready will be available.
pub(super) fn next_available(
    set: &DaemonSet,
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    now: Timestamp,
) -> Option<Duration> {
    let pods = pods.values().flatten();
    pods::next_available(pods, min_ready(set), now)
}
