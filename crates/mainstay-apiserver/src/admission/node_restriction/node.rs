//! A node's own object: not its taints, not its owners, and of the labels those that the kubelet sets.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_pod::node_labels::{is_of_kubelet, is_of_kubernetes};
use serde_json::Value;

use super::{Refusal, Request, forbid, object_name, pod::labels};
use crate::admission::Operation;
use crate::object::Object;

pub(super) fn admit(
    node: &str,
    request: &Request<'_>,
    new: Option<&Object>,
    old: Option<&Object>,
) -> Result<(), Refusal> {
    let requested = object_name(request, new);
    if requested != node {
        return forbid(format!("node {node:?} is not allowed to modify node {requested:?}"));
    }
    match (request.operation, new, old) {
        (Operation::Create, Some(new), _) => create(node, new),
        (Operation::Update, Some(new), Some(old)) => update(node, new, old),
        _ => Ok(()),
    }
}

fn create(node: &str, new: &Object) -> Result<(), Refusal> {
    if config_source(new).is_some() {
        return forbid(format!(
            "node {node:?} is not allowed to create pods with a non-nil configSource"
        ));
    }
    let labels = forbidden(&changed_labels(new, None));
    if !labels.is_empty() {
        return forbid(format!(
            "node {node:?} is not allowed to set the following labels: {labels}"
        ));
    }
    Ok(())
}

fn update(node: &str, new: &Object, old: &Object) -> Result<(), Refusal> {
    if config_source(new).is_some() && config_source(new) != config_source(old) {
        return forbid(format!(
            "node {node:?} is not allowed to update configSource to a new non-nil configSource"
        ));
    }
    if new.list_at(&["spec", "taints"]) != old.list_at(&["spec", "taints"]) {
        return forbid(format!("node {node:?} is not allowed to modify taints"));
    }
    if new.list_at(&["metadata", "ownerReferences"])
        != old.list_at(&["metadata", "ownerReferences"])
    {
        return forbid(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    let labels = forbidden(&changed_labels(new, Some(old)));
    if !labels.is_empty() {
        return forbid(format!("is not allowed to modify labels: {labels}"));
    }
    Ok(())
}

fn config_source(node: &Object) -> Option<&Value> {
    node.at(&["spec", "configSource"]).filter(|it| !it.is_null())
}

/// The keys of labels that are new, gone or other than before.
fn changed_labels<'a>(new: &'a Object, old: Option<&'a Object>) -> BTreeSet<&'a str> {
    let before: BTreeMap<_, _> = old.into_iter().flat_map(labels).collect();
    let after: BTreeMap<_, _> = labels(new).collect();
    let keys = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
    keys.map(|key| key.as_str()).collect()
}

/// Those that a node must not touch: it could draw work to itself that is not meant for it. All of
/// `node-restriction.kubernetes.io` are among them.
fn forbidden(labels: &BTreeSet<&str>) -> String {
    let is_forbidden = |label: &&str| is_of_kubernetes(label) && !is_of_kubelet(label);
    labels.iter().copied().filter(is_forbidden).collect::<Vec<_>>().join(", ")
}
