//! A node's own object: not its taints, not its owners, and of the labels those that the kubelet sets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Refusal, Request, forbid, object_name, pod::labels};
use crate::admission::Operation;
use crate::object::Object;

/// Labels in the namespaces of Kubernetes that a node may set.
/// Source: `staging/src/k8s.io/kubelet/pkg/apis/well_known_labels.go`.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_NAMESPACE: &str = "node-restriction.kubernetes.io";

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

/// Those that a node must not touch: it could draw work to itself that is not meant for it.
fn forbidden(labels: &BTreeSet<&str>) -> String {
    let forbidden: Vec<&str> = labels
        .iter()
        .copied()
        .filter(|label| {
            let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
            let of_kubernetes = is_in(namespace, "kubernetes.io") || is_in(namespace, "k8s.io");
            let of_kubelet = KUBELET_LABELS.contains(label)
                || KUBELET_NAMESPACES.iter().any(|it| is_in(namespace, it));
            is_in(namespace, RESTRICTED_NAMESPACE) || of_kubernetes && !of_kubelet
        })
        .collect();
    forbidden.join(", ")
}

/// Whether a domain is another one or lies in it.
fn is_in(namespace: &str, domain: &str) -> bool {
    namespace.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}
