//! Affinity to nodes and to other pods.

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, WeightedPodAffinityTerm,
};

use super::{Errors, Json, metadata, names, scheduling};
use crate::path::Path;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: Option<&Affinity>, path: &Path<'_>, errors: &mut Errors) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let path = path.field("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            let path = path.field(REQUIRED);
            let path = path.field("nodeSelectorTerms");
            if selector.node_selector_terms.is_empty() {
                errors.required(&path, "must have at least one node selector term");
            }
            for (at, term) in selector.node_selector_terms.iter().enumerate() {
                node_term(term, true, &path.index(at), errors);
            }
        }
        let path = path.field(PREFERRED);
        let preferred = node.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (at, term) in preferred.enumerate() {
            let path = path.index(at);
            weight(term.weight, &path, errors);
            node_term(&term.preference, false, &path.field("preference"), errors);
        }
    }
    if let Some(pod) = &affinity.pod_affinity {
        pod_terms(
            pod.required_during_scheduling_ignored_during_execution.as_deref(),
            pod.preferred_during_scheduling_ignored_during_execution.as_deref(),
            &path.field("podAffinity"),
            errors,
        );
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        pod_terms(
            pod.required_during_scheduling_ignored_during_execution.as_deref(),
            pod.preferred_during_scheduling_ignored_during_execution.as_deref(),
            &path.field("podAntiAffinity"),
            errors,
        );
    }
}

fn weight(weight: i32, path: &Path<'_>, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.field("weight"), weight, "must be in the range 1-100");
    }
}

/// Values of labels are checked only where the term is required: a preference may name what cannot be.
fn node_term(term: &NodeSelectorTerm, required: bool, path: &Path<'_>, errors: &mut Errors) {
    let expressions = path.field("matchExpressions");
    for (at, requirement) in term.match_expressions.iter().flatten().enumerate() {
        node_requirement(requirement, required, &expressions.index(at), errors);
    }
    let fields = path.field("matchFields");
    for (at, requirement) in term.match_fields.iter().flatten().enumerate() {
        node_field(requirement, &fields.index(at), errors);
    }
}

fn node_requirement(
    requirement: &NodeSelectorRequirement,
    check_values: bool,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let values = requirement.values.as_deref().unwrap_or(&[]);
    let values_path = path.field("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors
                    .required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&values_path, message);
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let message = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.required(&values_path, message);
            }
        }
        operator => {
            errors.invalid(
                &path.field("operator"),
                Json(operator),
                "not a valid selector operator",
            );
        }
    }
    metadata::label_name(&requirement.key, &path.field("key"), errors);
    for (at, value) in values.iter().enumerate().filter(|_| check_values) {
        errors.invalid_all(&values_path.index(at), value, names::label_value(value));
    }
}

fn node_field(requirement: &NodeSelectorRequirement, path: &Path<'_>, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or(&[]);
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let message = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&path.field("values"), message);
            }
        }
        operator => {
            errors.invalid(
                &path.field("operator"),
                Json(operator),
                "not a valid selector operator",
            );
        }
    }
    if requirement.key != "metadata.name" {
        let message = "not a valid field selector key";
        errors.invalid(&path.field("key"), requirement.key.as_str(), message);
        return;
    }
    let path = path.field("values");
    for (at, value) in values.iter().enumerate() {
        errors.invalid_all(&path.index(at), value, names::dns_subdomain(value));
    }
}

fn pod_terms(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let terms = path.field(REQUIRED);
    for (at, term) in required.unwrap_or(&[]).iter().enumerate() {
        pod_term(term, &terms.index(at), errors);
    }
    let terms = path.field(PREFERRED);
    for (at, weighted) in preferred.unwrap_or(&[]).iter().enumerate() {
        let path = terms.index(at);
        weight(weighted.weight, &path, errors);
        pod_term(&weighted.pod_affinity_term, &path.field("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &PodAffinityTerm, path: &Path<'_>, errors: &mut Errors) {
    let selector = term.label_selector.as_ref();
    metadata::label_selector(selector, &path.field("labelSelector"), errors);
    metadata::label_selector(
        term.namespace_selector.as_ref(),
        &path.field("namespaceSelector"),
        errors,
    );
    for name in term.namespaces.iter().flatten() {
        errors.invalid_all(&path.field("namespace"), name, names::dns_label(name));
    }
    let matching = term.match_label_keys.as_deref().unwrap_or(&[]);
    let mismatching = term.mismatch_label_keys.as_deref().unwrap_or(&[]);
    scheduling::match_label_keys(matching, mismatching, selector, path, errors);
    let key = path.field("topologyKey");
    if term.topology_key.is_empty() {
        errors.required(&key, "can not be empty");
    }
    metadata::label_name(&term.topology_key, &key, errors);
}
