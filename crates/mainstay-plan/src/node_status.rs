//! The Node object: what it is registered with, and what its status says.
//!
//! Source: `pkg/kubelet/kubelet_node_status.go` and `pkg/kubelet/nodestatus/setters.go`.

mod conditions;
mod lease;
mod object;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::NodeStatus;
use mainstay_cri::{Image, RuntimeCondition};
use mainstay_pod::Amounts;
use serde_json::{Value, json};

pub use conditions::{Transition, transitions};
pub use lease::{DURATION as LEASE_DURATION, NAMESPACE as LEASE_NAMESPACE, lease};
pub use object::{labels, metadata_patch, node, status};

use crate::patch;
use crate::pressure::Pressure;

/// How many pods a node takes. Source: `maxPods` of the kubelet's configuration.
pub const MAX_PODS: u32 = 110;

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

impl Machine {
    /// What of it pods can have, as its Node says.
    pub fn allocatable(&self) -> Amounts {
        let whole = |bytes: u64| Some(bytes / 1024 * 1024);
        Amounts {
            cpu_milli: Some(self.processors.saturating_mul(1000)),
            memory_bytes: whole(self.memory),
            ephemeral_storage_bytes: whole(self.storage),
        }
    }
}

/// All that a node's status is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// What is short.
    pub pressure: Pressure,
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
    /// The range of addresses that its pods have, such as `10.201.7.0/24`; `None` when the node does
    /// not know.
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
