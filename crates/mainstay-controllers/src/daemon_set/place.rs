//! Which nodes take pods of a DaemonSet, and which pod is whose.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use mainstay_pod::scheduling::{node_affinity, taints};

use super::template;
use crate::pods::{self, Pod};

/// What a node does with a pod of a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// It should have one.
    Yes,
    /// It should get none, and keep one that it has.
    Keeps,
    /// It should have none.
    No,
}

/// Source: `NodeShouldRunDaemonPod` in `pkg/controller/daemon/daemon_controller.go`.
pub(super) fn takes(set: &DaemonSet, node: &Node) -> Takes {
    let Some(spec) = template::pod(set, "").and_then(|pod| pod.spec) else { return Takes::No };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let named = spec.node_name.as_deref().unwrap_or_default();
    if !(named.is_empty() || named == name) || !node_affinity::matches(&spec, node) {
        return Takes::No;
    }
    let all = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let repels = |effects: &[&str]| taints::untolerated(all, tolerations, effects).is_some();
    match () {
        () if repels(&[taints::NO_EXECUTE]) => Takes::No,
        () if repels(&[taints::NO_SCHEDULE]) => Takes::Keeps,
        () => Takes::Yes,
    }
}

/// The node that a pod is on, or is meant for. Source: `GetTargetNodeName`.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let names = node_affinity::names(spec)?;
    names.first().copied().filter(|_| names.len() == 1)
}

/// The pods by their nodes, of each node those that are bound first, then the oldest. Those that are
/// over and only wait for their end are left out.
pub(super) fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if pods::is_over(pod) && pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        if let Some(node) = node_of(pod) {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!is_bound(pod), made, pod.metadata.name.clone())
        });
    }
    by_node
}

pub(super) fn is_bound(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
}
