//! Strategic merge patches: merge patches that know which lists merge, and by which key.
//!
//! The rules and messages are those of
//! `staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`. Where the order in which Go
//! walks a map decides there, the keys are taken in their order here.

mod error;
mod lists;
mod order;

use serde_json::{Map, Value};

pub use self::error::{PatchError, Verdict};
use crate::go;
use crate::types::{Field, Shape, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

/// Merges a patch into an object of a type.
///
/// What the patch says about fields that the type does not have is merged too; decoding the result
/// finds them. The work is linear in the size of both but for sorting.
///
/// # Errors
///
/// When a directive is malformed, a merged list's item has no merge key, or something is merged into
/// a field that is not there.
pub fn merge(object: Value, patch: &Value, of: &'static Type) -> Result<Value, PatchError> {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            merge_map(object, patch.clone(), Schema::Object(of)).map(Value::Object)
        }
        (Value::Object(_), other) => Err(PatchError::expected_map(other)),
        (other, _) => Err(PatchError::expected_map(&other)),
    }
}

/// What is known about the value at hand.
#[derive(Clone, Copy)]
enum Schema {
    Object(&'static Type),
    /// An object whose fields are nobody's business, of a Go struct of this name.
    Opaque(&'static str),
    /// Not an object with known fields, but what Go calls this.
    Other(&'static str),
}

/// What is known about a field whose value merges.
struct Found {
    schema: Schema,
    field: Option<&'static Field>,
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Schema,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(PatchError::unknown_directive(&directive.clone(), patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order::set_element_order(&mut original, &mut patch, schema)?;

    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            Some(rest) => match rest.strip_prefix('/') {
                Some(key) => (key.to_owned(), true),
                None => return Err(PatchError::BadPrimitiveList),
            },
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let same_type = original.get(&key).is_some_and(|there| same_type(there, &value));
        if !same_type {
            if !deletes {
                set(&mut original, key, without_nulls(value));
            }
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(there)), Value::Object(value)) => {
                let found = schema.lookup(&key)?;
                if found.replaces() {
                    Value::Object(value)
                } else {
                    Value::Object(merge_map(there, value, found.schema)?)
                }
            }
            (Some(Value::Array(there)), Value::Array(value)) => {
                let found = schema.lookup_list(&key)?;
                Value::Array(lists::merge(there, value, &found, deletes)?)
            }
            (_, value) => value,
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// Carries out `$retainKeys`: fields of the original that it does not name go.
fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(names) = directive else { return Err(PatchError::BadRetainKeys) };
    let names: std::collections::HashSet<&str> = names.iter().filter_map(Value::as_str).collect();
    let is_retained = |key: &String, value: &Value| {
        value.is_null()
            || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            || key.starts_with(SET_ELEMENT_ORDER)
            || names.contains(key.as_str())
    };
    if !patch.iter().all(|(key, value)| is_retained(key, value)) {
        return Err(PatchError::BadRetainKeys);
    }
    original.retain(|key, _| names.contains(key.as_str()));
    Ok(())
}

/// Sets what the original does not have, if anything is left of it without directives.
fn set(original: &mut Map<String, Value>, key: String, value: Value) {
    match without_directives(value) {
        Some(value) => original.insert(key, value),
        None => original.remove(&key),
    };
}

/// Takes nulls in objects out, since they mean absence.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let left = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(left.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Takes objects with a `$patch` out.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let left = map.into_iter();
            let left = left.filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(left.collect()))
        }
        Value::Array(items) => {
            Some(Value::Array(items.into_iter().filter_map(without_directives).collect()))
        }
        other => Some(other),
    }
}

/// Whether Go decodes both to the same type.
fn same_type(one: &Value, other: &Value) -> bool {
    go::type_name(one) == go::type_name(other)
}

// === impl Schema ===

impl Schema {
    fn lookup(self, key: &str) -> Result<Found, PatchError> {
        let object = match self {
            Self::Object(object) => object,
            Self::Opaque(object) => {
                return Err(PatchError::NoField { object, field: key.to_owned() });
            }
            Self::Other(kind) => return Err(PatchError::NotStruct { kind }),
        };
        let Some(field) = object.field(key) else {
            return Err(PatchError::NoField { object: object.go_name(), field: key.to_owned() });
        };
        Ok(Found { schema: Self::of(field.shape(), field), field: Some(field) })
    }

    /// Like [`Self::lookup`], with the schema of the list's items.
    fn lookup_list(self, key: &str) -> Result<Found, PatchError> {
        let found = self.lookup(key)?;
        let Some(field) = found.field else { return Ok(found) };
        match field.shape() {
            Shape::List(item) => Ok(Found { schema: Self::of(item.shape(), field), ..found }),
            _ => Err(PatchError::NotList { kind: self.kind() }),
        }
    }

    fn of(shape: Shape, field: &Field) -> Self {
        match shape {
            Shape::Object(object) => Self::Object(object),
            Shape::String | Shape::Bytes => Self::Other("string"),
            Shape::Bool => Self::Other("bool"),
            Shape::Int32 => Self::Other("int32"),
            Shape::Int64 => Self::Other("int64"),
            Shape::List(_) => Self::Other("slice"),
            Shape::Map(_) => Self::Other("map"),
            Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::Any => {
                let name = field.go_type();
                Self::Opaque(name.rsplit_once('.').map_or(name, |(_, last)| last))
            }
        }
    }

    /// `schema.Name()`: Go's name for the kind of type.
    fn kind(self) -> &'static str {
        match self {
            Self::Object(_) | Self::Opaque(_) => "struct",
            Self::Other(kind) => kind,
        }
    }
}

// === impl Found ===

impl Found {
    fn replaces(&self) -> bool {
        self.field.is_some_and(|field| field.patch_strategy().replace)
    }

    fn merges(&self) -> bool {
        self.field.is_some_and(|field| field.patch_strategy().merge)
    }

    fn merge_key(&self) -> &'static str {
        self.field.map_or("", Field::patch_merge_key)
    }
}

#[cfg(test)]
mod tests;
