//! The status of a Deployment, and whether it gets on.
//!
//! Source: `calculateStatus` in `pkg/controller/deployment/sync.go` and `syncRolloutStatus` in
//! `pkg/controller/deployment/progress.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::conditions::{self, AVAILABLE, FAILURE, PROGRESSING, condition, reason};
use super::sets;
use super::strategy::Strategy;

/// After the deadline it is looked at so much later, which is then surely past.
const LATER: Duration = Duration::from_secs(1);

/// What the ReplicaSets add up to. `before` has the conditions, and what nobody counts.
pub(super) fn counted(
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let strategy = Strategy::of(deployment);
    let available = sets::total(all, sets::available);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: number(sets::total(all, sets::actual)),
        updated_replicas: number(new.map_or(0, sets::actual)),
        ready_replicas: number(sets::total(all, sets::ready)),
        available_replicas: number(available),
        // There may be more than there should, as long as it is scaled down.
        unavailable_replicas: number((sets::total(all, sets::size) - available).max(0)),
        terminating_replicas: sets::terminating(all).and_then(number),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    };
    let (is, reason, message) = match available >= strategy.fewest_available() {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => {
            let message = "Deployment does not have minimum availability.";
            ("False", "MinimumReplicasUnavailable", message)
        }
    };
    conditions::set(&mut status, condition(AVAILABLE, is, reason, message.to_owned(), now));
    status
}

fn number(count: i64) -> Option<i32> {
    Some(i32::try_from(count).unwrap_or(i32::MAX))
}

/// Says whether the rollout gets on, compared with `before`, and what keeps pods from being made.
pub(super) fn watch_progress(
    status: &mut DeploymentStatus,
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    now: Timestamp,
) {
    let told = match new {
        Some(new) => format!("ReplicaSet {:?}", sets::name(new)),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let is_done = status.replicas == status.updated_replicas
        && conditions::progress(before) == Some(reason::DONE);
    match deadline(deployment) {
        None => conditions::remove(status, PROGRESSING),
        Some(_) if is_done => {}
        Some(_) if is_complete(deployment, status) => {
            let message = format!("{told} has successfully progressed.");
            conditions::set(status, condition(PROGRESSING, "True", reason::DONE, message, now));
        }
        Some(_) if has_progressed(before, status) => {
            let message = format!("{told} is progressing.");
            let mut progress = condition(PROGRESSING, "True", reason::UPDATED, message, now);
            // Each step counts anew, though the reason is the same.
            if let Some(earlier) = conditions::find(before, PROGRESSING)
                && earlier.status == "True"
            {
                progress.last_transition_time = earlier.last_transition_time.clone();
            }
            conditions::remove(status, PROGRESSING);
            conditions::set(status, progress);
        }
        Some(_) => {
            if ends(deployment, status).is_some_and(|end| end < now) {
                let message = format!("{told} has timed out progressing.");
                let progress = condition(PROGRESSING, "False", reason::TIMED_OUT, message, now);
                conditions::set(status, progress);
            }
        }
    }
    match new.and_then(failure).or_else(|| all.iter().find_map(|set| failure(set))) {
        Some(failure) => conditions::set(status, failure),
        None => conditions::remove(status, FAILURE),
    }
}

fn failure(set: &ReplicaSet) -> Option<k8s_openapi::api::apps::v1::DeploymentCondition> {
    let mut conditions = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == FAILURE).map(conditions::of_set)
}

/// Within how many seconds something has to happen; `None` if nobody waits for it. Source:
/// `HasProgressDeadline`.
pub(super) fn deadline(deployment: &Deployment) -> Option<i32> {
    let spec = deployment.spec.as_ref()?;
    spec.progress_deadline_seconds.filter(|deadline| *deadline != i32::MAX)
}

/// When the rollout has taken too long, if nothing happens before; `None` also if it has already, or
/// if it was at its end when it was looked at last. Source: `DeploymentTimedOut`.
fn ends(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let deadline = SignedDuration::from_secs(deadline(deployment)?.into());
    let progress = conditions::find(status, PROGRESSING)?;
    if let Some(reason::DONE | reason::TIMED_OUT) = progress.reason.as_deref() {
        return None;
    }
    progress.last_update_time.as_ref()?.0.checked_add(deadline).ok()
}

/// After what time it has to be seen whether the rollout has taken too long. Source:
/// `requeueStuckDeployment`.
pub(super) fn next_check(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    if is_complete(deployment, status) {
        return None;
    }
    let left = ends(deployment, status)?.duration_since(now);
    Some(Duration::try_from(left).unwrap_or_default() + LATER)
}

/// Whether all pods are of the new template and available. Source: `DeploymentComplete`.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Strategy::of(deployment).wanted;
    let numbers = [status.replicas, status.updated_replicas, status.available_replicas];
    numbers.into_iter().all(|number| i64::from(number.unwrap_or_default()) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// Source: `DeploymentProgressing`.
fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let count = |number: Option<i32>| i64::from(number.unwrap_or_default());
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas)
}

/// Whether they say the same: zeros and empty lists are not written.
pub(super) fn is_same(one: &DeploymentStatus, other: &DeploymentStatus) -> bool {
    plain(one) == plain(other)
}

fn plain(status: &DeploymentStatus) -> DeploymentStatus {
    let nonzero = |number: Option<i32>| number.filter(|number| *number != 0);
    DeploymentStatus {
        replicas: nonzero(status.replicas),
        updated_replicas: nonzero(status.updated_replicas),
        ready_replicas: nonzero(status.ready_replicas),
        available_replicas: nonzero(status.available_replicas),
        unavailable_replicas: nonzero(status.unavailable_replicas),
        observed_generation: status.observed_generation.filter(|number| *number != 0),
        conditions: status.conditions.clone().filter(|conditions| !conditions.is_empty()),
        ..status.clone()
    }
}
