//! Objects as clients written in Go send them: protobuf.
//!
//! Only decoding is here; such clients take JSON for an answer. What is decoded is the object that the
//! same client would have sent as JSON, with the empty values that Go writes in protobuf and leaves out
//! in JSON; [`decode::from_value`](crate::decode::from_value) takes those away, as it does in JSON.
//!
//! Sources: `staging/src/k8s.io/apimachinery/pkg/runtime/serializer/protobuf`, and the `Unmarshal`
//! methods in `generated.pb.go` beside each `generated.proto`, whose texts the errors have.

mod message;
#[rustfmt::skip]
mod numbers;
mod wire;

use serde_json::Value;
use thiserror::Error;

use self::message::Walk;
use self::wire::Reader;
use crate::decode::MAX_VALUES;
use crate::types::Type;

/// What every object in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";

/// An object that says what it is and is not decoded yet: `runtime.Unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// Such as `apps/v1`; empty if it does not say.
    pub api_version: String,
    /// Such as `Deployment`; empty if it does not say.
    pub kind: String,
    /// Its fields.
    raw: &'a [u8],
}

/// Why something is no object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtobufError {
    /// There is nothing.
    #[error("empty data")]
    Empty,
    /// It begins with something else.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    /// There is nothing but what every object begins with.
    #[error("empty body")]
    NoBody,
    /// It ends in the middle of a value.
    #[error("unexpected EOF")]
    UnexpectedEnd,
    /// An integer has more bits than any type.
    #[error("proto: integer overflow")]
    Overflow,
    /// A length that is none.
    #[error("proto: negative length found during unmarshaling")]
    NegativeLength,
    /// A group ends where a field should begin.
    #[error("proto: {0}: wiretype end group for non-group")]
    EndGroup(&'static str),
    /// No value is written in this way.
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    /// No field has this number.
    #[error("proto: {message}: illegal tag {number} (wire type {tag})")]
    IllegalTag {
        /// The type in Go.
        message: &'static str,
        /// The number.
        number: i32,
        /// The number and the wire type as they are written.
        tag: u64,
    },
    /// A known field is written as values of another type are.
    #[error("proto: wrong wireType = {wire_type} for field {field}")]
    WrongWireType {
        /// How it is written.
        wire_type: u8,
        /// The field, as Go calls most of them.
        field: String,
    },
    /// A value that JSON has no text for.
    #[error("{field}: {why}")]
    Value {
        /// The field's name in JSON.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// It has too many values.
    #[error("the object has more than {MAX_VALUES} values")]
    TooLarge,
}

/// Reads what an object says that it is.
///
/// # Errors
///
/// When it is not in protobuf.
pub fn unknown(bytes: &[u8]) -> Result<Unknown<'_>, ProtobufError> {
    if bytes.is_empty() {
        return Err(ProtobufError::Empty);
    }
    let body = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    if body.is_empty() {
        return Err(ProtobufError::NoBody);
    }
    let mut unknown = Unknown { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut fields = Reader::new(body);
    while let Some(tag) = fields.tag("Unknown")? {
        match tag.number {
            1 => {
                let mut fields = Reader::new(fields.bytes(tag, "typeMeta")?);
                while let Some(tag) = fields.tag("TypeMeta")? {
                    match tag.number {
                        1 => unknown.api_version = fields.text(tag, "APIVersion")?,
                        2 => unknown.kind = fields.text(tag, "kind")?,
                        _ => fields.skip(tag)?,
                    }
                }
            }
            2 => unknown.raw = fields.bytes(tag, "raw")?,
            // Nobody sets them, and nobody looks at them.
            3 => _ = fields.bytes(tag, "contentEncoding")?,
            4 => _ = fields.bytes(tag, "contentType")?,
            _ => fields.skip(tag)?,
        }
    }
    Ok(unknown)
}

impl Unknown<'_> {
    /// Decodes it as an object of a type. Fields that the type does not have are passed over.
    ///
    /// # Errors
    ///
    /// When it is no object of this type.
    pub fn object(&self, of: &'static Type) -> Result<Value, ProtobufError> {
        let mut object = Walk::default().object(self.raw, of)?;
        for (key, text) in [("apiVersion", &self.api_version), ("kind", &self.kind)] {
            if !text.is_empty() {
                object.insert(key.to_owned(), text.as_str().into());
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
