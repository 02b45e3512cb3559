//! Namespaces.
//!
//! Source: `pkg/registry/core/namespace`.

use std::borrow::Cow;

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Json, Path, metadata, names};
use serde_json::{Value, json};

use crate::kind::{self, AGE, Column, NAME, PLAIN, Resource, Strategy, Subresource, column};
use crate::object::Object;
use crate::table;

pub(crate) static NAMESPACES: Resource = Resource {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    // Upstream has no deletecollection of namespaces.
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    subresources: &[
        Subresource { name: "finalize", kind: "Namespace", of: None, verbs: &["update"] },
        kind::status("Namespace"),
    ],
    storage: "namespaces",
    strategy: &Namespaces,
    ..PLAIN
};

struct Namespaces;

/// The label that selectors know a namespace by. Source: `LabelMetadataName`.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for Namespaces {
    fn default(&self, object: &mut Object) {
        let name = object.name().to_owned();
        if !name.is_empty() {
            let labels = crate::object::object_of(object.meta_mut(), "labels");
            labels.insert(NAME_LABEL.into(), name.into());
        }
    }

    fn resets(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "" | "finalize" => &["status"],
            "status" => &["spec"],
            _ => &[],
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({ "phase": "Active" }));
        let spec = object.field_mut("spec");
        let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|it| it == "kubernetes")
        {
            list.push("kubernetes".into());
        }
    }

    fn prepare_update(&self, new: &mut Object, old: &Object) {
        match old.at(&["spec", "finalizers"]) {
            Some(finalizers) => {
                new.field_mut("spec").insert("finalizers".into(), finalizers.clone());
            }
            None => {
                new.field_mut("spec").remove("finalizers");
            }
        }
    }

    fn name_errors(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let spec = Path::new("spec");
        let path = spec.field("finalizers");
        for finalizer in finalizers(object) {
            metadata::finalizer(finalizer, &path, &mut errors);
        }
        security_labels(object, &mut errors);
        errors.0
    }

    fn validate_part(&self, part: &str, new: &Object, _old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if part == "finalize" {
            let spec = Path::new("spec");
            let path = spec.field("finalizers");
            for (at, finalizer) in finalizers(new).enumerate() {
                metadata::finalizer(finalizer, &path.index(at), &mut errors);
            }
            return errors.0;
        }
        let phase = new.str_at(&["status", "phase"]);
        let (wanted, when) = match new.is_terminating() {
            true => ("Terminating", "is not empty"),
            false => ("Active", "is empty"),
        };
        if phase != wanted {
            // Kubernetes spells it as Go does.
            let detail = format!("may only be '{wanted}' if `deletionTimestamp` {when}");
            errors.invalid(&Path::new("status").field("Phase"), Json(phase), &detail);
        }
        errors.0
    }

    fn begins_to_end(&self, object: &mut Object) -> bool {
        let stays = !object.list_at(&["spec", "finalizers"]).is_empty();
        if stays {
            object.field_mut("status").insert("phase".into(), "Terminating".into());
        }
        stays
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.phase", "name"]
    }

    fn field<'a>(&self, object: &'a Object, field: &str) -> Cow<'a, str> {
        match field {
            "status.phase" => object.str_at(&["status", "phase"]).into(),
            _ => object.name().into(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, column("Status", "string", "The status of the namespace"), AGE];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.str_at(&["status", "phase"]).into(),
            table::age(object, now),
        ]
    }
}

fn finalizers(object: &Object) -> impl Iterator<Item = &str> {
    object.list_at(&["spec", "finalizers"]).iter().filter_map(Value::as_str)
}

/// What pods of a namespace may do, by its labels. Source: the admission plug-in `PodSecurity`, of which
/// this is all that is here.
fn security_labels(object: &Object, errors: &mut Errors) {
    let meta = Path::new("metadata");
    let path = meta.field("labels");
    for mode in ["enforce", "audit", "warn"] {
        let key = format!("pod-security.kubernetes.io/{mode}");
        if let Some(level) = object.label(&key)
            && !matches!(level, "privileged" | "baseline" | "restricted")
        {
            let detail = "must be one of privileged, baseline, restricted";
            errors.invalid(&path.key(&key), level, detail);
        }
        let key = format!("{key}-version");
        if let Some(version) = object.label(&key)
            && version != "latest"
            && version.strip_prefix("v1.").is_none_or(|it| it.parse::<u32>().is_err())
        {
            errors.invalid(&path.key(&key), version, "must be \"latest\" or \"v1.x\"");
        }
    }
}
