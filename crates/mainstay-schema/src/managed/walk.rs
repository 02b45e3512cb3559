//! What is in an object, and what differs between two.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/typed`: `tofieldset.go`, `compare.go`, `remove.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::place::{Atom, Place};
use super::set::{Element, Node, Path, Set, equal};
use crate::types::{ListType, Type};

/// The fields in which two objects differ. None is in two of the sets.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    pub(super) modified: Set,
    pub(super) added: Set,
}

/// Every leaf and every item of a list or map that an object mentions.
pub(super) fn field_set(object: &Value, of: &'static Type) -> Set {
    let mut top = Node::default();
    mention(object, Place::root(of), &mut top);
    top.children
}

fn mention(value: &Value, place: Place, node: &mut Node) {
    match (place.atom(), value) {
        (
            Atom::Scalar(_)
            | Atom::Leaf
            | Atom::Map { atomic: true, .. }
            | Atom::List { by: ListType::Atomic, .. },
            _,
        ) => node.member = true,
        (Atom::Map { fields, values, .. }, Value::Object(map)) => {
            for (key, value) in map {
                let known = fields.is_some_and(|of| of.field(key).is_some());
                let mut below = Node::default();
                if let Some(place) = Place::field(fields, values, key) {
                    mention(value, place, &mut below);
                }
                let empty = value.as_object().is_some_and(Map::is_empty);
                below.member |= value.is_null() || empty || !known;
                node.children.put(Element::field(key), below);
            }
        }
        (Atom::List { items, by }, Value::Array(list)) => {
            let mut duplicates = BTreeSet::new();
            let mut seen = BTreeMap::new();
            for item in list {
                let Ok(element) = items.element(item, by) else { continue };
                if seen.insert(element.clone(), item).is_some() {
                    duplicates.insert(element);
                }
            }
            for (element, item) in seen {
                let mut below = Node { member: true, children: Set::default() };
                if !duplicates.contains(&element) {
                    mention(item, items, &mut below);
                    below.member = true;
                }
                node.children.put(element, below);
            }
        }
        (Atom::Map { .. } | Atom::List { .. }, _) => {}
    }
}

/// Compares two objects.
pub(super) fn compare(old: &Value, new: &Value, of: &'static Type) -> Comparison {
    let mut walk = Compare { path: Vec::new(), found: Comparison::default() };
    walk.values(Some(old), Some(new), Place::root(of));
    walk.found
}

struct Compare {
    path: Path,
    found: Comparison,
}

impl Compare {
    fn values(&mut self, old: Option<&Value>, new: Option<&Value>, place: Place) {
        let leaf = match place.atom() {
            Atom::Scalar(_) | Atom::Leaf => true,
            Atom::Map { fields, values, atomic } => {
                let (one, other) = (map_of(old), map_of(new));
                let leaf = atomic || is_empty_map(one) && is_empty_map(other);
                if !leaf {
                    self.maps(one, other, |name| Place::field(fields, values, name));
                }
                leaf
            }
            Atom::List { items, by } => {
                let (one, other) = (list_of(old), list_of(new));
                let leaf = by == ListType::Atomic || one.is_empty() && other.is_empty();
                if !leaf {
                    self.lists(one, other, items, by);
                }
                leaf
            }
        };
        match (old, new) {
            (None, Some(_)) => self.found.added.insert(&self.path),
            (Some(_), None) => self.found.removed.insert(&self.path),
            (Some(old), Some(new)) if leaf && !equal(old, new) => {
                self.found.modified.insert(&self.path);
            }
            _ => {}
        }
    }

    fn maps(
        &mut self,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
        place: impl Fn(&str) -> Option<Place>,
    ) {
        let keys: BTreeSet<&String> =
            old.into_iter().chain(new).flat_map(serde_json::Map::keys).collect();
        for key in keys {
            let (old, new) = (old.and_then(|map| map.get(key)), new.and_then(|map| map.get(key)));
            let Some(place) = place(key) else { continue };
            self.within(Element::field(key), |walk| walk.values(old, new, place));
        }
    }

    fn lists(&mut self, old: &[Value], new: &[Value], items: Place, by: ListType) {
        let mut found: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            if let Ok(element) = items.element(item, by) {
                found.entry(element).or_default().0.push(item);
            }
        }
        for item in new {
            if let Ok(element) = items.element(item, by) {
                found.entry(element).or_default().1.push(item);
            }
        }
        for (element, (old, new)) in found {
            self.within(element, |walk| walk.items(&old, &new, items));
        }
    }

    /// Compares the items that nothing tells apart.
    fn items(&mut self, old: &[&Value], new: &[&Value], place: Place) {
        match (old, new) {
            ([_, _, ..], [_, _, ..]) => {
                let same =
                    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| equal(old, new));
                if !same {
                    self.found.modified.insert(&self.path);
                }
            }
            ([_, _, ..], new) => {
                if let Some(new) = new.first() {
                    self.values(None, Some(new), place);
                }
                self.found.removed.insert(&self.path);
            }
            (old, [_, _, ..]) => {
                if let Some(old) = old.first() {
                    self.values(Some(old), None, place);
                }
                self.found.added.insert(&self.path);
            }
            (old, new) => self.values(old.first().copied(), new.first().copied(), place),
        }
    }

    fn within(&mut self, element: Element, inside: impl FnOnce(&mut Self)) {
        self.path.push(element);
        inside(self);
        self.path.pop();
    }
}

/// Takes the items of lists and maps that are in a set out of an object.
pub(super) fn without(object: &Value, items: &Set, of: &'static Type) -> Value {
    remove(object, items, Place::root(of)).unwrap_or(Value::Null)
}

fn remove(value: &Value, gone: &Set, place: Place) -> Option<Value> {
    match (place.atom(), value) {
        (Atom::Scalar(_) | Atom::Leaf, value) => Some(value.clone()),
        (Atom::Map { atomic: true, .. } | Atom::List { by: ListType::Atomic, .. }, _) => None,
        (Atom::Map { fields, values, .. }, Value::Object(map)) => {
            let mut left = Map::new();
            let mut within = false;
            for (key, value) in map {
                let Some(node) = gone.get(&Element::field(key)) else {
                    left.insert(key.clone(), value.clone());
                    continue;
                };
                if node.member {
                    continue;
                }
                within = true;
                let place = Place::field(fields, values, key);
                let rest = place.map_or_else(
                    || Some(value.clone()),
                    |place| remove(value, &node.children, place),
                );
                left.insert(key.clone(), rest.unwrap_or_else(|| emptied(value)));
            }
            (!left.is_empty() || within).then_some(Value::Object(left))
        }
        (Atom::List { items, by }, Value::Array(list)) => {
            let mut left = Vec::new();
            let mut within = false;
            for item in list {
                let node = items.element(item, by).ok().and_then(|element| gone.get(&element));
                match node {
                    None => left.push(item.clone()),
                    Some(node) if node.member => {}
                    Some(node) => {
                        within = true;
                        let rest = remove(item, &node.children, items);
                        left.push(rest.unwrap_or_else(|| emptied(item)));
                    }
                }
            }
            (!left.is_empty() || within).then_some(Value::Array(left))
        }
        (Atom::Map { .. } | Atom::List { .. }, _) => None,
    }
}

/// What is left of a container that lost all that was in it.
fn emptied(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

/// Adds the objects' fields on the way to what is in a set, but neither keys of maps nor items.
pub(super) fn with_named_fields(set: &Set, of: &'static Type) -> Set {
    named(set, Some(Place::root(of)))
}

fn named(set: &Set, place: Option<Place>) -> Set {
    let atom = place.map(Place::atom);
    let mut out = Set::default();
    for (element, node) in set.nodes() {
        let (known, below) = match (&atom, element) {
            (Some(Atom::Map { fields, values, .. }), Element::Field(name)) => {
                let known = fields.is_some_and(|of| of.field(name).is_some());
                (known, Place::field(*fields, *values, name))
            }
            (Some(Atom::List { items, .. }), _) => (false, Some(*items)),
            _ => (false, None),
        };
        let member = node.member || known && !node.children.is_empty();
        out.put(element.clone(), Node { member, children: named(&node.children, below) });
    }
    out
}

pub(super) fn map_of(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

pub(super) fn list_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn is_empty_map(map: Option<&Map<String, Value>>) -> bool {
    map.is_none_or(Map::is_empty)
}
