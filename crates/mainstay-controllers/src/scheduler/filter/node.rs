//! What a node is like, and which ports of it are taken.
//!
//! Source: the plugins `nodeunschedulable`, `tainttoleration`, `nodeaffinity` and `nodeports`.

use k8s_openapi::api::core::v1::{Node, Taint};
use mainstay_pod::scheduling::{host_ports, node_affinity, taints};

use super::super::pod::PodInfo;
use super::super::snapshot::{NodeInfo, taints as taints_of};
use super::{Plugin, Rejection};

/// The effects for which nothing is put on a node.
const EFFECTS: &[&str] = &[taints::NO_SCHEDULE, taints::NO_EXECUTE];

pub(super) fn schedulable(pod: &PodInfo, node: &Node) -> Result<(), Rejection> {
    let unschedulable = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    if unschedulable && !tolerates_unschedulable(pod) {
        let reason = "node(s) were unschedulable";
        return Err(Rejection::lasting(Plugin::NodeUnschedulable, reason));
    }
    Ok(())
}

/// Whether it may be put on a node that takes nothing.
fn tolerates_unschedulable(pod: &PodInfo) -> bool {
    let Some(tolerations) = pod.spec().tolerations.as_deref().filter(|it| !it.is_empty()) else {
        return false;
    };
    let taint = Taint {
        key: taints::UNSCHEDULABLE.to_owned(),
        effect: taints::NO_SCHEDULE.to_owned(),
        ..Taint::default()
    };
    taints::is_tolerated(&taint, tolerations)
}

pub(super) fn tolerated(pod: &PodInfo, node: &Node) -> Result<(), Rejection> {
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    match taints::untolerated(taints_of(node), tolerations, EFFECTS) {
        Some(_) => {
            let reason = "node(s) had untolerated taint(s)";
            Err(Rejection::lasting(Plugin::TaintToleration, reason))
        }
        None => Ok(()),
    }
}

pub(super) fn wanted(pod: &PodInfo, node: &Node) -> Result<(), Rejection> {
    if node_affinity::matches(pod.spec(), node) {
        return Ok(());
    }
    let reason = "node(s) didn't match Pod's node affinity/selector";
    Err(Rejection::lasting(Plugin::NodeAffinity, reason))
}

pub(super) fn ports(pod: &PodInfo, info: &NodeInfo) -> Result<(), Rejection> {
    let free = pod.host_ports.is_empty()
        || !info
            .host_ports()
            .any(|used| pod.host_ports.iter().any(|wanted| host_ports::conflict(wanted, used)));
    if free {
        return Ok(());
    }
    let reason = "node(s) didn't have free ports for the requested pod ports";
    Err(Rejection::resolvable(Plugin::NodePorts, reason))
}
