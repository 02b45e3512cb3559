//! Which nodes a pod may have.
//!
//! The names of filters and their reasons are those that people know and search for. Source:
//! `pkg/scheduler/framework/plugins`, in the order of `getDefaultPlugins`.

mod affinity;
mod node;
mod resources;
mod spread;
mod volumes;

use std::borrow::Cow;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use mainstay_pod::scheduling::node_affinity;

use self::affinity::Affinity;
pub(super) use self::resources::insufficient;
use self::spread::Spread;
use super::pod::PodInfo;
use super::snapshot::{NodeInfo, Slot, Snapshot};

/// Who says no. In the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Plugin {
    NodeUnschedulable,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeBinding,
    PodTopologySpread,
    InterPodAffinity,
}

/// Why a node cannot have a pod, or none can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) plugin: Plugin,
    pub(super) reasons: Vec<Cow<'static, str>>,
    /// Whether it could if some of its pods were not there.
    pub(super) resolvable: bool,
}

/// All filters, for one pod.
#[derive(Clone, Debug)]
pub(super) struct Filters<'a> {
    pod: &'a PodInfo,
    spread: Spread<'a>,
    affinity: Affinity<'a>,
}

impl Rejection {
    fn resolvable(plugin: Plugin, reason: &'static str) -> Self {
        Self { plugin, reasons: vec![reason.into()], resolvable: true }
    }

    fn lasting(plugin: Plugin, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plugin, reasons: vec![reason.into()], resolvable: false }
    }
}

/// The names of the only nodes that come into question, if the pod says them.
///
/// # Errors
///
/// When it can have no node at all.
pub(super) fn names(pod: &PodInfo) -> Result<Option<BTreeSet<&str>>, Rejection> {
    let names = node_affinity::names(pod.spec());
    if names.as_ref().is_some_and(BTreeSet::is_empty) {
        return Err(Rejection::lasting(Plugin::NodeAffinity, "pod affinity terms conflict"));
    }
    volumes::check(pod)?;
    Ok(names)
}

impl<'a> Filters<'a> {
    pub(super) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        Self { pod, spread: Spread::new(pod, snapshot), affinity: Affinity::new(pod, snapshot) }
    }

    /// # Errors
    ///
    /// The first reason against the node.
    pub(super) fn check(&self, info: &NodeInfo, node: &Node) -> Result<(), Rejection> {
        node::schedulable(self.pod, node)?;
        node::tolerated(self.pod, node)?;
        node::wanted(self.pod, node)?;
        node::ports(self.pod, info)?;
        resources::fit(self.pod, info)?;
        self.spread.check(node)?;
        self.affinity.check(node)
    }

    /// Whether the node could have the pod both with and without the pods that wait for room on it and
    /// come first.
    ///
    /// # Errors
    ///
    /// As with [`check`](Self::check).
    ///
    /// Source: `RunFilterPluginsWithNominatedPods` in `pkg/scheduler/framework/runtime/framework.go`.
    pub(super) fn check_with_nominated(
        &self,
        snapshot: &'a Snapshot,
        slot: Slot,
        info: &NodeInfo,
        node: &Node,
    ) -> Result<(), Rejection> {
        let waiting = snapshot.nominated(&info.name).iter();
        let first =
            |other: &PodInfo| other.priority >= self.pod.priority && other.uid != self.pod.uid;
        let mut waiting = waiting.filter(|other| first(other)).peekable();
        if waiting.peek().is_some() {
            let (mut with, mut info) = (self.clone(), info.clone());
            for other in waiting {
                info.add(other);
                with.change(snapshot, other, slot, 1);
            }
            with.check(&info, node)?;
        }
        self.check(info, node)
    }

    /// Counts a pod on a node that is not there, or does not count one that is.
    pub(super) fn change(&mut self, snapshot: &'a Snapshot, other: &PodInfo, slot: Slot, by: i64) {
        self.spread.change(snapshot, other, slot, by);
        self.affinity.change(snapshot, other, slot, by);
    }
}

#[cfg(test)]
mod tests;
