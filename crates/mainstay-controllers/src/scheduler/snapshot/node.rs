//! One node and what is on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use mainstay_pod::HostPort;

use super::super::pod::PodInfo;
use super::super::resource::{Capacity, Resource};

/// A node.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct NodeInfo {
    pub(in super::super) name: Arc<str>,
    /// None if it is not heard of.
    pub(in super::super) node: Option<Arc<Node>>,
    pub(in super::super) capacity: Capacity,
    /// What its pods request.
    pub(in super::super) requested: Resource,
    /// As that counts where nodes are compared: CPU in thousandths, memory in bytes.
    pub(in super::super) scored: [i64; 2],
    /// By UID.
    pods: BTreeMap<String, Arc<PodInfo>>,
    /// How many of them occupy ports of the host.
    with_ports: usize,
}

impl NodeInfo {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, ..Self::default() }
    }

    pub(super) fn set_node(&mut self, node: Option<Arc<Node>>) {
        self.capacity = node.as_deref().map(Capacity::of).unwrap_or_default();
        self.node = node;
    }

    pub(in super::super) fn add(&mut self, pod: &Arc<PodInfo>) {
        if self.pods.insert(pod.uid.clone(), pod.clone()).is_none() {
            self.requested.add(&pod.requests);
            for (sum, amount) in self.scored.iter_mut().zip(pod.scored) {
                *sum = sum.saturating_add(amount);
            }
            self.with_ports += usize::from(!pod.host_ports.is_empty());
        }
    }

    pub(in super::super) fn remove(&mut self, pod: &PodInfo) {
        if self.pods.remove(&pod.uid).is_some() {
            self.requested.remove(&pod.requests);
            for (sum, amount) in self.scored.iter_mut().zip(pod.scored) {
                *sum = sum.saturating_sub(amount);
            }
            self.with_ports -= usize::from(!pod.host_ports.is_empty());
        }
    }

    pub(in super::super) fn pods(&self) -> impl ExactSizeIterator<Item = &Arc<PodInfo>> {
        self.pods.values()
    }

    /// Ports of the host that its pods occupy.
    pub(in super::super) fn host_ports(&self) -> impl Iterator<Item = &HostPort> {
        let pods = (self.with_ports > 0).then_some(&self.pods);
        pods.into_iter().flat_map(BTreeMap::values).flat_map(|pod| &pod.host_ports)
    }
}

/// The taints of a node.
pub(in super::super) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}
