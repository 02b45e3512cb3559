//! What has to be told an API of a pod of its own, which this node runs.
//!
//! # Guarantees
//!
//! - A pod that has come to its end stays there, whatever is computed of it later.
//! - What others wrote in its status, such as conditions of their own, stays.
//! - A pod is deleted only when it was asked for and nothing of it runs any more, and only after its
//!   last status was told.
//!
//! Source: `pkg/kubelet/status/status_manager.go` (`mergePodStatus`, `syncPod`).

use k8s_openapi::api::core::v1::{Pod as KubernetesPod, PodCondition, PodStatus};

use crate::mirror::{Action, patch_of};
use crate::resize;
use crate::status::{ALL_CONTAINERS_RESTARTING, gates, is_over, keep_ends};

/// The conditions that a node writes. Source: `PodConditionByKubelet` in
/// `pkg/kubelet/types/pod_status.go`; the scheduler's is written for whoever binds pods by name.
const OWN: &[&str] = &[
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    ALL_CONTAINERS_RESTARTING,
];

/// What the node knows of the pod.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// How it is.
    pub status: &'a PodStatus,
    /// The generation that was taken in.
    pub generation: Option<i64>,
    /// Whether nothing of it runs, and nothing will.
    pub ended: bool,
}

/// Whether the API has seen its end.
pub fn is_terminal(held: &KubernetesPod) -> bool {
    held.status.as_ref().is_some_and(is_over)
}

/// The next thing to do about it; `None` when the API says what is.
pub fn next(known: &Known<'_>, held: &KubernetesPod) -> Option<Action> {
    let uid = held.metadata.uid.clone().unwrap_or_default();
    let empty = PodStatus::default();
    let before = held.status.as_ref().unwrap_or(&empty);
    if may_follow(before, known.status) {
        let mut status = status(known, before);
        if let Some(spec) = &held.spec {
            gates::judge(spec, &mut status, before);
        }
        if let Some(patch) = patch_of(before, &status, &uid) {
            return Some(Action::PatchStatus { patch });
        }
    }
    let asked = held.metadata.deletion_timestamp.is_some();
    let finalizers = held.metadata.finalizers.as_ref().is_some_and(|list| !list.is_empty());
    // Whoever set them is to take it away now.
    let told = finalizers && held.metadata.deletion_grace_period_seconds == Some(0);
    (asked && known.ended && !told).then_some(Action::Delete { uid })
}

/// Whether a status may take the place of the one that the API has.
fn may_follow(before: &PodStatus, after: &PodStatus) -> bool {
    if !is_over(before) {
        return true;
    }
    let ended = |status: &PodStatus| {
        let all = status.container_statuses.iter().flatten();
        all.filter(|it| it.state.as_ref().is_some_and(|state| state.terminated.is_some())).count()
    };
    let count = |status: &PodStatus| status.container_statuses.as_ref().map_or(0, Vec::len);
    // Of a pod that could not be initialized no main container has ended; others still may.
    let keeps = ended(after) == count(after)
        || (count(before) == count(after) && ended(before) <= ended(after));
    before.phase == after.phase && keeps && count(before) <= count(after)
}

fn status(known: &Known<'_>, before: &PodStatus) -> PodStatus {
    let mut status = known.status.clone();
    let own = |condition: &&PodCondition| {
        OWN.contains(&condition.type_.as_str()) || resize::is_own(&condition.type_)
    };
    let earlier = before.conditions.iter().flatten();
    let mut conditions = status.conditions.take().unwrap_or_default();
    for condition in &mut conditions {
        if resize::is_own(&condition.type_) {
            continue;
        }
        condition.observed_generation = known.generation;
        let mut same = earlier.clone().filter(|it| it.type_ == condition.type_);
        // An agent that was started since does not know when it turned.
        if let Some(same) = same.next().filter(|it| it.status == condition.status) {
            condition.last_transition_time =
                same.last_transition_time.clone().or(condition.last_transition_time.take());
        }
    }
    let said: Vec<String> = conditions.iter().map(|it| it.type_.clone()).collect();
    conditions.extend(earlier.filter(|it| !own(it) && !said.contains(&it.type_)).cloned());
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    keep_ends(&mut status, before);
    status.observed_generation = known.generation;
    status.start_time = before.start_time.clone().or(status.start_time);
    status.nominated_node_name.clone_from(&before.nominated_node_name);
    status.resource_claim_statuses.clone_from(&before.resource_claim_statuses);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn held(status: &Value, metadata: &Value) -> KubernetesPod {
        let mut object = json!({"metadata": {"name": "t", "uid": "u"}, "status": status});
        let metadata = metadata.as_object().unwrap().clone();
        object["metadata"].as_object_mut().unwrap().extend(metadata);
        serde_json::from_value(object).unwrap()
    }

    fn told(phase: &str, state: &str) -> PodStatus {
        let state =
            json!({state: if state == "terminated" { json!({"exitCode": 0}) } else { json!({}) }});
        let container = json!({"name": "t", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let condition = json!({"type": "Ready", "status": "False"});
        let status =
            json!({"phase": phase, "containerStatuses": [container], "conditions": [condition]});
        serde_json::from_value(status).unwrap()
    }

    fn after(status: &PodStatus, ended: bool, held: &KubernetesPod) -> String {
        let known = Known { status, generation: Some(2), ended };
        match next(&known, held) {
            None => "nothing".to_owned(),
            Some(Action::Delete { uid }) => format!("delete {uid}"),
            Some(Action::PatchStatus { patch }) => format!("patch {}", patch["status"]["phase"]),
            Some(other) => format!("{other:?}"),
        }
    }

    /// As it is after the patch.
    fn holding(told: &PodStatus, metadata: &Value) -> KubernetesPod {
        let known = Known { status: told, generation: Some(2), ended: false };
        let mut held = held(&json!({}), metadata);
        held.status = Some(status(&known, &PodStatus::default()));
        held
    }

    #[test]
    fn a_pod_is_deleted_when_it_was_asked_for_and_has_ended_and_was_told_of() {
        let running = told("Running", "running");
        let over = told("Failed", "terminated");
        let asked =
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 9});
        assert_eq!(after(&running, false, &held(&json!({}), &json!({}))), "patch \"Running\"");
        assert_eq!(after(&running, false, &holding(&running, &json!({}))), "nothing");
        assert_eq!(after(&running, false, &holding(&running, &asked)), "nothing");
        assert_eq!(after(&over, true, &holding(&running, &asked)), "patch \"Failed\"");
        assert_eq!(after(&over, true, &holding(&over, &asked)), "delete u");
        assert_eq!(after(&over, true, &holding(&over, &json!({}))), "nothing");
        let kept = json!({
            "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0,
            "finalizers": ["a/b"],
        });
        assert_eq!(after(&over, true, &holding(&over, &kept)), "nothing");
    }

    #[test]
    fn what_all_containers_are_started_over_for_is_the_nodes_to_say() {
        let mut over = told("Failed", "terminated");
        let condition = json!({"type": "AllContainersRestarting", "status": "False"});
        over.conditions.get_or_insert_default().push(serde_json::from_value(condition).unwrap());
        let asked = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(after(&over, true, &holding(&over, &json!({}))), "nothing");
        assert_eq!(after(&over, true, &holding(&over, &asked)), "delete u");
    }

    #[test]
    fn an_end_is_for_good() {
        let over = holding(&told("Succeeded", "terminated"), &json!({}));
        assert_eq!(after(&told("Running", "running"), false, &over), "nothing");
        assert_eq!(after(&told("Failed", "waiting"), true, &over), "nothing");
        let rejected = held(&json!({"phase": "Failed", "reason": "NodePorts"}), &json!({}));
        assert_eq!(after(&told("Failed", "waiting"), true, &rejected), "nothing");
    }

    #[test]
    fn conditions_of_others_stay() {
        let condition = json!({"type": "DisruptionTarget", "status": "True"});
        let held = held(&json!({"phase": "Running", "conditions": [condition]}), &json!({}));
        let known =
            Known { status: &told("Running", "running"), generation: Some(2), ended: false };
        let status = status(&known, held.status.as_ref().unwrap());
        let kinds: Vec<&str> =
            status.conditions.iter().flatten().map(|it| it.type_.as_str()).collect();
        assert_eq!(kinds, ["Ready", "DisruptionTarget"]);
        // One that both may write is there once.
        let mut evicted = told("Failed", "terminated");
        let own = json!({"type": "DisruptionTarget", "status": "True", "reason": "own"});
        evicted.conditions.get_or_insert_default().push(serde_json::from_value(own).unwrap());
        let known = Known { status: &evicted, ..known };
        let status = super::status(&known, held.status.as_ref().unwrap());
        let own: Vec<_> = status.conditions.iter().flatten().skip(1).collect();
        assert_eq!((own.len(), own[0].reason.as_deref()), (1, Some("own")));
        assert_eq!(status.observed_generation, Some(2));
    }
}
