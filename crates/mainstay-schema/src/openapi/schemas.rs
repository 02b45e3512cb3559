//! Definitions of types.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::types::{self, Field, Item, Shape, Type};

/// Which version of OpenAPI is spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// Something that documents define.
#[derive(Clone, Copy, Debug)]
pub(super) enum Definition {
    Type(&'static Type),
    /// A type that is no object with fields, by its full name.
    Special(&'static str),
    /// A list of objects of a type.
    List(&'static Type),
    /// The body of a patch.
    Patch,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";

/// The descriptions and allowed values of types and fields.
pub(super) struct Text {
    lines: Vec<&'static str>,
}

/// These definitions and all that they refer to, sorted by name.
pub(super) fn reachable(roots: &[Definition]) -> Vec<Definition> {
    let mut found = BTreeMap::new();
    let mut left: Vec<Definition> = roots.to_vec();
    while let Some(definition) = left.pop() {
        if found.contains_key(&definition.name()) {
            continue;
        }
        left.extend(definition.references());
        found.insert(definition.name(), definition);
    }
    found.into_values().collect()
}

/// The text for a reference to a definition.
pub(super) fn reference(name: &str, dialect: Dialect) -> Value {
    let place = match dialect {
        Dialect::V2 => "definitions",
        Dialect::V3 => "components/schemas",
    };
    json!({ "$ref": format!("#/{place}/{name}") })
}

// === impl Definition ===

impl Definition {
    /// The name that references have.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Type(of) => of.name().to_owned(),
            Self::Special(name) => (*name).to_owned(),
            Self::List(of) => format!("{}List", of.name()),
            Self::Patch => format!("{META}Patch"),
        }
    }

    fn references(&self) -> Vec<Self> {
        match self {
            Self::Type(of) => of
                .fields()
                .iter()
                .filter_map(|field| Self::in_shape(field.shape(), field))
                .collect(),
            Self::List(of) => {
                let metadata = types::named(&format!("{META}ListMeta")).map(Self::Type);
                [Self::Type(of)].into_iter().chain(metadata).collect()
            }
            Self::Special(_) | Self::Patch => Vec::new(),
        }
    }

    fn in_shape(shape: Shape, field: &Field) -> Option<Self> {
        match shape {
            Shape::Object(of) => Some(Self::Type(of)),
            Shape::List(item) | Shape::Map(item) => Self::in_shape(item.shape(), field),
            _ => special(shape, field).map(Self::Special),
        }
    }

    pub(super) fn schema(&self, dialect: Dialect, text: &Text) -> Value {
        match self {
            Self::Type(of) => object(of, dialect, text),
            Self::Special(name) => special_schema(name, dialect, text),
            Self::List(of) => list(of, dialect),
            Self::Patch => json!({"description": "The body of a PATCH request.", "type": "object"}),
        }
    }
}

/// The value of `x-kubernetes-group-version-kind`.
pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

/// Group, version and kind of a type, as often as it has them.
fn kinds_of(of: &'static Type) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    types::kinds().filter(move |(group, version, kind)| types::of(group, version, kind) == Some(of))
}

fn object(of: &'static Type, dialect: Dialect, text: &Text) -> Value {
    let (at, first) = (types::position(of), of.first());
    let mut properties = Map::new();
    for (index, field) in of.fields().iter().enumerate() {
        let (description, allowed) = text.of_field(at, first + index);
        let property = property(field, dialect, description, allowed);
        properties.insert(field.name().to_owned(), property);
    }
    let mut schema = json!({"type": "object", "properties": properties});
    set(&mut schema, "description", text.of_type(at, first).into());
    let required: Vec<&str> =
        of.fields().iter().filter(|field| field.is_required()).map(Field::name).collect();
    if !required.is_empty() {
        set(&mut schema, "required", json!(required));
    }
    if of.is_atomic() {
        set(&mut schema, "x-kubernetes-map-type", "atomic".into());
    }
    let kinds: Vec<Value> =
        kinds_of(of).map(|(group, version, kind)| gvk(group, version, kind)).collect();
    if !kinds.is_empty() {
        set(&mut schema, "x-kubernetes-group-version-kind", json!(kinds));
    }
    schema
}

fn property(field: &'static Field, dialect: Dialect, description: String, allowed: &str) -> Value {
    let (in_items, allowed) = allowed.strip_prefix('*').map_or((false, allowed), |it| (true, it));
    let allowed: Option<Value> = serde_json::from_str(allowed).ok();
    let shape = field.shape();
    let mut schema = value(shape, field, dialect, allowed.as_ref().filter(|_| in_items));
    let default = field.default().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let default = default.filter(|_| dialect == Dialect::V3);
    if schema.get("$ref").is_some() && dialect == Dialect::V3 {
        // Nothing may stand beside a reference.
        schema = json!({ "allOf": [schema] });
    }
    if !description.is_empty() {
        set(&mut schema, "description", description.into());
    }
    if let Some(default) = default {
        set(&mut schema, "default", default);
    }
    if let Some(allowed) = allowed.filter(|_| !in_items) {
        set(&mut schema, "enum", allowed);
    }
    let keys = field.list_map_keys();
    if !keys.is_empty() {
        let keys: Vec<&str> = keys.split(',').collect();
        set(&mut schema, "x-kubernetes-list-map-keys", json!(keys));
    }
    for (extension, text) in [
        ("x-kubernetes-list-type", field.list_type_text()),
        ("x-kubernetes-map-type", field.map_type_text()),
        ("x-kubernetes-patch-merge-key", field.patch_merge_key()),
        ("x-kubernetes-patch-strategy", field.patch_strategy_text()),
    ] {
        if !text.is_empty() {
            set(&mut schema, extension, text.into());
        }
    }
    schema
}

/// The schema of a value, without what is said about the field that holds it.
fn value(shape: Shape, field: &Field, dialect: Dialect, allowed: Option<&Value>) -> Value {
    let inner = |item: Item| {
        let mut schema = value(item.shape(), field, dialect, None);
        if let Some(allowed) = allowed {
            set(&mut schema, "enum", allowed.clone());
        }
        schema
    };
    match shape {
        Shape::String => json!({"type": "string"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Object(of) => reference(of.name(), dialect),
        Shape::List(item) => json!({"type": "array", "items": inner(item)}),
        Shape::Map(item) => json!({"type": "object", "additionalProperties": inner(item)}),
        Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::Any => {
            reference(special(shape, field).unwrap_or(RAW_EXTENSION), dialect)
        }
    }
}

/// The name of a type that is no object with fields.
fn special(shape: Shape, field: &Field) -> Option<&'static str> {
    Some(match shape {
        Shape::Quantity => QUANTITY,
        Shape::IntOrString => INT_OR_STRING,
        Shape::Time => TIME,
        Shape::MicroTime => MICRO_TIME,
        Shape::Any if field.go_type().ends_with("FieldsV1") => FIELDS_V1,
        Shape::Any => RAW_EXTENSION,
        _ => return None,
    })
}

fn special_schema(name: &str, dialect: Dialect, text: &Text) -> Value {
    let mut schema = match (name, dialect) {
        (QUANTITY, Dialect::V2) => json!({"type": "string"}),
        (QUANTITY, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (INT_OR_STRING, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        (INT_OR_STRING, Dialect::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (TIME | MICRO_TIME, _) => json!({"type": "string", "format": "date-time"}),
        _ => json!({"type": "object"}),
    };
    set(&mut schema, "description", text.of_special(name).into());
    schema
}

fn list(of: &'static Type, dialect: Dialect) -> Value {
    let kind = of.go_name();
    let meta = reference(&format!("{META}ListMeta"), dialect);
    let metadata = match dialect {
        Dialect::V2 => meta,
        Dialect::V3 => json!({"allOf": [meta], "default": {}}),
    };
    let mut schema = json!({
        "description": format!("{kind}List is a list of {kind} objects."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": "The version of the schema of this object.", "type": "string"},
            "items": {
                "description": "The objects.",
                "type": "array",
                "items": reference(of.name(), dialect),
            },
            "kind": {"description": "The kind of this object.", "type": "string"},
            "metadata": metadata,
        },
    });
    if let Some((group, version, kind)) = kinds_of(of).next() {
        let gvk = gvk(group, version, &format!("{kind}List"));
        set(&mut schema, "x-kubernetes-group-version-kind", json!([gvk]));
    }
    schema
}

fn set(schema: &mut Value, key: &str, value: Value) {
    if let Some(map) = schema.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

// === impl Text ===

impl Text {
    pub(super) fn new() -> Self {
        Self { lines: include_str!("text.tsv").lines().collect() }
    }

    /// The description of the type at a place in the table, whose fields begin at another.
    fn of_type(&self, at: usize, first: usize) -> String {
        self.line(at + first).0
    }

    /// Description and allowed values of a field.
    fn of_field(&self, at: usize, field: usize) -> (String, &'static str) {
        self.line(at + field + 1)
    }

    fn of_special(&self, name: &str) -> String {
        let lines = self.lines.iter().rev().take_while(|line| line.starts_with("io.k8s."));
        let mut found = lines.filter_map(|line| line.split_once('\t'));
        found.find(|(known, _)| *known == name).map(|(_, text)| unescape(text)).unwrap_or_default()
    }

    fn line(&self, at: usize) -> (String, &'static str) {
        let line = self.lines.get(at).copied().unwrap_or_default();
        let (description, allowed) = line.split_once('\t').unwrap_or((line, ""));
        (unescape(description), allowed)
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c) => out.push(c),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// All names of definitions that a schema refers to.
#[cfg(test)]
pub(super) fn references_in(value: &Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "$ref" {
                    let name = value.as_str().and_then(|text| text.rsplit('/').next());
                    found.extend(name.map(str::to_owned));
                }
                references_in(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references_in(item, found)),
        _ => {}
    }
}
