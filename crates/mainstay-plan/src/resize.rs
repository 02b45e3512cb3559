//! Resources of a pod that change while it runs.
//!
//! What a pod of an API asks for, what its node has allocated to it and what is in force are three things.
//! A node allocates what fits, and only then carries it out; a pod that has to wait keeps what it has.
//! Here is said in which order pods that wait are judged, what has to be done about an allocation that
//! changed, and what is told of all that.
//!
//! # Flow
//!
//! ```text
//! asked for ─► judged ─► allocated ─► restarts, then changes of control groups ─► in force
//!                └─► Pending, judged again      └─► Resizing, until it is over
//! ```
//!
//! Source: `pkg/kubelet/allocation/allocation_manager.go`, `pkg/kubelet/kuberuntime/kuberuntime_manager.go`
//! (`computePodResizeAction`, `doPodResizeAction`), `pkg/kubelet/status/status_manager.go`.

mod steps;
mod words;

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use mainstay_cri::{ContainerId, ContainerState};
use mainstay_pod::{Amounts, Pod, QosClass};

use crate::pod::{SeenPod, SeenSandbox};
pub use steps::{Part, Step};
pub use words::{conditions, message, pending_of};
pub(crate) use words::{in_force, is_own};

/// What a container, or a pod as a whole, has of CPU and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// What it is sure to get.
    pub requests: Amounts,
    /// What it gets at most.
    pub limits: Amounts,
}

impl Requirements {
    /// Of one container. What it has no limit of, that of its pod limits. Source:
    /// `containerResourcesFromRequirements`.
    pub fn of_container(pod: &Pod, container: &Container) -> Self {
        let shared = pod.spec().resources.as_ref().map(Amounts::limit_in).unwrap_or_default();
        let own = Amounts::limit_of(container);
        let some = |own: Option<u64>, shared| own.filter(|it| *it != 0).or(shared);
        Self::of(
            Amounts::requested_by(container),
            Amounts {
                cpu_milli: some(own.cpu_milli, shared.cpu_milli),
                memory_bytes: some(own.memory_bytes, shared.memory_bytes),
                ..own
            },
        )
    }

    /// Of a pod as a whole: what its control group is given.
    pub fn of_pod(pod: &Pod) -> Self {
        let spec = pod.spec();
        Self::of(Amounts::requested_by_pod(spec), Amounts::limit_of_pod(spec))
    }

    /// Of what a pod itself says, beside its containers.
    fn of_resources(resources: &ResourceRequirements) -> Self {
        Self::of(Amounts::request_in(resources), Amounts::limit_in(resources))
    }

    /// Nothing else can be resized.
    fn of(requests: Amounts, limits: Amounts) -> Self {
        let only = |it: Amounts| Amounts { ephemeral_storage_bytes: None, ..it };
        Self { requests: only(requests), limits: only(limits) }
    }
}

/// Whether two versions of one pod have the same resources, however they write them.
pub fn is_same(one: &Pod, other: &Pod) -> bool {
    let own = |pod: &Pod| pod.spec().resources.as_ref().map(Requirements::of_resources);
    let all = |pod: &Pod| -> Vec<Requirements> {
        pod.containers().map(|(_, it)| Requirements::of_container(pod, it)).collect()
    };
    std::ptr::eq(one, other)
        || own(one).unwrap_or_default() == own(other).unwrap_or_default() && all(one) == all(other)
}

/// A pod that is to have other resources than it is allocated.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// With those that it has.
    pub allocated: &'a Pod,
    /// With those that it is to have.
    pub wanted: &'a Pod,
    /// Since when it waits, if it does.
    pub since: Option<Timestamp>,
}

impl Request<'_> {
    /// Which of two is judged first: those that ask for no more; those of higher priority; those of
    /// guaranteed pods; those that have waited longer. Source: `sortPendingResizes`.
    pub fn before(&self, other: &Self) -> Ordering {
        let rank = |it: &Self| {
            let guaranteed = it.wanted.qos_class() == QosClass::Guaranteed;
            let waits = it.since.unwrap_or(Timestamp::MAX);
            (it.is_increase(), Reverse(it.wanted.priority()), !guaranteed, waits)
        };
        rank(self).cmp(&rank(other))
    }

    fn is_increase(&self) -> bool {
        let of = |pod: &Pod| Amounts::requested_by_pod(pod.spec());
        let (old, new) = (of(self.allocated), of(self.wanted));
        new.cpu_milli > old.cpu_milli || new.memory_bytes > old.memory_bytes
    }
}

/// Resources that a pod is to have and that do not fit yet: the condition `PodResizePending`, with the
/// reason `Deferred`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Why.
    pub message: String,
    /// The pod's generation that asks for them.
    pub generation: i64,
    /// Since when.
    pub since: Timestamp,
}

/// What is in force of a pod whose allocation has changed, until all of that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resizing {
    /// The pod's generation whose resources are allocated.
    pub generation: i64,
    /// Since when they are, or since when that fails.
    pub since: Timestamp,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// What the pod's control group was given.
    pub pod: Requirements,
    /// What its containers were given when they were made, or since, by name.
    pub containers: BTreeMap<String, Requirements>,
}

impl Resizing {
    /// Another allocation of a pod. `before` is what was left of an earlier one.
    pub fn begin(before: Option<&Self>, old: &Pod, new: &Pod, now: Timestamp) -> Self {
        let (generation, since, error) = (new.metadata().generation.unwrap_or(0), now, None);
        match before {
            Some(before) => Self { generation, since, error, ..before.clone() },
            None => {
                let of = |(_, it): (_, &Container)| {
                    (it.name.clone(), Requirements::of_container(old, it))
                };
                let containers = old.containers().map(of).collect();
                Self { generation, since, error, pod: Requirements::of_pod(old), containers }
            }
        }
    }

    /// The last attempt failed. Whether that is news.
    pub fn fail(&mut self, message: String, now: Timestamp) -> bool {
        if self.error.as_ref() == Some(&message) {
            return false;
        }
        if self.error.is_none() {
            self.since = now;
        }
        self.error = Some(message);
        true
    }

    /// Whether all that runs of a pod has what it is allocated. What does not run gets it when it is
    /// started. Source: `IsPodResizeInProgress`.
    pub fn is_over(&self, pod: &Pod, seen: &SeenPod) -> bool {
        let mut own = seen.sandboxes.iter().filter(|it| it.uid == pod.uid() && it.is_alive());
        self.pod == Requirements::of_pod(pod)
            && own.all(|sandbox| changes(pod, sandbox, self).next().is_none())
    }
}

/// A container that runs and is to be given something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Which one.
    pub id: ContainerId,
    /// Its name in the pod.
    pub container: String,
    /// What it has.
    pub from: Requirements,
    /// What it is to have.
    pub to: Requirements,
}

/// What of a pod is changed while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resize {
    /// What its control group has.
    pub from: Requirements,
    /// What it is to have.
    pub to: Requirements,
    /// Containers whose memory changes: first those that get less.
    pub memory: Vec<Update>,
    /// The same of CPU.
    pub cpu: Vec<Update>,
}

/// What has to be done next about an allocation that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// These containers are to be ended, since they get what they are to have by a new start.
    Restart(Vec<ContainerId>),
    /// Control groups are changed.
    Resize(Box<Resize>),
}

/// Says what has to be done next in a sandbox.
pub fn next(pod: &Pod, sandbox: &SeenSandbox, resizing: &Resizing) -> Next {
    let mut resize =
        Resize { from: resizing.pod, to: Requirements::of_pod(pod), ..Resize::default() };
    let mut restarts = Vec::new();
    for (container, update) in changes(pod, sandbox, resizing) {
        let (from, to) = (update.from, update.to);
        let memory = order(&from, &to, |it| it.memory_bytes);
        let cpu = order(&from, &to, |it| it.cpu_milli);
        let restart = |resource: &str| {
            let mut policies = container.resize_policy.iter().flatten();
            let policy = policies.find(|policy| policy.resource_name == resource);
            policy.is_some_and(|policy| policy.restart_policy == "RestartContainer")
        };
        if memory.is_some() && restart("memory") || cpu.is_some() && restart("cpu") {
            restarts.push(update.id);
            continue;
        }
        for (order, list) in [(memory, &mut resize.memory), (cpu, &mut resize.cpu)] {
            match order {
                None => {}
                Some(Ordering::Less) => list.insert(0, update.clone()),
                Some(_) => list.push(update.clone()),
            }
        }
    }
    if !restarts.is_empty() {
        Next::Restart(restarts)
    } else if resize.memory.is_empty() && resize.cpu.is_empty() && resize.from == resize.to {
        Next::Nothing
    } else {
        Next::Resize(Box::new(resize))
    }
}

/// The containers that run and do not have what they are allocated.
fn changes<'a>(
    pod: &'a Pod,
    sandbox: &'a SeenSandbox,
    resizing: &'a Resizing,
) -> impl Iterator<Item = (&'a Container, Update)> {
    pod.containers().filter_map(|(_, container)| {
        let newest = sandbox.newest(&container.name)?;
        let to = Requirements::of_container(pod, container);
        let from = *resizing.containers.get(&container.name)?;
        let differs = matches!(newest.state, ContainerState::Running { .. }) && from != to;
        let (id, name) = (newest.id.clone(), container.name.clone());
        differs.then_some((container, Update { id, container: name, from, to }))
    })
}

/// Whether there is more or less of something: its limit says so, or else its request.
fn order(
    from: &Requirements,
    to: &Requirements,
    of: impl Fn(&Amounts) -> Option<u64>,
) -> Option<Ordering> {
    let compare = |from, to| {
        let order = of(to).unwrap_or(0).cmp(&of(from).unwrap_or(0));
        (order != Ordering::Equal).then_some(order)
    };
    compare(&from.limits, &to.limits).or_else(|| compare(&from.requests, &to.requests))
}

#[cfg(test)]
mod tests;
