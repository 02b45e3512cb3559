//! Which pods go first when there are too many.
//!
//! Source: `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::pods::{self, Pod, node};

/// So many of the active pods, those that are missed least first.
pub(super) fn first_to_go(
    active: &[Arc<Pod>],
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut pods = active.to_vec();
    if count < pods.len() {
        let mut on_node: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in related.iter().filter(|pod| pods::is_active(pod)) {
            *on_node.entry(node(pod)).or_default() += 1;
        }
        let beside = |pod: &Pod| on_node.get(node(pod)).copied().unwrap_or_default();
        pods.sort_by(|one, other| compare(one, other, &beside, now));
        pods.truncate(count);
    }
    pods
}

/// `beside` answers how many related pods are on a pod's node.
fn compare(one: &Pod, other: &Pod, beside: &dyn Fn(&Pod) -> usize, now: Timestamp) -> Ordering {
    let by = |key: &dyn Fn(&Pod) -> i64| key(one).cmp(&key(other));
    by(&|pod| i64::from(!node(pod).is_empty()))
        .then_with(|| by(&|pod| phase(pod)))
        .then_with(|| by(&|pod| i64::from(pods::is_ready(pod))))
        .then_with(|| by(&|pod| pod.deletion_cost.into()))
        .then_with(|| Reverse(beside(one)).cmp(&Reverse(beside(other))))
        .then_with(|| {
            // Both are ready, or neither is.
            let ready = |pod| pods::ready_since(pod).map(Option::unwrap_or_default);
            age(one, other, ready(one), ready(other), now)
        })
        .then_with(|| Reverse(restarts(one)).cmp(&Reverse(restarts(other))))
        .then_with(|| {
            let made = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            age(one, other, made(one), made(other), now)
        })
}

/// The younger first, by powers of two; between those of about the same age chance decides.
fn age(
    one: &Pod,
    other: &Pod,
    of_one: Option<Timestamp>,
    of_other: Option<Timestamp>,
    now: Timestamp,
) -> Ordering {
    if of_one == of_other {
        return Ordering::Equal;
    }
    let (Some(of_one), Some(of_other)) = (of_one, of_other) else {
        return of_one.is_some().cmp(&of_other.is_some());
    };
    let power = |since: Timestamp| {
        let nanoseconds = u128::try_from(now.duration_since(since).as_nanos()).unwrap_or_default();
        nanoseconds.checked_ilog2()
    };
    power(of_one).cmp(&power(of_other)).then_with(|| one.metadata.uid.cmp(&other.metadata.uid))
}

fn phase(pod: &Pod) -> i64 {
    match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

/// The most that one of its containers was restarted, and one of those beside them.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let regular = status.container_statuses.iter().flatten().map(|it| it.restart_count).max();
    let beside = status.init_container_statuses.iter().flatten();
    let beside = beside.filter(|it| pod.sidecars.contains(&it.name));
    let beside = beside.map(|it| it.restart_count).max();
    (regular.unwrap_or_default(), beside.unwrap_or_default())
}
