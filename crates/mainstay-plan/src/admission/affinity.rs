//! Node selectors and required node affinity.
//!
//! Source: `staging/src/k8s.io/component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go`.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// Whether a node is one that the pod may run on.
pub(super) fn matches(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| {
        let labels = node.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(key)).map(String::as_str)
    };
    let selected = spec.node_selector.iter().flatten();
    if !selected.into_iter().all(|(key, value)| label(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let Some(required) = required else { return true };
    required.node_selector_terms.iter().any(|term| holds(term, node, &label))
}

/// Whether one term holds; an empty one holds of no node.
fn holds<'a>(
    term: &NodeSelectorTerm,
    node: &'a Node,
    label: &impl Fn(&str) -> Option<&'a str>,
) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| match key {
        "metadata.name" => node.metadata.name.as_deref(),
        _ => None,
    };
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|it| meets(it, label(&it.key)))
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
