//! How evenly pods have to be spread.
//!
//! Source: `pkg/scheduler/framework/plugins/podtopologyspread/filtering.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

use super::super::pod::PodInfo;
use super::super::snapshot::{Slot, Snapshot};
use super::super::spread::{Constraint, has_all_keys, said, value};
use super::{Plugin, Rejection};

/// The rules of a pod, and what there is already.
#[derive(Clone, Debug)]
pub(super) struct Spread<'a> {
    pod: &'a PodInfo,
    rules: Vec<Rule<'a>>,
}

#[derive(Clone, Debug)]
struct Rule<'a> {
    constraint: Constraint<'a>,
    /// One if the pod itself is one of those that are to be spread.
    own: i64,
    /// How many there are, by the value of the topology key.
    domains: BTreeMap<&'a str, i64>,
    /// The fewest.
    least: i64,
}

impl<'a> Spread<'a> {
    pub(super) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let constraints = said(pod, "DoNotSchedule");
        let rules = constraints.iter().map(|constraint| {
            let pods = constraint.pods(pod, snapshot);
            let mut domains = BTreeMap::new();
            for (slot, _, node) in snapshot.nodes() {
                if has_all_keys(node, &constraints)
                    && constraint.counts(pod, node)
                    && let Some(value) = value(node, constraint.topology_key)
                {
                    *domains.entry(value).or_default() += pods.get(slot).copied().unwrap_or(0);
                }
            }
            let own = i64::from(constraint.selector.matches(&pod.kind.labels));
            let mut rule = Rule { constraint: constraint.clone(), own, domains, least: 0 };
            rule.find_least();
            rule
        });
        Self { pod, rules: rules.collect() }
    }

    pub(super) fn check(&self, node: &Node) -> Result<(), Rejection> {
        for rule in &self.rules {
            let Some(value) = value(node, rule.constraint.topology_key) else {
                let reason = "node(s) didn't match pod topology spread constraints \
                              (missing required label)";
                return Err(Rejection::lasting(Plugin::PodTopologySpread, reason));
            };
            let there = rule.domains.get(value).copied().unwrap_or(0);
            if there + rule.own - rule.least > rule.constraint.max_skew {
                let reason = "node(s) didn't match pod topology spread constraints";
                return Err(Rejection::resolvable(Plugin::PodTopologySpread, reason));
            }
        }
        Ok(())
    }

    pub(super) fn change(&mut self, snapshot: &'a Snapshot, other: &PodInfo, slot: Slot, by: i64) {
        let Some((_, node)) = snapshot.at(slot) else { return };
        let ours = other.key.namespace == self.pod.key.namespace && !other.ending;
        let keyed = self.rules.iter().all(|it| value(node, it.constraint.topology_key).is_some());
        if !ours || !keyed {
            return;
        }
        for rule in &mut self.rules {
            if rule.constraint.selector.matches(&other.kind.labels)
                && !rule.constraint.selector.is_empty()
                && rule.constraint.counts(self.pod, node)
                && let Some(value) = value(node, rule.constraint.topology_key)
            {
                *rule.domains.entry(value).or_default() += by;
                rule.find_least();
            }
        }
    }
}

impl Rule<'_> {
    fn find_least(&mut self) {
        let enough = self.domains.len() >= self.constraint.min_domains;
        let least = self.domains.values().copied().min().filter(|_| enough);
        self.least = least.unwrap_or(0);
    }
}
