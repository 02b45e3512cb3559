//! The order of lists that merge.
//!
//! What the patch names comes in its order, what only the server has in the server's; the two are
//! then interleaved by the server's order as far as that says something.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::error::PatchError;
use super::{DIRECTIVE, SET_ELEMENT_ORDER, Schema, lists, remove_directives};
use crate::go;

/// Where each item of a list first is.
pub(super) struct Ranks(HashMap<Value, usize>);

/// Carries out `$setElementOrder/<field>` together with the patch's list of that field.
pub(super) fn set_element_order(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Schema,
) -> Result<(), PatchError> {
    let keys: Vec<String> =
        patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in keys {
        let Some(order) = patch.remove(&directive) else { continue };
        let Value::Array(order) = order else { return Err(PatchError::expected_list(&order)) };
        let field = directive
            .strip_prefix(SET_ELEMENT_ORDER)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or(PatchError::BadSetElementOrder)?;

        let theirs = original.remove(field).map(list).transpose()?;
        let ours = patch.remove(field).map(list).transpose()?;
        let found = schema.lookup_list(field)?;
        let key = found.merge_key();
        validate(ours.as_deref().unwrap_or_default(), &order, key)?;

        let kinds = |one: &Option<Vec<Value>>, other: &Option<Vec<Value>>| {
            lists::items(one.as_deref().unwrap_or_default(), other.as_deref().unwrap_or_default())
        };
        let server = Ranks::of(theirs.as_deref().unwrap_or_default(), key);
        let checked = kinds(&theirs, &ours);
        // Whether the server's own items can be told apart is looked at last.
        let known = match (&theirs, &checked) {
            (Some(theirs), Ok(lists::Items::Maps)) => {
                theirs.iter().try_for_each(|item| lists::map_identity(item, key).map(drop))
            }
            _ => Ok(()),
        };
        let merged = match (theirs, ours) {
            (Some(theirs), None) => theirs,
            (None, Some(mut ours)) => {
                ours.retain_mut(remove_directives);
                ours
            }
            (Some(theirs), Some(mut ours)) => lists::merge(theirs, &mut ours, &found, false)?,
            (None, None) => continue,
        };
        if !key.is_empty()
            && !merged.is_empty()
            && let Some(at) = order.iter().position(|item| !item.is_object())
        {
            return Err(PatchError::NotMap { at });
        }
        checked?;
        let arranged = arrange(merged, &Ranks::of(&order, key), &server, key)?;
        known?;
        original.insert(field.to_owned(), Value::Array(arranged));
    }
    Ok(())
}

/// The items of a patch have to be in the order that the patch asks for, all of them.
fn validate(patch: &[Value], order: &[Value], key: &'static str) -> Result<(), PatchError> {
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in patch {
        if !key.is_empty() && !item.is_object() {
            return Err(PatchError::expected_map(item));
        }
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        let found = loop {
            let Some(place) = places.next() else { break false };
            if lists::identity(item, key)? == lists::identity(place, key)? {
                break true;
            }
        };
        if !found {
            let (patch, order) = (go::display_list(patch), go::display_list(order));
            return Err(PatchError::OrderMismatch { patch, order });
        }
    }
    Ok(())
}

/// Puts the items that `ours` knows in that order, the others in the order of `theirs`, and the two
/// together: an item of theirs comes before the next of ours if it did so in `theirs`.
pub(super) fn arrange(
    merged: Vec<Value>,
    ours: &Ranks,
    theirs: &Ranks,
    key: &'static str,
) -> Result<Vec<Value>, PatchError> {
    let mut patched = Vec::new();
    let mut kept = Vec::new();
    for item in merged {
        let identity = lists::identity(&item, key)?;
        let (our, their) = (ours.get(identity), theirs.get(identity));
        if our.is_some() { patched.push((our, their, item)) } else { kept.push((their, item)) }
    }
    patched.sort_by_key(|(our, _, _)| *our);
    kept.sort_by_key(|(their, _)| *their);

    let mut all = Vec::with_capacity(patched.len() + kept.len());
    let mut kept = kept.into_iter().peekable();
    for (_, their, item) in patched {
        while let Some((before, _)) = kept.peek()
            && before.is_some()
            && *before < their
        {
            all.extend(kept.next().map(|(_, item)| item));
        }
        all.push(item);
    }
    all.extend(kept.map(|(_, item)| item));
    Ok(all)
}

fn list(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(PatchError::expected_list(&other)),
    }
}

// === impl Ranks ===

impl Ranks {
    /// Items without an identity have no rank.
    pub(super) fn of<'a>(items: impl IntoIterator<Item = &'a Value>, key: &'static str) -> Self {
        let mut ranks = HashMap::new();
        for (at, item) in items.into_iter().enumerate() {
            if let Ok(identity) = lists::identity(item, key) {
                ranks.entry(identity.clone()).or_insert(at);
            }
        }
        Self(ranks)
    }

    fn get(&self, identity: &Value) -> Option<usize> {
        self.0.get(identity).copied()
    }
}
