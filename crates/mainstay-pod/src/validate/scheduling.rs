//! Tolerations and topology spread.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Errors, Json, metadata, names, text};
use crate::path::Path;

/// `ValidateTolerations`.
pub fn tolerations(tolerations: &[Toleration], path: &Path<'_>, errors: &mut Errors) {
    for (at, toleration) in tolerations.iter().enumerate() {
        let path = path.index(at);
        let key = text(toleration.key.as_ref());
        let operator = text(toleration.operator.as_ref());
        let value = text(toleration.value.as_ref());
        let effect = text(toleration.effect.as_ref());
        if !key.is_empty() {
            metadata::label_name(key, &path.field("key"), errors);
        } else if operator != "Exists" {
            let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.field("operator"), Json(operator), message);
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.field("effect"), Json(effect), message);
        }
        match operator {
            "Equal" | "" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.invalid(&path.field("operator"), value, &messages.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(
                    &path.field("operator"),
                    value,
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            // Comparing needs the feature gate TaintTolerationComparisonOperators, which is off.
            "Lt" | "Gt" => {
                let supported = ["Equal", "Exists", "Lt", "Gt"];
                errors.not_supported(&path.field("operator"), Json(operator), &supported);
            }
            _ => {
                errors.not_supported(&path.field("operator"), Json(operator), &["Equal", "Exists"]);
            }
        }
        if !effect.is_empty() {
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            errors.one_of(&path.field("effect"), effect, &supported);
        }
    }
}

/// `validateTopologySpreadConstraints`.
pub(super) fn topology_spread(
    constraints: &[TopologySpreadConstraint],
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let last: HashMap<(&str, &str), usize> = constraints
        .iter()
        .enumerate()
        .map(|(at, it)| ((it.topology_key.as_str(), it.when_unsatisfiable.as_str()), at))
        .collect();
    for (at, constraint) in constraints.iter().enumerate() {
        let path = path.index(at);
        let action = constraint.when_unsatisfiable.as_str();
        positive(constraint.max_skew, &path.field("maxSkew"), errors);
        if constraint.topology_key.is_empty() {
            errors.required(&path.field("topologyKey"), "can not be empty");
        }
        errors.one_of(
            &path.field("whenUnsatisfiable"),
            action,
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        let repeated = last.get(&(constraint.topology_key.as_str(), action)) > Some(&at);
        if repeated {
            let pair = format!("{{{}, {action}}}", constraint.topology_key);
            errors.duplicate(&path.field("{topologyKey, whenUnsatisfiable}"), pair.as_str());
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.field("minDomains");
            positive(domains, &path, errors);
            if action != "DoNotSchedule" {
                let message = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                );
                errors.invalid(&path, domains, &message);
            }
        }
        let policies = [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ];
        for (field, policy) in policies {
            if let Some(policy) = policy {
                errors.one_of(&path.field(field), policy, &["Honor", "Ignore"]);
            }
        }
        let selector = constraint.label_selector.as_ref();
        let keys = constraint.match_label_keys.as_deref().unwrap_or(&[]);
        match_label_keys(keys, &[], selector, &path, errors);
        metadata::label_selector(selector, &path.field("labelSelector"), errors);
    }
}

fn positive(value: i32, path: &Path<'_>, errors: &mut Errors) {
    if value <= 0 {
        errors.invalid(path, value, "must be greater than zero");
    }
}

/// `ValidateMatchLabelKeysAndMismatchLabelKeys`.
pub(super) fn match_label_keys(
    matching: &[String],
    mismatching: &[String],
    selector: Option<&LabelSelector>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    for (field, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", mismatching)] {
        let path = path.field(field);
        if !keys.is_empty() && selector.is_none() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (at, key) in keys.iter().enumerate() {
            metadata::label_name(key, &path.index(at), errors);
        }
    }
    if let Some(selector) = selector {
        // Of equal keys the last counts.
        let places: HashMap<&str, usize> =
            matching.iter().enumerate().map(|(at, key)| (key.as_str(), at)).collect();
        let mut seen: HashSet<&str> =
            selector.match_labels.iter().flatten().map(|(key, _)| key.as_str()).collect();
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.as_str();
            // An API server has merged the keys into the selector before it looks, so a key that is there
            // twice was written twice.
            if let Some(at) = places.get(key)
                && seen.contains(key)
            {
                errors.invalid(
                    &path.index(*at),
                    key,
                    "exists in both matchLabelKeys and labelSelector",
                );
            }
            seen.insert(key);
        }
    }
    let mismatching: HashSet<&String> = mismatching.iter().collect();
    let path = path.field("matchLabelKeys");
    for (at, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(*key)) {
        let message = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(&path.index(at), key.as_str(), message);
    }
}
