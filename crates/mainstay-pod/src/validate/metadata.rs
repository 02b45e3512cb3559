//! Object metadata: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use super::{Errors, as_json, names, text};
use crate::path::Path;

/// All annotations together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", ORPHAN, FOREGROUND];

pub(super) fn metadata(meta: &ObjectMeta, path: &Path<'_>, errors: &mut Errors) {
    let generate = text(meta.generate_name.as_ref());
    if !generate.is_empty() {
        errors.invalid_all(&path.field("generateName"), generate, names::generate_name(generate));
    }
    let name = text(meta.name.as_ref());
    if name.is_empty() {
        errors.required(&path.field("name"), "name or generateName is required");
    } else {
        errors.invalid_all(&path.field("name"), name, names::dns_subdomain(name));
    }
    let namespace = text(meta.namespace.as_ref());
    if namespace.is_empty() {
        errors.required(&path.field("namespace"), "");
    } else {
        errors.invalid_all(&path.field("namespace"), namespace, names::dns_label(namespace));
    }
    non_negative(meta.generation.unwrap_or(0), &path.field("generation"), errors);
    labels(meta.labels.as_ref(), &path.field("labels"), errors);
    annotations(meta.annotations.as_ref(), &path.field("annotations"), errors);
    owners(meta.owner_references.as_deref().unwrap_or(&[]), &path.field("ownerReferences"), errors);
    finalizers(meta.finalizers.as_deref().unwrap_or(&[]), &path.field("finalizers"), errors);
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

pub(super) fn non_negative(value: i64, path: &Path<'_>, errors: &mut Errors) {
    if value < 0 {
        errors.invalid(path, value, "must be greater than or equal to 0");
    }
}

pub(super) fn labels(
    labels: Option<&BTreeMap<String, String>>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    for (key, value) in labels.into_iter().flatten() {
        errors.placed(&path.key(key), |errors| {
            errors.invalid_all(path, key, names::label_key(key));
            errors.invalid_all(path, value, names::label_value(value));
        });
    }
}

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
        let version = owner.api_version.rsplit('/').next().unwrap_or("");
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
                as_json(owner),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => errors.invalid(
                    path,
                    as_json(&owners),
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                ),
                None => controller = Some(this),
            }
        }
    }
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
    for (at, finalizer) in finalizers.iter().enumerate() {
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.as_str()) {
            let message = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path.index(at), finalizer.as_str(), message);
        }
    }
}

/// `ValidateLabelSelector`.
pub(super) fn label_selector(
    selector: Option<&LabelSelector>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
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

pub(super) fn label_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_all(path, name, names::label_key(name));
}
