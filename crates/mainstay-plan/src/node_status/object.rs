//! The object itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_pod::Quantity as Amount;
use mainstay_pod::identity::PROPOSED_POD_CIDR_ANNOTATION;
use mainstay_pod::node_labels::KUBELET_LABELS;
use serde_json::{Value, json};

use super::{NodeFacts, NodeSettings, conditions};

/// Names that are shown of each. Source: `MaxNamesPerImageInNodeStatus`.
const MAX_NAMES: usize = 5;

/// The Node as it is registered.
pub fn node(facts: &NodeFacts, now: Timestamp) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            labels: Some(facts.settings.labels(&facts.name, &facts.machine.architecture)),
            annotations: Some(annotations(facts)).filter(|it| !it.is_empty()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: some(&facts.settings.provider_id),
            taints: (!facts.settings.taints.is_empty()).then(|| facts.settings.taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(status(&NodeStatus::default(), facts, now)),
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The merge patch that gives a Node the labels and annotations that every one is registered with; `None`
/// if it has them. Those of others stay.
pub fn metadata_patch(held: &Node, facts: &NodeFacts) -> Option<Value> {
    let missing = |known: Option<&BTreeMap<String, String>>, mut wanted: BTreeMap<_, _>| {
        wanted.retain(|key, value| known.and_then(|known| known.get(key)) != Some(value));
        wanted
    };
    let mut patch = serde_json::Map::new();
    for (field, missing) in [
        ("labels", missing(held.metadata.labels.as_ref(), kept_labels(facts))),
        ("annotations", missing(held.metadata.annotations.as_ref(), annotations(facts))),
    ] {
        if !missing.is_empty() {
            patch.insert(field.to_owned(), json!(missing));
        }
    }
    (!patch.is_empty()).then(|| json!({ "metadata": patch }))
}

/// What the node would have.
fn annotations(facts: &NodeFacts) -> BTreeMap<String, String> {
    let range = facts.pod_range.iter();
    range.map(|range| (PROPOSED_POD_CIDR_ANNOTATION.to_owned(), range.clone())).collect()
}

/// Labels that a node keeps as they are. Source: `updateDefaultLabels`.
fn kept_labels(facts: &NodeFacts) -> BTreeMap<String, String> {
    let mut labels = facts.settings.labels(&facts.name, &facts.machine.architecture);
    labels.retain(|key, _| KUBELET_LABELS.contains(&&**key));
    labels
}

impl NodeSettings {
    /// What a node says of itself, by its name and its architecture in Go's words. Source: `initialNode`.
    pub fn labels(&self, name: &str, architecture: &str) -> BTreeMap<String, String> {
        let own = labels(name, architecture).into_iter();
        own.chain(self.labels.clone()).collect()
    }
}

/// The labels that every node has.
pub fn labels(name: &str, architecture: &str) -> BTreeMap<String, String> {
    let own = [
        ("beta.kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
    ];
    own.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The status as it should be. What others wrote in `held`, such as resources of devices, stays.
pub fn status(held: &NodeStatus, facts: &NodeFacts, now: Timestamp) -> NodeStatus {
    let allocation = &facts.settings.allocation;
    let with = |held: &Option<BTreeMap<String, Quantity>>, own: BTreeMap<_, Amount>| {
        let mut all = held.clone().unwrap_or_default();
        all.retain(|name, _| !is_own(name));
        // As a server stores it, so that it is no change when it comes back.
        all.extend(own.into_iter().map(|(name, amount)| (name, Quantity(amount.canonical()))));
        Some(all)
    };
    let port = facts.port.map(|port| DaemonEndpoint { port: i32::from(port) });
    NodeStatus {
        addresses: Some(addresses(facts)),
        allocatable: with(&held.allocatable, allocation.allocatable(&facts.machine)),
        capacity: with(&held.capacity, allocation.capacity(&facts.machine)),
        conditions: Some(conditions::all(held.conditions.as_deref(), facts, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: port }),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        images: Some(images(facts)),
        node_info: Some(info(facts)),
        runtime_handlers: Some(vec![NodeRuntimeHandler {
            name: Some(String::new()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(true),
                user_namespaces: Some(false),
            }),
        }]),
        ..held.clone()
    }
}

/// Whether a resource is told by the node itself and not by a device or an administrator.
fn is_own(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "pods" | "ephemeral-storage")
        || name.starts_with("hugepages-")
}

fn addresses(facts: &NodeFacts) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let internal = facts.addresses.iter().map(|ip| address("InternalIP", ip.to_string()));
    internal.chain([address("Hostname", facts.name.clone())]).collect()
}

fn images(facts: &NodeFacts) -> Vec<ContainerImage> {
    let mut images: Vec<_> = facts.images.iter().collect();
    // The largest first, and of equal ones always the same.
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let image = |image: &mainstay_cri::Image| ContainerImage {
        names: Some(
            image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).cloned().collect(),
        ),
        size_bytes: i64::try_from(image.size).ok(),
    };
    let shown = facts.settings.max_images.unwrap_or(usize::MAX);
    images.into_iter().take(shown).map(image).collect()
}

fn info(facts: &NodeFacts) -> NodeSystemInfo {
    let machine = &facts.machine;
    let swap = i64::try_from(machine.swap).ok().filter(|bytes| *bytes > 0);
    NodeSystemInfo {
        architecture: machine.architecture.clone(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: facts.runtime_version.clone(),
        kernel_version: machine.kernel_version.clone(),
        // Not told any more since 1.33.
        kube_proxy_version: String::new(),
        kubelet_version: facts.kubelet_version.clone(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        swap: swap.map(|bytes| NodeSwapStatus { capacity: Some(bytes) }),
        system_uuid: machine.system_uuid.clone(),
    }
}
