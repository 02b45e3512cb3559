//! Beside which pods a pod is to run, and beside which not.
//!
//! Source: `AffinityTerm` in `staging/src/k8s.io/kube-scheduler/framework/types.go`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodAffinityTerm, WeightedPodAffinityTerm};
use mainstay_pod::scheduling::selector::{Labels, Selector};

use super::Kind;
use crate::pods::Pod;

/// Pods, and how near is beside them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct AffinityTerm {
    namespaces: BTreeSet<String>,
    namespace_selector: Selector,
    selector: Selector,
    /// Nodes whose label of this key has the same value are beside each other.
    pub(in super::super) topology_key: String,
}

/// All terms of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Terms {
    pub(in super::super) required: Vec<AffinityTerm>,
    pub(in super::super) required_anti: Vec<AffinityTerm>,
    /// Each with its weight; one of those that it would rather not run beside is below zero.
    pub(in super::super) preferred: Vec<(i64, AffinityTerm)>,
}

impl AffinityTerm {
    /// Whether it is about pods of a kind. `namespaces` are the labels of all of them.
    pub(in super::super) fn matches(
        &self,
        kind: &Kind,
        namespaces: &BTreeMap<String, Labels>,
    ) -> bool {
        let in_namespace = || {
            self.namespaces.contains(&kind.namespace)
                || namespaces.get(&kind.namespace).map_or_else(
                    || self.namespace_selector.matches(&Labels::new()),
                    |labels| self.namespace_selector.matches(labels),
                )
        };
        in_namespace() && self.selector.matches(&kind.labels)
    }

    fn of(term: &PodAffinityTerm, pod: &Pod) -> Self {
        let own = pod.metadata.namespace.clone().unwrap_or_default();
        let listed = term.namespaces.iter().flatten().cloned().collect::<BTreeSet<_>>();
        let own_only = listed.is_empty() && term.namespace_selector.is_none();
        let mut selector = Selector::of(term.label_selector.as_ref());
        let label = |key: &String| pod.metadata.labels.as_ref()?.get(key).cloned();
        for key in term.match_label_keys.iter().flatten() {
            if let Some(value) = label(key) {
                selector = selector.and(key, &value);
            }
        }
        for key in term.mismatch_label_keys.iter().flatten() {
            if let Some(value) = label(key) {
                selector = selector.and_not(key, &value);
            }
        }
        Self {
            namespaces: if own_only { BTreeSet::from([own]) } else { listed },
            namespace_selector: Selector::of(term.namespace_selector.as_ref()),
            selector,
            topology_key: term.topology_key.clone(),
        }
    }
}

impl Terms {
    pub(super) fn of(pod: &Pod) -> Self {
        let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let with = affinity.and_then(|it| it.pod_affinity.as_ref());
        let without = affinity.and_then(|it| it.pod_anti_affinity.as_ref());
        let required = |terms: Option<&Option<Vec<PodAffinityTerm>>>| {
            let terms = terms.into_iter().flatten().flatten();
            terms.map(|term| AffinityTerm::of(term, pod)).collect()
        };
        let preferred = |terms: Option<&Option<Vec<WeightedPodAffinityTerm>>>, sign: i64| {
            let terms = terms.into_iter().flatten().flatten();
            let weighted = terms.map(|term| {
                (sign * i64::from(term.weight), AffinityTerm::of(&term.pod_affinity_term, pod))
            });
            weighted.collect::<Vec<_>>()
        };
        let mut all =
            preferred(with.map(|it| &it.preferred_during_scheduling_ignored_during_execution), 1);
        all.extend(preferred(
            without.map(|it| &it.preferred_during_scheduling_ignored_during_execution),
            -1,
        ));
        Self {
            required: required(
                with.map(|it| &it.required_during_scheduling_ignored_during_execution),
            ),
            required_anti: required(
                without.map(|it| &it.required_during_scheduling_ignored_during_execution),
            ),
            preferred: all,
        }
    }

    /// Whether it is without any.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.required.is_empty() && self.required_anti.is_empty() && self.preferred.is_empty()
    }
}
