//! A pod that has been read, judged and named.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod as KubernetesPod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::defaults::as_container;
use crate::identity::{CONFIG_PATH_ANNOTATION, CONFIG_SEEN_ANNOTATION, FullName, SourceKind};
use crate::priority;
use crate::resources::QosClass;
use crate::scheduling::host_ports;

/// A valid pod with all defaults filled in and an identity. There is no way to build another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Always with a spec.
    inner: KubernetesPod,
    source: SourceKind,
    content_hash: String,
    /// Containers whose pull policy nobody wrote.
    unwritten_pull_policies: Box<[String]>,
    /// Its ephemeral containers, as far as they are like others.
    ephemeral: Vec<Container>,
}

/// What happens to a container that ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RestartPolicy {
    /// It is started again.
    Always,
    /// It is started again if it failed.
    OnFailure,
    /// It stays ended.
    Never,
}

/// A port of the host that a pod occupies.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The address; empty for all of them.
    pub host_ip: String,
    /// Port of the host, 1 to 65535.
    pub host_port: i32,
    /// The container's port, 1 to 65535.
    pub container_port: i32,
    /// The container that listens.
    pub container: String,
}

/// What was stored cannot be a pod.
#[derive(Debug, Error)]
pub enum RebuildError {
    /// The text is not the JSON of a stored pod.
    #[error("a stored pod cannot be read")]
    Json(#[source] serde_json::Error),
    /// It was stored by a later version of mainstay.
    #[error("a stored pod has format {0}, this version of mainstay knows {FORMAT}")]
    Format(u32),
    /// A field that every pod has is not there.
    #[error("a stored pod has no {0}")]
    Missing(&'static str),
}

/// The format of stored pods. It changes only if an older mainstay could not read them any more.
const FORMAT: u32 = 1;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    format: u32,
    /// Of pods of files it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<SourceKind>,
    content_hash: String,
    #[serde(default)]
    unwritten_pull_policies: BTreeSet<String>,
    pod: KubernetesPod,
}

// === impl RestartPolicy ===

impl RestartPolicy {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }
}

// === impl Pod ===

impl Pod {
    /// Only for pods that have been validated.
    pub(crate) fn new(
        mut inner: KubernetesPod,
        source: SourceKind,
        content_hash: String,
        unwritten_pull_policies: impl IntoIterator<Item = String>,
    ) -> Self {
        let added = inner.spec.get_or_insert_default().ephemeral_containers.iter().flatten();
        let ephemeral = added.map(as_container).collect();
        let unwritten_pull_policies = unwritten_pull_policies.into_iter().collect();
        Self { inner, source, content_hash, unwritten_pull_policies, ephemeral }
    }

    /// The same pod with something else in its spec.
    pub(crate) fn changed(&self, change: impl FnOnce(&mut PodSpec)) -> Self {
        let mut inner = self.inner.clone();
        change(inner.spec.get_or_insert_default());
        let (hash, unwritten) = (self.content_hash.clone(), self.unwritten_pull_policies.clone());
        Self::new(inner, self.source, hash, unwritten)
    }

    /// The same pod with the resources that another version of it has.
    #[must_use]
    pub fn with_resources_of(&self, other: &Self) -> Self {
        self.changed(|spec| {
            spec.resources.clone_from(&other.spec().resources);
            let init = spec.init_containers.iter_mut().flatten();
            for container in init.chain(&mut spec.containers) {
                if let Some((_, known)) = other.container(&container.name) {
                    container.resources.clone_from(&known.resources);
                }
            }
        })
    }

    /// The containers that were added to it, as far as they are like others.
    pub fn ephemeral_containers(&self) -> &[Container] {
        &self.ephemeral
    }

    /// The pod as Kubernetes has it.
    pub const fn as_k8s(&self) -> &KubernetesPod {
        &self.inner
    }

    /// What it consists of.
    pub fn spec(&self) -> &PodSpec {
        self.inner.spec.as_ref().expect("new() sees to it that there is one")
    }

    /// Names, labels, annotations.
    pub const fn metadata(&self) -> &ObjectMeta {
        &self.inner.metadata
    }

    /// Where it comes from. No annotation says so: users may set those as they like.
    pub const fn source(&self) -> SourceKind {
        self.source
    }

    /// The name; of a static pod with the node's name at its end.
    pub fn name(&self) -> &str {
        self.inner.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.inner.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Of a static pod 32 lower-case hexadecimal digits that follow from source, namespace, name and
    /// content; else what the API gave it.
    pub fn uid(&self) -> &str {
        self.inner.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Name and namespace.
    pub fn full_name(&self) -> FullName {
        FullName { name: self.name().to_owned(), namespace: self.namespace().to_owned() }
    }

    /// Name, namespace and UID, as a kubelet's messages have them. Source: `pkg/kubelet/util/format/pod.go`.
    pub fn long_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    /// A hash of what the user wrote: equal for manifests that mean the same pod, whatever their order,
    /// comments and layout, and the same in every version of mainstay. 32 lower-case hexadecimal digits.
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// The manifest's path.
    pub fn config_path(&self) -> Option<&str> {
        self.annotation(CONFIG_PATH_ANNOTATION)
    }

    /// When the pod was first seen, RFC 3339.
    pub fn config_seen(&self) -> Option<&str> {
        self.annotation(CONFIG_SEEN_ANNOTATION)
    }

    /// The same pod, first seen at another time (RFC 3339): a pod that is read again keeps its time.
    #[must_use]
    pub fn with_config_seen(mut self, seen: &str) -> Self {
        let annotations = self.inner.metadata.annotations.get_or_insert_default();
        annotations.insert(CONFIG_SEEN_ANNOTATION.to_owned(), seen.to_owned());
        self
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.inner.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// How long its containers have between being asked and being made to stop.
    pub fn termination_grace_period(&self) -> Duration {
        let seconds = self.spec().termination_grace_period_seconds.unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(1))
    }

    /// What happens to a container of the pod that ends.
    pub fn restart_policy(&self) -> RestartPolicy {
        let policy = self.spec().restart_policy.as_deref();
        policy.and_then(RestartPolicy::named).unwrap_or(RestartPolicy::Always)
    }

    /// Whether it uses the network of the host.
    pub fn is_host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    /// The class of service that follows from its requests and limits.
    pub fn qos_class(&self) -> QosClass {
        QosClass::of(self.spec())
    }

    /// How important it is: the higher, the more.
    pub fn priority(&self) -> i32 {
        priority::of(self.spec())
    }

    /// Whether the node itself needs it.
    pub fn is_critical(&self) -> bool {
        self.priority() >= priority::SYSTEM_CRITICAL
    }

    /// Whether the manifest says when the image of a container is pulled, or defaulting did.
    pub fn has_written_pull_policy(&self, container: &str) -> bool {
        !self.is_unwritten(container)
    }

    /// The same of a volume's image.
    pub fn has_written_volume_pull_policy(&self, volume: &str) -> bool {
        !self.is_unwritten(&of_volume(volume))
    }

    fn is_unwritten(&self, container: &str) -> bool {
        self.unwritten_pull_policies.iter().any(|name| name == container)
    }

    /// Ports of the host that it occupies, in the order of the manifest.
    pub fn host_ports(&self) -> Vec<HostPort> {
        host_ports::of(self.spec())
    }

    /// The pod as text, from which [`Pod::from_stored`] builds it again, also in a later version.
    pub fn to_stored(&self) -> String {
        let stored = Stored {
            format: FORMAT,
            source: (self.source != SourceKind::File).then_some(self.source),
            content_hash: self.content_hash.clone(),
            unwritten_pull_policies: self.unwritten_pull_policies.iter().cloned().collect(),
            pod: self.inner.clone(),
        };
        serde_json::to_string(&stored).expect("a pod has string keys and no values that JSON lacks")
    }

    /// Builds a pod that was stored again.
    ///
    /// It was accepted once and may be running, so it is neither defaulted nor judged again: a rule that a
    /// later version adds does not make a running pod disappear.
    ///
    /// # Errors
    /// When the text is not that of a stored pod.
    pub fn from_stored(text: &str) -> Result<Self, RebuildError> {
        let stored: Stored = serde_json::from_str(text).map_err(RebuildError::Json)?;
        if stored.format != FORMAT {
            return Err(RebuildError::Format(stored.format));
        }
        let meta = &stored.pod.metadata;
        let missing = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        let fields = [("name", &meta.name), ("namespace", &meta.namespace), ("uid", &meta.uid)];
        if let Some((field, _)) = fields.into_iter().find(|(_, text)| missing(text)) {
            return Err(RebuildError::Missing(field));
        }
        if stored.pod.spec.as_ref().is_none_or(|spec| spec.containers.is_empty()) {
            return Err(RebuildError::Missing("container"));
        }
        let source = stored.source.unwrap_or(SourceKind::File);
        Ok(Self::new(stored.pod, source, stored.content_hash, stored.unwritten_pull_policies))
    }
}

/// How a volume is called beside containers, whose names have no slash.
pub(crate) fn of_volume(name: &str) -> String {
    format!("volumes/{name}")
}

#[cfg(test)]
mod tests;
