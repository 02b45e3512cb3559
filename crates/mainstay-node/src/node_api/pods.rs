//! The pods that requests are about.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use mainstay_plan::pod::{PodKey, SourceKind};
use mainstay_pod::{Cause, FullName, Severity};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::publish::api::ApiPods;
use crate::publish::{Board, PodEntry, PodReport};
use crate::sources::merge::{Note, Notes};

/// The pods of this node, as they are told.
pub(crate) trait Pods: Send + Sync {
    /// All of them.
    fn list(&self) -> Vec<NodePod>;

    /// The one of this name.
    fn find(&self, namespace: &str, name: &str) -> Option<NodePod>;

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
pub(crate) struct ManifestError {
    /// The manifest's file.
    pub(crate) file: String,
    /// One word: `Unreadable`, `Shadowed`, or a kind of diagnostic such as `Syntax`.
    pub(crate) reason: &'static str,
    /// How often.
    pub(crate) count: usize,
}

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct NodePod {
    /// It, and how it is.
    pub(crate) report: Arc<PodReport>,
    /// The UID of its mirror, if it has one and it is known.
    pub(crate) mirror_uid: Option<String>,
    /// Whether it is being taken away.
    pub(crate) leaving: bool,
}

/// The pods of the board.
pub(crate) struct BoardPods {
    pub(crate) board: watch::Receiver<Arc<Board>>,
    /// The API's, of which some are mirrors.
    pub(crate) api: Arc<ApiPods>,
}

impl NodePod {
    /// Its name, and where it comes from.
    pub(super) fn key(&self) -> &PodKey {
        &self.report.key
    }

    /// The UID that the runtime knows it by.
    pub(super) fn uid(&self) -> &str {
        self.report.pod.uid()
    }

    /// Whether `uid` is its own or its mirror's, or nothing is asked for.
    pub(super) fn has_uid(&self, uid: &str) -> bool {
        uid.is_empty() || uid == self.uid() || self.mirror_uid.as_deref() == Some(uid)
    }

    pub(super) fn status(&self) -> &PodStatus {
        &self.report.status
    }

    /// A container of its manifest.
    pub(super) fn container(&self, name: &str) -> Option<&Container> {
        self.report.pod.container(name).map(|(_, container)| container)
    }

    /// The status of a container.
    pub(super) fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = self.status();
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
        board.pods.values().filter_map(|entry| self.pod(entry)).collect()
    }

    fn find(&self, namespace: &str, name: &str) -> Option<NodePod> {
        let board = self.board.borrow().clone();
        // Of two of one name the API knows its own only.
        [SourceKind::Api, SourceKind::File, SourceKind::Http].into_iter().find_map(|source| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            self.pod(board.pods.get(&PodKey { source, namespace, name })?)
        })
    }

    fn mirrors(&self) -> Option<usize> {
        self.api.mirrors()
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
    fn pod(&self, entry: &PodEntry) -> Option<NodePod> {
        let report = entry.report.clone()?;
        let PodKey { source, namespace, name } = &report.key;
        let name = FullName { name: name.clone(), namespace: namespace.clone() };
        let mirror_uid = source.is_static().then(|| self.api.mirror(&name)).flatten();
        Some(NodePod { report, mirror_uid, leaving: entry.leaving.is_some() })
    }
}

impl From<&NodePod> for Pod {
    /// The pod with its status.
    fn from(pod: &NodePod) -> Self {
        Self { status: Some(pod.status().clone()), ..pod.report.pod.as_k8s().clone() }
    }
}

/// A `PodList`, whose items have neither kind nor version, as the kubelet writes it.
pub(super) fn list(pods: impl IntoIterator<Item = Pod>) -> Value {
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

    #[test]
    fn of_two_pods_of_one_name_the_one_that_the_api_knows_is_found() {
        let namespace_and_name = ("default", "web-n1");
        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n\
             spec: {containers: [{name: a, image: x}]}\n",
        );
        let key = |source| {
            let (namespace, name) = namespace_and_name;
            PodKey { source, namespace: namespace.into(), name: name.into() }
        };
        let entry = |source| {
            let report = PodReport {
                key: key(source),
                pod: pod.clone(),
                manifest: None,
                status: Arc::default(),
                waiting: None,
                ending: Vec::new(),
                stopping: false,
                ended: false,
            };
            PodEntry { report: Some(Arc::new(report)), leaving: None }
        };
        let leaving = PodEntry { report: None, leaving: Some(Arc::default()) };
        let (file, api) = (SourceKind::File, SourceKind::Api);
        for (entries, expected) in [
            (vec![(file, entry(file)), (api, entry(api))], Some(api)),
            (vec![(file, entry(file)), (api, leaving.clone())], Some(file)),
            (vec![(file, leaving.clone()), (api, entry(api))], Some(api)),
            (vec![(file, entry(file))], Some(file)),
            (vec![(file, leaving)], None),
            (vec![], None),
        ] {
            let mut board = Board::default();
            board.pods = entries.into_iter().map(|(source, it)| (key(source), it)).collect();
            let (_sender, board) = watch::channel(Arc::new(board));
            let pods = BoardPods { board, api: Arc::new(ApiPods::new()) };
            let (namespace, name) = namespace_and_name;
            let found = pods.find(namespace, name).map(|pod| pod.key().source);
            assert_eq!(found, expected);
        }
    }
}
