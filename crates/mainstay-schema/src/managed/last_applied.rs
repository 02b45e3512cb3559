//! The annotation of client-side apply, for users who go over from it.
//!
//! Sources: `lastappliedmanager.go` and `lastappliedupdater.go` in
//! `staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal`.

use serde_json::Value;

use super::set::Set;
use super::validate::{self, Duplicates};
use super::walk;
use crate::go;
use crate::types::Type;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Bytes that all annotations of an object may have.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Fields that are as client-side apply set them, so that server-side apply may take them over. `None` if
/// the object has no annotation of use.
pub(super) fn allowed(live: &Value, of: &'static Type, api_version: &str) -> Option<Set> {
    let text = annotations(live)?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if applied.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return None;
    }
    validate::validate(&applied, of, Duplicates::Refused).ok()?;
    validate::validate(live, of, Duplicates::Refused).ok()?;
    let compared = walk::compare(&applied, live, of);
    let set = walk::field_set(&applied, of);
    Some(
        set.difference(&compared.modified)
            .difference(&compared.added)
            .difference(&compared.removed),
    )
}

/// Writes the configuration into the annotation if the object has one.
pub(super) fn renew(object: &mut Value, config: &Value) {
    let has_one = annotations(object).is_some_and(|annotations| {
        annotations.get(ANNOTATION).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
    });
    if !has_one {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = annotations_mut(&mut config) {
        annotations.remove(ANNOTATION);
    } else if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("annotations");
    }
    let Some(annotations) = annotations_mut(object) else { return };
    // Go's encoder ends with a newline.
    let text = go::json(&config) + "\n";
    annotations.insert(ANNOTATION.to_owned(), Value::String(text));
    let size: usize =
        annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}

fn annotations(object: &Value) -> Option<&serde_json::Map<String, Value>> {
    object.get("metadata")?.get("annotations")?.as_object()
}

fn annotations_mut(object: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}
