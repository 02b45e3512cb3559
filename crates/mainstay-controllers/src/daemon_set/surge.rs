//! Replacing pods by beginning with the new one.
//!
//! Source: `rollingUpdate` in `pkg/controller/daemon/update.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;

use super::decide::{Decision, Why, is_available, is_ending};
use super::template;
use crate::pods::Pod;

/// Decides which nodes get a new pod beside their old one, and which old ones go. No more than
/// `max_surge` nodes get one whose old one serves somebody; of a node that should have none any more
/// it goes only when there are enough elsewhere.
pub(super) fn surge(
    decision: &mut Decision,
    set: &DaemonSet,
    hash: &str,
    taking: &BTreeSet<&str>,
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    max_surge: usize,
    now: Timestamp,
) {
    let (mut surging, mut available) = (0, 0);
    let (mut candidates, mut leaving) = (Vec::new(), Vec::new());
    for (node, pods) in pods {
        let Some(Pair { new, old }) = Pair::of(set, hash, pods) else {
            surging += 1;
            continue;
        };
        let serves = |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| is_available(set, pod, now));
        available += usize::from(serves(old.or(new)));
        let Some(old) = old else { continue };
        match (new, taking.contains(node.as_str())) {
            (Some(_), _) if serves(new) => decision.delete.push((old.clone(), Why::Outdated)),
            (Some(_), _) => surging += 1,
            (None, true) if serves(Some(old)) => candidates.push(node.clone()),
            (None, true) => decision.create.push(node.clone()),
            (None, false) if serves(Some(old)) => leaving.push(old.clone()),
            (None, false) => decision.delete.push((old.clone(), Why::Outdated)),
        }
    }
    candidates.truncate(max_surge.saturating_sub(surging));
    decision.create.extend(candidates);
    leaving.truncate(available.saturating_sub(taking.len()));
    decision.delete.extend(leaving.into_iter().map(|pod| (pod, Why::Outdated)));
}

/// The pods of a node.
#[derive(Default)]
struct Pair<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
}

impl<'a> Pair<'a> {
    /// `None` if there are more of one of them. Source: `findUpdatedPodsOnNode`.
    fn of(set: &DaemonSet, hash: &str, pods: &'a [Arc<Pod>]) -> Option<Self> {
        let mut pair = Self::default();
        for pod in pods.iter().filter(|pod| !is_ending(pod)) {
            let is_new = template::is_current(set, hash, pod);
            let slot = if is_new { &mut pair.new } else { &mut pair.old };
            if slot.replace(pod).is_some() {
                return None;
            }
        }
        Some(pair)
    }
}
