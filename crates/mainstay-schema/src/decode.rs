//! What Go's decoder makes of an object: type mismatches, unknown and duplicate fields in its words,
//! and the object as Kubernetes would write it again.
//!
//! What is decoded is in the form that a real server gives back: fields that are nowhere in the type
//! are gone, so are nulls and empty values where Go leaves them out, others are there though they are
//! empty (`resources: {}`), times are in UTC, quantities canonical. Defaults are somebody else's.
//!
//! Sources: `sigs.k8s.io/json`, `staging/src/k8s.io/apimachinery/pkg/runtime/converter.go`.

pub(crate) mod base64;
mod empty;
mod scalar;
mod seed;
mod time;

use serde::de::DeserializeSeed as _;
use serde_json::Value;
use thiserror::Error;

use self::seed::{Anything, Seed};
use crate::go;
use crate::types::{Shape, Type};

/// Values in one object, in all its lists and maps; more are refused, since each takes memory out of
/// proportion to its text.
pub const MAX_VALUES: usize = 250_000;

/// Problems that are told; Go's decoder tells as many.
const MAX_PROBLEMS: usize = 100;

/// Gives the canonical form of a quantity, or `None` if it is none.
///
/// It gets `1024Ki` and gives `1Mi`.
pub type Quantities = fn(&str) -> Option<String>;

/// An object and what a strict decoder says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Without unknown fields; the last of duplicate ones.
    pub object: Value,
    /// `unknown field "spec.foo"`, `duplicate field "metadata.name"`: at most 100, each once.
    pub problems: Vec<String>,
}

/// Why something is no object of its type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// It has a value of the wrong type; the text is that of Go.
    #[error("{0}")]
    Type(String),
    /// It has too many values.
    #[error("the object has more than {MAX_VALUES} values")]
    TooLarge,
}

/// Decodes JSON.
///
/// # Errors
///
/// When it is not JSON or a value is of the wrong type. The text for the latter is like `json: cannot
/// unmarshal number into Go struct field Container.spec.containers.image of type string`.
pub fn from_slice(
    bytes: &[u8],
    of: &'static Type,
    quantities: Quantities,
) -> Result<Decoded, DecodeError> {
    let mut walk = Walk::new(quantities, Wording::Json);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = walk.top(of).deserialize(&mut json);
    let value = value.and_then(|value| json.end().map(|()| value));
    walk.finish(value)
}

/// Decodes what has been read already, of YAML for instance. Texts are those of [`from_slice`].
///
/// # Errors
///
/// When a value is of the wrong type.
pub fn from_value(
    value: Value,
    of: &'static Type,
    quantities: Quantities,
) -> Result<Decoded, DecodeError> {
    let mut walk = Walk::new(quantities, Wording::Json);
    let value = walk.top(of).deserialize(value);
    walk.finish(value)
}

/// Decodes the result of a strategic merge patch or of an apply, for which Kubernetes has another
/// decoder with other texts: `cannot restore slice from string`. The problems are sorted.
///
/// # Errors
///
/// When a value is of the wrong type.
pub fn from_patched(
    value: Value,
    of: &'static Type,
    quantities: Quantities,
) -> Result<Decoded, DecodeError> {
    let mut walk = Walk::new(quantities, Wording::Converter);
    let value = walk.top(of).deserialize(value);
    let mut decoded = walk.finish(value)?;
    decoded.problems.sort();
    Ok(decoded)
}

/// Reads JSON as it is, a patch for instance, and says which fields are in it twice.
///
/// # Errors
///
/// When it is not JSON.
pub fn json(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let mut walk = Walk::new(|text| Some(text.to_owned()), Wording::Json);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Anything { walk: &mut walk, strict: true }.deserialize(&mut json);
    let value = value.and_then(|value| json.end().map(|()| value));
    let Decoded { object, problems } = walk.finish(value)?;
    Ok((object, problems))
}

/// The object that nobody has set anything in: with the empty values that Kubernetes writes.
#[must_use]
pub fn zero(of: &'static Type) -> Value {
    empty::zero(Shape::Object(of))
}

/// Which decoder's texts are used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wording {
    Json,
    Converter,
}

/// Where the decoder is, and what it found.
struct Walk {
    quantities: Quantities,
    wording: Wording,
    /// `spec.containers[0]`, for problems.
    path: String,
    /// Field names and embedded structs, for errors.
    fields: Vec<&'static str>,
    /// The Go name of the struct that holds the innermost field.
    holder: &'static str,
    problems: Vec<String>,
    /// The first error that did not end the walk.
    first: Option<String>,
    /// The error that did.
    last: Option<DecodeError>,
    values: usize,
}

// === impl Walk ===

impl Walk {
    fn new(quantities: Quantities, wording: Wording) -> Self {
        Self {
            quantities,
            wording,
            path: String::new(),
            fields: Vec::new(),
            holder: "",
            problems: Vec::new(),
            first: None,
            last: None,
            values: 0,
        }
    }

    fn top(&mut self, of: &'static Type) -> Seed<'_> {
        Seed { walk: self, shape: Shape::Object(of), go: "" }
    }

    fn finish(self, value: Result<Value, serde_json::Error>) -> Result<Decoded, DecodeError> {
        if let Some(error) = self.last {
            return Err(error);
        }
        let object = value.map_err(|error| {
            DecodeError::Syntax(match error.is_eof() {
                true => "unexpected end of JSON input".to_owned(),
                false => error.to_string(),
            })
        })?;
        match self.first {
            Some(text) => Err(DecodeError::Type(text)),
            None => Ok(Decoded { object, problems: self.problems }),
        }
    }

    /// Counts a value.
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        if self.values <= MAX_VALUES {
            return Ok(());
        }
        self.last = Some(DecodeError::TooLarge);
        Err(E::custom("too large"))
    }

    /// An error that ends the walk.
    fn stop<E: serde::de::Error>(&mut self, text: String) -> E {
        self.last = Some(DecodeError::Type(text));
        E::custom("stopped")
    }

    /// Remembers that a value does not fit, unless an earlier one did not.
    fn mismatch<E: serde::de::Error>(
        &mut self,
        got: &str,
        shape: Shape,
        go: &str,
    ) -> Result<(), E> {
        if self.wording == Wording::Converter {
            let text = scalar::converter_text(got, shape, go);
            return Err(self.stop(text));
        }
        if self.first.is_none() {
            self.first = Some(self.cannot_unmarshal(got, shape, go));
        }
        Ok(())
    }

    fn cannot_unmarshal(&self, got: &str, shape: Shape, go: &str) -> String {
        let named = if let (Shape::Object(of), "") = (shape, go) {
            format!("v1.{}", of.go_name())
        } else {
            go.to_owned()
        };
        if self.fields.is_empty() {
            return format!("json: cannot unmarshal {got} into Go value of type {named}");
        }
        let (holder, path) = (self.holder, self.fields.join("."));
        format!("json: cannot unmarshal {got} into Go struct field {holder}.{path} of type {named}")
    }

    fn problem(&mut self, what: &str, field: &str) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let path = match self.path.as_str() {
            "" => field.to_owned(),
            path => format!("{path}.{field}"),
        };
        let text = match self.wording {
            Wording::Json => format!("{what} field {}", go::quote(&path)),
            Wording::Converter => format!("{what} field \"{path}\""),
        };
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    /// Goes one step down the path, does something there, and comes back.
    fn within<T>(&mut self, step: Step<'_>, inside: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        match step {
            Step::Key(key) => {
                if length > 0 {
                    self.path.push('.');
                }
                self.path.push_str(key);
            }
            Step::Index(at) => self.path.push_str(&format!("[{at}]")),
        }
        let result = inside(self);
        self.path.truncate(length);
        result
    }
}

/// A step down the path of problems.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

#[cfg(test)]
mod tests;
