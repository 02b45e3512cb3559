//! Beside which pods a pod would rather run, and which pods would rather have it beside them.
//!
//! Source: `pkg/scheduler/framework/plugins/interpodaffinity/scoring.go`.

use std::collections::{BTreeMap, HashMap};

use super::super::pod::{AffinityTerm, PodInfo};
use super::super::snapshot::{Count, Slot, Snapshot};
use super::super::spread::value;
use super::{Feasible, MAX, real, whole};

/// What it is worth to run beside a pod that cannot do without.
const REQUIRED: i64 = 1;

/// What it is worth to have a label, by its key and its value.
type Worth<'a> = HashMap<&'a str, HashMap<&'a str, i64>>;

pub(super) fn scores(pod: &PodInfo, snapshot: &Snapshot, nodes: &[Feasible<'_>]) -> Vec<i64> {
    let mut worth = Worth::new();
    let preferred = &pod.kind.terms.preferred;
    if !preferred.is_empty() {
        for (kind, on) in snapshot.kinds.all() {
            for (weight, term) in preferred {
                if term.matches(kind, &snapshot.namespaces) {
                    add(&mut worth, snapshot, term, *weight, on);
                }
            }
        }
    }
    for (kind, on) in snapshot.kinds.ruling() {
        let required = kind.terms.required.iter().map(|term| (REQUIRED, term));
        let preferred = kind.terms.preferred.iter().map(|(weight, term)| (*weight, term));
        for (weight, term) in required.chain(preferred) {
            if term.matches(&pod.kind, &snapshot.namespaces) {
                add(&mut worth, snapshot, term, weight, on);
            }
        }
    }
    if worth.is_empty() {
        return Vec::new();
    }
    let score = |feasible: &Feasible<'_>| {
        let labels = worth.iter().filter_map(|(key, values)| {
            value(feasible.node, key).and_then(|value| values.get(value))
        });
        labels.sum()
    };
    normalize(&nodes.iter().map(score).collect::<Vec<i64>>())
}

fn add<'a>(
    worth: &mut Worth<'a>,
    snapshot: &'a Snapshot,
    term: &AffinityTerm,
    weight: i64,
    on: &BTreeMap<Slot, Count>,
) {
    for (slot, count) in on {
        if let Some((key, value)) = snapshot.label(*slot, &term.topology_key) {
            *worth.entry(key).or_default().entry(value).or_default() += weight * count.all;
        }
    }
}

/// From 0 for the least to [`MAX`] for the most.
fn normalize(scores: &[i64]) -> Vec<i64> {
    let least = scores.iter().copied().min().unwrap_or(0);
    let most = scores.iter().copied().max().unwrap_or(0);
    let part = |score: &i64| {
        if most > least { whole(real(MAX) * (real(score - least) / real(most - least))) } else { 0 }
    };
    scores.iter().map(part).collect()
}
