//! Object metadata: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use super::{Errors, Show as _, as_json, names, text};
use crate::path::Path;

/// All annotations together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", ORPHAN, FOREGROUND];

/// `ValidateObjectMeta`: of an object in a namespace or of none, whose name `name_errors` judges.
pub fn metadata(
    meta: &ObjectMeta,
    namespaced: bool,
    name_errors: impl Fn(&str) -> Vec<String>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let generate = text(meta.generate_name.as_ref());
    if !generate.is_empty() {
        let messages = name_errors(&names::without_trailing_dash(generate));
        errors.invalid_all(&path.field("generateName"), generate, messages);
    }
    let name = text(meta.name.as_ref());
    if name.is_empty() {
        errors.required(&path.field("name"), "name or generateName is required");
    } else {
        errors.invalid_all(&path.field("name"), name, name_errors(name));
    }
    let namespace = text(meta.namespace.as_ref());
    if !namespaced {
        if !namespace.is_empty() {
            errors.forbidden(&path.field("namespace"), "not allowed on this type");
        }
    } else if namespace.is_empty() {
        errors.required(&path.field("namespace"), "");
    } else {
        errors.invalid_all(&path.field("namespace"), namespace, names::dns_label(namespace));
    }
    non_negative(meta.generation.unwrap_or(0), &path.field("generation"), errors);
    labels(meta.labels.as_ref(), &path.field("labels"), errors);
    annotations(meta.annotations.as_ref(), &path.field("annotations"), errors);
    owners(meta.owner_references.as_deref().unwrap_or(&[]), &path.field("ownerReferences"), errors);
    finalizers(meta.finalizers.as_deref().unwrap_or(&[]), &path.field("finalizers"), errors);
    managed_fields(meta, path, errors);
}

fn managed_fields(meta: &ObjectMeta, path: &Path<'_>, errors: &mut Errors) {
    let managed = path.field("managedFields");
    for (at, entry) in meta.managed_fields.iter().flatten().enumerate() {
        let path = managed.index(at);
        let operation = text(entry.operation.as_ref());
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(
                &path.field("operation"),
                super::Json(operation),
                "must be `Apply` or `Update`",
            );
        }
        let fields_type = text(entry.fields_type.as_ref());
        if !matches!(fields_type, "" | "FieldsV1") {
            errors.invalid(&path.field("fieldsType"), fields_type, "must be `FieldsV1`");
        }
    }
}

/// `ValidateObjectMetaUpdate`: what a change of an object may not change, and whether what is there now
/// can be.
pub fn metadata_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path<'_>, errors: &mut Errors) {
    let new_finalizers = new.finalizers.as_deref().unwrap_or(&[]);
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or(&[]);
        let added: Vec<String> =
            new_finalizers.iter().filter(|it| !known.contains(it)).cloned().collect();
        if !added.is_empty() {
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                added.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ")
            );
            errors.forbidden(&path.field("finalizers"), &message);
        }
    }
    if text(new.resource_version.as_ref()).is_empty() {
        errors.invalid(&path.field("resourceVersion"), "", "must be specified for an update");
    }
    let generation = new.generation.unwrap_or(0);
    if generation < old.generation.unwrap_or(0) {
        errors.invalid(&path.field("generation"), generation, "must not be decremented");
    }
    let mut immutable = |field: &str, same: bool, value: String| {
        if !same {
            errors.invalid(&path.field(field), super::Shown(value), "field is immutable");
        }
    };
    immutable("name", new.name == old.name, as_json(&new.name).show());
    immutable("namespace", new.namespace == old.namespace, as_json(&new.namespace).show());
    immutable("uid", new.uid == old.uid, as_json(&new.uid).show());
    let (created, deleted) = (&new.creation_timestamp, &new.deletion_timestamp);
    let same = *created == old.creation_timestamp;
    immutable("creationTimestamp", same, as_json(created).show());
    immutable("deletionTimestamp", *deleted == old.deletion_timestamp, as_json(deleted).show());
    let grace = new.deletion_grace_period_seconds;
    let same = grace == old.deletion_grace_period_seconds;
    immutable("deletionGracePeriodSeconds", same, as_json(&grace).show());
    labels(new.labels.as_ref(), &path.field("labels"), errors);
    annotations(new.annotations.as_ref(), &path.field("annotations"), errors);
    owners(new.owner_references.as_deref().unwrap_or(&[]), &path.field("ownerReferences"), errors);
    managed_fields(new, path, errors);
}

/// A number that may be 0.
pub fn non_negative(value: i64, path: &Path<'_>, errors: &mut Errors) {
    if value < 0 {
        errors.invalid(path, value, "must be greater than or equal to 0");
    }
}

/// `ValidateLabels`.
pub fn labels(labels: Option<&BTreeMap<String, String>>, path: &Path<'_>, errors: &mut Errors) {
    for (key, value) in labels.into_iter().flatten() {
        errors.placed(&path.key(key), |errors| {
            errors.invalid_all(path, key, names::label_key(key));
            errors.invalid_all(path, value, names::label_value(value));
        });
    }
}

/// `ValidateAnnotations`.
pub(super) fn annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    for key in annotations.into_iter().flatten().map(|(key, _)| key) {
        errors.placed(&path.key(key), |errors| {
            errors.invalid_all(path, key, names::label_key(&key.to_lowercase()));
        });
    }
    let size: usize =
        annotations.into_iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    if size > ANNOTATIONS_MAX {
        errors.too_long(path, ANNOTATIONS_MAX);
    }
}

fn owners(owners: &[OwnerReference], path: &Path<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners {
        // "a/b" is group and version, "b" alone the version of the core group.
        // More parts are nothing.
        let version = match owner.api_version.matches('/').count() {
            0 | 1 => owner.api_version.rsplit('/').next().unwrap_or(""),
            _ => "",
        };
        let parts = [
            ("apiVersion", version.is_empty(), &owner.api_version, "version must not be empty"),
            ("kind", owner.kind.is_empty(), &owner.kind, "must not be empty"),
            ("name", owner.name.is_empty(), &owner.name, "must not be empty"),
            ("uid", owner.uid.is_empty(), &owner.uid, "must not be empty"),
        ];
        for (field, empty, value, message) in parts {
            if empty {
                errors.invalid(&path.field(field), value.as_str(), message);
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            errors.invalid(
                path,
                as_json(&shown(owner)),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => errors.invalid(
                    path,
                    as_json(&owners.iter().map(shown).collect::<Vec<_>>()),
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                ),
                None => controller = Some(this),
            }
        }
    }
}

/// An owner with its fields in the order in which Kubernetes shows them.
fn shown(owner: &OwnerReference) -> impl serde::Serialize {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shown {
        api_version: String,
        kind: String,
        name: String,
        uid: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        controller: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        block_owner_deletion: Option<bool>,
    }
    let OwnerReference { api_version, kind, name, uid, controller, block_owner_deletion } =
        owner.clone();
    Shown { api_version, kind, name, uid, controller, block_owner_deletion }
}

fn finalizers(finalizers: &[String], path: &Path<'_>, errors: &mut Errors) {
    for finalizer in finalizers {
        errors.invalid_all(path, finalizer, names::label_key(finalizer));
    }
    let has = |name: &str| finalizers.iter().any(|it| it == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let message = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.invalid(path, as_json(&finalizers), &message);
    }
    for (at, it) in finalizers.iter().enumerate() {
        known_finalizer(it, &path.index(at), errors);
    }
}

/// One finalizer: it has the shape of one, and is somebody's or one of Kubernetes' own.
pub fn finalizer(finalizer: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_all(path, finalizer, names::label_key(finalizer));
    known_finalizer(finalizer, path, errors);
}

fn known_finalizer(finalizer: &str, path: &Path<'_>, errors: &mut Errors) {
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        errors.invalid(path, finalizer, message);
    }
}

/// `ValidateLabelSelector`.
pub fn label_selector(selector: Option<&LabelSelector>, path: &Path<'_>, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    labels(selector.match_labels.as_ref(), &path.field("matchLabels"), errors);
    let path = path.field("matchExpressions");
    for (at, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.index(at);
        let values = requirement.values.as_deref().unwrap_or(&[]);
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let message = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.required(&path.field("values"), message);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&path.field("values"), message);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => {
                errors.invalid(
                    &path.field("operator"),
                    super::Json(operator),
                    "not a valid selector operator",
                );
            }
        }
        label_name(&requirement.key, &path.field("key"), errors);
        let path = path.field("values");
        for (at, value) in values.iter().enumerate() {
            errors.invalid_all(&path.index(at), value, names::label_value(value));
        }
    }
}

/// `ValidateLabelName`.
pub(super) fn label_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_all(path, name, names::label_key(name));
}
