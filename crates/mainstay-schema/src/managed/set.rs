//! Sets of fields.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/fieldpath`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::go;

/// A set of fields: a tree in which some nodes are members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    nodes: BTreeMap<Element, Node>,
}

/// A field and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the field itself is in the set.
    pub(super) member: bool,
    pub(super) children: Set,
}

/// A step from a value to one within it. They are in the order in which Kubernetes sorts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// A field of an object or a key of a map.
    Field(String),
    /// The item of a list that has these values in these fields, which are sorted.
    Key(Vec<(String, Literal)>),
    /// The item of a list that has this value.
    Value(Literal),
    /// The item of a list at a place; only in sets that others wrote.
    Index(i64),
}

/// A value in a path. Whole numbers are integers, so that equal ones are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal(Value);

/// A way from an object to a value in it.
pub(super) type Path = Vec<Element>;

// === impl Set ===

impl Set {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Puts a field in, not those around it.
    pub(super) fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.nodes.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.children.insert(rest);
        }
    }

    /// Puts a node in, unless it holds nothing.
    pub(super) fn put(&mut self, element: Element, node: Node) {
        if node.member || !node.children.is_empty() {
            self.nodes.insert(element, node);
        }
    }

    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.nodes.get(element)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Element, &Node)> {
        self.nodes.iter()
    }

    pub(super) fn has(&self, path: &[Element]) -> bool {
        match path.split_first() {
            None => false,
            Some((first, [])) => self.nodes.get(first).is_some_and(|node| node.member),
            Some((first, rest)) => {
                self.nodes.get(first).is_some_and(|node| node.children.has(rest))
            }
        }
    }

    /// What is in either.
    pub(super) fn union(mut self, other: Self) -> Self {
        for (element, node) in other.nodes {
            let there = self.nodes.entry(element).or_default();
            there.member |= node.member;
            there.children = std::mem::take(&mut there.children).union(node.children);
        }
        self
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, &|one, other| Node {
            member: one.member && other.is_some_and(|other| other.member),
            children: other
                .map(|other| one.children.intersection(&other.children))
                .unwrap_or_default(),
        })
    }

    /// What is in this one only. A field that the other one has does not take along what is below it.
    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, &|one, other| match other {
            None => one.clone(),
            Some(other) => Node {
                member: one.member && !other.member,
                children: one.children.difference(&other.children),
            },
        })
    }

    /// What is in this one only and not below what the other one has.
    pub(super) fn outside(&self, other: &Self) -> Self {
        self.combine(other, &|one, other| match other {
            None => one.clone(),
            Some(other) if other.member => Node::default(),
            Some(other) => {
                Node { member: one.member, children: one.children.outside(&other.children) }
            }
        })
    }

    /// What is at these paths or below them; `*` in one is any element.
    pub(super) fn within(&self, paths: &[Vec<&str>]) -> Self {
        let mut out = Self::default();
        for (element, node) in &self.nodes {
            let is = |first: &str| {
                first == "*" || matches!(element, Element::Field(name) if name == first)
            };
            let below = paths.iter().filter_map(|path| match path.split_first() {
                Some((first, rest)) if is(first) => Some(rest.to_vec()),
                _ => None,
            });
            let below: Vec<Vec<&str>> = below.collect();
            let whole = below.iter().any(Vec::is_empty);
            let part = || Node { member: false, children: node.children.within(&below) };
            out.put(element.clone(), if whole { node.clone() } else { part() });
        }
        out
    }

    fn combine(&self, other: &Self, with: &dyn Fn(&Node, Option<&Node>) -> Node) -> Self {
        let mut out = Self::default();
        for (element, node) in &self.nodes {
            out.put(element.clone(), with(node, other.nodes.get(element)));
        }
        out
    }

    /// The paths of all members, those of a level before those below it.
    pub(super) fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Path, paths: &mut Vec<Path>) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            let mut path = prefix.clone();
            path.push(element.clone());
            paths.push(path);
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.children.collect(prefix, paths);
            prefix.pop();
        }
    }

    /// The set as `FieldsV1`.
    pub(super) fn to_fields(&self) -> Value {
        let fields = self.nodes.iter().map(|(element, node)| {
            let mut below = node.children.to_fields();
            if let (true, false, Value::Object(map)) =
                (node.member, node.children.is_empty(), &mut below)
            {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (element.to_key(), below)
        });
        Value::Object(fields.collect())
    }

    /// Reads `FieldsV1`. Elements of kinds that are not known are passed over.
    pub(super) fn from_fields(fields: &Value) -> Result<Self, String> {
        Ok(read(fields)?.0)
    }
}

/// The children, and whether the value itself is a member: it is if it has a dot or nothing.
fn read(fields: &Value) -> Result<(Set, bool), String> {
    let map = match fields {
        Value::Object(map) => map,
        Value::Null => return Ok((Set::default(), true)),
        other => return Err(format!("fieldsV1: expected an object, got {}", go::display(other))),
    };
    let (mut set, mut member) = (Set::default(), false);
    for (key, below) in map {
        if key == "." {
            member = true;
            continue;
        }
        let Some(element) = Element::from_key(key)? else { continue };
        let (children, member) = read(below)?;
        set.put(element, Node { member, children });
    }
    member |= set.is_empty();
    Ok((set, member))
}

// === impl Element ===

impl Element {
    pub(super) fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.clone(), value.0.clone()));
                format!("k:{}", Value::Object(fields.collect()))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn from_key(key: &str) -> Result<Option<Self>, String> {
        let bad = |why: &dyn fmt::Display| format!("fieldsV1: {key}: {why}");
        let Some((kind, rest)) = key.split_at_checked(2) else {
            return Err(bad(&"key must be 2 characters long"));
        };
        if !kind.ends_with(':') {
            return Err(bad(&"missing colon"));
        }
        let json = || serde_json::from_str::<Value>(rest).map_err(|error| bad(&error));
        Ok(Some(match kind {
            "f:" => Self::field(rest),
            "v:" => Self::Value(Literal::new(json()?)),
            "i:" => Self::Index(rest.parse().map_err(|error| bad(&error))?),
            "k:" => match json()? {
                Value::Object(map) => {
                    let fields = map.into_iter();
                    Self::Key(fields.map(|(name, value)| (name, Literal::new(value))).collect())
                }
                _ => return Err(bad(&"not an object")),
            },
            _ => return Ok(None),
        }))
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}={value}", if at > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The text of a path, such as `.spec.containers[name="a"].image`.
pub(super) fn display(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

// === impl Literal ===

impl Literal {
    pub(super) fn new(value: Value) -> Self {
        if let Value::Number(number) = &value
            && let Some(float) = number.as_f64()
            && number.is_f64()
            && float.trunc() == float
            && float.abs() < 9e15
        {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
            return Self((float as i64).into());
        }
        Self(value)
    }
}

impl PartialOrd for Literal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Literal {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.0))
    }
}

/// As `value.ToString` writes it.
fn text(value: &Value) -> String {
    match value {
        Value::String(value) => go::quote(value),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key}={}", text(value))).collect()
        }
        other => other.to_string(),
    }
}

/// Numbers come before strings, bools, lists, objects and null.
fn compare(one: &Value, other: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => one.cmp(&other),
            _ => one
                .as_f64()
                .unwrap_or(f64::MAX)
                .total_cmp(&other.as_f64().unwrap_or(f64::MAX))
                .then_with(|| one.is_f64().cmp(&other.is_f64())),
        },
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            one.to_string().cmp(&other.to_string())
        }
        _ => rank(one).cmp(&rank(other)),
    }
}

/// Whether two values are the same, numbers by their value.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, one)| other.get(key).is_some_and(|other| equal(one, other)))
        }
        _ => one == other,
    }
}
