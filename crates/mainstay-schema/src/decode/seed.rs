//! The walk: JSON comes by piece by piece and is held against the type at once.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Step, Walk, Wording, empty, scalar};
use crate::types::{Field, Item, Shape, Type};

/// A value that should have a shape. Null stands for what Go does not set.
pub(super) struct Seed<'w> {
    pub(super) walk: &'w mut Walk,
    pub(super) shape: Shape,
    /// The type in Go; empty at the top.
    pub(super) go: &'w str,
}

/// Any value.
pub(super) struct Anything<'w> {
    pub(super) walk: &'w mut Walk,
    /// Whether duplicate keys are told.
    pub(super) strict: bool,
}

/// A key.
struct Key;

// === impl Seed ===

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.shape {
            Shape::Any => Anything { walk: self.walk, strict: false }.deserialize(deserializer),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        scalar::read(self.walk, self.shape, self.go, Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        scalar::read(self.walk, self.shape, self.go, value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        scalar::read(self.walk, self.shape, self.go, value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).map_or(Value::Null, Value::Number);
        scalar::read(self.walk, self.shape, self.go, number)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        scalar::read(self.walk, self.shape, self.go, Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let Shape::List(item) = self.shape else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return scalar::read_compound(self.walk, self.shape, self.go, "array");
        };
        let go = element(self.go);
        let mut list = Vec::new();
        loop {
            self.walk.count()?;
            let next = self.walk.within(Step::Index(list.len()), |walk| {
                items.next_element_seed(Seed { walk, shape: item.shape(), go })
            });
            match next? {
                Some(Value::Null) => list.push(empty::zero(item.shape())),
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
        match self.shape {
            Shape::Object(of) => object(self.walk, of, entries),
            Shape::Map(item) => map(self.walk, item, element(self.go), entries),
            _ => {
                skip(entries)?;
                scalar::read_compound(self.walk, self.shape, self.go, "object")
            }
        }
    }
}

fn object<'de, A: MapAccess<'de>>(
    walk: &mut Walk,
    of: &'static Type,
    mut entries: A,
) -> Result<Value, A::Error> {
    let fields = of.fields();
    let mut found: Vec<Option<Value>> = Vec::new();
    found.resize_with(fields.len(), || None);
    walk.count()?;
    while let Some(key) = entries.next_key_seed(Key)? {
        let known = fields.binary_search_by(|field| field.name().cmp(&key)).ok();
        let Some((field, place)) = known.and_then(|at| Some((fields.get(at)?, found.get_mut(at)?)))
        else {
            walk.problem("unknown", &key);
            entries.next_value::<IgnoredAny>()?;
            continue;
        };
        if place.is_some() {
            walk.problem("duplicate", &key);
        }
        walk.count()?;
        *place = Some(field_value(walk, of, field, &mut entries)?);
    }
    let mut object = Map::new();
    for (field, value) in fields.iter().zip(found) {
        if let Some(value) = empty::written(field, value) {
            object.insert(field.name().to_owned(), value);
        }
    }
    Ok(Value::Object(object))
}

fn field_value<'de, A: MapAccess<'de>>(
    walk: &mut Walk,
    of: &'static Type,
    field: &'static Field,
    entries: &mut A,
) -> Result<Value, A::Error> {
    let (depth, holder) = (walk.fields.len(), walk.holder);
    if !field.embedded_in().is_empty() {
        walk.fields.push(field.embedded_in());
    }
    walk.fields.push(field.name());
    walk.holder = of.go_name();
    let value = walk.within(Step::Key(field.name()), |walk| {
        entries.next_value_seed(Seed { walk, shape: field.shape(), go: field.go_type() })
    });
    walk.fields.truncate(depth);
    walk.holder = holder;
    value
}

fn map<'de, A: MapAccess<'de>>(
    walk: &mut Walk,
    item: Item,
    go: &str,
    mut entries: A,
) -> Result<Value, A::Error> {
    let mut map = Map::new();
    walk.count()?;
    while let Some(key) = entries.next_key_seed(Key)? {
        walk.count()?;
        if map.contains_key(key.as_ref()) {
            walk.problem("duplicate", &key);
        }
        let value = walk.within(Step::Key(&key), |walk| {
            entries.next_value_seed(Seed { walk, shape: item.shape(), go })
        })?;
        let value = if value.is_null() { empty::zero(item.shape()) } else { value };
        map.insert(key.into_owned(), value);
    }
    Ok(Value::Object(map))
}

fn skip<'de, A: MapAccess<'de>>(mut entries: A) -> Result<(), A::Error> {
    while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// The type of what is in a list or a map: `v1.Container` of `[]v1.Container`.
fn element(go: &str) -> &str {
    match go {
        "v1.ResourceList" => "resource.Quantity",
        "v1.ExtraValue" => "string",
        _ => match go.strip_prefix("[]") {
            Some(element) => element,
            None => go.split_once(']').map_or(go, |(_, element)| element),
        },
    }
}

// === impl Anything ===

impl<'de> DeserializeSeed<'de> for Anything<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Anything<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        // Go's converter and its decoder of anything do not say where in a list they are.
        let Self { walk, strict } = self;
        let mut list = Vec::new();
        loop {
            walk.count()?;
            let next = walk.within(Step::Index(list.len()), |walk| {
                items.next_element_seed(Anything { walk, strict })
            });
            match next? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Self { walk, strict } = self;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            walk.count()?;
            if strict && walk.wording == Wording::Json && map.contains_key(key.as_ref()) {
                walk.problem("duplicate", &key);
            }
            let value = walk.within(Step::Key(&key), |walk| {
                entries.next_value_seed(Anything { walk, strict })
            })?;
            map.insert(key.into_owned(), value);
        }
        Ok(Value::Object(map))
    }
}

// === impl Key ===

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value))
    }
}
