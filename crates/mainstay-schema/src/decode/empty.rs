//! Which empty values Kubernetes writes: what Go's `omitempty` and `omitzero` make of each type.
//!
//! Stored objects go through protobuf, which does not tell an empty list from none; where Go does not
//! leave it out it becomes null.

use serde_json::{Map, Value};

use crate::types::{Field, Omit, Shape, Type};

/// A field's value as it is written, or `None` if it is left out. It comes as null or not at all when
/// Go did not set it.
pub(super) fn written(field: &Field, value: Option<Value>) -> Option<Value> {
    let value = value.filter(|value| !value.is_null());
    if field.is_pointer() {
        return value.or_else(|| (field.omit() == Omit::Never).then_some(Value::Null));
    }
    let shape = field.shape();
    let value = match (value, shape) {
        (Some(value), _) => value,
        // Unlike in a list or a map, none differs from empty.
        (None, Shape::Bytes) => Value::Null,
        (None, shape) => zero(shape),
    };
    if field.name() == "managedFields" && value.is_array() {
        // An empty list asks for them to be forgotten; who keeps track of them takes it away.
        return Some(value);
    }
    match field.omit() {
        Omit::Never => Some(match value {
            Value::Array(items) if items.is_empty() => Value::Null,
            Value::Object(map) if map.is_empty() && matches!(shape, Shape::Map(_)) => Value::Null,
            value => value,
        }),
        Omit::Empty => (!is_empty(shape, &value)).then_some(value),
        Omit::Zero => (!is_empty(shape, &value) && !value.is_null()).then_some(value),
    }
}

/// What Go writes for a value that was never set.
pub(super) fn zero(shape: Shape) -> Value {
    match shape {
        Shape::String | Shape::Bytes => "".into(),
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => 0.into(),
        Shape::Quantity => "0".into(),
        Shape::Time | Shape::MicroTime | Shape::Any | Shape::List(_) | Shape::Map(_) => Value::Null,
        Shape::Object(of) => zero_object(of),
    }
}

fn zero_object(of: &Type) -> Value {
    let fields = of.fields().iter();
    let object: Map<String, Value> =
        fields.filter_map(|field| Some((field.name().to_owned(), written(field, None)?))).collect();
    Value::Object(object)
}

/// Whether `omitempty` leaves it out: never a struct, so neither times nor quantities.
fn is_empty(shape: Shape, value: &Value) -> bool {
    match shape {
        Shape::String => value.as_str().is_some_and(str::is_empty),
        Shape::Bytes => value.is_null() || value.as_str().is_some_and(str::is_empty),
        Shape::Bool => value == &Value::Bool(false),
        Shape::Int32 | Shape::Int64 => value.as_i64() == Some(0),
        Shape::List(_) => value.is_null() || value.as_array().is_some_and(Vec::is_empty),
        Shape::Map(_) => value.is_null() || value.as_object().is_some_and(Map::is_empty),
        Shape::Quantity
        | Shape::IntOrString
        | Shape::Time
        | Shape::MicroTime
        | Shape::Any
        | Shape::Object(_) => false,
    }
}
