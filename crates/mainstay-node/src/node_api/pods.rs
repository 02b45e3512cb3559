//! The pods that requests are about.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use mainstay_plan::pod::{PodKey, SourceKind};
use mainstay_pod::{Cause, Severity};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::publish::Board;
use crate::sources::merge::{Note, Notes};

/// The pods of this node, as they are told.
pub trait Pods: Send + Sync {
    /// All of them.
    fn list(&self) -> Vec<NodePod>;

    /// The one of this name.
    fn find(&self, namespace: &str, name: &str) -> Option<NodePod> {
        self.list().into_iter().find(|pod| pod.key.namespace == namespace && pod.key.name == name)
    }

    /// How many mirror pods there are, if that is known.
    fn mirrors(&self) -> Option<usize> {
        None
    }

    /// What is wrong with manifests as they are now.
    fn manifest_errors(&self) -> Vec<ManifestError> {
        Vec::new()
    }
}

/// Something that is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The manifest's file.
    pub file: String,
    /// One word: `Unreadable`, `Shadowed`, or a kind of diagnostic such as `Syntax`.
    pub reason: &'static str,
    /// How often.
    pub count: usize,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct NodePod {
    /// Its name, and where it comes from.
    pub key: PodKey,
    /// It, with its status.
    pub pod: Pod,
    /// The UID of its mirror, if it has one and it is known.
    pub mirror_uid: Option<String>,
    /// Whether it is being taken away.
    pub leaving: bool,
}

/// Knows the UIDs of mirror pods.
pub type MirrorUid = Arc<dyn Fn(&PodKey) -> Option<String> + Send + Sync>;

/// The pods of the board.
pub(crate) struct BoardPods {
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) mirror_uid: Option<MirrorUid>,
}

impl NodePod {
    /// Whether it comes from a manifest of this node, and not from the API.
    pub(super) fn is_static(&self) -> bool {
        match self.key.source {
            SourceKind::File | SourceKind::Http => true,
            SourceKind::Api => false,
        }
    }

    /// The UID that the runtime knows it by.
    pub(super) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether `uid` is its own or its mirror's, or nothing is asked for.
    pub(super) fn has_uid(&self, uid: &str) -> bool {
        uid.is_empty() || uid == self.uid() || self.mirror_uid.as_deref() == Some(uid)
    }

    pub(super) fn status(&self) -> Option<&PodStatus> {
        self.pod.status.as_ref()
    }

    /// A container of its manifest.
    pub(super) fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_ref()?;
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.find(|container| container.name == name)
    }

    /// The status of a container.
    pub(super) fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = self.status()?;
        let statuses = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        statuses.into_iter().flatten().flatten().find(|status| status.name == name)
    }
}

impl Pods for BoardPods {
    fn list(&self) -> Vec<NodePod> {
        let board = self.board.borrow().clone();
        let pod = |(key, entry): (&PodKey, &crate::publish::PodEntry)| {
            let report = entry.report.as_ref()?;
            Some(self.pod(key, &report.pod, &report.status, entry.leaving.is_some()))
        };
        board.pods.iter().filter_map(pod).collect()
    }

    fn find(&self, namespace: &str, name: &str) -> Option<NodePod> {
        let board = self.board.borrow().clone();
        let mut named =
            board.pods.iter().filter(|(key, _)| key.namespace == namespace && key.name == name);
        let (key, entry) = named.next()?;
        let report = entry.report.as_ref()?;
        Some(self.pod(key, &report.pod, &report.status, entry.leaving.is_some()))
    }

    fn mirrors(&self) -> Option<usize> {
        let uid = self.mirror_uid.as_ref()?;
        let board = self.board.borrow().clone();
        Some(board.pods.keys().filter(|key| uid(key).is_some()).count())
    }

    fn manifest_errors(&self) -> Vec<ManifestError> {
        errors(&self.board.borrow().notes)
    }
}

/// What is wrong with the manifests that are noted.
fn errors(notes: &Notes) -> Vec<ManifestError> {
    let mut counts: BTreeMap<(&Path, &'static str), usize> = BTreeMap::new();
    for (file, notes) in &notes.files {
        for reason in notes.iter().filter_map(reason) {
            *counts.entry((file, reason)).or_default() += 1;
        }
    }
    let error = |((file, reason), count): ((&Path, _), _)| {
        let file = file.to_string_lossy().into_owned();
        ManifestError { file, reason, count }
    };
    counts.into_iter().map(error).collect()
}

fn reason(note: &Note) -> Option<&'static str> {
    match note {
        Note::Unreadable(_) => Some("Unreadable"),
        Note::Shadowed { .. } => Some("Shadowed"),
        Note::Diagnostic(diagnostic) => match (diagnostic.severity, diagnostic.cause) {
            (Severity::Warning, _) => None,
            (Severity::Error, Cause::Syntax) => Some("Syntax"),
            (Severity::Error, Cause::Kind) => Some("Kind"),
            (Severity::Error, Cause::UnknownField) => Some("UnknownField"),
            (Severity::Error, Cause::DuplicateField) => Some("DuplicateField"),
            (Severity::Error, Cause::WrongType) => Some("WrongType"),
            (Severity::Error, Cause::Invalid) => Some("Invalid"),
            (Severity::Error, Cause::Prohibited) => Some("Prohibited"),
            (Severity::Error, Cause::Unsupported) => Some("Unsupported"),
            (Severity::Error, Cause::Adjusted) => Some("Adjusted"),
        },
    }
}

impl BoardPods {
    fn pod(
        &self,
        key: &PodKey,
        pod: &mainstay_pod::Pod,
        status: &PodStatus,
        leaving: bool,
    ) -> NodePod {
        let mut pod = pod.as_k8s().clone();
        pod.status = Some(status.clone());
        let mirror_uid = self.mirror_uid.as_ref().and_then(|uid| uid(key));
        NodePod { key: key.clone(), pod, mirror_uid, leaving }
    }
}

/// A `PodList`, whose items have neither kind nor version, as the kubelet writes it.
pub(super) fn list(pods: Vec<Pod>) -> Value {
    let items = pods.into_iter().map(|pod| {
        let mut item = serde_json::to_value(pod).unwrap_or_default();
        if let Some(fields) = item.as_object_mut() {
            fields.remove("apiVersion");
            fields.remove("kind");
            for field in ["spec", "status"] {
                fields.entry(field).or_insert_with(|| Value::Object(Map::new()));
            }
        }
        item
    });
    let items: Vec<Value> = items.collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_manifests_is_counted() {
        let mut notes = Notes::default();
        let shadowed = || Note::Shadowed {
            pod: mainstay_pod::FullName { name: "a".into(), namespace: "b".into() },
            by: "/m/other.yaml".into(),
        };
        let unreadable = Note::Unreadable("gone".into());
        notes.files.insert("/m/a.yaml".into(), vec![shadowed(), unreadable, shadowed()]);
        let error = |reason, count| ManifestError { file: "/m/a.yaml".into(), reason, count };
        assert_eq!(errors(&notes), [error("Shadowed", 2), error("Unreadable", 1)]);
    }

    #[test]
    fn items_of_a_list_have_no_kind() {
        let pod = Pod { metadata: Default::default(), spec: None, status: None };
        let expected = json!({
            "kind": "PodList", "apiVersion": "v1", "metadata": {},
            "items": [{"metadata": {}, "spec": {}, "status": {}}],
        });
        assert_eq!(list(vec![pod]), expected);
    }
}
