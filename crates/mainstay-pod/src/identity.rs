//! What makes a static pod the pod that it is.
//!
//! As a kubelet does (`pkg/kubelet/config/common.go`), except in what a UID depends on (B7): it follows
//! from source, namespace, name and content as the user wrote them. Neither a renamed file nor a new host
//! name nor a new version of mainstay makes another pod of it.

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::tree::{Entry, Node, Value};
use crate::validate;

/// Equal to the UID, as in a kubelet; tools wait for it to change.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// `file` or `http`. A pod with it is a static pod.
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// When the pod was first seen, RFC 3339.
pub const CONFIG_SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";
/// Makes a pod of an API a mirror pod; its value is the static pod's UID. Source:
/// `pkg/kubelet/types/pod_update.go`.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The manifest's path.
pub const CONFIG_PATH_ANNOTATION: &str = "mainstay.dev/config.path";
/// In which a Node proposes a range of addresses for its pods, such as `10.201.7.0/24`.
pub const PROPOSED_POD_CIDR_ANNOTATION: &str = "mainstay.dev/proposed-pod-cidr";

/// The ConfigMaps and Secrets that a static pod refers to and its mirror does not show, as
/// `configmaps/app,secrets/db`: those beside its manifest, of which an API knows nothing.
pub const CONFIG_REFERENCES_ANNOTATION: &str = "mainstay.dev/config.references";

/// By which a node finds what an API shows of the ConfigMaps and Secrets beside its manifests; its value is the
/// node's name.
pub const CONFIG_NODE_LABEL: &str = "mainstay.dev/config.node";

/// Types of Secrets that say who somebody is. They mean something to an API server and its controllers: one of a
/// manifest would be taken for a token that they gave to somebody.
pub const IDENTITY_SECRETS: [&str; 2] =
    ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"];

/// The longest name of a pod, in bytes.
const NAME_MAX: usize = 253;

/// Where a pod comes from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A file of a manifest directory.
    File,
    /// A URL.
    Http,
    /// A Kubernetes API; no static pod.
    Api,
}

/// A node's name: a lower-case DNS subdomain.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeName(String);

/// The text is no name for a node.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[error("{name:?} cannot be a node's name: {reason}; choose another with --hostname-override")]
pub struct NodeNameError {
    name: String,
    reason: String,
}

/// What a pod is called on its node: name and namespace.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FullName {
    /// The name, with the node's name at its end.
    pub name: String,
    /// The namespace.
    pub namespace: String,
}

// === impl SourceKind ===

impl SourceKind {
    /// Whether its pods are static ones, which an API only shows.
    pub const fn is_static(self) -> bool {
        match self {
            Self::File | Self::Http => true,
            Self::Api => false,
        }
    }

    /// The value of the annotation `kubernetes.io/config.source`, in the kubelet's words. Source:
    /// `pkg/kubelet/types/pod_update.go`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
            Self::Api => "api",
        }
    }
}

// === impl NodeName ===

impl NodeName {
    /// Takes a host name for a node's name, in lower case as a kubelet does.
    ///
    /// # Errors
    /// When it is no DNS subdomain.
    pub fn new(name: &str) -> Result<Self, NodeNameError> {
        let lower = name.trim().to_lowercase();
        match validate::node_name(&lower) {
            None => Ok(Self(lower)),
            Some(reason) => Err(NodeNameError { name: name.to_owned(), reason }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `<name>_<namespace>`, as kubelets write it.
impl fmt::Display for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.name, self.namespace)
    }
}

/// What a node's name follows in the names of what it shows of ConfigMaps and Secrets beside manifests. Nothing
/// else is called so: whoever joins chooses its name, and must not write what pods refer to by chance.
const OBJECT_MIRROR: &str = ".mainstay-";

/// The name of the object of an API that shows a ConfigMap or a Secret beside a manifest of a node.
pub fn object_mirror_name(name: &str, node: &str) -> String {
    format!("{name}{OBJECT_MIRROR}{node}")
}

/// Whether an object may have its name from [`object_mirror_name`], on this node.
pub fn is_object_mirror_name(name: &str, node: &str) -> bool {
    name.strip_suffix(node).is_some_and(|name| name.ends_with(OBJECT_MIRROR))
}

/// Whether an object of an API shows a ConfigMap or a Secret beside a manifest of a node: by its name, the value
/// of [`CONFIG_NODE_LABEL`], and that of [`CONFIG_PATH_ANNOTATION`].
pub fn is_object_mirror(name: &str, node: Option<&str>, path: Option<&str>) -> bool {
    path.is_some() && node.is_some_and(|node| is_object_mirror_name(name, node))
}

/// What a static pod's identity is made of.
pub(crate) struct Facts<'a> {
    pub(crate) source: SourceKind,
    pub(crate) node: &'a NodeName,
    pub(crate) path: &'a str,
    pub(crate) seen: &'a str,
    pub(crate) content_hash: &'a str,
}

/// The name of the static pod that a manifest with this name makes.
pub(crate) fn static_name(name: &str, node: &NodeName) -> String {
    format!("{name}-{node}")
}

/// Whether the node's name makes a pod's name too long.
pub(crate) fn is_too_long(name: &str, node: &NodeName) -> bool {
    name.len() <= NAME_MAX && name.len() + 1 + node.0.len() > NAME_MAX
}

/// 128 bits of a hash of what the user wrote, cleaned: keys sorted, nulls left out, the namespace filled in.
pub(crate) fn content_hash(pod: &Node) -> String {
    let mut pod = pod.clone();
    // Writing out the namespace that was meant anyway is no change.
    if let Some(metadata) = pod.get_mut("metadata") {
        let unset =
            metadata.get("namespace").is_none_or(|it| it.is_null() || it.as_str() == Some(""));
        if unset && let Some(entries) = metadata.entries_mut() {
            entries.retain(|entry| &*entry.key != "namespace");
            let span = crate::tree::Span::default();
            let node = Node { span, value: Value::String("default".into()) };
            entries.push(Entry { key: "namespace".into(), key_span: span, node });
        }
    }
    hash(&[&pod.canonical_json()])
}

/// The UID of a static pod: 32 lower-case hexadecimal digits.
fn uid(source: SourceKind, namespace: &str, name: &str, content_hash: &str) -> String {
    hash(&["mainstay static pod 1", source.as_str(), namespace, name, content_hash])
}

/// The first half of the SHA-256 of texts, with a zero byte between them.
pub fn hash(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\0"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Gives a defaulted pod its identity.
pub(crate) fn apply(pod: &mut Pod, facts: &Facts<'_>) {
    let meta = &mut pod.metadata;
    let namespace =
        meta.namespace.take().filter(|it| !it.is_empty()).unwrap_or_else(|| "default".to_owned());
    let name = meta.name.take().unwrap_or_default();
    let uid = uid(facts.source, &namespace, &name, facts.content_hash);
    meta.name = Some(static_name(&name, facts.node));
    meta.namespace = Some(namespace);
    meta.annotations.get_or_insert_default().extend(
        [
            (CONFIG_HASH_ANNOTATION, uid.as_str()),
            (CONFIG_SOURCE_ANNOTATION, facts.source.as_str()),
            (CONFIG_SEEN_ANNOTATION, facts.seen),
            (CONFIG_PATH_ANNOTATION, facts.path),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    meta.uid = Some(uid);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(facts.node.0.clone());
    tolerate_no_execute(spec.tolerations.get_or_insert_default());
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..Default::default() });
}

/// Static pods stay when their node is in trouble, whatever source they come from (B25).
fn tolerate_no_execute(tolerations: &mut Vec<Toleration>) {
    let all = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Default::default()
    };
    // One of the same key, operator, value and effect is replaced, as AddOrUpdateTolerationInPod does.
    let same = |it: &Toleration| {
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        text(&it.key).is_empty()
            && text(&it.value).is_empty()
            && it.operator == all.operator
            && it.effect == all.effect
    };
    match tolerations.iter_mut().find(|it| same(it)) {
        Some(toleration) => *toleration = all,
        None => tolerations.push(all),
    }
}

#[cfg(test)]
mod tests;
