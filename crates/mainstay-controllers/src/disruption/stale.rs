//! Pods that were to be disrupted, and were not.
//!
//! Source: `syncStalePodDisruption` in `pkg/controller/disruption/disruption.go`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_client::{CallError, CallErrorKind, Calls};
use serde_json::{Value, json};

use crate::informer::{Informer, ObjectKey};
use crate::informers::path;
use crate::pods::{self, Pod};

/// How long a pod that is to be disrupted may take to be deleted. Source:
/// `stalePodDisruptionTimeout`.
const TIMEOUT: Duration = Duration::from_mins(2);

/// The condition by which a pod says that it is about to be disrupted, if it does and is not being
/// deleted. That of its node may stand there for as long as the node takes.
pub(super) fn target(pod: &Pod) -> Option<&PodCondition> {
    if !pods::is_active(pod) {
        return None;
    }
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let target = conditions.find(|condition| condition.type_ == pods::DISRUPTION_TARGET)?;
    let by_node = target.reason.as_deref() == Some("TerminationByKubelet");
    (target.status == "True" && !by_node).then_some(target)
}

/// After what time a pod says it no more; zero is now.
pub(super) fn decide(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let since = target(pod)?.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    let until = since.checked_add(TIMEOUT).unwrap_or(Timestamp::MAX);
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

pub(super) async fn sync(
    calls: &Calls,
    pods: &Informer<Pod>,
    key: ObjectKey,
) -> Result<Option<Duration>, CallError> {
    let Some(pod) = pods.get(&key) else { return Ok(None) };
    let now = Timestamp::now();
    match decide(&pod, now) {
        Some(Duration::ZERO) => {}
        rest => return Ok(rest),
    }
    let meta = &pod.metadata;
    let patch = json!({
        // Not if it is said anew.
        "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
        "status": { "conditions": [{
            "type": pods::DISRUPTION_TARGET,
            "status": "False",
            "reason": null,
            "message": null,
            "lastProbeTime": null,
            "lastTransitionTime": Time(now),
            "observedGeneration": meta.generation,
        }] },
    });
    let path = format!("{}/status", path::<Pod>(&key.namespace, &key.name));
    match calls.patch::<Value>(&path, &patch).await {
        Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
        written => written.map(|_| None),
    }
}
