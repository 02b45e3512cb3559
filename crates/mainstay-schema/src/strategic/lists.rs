//! Lists that merge.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::error::PatchError;
use super::order::{self, Ranks};
use super::{DIRECTIVE, Found, merge_map, same_type};
use crate::go;

/// What the items of a list are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Items {
    Maps,
    Scalars,
}

/// Merges the patch's list into the original one, or replaces it if the field does not merge.
pub(super) fn merge(
    original: Vec<Value>,
    patch: &mut [Value],
    found: &Found,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if !found.merges() && !deletes {
        return Ok(patch.to_vec());
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let key = found.merge_key();
    match items(&original, patch)? {
        Items::Scalars if deletes => {
            let gone: HashSet<&Value> = patch.iter().collect();
            Ok(original.into_iter().filter(|item| !gone.contains(item)).collect())
        }
        Items::Scalars => {
            let (ours, theirs) = (Ranks::of(&*patch, key), Ranks::of(&original, key));
            let mut seen = HashSet::new();
            let both = original.into_iter().chain(patch.iter().cloned());
            let merged = both.filter(|item| seen.insert(item.clone())).collect();
            order::arrange(merged, &ours, &theirs, key)
        }
        Items::Maps => {
            if key.is_empty() {
                return Err(PatchError::ListWithoutMergeKey { kind: found.schema.kind() });
            }
            merge_maps(original, patch, found)
        }
    }
}

fn merge_maps(
    original: Vec<Value>,
    patch: &mut [Value],
    found: &Found,
) -> Result<Vec<Value>, PatchError> {
    let key = found.merge_key();
    let (original, patch) = carry_out_directives(original, patch, key)?;
    let ours = Ranks::of(patch.iter().map(|item| &**item), key);
    let theirs = Ranks::of(&original, key);

    let mut merged = original;
    let mut place: HashMap<Value, usize> = HashMap::new();
    for (at, item) in merged.iter().enumerate() {
        if let Some(value) = item.get(key) {
            place.entry(value.clone()).or_insert(at);
        }
    }
    for item in patch {
        let Value::Object(item) = item else { return Err(PatchError::expected_map(item)) };
        let Some(value) = item.get(key) else {
            return Err(PatchError::no_merge_key(item, key));
        };
        match place.get(value).and_then(|at| merged.get_mut(*at)) {
            Some(there) => {
                let Value::Object(map) = there.take() else {
                    return Err(PatchError::NotMap { at: 0 });
                };
                *there = Value::Object(merge_map(map, item, found.schema)?);
            }
            None => {
                place.insert(value.clone(), merged.len());
                merged.push(Value::Object(item.clone()));
            }
        }
    }
    order::arrange(merged, &ours, &theirs, key)
}

/// Carries out the items of the patch that are directives. What is left of original and patch is
/// returned; a replaced list is all original.
fn carry_out_directives<'a>(
    mut original: Vec<Value>,
    patch: &'a mut [Value],
    key: &'static str,
) -> Result<(Vec<Value>, Vec<&'a mut Value>), PatchError> {
    let mut left = Vec::with_capacity(patch.len());
    let mut gone = HashSet::new();
    let mut replaces = false;
    for item in patch {
        let Value::Object(map) = &*item else { return Err(PatchError::expected_map(item)) };
        let Some(directive) = map.get(DIRECTIVE) else {
            left.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => match map.get(key) {
                Some(value) => {
                    gone.insert(value.clone());
                }
                None => return Err(PatchError::no_merge_key(map, key)),
            },
            Some("replace") => replaces = true,
            Some("merge") => return Err(PatchError::MergeDirective),
            _ => return Err(PatchError::unknown_directive(directive, map)),
        }
    }
    if replaces {
        return Ok((left.into_iter().map(|item| item.clone()).collect(), Vec::new()));
    }
    if !gone.is_empty() {
        original.retain(|item| item.get(key).is_none_or(|value| !gone.contains(value)));
    }
    Ok((original, left))
}

/// What the items of both lists are; they have to be of one type.
pub(super) fn items(one: &[Value], other: &[Value]) -> Result<Items, PatchError> {
    let mut all = one.iter().chain(other);
    let Some(first) = all.next() else { return Err(PatchError::NoElements) };
    if first.is_array() {
        return Err(PatchError::ListOfLists);
    }
    if !all.all(|item| same_type(first, item)) {
        let lists = format!("[{} {}]", go::display_list(one), go::display_list(other));
        return Err(PatchError::MixedList { lists });
    }
    Ok(if first.is_object() { Items::Maps } else { Items::Scalars })
}

/// The value that tells an object in a list from others. Without a merge key there is none.
pub(super) fn map_identity<'a>(
    item: &'a Value,
    key: &'static str,
) -> Result<&'a Value, PatchError> {
    let map: &Map<String, Value> =
        item.as_object().ok_or_else(|| PatchError::expected_map(item))?;
    map.get(key).ok_or_else(|| PatchError::no_merge_key(map, key))
}

/// The value that tells an item from others.
pub(super) fn identity<'a>(item: &'a Value, key: &'static str) -> Result<&'a Value, PatchError> {
    if key.is_empty() { Ok(item) } else { map_identity(item, key) }
}
