//! Beside which pods a pod has to run, and beside which it must not.
//!
//! Source: `pkg/scheduler/framework/plugins/interpodaffinity/filtering.go`.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Node;

use super::super::pod::{AffinityTerm, PodInfo};
use super::super::snapshot::{Slot, Snapshot};
use super::super::spread::value;
use super::{Plugin, Rejection};

/// How many pods are beside a node, by a label of it: its key and its value.
type Counts<'a> = HashMap<(&'a str, &'a str), i64>;

/// What a pod and the other pods say of each other.
#[derive(Clone, Debug)]
pub(super) struct Affinity<'a> {
    pod: &'a PodInfo,
    /// Pods that do not want to run beside it.
    unwilling: Counts<'a>,
    /// Pods that all its terms are about, if it has any.
    wanted: Counts<'a>,
    /// Pods that it does not want to run beside.
    unwanted: Counts<'a>,
    /// Whether it is itself one that its terms are about.
    own: bool,
}

impl<'a> Affinity<'a> {
    pub(super) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let mut found = Self {
            pod,
            unwilling: Counts::new(),
            wanted: Counts::new(),
            unwanted: Counts::new(),
            own: pod
                .kind
                .terms
                .required
                .iter()
                .all(|it| it.matches(&pod.kind, &snapshot.namespaces)),
        };
        for (kind, on) in snapshot.kinds.ruling() {
            for term in &kind.terms.required_anti {
                if term.matches(&pod.kind, &snapshot.namespaces) {
                    for (slot, count) in on {
                        count_in(&mut found.unwilling, snapshot, *slot, term, count.all);
                    }
                }
            }
        }
        let terms = &pod.kind.terms;
        if terms.required.is_empty() && terms.required_anti.is_empty() {
            return found;
        }
        for (kind, on) in snapshot.kinds.all() {
            let about = |term: &AffinityTerm| term.matches(kind, &snapshot.namespaces);
            if terms.required.iter().all(about) {
                for (slot, count) in on {
                    for term in &terms.required {
                        count_in(&mut found.wanted, snapshot, *slot, term, count.all);
                    }
                }
            }
            for term in terms.required_anti.iter().filter(|term| about(term)) {
                for (slot, count) in on {
                    count_in(&mut found.unwanted, snapshot, *slot, term, count.all);
                }
            }
        }
        found
    }

    pub(super) fn check(&self, node: &Node) -> Result<(), Rejection> {
        let reject = |resolvable, reason: &'static str| {
            Err(Rejection {
                plugin: Plugin::InterPodAffinity,
                reasons: vec![reason.into()],
                resolvable,
            })
        };
        if !self.is_beside_wanted(node) {
            return reject(false, "node(s) didn't match pod affinity rules");
        }
        let is_beside = |counts: &Counts<'_>, key: &str| {
            value(node, key)
                .is_some_and(|value| counts.get(&(key, value)).is_some_and(|it| *it > 0))
        };
        let mut unwanted = self.pod.kind.terms.required_anti.iter();
        if unwanted.any(|term| is_beside(&self.unwanted, &term.topology_key)) {
            return reject(true, "node(s) didn't match pod anti-affinity rules");
        }
        let mut labels = node.metadata.labels.iter().flatten();
        if !self.unwilling.is_empty() && labels.any(|(key, _)| is_beside(&self.unwilling, key)) {
            return reject(true, "node(s) didn't satisfy existing pods anti-affinity rules");
        }
        Ok(())
    }

    /// Whether all pods are beside a node that have to be. The first of some that have to be beside each
    /// other has none to be beside.
    fn is_beside_wanted(&self, node: &Node) -> bool {
        let terms = &self.pod.kind.terms.required;
        let mut all = true;
        for term in terms {
            let Some(value) = value(node, &term.topology_key) else { return false };
            let there = self.wanted.get(&(term.topology_key.as_str(), value));
            all &= there.is_some_and(|count| *count > 0);
        }
        all || (self.own && self.wanted.values().all(|count| *count == 0))
    }

    pub(super) fn change(&mut self, snapshot: &'a Snapshot, other: &PodInfo, slot: Slot, by: i64) {
        let about = |term: &&AffinityTerm| term.matches(&other.kind, &snapshot.namespaces);
        let terms = &self.pod.kind.terms;
        if !terms.required.is_empty() && terms.required.iter().all(|term| about(&term)) {
            for term in &terms.required {
                count_in(&mut self.wanted, snapshot, slot, term, by);
            }
        }
        for term in terms.required_anti.iter().filter(about) {
            count_in(&mut self.unwanted, snapshot, slot, term, by);
        }
        for term in &other.kind.terms.required_anti {
            if term.matches(&self.pod.kind, &snapshot.namespaces) {
                count_in(&mut self.unwilling, snapshot, slot, term, by);
            }
        }
    }
}

fn count_in<'a>(
    counts: &mut Counts<'a>,
    snapshot: &'a Snapshot,
    slot: Slot,
    term: &AffinityTerm,
    by: i64,
) {
    if let Some(label) = snapshot.label(slot, &term.topology_key) {
        *counts.entry(label).or_default() += by;
    }
}
