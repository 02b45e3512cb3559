//! ControllerRevisions: what a DaemonSet was like before.
//!
//! Source: `pkg/registry/apps/controllerrevision` and `ValidateControllerRevisionCreate`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path, metadata};
use serde_json::Value;

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::Object;
use crate::table;

pub(super) static CONTROLLER_REVISIONS: Resource = Resource {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    storage: "controllerrevisions",
    strategy: &ControllerRevisions,
    ..PLAIN
};

struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        revision(object, &mut errors);
        let path = Path::new("data");
        match rules::top(object, "data") {
            Value::Object(_) => {}
            Value::Null => errors.required(&path, "data is mandatory"),
            _ => errors.required(&path, "data must be a valid JSON object"),
        }
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        revision(new, &mut errors);
        let [new, old] = [new, old].map(|it| rules::top(it, "data"));
        rules::immutable(new, old, &Path::new("data"), &mut errors);
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Controller", "string", "What it is a revision of."),
            column("Revision", "string", "The number of the state that it holds."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let owner = rules::controller(rules::top(object, "metadata"));
        vec![
            object.name().into(),
            table::or_none(owner.as_deref().unwrap_or_default()),
            object.i64_at(&["revision"]).into(),
            table::age(object, now),
        ]
    }
}

fn revision(object: &Object, errors: &mut Errors) {
    metadata::non_negative(object.i64_at(&["revision"]), &Path::new("revision"), errors);
}
