//! Which pods have to make room for a more important one.
//!
//! Source: `pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go`,
//! `pkg/scheduler/framework/preemption/preemption.go`.

use std::cmp::Reverse;
use std::sync::Arc;

use mainstay_pod::scheduling::selector::Selector;

use super::filter::{Filters, Plugin, Rejection};
use super::fit_error::FitError;
use super::pick;
use super::pod::PodInfo;
use super::snapshot::{Slot, Snapshot};
use crate::pods::DISRUPTION_TARGET;

/// How many nodes are looked into at most. Source: `MinCandidateNodesAbsolute`.
const CANDIDATES: usize = 100;

/// What comes of it.
#[derive(Debug)]
pub(super) enum Preemption {
    /// These are to be deleted for the pod to get this node.
    Node { name: String, victims: Vec<Arc<PodInfo>> },
    /// It makes no sense, and the pod is nominated for no node any more.
    Useless(String),
    /// The pod has to be waited with.
    Not(&'static str),
}

/// A node on which room can be made.
struct Candidate {
    slot: Slot,
    /// The most important first.
    victims: Vec<Arc<PodInfo>>,
    /// How many of them no budget allows to go.
    violations: usize,
}

/// Finds a node that could have the pod if less important ones were not there.
pub(super) fn preempt(
    pod: &PodInfo,
    snapshot: &Snapshot,
    error: &FitError,
    seed: u64,
) -> Preemption {
    if let Some(why) = not_eligible(pod, snapshot, error) {
        return Preemption::Not(why);
    }
    let all = snapshot.nodes().count();
    let hopeful = error.nodes.iter().filter(|(_, rejection)| rejection.resolvable);
    let mut slots: Vec<Slot> = hopeful.map(|(slot, _)| *slot).collect();
    let first = pick(seed, slots.len());
    slots.rotate_left(first);
    let filters = Filters::new(pod, snapshot);
    let (mut candidates, mut rejected) = (Vec::new(), Vec::new());
    let enough = CANDIDATES.max(slots.len() / 10);
    for slot in slots {
        match victims(pod, snapshot, &filters, slot) {
            Ok(candidate) => candidates.push(candidate),
            Err(rejection) => rejected.push((slot, rejection)),
        }
        if candidates.len() >= enough && candidates.iter().any(|it| it.violations == 0) {
            break;
        }
    }
    let best = candidates.into_iter().min_by_key(cost);
    match best.and_then(|best| Some((snapshot.at(best.slot)?.0.name.to_string(), best.victims))) {
        Some((name, victims)) => Preemption::Node { name, victims },
        None => Preemption::Useless(FitError::of_preemption(rejected).message(all, "")),
    }
}

/// Why nothing is to be deleted for a pod.
fn not_eligible(pod: &PodInfo, snapshot: &Snapshot, error: &FitError) -> Option<&'static str> {
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let slot = snapshot.named(snapshot.nomination(&pod.uid)?)?;
    if !error.of_node(slot)?.resolvable {
        return None;
    }
    let (info, _) = snapshot.at(slot)?;
    let mut leaving = info.pods().filter(|other| other.priority < pod.priority);
    leaving
        .any(|other| snapshot.leaving.contains(&other.uid) || is_being_preempted(other))
        .then_some("not eligible due to a terminating pod on the nominated node.")
}

fn is_being_preempted(pod: &PodInfo) -> bool {
    let conditions = pod.status().into_iter().flat_map(|it| it.conditions.iter().flatten());
    pod.ending
        && conditions.into_iter().any(|it| {
            it.type_ == DISRUPTION_TARGET
                && it.status == "True"
                && it.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

/// The fewest and least important pods of a node without which it could have the pod. Source:
/// `SelectVictimsOnNode`.
fn victims<'a>(
    pod: &PodInfo,
    snapshot: &'a Snapshot,
    filters: &Filters<'a>,
    slot: Slot,
) -> Result<Candidate, Rejection> {
    let lasting = |reason: &'static str| Rejection {
        plugin: Plugin::NodeResourcesFit,
        reasons: vec![reason.into()],
        resolvable: false,
    };
    let (info, node) = snapshot.at(slot).ok_or_else(|| lasting("node not found"))?;
    let (mut info, mut filters) = (info.clone(), filters.clone());
    let lesser = |other: &&Arc<PodInfo>| other.priority < pod.priority && !other.is_mirror;
    let mut lesser: Vec<Arc<PodInfo>> = info.pods().filter(lesser).cloned().collect();
    if lesser.is_empty() {
        return Err(lasting("No preemption victims found for incoming pod"));
    }
    for other in &lesser {
        info.remove(other);
        filters.change(snapshot, other, slot, -1);
    }
    filters.check_with_nominated(snapshot, slot, &info, node)?;
    lesser.sort_by_key(|other| importance(other));
    let (violating, others) = by_budgets(lesser, snapshot);
    let (mut victims, mut violations) = (Vec::new(), 0);
    for (other, violates) in
        violating.into_iter().map(|it| (it, true)).chain(others.into_iter().map(|it| (it, false)))
    {
        info.add(&other);
        filters.change(snapshot, &other, slot, 1);
        if filters.check_with_nominated(snapshot, slot, &info, node).is_err() {
            info.remove(&other);
            filters.change(snapshot, &other, slot, -1);
            violations += usize::from(violates);
            victims.push(other);
        }
    }
    if victims.is_empty() {
        return Err(lasting("No preemption victims found for incoming pod"));
    }
    victims.sort_by_key(|other| importance(other));
    Ok(Candidate { slot, victims, violations })
}

/// The most important is the least: the higher its priority and the longer it runs. Source:
/// `MoreImportantPod` in `pkg/scheduler/util/utils.go`.
fn importance(pod: &PodInfo) -> (Reverse<i32>, jiff::Timestamp) {
    (Reverse(pod.priority), pod.started())
}

/// Pods that no disruption budget allows to go, and the others. Source: `filterPodsWithPDBViolation`.
fn by_budgets(
    pods: Vec<Arc<PodInfo>>,
    snapshot: &Snapshot,
) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    struct Budget<'a> {
        namespace: &'a str,
        selector: Selector,
        allowed: i32,
        gone: Vec<&'a str>,
    }
    let mut budgets: Vec<Budget<'_>> = snapshot
        .budgets
        .iter()
        .map(|(key, budget)| {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let status = budget.status.as_ref();
            let gone = status.and_then(|it| it.disrupted_pods.as_ref()).into_iter().flatten();
            Budget {
                namespace: &key.namespace,
                selector: Selector::of(selector),
                allowed: status.and_then(|it| it.disruptions_allowed).unwrap_or(0),
                gone: gone.map(|(name, _)| name.as_str()).collect(),
            }
        })
        .collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for budget in &mut budgets {
            let about = budget.namespace == pod.key.namespace
                && !pod.kind.labels.is_empty()
                && !budget.selector.is_empty()
                && budget.selector.matches(&pod.kind.labels);
            if about && !budget.gone.contains(&pod.key.name.as_str()) {
                budget.allowed -= 1;
                violates |= budget.allowed < 0;
            }
        }
        violates
    })
}

/// The best to make room on is the least. Source: `pickOneNodeForPreemption`.
fn cost(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<jiff::Timestamp>) {
    let highest = candidate.victims.first().map_or(i32::MIN, |pod| pod.priority);
    // So that one of a low priority is better than two of a negative one.
    let above_zero = |pod: &Arc<PodInfo>| i64::from(pod.priority) + i64::from(i32::MAX) + 1;
    let sum = candidate.victims.iter().map(above_zero).sum();
    let first = candidate.victims.iter().filter(|pod| pod.priority == highest);
    let earliest = first.map(|pod| pod.started()).min().unwrap_or(jiff::Timestamp::MAX);
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest))
}
