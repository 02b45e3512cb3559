//! A manifest as a tree in which every key and every value knows where it stands in the file.

use std::fmt::Write as _;

use crate::path::{Segment, segments};

/// A file of this many bytes or more is refused, as the kubelet does.
pub const MAX_FILE_BYTES: usize = 10 * 1024 * 1024;

/// Levels of nesting, those that aliases bring included; a Pod needs about fifteen. It bounds every
/// recursive walk over a tree.
pub(crate) const MAX_DEPTH: usize = 100;

/// Values in one file once every alias has been replaced by what it stands for.
pub(crate) const MAX_NODES: usize = 200_000;

/// A range of bytes in the file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What JSON can say. Duplicate keys are still there, in the order of the file.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// The text of a JSON number, as written or as Kubernetes would write it after reading YAML.
    Number(Box<str>),
    String(Box<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
}

// === impl Span ===

impl Span {
    /// Offsets in a file always fit: larger files are refused before they are read.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let clamp = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: clamp(start), end: clamp(end.max(start)) }
    }
}

// === impl Node ===

impl Node {
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn entries_mut(&mut self) -> Option<&mut Vec<Entry>> {
        match &mut self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The value of a key; of the last one if it is there twice, as Kubernetes reads it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().rev().find(|entry| &*entry.key == key).map(|entry| &entry.node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let entries = self.entries_mut()?;
        entries.iter_mut().rev().find(|entry| &*entry.key == key).map(|entry| &mut entry.node)
    }

    pub(crate) fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::as_str)
    }

    /// Takes every entry with this key out of a map and returns the last.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        self.entries_mut()?.extract_if(.., |entry| &*entry.key == key).last()
    }

    pub(crate) const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// `{}`, `[]` or null.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Map(entries) => entries.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }

    /// What the value is, as a reader would say it: `the number 8080`, `a list`.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Number(text) => format!("the number {text}"),
            Value::String(text) if text.chars().count() <= 40 => format!("the string {text:?}"),
            Value::String(_) => "a string".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "an object".to_owned(),
        }
    }

    /// Where a field path leads: the text of a scalar, else the key that names the thing. A path that
    /// cannot be followed to its end leads to the last thing on it that exists.
    pub(crate) fn locate(&self, path: &str) -> Span {
        let mut place = head(self.span);
        let mut node = self;
        for segment in segments(path) {
            let found = match (segment, &node.value) {
                (Segment::Field(name) | Segment::Key(name), Value::Map(entries)) => {
                    let last = |same: fn(&str, &str) -> bool| {
                        entries.iter().rev().find(|entry| same(&entry.key, name))
                    };
                    last(|key, name| key == name)
                        .or_else(|| last(str::eq_ignore_ascii_case))
                        .map(|entry| (&entry.node, entry.key_span))
                }
                (Segment::Index(index), Value::List(items)) => {
                    items.get(index).map(|item| (item, head(item.span)))
                }
                (Segment::Index(index), Value::Map(entries)) => entries
                    .iter()
                    .rev()
                    .find(|entry| *entry.key == *index.to_string())
                    .map(|entry| (&entry.node, entry.key_span)),
                _ => None,
            };
            let Some((next, name_span)) = found else { return place };
            let scalar = !matches!(next.value, Value::Null | Value::List(_) | Value::Map(_));
            place = if scalar && next.span.start != next.span.end { next.span } else { name_span };
            node = next;
        }
        place
    }

    /// The tree as JSON, keys sorted, nothing between the tokens: the text that is hashed.
    ///
    /// It is written here, not by serde_json, because the order of keys there depends on a feature
    /// that any other crate of a build can turn on.
    pub(crate) fn canonical_json(&self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(&self, out: &mut String) {
        match &self.value {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Number(text) => out.push_str(text),
            Value::String(text) => write_json_string(out, text),
            Value::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write_canonical(out);
                }
                out.push(']');
            }
            Value::Map(entries) => {
                let mut sorted: Vec<&Entry> =
                    entries.iter().filter(|entry| !entry.node.is_null()).collect();
                sorted.sort_by(|a, b| a.key.cmp(&b.key));
                out.push('{');
                for (index, entry) in sorted.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_json_string(out, &entry.key);
                    out.push(':');
                    entry.node.write_canonical(out);
                }
                out.push('}');
            }
        }
    }

    /// The tree as a serde_json value, for the typed decoder.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(text) => number(text),
            Value::String(text) => (**text).into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (String::from(&*entry.key), entry.node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// The first byte of a list or an object, so that a caret does not underline all of it.
fn head(span: Span) -> Span {
    Span { start: span.start, end: span.end.min(span.start + 1) }
}

fn number(text: &str) -> serde_json::Value {
    if let Ok(value) = text.parse::<i64>() {
        return value.into();
    }
    if let Ok(value) = text.parse::<u64>() {
        return value.into();
    }
    // A number that is no integer is a float, or too large for one: then it stays text, which the typed
    // decoder refuses wherever a number is wanted.
    match text.parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
        Some(value) => value.into(),
        None => text.into(),
    }
}

fn write_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes any text");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
