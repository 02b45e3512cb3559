//! Why no node can have a pod, in the words that people know.
//!
//! Source: `FitError` and `Diagnosis` in `pkg/scheduler/framework/types.go`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::filter::{Plugin, Rejection};
use super::snapshot::Slot;

/// What is said before whatever is said of making room. No pod here has claims, as nearly no pod anywhere
/// has, and so this is what people read. Source: `PostFilter` of
/// `pkg/scheduler/framework/plugins/dynamicresources`, which is asked first.
const NO_CLAIMS: &str = "no new claims to deallocate";

/// Why no node can have a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct FitError {
    /// Why no node whatever can.
    whole: Option<Rejection>,
    /// Why each of those cannot that came into question.
    pub(super) nodes: Vec<(Slot, Rejection)>,
    /// Why the others cannot.
    others: Option<Cow<'static, str>>,
}

impl FitError {
    pub(super) fn whole(rejection: Rejection) -> Self {
        Self { whole: Some(rejection), ..Self::default() }
    }

    /// `named` if the pod says by name which nodes come into question.
    pub(super) fn by_nodes(nodes: Vec<(Slot, Rejection)>, named: bool) -> Self {
        let others = named.then(|| "node(s) didn't satisfy plugin(s) [NodeAffinity]".into());
        Self { whole: None, nodes, others }
    }

    /// Of an attempt to make room: nodes that are not in the list cannot have room made.
    pub(super) fn of_preemption(nodes: Vec<(Slot, Rejection)>) -> Self {
        let others = Some("Preemption is not helpful for scheduling".into());
        Self { whole: None, nodes, others }
    }

    /// Who said no.
    pub(super) fn plugins(&self, all: usize) -> BTreeSet<Plugin> {
        let rejections = self.nodes.iter().map(|(_, rejection)| rejection).chain(&self.whole);
        let mut plugins: BTreeSet<Plugin> = rejections.map(|it| it.plugin).collect();
        if self.whole.is_none() && self.others.is_some() && self.nodes.len() < all {
            plugins.insert(Plugin::NodeAffinity);
        }
        plugins
    }

    /// Why a node cannot have it; none if it is not one of those that came into question.
    pub(super) fn of_node(&self, slot: Slot) -> Option<&Rejection> {
        self.nodes.iter().find(|(of, _)| *of == slot).map(|(_, rejection)| rejection)
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.` and what came of making
    /// room, if anything is to be said about that. `all` is how many nodes there are.
    pub(super) fn message(&self, all: usize, preemption: &str) -> String {
        let mut message = format!("0/{all} nodes are available:");
        if let Some(whole) = &self.whole {
            message += &format!(" {}.", whole.reasons.join(", "));
        } else {
            let reasons = self.reasons(all);
            if !reasons.is_empty() {
                message += &format!(" {}.", reasons.join(", "));
            }
        }
        if !preemption.is_empty() {
            message += &format!(" {NO_CLAIMS}, preemption: {preemption}");
        }
        message
    }

    /// Each reason with the number of nodes that it is one of, sorted as text.
    fn reasons(&self, all: usize) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.nodes.iter().flat_map(|(_, rejection)| &rejection.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        let absent = all.saturating_sub(self.nodes.len());
        if let Some(reason) = &self.others
            && absent > 0
        {
            *counts.entry(reason).or_default() += absent;
        }
        let mut reasons: Vec<String> =
            counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort_unstable();
        reasons
    }
}
