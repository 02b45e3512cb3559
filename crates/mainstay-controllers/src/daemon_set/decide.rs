//! Which pods a DaemonSet lacks, and which it has too many of.
//!
//! Source: `podsShouldBeOnNode` in `pkg/controller/daemon/daemon_controller.go` and `rollingUpdate` in
//! `pkg/controller/daemon/update.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::place::{Takes, is_bound, takes};
use super::template;
use crate::pods;

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

/// `pods` are those that are controlled, by node; `held` says how long a pod that failed on a node is to
/// be left there.
pub(super) fn decide(
    set: &DaemonSet,
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
        decision.decide_node(name, takes, pods.get(name).map(Vec::as_slice), &held);
    }
    // What waits for a node that is gone is bound by nobody, and collected by nobody else.
    for (_, pods) in pods.iter().filter(|(node, _)| !there.contains(node.as_str())) {
        let waiting = pods.iter().filter(|pod| !is_bound(pod) && !is_ending(pod));
        decision.delete.extend(waiting.map(|pod| (pod.clone(), Why::Unwanted)));
    }
    if decision.create.is_empty() && decision.delete.is_empty() && updates_by_itself(set) {
        let outdated = outdated(set, &taking, pods, now).into_iter();
        decision.delete.extend(outdated.map(|pod| (pod, Why::Outdated)));
    }
    decision
}

impl Decision {
    fn decide_node(
        &mut self,
        node: &str,
        takes: Takes,
        pods: Option<&[Arc<Pod>]>,
        held: &impl Fn(&str) -> Option<Duration>,
    ) {
        let Some(pods) = pods else {
            if takes == Takes::Yes {
                self.create.push(node.to_owned());
            }
            return;
        };
        let mut is_first = true;
        for pod in pods.iter().filter(|pod| !is_ending(pod)) {
            let why = match (takes, pods::phase(pod)) {
                (Takes::No, _) => Some(Why::Unwanted),
                (_, "Failed") => match held(node) {
                    Some(wait) => {
                        self.again = Some(self.again.map_or(wait, |again| again.min(wait)));
                        None
                    }
                    None => Some(Why::Failed),
                },
                (_, "Succeeded") => Some(Why::Succeeded),
                _ if std::mem::take(&mut is_first) => None,
                _ => Some(Why::Surplus),
            };
            self.delete.extend(why.map(|why| (pod.clone(), why)));
        }
    }
}

/// The pods of an older template that may be replaced now.
fn outdated(
    set: &DaemonSet,
    taking: &BTreeSet<&str>,
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let is_available =
        |pod: &Pod| pods::available_from(pod, min_ready(set)).is_some_and(|from| from <= now);
    let mut unavailable = taking.iter().filter(|node| !pods.contains_key(**node)).count();
    let (mut replaced, mut candidates) = (Vec::new(), Vec::new());
    for pods in pods.values() {
        let mut live = pods.iter().filter(|pod| !is_ending(pod));
        match (live.next(), live.next()) {
            (Some(pod), None) if template::is_current(set, pod) => {
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
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let number = match rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) {
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or_default(),
        Some(IntOrString::String(text)) => {
            let percent = text.trim_end_matches('%').parse::<usize>().unwrap_or_default();
            wanted.saturating_mul(percent).div_ceil(100)
        }
        None => 1,
    };
    number.max(1)
}

fn updates_by_itself(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

pub(super) fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
}

fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}
