//! An object with a configuration merged into it.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/typed/merge.go`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::place::{Atom, Place};
use super::set::Element;
use super::walk::{is_empty_map, list_of, map_of};
use crate::types::{ListType, Type};

/// Merges a configuration, which has been validated, into an object. Nothing is removed. The
/// configuration's values win, and so does the order of its lists.
pub(super) fn merge(live: &Value, config: &Value, of: &'static Type) -> Value {
    values(Some(live), Some(config), Place::root(of)).unwrap_or(Value::Null)
}

fn values(live: Option<&Value>, config: Option<&Value>, place: Place) -> Option<Value> {
    let winner = || config.or(live).cloned();
    match place.atom() {
        Atom::Scalar(_) | Atom::Leaf => winner(),
        Atom::Map { fields, values, atomic } => {
            let (one, other) = (map_of(live), map_of(config));
            if atomic || is_empty_map(one) && is_empty_map(other) {
                return winner();
            }
            maps(one, other, |name| Place::field(fields, values, name))
        }
        Atom::List { items, by } => {
            let (one, other) = (list_of(live), list_of(config));
            if by == ListType::Atomic || one.is_empty() && other.is_empty() {
                return winner();
            }
            let merged = Lists::new(one, other, items, by).merge();
            (!merged.is_empty()).then_some(Value::Array(merged))
        }
    }
}

fn maps(
    live: Option<&Map<String, Value>>,
    config: Option<&Map<String, Value>>,
    place: impl Fn(&str) -> Option<Place>,
) -> Option<Value> {
    let keys: BTreeSet<&String> =
        live.into_iter().chain(config).flat_map(serde_json::Map::keys).collect();
    let mut merged = Map::new();
    for key in keys {
        let get = |map: Option<&'_ Map<String, Value>>| map.and_then(|map| map.get(key)).cloned();
        let (one, other) = (get(live), get(config));
        let value = match place(key) {
            Some(place) => values(one.as_ref(), other.as_ref(), place),
            None => other.or(one),
        };
        if let Some(value) = value {
            merged.insert(key.clone(), value);
        }
    }
    (!merged.is_empty()).then_some(Value::Object(merged))
}

/// Two lists on their way to be one.
struct Lists<'a> {
    items: Place,
    live: Vec<(Element, &'a Value)>,
    config: Vec<(Element, &'a Value)>,
    /// Items of the live list; `None` if several are alike, which are not merged with anything.
    known: BTreeMap<Element, Option<&'a Value>>,
    wanted: BTreeSet<Element>,
}

impl<'a> Lists<'a> {
    fn new(live: &'a [Value], config: &'a [Value], items: Place, by: ListType) -> Self {
        let element = |item: &'a Value| Some((items.element(item, by).ok()?, item));
        let live: Vec<(Element, &Value)> = live.iter().filter_map(element).collect();
        let config: Vec<(Element, &Value)> = config.iter().filter_map(element).collect();
        let mut known = BTreeMap::new();
        for (element, item) in &live {
            known.entry(element.clone()).and_modify(|known| *known = None).or_insert(Some(*item));
        }
        let wanted = config.iter().map(|(element, _)| element.clone()).collect();
        Self { items, live, config, known, wanted }
    }

    /// What only the live list has stays where it is as far as the order of what both have allows.
    fn merge(self) -> Vec<Value> {
        let mut shared: VecDeque<&Element> = self
            .config
            .iter()
            .map(|(element, _)| element)
            .filter(|element| self.known.contains_key(element))
            .collect();
        let mut next_shared = shared.pop_front();
        let mut merged = BTreeSet::new();
        let mut out = Vec::new();
        let (mut l, mut r) = (0, 0);
        loop {
            let (live, config) = (self.live.get(l), self.config.get(r));
            if live.is_none() && config.is_none() {
                return out;
            }
            if let (Some((one, _)), Some((other, item))) = (live, config) {
                if one == other {
                    merged.insert(one);
                    out.extend(self.merged(one, item));
                    l += 1;
                    r += 1;
                    next_shared = shared.pop_front();
                    continue;
                }
                if self.wanted.contains(one) && next_shared.is_some_and(|next| next != one) {
                    // It comes later, in the order of the configuration.
                    l += 1;
                    continue;
                }
            }
            if let Some((element, item)) = live {
                if !self.wanted.contains(element) {
                    out.extend(values(Some(item), None, self.items));
                    l += 1;
                    continue;
                }
                if merged.contains(element) {
                    l += 1;
                }
            }
            if let Some((element, item)) = config {
                merged.insert(element);
                out.extend(self.merged(element, item));
                r += 1;
                if next_shared == Some(element) {
                    next_shared = shared.pop_front();
                }
            }
        }
    }

    fn merged(&self, element: &Element, config: &Value) -> Option<Value> {
        let live = self.known.get(element).copied().flatten();
        values(live, Some(config), self.items)
    }
}
