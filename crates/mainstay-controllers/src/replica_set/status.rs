//! The status of a ReplicaSet.
//!
//! Source: `pkg/controller/replicaset/replica_set_utils.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_pod::scheduling::selector::Selector;

use super::{template, wanted};
use crate::pods::{self, Pod};

/// The condition that says that pods cannot be made or deleted.
const FAILURE: &str = "ReplicaFailure";

/// The status, if it is another one than that which there is. `active` are the pods that are controlled
/// and not over; `failure` is what kept them from being as many as they should.
pub(super) fn compute(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> Option<ReplicaSetStatus> {
    let before = set.status.clone().unwrap_or_default();
    let labels = Selector::of_labels(&pods::template_labels(template(set)));
    let count = |is: &dyn Fn(&Pod) -> bool| number(active.iter().filter(|pod| is(pod)).count());
    let mut conditions = before.conditions.clone().unwrap_or_default();
    match failure {
        None => conditions.retain(|it| it.type_ != FAILURE),
        Some(message) if !conditions.iter().any(|it| it.type_ == FAILURE) => {
            let reason = if active.len() < wanted(set) { "FailedCreate" } else { "FailedDelete" };
            conditions.push(ReplicaSetCondition {
                type_: FAILURE.to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(Time(now)),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
            });
        }
        Some(_) => {}
    }
    let status = ReplicaSetStatus {
        replicas: number(active.len()),
        fully_labeled_replicas: Some(count(&|pod| {
            pod.metadata.labels.as_ref().is_some_and(|it| labels.matches(it))
        })),
        ready_replicas: Some(count(&pods::is_ready)),
        available_replicas: Some(count(&|pod| {
            pods::available_from(pod, min_ready(set)).is_some_and(|from| from <= now)
        })),
        terminating_replicas: Some(number(terminating)),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    };
    (plain(&before) != plain(&status)).then_some(status)
}

/// Without zeros, which are not written.
fn plain(status: &ReplicaSetStatus) -> ReplicaSetStatus {
    let nonzero = |number: Option<i32>| number.filter(|number| *number != 0);
    ReplicaSetStatus {
        fully_labeled_replicas: nonzero(status.fully_labeled_replicas),
        ready_replicas: nonzero(status.ready_replicas),
        available_replicas: nonzero(status.available_replicas),
        ..status.clone()
    }
}

/// After what time the next pod that is ready will be available.
pub(super) fn next_available(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    now: Timestamp,
) -> Option<Duration> {
    pods::next_available(active, min_ready(set), now)
}

fn min_ready(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
