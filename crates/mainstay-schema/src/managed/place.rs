//! How the value at a place in an object merges.
//!
//! Source: `k8s.io/kube-openapi/pkg/schemaconv`, which makes this of the OpenAPI documents.

use serde_json::Value;

use super::set::{Element, Literal};
use crate::types::{Field, Item, Keys, ListType, Shape, Type};

/// A place in an object: what is there, and the field whose list and map types hold for it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    shape: Shape,
    field: Option<&'static Field>,
}

/// What is at a place.
#[derive(Clone, Copy)]
pub(super) enum Atom {
    Scalar(Scalar),
    /// One value, whatever it is.
    Leaf,
    /// An object with these fields, or a map whose values are at this place.
    Map {
        fields: Option<&'static Type>,
        values: Option<Place>,
        atomic: bool,
    },
    List {
        items: Place,
        by: ListType,
    },
}

/// What a scalar has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Numeric,
    Boolean,
    /// A string, number or bool.
    Untyped,
}

// === impl Place ===

impl Place {
    pub(super) fn root(of: &'static Type) -> Self {
        Self { shape: Shape::Object(of), field: None }
    }

    pub(super) fn atom(self) -> Atom {
        match self.shape {
            Shape::String | Shape::Bytes => Atom::Scalar(Scalar::String),
            Shape::Bool => Atom::Scalar(Scalar::Boolean),
            Shape::Int32 | Shape::Int64 => Atom::Scalar(Scalar::Numeric),
            Shape::Quantity | Shape::Time | Shape::MicroTime => Atom::Scalar(Scalar::Untyped),
            Shape::IntOrString | Shape::Any => Atom::Leaf,
            Shape::Object(of) => Atom::Map {
                fields: Some(of),
                values: None,
                atomic: of.is_atomic() || self.is_atomic(),
            },
            Shape::Map(item) => {
                Atom::Map { fields: None, values: Some(Self::item(item)), atomic: self.is_atomic() }
            }
            Shape::List(item) => Atom::List {
                items: Self::item(item),
                by: self.field.map_or(ListType::Atomic, Field::list_type),
            },
        }
    }

    /// A field's value; `None` where no such field belongs.
    pub(super) fn field(
        fields: Option<&'static Type>,
        values: Option<Self>,
        name: &str,
    ) -> Option<Self> {
        let known = fields.and_then(|of| of.field(name));
        known.map(|field| Self { shape: field.shape(), field: Some(field) }).or(values)
    }

    fn item(item: Item) -> Self {
        Self { shape: item.shape(), field: None }
    }

    fn is_atomic(self) -> bool {
        self.field.is_some_and(Field::is_atomic)
    }

    /// What tells an item of a list at this place from others.
    pub(super) fn element(self, item: &Value, by: ListType) -> Result<Element, String> {
        match by {
            ListType::Atomic => Err("invalid indexing of non-associative list".to_owned()),
            ListType::Set => match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                Value::Array(_) => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null"
                        .to_owned())
                }
                value => Ok(Element::Value(Literal::new(value.clone()))),
            },
            ListType::Map(keys) => self.key(item, keys),
        }
    }

    fn key(self, item: &Value, keys: Keys) -> Result<Element, String> {
        let map = match item {
            Value::Object(map) => map,
            Value::Null => {
                return Err("associative list with keys may not have a null element".to_owned());
            }
            _ => {
                return Err("associative list with keys may not have non-map elements".to_owned());
            }
        };
        let Shape::Object(of) = self.shape else {
            return Err("associative list may not have non-map types".to_owned());
        };
        let mut fields = Vec::new();
        for name in keys.iter() {
            let value = map
                .get(name)
                .cloned()
                .or_else(|| serde_json::from_str(of.field(name)?.default()?).ok());
            if let Some(value) = value {
                fields.push((name.to_owned(), Literal::new(value)));
            }
        }
        if fields.is_empty() {
            let names: Vec<String> = keys.iter().map(crate::go::quote).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and \
                 doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        fields.sort();
        Ok(Element::Key(fields))
    }
}
