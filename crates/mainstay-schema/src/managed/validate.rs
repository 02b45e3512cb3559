//! Whether an object is what its type says, and the items of its lists can be told apart.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/typed/validate.go`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::place::{Atom, Place, Scalar};
use super::set::{Element, Path, display};
use crate::go;
use crate::types::{ListType, Type};

/// No more is told; a configuration with more is wrong in every one of its items.
const MAX_ERRORS: usize = 100;

/// Everything that is wrong, as one text, or nothing.
pub(super) fn validate(
    object: &Value,
    of: &'static Type,
    duplicates: Duplicates,
) -> Result<(), String> {
    let mut walk = Walk { path: Vec::new(), errors: Vec::new(), duplicates };
    walk.value(object, Place::root(of));
    match walk.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

/// Whether several items of a list may have the same key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Duplicates {
    /// As in objects that were written before anything looked at it.
    Allowed,
    Refused,
}

struct Walk {
    path: Path,
    errors: Vec<String>,
    duplicates: Duplicates,
}

impl Walk {
    fn error(&mut self, text: &str) {
        if self.errors.len() < MAX_ERRORS {
            let path = display(&self.path);
            self.errors.push(if path.is_empty() {
                text.to_owned()
            } else {
                format!("{path}: {text}")
            });
        }
    }

    fn value(&mut self, value: &Value, place: Place) {
        match (place.atom(), value) {
            (Atom::Leaf, _) | (_, Value::Null) => {}
            (Atom::Scalar(scalar), _) => self.scalar(value, scalar),
            (Atom::Map { fields, values, .. }, Value::Object(map)) => {
                for (key, value) in map {
                    let place = Place::field(fields, values, key);
                    self.path.push(Element::field(key));
                    match place {
                        Some(place) => self.value(value, place),
                        None => self.error("field not declared in schema"),
                    }
                    self.path.pop();
                    // Kubernetes looks no further in this object.
                    if place.is_none() {
                        break;
                    }
                }
            }
            (Atom::List { items, by }, Value::Array(list)) => self.list(list, items, by),
            (Atom::Map { .. }, _) => {
                self.error(&format!("expected map, got &{{{}}}", go::display(value)));
            }
            (Atom::List { .. }, _) => {
                self.error(&format!("expected list, got &{{{}}}", go::display(value)));
            }
        }
    }

    fn list(&mut self, list: &[Value], items: Place, by: ListType) {
        let mut seen = BTreeSet::new();
        for (at, item) in list.iter().enumerate() {
            let element = if by == ListType::Atomic {
                Element::Index(i64::try_from(at).unwrap_or(i64::MAX))
            } else {
                match items.element(item, by) {
                    Ok(element) => {
                        if self.duplicates == Duplicates::Refused && !seen.insert(element.clone()) {
                            self.error(&format!("duplicate entries for key {element}"));
                        }
                        element
                    }
                    Err(text) => return self.error(&format!("element {at}: {text}")),
                }
            };
            self.path.push(element);
            self.value(item, items);
            self.path.pop();
        }
    }

    fn scalar(&mut self, value: &Value, scalar: Scalar) {
        let plain = || format!("&{{{}}}", go::display(value));
        match (scalar, value) {
            (Scalar::String, Value::String(_))
            | (Scalar::Numeric, Value::Number(_))
            | (Scalar::Boolean, Value::Bool(_))
            | (Scalar::Untyped, Value::String(_) | Value::Number(_) | Value::Bool(_)) => {}
            (Scalar::String, _) => self.error(&format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go::syntax(value)
            )),
            (Scalar::Numeric, _) => self
                .error(&format!("expected numeric (int or float), got {}", go::type_name(value))),
            (Scalar::Boolean, _) => self.error(&format!("expected boolean, got {}", plain())),
            (Scalar::Untyped, _) => self.error(&format!("expected any scalar, got {}", plain())),
        }
    }
}
