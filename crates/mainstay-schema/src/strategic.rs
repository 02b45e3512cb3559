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
/// What is left in the patch is what Kubernetes shows of one whose result does not fit its type: directives
/// that have been carried out are gone from it, with the lists that they were about.
///
/// What the patch says about fields that the type does not have is merged too; decoding the result
/// finds them. The work is linear in the size of both but for sorting.
///
/// # Errors
///
/// When a directive is malformed, a merged list's item has no merge key, or something is merged into
/// a field that is not there.
pub fn merge(object: Value, patch: &mut Value, of: &'static Type) -> Result<Value, PatchError> {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            merge_map(object, patch, Schema::Object(of)).map(Value::Object)
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
    patch: &mut Map<String, Value>,
    schema: Schema,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch.clone())
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(PatchError::unknown_directive(directive, patch)),
        };
    }
    retain_keys(&mut original, patch)?;
    order::set_element_order(&mut original, patch, schema)?;

    for (key, value) in patch.iter_mut() {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            Some(rest) => match rest.strip_prefix('/') {
                Some(key) => (key, true),
                None => return Err(PatchError::BadPrimitiveList),
            },
            None => (key.as_str(), false),
        };
        if value.is_null() {
            original.remove(key);
            continue;
        }
        let same_type = original.get(key).is_some_and(|there| same_type(there, value));
        if !same_type {
            if !deletes {
                discard_nulls(value);
                set(&mut original, key, value);
            }
            continue;
        }
        let merged = match (original.remove(key), value) {
            (Some(Value::Object(there)), Value::Object(value)) => {
                let found = schema.lookup(key)?;
                if found.replaces() {
                    Value::Object(value.clone())
                } else {
                    Value::Object(merge_map(there, value, found.schema)?)
                }
            }
            (Some(Value::Array(there)), Value::Array(value)) => {
                let found = schema.lookup_list(key)?;
                Value::Array(lists::merge(there, value, &found, deletes)?)
            }
            (_, value) => value.clone(),
        };
        original.insert(key.to_owned(), merged);
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
fn set(original: &mut Map<String, Value>, key: &str, value: &mut Value) {
    match remove_directives(value) {
        true => original.insert(key.to_owned(), value.clone()),
        false => original.remove(key),
    };
}

/// Takes nulls in objects out, since they mean absence.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Takes objects with a `$patch` out, and says whether the value itself is to be kept.
fn remove_directives(value: &mut Value) -> bool {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return false,
        Value::Object(map) => map.retain(|_, value| remove_directives(value)),
        Value::Array(items) => items.retain_mut(remove_directives),
        _ => {}
    }
    true
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
