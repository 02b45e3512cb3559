//! Which pods a DaemonSet lacks, and which it has too many of.
//!
//! Source: `podsShouldBeOnNode` in `pkg/controller/daemon/daemon_controller.go` and `rollingUpdate` in
//! `pkg/controller/daemon/update.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::history::label;
use super::place::{Takes, is_bound, takes};
use super::surge;
use super::template;
use crate::pods::{self, Pod};

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decision {
    /// The nodes that are to get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<(Arc<Pod>, Why)>,
    /// After what time it is to be decided again.
    pub(super) again: Option<Duration>,
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It has failed, and another one is to try.
    Failed,
    /// It has ended, and is to run for ever.
    Succeeded,
    /// There is an older one.
    Surplus,
    /// Its node is not to have one, or is not there.
    Unwanted,
    /// Its template is not the one that there is now.
    Outdated,
}

/// `hash` is that of the template as it is; `pods` are those that are controlled, by node; `held`
/// says how long a pod that failed on a node is to be left there.
pub(super) fn decide(
    set: &DaemonSet,
    hash: &str,
    nodes: &[Arc<Node>],
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    held: impl Fn(&str) -> Option<Duration>,
    now: Timestamp,
) -> Decision {
    let mut decision = Decision::default();
    let mut there = BTreeSet::new();
    let mut taking = BTreeSet::new();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        there.insert(name);
        let takes = takes(set, node);
        if takes == Takes::Yes {
            taking.insert(name);
        }
        let on_node = pods.get(name).map(Vec::as_slice);
        let running = decision.decide_node(name, takes, on_node, &held);
        match (allows_surge(set), running.as_slice()) {
            (false, running) => decision.surplus(running.iter().skip(1)),
            (true, []) if takes == Takes::Yes && on_node.is_some() => {
                decision.create.push(name.to_owned());
            }
            (true, [] | [_]) => {}
            (true, running) => decision.two(set, hash, running, now),
        }
    }
    // What waits for a node that is gone is bound by nobody, and collected by nobody else.
    for (_, pods) in pods.iter().filter(|(node, _)| !there.contains(node.as_str())) {
        let waiting = pods.iter().filter(|pod| !is_bound(pod) && !is_ending(pod));
        decision.delete.extend(waiting.map(|pod| (pod.clone(), Why::Unwanted)));
    }
    if decision.create.is_empty() && decision.delete.is_empty() && updates_by_itself(set) {
        let max_surge = scaled(max_surge(set), taking.len());
        if max_surge > 0 {
            surge::surge(&mut decision, set, hash, &taking, pods, max_surge, now);
        } else {
            let outdated = outdated(set, hash, &taking, pods, now).into_iter();
            decision.delete.extend(outdated.map(|pod| (pod, Why::Outdated)));
        }
    }
    decision
}

impl Decision {
    /// Answers the pods of the node that run, or will.
    fn decide_node(
        &mut self,
        node: &str,
        takes: Takes,
        pods: Option<&[Arc<Pod>]>,
        held: &impl Fn(&str) -> Option<Duration>,
    ) -> Vec<Arc<Pod>> {
        let mut running = Vec::new();
        let Some(pods) = pods else {
            if takes == Takes::Yes {
                self.create.push(node.to_owned());
            }
            return running;
        };
        for pod in pods.iter().filter(|pod| !is_ending(pod)) {
            let why = match (takes, pods::phase(pod)) {
                (Takes::No, _) => Why::Unwanted,
                (_, "Failed") => match held(node) {
                    Some(wait) => {
                        self.again = Some(self.again.map_or(wait, |again| again.min(wait)));
                        continue;
                    }
                    None => Why::Failed,
                },
                (_, "Succeeded") => Why::Succeeded,
                _ => {
                    running.push(pod.clone());
                    continue;
                }
            };
            self.delete.push((pod.clone(), why));
        }
        running
    }

    fn surplus<'a>(&mut self, pods: impl Iterator<Item = &'a Arc<Pod>>) {
        self.delete.extend(pods.map(|pod| (pod.clone(), Why::Surplus)));
    }

    /// Of pods of one node, one of each template stays: the old one as long as it is ready and the new
    /// one is not available.
    fn two(&mut self, set: &DaemonSet, hash: &str, running: &[Arc<Pod>], now: Timestamp) {
        let is_new = |pod: &&Arc<Pod>| label(&pod.metadata) == Some(hash);
        let new = running.iter().find(is_new);
        let old = running.iter().find(|pod| !is_new(pod));
        let stays =
            |pod: &&Arc<Pod>| [new, old].into_iter().flatten().any(|it| Arc::ptr_eq(it, *pod));
        self.surplus(running.iter().filter(|pod| !stays(pod)));
        if let (Some(new), Some(old)) = (new, old)
            && (!pods::is_ready(old) || is_available(set, new, now))
        {
            self.delete.push((old.clone(), Why::Outdated));
        }
    }
}

/// The pods of an older template that may be replaced now.
fn outdated(
    set: &DaemonSet,
    hash: &str,
    taking: &BTreeSet<&str>,
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let is_available = |pod: &Pod| is_available(set, pod, now);
    let mut unavailable = taking.iter().filter(|node| !pods.contains_key(**node)).count();
    let (mut replaced, mut candidates) = (Vec::new(), Vec::new());
    for pods in pods.values() {
        let mut live = pods.iter().filter(|pod| !is_ending(pod));
        match (live.next(), live.next()) {
            (Some(pod), None) if template::is_current(set, hash, pod) => {
                unavailable += usize::from(!is_available(pod));
            }
            // Nothing is lost with it.
            (Some(pod), None) if !is_available(pod) => {
                replaced.push(pod.clone());
                unavailable += 1;
            }
            (Some(pod), None) => candidates.push(pod.clone()),
            (None | Some(_), _) => unavailable += 1,
        }
    }
    candidates.truncate(max_unavailable(set, taking.len()).saturating_sub(unavailable));
    replaced.extend(candidates);
    replaced
}

/// How many pods may be unavailable; at least one, without which nothing would be replaced.
fn max_unavailable(set: &DaemonSet, wanted: usize) -> usize {
    let rolling = rolling(set);
    let number = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    scaled(Some(number.unwrap_or(&IntOrString::Int(1))), wanted).max(1)
}

/// How many nodes may have two pods. Source: `SurgeCount`.
fn max_surge(set: &DaemonSet) -> Option<&IntOrString> {
    rolling(set).and_then(|rolling| rolling.max_surge.as_ref())
}

/// Whether any may.
fn allows_surge(set: &DaemonSet) -> bool {
    updates_by_itself(set) && scaled(max_surge(set), 1) > 0
}

fn rolling(set: &DaemonSet) -> Option<&RollingUpdateDaemonSet> {
    set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()
}

/// A number, or a part of all, rounded up.
fn scaled(number: Option<&IntOrString>, all: usize) -> usize {
    match number {
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or_default(),
        Some(IntOrString::String(text)) => {
            let percent = text.trim_end_matches('%').parse::<usize>().unwrap_or_default();
            all.saturating_mul(percent).div_ceil(100)
        }
        None => 0,
    }
}

pub(super) fn is_available(set: &DaemonSet, pod: &Pod, now: Timestamp) -> bool {
    pods::available_from(pod, min_ready(set)).is_some_and(|from| from <= now)
}

fn updates_by_itself(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

pub(super) fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
}

pub(super) fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}
