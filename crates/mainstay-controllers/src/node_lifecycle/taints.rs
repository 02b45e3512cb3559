//! Which taints and labels a node has for what it says of itself.
//!
//! Source: `doNoScheduleTaintingPass`, `processTaintBaseEviction` and `reconcileNodeLabels` in
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_pod::scheduling::taints::{
    NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, UNSCHEDULABLE,
};

use super::health::Ready;

/// A condition, its status, and the key of the taint of a node that has it.
const OF_CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Labels, and those of older times that say the same.
const LABELS: [(&str, &str); 2] = [
    ("kubernetes.io/os", "beta.kubernetes.io/os"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
];

/// The taints of a node on which nothing is to be scheduled, or is again; `None` if they are right.
pub(super) fn no_schedule(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let conditions = || node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut wanted: Vec<&str> = conditions()
        .flat_map(|it| {
            let is = move |(kind, status, _): &&(&str, &str, &str)| {
                it.type_ == *kind && it.status == *status
            };
            OF_CONDITIONS.iter().filter(is).map(|(.., key)| *key)
        })
        .collect();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push(UNSCHEDULABLE);
    }
    let ours: Vec<&str> = OF_CONDITIONS.iter().map(|(.., key)| *key).collect();
    let ours = [&ours[..], &[UNSCHEDULABLE]].concat();
    with(node, &wanted, &ours, NO_SCHEDULE, now)
}

/// The key of the taint with which pods do not stay on a node.
pub(super) fn unwanted(ready: Ready) -> Option<&'static str> {
    match ready {
        Ready::True => None,
        Ready::False => Some(NOT_READY),
        Ready::Unknown => Some(UNREACHABLE),
    }
}

/// The taints of a node on which pods do not stay, or stay again; `None` if they are right.
pub(super) fn no_execute(node: &Node, key: Option<&str>, now: Timestamp) -> Option<Vec<Taint>> {
    with(node, key.as_slice(), &[NOT_READY, UNREACHABLE], NO_EXECUTE, now)
}

/// Whether a node has a taint with which pods do not stay.
pub(super) fn has_no_execute(node: &Node, key: &str) -> bool {
    taints(node).iter().any(|taint| taint.key == key && taint.effect == NO_EXECUTE)
}

/// The node's taints, where those of an effect that are `ours` are the `wanted` ones.
fn with(
    node: &Node,
    wanted: &[&str],
    ours: &[&str],
    effect: &str,
    now: Timestamp,
) -> Option<Vec<Taint>> {
    let before = taints(node);
    let mut after = before.to_vec();
    after.retain(|taint| {
        let key = taint.key.as_str();
        taint.effect != effect || !ours.contains(&key) || wanted.contains(&key)
    });
    for key in wanted {
        if !after.iter().any(|taint| taint.key == *key && taint.effect == effect) {
            after.push(Taint {
                key: (*key).to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (after != before).then_some(after)
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// The labels of a node that are to say the same as others do.
pub(super) fn labels(node: &Node) -> BTreeMap<&'static str, &str> {
    let value = |key: &str| {
        let labels = node.metadata.labels.as_ref()?;
        labels.get(key).map(String::as_str)
    };
    let differing = LABELS.into_iter().filter_map(|(key, older)| {
        let said = value(key)?;
        (value(older) != Some(said)).then_some((older, said))
    });
    differing.collect()
}
