//! Nodes and pods for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::pod::PodInfo;
use super::snapshot::Snapshot;
use crate::pods::Pod;

/// A value with what is said laid over it; arrays are replaced.
pub(super) fn merged(mut base: Value, over: Value) -> Value {
    match (&mut base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                let known = base.remove(&key).unwrap_or(Value::Null);
                base.insert(key, merged(known, value));
            }
        }
        (base, over) => *base = over,
    }
    base
}

/// A node with 4 CPUs, 8 GiB and room for 10 pods.
pub(super) fn node(name: &str, over: Value) -> Arc<Node> {
    let base = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    Arc::new(serde_json::from_value(merged(base, over)).unwrap())
}

/// A pod that requests nothing.
pub(super) fn object(name: &str, over: Value) -> Arc<Pod> {
    let base = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending"},
    });
    Arc::new(serde_json::from_value(merged(base, over)).unwrap())
}

pub(super) fn pod(name: &str, over: Value) -> PodInfo {
    PodInfo::new(object(name, over)).unwrap()
}

/// What a pod's spec says if it requests this.
pub(super) fn requesting(cpu: &str, memory: &str) -> Value {
    let requests = json!({"cpu": cpu, "memory": memory});
    let resources = json!({"requests": requests});
    json!({"containers": [{"name": "c", "image": "i", "resources": resources}]})
}

/// Nodes, and pods on them.
pub(super) fn snapshot(
    nodes: impl IntoIterator<Item = Arc<Node>>,
    pods: impl IntoIterator<Item = (&'static str, PodInfo)>,
) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(&node);
    }
    for (node, pod) in pods {
        snapshot.add_pod(pod, node);
    }
    snapshot
}
