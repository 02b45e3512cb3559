//! Which pods are on which node, and what they refer to.
//!
//! Source: `AddPod` in `plugin/pkg/auth/authorizer/node/graph.go`, and `VisitPodSecretNames` and
//! `VisitPodConfigmapNames` in `pkg/api/v1/pod/util.go`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use serde_json::Value;

use crate::object::Object;

/// Where the volumes of a pod name a secret.
const VOLUME_SECRETS: [&str; 10] = [
    "/azureFile/secretName",
    "/cephfs/secretRef/name",
    "/cinder/secretRef/name",
    "/csi/nodePublishSecretRef/name",
    "/flexVolume/secretRef/name",
    "/iscsi/secretRef/name",
    "/rbd/secretRef/name",
    "/scaleIO/secretRef/name",
    "/secret/secretName",
    "/storageos/secretRef/name",
];

/// A kind of object that a pod can refer to, in its own namespace.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Referred {
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    ServiceAccount,
}

/// The kind and the name of such an object.
type Reference = (Referred, Arc<str>);

/// Which pods are on which node, and what they refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    /// By namespace and name.
    pods: HashMap<(String, String), Pod>,
    /// The nodes of the pods that refer to something, and how many pods each has that do; by namespace.
    nodes: HashMap<String, BTreeMap<Reference, BTreeMap<Arc<str>, usize>>>,
}

#[derive(Clone, Debug)]
struct Pod {
    node: Arc<str>,
    refers: BTreeSet<Reference>,
}

impl Graph {
    /// Takes over a new or changed pod. One that is on no node yet matters to no node.
    pub(crate) fn observe_pod(&mut self, pod: &Object) {
        let node = pod.str_at(&["spec", "nodeName"]);
        if node.is_empty() {
            return;
        }
        let (namespace, name) = (pod.namespace(), pod.name());
        let found = Pod { node: node.into(), refers: references(pod) };
        let key = (namespace.to_owned(), name.to_owned());
        if self
            .pods
            .get(&key)
            .is_some_and(|known| known.node == found.node && known.refers == found.refers)
        {
            return;
        }
        self.forget_pod(namespace, name);
        let nodes = self.nodes.entry(namespace.to_owned()).or_default();
        for reference in &found.refers {
            let count = nodes.entry(reference.clone()).or_default();
            *count.entry(found.node.clone()).or_default() += 1;
        }
        if nodes.is_empty() {
            self.nodes.remove(namespace);
        }
        self.pods.insert(key, found);
    }

    /// Takes over that a pod is gone.
    pub(crate) fn forget_pod(&mut self, namespace: &str, name: &str) {
        let Some(pod) = self.pods.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        let Some(nodes) = self.nodes.get_mut(namespace) else { return };
        for reference in &pod.refers {
            let Some(counts) = nodes.get_mut(reference) else { continue };
            if let Some(count) = counts.get_mut(&pod.node) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&pod.node);
                }
            }
            if counts.is_empty() {
                nodes.remove(reference);
            }
        }
        if nodes.is_empty() {
            self.nodes.remove(namespace);
        }
    }

    /// Whether a pod on this node refers to something.
    pub(super) fn refers(&self, node: &str, kind: Referred, namespace: &str, name: &str) -> bool {
        let counts = self.nodes.get(namespace).and_then(|nodes| nodes.get(&(kind, name.into())));
        counts.is_some_and(|counts| counts.contains_key(node))
    }

    /// Whether a pod is on this node.
    pub(super) fn is_on(&self, node: &str, namespace: &str, name: &str) -> bool {
        let pod = self.pods.get(&(namespace.to_owned(), name.to_owned()));
        pod.is_some_and(|pod| &*pod.node == node)
    }
}

/// What a pod refers to. A mirror refers to nothing: a node could make one to read whatever it likes.
fn references(pod: &Object) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    if pod.annotation(CONFIG_MIRROR_ANNOTATION).is_some() {
        return found;
    }
    let mut add = |kind, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            found.insert((kind, name.into()));
        }
    };
    add(Referred::ServiceAccount, pod.at(&["spec", "serviceAccountName"]));
    for secret in pod.list_at(&["spec", "imagePullSecrets"]) {
        add(Referred::Secret, secret.get("name"));
    }
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod.list_at(&["spec", containers]) {
            for source in list(container, "/envFrom") {
                add(Referred::Secret, source.pointer("/secretRef/name"));
                add(Referred::ConfigMap, source.pointer("/configMapRef/name"));
            }
            for variable in list(container, "/env") {
                add(Referred::Secret, variable.pointer("/valueFrom/secretKeyRef/name"));
                add(Referred::ConfigMap, variable.pointer("/valueFrom/configMapKeyRef/name"));
            }
        }
    }
    for volume in pod.list_at(&["spec", "volumes"]) {
        for pointer in VOLUME_SECRETS {
            add(Referred::Secret, volume.pointer(pointer));
        }
        add(Referred::ConfigMap, volume.pointer("/configMap/name"));
        for source in list(volume, "/projected/sources") {
            add(Referred::Secret, source.pointer("/secret/name"));
            add(Referred::ConfigMap, source.pointer("/configMap/name"));
        }
        add(Referred::PersistentVolumeClaim, volume.pointer("/persistentVolumeClaim/claimName"));
        if volume.get("ephemeral").is_some() {
            let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
            let claim = Value::from(format!("{}-{name}", pod.name()));
            add(Referred::PersistentVolumeClaim, Some(&claim));
        }
    }
    found
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
impl Graph {
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.nodes.is_empty()
    }
}
