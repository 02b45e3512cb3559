//! Pods for tests.

use std::sync::Arc;

use mainstay_pod::{Entry, NodeName, Pod, ReadOptions, SourceKind, Validation, read};

/// The pod of a manifest, on node `n1`.
///
/// # Panics
///
/// When the manifest is not one valid pod.
#[expect(clippy::panic, reason = "for tests")]
pub fn pod(manifest: &str) -> Arc<Pod> {
    let options = ReadOptions {
        validation: Validation::Strict,
        node_name: NodeName::new("n1").expect("n1 is a name"),
        source: SourceKind::File,
        seen: "2026-01-01T00:00:00Z".into(),
    };
    let outcome = read("test.yaml", manifest.as_bytes(), &options);
    match outcome.entries.as_slice() {
        [Entry::Pod { pod, .. }] => pod.clone(),
        other => panic!("not one valid pod: {other:#?} {:#?}", outcome.diagnostics),
    }
}
