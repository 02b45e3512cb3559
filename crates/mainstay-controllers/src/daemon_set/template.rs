//! Pods of a DaemonSet.
//!
//! Source: `pkg/controller/daemon/util/daemonset_util.go`.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use mainstay_pod::scheduling::taints::{
    NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, UNSCHEDULABLE,
};

use super::history::{HASH, label};
use crate::{owner, pods};

/// The annotation in which the API counts changes of the template, and the label that pods have of it.
const GENERATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// What stands in the way of other pods and not of these.
const TOLERATED: [(&str, &str); 6] = [
    (NOT_READY, NO_EXECUTE),
    (UNREACHABLE, NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    (UNSCHEDULABLE, NO_SCHEDULE),
];
/// And of those that use the network of their node.
const NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", NO_SCHEDULE);

/// A pod of the revision with this hash that is tied to no node yet; `None` if there is no template.
pub(super) fn pod(set: &DaemonSet, hash: &str) -> Option<Pod> {
    let template = &set.spec.as_ref()?.template;
    let mut pod = pods::from_template(template, &set.metadata, owner::reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    if !hash.is_empty() {
        labels.insert(HASH.to_owned(), hash.to_owned());
    }
    if let Some(generation) = generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    tolerate(pod.spec.as_mut()?);
    Some(pod)
}

/// A pod for a node, to which its affinity ties it.
pub(super) fn tied(pod: &Pod, node: &str) -> Pod {
    let mut pod = pod.clone();
    let only = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    let affinity = pod.spec.get_or_insert_default().affinity.get_or_insert_default();
    let affinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![only] });
    pod
}

/// Whether a pod was made from the template as it is now. Source: `IsPodUpdated`.
pub(super) fn is_current(set: &DaemonSet, hash: &str, pod: &Pod) -> bool {
    if !hash.is_empty() && label(&pod.metadata) == Some(hash) {
        return true;
    }
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(GENERATION_LABEL));
    generation(set).is_some_and(|generation| label.is_some_and(|label| label == generation))
}

fn generation(set: &DaemonSet) -> Option<&str> {
    set.metadata.annotations.as_ref()?.get(GENERATION).map(String::as_str)
}

/// Source: `AddOrUpdateDaemonPodTolerations`.
fn tolerate(spec: &mut PodSpec) {
    let network = (spec.host_network == Some(true)).then_some(NETWORK);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let added = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        // One that says for how long is taken for what it is about: for ever.
        let same = |it: &&mut Toleration| {
            let value = it.value.as_deref().unwrap_or_default();
            it.key == added.key
                && it.effect == added.effect
                && it.operator == added.operator
                && value.is_empty()
        };
        match tolerations.iter_mut().find(same) {
            Some(known) => *known = added,
            None => tolerations.push(added),
        }
    }
}
