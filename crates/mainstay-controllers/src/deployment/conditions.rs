//! The conditions of a Deployment.
//!
//! Source: `pkg/controller/deployment/util/deployment_util.go`.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSetCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const FAILURE: &str = "ReplicaFailure";

/// The reasons of [`PROGRESSING`].
pub(super) mod reason {
    pub(in super::super) const UPDATED: &str = "ReplicaSetUpdated";
    pub(in super::super) const CANNOT_CREATE: &str = "ReplicaSetCreateError";
    pub(in super::super) const CREATED: &str = "NewReplicaSetCreated";
    pub(in super::super) const FOUND: &str = "FoundNewReplicaSet";
    pub(in super::super) const DONE: &str = "NewReplicaSetAvailable";
    pub(in super::super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
    pub(in super::super) const PAUSED: &str = "DeploymentPaused";
    pub(in super::super) const RESUMED: &str = "DeploymentResumed";
}

/// A condition that has become so now. `status` is `True`, `False` or `Unknown`.
pub(super) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
        last_update_time: Some(Time(now)),
    }
}

/// Source: `ReplicaSetToDeploymentCondition`.
pub(super) fn of_set(condition: &ReplicaSetCondition) -> DeploymentCondition {
    DeploymentCondition {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: condition.last_transition_time.clone(),
        last_update_time: condition.last_transition_time.clone(),
    }
}

pub(super) fn find<'a>(
    status: &'a DeploymentStatus,
    type_: &str,
) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Puts a condition in, unless it is there with the same status and reason.
pub(super) fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(before) = find(status, &condition.type_)
        && before.status == condition.status
    {
        if before.reason == condition.reason {
            return;
        }
        condition.last_transition_time = before.last_transition_time.clone();
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}

pub(super) fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
    }
}

/// Why it progresses, or does not.
pub(super) fn progress(status: &DeploymentStatus) -> Option<&str> {
    find(status, PROGRESSING)?.reason.as_deref()
}
