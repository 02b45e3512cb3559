//! How evenly pods that belong together are to be spread.
//!
//! Source: `pkg/scheduler/framework/plugins/podtopologyspread/common.go`.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Node, TopologySpreadConstraint};
use mainstay_pod::scheduling::selector::Selector;
use mainstay_pod::scheduling::{node_affinity, taints};

use super::pod::PodInfo;
use super::snapshot::{Snapshot, taints as taints_of};

/// The label of nodes with the node's own name.
pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// What counts for pods that say nothing, only where nodes are compared: the key and the skew.
const BY_DEFAULT: [(&str, i32); 2] = [(HOSTNAME, 3), (ZONE, 5)];

/// One rule about spreading.
#[derive(Clone, Debug)]
pub(super) struct Constraint<'a> {
    pub(super) max_skew: i64,
    pub(super) topology_key: &'a str,
    pub(super) selector: Cow<'a, Selector>,
    pub(super) min_domains: usize,
    /// Whether nodes count that the pod may not have.
    honor_affinity: bool,
    honor_taints: bool,
}

/// Those of a pod with this action: `DoNotSchedule` or `ScheduleAnyway`.
pub(super) fn said<'a>(pod: &'a PodInfo, action: &str) -> Vec<Constraint<'a>> {
    let all = pod.spec().topology_spread_constraints.iter().flatten();
    let of_action = all.filter(|constraint| constraint.when_unsatisfiable == action);
    of_action.map(|constraint| Constraint::of(constraint, pod)).collect()
}

/// Those that count for a pod that says none, of what belongs with it.
pub(super) fn by_default(selector: &Selector) -> Vec<Constraint<'_>> {
    if selector.is_empty() {
        return Vec::new();
    }
    let rows = BY_DEFAULT.iter().map(|(topology_key, max_skew)| Constraint {
        max_skew: i64::from(*max_skew),
        topology_key,
        selector: Cow::Borrowed(selector),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    });
    rows.collect()
}

impl<'a> Constraint<'a> {
    fn of(constraint: &'a TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let mut selector = Selector::of(constraint.label_selector.as_ref());
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = pod.kind.labels.get(key) {
                selector = selector.and(key, value);
            }
        }
        let honor = |policy: &Option<String>, by_default: bool| {
            policy.as_deref().map_or(by_default, |policy| policy == "Honor")
        };
        Self {
            max_skew: i64::from(constraint.max_skew),
            topology_key: &constraint.topology_key,
            selector: Cow::Owned(selector),
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
            honor_affinity: honor(&constraint.node_affinity_policy, true),
            honor_taints: honor(&constraint.node_taints_policy, false),
        }
    }

    /// Whether the pods of a node count.
    pub(super) fn counts(&self, pod: &PodInfo, node: &Node) -> bool {
        let tolerations = || pod.spec().tolerations.as_deref().unwrap_or_default();
        let effects = [taints::NO_SCHEDULE, taints::NO_EXECUTE];
        (!self.honor_affinity || node_affinity::matches(pod.spec(), node))
            && (!self.honor_taints
                || taints::untolerated(taints_of(node), tolerations(), &effects).is_none())
    }

    /// Whether it wants the pod's taints honored.
    pub(super) fn is_about_taints(&self) -> bool {
        self.honor_taints
    }

    /// How many pods that it is about there are, by slot.
    pub(super) fn pods(&self, pod: &PodInfo, snapshot: &Snapshot) -> Vec<i64> {
        let mut pods = vec![0; snapshot.slots()];
        // One that requires nothing is about nothing.
        if self.selector.is_empty() {
            return pods;
        }
        let kinds = snapshot.kinds.of_namespace(&pod.key.namespace);
        for (_, on) in kinds.filter(|(kind, _)| self.selector.matches(&kind.labels)) {
            for (slot, count) in on {
                if let Some(sum) = pods.get_mut(*slot) {
                    *sum += count.all - count.ending;
                }
            }
        }
        pods
    }
}

/// Whether a node has labels of all their keys.
pub(super) fn has_all_keys(node: &Node, constraints: &[Constraint<'_>]) -> bool {
    constraints.iter().all(|it| value(node, it.topology_key).is_some())
}

/// A label of a node.
pub(super) fn value<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}
