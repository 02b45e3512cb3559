//! How evenly pods would rather be spread.
//!
//! Source: `pkg/scheduler/framework/plugins/podtopologyspread/scoring.go`.

use std::collections::{BTreeMap, BTreeSet};

use super::super::pod::PodInfo;
use super::super::snapshot::{Slot, Snapshot};
use super::super::spread::{Constraint, HOSTNAME, by_default, has_all_keys, said, value};
use super::{Feasible, MAX, real, whole};

/// What there is already, of what one rule is about.
struct Rule<'a> {
    constraint: &'a Constraint<'a>,
    /// By slot.
    pods: Vec<i64>,
    /// By the value of the topology key; not of host names, which are one node each.
    domains: BTreeMap<&'a str, i64>,
    /// The more domains there are, the more one pod counts.
    weight: f64,
}

pub(super) fn scores(pod: &PodInfo, snapshot: &Snapshot, nodes: &[Feasible<'_>]) -> Vec<i64> {
    let belonging = snapshot.workloads.selector(pod);
    let says = pod.spec().topology_spread_constraints.as_ref().is_some_and(|it| !it.is_empty());
    let constraints = if says { said(pod, "ScheduleAnyway") } else { by_default(&belonging) };
    if constraints.is_empty() {
        return Vec::new();
    }
    // Nodes without zones are none the worse for that if nobody asked for them.
    let ignored: BTreeSet<Slot> = nodes
        .iter()
        .filter(|it| says && !has_all_keys(it.node, &constraints))
        .map(|it| it.slot)
        .collect();
    let counted: Vec<Feasible<'_>> =
        nodes.iter().filter(|it| !ignored.contains(&it.slot)).copied().collect();
    let all_keys = |slot: Slot| {
        !says || snapshot.at(slot).is_some_and(|(_, node)| has_all_keys(node, &constraints))
    };
    let rules: Vec<Rule<'_>> = constraints
        .iter()
        .map(|constraint| Rule::new(constraint, pod, snapshot, &counted, &all_keys))
        .collect();
    let raw = |feasible: &Feasible<'_>| {
        (!ignored.contains(&feasible.slot)).then(|| {
            let parts = rules.iter().filter_map(|rule| rule.score(feasible));
            whole(parts.sum::<f64>().round())
        })
    };
    normalize(&nodes.iter().map(raw).collect::<Vec<_>>())
}

/// The fewer there are, the better.
fn normalize(scores: &[Option<i64>]) -> Vec<i64> {
    let least = scores.iter().flatten().copied().min().unwrap_or(0);
    let most = scores.iter().flatten().copied().max().unwrap_or(0).max(0);
    let normalized = scores.iter().map(|score| match score {
        None => 0,
        Some(_) if most == 0 => MAX,
        Some(score) => MAX * (most + least - score) / most,
    });
    normalized.collect()
}

impl<'a> Rule<'a> {
    fn new(
        constraint: &'a Constraint<'a>,
        pod: &PodInfo,
        snapshot: &'a Snapshot,
        counted: &[Feasible<'a>],
        all_keys: &dyn Fn(Slot) -> bool,
    ) -> Self {
        let pods = constraint.pods(pod, snapshot);
        let mut domains = BTreeMap::new();
        let mut size = counted.len();
        if constraint.topology_key != HOSTNAME {
            let value_of =
                |it: &Feasible<'a>| value(it.node, constraint.topology_key).unwrap_or("");
            domains = counted.iter().map(|it| (value_of(it), 0)).collect();
            size = domains.len();
            for (slot, count) in pods.iter().enumerate().filter(|(_, count)| **count > 0) {
                let Some((_, node)) = snapshot.at(slot) else { continue };
                let value = value(node, constraint.topology_key).unwrap_or("");
                if all_keys(slot)
                    && constraint.counts(pod, node)
                    && let Some(sum) = domains.get_mut(value)
                {
                    *sum += count;
                }
            }
        }
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        Self { constraint, pods, domains, weight: (real(size) + 2.0).ln() }
    }

    fn score(&self, feasible: &Feasible<'_>) -> Option<f64> {
        let value = value(feasible.node, self.constraint.topology_key)?;
        let there = match self.constraint.topology_key {
            HOSTNAME => self.pods.get(feasible.slot),
            _ => self.domains.get(value),
        };
        let there = there.copied().unwrap_or(0);
        Some(real(there) * self.weight + real(self.constraint.max_skew - 1))
    }
}
