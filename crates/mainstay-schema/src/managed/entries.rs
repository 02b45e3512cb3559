//! `metadata.managedFields`, read and written.
//!
//! Source: `staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/managedfields.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::set::Set;
use crate::go;

/// Who holds fields, apart from which: entries with the same one are merged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Empty for appliers, which may change their version.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What a manager holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) api_version: String,
    pub(super) fields: Set,
    /// Seconds since 1970.
    pub(super) time: Option<i64>,
}

/// All managers of an object.
pub(super) type Entries = BTreeMap<Manager, Held>;

/// The entries of an object.
///
/// # Errors
///
/// What is wrong with them.
pub(super) fn of(object: &Value) -> Result<Entries, String> {
    match list(object) {
        Some(list) => read(list),
        None => Ok(Entries::new()),
    }
}

/// Whether somebody wants them gone: there is an empty list, or one with an empty entry.
pub(super) fn are_reset(object: &Value) -> bool {
    match list(object).map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => {
            let is_empty =
                |value: &Value| value.is_null() || value.as_str().is_some_and(str::is_empty);
            only.as_object().is_some_and(|entry| entry.values().all(is_empty))
        }
        _ => false,
    }
}

fn list(object: &Value) -> Option<&Vec<Value>> {
    object.get("metadata")?.get("managedFields")?.as_array()
}

fn read(list: &[Value]) -> Result<Entries, String> {
    let mut entries = Entries::new();
    for (at, entry) in list.iter().enumerate() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        let api_version = text("apiVersion").to_owned();
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
            other => {
                let other = go::quote(other);
                return Err(format!("invalid fieldsType {other} in managed fields entry {at}"));
            }
        }
        let manager = Manager::new(text("manager"), operation, &api_version, text("subresource"));
        let fields = match entry.get("fieldsV1") {
            Some(fields) => Set::from_fields(fields)
                .map_err(|error| format!("error decoding managed fields entry {at}: {error}"))?,
            None => Set::default(),
        };
        let time = text("time").parse::<Timestamp>().ok().map(Timestamp::as_second);
        entries.insert(manager, Held { api_version, fields, time });
    }
    Ok(entries)
}

/// Sets the entries of an object, sorted as Kubernetes sorts them.
pub(super) fn set(object: &mut Value, entries: Entries) {
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert(Value::Null);
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let Some(metadata) = metadata.as_object_mut() else { return };
    if entries.is_empty() {
        metadata.remove("managedFields");
        return;
    }
    let mut entries: Vec<(Manager, Held)> = entries.into_iter().collect();
    entries.sort_by(|(one, its), (other, others)| {
        let key = |manager: &Manager, held: &Held| {
            (manager.operation, held.time.unwrap_or(0), manager.name.clone())
        };
        let versions = || its.api_version.cmp(&others.api_version);
        let subresources = || one.subresource.cmp(&other.subresource);
        key(one, its).cmp(&key(other, others)).then_with(versions).then_with(subresources)
    });
    let list = entries.into_iter().map(|(manager, held)| write(&manager, &held)).collect();
    metadata.insert("managedFields".to_owned(), Value::Array(list));
}

/// Takes the entries off an object.
pub(super) fn remove(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn write(manager: &Manager, held: &Held) -> Value {
    let operation = match manager.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut entry = json!({
        "operation": operation,
        "apiVersion": held.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": held.fields.to_fields(),
    });
    if let Some(map) = entry.as_object_mut() {
        let time = held.time.and_then(|time| Timestamp::from_second(time).ok());
        if let Some(time) = time {
            map.insert("time".to_owned(), Value::String(time.to_string()));
        }
        for (key, text) in [("manager", &manager.name), ("subresource", &manager.subresource)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), Value::String(text.clone()));
            }
        }
    }
    entry
}

// === impl Manager ===

impl Manager {
    pub(super) fn new(
        name: &str,
        operation: Operation,
        api_version: &str,
        subresource: &str,
    ) -> Self {
        let api_version = match operation {
            Operation::Apply => String::new(),
            Operation::Update => api_version.to_owned(),
        };
        Self { name: name.to_owned(), operation, api_version, subresource: subresource.to_owned() }
    }

    /// What Kubernetes sorts managers by in messages.
    pub(super) fn identifier(&self) -> String {
        let mut text = format!("{{\"manager\":{}", Value::String(self.name.clone()));
        text.push_str(match self.operation {
            Operation::Apply => ",\"operation\":\"Apply\"",
            Operation::Update => ",\"operation\":\"Update\"",
        });
        for (key, value) in [("apiVersion", &self.api_version), ("subresource", &self.subresource)]
        {
            if !value.is_empty() {
                text.push_str(&format!(",\"{key}\":{}", Value::String(value.clone())));
            }
        }
        text.push('}');
        text
    }

    /// `"kubectl-edit" using apps/v1`, as conflicts name it.
    pub(super) fn describe(&self) -> String {
        let mut text = go::quote(&self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", go::quote(&self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}
