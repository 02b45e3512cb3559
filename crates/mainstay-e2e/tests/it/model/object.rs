//! What the model knows of an object, read out of what a server tells.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::kind::{FINALIZERS, Kind};

/// Where something is in an object: see [`super::kind::Field::path`].
pub(super) type Path = Vec<String>;
/// Fields with values of their own.
pub(super) type Fields = BTreeMap<Path, Value>;

/// An object at a version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) uid: String,
    pub(super) created: String,
    /// 0 if it has none, since it is not stored.
    pub(super) version: u64,
    pub(super) generation: Option<i64>,
    /// The grace period, if it is being deleted.
    pub(super) ending: Option<i64>,
    /// When it is over.
    pub(super) ends: String,
    pub(super) fields: Fields,
    pub(super) owners: Owners,
}

/// Who set what.
pub(super) type Owners = BTreeMap<Owner, BTreeSet<Path>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) manager: String,
    /// `Apply` or `Update`.
    pub(super) operation: String,
    pub(super) subresource: String,
}

// === impl State ===

impl State {
    pub(super) fn read(kind: &Kind, object: &Value) -> Self {
        let meta = &object["metadata"];
        let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
        let ending = meta["deletionGracePeriodSeconds"].as_i64();
        assert_eq!(ending.is_some(), meta["deletionTimestamp"].is_string(), "{object}");
        Self {
            uid: text("uid"),
            created: text("creationTimestamp"),
            version: text("resourceVersion").parse().unwrap_or(0),
            generation: meta["generation"].as_i64(),
            ending,
            ends: text("deletionTimestamp"),
            fields: fields(kind, object),
            owners: owners(kind, meta),
        }
    }

    pub(super) fn has_finalizers(&self) -> bool {
        has_any(&self.fields, &FINALIZERS.map(str::to_owned))
    }

    /// A field that is a text.
    pub(super) fn text(&self, path: &[&str]) -> Option<&str> {
        self.fields.get(&owned(path))?.as_str()
    }

    /// Whether it has this label, of whatever value if none is said.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.text(&["metadata", "labels", key])
    }
}

pub(super) fn owned(path: &[&str]) -> Path {
    path.iter().map(|&name| name.to_owned()).collect()
}

/// Whether there is something in a container.
pub(super) fn has_any(fields: &Fields, container: &[String]) -> bool {
    fields.keys().any(|path| path.len() > container.len() && path.starts_with(container))
}

/// All fields that the model knows, and the containers that they are in.
pub(super) fn paths(kind: &Kind, fields: &Fields) -> BTreeSet<Path> {
    let above = |path: &Path| (1..path.len()).map(|len| path[..len].to_vec()).collect::<Vec<_>>();
    let containers = fields.keys().flat_map(above).filter(|path| kind.is_container(path));
    fields.keys().cloned().chain(containers).collect()
}

fn fields(kind: &Kind, object: &Value) -> Fields {
    let known = kind.fields().filter(|field| field.path[..2.min(field.path.len())] != FINALIZERS);
    let mut fields: Fields = known
        .filter_map(|field| Some((owned(field.path), get(object, field.path)?.clone())))
        .collect();
    for finalizer in object["metadata"]["finalizers"].as_array().into_iter().flatten() {
        let [metadata, finalizers] = FINALIZERS.map(str::to_owned);
        let element = format!("v:{}", finalizer.as_str().unwrap_or_default());
        fields.insert(vec![metadata, finalizers, element], finalizer.clone());
    }
    fields
}

fn get<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |at, name| match name.strip_prefix("k:") {
        Some(keys) => at.as_array()?.iter().find(|element| has_keys(element, keys)),
        None => at.get(name),
    })
}

/// Whether an element of a list has these keys, in JSON.
fn has_keys(element: &Value, keys: &str) -> bool {
    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap();
    keys.iter().all(|(key, value)| element.get(key) == Some(value))
}

/// Puts a value in an object, with all that is on the way; `None` takes it away.
pub(super) fn set(object: &mut Value, path: &[String], value: Option<&Value>) {
    let Some((first, rest)) = path.split_first() else { return };
    if let Some(element) = first.strip_prefix("v:") {
        let list = elements(object);
        match value {
            Some(value) if list.contains(value) => {}
            Some(value) => list.push(value.clone()),
            None => list.retain(|it| it != element),
        }
    } else if let Some(keys) = first.strip_prefix("k:") {
        let list = elements(object);
        if !list.iter().any(|element| has_keys(element, keys)) {
            list.push(serde_json::from_str(keys).unwrap());
        }
        let element = list.iter_mut().find(|element| has_keys(element, keys)).unwrap();
        set(element, rest, value);
    } else {
        if !object.is_object() {
            *object = Value::Object(Map::new());
        }
        let members = object.as_object_mut().unwrap();
        match (rest, value) {
            ([], Some(value)) => drop(members.insert(first.clone(), value.clone())),
            ([], None) => drop(members.remove(first)),
            _ => set(members.entry(first.clone()).or_insert(Value::Null), rest, value),
        }
    }
}

fn elements(list: &mut Value) -> &mut Vec<Value> {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    list.as_array_mut().unwrap()
}

fn owners(kind: &Kind, meta: &Value) -> Owners {
    let mut owners = Owners::new();
    for entry in meta["managedFields"].as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let owner = Owner {
            manager: text("manager"),
            operation: text("operation"),
            subresource: text("subresource"),
        };
        let mut set = BTreeSet::new();
        collect(&entry["fieldsV1"], &mut Vec::new(), &mut set);
        set.retain(|path| kind.tracks(path));
        if !set.is_empty() {
            let known = owners.insert(owner, set);
            assert!(known.is_none(), "a manager is there twice: {meta}");
        }
    }
    owners
}

/// The paths of a set of fields as it is written: `FieldsV1`.
fn collect(fields: &Value, at: &mut Path, set: &mut BTreeSet<Path>) {
    let members = fields.as_object();
    if members.is_none_or(Map::is_empty) {
        set.insert(at.clone());
    }
    for (key, below) in members.into_iter().flatten() {
        match key.split_once(':') {
            Some(("f", name)) => at.push(name.to_owned()),
            Some(("v", json)) => {
                let element: String = serde_json::from_str(json).unwrap();
                at.push(format!("v:{element}"));
            }
            Some(_) => at.push(key.clone()),
            None => {
                set.insert(at.clone());
                continue;
            }
        }
        collect(below, at, set);
        at.pop();
    }
}
