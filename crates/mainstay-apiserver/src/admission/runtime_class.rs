//! What a RuntimeClass adds to its pods: what its runtime takes up, and on which nodes there is one.
//!
//! Source: `plugin/pkg/admission/runtimeclass`, and `pkg/util/tolerations` for how tolerations are merged.

use std::collections::BTreeMap;

use mainstay_pod::Quantity;
use mainstay_pod::scheduling::taints::NO_EXECUTE;
use serde_json::{Map, Value};

use super::{Attributes, Operation};
use crate::kinds;
use crate::object::Object;
use crate::server::Inner;
use crate::status::Result;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

const NO_CLASS: &str =
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub(super) async fn admit(
    server: &Inner,
    attributes: &Attributes<'_>,
    pod: &mut Object,
) -> Result<()> {
    if attributes.operation != Operation::Create {
        return Ok(());
    }
    let name = pod.str_at(&["spec", "runtimeClassName"]);
    if name.is_empty() {
        return match pod.at(&["spec", "overhead"]).is_none_or(Value::is_null) {
            true => Ok(()),
            false => Err(attributes.forbidden(NO_CLASS)),
        };
    }
    let Some(class) = server.storage.find(&kinds::RUNTIME_CLASSES, "", name).await? else {
        let why = format!("pod rejected: RuntimeClass {name:?} not found");
        return Err(attributes.forbidden(why));
    };
    apply(pod, &class.object).map_err(|why| attributes.forbidden(why))
}

/// Adds to a pod what its class says; an error is what does not go together.
fn apply(pod: &mut Object, class: &Object) -> std::result::Result<(), String> {
    let given = pod.at(&["spec", "overhead"]).filter(|it| !it.is_null());
    match (class.at(&["overhead"]).filter(|it| !it.is_null()), given) {
        (None, Some(_)) => return Err(NO_CLASS.to_owned()),
        (None, None) => {}
        (Some(overhead), given) => {
            let fixed = overhead.get("podFixed").cloned().unwrap_or_default();
            let given = given.map(amounts).filter(|it| !it.is_empty());
            if given.is_some_and(|given| given != amounts(&fixed)) {
                return Err(MISMATCH.to_owned());
            }
            if !fixed.is_null() {
                pod.field_mut("spec").insert("overhead".into(), fixed);
            }
        }
    }
    let selector = class.at(&["scheduling", "nodeSelector"]).and_then(Value::as_object);
    if let Some(selector) = selector {
        let merged =
            select(pod.at(&["spec", "nodeSelector"]).and_then(Value::as_object), selector)?;
        pod.field_mut("spec").insert("nodeSelector".into(), merged.into());
    }
    if class.at(&["scheduling"]).is_some_and(|it| !it.is_null()) {
        let own = pod.list_at(&["spec", "tolerations"]);
        let merged = merge(&[own, class.list_at(&["scheduling", "tolerations"])].concat());
        if !merged.is_empty() {
            pod.field_mut("spec").insert("tolerations".into(), merged.into());
        }
    }
    Ok(())
}

/// Amounts as they compare; what is none compares by its text.
fn amounts(value: &Value) -> BTreeMap<&str, std::result::Result<Quantity, &str>> {
    let all = value.as_object().into_iter().flatten();
    let amount = |value| {
        let text = Value::as_str(value).unwrap_or_default();
        Quantity::parse(text).map_err(|_| text)
    };
    all.map(|(name, value)| (name.as_str(), amount(value))).collect()
}

fn select(
    own: Option<&Map<String, Value>>,
    class: &Map<String, Value>,
) -> std::result::Result<Map<String, Value>, String> {
    let mut merged = own.cloned().unwrap_or_default();
    for (key, value) in class {
        if let Some(given) = merged.get(key).filter(|given| *given != value) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(given)
            ));
        }
        merged.insert(key.clone(), value.clone());
    }
    Ok(merged)
}

/// Without those that another one tolerates more than.
fn merge(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let later = all.iter().skip(index + 1);
        let redundant = merged.iter().any(|other| is_superset(other, one))
            // Of those that are the same the first one stays.
            || later.clone().any(|other| other != one && is_superset(other, one));
        if !redundant {
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether a toleration tolerates all that another one does.
fn is_superset(superset: &Value, one: &Value) -> bool {
    fn text<'a>(toleration: &'a Value, field: &str) -> &'a str {
        toleration.get(field).and_then(Value::as_str).unwrap_or_default()
    }
    let same = |field| text(superset, field) == text(one, field);
    if superset == one {
        return true;
    }
    let all_keys = text(superset, "key").is_empty() && text(superset, "operator") == "Exists";
    if !same("key") && !all_keys || !same("effect") && !text(superset, "effect").is_empty() {
        return false;
    }
    let seconds = |it: &Value| it.get("tolerationSeconds").and_then(Value::as_i64);
    if text(superset, "effect") == NO_EXECUTE
        && let Some(most) = seconds(superset)
        && seconds(one).is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match text(superset, "operator") {
        "" | "Equal" => text(one, "operator") == "Equal" && same("value"),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applied(spec: &Value, class: &Value) -> std::result::Result<Value, String> {
        let mut pod = Object::from_json(json!({ "metadata": { "name": "p" }, "spec": spec }));
        apply(&mut pod, &Object::from_json(class.clone()))?;
        Ok(pod.at(&["spec"]).unwrap().clone())
    }

    #[test]
    fn what_its_runtime_takes_up_is_added_to_a_pod() {
        let class = json!({ "overhead": { "podFixed": { "cpu": "250m", "memory": "120Mi" } } });
        let fixed = json!({ "cpu": "250m", "memory": "120Mi" });
        let same = json!({ "cpu": "0.25", "memory": "120Mi" });
        let other = json!({ "cpu": "1", "memory": "120Mi" });
        for (spec, class, expected) in [
            (json!({}), &class, Ok(json!({ "overhead": fixed }))),
            (json!({ "overhead": {} }), &class, Ok(json!({ "overhead": fixed }))),
            (json!({ "overhead": same }), &class, Ok(json!({ "overhead": fixed }))),
            (json!({ "overhead": other }), &class, Err(MISMATCH.to_owned())),
            (json!({ "overhead": same }), &json!({}), Err(NO_CLASS.to_owned())),
            (json!({}), &json!({}), Ok(json!({}))),
        ] {
            assert_eq!(applied(&spec, class), expected, "{spec}");
        }
    }

    #[test]
    fn its_nodes_are_those_of_the_class_and_of_the_pod() {
        let class = json!({ "scheduling": { "nodeSelector": { "a": "1", "b": "2" } } });
        let both = json!({ "nodeSelector": { "a": "1", "b": "2", "c": "3" } });
        let own = json!({ "nodeSelector": { "b": "2", "c": "3" } });
        assert_eq!(applied(&own, &class), Ok(both));
        let conflict =
            "conflict: runtimeClass.scheduling.nodeSelector[a] = 1; pod.spec.nodeSelector[a] = 7";
        let other = json!({ "nodeSelector": { "a": "7" } });
        assert_eq!(applied(&other, &class), Err(conflict.to_owned()));
    }

    #[test]
    fn of_tolerations_those_stay_that_tolerate_most() {
        let exists = |key: &str| json!({ "key": key, "operator": "Exists" });
        let equal = |value: &str| json!({ "key": "k", "operator": "Equal", "value": value });
        let timed = |seconds: i64| {
            json!({
                "key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
            })
        };
        let everything = json!({ "operator": "Exists" });
        let scheduled = json!({ "key": "k", "operator": "Exists", "effect": "NoSchedule" });
        for (own, class, expected) in [
            (vec![], vec![exists("k")], vec![exists("k")]),
            (vec![exists("k")], vec![exists("k")], vec![exists("k")]),
            (vec![equal("v")], vec![exists("k")], vec![exists("k")]),
            (vec![exists("k")], vec![equal("v")], vec![exists("k")]),
            (vec![equal("v")], vec![equal("w")], vec![equal("v"), equal("w")]),
            (vec![exists("k"), exists("l")], vec![everything.clone()], vec![everything]),
            (vec![timed(10)], vec![timed(20)], vec![timed(20)]),
            (vec![timed(20)], vec![timed(10)], vec![timed(20)]),
            (vec![timed(20)], vec![scheduled.clone()], vec![timed(20), scheduled]),
        ] {
            let class = json!({ "scheduling": { "tolerations": class } });
            let merged = applied(&json!({ "tolerations": own }), &class).unwrap();
            assert_eq!(merged["tolerations"], Value::from(expected));
        }
    }
}
