//! Which pods go.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::pods::{self, Pod};

/// Somebody says of a node with this taint that it is off. Source: `TaintNodeOutOfService`.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Where a pod is.
pub(super) enum Place<'a> {
    Nowhere,
    On(&'a Node),
    /// On a node that is gone.
    Gone,
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is to end, and there is no node that would end it.
    Unscheduled,
    /// Its node is gone.
    Orphaned,
    /// It is to end, and its node is off.
    OutOfService,
    /// It is over, and one of too many.
    TooMany,
}

/// Why a pod goes, if it does. Source: `gcUnscheduledTerminating`, `gcOrphaned`, `gcTerminating`.
pub(super) fn decide(pod: &Pod, place: &Place<'_>) -> Option<Why> {
    if is_done(pod) {
        return None;
    }
    let ends = pod.metadata.deletion_timestamp.is_some();
    match place {
        Place::Nowhere => ends.then_some(Why::Unscheduled),
        Place::On(node) => (ends && is_out_of_service(node)).then_some(Why::OutOfService),
        Place::Gone => Some(Why::Orphaned),
    }
}

/// Whether there is nothing to be done for a pod to go: it is over and has no time left. What holds
/// it are finalizers.
fn is_done(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    pods::is_over(pod)
        && meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
}

/// Whether a node is off, as somebody has found out.
pub(super) fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    taints.any(|taint| taint.key == OUT_OF_SERVICE)
        && !conditions.any(|it| it.type_ == "Ready" && it.status == "True")
}

/// Those that go of pods that are over when there are more than `most`: first those that were
/// evicted, then the oldest. Source: `gcTerminated`.
pub(super) fn surplus(mut pods: Vec<Arc<Pod>>, most: usize) -> Vec<Arc<Pod>> {
    pods.retain(|pod| pods::is_over(pod));
    let surplus = pods.len().saturating_sub(most);
    if surplus == 0 {
        return Vec::new();
    }
    pods.sort_by_cached_key(|pod| {
        let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
        let is_evicted = pods::phase(pod) == "Failed" && reason == Some("Evicted");
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!is_evicted, created, pod.metadata.name.clone())
    });
    pods.truncate(surplus);
    pods.retain(|pod| !is_done(pod));
    pods
}

/// What of the status of a pod that goes is to be changed. None if the pod is over.
pub(super) fn failed(pod: &Pod, why: Why, now: Timestamp) -> Option<Value> {
    if pods::is_over(pod) {
        return None;
    }
    let generation = pod.metadata.generation;
    let mut status = json!({ "phase": "Failed", "observedGeneration": generation });
    if why == Why::Orphaned {
        let message = "PodGC: node no longer exists";
        let condition = pods::disruption_target(pod, "DeletionByPodGC", message, now);
        status["conditions"] = json!([condition]);
    }
    Some(status)
}
