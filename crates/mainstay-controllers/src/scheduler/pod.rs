//! What there is to know of a pod, read once.
//!
//! Source: `PodInfo` in `pkg/scheduler/framework/types.go`.

mod term;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod as KubernetesPod, PodSpec, PodStatus};
use mainstay_pod::resources::{self, ResourceList};
use mainstay_pod::scheduling::host_ports;
use mainstay_pod::scheduling::selector::Labels;
use mainstay_pod::{HostPort, Quantity};

pub(super) use self::term::{AffinityTerm, Terms};
use super::resource::Resource;
use crate::informer::ObjectKey;
use crate::pods::Pod;

/// Whose pods are scheduled here. Source: `DefaultSchedulerName` in `staging/src/k8s.io/api/core/v1`.
const SCHEDULER: &str = "default-scheduler";
/// What a container that requests nothing counts as where nodes are compared, so that nodes full of
/// such pods do not look empty. Source: `pkg/scheduler/util/pod_resources.go`.
const SCORED: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "200Mi")];

/// A pod.
#[derive(Clone, Debug)]
pub(super) struct PodInfo {
    pub(super) object: Arc<Pod>,
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) priority: i32,
    pub(super) requests: Resource,
    /// CPU in thousandths and memory in bytes, as they count where nodes are compared.
    pub(super) scored: [i64; 2],
    pub(super) host_ports: Vec<HostPort>,
    /// What other pods' rules see of it.
    pub(super) kind: Arc<Kind>,
    /// It is being deleted.
    pub(super) ending: bool,
    /// It mirrors a static pod, which ends when its manifest does and not before.
    pub(super) is_mirror: bool,
}

/// What a pod's containers ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    requests: Resource,
    scored: [i64; 2],
    host_ports: Vec<HostPort>,
    /// How many containers there are.
    pub(super) containers: usize,
    /// Their images, as long as there is no node.
    pub(super) images: Vec<String>,
}

/// What pods have that are alike to other pods' rules: replicas, often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) namespace: String,
    pub(super) labels: Labels,
    pub(super) terms: Terms,
}

/// What is to be done about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A node is to be found for it.
    Pending,
    /// It is on a node.
    Assigned,
    /// It needs no node any more, or another scheduler finds it one.
    Foreign,
    /// It has ended and takes up nothing.
    Ended,
}

impl Demand {
    pub(crate) fn of(pod: &KubernetesPod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let (requests, scored) = requests(spec, pod.status.as_ref());
        let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
        let waits = spec.node_name.as_ref().is_none_or(String::is_empty);
        let images = containers().filter(|_| waits).filter_map(|it| it.image.clone());
        Self {
            requests,
            scored,
            host_ports: host_ports::of(spec),
            containers: containers().count(),
            images: images.collect(),
        }
    }
}

impl PodInfo {
    /// None if the pod says nothing of itself, which no API takes.
    pub(super) fn new(object: Arc<Pod>) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let meta = &object.metadata;
        let Demand { requests, scored, host_ports, .. } = object.demand.clone();
        let kind = Kind {
            namespace: meta.namespace.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            terms: Terms::of(&object),
        };
        Some(Self {
            key: ObjectKey::of(meta),
            uid: meta.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            requests,
            scored,
            host_ports,
            kind: Arc::new(kind),
            ending: meta.deletion_timestamp.is_some(),
            is_mirror: object.is_mirror,
            object,
        })
    }

    pub(super) fn spec(&self) -> &PodSpec {
        self.object.spec.as_ref().expect("new() sees to it that there is one")
    }

    pub(super) fn status(&self) -> Option<&PodStatus> {
        self.object.status.as_ref()
    }

    /// The node that it is to have once there is room.
    pub(super) fn nominated_node(&self) -> Option<&str> {
        let node = self.status()?.nominated_node_name.as_deref();
        node.filter(|node| !node.is_empty())
    }

    /// Whether it is not to be scheduled yet.
    pub(super) fn is_gated(&self) -> bool {
        self.spec().scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
    }

    /// When it was started; one that was not yet counts as started last.
    pub(super) fn started(&self) -> Timestamp {
        let started = self.status().and_then(|status| status.start_time.as_ref());
        started.map_or(Timestamp::MAX, |time| time.0)
    }
}

/// What is to be done about a pod.
pub(super) fn stage(pod: &Pod) -> Stage {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let Some(spec) = &pod.spec else { return Stage::Foreign };
    if matches!(phase, Some("Succeeded" | "Failed")) {
        Stage::Ended
    } else if spec.node_name.as_ref().is_some_and(|node| !node.is_empty()) {
        Stage::Assigned
    } else if spec.scheduler_name.as_deref().is_none_or(|name| name == SCHEDULER)
        && pod.metadata.deletion_timestamp.is_none()
    {
        Stage::Pending
    } else {
        Stage::Foreign
    }
}

fn requests(spec: &PodSpec, status: Option<&PodStatus>) -> (Resource, [i64; 2]) {
    let requests = Resource::of(&resources::requests_with(spec, status, &ResourceList::new()));
    let by_default: ResourceList = SCORED
        .iter()
        .filter_map(|(name, text)| Some(((*name).to_owned(), Quantity::parse(text).ok()?)))
        .collect();
    let scored = Resource::of(&resources::requests_with(spec, status, &by_default));
    (requests, [scored.cpu, scored.memory])
}

#[cfg(test)]
mod tests;
