//! An object of the API, whatever its kind, and its two written forms.

use bytes::Bytes;
use jiff::Timestamp;
use mainstay_store::Revision;
use serde_json::{Map, Value};

use crate::kind::Resource;

/// An object. It has metadata, and neither `kind` nor `apiVersion`: those follow from the resource that it
/// is read or written as.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(pub Map<String, Value>);

/// What every stored value begins with, so that the revision, which is not known before the commit, can be
/// put in without looking at the rest.
const HEAD: &[u8] = b"{\"metadata\":{";

impl Object {
    /// Takes an object apart from its `kind` and `apiVersion`.
    pub(crate) fn new(mut fields: Map<String, Value>) -> Self {
        fields.remove("kind");
        fields.remove("apiVersion");
        let mut object = Self(fields);
        object.meta_mut();
        object
    }

    /// From a `json!` literal, in tests and where objects are made here.
    pub(crate) fn from_json(value: Value) -> Self {
        match value {
            Value::Object(fields) => Self::new(fields),
            _ => Self::new(Map::new()),
        }
    }

    /// Whole, with `kind` and `apiVersion`.
    pub(crate) fn into_value(self, resource: &Resource) -> Value {
        let mut fields = self.0;
        fields.insert("kind".into(), resource.kind.into());
        fields.insert("apiVersion".into(), resource.api_version().into());
        Value::Object(fields)
    }

    /// The same of an object that is still needed.
    pub(crate) fn to_value(&self, resource: &Resource) -> Value {
        self.clone().into_value(resource)
    }

    /// What is stored: without the revision, `metadata` first.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(HEAD);
        let mut first = true;
        for (key, value) in self.meta().into_iter().flatten() {
            if key != "resourceVersion" {
                write_member(&mut out, &mut first, key, value);
            }
        }
        out.push(b'}');
        first = false;
        for (key, value) in &self.0 {
            if !matches!(key.as_str(), "metadata" | "kind" | "apiVersion") {
                write_member(&mut out, &mut first, key, value);
            }
        }
        out.push(b'}');
        // It is kept for long, and without the room that it grew by.
        Bytes::copy_from_slice(&out)
    }

    /// What was stored, with its revision.
    ///
    /// # Errors
    ///
    /// When it is no JSON object; nothing that was written here.
    pub(crate) fn decode(stored: &[u8], revision: Revision) -> Result<Self, serde_json::Error> {
        let mut object = Self(serde_json::from_slice(stored)?);
        object.set_revision(revision);
        Ok(object)
    }

    pub(crate) fn set_revision(&mut self, revision: Revision) {
        self.meta_mut().insert("resourceVersion".into(), revision.0.to_string().into());
    }

    /// Its metadata, if it has any.
    pub(crate) fn meta(&self) -> Option<&Map<String, Value>> {
        self.0.get("metadata")?.as_object()
    }

    /// Its metadata, made if need be.
    pub(crate) fn meta_mut(&mut self) -> &mut Map<String, Value> {
        object_of(&mut self.0, "metadata")
    }

    /// A text of the metadata; empty if it is not there.
    pub(crate) fn meta_str(&self, key: &str) -> &str {
        self.meta().and_then(|meta| meta.get(key)?.as_str()).unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.meta_str("name")
    }

    pub(crate) fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }

    pub(crate) fn uid(&self) -> &str {
        self.meta_str("uid")
    }

    pub(crate) fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.meta()?.get("labels")?.get(key)?.as_str()
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.meta()?.get("annotations")?.get(key)?.as_str()
    }

    /// Whether it is being deleted.
    pub(crate) fn is_terminating(&self) -> bool {
        !self.meta_str("deletionTimestamp").is_empty()
    }

    pub(crate) fn has_finalizers(&self) -> bool {
        self.meta()
            .and_then(|meta| meta.get("finalizers")?.as_array())
            .is_some_and(|finalizers| !finalizers.is_empty())
    }

    pub(crate) fn generation(&self) -> i64 {
        self.meta().and_then(|meta| meta.get("generation")?.as_i64()).unwrap_or(0)
    }

    /// What is at a path of field names.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, key| value.get(key))
    }

    /// The text at a path; empty if there is none.
    pub(crate) fn str_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The number at a path; 0 if there is none.
    pub(crate) fn i64_at(&self, path: &[&str]) -> i64 {
        self.at(path).and_then(Value::as_i64).unwrap_or(0)
    }

    /// The list at a path; empty if there is none.
    pub(crate) fn list_at(&self, path: &[&str]) -> &[Value] {
        self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The members of the object in a field, made if need be.
    pub(crate) fn field_mut(&mut self, name: &str) -> &mut Map<String, Value> {
        object_of(&mut self.0, name)
    }

    /// Says in the status what a condition says now.
    pub(crate) fn set_condition(&mut self, condition: Value) {
        let conditions = self.field_mut("status").entry("conditions");
        let conditions = conditions.or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = conditions.as_array_mut() {
            list.retain(|it| it.get("type") != condition.get("type"));
            list.push(condition);
        }
    }

    /// As one of k8s-openapi's types.
    ///
    /// # Errors
    ///
    /// When a field has another type there; the schema has been held against it before.
    pub(crate) fn typed<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.0)
    }
}

/// The object in a field, made if need be; anything else there is replaced.
pub(crate) fn object_of<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> &'a mut Map<String, Value> {
    let value = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

/// A stored value as it is answered: with kind, version and revision.
pub(crate) fn render(out: &mut Vec<u8>, resource: &Resource, stored: &[u8], revision: Revision) {
    use std::io::Write as _;
    let (kind, group, version) = (resource.kind, resource.group, resource.version);
    let slash = if group.is_empty() { "" } else { "/" };
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{group}{slash}{version}\",\"metadata\":\
         {{\"resourceVersion\":\"{}\"",
        revision.0
    );
    match stored.strip_prefix(HEAD) {
        Some(rest) => {
            if rest.first() != Some(&b'}') {
                out.push(b',');
            }
            out.extend_from_slice(rest);
        }
        None => out.extend_from_slice(b"}}"),
    }
}

/// A time as the API writes it: whole seconds, in UTC. Source: `metav1.Time.MarshalJSON`.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Appends `"key":value`, with a comma unless it is the first.
fn write_member(out: &mut Vec<u8>, first: &mut bool, key: &str, value: &Value) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    // Values have string keys only, and writing to memory does not fail.
    let _ = serde_json::to_writer(&mut *out, key);
    out.push(b':');
    let _ = serde_json::to_writer(&mut *out, value);
}

#[cfg(test)]
mod tests;
