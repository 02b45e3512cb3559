use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use expect_test::expect;
use mainstay_plan::pod::SourceKind;
use mainstay_pod::FullName;

use super::*;
use crate::publish::PodEntry;

fn key(name: &str) -> PodKey {
    PodKey { source: SourceKind::File, namespace: "default".into(), name: name.into() }
}

/// A pod in its grace period, of which this agent never saw the manifest.
#[test]
fn a_pod_that_was_leaving_before_the_agent_came_is_listed() {
    let mut board = Board::default();
    let entry = PodEntry { report: None, leaving: Some(Arc::default()) };
    board.pods.insert(key("web-n1"), entry);
    let status = Status::of("n1", &board, &Events::default());
    let pods: Vec<_> = status.pods.iter().map(|pod| (&*pod.name, &*pod.state)).collect();
    assert_eq!(pods, [("web-n1", "Terminating")]);
}

#[test]
fn notes_say_whether_they_matter() {
    let options = mainstay_pod::ReadOptions {
        validation: mainstay_pod::Validation::Strict,
        node_name: mainstay_pod::NodeName::new("n1").unwrap(),
        source: mainstay_pod::SourceKind::File,
        seen: "2026-01-01T00:00:00Z".into(),
    };
    let manifest = |rest: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, uid: x}}\n\
             spec: {{containers: [{{name: main, image: x}}]{rest}}}"
        )
    };
    let read = |rest: &str| mainstay_pod::read("web.yaml", manifest(rest).as_bytes(), &options);
    let mut found = Vec::new();
    for entry in read("").entries.into_iter().chain(read(", paws: 4").entries) {
        match entry {
            mainstay_pod::Entry::Pod { warnings, .. } => found.extend(warnings),
            mainstay_pod::Entry::Refused { errors, .. } => found.extend(errors),
            other => panic!("{other:?}"),
        }
    }
    let mut notes: Vec<_> = found.into_iter().map(merge::Note::Diagnostic).collect();
    notes.push(merge::Note::Unreadable("Permission denied".into()));
    let pod = FullName { namespace: "default".into(), name: "web-n1".into() };
    notes.push(merge::Note::Shadowed { pod, by: "a.yaml".into() });
    let mut board = Board::default();
    board.notes.files = BTreeMap::from([(PathBuf::from("web.yaml"), notes)]);
    let status = Status::of("n1", &board, &Events::default());
    let lines: Vec<String> = status.manifests[0]
        .notes
        .iter()
        .map(|note| format!("{} {}: {}", note.is_error(), note.severity, note.message))
        .collect();
    expect![[r#"
        false warning: web.yaml:3:23: dropped what a cluster had added: metadata.uid
        true error: web.yaml:4:46: spec.paws: unknown field
        true error: cannot be read: Permission denied
        true error: pod default/web-n1 is taken from a.yaml; remove one of the two"#]]
    .assert_eq(&lines.join("\n"));
}
