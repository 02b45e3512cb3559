//! The difference between two states of an object's status, as a strategic merge patch.
//!
//! Source: `staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`
//! (`CreateTwoWayMergePatch`), of which this is what the statuses of pods and nodes need.

use serde_json::{Map, Value, json};

/// What tells the items of a list apart, by the list's name: lists that are merged. Others are
/// replaced as a whole.
pub type MergeKeys = &'static [(&'static str, &'static str)];

/// Lists of a pod's status that are merged. Source: `patchMergeKey` in
/// `staging/src/k8s.io/api/core/v1/types.go`, `PodStatus`.
pub const POD_STATUS: MergeKeys = &[
    ("conditions", "type"),
    ("hostIPs", "ip"),
    ("podIPs", "ip"),
    ("resourceClaimStatuses", "name"),
];

/// Lists of a node's status that are merged. Its addresses are as well, by their type, of which
/// there may be several of one: they are replaced, as the kubelet does. Source:
/// `pkg/util/node/node.go`, `fixupPatchForNodeStatusAddresses`.
pub const NODE_STATUS: MergeKeys = &[("conditions", "type")];

/// The list that is merged, but whose key does not tell its items apart.
const ADDRESSES: &str = "addresses";

/// The patch that makes `before` into `after`; `None` if they say the same. Both are the JSON of a
/// status.
pub fn of_status(before: &Value, after: &Value, keys: MergeKeys) -> Option<Value> {
    let empty = Map::new();
    let before = before.as_object().unwrap_or(&empty);
    let after = after.as_object().unwrap_or(&empty);
    let mut patch = Map::new();
    for (name, value) in after.iter().filter(|(_, value)| !is_nothing(value)) {
        let known = before.get(name).unwrap_or(&Value::Null);
        if same(known, value) {
            continue;
        }
        let key = keys.iter().find(|(list, _)| list == name).map(|(_, key)| *key);
        match (key, known.as_array(), value.as_array()) {
            (Some(key), known, Some(items)) => {
                let (changes, order) = of_list(known.map_or(&[], Vec::as_slice), items, key);
                patch.insert(format!("$setElementOrder/{name}"), order);
                if !changes.is_empty() {
                    patch.insert(name.clone(), changes.into());
                }
            }
            (None, Some(_), Some(items)) if name == ADDRESSES => {
                let mut items = items.clone();
                items.push(json!({"$patch": "replace"}));
                patch.insert(name.clone(), items.into());
            }
            // Maps are merged as well; what is below them is not looked into.
            _ if known.is_object() => drop(patch.insert(name.clone(), of_item(known, value, ""))),
            _ => drop(patch.insert(name.clone(), value.clone())),
        }
    }
    for (name, _) in before.iter().filter(|(_, value)| !is_nothing(value)) {
        if after.get(name).is_none_or(is_nothing) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Changed, new and deleted items of a list that is merged, and the order of all.
fn of_list(before: &[Value], after: &[Value], key: &str) -> (Vec<Value>, Value) {
    let find = |list: &[Value], id: &Value| list.iter().position(|item| item.get(key) == Some(id));
    let mut changes = Vec::new();
    let mut order = Vec::new();
    for item in after {
        let Some(id) = item.get(key) else { continue };
        order.push(json!({key: id}));
        match find(before, id).map(|at| &before[at]) {
            Some(known) if same(known, item) => {}
            Some(known) => changes.push(of_item(known, item, key)),
            None => changes.push(item.clone()),
        }
    }
    for item in before {
        let Some(id) = item.get(key) else { continue };
        if find(after, id).is_none() {
            changes.push(json!({"$patch": "delete", key: id}));
        }
    }
    (changes, order.into())
}

/// What changed in an item, with its key.
fn of_item(before: &Value, after: &Value, key: &str) -> Value {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else {
        return after.clone();
    };
    let changed = |(name, value): &(&String, &Value)| {
        *name == key || !same(before.get(*name).unwrap_or(&Value::Null), value)
    };
    let set = after.iter().filter(changed).map(|(name, value)| (name.clone(), value.clone()));
    let mut item: Map<String, Value> = set.collect();
    let gone = before.keys().filter(|name| after.get(*name).is_none_or(is_nothing));
    item.extend(gone.map(|name| (name.clone(), Value::Null)));
    Value::Object(item)
}

/// Whether two values say the same: a server leaves out what is empty.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let covered = |a: &Map<String, Value>, b: &Map<String, Value>| {
                a.iter().all(|(name, value)| same(value, b.get(name).unwrap_or(&Value::Null)))
            };
            covered(a, b) && b.iter().all(|(name, value)| a.contains_key(name) || is_nothing(value))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) => a == b || is_nothing(a) && is_nothing(b),
    }
}

/// An object is something even without content, as `running: {}` is.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests;
