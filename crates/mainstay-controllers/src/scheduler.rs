//! The scheduler: it finds a node for each pod that has none.
//!
//! # Flow
//!
//! Changes that informers tell of go into the `state`: what nodes have and what is on them into its
//! [`snapshot`], pods that have no node into its [`queue`]. Pod after pod, [`schedule`] holds the filters of
//! [`filter`] against the nodes, has those that remain compared by [`score`], and, if none remains, asks
//! [`preempt`] whether room can be made. `run` carries out what comes of it: it binds pods, many at a time,
//! tells why others have to wait, deletes pods that have to make room.
//!
//! # Guarantees
//!
//! - A pod counts on its node from when it is decided that it gets it.
//! - Whatever changes between a decision and the next one is known to the next one: both happen under one
//!   lock, which is not held while anything is awaited.
//! - A pod that has to wait is looked at again when something changes that may help it, and every five
//!   minutes.
//! - Pods of static manifests never make room: their mirrors would go, they would not.
//!
//! Source: `pkg/scheduler`.

mod filter;
mod fit_error;
mod pod;
mod preempt;
mod queue;
mod resource;
mod run;
mod score;
mod snapshot;
mod spread;
mod state;

use self::filter::Filters;
use self::fit_error::FitError;
use self::pod::PodInfo;
use self::score::Feasible;
use self::snapshot::{Slot, Snapshot};

pub(crate) use self::pod::Demand;
pub(crate) use self::run::run;

/// The user that it is.
pub(crate) const USER: &str = "system:kube-scheduler";

/// What comes of looking for a node.
#[derive(Debug)]
enum Outcome {
    /// The pod gets this node.
    Node(String),
    /// There is not a single node.
    NoNodes,
    /// No node can have it.
    Unschedulable(FitError),
}

/// Finds a node for a pod. Of nodes that are equally good the seed picks one.
fn schedule(pod: &PodInfo, snapshot: &Snapshot, seed: u64) -> Outcome {
    if snapshot.nodes().next().is_none() {
        return Outcome::NoNodes;
    }
    let names = match filter::names(pod) {
        Ok(names) => names,
        Err(rejection) => return Outcome::Unschedulable(FitError::whole(rejection)),
    };
    let filters = Filters::new(pod, snapshot);
    let nominated = snapshot.nomination(&pod.uid).and_then(|name| snapshot.named(name));
    if let Some(slot) = nominated
        && let Some((info, node)) = snapshot.at(slot)
        && filters.check_with_nominated(snapshot, slot, info, node).is_ok()
    {
        return Outcome::Node(info.name.to_string());
    }
    let slots: Vec<Slot> = match &names {
        Some(names) => names.iter().filter_map(|name| snapshot.named(name)).collect(),
        None => snapshot.nodes().map(|(slot, _, _)| slot).collect(),
    };
    let enough = enough(slots.len());
    let (before, after) = slots.split_at(pick(seed, slots.len()));
    let mut feasible = Vec::new();
    let mut rejected = Vec::new();
    for slot in after.iter().chain(before).copied() {
        let Some((info, node)) = snapshot.at(slot) else { continue };
        match filters.check_with_nominated(snapshot, slot, info, node) {
            Ok(()) => feasible.push(Feasible { slot, info, node }),
            Err(rejection) => rejected.push((slot, rejection)),
        }
        if feasible.len() >= enough {
            break;
        }
    }
    match best(pod, snapshot, &feasible, seed) {
        Some(name) => Outcome::Node(name),
        None => Outcome::Unschedulable(FitError::by_nodes(rejected, names.is_some())),
    }
}

/// How many nodes that can have a pod are compared: all of a hundred, of more a part that gets smaller.
/// Source: `numFeasibleNodesToFind` in `schedule_one.go`.
fn enough(nodes: usize) -> usize {
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(100)
}

/// One of so many.
fn pick(seed: u64, count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    usize::try_from(seed % count).unwrap_or(0)
}

/// The best of some nodes.
fn best(
    pod: &PodInfo,
    snapshot: &Snapshot,
    feasible: &[Feasible<'_>],
    seed: u64,
) -> Option<String> {
    let [first, _, ..] = feasible else {
        return feasible.first().map(|only| only.info.name.to_string());
    };
    let scores = score::scores(pod, snapshot, feasible);
    let highest = scores.iter().max()?;
    let ties = feasible.iter().zip(&scores).filter(|(_, score)| *score == highest);
    let ties: Vec<&Feasible<'_>> = ties.map(|(node, _)| node).collect();
    // Not the number that said at which node to begin.
    let node = ties.get(pick(mix(seed), ties.len())).copied().unwrap_or(first);
    Some(node.info.name.to_string())
}

/// The next of a row of numbers that look random: splitmix64.
const fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
