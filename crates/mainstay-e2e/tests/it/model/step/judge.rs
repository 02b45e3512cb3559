//! What is refused, and for which fields.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::kind::{CONTAINER, FINALIZERS, Kind};
use super::super::object::{Fields, State, owned};
use super::super::operation::Part;

type Causes = BTreeSet<(String, String)>;

const INVALID: &str = "FieldValueInvalid";
const FORBIDDEN: &str = "FieldValueForbidden";

/// A new object.
pub(super) fn new(kind: &Kind, fields: &Fields) -> Result<(), Causes> {
    let mut causes = Causes::new();
    labels(fields, &mut causes);
    refused(kind, Part::Main, fields, &mut causes);
    told(causes)
}

/// An object that is changed.
pub(super) fn changed(kind: &Kind, part: Part, before: &State, new: &State) -> Result<(), Causes> {
    let fields = &new.fields;
    let mut causes = Causes::new();
    // What is not said stays as it is.
    let ends = !new.ends.is_empty() && before.ends.is_empty();
    if ends && (kind.kind, part) != ("Pod", Part::Status) {
        cause(&mut causes, INVALID, "metadata.deletionTimestamp");
    }
    if new.ending.is_some() && new.ending != before.ending {
        cause(&mut causes, INVALID, "metadata.deletionGracePeriodSeconds");
    }
    labels(fields, &mut causes);
    let finalizers = |path: &&Vec<String>| path[..2.min(path.len())] == FINALIZERS;
    let more = fields.keys().filter(finalizers).any(|path| !before.fields.contains_key(path));
    if before.ending.is_some() && more {
        cause(&mut causes, FORBIDDEN, "metadata.finalizers");
    }
    refused(kind, part, fields, &mut causes);
    match (kind.kind, part) {
        ("ConfigMap", _) => immutable(&before.fields, fields, &mut causes),
        ("Pod", Part::Main) => pod(&before.fields, fields, &mut causes),
        ("Deployment", Part::Status) => {
            let number = |key| number(fields, &["status", key]).unwrap_or(0);
            for key in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
                if number(key) > number("replicas") {
                    cause(&mut causes, INVALID, &format!("status.{key}"));
                }
            }
        }
        _ => {}
    }
    told(causes)
}

fn told(causes: Causes) -> Result<(), Causes> {
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

fn cause(causes: &mut Causes, reason: &str, field: &str) {
    causes.insert((reason.to_owned(), field.to_owned()));
}

fn labels(fields: &Fields, causes: &mut Causes) {
    let mut values =
        fields.iter().filter(|(path, _)| path[..2.min(path.len())] == ["metadata", "labels"]);
    if values.any(|(_, value)| value.as_str().is_some_and(|value| value.contains(' '))) {
        cause(causes, INVALID, "metadata.labels");
    }
}

/// Values that no object may have.
fn refused(kind: &Kind, part: Part, fields: &Fields, causes: &mut Causes) {
    let of = |top: &str| match part {
        Part::Main => top != "status",
        Part::Status => top == "status",
    };
    for field in kind.fields.iter().filter(|field| of(field.path[0])) {
        let value = fields.get(&owned(field.path)).map(Value::to_string);
        if value.is_some_and(|value| field.refused.contains(&value.as_str())) {
            cause(causes, INVALID, &field.path.join("."));
        }
    }
}

fn immutable(before: &Fields, fields: &Fields, causes: &mut Causes) {
    let flag = owned(&["immutable"]);
    if before.get(&flag) != Some(&Value::Bool(true)) {
        return;
    }
    if fields.get(&flag) != Some(&Value::Bool(true)) {
        cause(causes, FORBIDDEN, "immutable");
    }
    let data = |fields: &Fields| -> Fields {
        let data = fields.iter().filter(|(path, _)| path[0] == "data");
        data.map(|(path, value)| (path.clone(), value.clone())).collect()
    };
    if data(before) != data(fields) {
        cause(causes, FORBIDDEN, "data");
    }
}

/// Of what a pod is made of, only images and an earlier deadline may change.
fn pod(before: &Fields, fields: &Fields, causes: &mut Causes) {
    const DEADLINE: [&str; 2] = ["spec", "activeDeadlineSeconds"];
    let may_change = |path: &Vec<String>| {
        *path == owned(&["spec", "containers", CONTAINER, "image"]) || *path == owned(&DEADLINE)
    };
    match (number(before, &DEADLINE), number(fields, &DEADLINE)) {
        (Some(_), None) => cause(causes, INVALID, &DEADLINE.join(".")),
        // It looks no further.
        (Some(old), Some(new)) if new > old => {
            return cause(causes, INVALID, &DEADLINE.join("."));
        }
        _ => {}
    }
    let fixed = |fields: &Fields| -> Fields {
        let spec = fields.iter().filter(|(path, _)| path[0] == "spec" && !may_change(path));
        spec.map(|(path, value)| (path.clone(), value.clone())).collect()
    };
    if fixed(before) != fixed(fields) {
        cause(causes, FORBIDDEN, "spec");
    }
}

fn number(fields: &Fields, path: &[&str]) -> Option<i64> {
    fields.get(&owned(path))?.as_i64()
}
