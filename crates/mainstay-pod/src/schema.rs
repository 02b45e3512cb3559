//! Every field of a Pod, its type, and the walk that holds a manifest against them.

mod check;
mod hint;

pub(crate) use check::check;
pub(crate) use mainstay_schema::types::{Shape, Type};

use crate::object::ObjectKind;

/// The schema of a Pod.
pub(crate) fn pod() -> &'static Type {
    mainstay_schema::of("", "v1", "Pod").expect("the table has all kinds that mainstay knows")
}

/// The schema of a ConfigMap or a Secret.
pub(crate) fn object(kind: ObjectKind) -> &'static Type {
    mainstay_schema::of("", "v1", kind.as_str()).expect("as above")
}

/// `a string`, `a list`.
const fn describe(shape: Shape) -> &'static str {
    match shape {
        Shape::String => "a string",
        Shape::Bool => "true or false",
        Shape::Int32 | Shape::Int64 => "an integer",
        Shape::Bytes => "bytes in base64",
        Shape::Quantity => "a quantity such as 500m or 64Mi",
        Shape::IntOrString => "an integer or a string",
        Shape::Time | Shape::MicroTime => "a time such as 2026-01-02T15:04:05Z",
        Shape::Any => "anything",
        Shape::Object(_) => "an object",
        Shape::List(_) => "a list",
        Shape::Map(_) => "an object of names and values",
    }
}
