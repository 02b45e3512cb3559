//! Whether something that happened may help a pod that no node could have.
//!
//! Source: `EventsToRegister` of each plugin, and the queueing hints that it names.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mainstay_pod::scheduling::{host_ports, node_affinity, taints};

use super::super::filter::{Plugin, insufficient};
use super::super::pod::{AffinityTerm, PodInfo};
use super::super::resource::{Capacity, Resource};
use super::super::snapshot::{Snapshot, taints as taints_of};
use super::super::spread::{Constraint, has_all_keys, said, value};

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Event<'a> {
    /// A node is new without `old`, and gone without `new`.
    Node { old: Option<&'a Node>, new: Option<&'a Node> },
    /// A pod got a node.
    Assigned(&'a PodInfo),
    /// A pod that has a node changed.
    Changed { old: &'a PodInfo, new: &'a PodInfo },
    /// A pod that had a node, or for which room was held, is gone.
    Gone(&'a PodInfo),
    /// The pod that waits was another one before.
    Itself { old: &'a PodInfo },
}

impl Event<'_> {
    /// Whether one of those who said no might not say it again. A pod to which nobody said no is helped by
    /// everything.
    pub(in super::super) fn may_help(
        &self,
        pod: &PodInfo,
        rejectors: &BTreeSet<Plugin>,
        snapshot: &Snapshot,
    ) -> bool {
        rejectors.is_empty() || rejectors.iter().any(|plugin| self.may_sway(*plugin, pod, snapshot))
    }

    fn may_sway(&self, plugin: Plugin, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        match plugin {
            Plugin::NodeUnschedulable => self.makes_schedulable(pod),
            Plugin::TaintToleration => self.makes_tolerated(pod),
            Plugin::NodeAffinity => self.makes_matching(pod),
            Plugin::NodePorts => self.frees_ports(pod),
            Plugin::NodeResourcesFit => self.frees_resources(pod),
            // There are no claims that could come.
            Plugin::VolumeBinding => false,
            Plugin::PodTopologySpread => self.changes_spread(pod),
            Plugin::InterPodAffinity => self.changes_affinity(pod, snapshot),
        }
    }

    fn makes_schedulable(&self, pod: &PodInfo) -> bool {
        let takes =
            |node: &Node| node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true));
        match self {
            Self::Node { old, new: Some(new) } => !old.is_some_and(takes) && takes(new),
            Self::Itself { old } => old.spec().tolerations != pod.spec().tolerations,
            Self::Node { .. } | Self::Assigned(_) | Self::Changed { .. } | Self::Gone(_) => false,
        }
    }

    fn makes_tolerated(&self, pod: &PodInfo) -> bool {
        let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
        let effects = [taints::NO_SCHEDULE, taints::NO_EXECUTE];
        let tolerated =
            |node: &Node| taints::untolerated(taints_of(node), tolerations, &effects).is_none();
        match self {
            Self::Node { old, new: Some(new) } => !old.is_some_and(tolerated) && tolerated(new),
            Self::Itself { old } => old.spec().tolerations != pod.spec().tolerations,
            Self::Node { .. } | Self::Assigned(_) | Self::Changed { .. } | Self::Gone(_) => false,
        }
    }

    fn makes_matching(&self, pod: &PodInfo) -> bool {
        let matches = |node: &Node| node_affinity::matches(pod.spec(), node);
        match self {
            Self::Node { old, new: Some(new) } => !old.is_some_and(matches) && matches(new),
            // Of a pod that is gated those may change, of one that waits they cannot.
            Self::Node { .. }
            | Self::Assigned(_)
            | Self::Changed { .. }
            | Self::Gone(_)
            | Self::Itself { .. } => false,
        }
    }

    fn frees_ports(&self, pod: &PodInfo) -> bool {
        match self {
            Self::Node { old, new } => old.is_none() && new.is_some(),
            Self::Gone(gone) => gone.host_ports.iter().any(|freed| {
                pod.host_ports.iter().any(|wanted| host_ports::conflict(wanted, freed))
            }),
            Self::Assigned(_) | Self::Changed { .. } | Self::Itself { .. } => false,
        }
    }

    fn frees_resources(&self, pod: &PodInfo) -> bool {
        match self {
            Self::Node { old, new: Some(new) } => {
                if old.is_some_and(|old| allocatable(old) == allocatable(new)) {
                    return false;
                }
                let has = Capacity::of(new);
                insufficient(&pod.requests, &has, 0, &Resource::default()).is_empty()
                    && old.is_none_or(|old| has_more(&pod.requests, &Capacity::of(old), &has))
            }
            Self::Gone(_) => true,
            Self::Changed { old, new } => wanted_less(&pod.requests, &old.requests, &new.requests),
            Self::Itself { old } => wanted_less(&pod.requests, &old.requests, &pod.requests),
            Self::Node { new: None, .. } | Self::Assigned(_) => false,
        }
    }

    fn changes_spread(&self, pod: &PodInfo) -> bool {
        let constraints = said(pod, "DoNotSchedule");
        let selects = |other: &PodInfo| {
            other.key.namespace == pod.key.namespace
                && constraints.iter().any(|it| it.selector.matches(&other.kind.labels))
        };
        match self {
            Self::Assigned(other) | Self::Gone(other) => selects(other),
            Self::Changed { old, new } => {
                old.key.namespace == pod.key.namespace
                    && old.kind.labels != new.kind.labels
                    && constraints.iter().any(|it| {
                        it.selector.matches(&old.kind.labels)
                            != it.selector.matches(&new.kind.labels)
                    })
            }
            Self::Itself { old } => {
                let (was, is) = (&old.spec().tolerations, &pod.spec().tolerations);
                old.kind.labels != pod.kind.labels
                    || was != is && constraints.iter().any(Constraint::is_about_taints)
            }
            Self::Node { old: Some(old), new: Some(new) } => {
                let (was, is) = (has_all_keys(old, &constraints), has_all_keys(new, &constraints));
                let moved = constraints
                    .iter()
                    .any(|it| value(old, it.topology_key) != value(new, it.topology_key));
                was != is || is && (moved || taints_of(old) != taints_of(new))
            }
            Self::Node { old, new } => {
                old.or(*new).is_some_and(|node| has_all_keys(node, &constraints))
            }
        }
    }

    fn changes_affinity(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        let terms = &pod.kind.terms;
        let all = |terms: &[AffinityTerm], other: &PodInfo| {
            let about = |term: &AffinityTerm| term.matches(&other.kind, &snapshot.namespaces);
            !terms.is_empty() && terms.iter().all(about)
        };
        // One of several terms against it is enough, and one of several for it.
        let any = |terms: &[AffinityTerm], other: &PodInfo| {
            terms.iter().any(|term| term.matches(&other.kind, &snapshot.namespaces))
        };
        match self {
            Self::Assigned(other) => all(&terms.required, other),
            Self::Changed { old, new } => {
                !all(&terms.required, old) && all(&terms.required, new)
                    || any(&terms.required_anti, old) && !any(&terms.required_anti, new)
                    || any(&old.kind.terms.required_anti, pod)
                        && !any(&new.kind.terms.required_anti, pod)
            }
            Self::Gone(other) => {
                any(&terms.required_anti, other) || any(&other.kind.terms.required_anti, pod)
            }
            Self::Itself { old } => old.kind.labels != pod.kind.labels,
            Self::Node { old: None, new: Some(new) } => {
                !terms.required_anti.is_empty()
                    || terms.required.iter().any(|term| value(new, &term.topology_key).is_some())
            }
            Self::Node { old: Some(old), new: Some(new) } => {
                let moved = |term: &AffinityTerm| {
                    value(old, &term.topology_key) != value(new, &term.topology_key)
                };
                let joins = |term: &AffinityTerm| value(new, &term.topology_key).is_some();
                let leaves = |term: &AffinityTerm| value(old, &term.topology_key).is_some();
                terms.required.iter().any(|term| moved(term) && joins(term))
                    || terms.required_anti.iter().any(|term| moved(term) && leaves(term))
            }
            Self::Node { new: None, .. } => false,
        }
    }
}

fn allocatable(node: &Node) -> Option<&BTreeMap<String, Quantity>> {
    node.status.as_ref()?.allocatable.as_ref()
}

/// Whether a node has more of something that is wanted.
fn has_more(wanted: &Resource, was: &Capacity, is: &Capacity) -> bool {
    is.pods > was.pods || !wanted.is_nothing() && wanted_less(wanted, &is.resources, &was.resources)
}

/// Whether of something that is wanted there was more than there is.
fn wanted_less(wanted: &Resource, was: &Resource, is: &Resource) -> bool {
    wanted.cpu > 0 && was.cpu > is.cpu
        || wanted.memory > 0 && was.memory > is.memory
        || wanted.ephemeral_storage > 0 && was.ephemeral_storage > is.ephemeral_storage
        || wanted.others.iter().any(|(name, it)| *it > 0 && was.other(name) > is.other(name))
}
