//! The Node object: what it is registered with, and what its status says.
//!
//! Source: `pkg/kubelet/kubelet_node_status.go` and `pkg/kubelet/nodestatus/setters.go`.

mod conditions;
mod lease;
mod object;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeStatus, Taint};
use mainstay_cri::{Image, RuntimeCondition};
use serde_json::{Value, json};

pub use conditions::{Transition, UNREACHABLE, transitions};
pub use lease::{DURATION as LEASE_DURATION, NAMESPACE as LEASE_NAMESPACE, lease};
pub use object::{labels, metadata_patch, node, status};

use crate::allocatable::Allocation;
use crate::patch;
use crate::pressure::Pressure;

/// The machine, as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Source: machine-id(5).
    pub machine_id: String,
    /// What the firmware calls the machine.
    pub system_uuid: String,
    /// Another one after every boot.
    pub boot_id: String,
    /// As `uname -r` prints it.
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release(5).
    pub os_image: String,
    /// In Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// How many processors are online.
    pub processors: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// Bytes of the file system of the root directory.
    pub storage: u64,
    /// Bytes that are reserved, by the page's size as resources name it: `2Mi`.
    pub huge_pages: BTreeMap<String, u64>,
}

/// What the machine's owner has said of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSettings {
    /// What of the machine pods can have.
    pub allocation: Allocation,
    /// How many images are shown; `None` is all. Source: `nodeStatusMaxImages`.
    pub max_images: Option<usize>,
    /// Labels that it is registered with beside those that every node has. Source: `--node-labels`.
    pub labels: BTreeMap<String, String>,
    /// What it is registered with. Source: `registerWithTaints`.
    pub taints: Vec<Taint>,
    /// What a cloud calls the machine; empty for none. Source: `providerID`.
    pub provider_id: String,
}

impl Default for NodeSettings {
    /// Those of a kubelet.
    fn default() -> Self {
        Self {
            allocation: Allocation::default(),
            max_images: Some(50),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: String::new(),
        }
    }
}

/// All that a node's status is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// What is short.
    pub pressure: Pressure,
    /// Whether the machine is being shut down.
    pub shutting_down: bool,
    /// The host's own addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// How the container runtime is, and whatever else pods need; empty when it is not known yet.
    pub runtime: Vec<RuntimeCondition>,
    /// Such as `mainstay://0.1.0`.
    pub runtime_version: String,
    /// Such as `v1.36.0+mainstay-0.1.0`: what tools may expect of the node.
    pub kubelet_version: String,
    /// The port of the node API; `None` when nothing is served.
    pub port: Option<u16>,
    /// All images of the machine.
    pub images: Vec<Image>,
    /// What the machine's owner has said of the node.
    pub settings: Arc<NodeSettings>,
    /// The range of addresses that its pods have, such as `10.201.7.0/24`, or ranges with a comma between;
    /// `None` when the node does not know.
    pub pod_range: Option<String>,
}

/// The strategic merge patch of a Node that makes one status into another, and whether they differ
/// in more than the time of the last heartbeat; `None` if they say the same. Source:
/// `nodeStatusHasChanged`.
pub fn status_patch(before: &NodeStatus, after: &NodeStatus) -> Option<(Value, bool)> {
    // A status has string keys and no values that JSON lacks.
    let json = |status: &NodeStatus| serde_json::to_value(status).unwrap_or_default();
    let (mut before, mut after) = (json(before), json(after));
    let patch = patch::of_status(&before, &after, patch::NODE_STATUS)?;
    for status in [&mut before, &mut after] {
        let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
            condition.remove("lastHeartbeatTime");
        }
    }
    let changed = patch::of_status(&before, &after, patch::NODE_STATUS).is_some();
    Some((json!({"status": patch}), changed))
}

#[cfg(test)]
mod tests;
