//! Manifests that are not what runs, told as events of the node.
//!
//! A pod whose manifest is not valid any more says so itself. A manifest that never was valid has no
//! pod to say it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_pod::Severity;
use tokio::sync::watch;

use super::{Board, EventKind, Events};
use crate::sources::merge::{Note, Notes};

/// How long pods have to say that a manifest is theirs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells them, for ever.
pub(crate) async fn tell(mut board: watch::Receiver<Arc<Board>>, events: Events) {
    let mut told: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut seen = Notes::default();
    loop {
        let news = board.wait_for(|board| board.is_complete() && board.notes != seen);
        if news.await.is_err() {
            return;
        }
        tokio::time::sleep(PATIENCE).await;
        let now = board.borrow_and_update().clone();
        let troubles = troubles(&now);
        for (path, (reason, message)) in &troubles {
            if told.get(path) != Some(message) {
                events.tell_node(EventKind::Warning, reason, message.clone());
            }
        }
        told = troubles.into_iter().map(|(path, (_, message))| (path, message)).collect();
        seen = now.notes.clone();
    }
}

/// The first thing that is wrong with each manifest and that no pod says.
fn troubles(board: &Board) -> BTreeMap<PathBuf, (&'static str, String)> {
    let mut troubles = BTreeMap::new();
    for (path, error) in &board.notes.unreadable {
        let message = format!("cannot look at {}: {error}", path.display());
        troubles.insert(path.clone(), ("ManifestUnreadable", message));
    }
    for (path, notes) in &board.notes.files {
        let trouble = notes.iter().find_map(|note| match note {
            Note::Diagnostic(it) if it.severity == Severity::Error && !is_said(board, note) => {
                Some(("ManifestInvalid", it.to_string()))
            }
            Note::Diagnostic(_) => None,
            Note::Unreadable(error) => {
                Some(("ManifestUnreadable", format!("cannot read {}: {error}", path.display())))
            }
            Note::Shadowed { pod, by } => {
                let (namespace, name) = (&pod.namespace, &pod.name);
                let message = format!(
                    "{}: pod {namespace}/{name} is taken from {}; remove one of the two",
                    path.display(),
                    by.display()
                );
                Some(("ManifestShadowed", message))
            }
        });
        if let Some(trouble) = trouble {
            troubles.insert(path.clone(), trouble);
        }
    }
    troubles
}

/// Whether a pod that runs says it of its manifest.
fn is_said(board: &Board, note: &Note) -> bool {
    let Note::Diagnostic(diagnostic) = note else { return false };
    let reports = board.pods.values().filter_map(|entry| entry.report.as_ref());
    let invalid = reports.filter_map(|it| it.manifest.as_ref()?.invalid.as_ref());
    invalid.into_iter().any(|errors| errors.contains(diagnostic))
}

#[cfg(test)]
mod tests {
    use mainstay_pod::{Entry, NodeName, ReadOptions, SourceKind, Validation};

    use super::*;
    use crate::publish::{Manifest, PodEntry, PodReport};
    use crate::sources::merge::key_of;

    #[test]
    fn what_a_pod_says_itself_is_not_said_again() {
        let options = ReadOptions {
            validation: Validation::Strict,
            node_name: NodeName::new("n1").unwrap(),
            source: SourceKind::File,
            seen: String::new(),
        };
        let outcome = mainstay_pod::read("web.yaml", b"kind: Pod\napiVersion: v1\n", &options);
        let [Entry::Refused { errors, .. }] = outcome.entries.as_slice() else {
            panic!("it has no name and no containers")
        };
        let path = PathBuf::from("web.yaml");
        let mut board = Board::default();
        let note = Note::Diagnostic(errors[0].clone());
        board.notes.files.insert(path.clone(), vec![note]);
        assert_eq!(troubles(&board)[&path].0, "ManifestInvalid");

        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n\
             spec: {containers: [{name: main, image: x}]}",
        );
        let invalid = Some(errors.clone().into());
        let report = PodReport {
            key: key_of(&pod),
            pod,
            manifest: Some(Manifest { path, invalid }),
            status: Default::default(),
            waiting: None,
            ending: Vec::new(),
            stopping: false,
            ended: false,
        };
        let entry = PodEntry { report: Some(Arc::new(report)), leaving: None };
        board.pods.insert(key_of(&entry.report.as_ref().unwrap().pod), entry);
        assert!(troubles(&board).is_empty());
    }
}
