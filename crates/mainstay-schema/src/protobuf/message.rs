//! The walk: each message is held against its type in the table.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::ProtobufError;
use super::numbers::NUMBERS;
use super::wire::{LENGTH, Reader, Tag, low_half};
use crate::decode::{self, MAX_VALUES, base64};
use crate::types::{Field, Shape, Type};

type Result<T> = std::result::Result<T, ProtobufError>;

/// How many values there have been. Messages are nested no deeper than types are in the table, where no
/// type is within itself.
#[derive(Default)]
pub(super) struct Walk {
    values: usize,
}

/// What a number means in a message.
enum Meaning {
    Field(&'static Field),
    /// A message whose fields JSON has in the object itself.
    Inline(u8),
    Unknown,
}

// === impl Walk ===

impl Walk {
    /// An object with those fields that are in a message, also if they are empty.
    pub(super) fn object(&mut self, bytes: &[u8], of: &'static Type) -> Result<Map<String, Value>> {
        let mut object = Map::new();
        self.message(bytes, of, 0, &mut object)?;
        Ok(object)
    }

    /// Puts the fields of a message in an object. `within` is the number of the message if its fields
    /// are those of an object around it, else 0.
    fn message(
        &mut self,
        bytes: &[u8],
        of: &'static Type,
        within: u8,
        object: &mut Map<String, Value>,
    ) -> Result<()> {
        let (first, fields) = (of.first(), of.fields());
        let numbers = NUMBERS.get(first..first + fields.len()).unwrap_or_default();
        let mut reader = Reader::new(bytes);
        while let Some(tag) = reader.tag(of.go_name())? {
            match meaning(fields, numbers, within, tag.number) {
                Meaning::Field(field) => self.field(&mut reader, tag, field, object)?,
                Meaning::Inline(number) => {
                    self.count(1)?;
                    let inner = reader.bytes(tag, of.go_name())?;
                    self.message(inner, of, number, object)?;
                }
                Meaning::Unknown => reader.skip(tag)?,
            }
        }
        Ok(())
    }

    /// One occurrence of a field: lists and maps get one more item, objects become one with what was there
    /// before, the last of other values stays.
    fn field(
        &mut self,
        reader: &mut Reader<'_>,
        tag: Tag,
        field: &'static Field,
        object: &mut Map<String, Value>,
    ) -> Result<()> {
        let name = field.name();
        match (field.shape(), object.get_mut(name)) {
            (Shape::List(item), known) => {
                let mut items = Vec::new();
                self.items(reader, tag, name, item.shape(), &mut items)?;
                match known {
                    Some(Value::Array(list)) => list.append(&mut items),
                    _ => _ = object.insert(name.to_owned(), Value::Array(items)),
                }
            }
            (Shape::Map(_), Some(Value::Object(map))) => {
                if let Value::Object(entry) = self.value(reader, tag, name, field.shape())? {
                    map.extend(entry);
                }
            }
            (Shape::Object(of), Some(Value::Object(object))) => {
                self.count(1)?;
                self.message(reader.bytes(tag, name)?, of, 0, object)?;
            }
            (shape, _) => {
                let value = self.value(reader, tag, name, shape)?;
                object.insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    /// One item of a list, or as many as there are in one piece.
    fn items(
        &mut self,
        reader: &mut Reader<'_>,
        tag: Tag,
        name: &'static str,
        shape: Shape,
        items: &mut Vec<Value>,
    ) -> Result<()> {
        let packed = matches!(shape, Shape::Bool | Shape::Int32 | Shape::Int64);
        if !packed || tag.wire_type != LENGTH {
            items.push(self.value(reader, tag, name, shape)?);
            return Ok(());
        }
        let mut piece = Reader::new(reader.bytes(tag, name)?);
        while !piece.is_empty() {
            self.count(1)?;
            items.push(integer(piece.varint()?, shape));
        }
        Ok(())
    }

    /// One value; of a map, an object with one entry.
    fn value(
        &mut self,
        reader: &mut Reader<'_>,
        tag: Tag,
        name: &'static str,
        shape: Shape,
    ) -> Result<Value> {
        self.count(1)?;
        Ok(match shape {
            Shape::String => Value::String(reader.text(tag, name)?),
            Shape::Bool | Shape::Int32 | Shape::Int64 => integer(reader.integer(tag, name)?, shape),
            Shape::Bytes => Value::String(base64::encode(reader.bytes(tag, name)?)),
            Shape::Quantity => quantity(reader.bytes(tag, name)?)?,
            Shape::IntOrString => int_or_string(reader.bytes(tag, name)?, name)?,
            Shape::Time | Shape::MicroTime => time(reader.bytes(tag, name)?, name, shape)?,
            Shape::Any => self.anything(reader.bytes(tag, name)?, name)?,
            Shape::Object(of) => Value::Object(self.object(reader.bytes(tag, name)?, of)?),
            Shape::Map(item) => self.entry(reader.bytes(tag, name)?, name, item.shape())?,
            Shape::List(item) => {
                // Where no list can be, in a map, there is a message that has nothing else.
                let mut inner = Reader::new(reader.bytes(tag, name)?);
                let mut items = Vec::new();
                while let Some(tag) = inner.tag("Items")? {
                    match tag.number {
                        1 => self.items(&mut inner, tag, name, item.shape(), &mut items)?,
                        _ => inner.skip(tag)?,
                    }
                }
                Value::Array(items)
            }
        })
    }

    /// An entry of a map. What it lacks is null, for which there is the shape's empty value later.
    fn entry(&mut self, bytes: &[u8], name: &'static str, shape: Shape) -> Result<Value> {
        let mut reader = Reader::new(bytes);
        let (mut key, mut value) = (String::new(), Value::Null);
        while let Some(tag) = reader.tag("Entry")? {
            match tag.number {
                1 => key = reader.text(tag, name)?,
                2 => value = self.value(&mut reader, tag, name, shape)?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(Value::Object(Map::from_iter([(key, value)])))
    }

    /// JSON within protobuf: `runtime.RawExtension` or `metav1.FieldsV1`.
    fn anything(&mut self, bytes: &[u8], name: &'static str) -> Result<Value> {
        let mut reader = Reader::new(bytes);
        let mut raw: &[u8] = &[];
        while let Some(tag) = reader.tag("RawExtension")? {
            match tag.number {
                1 => raw = reader.bytes(tag, name)?,
                _ => reader.skip(tag)?,
            }
        }
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        let (value, _) = decode::json(raw)
            .map_err(|why| ProtobufError::Value { field: name, why: why.to_string() })?;
        self.count(size(&value))?;
        Ok(value)
    }

    fn count(&mut self, values: usize) -> Result<()> {
        self.values += values;
        if self.values > MAX_VALUES { Err(ProtobufError::TooLarge) } else { Ok(()) }
    }
}

fn meaning(fields: &'static [Field], numbers: &[u16], within: u8, number: i32) -> Meaning {
    let Ok(number) = u8::try_from(number) else { return Meaning::Unknown };
    let wanted = u16::from_be_bytes([within, number]);
    if let Some(at) = numbers.iter().position(|known| *known == wanted)
        && let Some(field) = fields.get(at)
    {
        return Meaning::Field(field);
    }
    let around = |known: &u16| known.to_be_bytes()[0];
    if within == 0 && numbers.iter().any(|known| around(known) == number) {
        return Meaning::Inline(number);
    }
    Meaning::Unknown
}

fn integer(value: u64, shape: Shape) -> Value {
    match shape {
        Shape::Bool => (value != 0).into(),
        Shape::Int32 => low_half(value).into(),
        _ => i64::from_le_bytes(value.to_le_bytes()).into(),
    }
}

/// `resource.Quantity`; the text is looked at later.
fn quantity(bytes: &[u8]) -> Result<Value> {
    let mut reader = Reader::new(bytes);
    let mut text = "0".to_owned();
    while let Some(tag) = reader.tag("Quantity")? {
        match tag.number {
            1 => text = reader.text(tag, "string")?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(text.into())
}

/// `intstr.IntOrString`.
fn int_or_string(bytes: &[u8], name: &'static str) -> Result<Value> {
    let mut reader = Reader::new(bytes);
    let (mut kind, mut number, mut text) = (0, 0, String::new());
    while let Some(tag) = reader.tag("IntOrString")? {
        match tag.number {
            1 => kind = reader.integer(tag, "type")?,
            2 => number = low_half(reader.integer(tag, "intVal")?),
            3 => text = reader.text(tag, "strVal")?,
            _ => reader.skip(tag)?,
        }
    }
    match kind {
        0 => Ok(number.into()),
        1 => Ok(text.into()),
        _ => {
            let why = "impossible IntOrString.Type".to_owned();
            Err(ProtobufError::Value { field: name, why })
        }
    }
}

/// `metav1.Time` and `metav1.MicroTime`. Nothing at all stands for no time.
fn time(bytes: &[u8], name: &'static str, shape: Shape) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let mut reader = Reader::new(bytes);
    let (mut seconds, mut nanoseconds) = (0, 0);
    while let Some(tag) = reader.tag("Timestamp")? {
        match tag.number {
            1 => seconds = i64::from_le_bytes(reader.integer(tag, "seconds")?.to_le_bytes()),
            2 => nanoseconds = low_half(reader.integer(tag, "nanos")?),
            _ => reader.skip(tag)?,
        }
    }
    let (fraction, layout) = match shape {
        Shape::MicroTime => (i64::from(nanoseconds / 1000), "%Y-%m-%dT%H:%M:%S.%6fZ"),
        _ => (0, "%Y-%m-%dT%H:%M:%SZ"),
    };
    let time = Timestamp::from_second(seconds)
        .and_then(|time| time.checked_add(SignedDuration::from_micros(fraction)));
    match time {
        Ok(time) if time.as_second() >= YEAR_0 => Ok(time.strftime(layout).to_string().into()),
        _ => {
            let why = "year outside of range [0,9999]".to_owned();
            Err(ProtobufError::Value { field: name, why })
        }
    }
}

/// The first second of the year 0.
const YEAR_0: i64 = -62_167_219_200;

/// A value and all those in it.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 1,
        Value::Object(map) => map.values().map(size).sum::<usize>() + 1,
        _ => 1,
    }
}
