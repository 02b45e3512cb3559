//! Values that are no lists and no objects, and what is said of values in the wrong place.

use serde::de::Error;
use serde_json::Value;

use super::{Walk, Wording, base64, time};
use crate::go;
use crate::types::Shape;

const BAD_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Holds a bool, number or string against its shape.
pub(super) fn read<E: Error>(
    walk: &mut Walk,
    shape: Shape,
    go: &str,
    value: Value,
) -> Result<Value, E> {
    let fits = match (shape, &value) {
        (Shape::String, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => true,
        (Shape::Int32, Value::Number(number)) => {
            number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
        }
        (Shape::Int64, Value::Number(number)) => number.is_i64(),
        (Shape::Bytes, Value::String(text)) => return bytes(walk, text),
        (Shape::Quantity, _) => return quantity(walk, &value),
        (Shape::IntOrString, Value::String(_)) => true,
        (Shape::IntOrString, Value::Number(number))
            if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) =>
        {
            true
        }
        (Shape::IntOrString, _) => return Err(nested(walk, &got(&value, shape), "int32")),
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let layout =
                if shape == Shape::Time { time::Layout::Seconds } else { time::Layout::Micro };
            return match time::canonical(text, layout) {
                Ok(Some(text)) => Ok(Value::String(text)),
                Ok(None) => Ok(Value::Null),
                Err(text) => Err(walk.stop(text)),
            };
        }
        (Shape::Time | Shape::MicroTime, _) => {
            return Err(nested(walk, &got(&value, Shape::String), "string"));
        }
        (Shape::Any, _) => true,
        _ => false,
    };
    if fits {
        return Ok(value);
    }
    if walk.wording == Wording::Converter
        && let Some(number) = converted(shape, &value)
    {
        return Ok(number);
    }
    let got = match walk.wording {
        Wording::Json => got(&value, shape),
        Wording::Converter => go::type_name(&value).to_owned(),
    };
    walk.mismatch(&got, shape, go)?;
    Ok(Value::Null)
}

/// A list or an object where none belongs.
pub(super) fn read_compound<E: Error>(
    walk: &mut Walk,
    shape: Shape,
    go: &str,
    got: &str,
) -> Result<Value, E> {
    match shape {
        // They read their own text, and it is not what they want.
        Shape::Quantity => return Err(walk.stop(BAD_QUANTITY.to_owned())),
        Shape::IntOrString => return Err(nested(walk, got, "int32")),
        Shape::Time | Shape::MicroTime => return Err(nested(walk, got, "string")),
        _ => {}
    }
    let got = match (walk.wording, got) {
        (Wording::Json, got) => got,
        (Wording::Converter, "array") => "slice",
        (Wording::Converter, _) => "map",
    };
    walk.mismatch(got, shape, go)?;
    Ok(Value::Null)
}

/// The converter's text for a value, of a type or kind in Go, in the wrong place.
pub(super) fn converter_text(got: &str, shape: Shape, go: &str) -> String {
    match shape {
        Shape::List(_) | Shape::Bytes => format!("cannot restore slice from {got}"),
        Shape::Map(_) => format!("cannot restore map from {got}"),
        Shape::Object(_) => format!("cannot restore struct from: {got}"),
        // Go can convert these, though not to what JSON means.
        Shape::String if got == "int64" => format!("cannot convert {got} to {go}"),
        Shape::Int32 | Shape::Int64 if got == "float64" => format!("cannot convert {got} to {go}"),
        Shape::String => "unrecognized type: string".to_owned(),
        Shape::Bool => "unrecognized type: bool".to_owned(),
        Shape::Int32 => "unrecognized type: int32".to_owned(),
        Shape::Int64 => "unrecognized type: int64".to_owned(),
        Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::Any => {
            format!("unrecognized type: {go}")
        }
    }
}

/// Integers that the converter takes though they are too large or written with a point.
fn converted(shape: Shape, value: &Value) -> Option<Value> {
    let whole = match value.as_number()?.as_i64() {
        Some(number) => number,
        None => {
            let number = value.as_f64().filter(|number| number.trunc() == *number)?;
            #[expect(clippy::cast_possible_truncation, reason = "as in Go; it saturates here")]
            let number = number as i64;
            number
        }
    };
    match shape {
        #[expect(clippy::cast_possible_truncation, reason = "Go cuts it off")]
        Shape::Int32 => Some((whole as i32).into()),
        Shape::Int64 => Some(whole.into()),
        _ => None,
    }
}

fn quantity<E: Error>(walk: &mut Walk, value: &Value) -> Result<Value, E> {
    let canonical = match value {
        Value::String(text) => (walk.quantities)(text.trim()),
        Value::Number(number) => (walk.quantities)(&number.to_string()),
        _ => None,
    };
    match canonical {
        Some(text) => Ok(Value::String(text)),
        None => Err(walk.stop(BAD_QUANTITY.to_owned())),
    }
}

fn bytes<E: Error>(walk: &mut Walk, text: &str) -> Result<Value, E> {
    match base64::canonical(text) {
        Ok(text) => Ok(Value::String(text)),
        Err(at) if walk.wording == Wording::Converter => {
            Err(walk
                .stop(format!("error decoding from json: illegal base64 data at input byte {at}")))
        }
        Err(at) => {
            let text = format!("illegal base64 data at input byte {at}");
            walk.first.get_or_insert(text);
            Ok(Value::Null)
        }
    }
}

/// A type with a decoder of its own, whose error ends everything.
fn nested<E: Error>(walk: &mut Walk, got: &str, go: &str) -> E {
    let text = match walk.wording {
        Wording::Json => walk.cannot_unmarshal(got, Shape::String, go),
        Wording::Converter => format!("json: cannot unmarshal {got} into Go value of type {go}"),
    };
    walk.stop(text)
}

/// `number 1.5` where an integer is wanted, else `number`.
fn got(value: &Value, shape: Shape) -> String {
    match (value, shape) {
        (Value::Bool(_), _) => "bool".to_owned(),
        (Value::Number(number), Shape::Int32 | Shape::Int64 | Shape::IntOrString) => {
            format!("number {number}")
        }
        (Value::Number(_), _) => "number".to_owned(),
        (Value::Array(_), _) => "array".to_owned(),
        (Value::Object(_), _) => "object".to_owned(),
        (Value::String(_) | Value::Null, _) => "string".to_owned(),
    }
}
