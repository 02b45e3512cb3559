//! Node selectors and node affinity.
//!
//! Source: `nodeaffinity/nodeaffinity.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

/// The one field of nodes that terms may name.
const NAME: &str = "metadata.name";

/// Whether a node is one that the pod may run on.
pub fn matches(spec: &PodSpec, node: &Node) -> bool {
    let mut selected = spec.node_selector.iter().flatten();
    if !selected.all(|(key, value)| label(node, key) == Some(value)) {
        return false;
    }
    required(spec).is_none_or(|terms| terms.iter().any(|term| holds(term, node)))
}

/// The names of the only nodes that the pod may run on, if it says them: each of its terms has to. None
/// means any node; an empty set none at all.
pub fn names(spec: &PodSpec) -> Option<BTreeSet<&str>> {
    let terms = required(spec).filter(|terms| !terms.is_empty())?;
    let mut names = BTreeSet::new();
    for term in terms {
        let fields = term.match_fields.iter().flatten();
        let lists = fields.filter(|field| field.key == NAME && field.operator == "In");
        let sets = lists.map(|field| -> BTreeSet<&str> {
            field.values.iter().flatten().map(String::as_str).collect()
        });
        names.extend(sets.reduce(|one, other| &one & &other)?);
    }
    Some(names)
}

/// The sum of the weights of the terms that hold, of those that the pod would rather have hold.
pub fn preferred_weight(spec: &PodSpec, node: &Node) -> i64 {
    let preferred = affinity(spec)
        .and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
    // An empty term holds of no node.
    let held = preferred.into_iter().flatten().filter(|it| holds(&it.preference, node));
    held.map(|it| i64::from(it.weight)).sum()
}

/// Whether the pod would rather have some terms hold.
pub fn prefers(spec: &PodSpec) -> bool {
    affinity(spec).is_some_and(|it| {
        let terms = it.preferred_during_scheduling_ignored_during_execution.as_ref();
        terms.is_some_and(|terms| !terms.is_empty())
    })
}

fn affinity(spec: &PodSpec) -> Option<&NodeAffinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}

fn required(spec: &PodSpec) -> Option<&[NodeSelectorTerm]> {
    let required = &affinity(spec)?.required_during_scheduling_ignored_during_execution;
    required.as_ref().map(|selector| selector.node_selector_terms.as_slice())
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether one term holds; an empty one holds of no node.
fn holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| match key {
        NAME => node.metadata.name.as_deref(),
        _ => None,
    };
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|it| meets(it, label(node, &it.key)))
        && fields.iter().all(|it| meets(it, field(&it.key)))
}

/// Source: `Requirement.Matches` in `staging/src/k8s.io/apimachinery/pkg/labels/selector.go`.
fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|it| it == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = values.first().and_then(|text| number(text)).filter(|_| values.len() == 1);
    let than = |holds: fn(&i64, &i64) -> bool| match (value.and_then(number), bound) {
        (Some(value), Some(bound)) => holds(&value, &bound),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => than(i64::gt),
        "Lt" => than(i64::lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
