//! A new node takes no pods before it is known to be ready. Source: `plugin/pkg/admission/nodetaint`.

use mainstay_pod::scheduling::taints::{NO_SCHEDULE, NOT_READY};
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::object::Object;

/// Gives a new node the taint that the node lifecycle controller takes away.
pub(super) fn admit(attributes: &Attributes<'_>, node: &mut Object) {
    if attributes.operation != Operation::Create || !attributes.is("", "nodes") {
        return;
    }
    let taint = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == NO_SCHEDULE;
    if node.list_at(&["spec", "taints"]).iter().any(taint) {
        return;
    }
    let spec = node.field_mut("spec");
    let taints = spec.entry("taints").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(taints) = taints.as_array_mut() {
        taints.push(json!({ "key": NOT_READY, "effect": NO_SCHEDULE }));
    }
}
