//! What is known, and what is to be done next. Nothing here waits for anything.
//!
//! Source: `pkg/scheduler/{eventhandlers,schedule_one}.go`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use super::filter::Plugin;
use super::pod::{PodInfo, Stage, stage};
use super::preempt::{Preemption, preempt};
use super::queue::{Event, SchedulingQueue};
use super::snapshot::Snapshot;
use super::{Outcome, mix, schedule};
use crate::pods::Pod;

/// What is said when there is not a single node. Source: `ErrNoNodesAvailable`.
const NO_NODES: &str = "no nodes available to schedule pods";

/// All that is known. Time is how long it is since some moment.
#[derive(Debug, Default)]
pub(super) struct State {
    /// To be changed only before pods are looked at, or by what does not help or hinder them at once.
    pub(super) snapshot: Snapshot,
    queue: SchedulingQueue,
    /// The pods, by UID, that the API is being told of why they wait. They are not looked at meanwhile, as in a
    /// kube-scheduler, where an attempt ends with that (`handleSchedulingFailure`): of two such words the API could
    /// keep the older one, and nothing would correct it.
    untold: BTreeSet<String>,
    seed: u64,
}

/// Something to be done.
#[derive(Debug)]
pub(super) enum Step {
    /// A pod gets a node, on which it counts already.
    Bind { pod: Arc<PodInfo>, node: String },
    /// A pod has to wait. When that has been told, or cannot be, [`State::told`] is to hear of it.
    Wait(Wait),
}

/// That a pod has to wait, and what is to be done about it.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) pod: Arc<PodInfo>,
    /// Why.
    pub(super) message: String,
    /// The node on which it is to have room; none leaves it as it is, an empty one is no node.
    pub(super) nominated_node: Option<String>,
    /// Pods that make room for it there, and are not being deleted yet.
    pub(super) victims: Vec<Arc<PodInfo>>,
    /// Less important pods that wanted that room.
    pub(super) outdone: Vec<Arc<PodInfo>>,
}

impl State {
    /// Of nodes that are equally good the seed picks one.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// When something is to be done, if nothing happens before.
    pub(super) fn due(&self) -> Option<Duration> {
        self.queue.due()
    }

    pub(super) fn node_changed(
        &mut self,
        old: Option<&Arc<Node>>,
        new: Option<&Arc<Node>>,
        now: Duration,
    ) {
        match (old, new) {
            (_, Some(new)) => self.snapshot.set_node(new),
            (Some(old), None) => {
                self.snapshot.remove_node(old.metadata.name.as_deref().unwrap_or_default());
            }
            (None, None) => {}
        }
        // Heartbeats come often and help nobody.
        if !old.zip(new).is_some_and(|(old, new)| are_alike(old, new)) {
            let event = Event::Node { old: old.map(|it| &**it), new: new.map(|it| &**it) };
            self.queue.happened(&event, &self.snapshot, now);
        }
    }

    /// A pod is as `new` says, or gone.
    pub(super) fn pod_changed(
        &mut self,
        old: Option<&Arc<Pod>>,
        new: Option<&Arc<Pod>>,
        now: Duration,
    ) {
        let Some(pod) = new.or(old).and_then(|object| PodInfo::new(object.clone())) else { return };
        match new.map_or(Stage::Ended, |pod| stage(pod)) {
            Stage::Assigned => self.assigned(pod, now),
            Stage::Pending => self.pending(pod, old, now),
            Stage::Foreign | Stage::Ended => self.gone(&pod, now),
        }
    }

    fn assigned(&mut self, pod: PodInfo, now: Duration) {
        self.queue.remove(&pod.uid);
        let node = pod.spec().node_name.clone().unwrap_or_default();
        if self.snapshot.nomination(&pod.uid).is_some() {
            self.snapshot.nominate(&Arc::new(pod.clone()), None);
        }
        // It may count there already, since it was decided here.
        let before = self.snapshot.pod(&pod.uid).cloned();
        let pod = self.snapshot.add_pod(pod, &node);
        let event = match &before {
            None => Event::Assigned(&pod),
            Some(old) if old.kind != pod.kind || old.requests != pod.requests => {
                Event::Changed { old, new: &pod }
            }
            Some(_) => return,
        };
        self.queue.happened(&event, &self.snapshot, now);
    }

    fn pending(&mut self, pod: PodInfo, old: Option<&Arc<Pod>>, now: Duration) {
        let pod = Arc::new(pod);
        let nominated = |pod: &Pod| pod.status.as_ref()?.nominated_node_name.clone();
        let is_new = self.queue.get(&pod.uid).is_none();
        // What is decided here counts before the API tells it.
        if is_new || old.is_some_and(|old| nominated(old) != nominated(&pod.object)) {
            self.nominate(&pod, pod.nominated_node(), now);
        }
        self.queue.set(&pod, &self.snapshot, now);
    }

    /// A pod takes up nothing any more, and is not looked at any more.
    fn gone(&mut self, pod: &PodInfo, now: Duration) {
        self.queue.remove(&pod.uid);
        let held = self.snapshot.nomination(&pod.uid).is_some();
        if held {
            self.snapshot.nominate(&Arc::new(pod.clone()), None);
        }
        self.snapshot.leaving.remove(&pod.uid);
        let was_there = self.snapshot.remove_pod(&pod.uid).is_some();
        if was_there || held {
            self.queue.happened(&Event::Gone(pod), &self.snapshot, now);
        }
    }

    fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&str>, now: Duration) {
        let before = self.snapshot.nomination(&pod.uid).map(str::to_owned);
        if before.as_deref() == node {
            return;
        }
        self.snapshot.nominate(pod, node);
        if before.is_some() {
            self.queue.happened(&Event::Gone(pod), &self.snapshot, now);
        }
    }

    /// Looks at the next pod. None if none is to be looked at now.
    pub(super) fn next(&mut self, now: Duration) -> Option<Step> {
        let pod = self.queue.pop(&self.untold, now)?;
        self.seed = mix(self.seed);
        let error = match schedule(&pod, &self.snapshot, self.seed) {
            Outcome::Node(node) => return Some(self.assume(pod, node, now)),
            Outcome::NoNodes => {
                let wait = Wait::new(pod, NO_NODES.to_owned(), Some(String::new()));
                return Some(self.unschedulable(wait, BTreeSet::new(), now));
            }
            Outcome::Unschedulable(error) => error,
        };
        let all = self.snapshot.nodes().count();
        let plugins = error.plugins(all);
        let wait = match preempt(&pod, &self.snapshot, &error, self.seed) {
            Preemption::Not(why) => Wait::new(pod, error.message(all, why), None),
            Preemption::Useless(why) => {
                self.nominate(&pod, None, now);
                Wait::new(pod, error.message(all, &why), Some(String::new()))
            }
            Preemption::Node { name, victims } => {
                let wait = Wait::new(pod, error.message(all, ""), Some(name));
                self.make_room(wait, victims, now)
            }
        };
        Some(self.unschedulable(wait, plugins, now))
    }

    fn unschedulable(&mut self, wait: Wait, rejectors: BTreeSet<Plugin>, now: Duration) -> Step {
        self.queue.unschedulable(&wait.pod.uid, rejectors, now);
        self.untold.insert(wait.pod.uid.clone());
        Step::Wait(wait)
    }

    /// The API has been told why a pod waits, or cannot be told.
    pub(super) fn told(&mut self, pod: &PodInfo) {
        self.untold.remove(&pod.uid);
    }

    /// Has a pod count on a node from now on.
    fn assume(&mut self, pod: Arc<PodInfo>, node: String, now: Duration) -> Step {
        if self.snapshot.nomination(&pod.uid).is_some() {
            self.snapshot.nominate(&pod, None);
        }
        let assumed = self.snapshot.add_pod((*pod).clone(), &node);
        self.queue.happened(&Event::Assigned(&assumed), &self.snapshot, now);
        Step::Bind { pod, node }
    }

    fn make_room(&mut self, mut wait: Wait, victims: Vec<Arc<PodInfo>>, now: Duration) -> Wait {
        let node = wait.nominated_node.clone().unwrap_or_default();
        wait.victims = victims.into_iter().filter(|victim| !victim.ending).collect();
        let leaving = wait.victims.iter().map(|victim| victim.uid.clone());
        self.snapshot.leaving.extend(leaving);
        let waiting = self.snapshot.nominated(&node).iter();
        wait.outdone = waiting.filter(|it| it.priority < wait.pod.priority).cloned().collect();
        for other in &wait.outdone {
            self.nominate(other, None, now);
        }
        self.nominate(&wait.pod, Some(&node), now);
        wait
    }

    /// A pod did not get the node that it was to have. [`Self::told`] is to hear when that has been told.
    pub(super) fn not_bound(&mut self, pod: &PodInfo, now: Duration) {
        // If it is not waited for, it was bound after all, or is gone.
        if self.queue.get(&pod.uid).is_none() {
            return;
        }
        if let Some(gone) = self.snapshot.remove_pod(&pod.uid) {
            self.queue.happened(&Event::Gone(&gone), &self.snapshot, now);
        }
        self.queue.failed(&pod.uid, now);
        self.untold.insert(pod.uid.clone());
    }

    /// Not all pods that were to make room for one are being deleted.
    pub(super) fn no_room(&mut self, wait: &Wait, now: Duration) {
        for victim in &wait.victims {
            self.snapshot.leaving.remove(&victim.uid);
        }
        if self.snapshot.pod(&wait.pod.uid).is_none() {
            self.queue.failed(&wait.pod.uid, now);
        }
    }
}

impl Wait {
    fn new(pod: Arc<PodInfo>, message: String, nominated_node: Option<String>) -> Self {
        Self { pod, message, nominated_node, victims: Vec::new(), outdone: Vec::new() }
    }
}

/// Whether two states of a node are the same to all pods.
fn are_alike(old: &Node, new: &Node) -> bool {
    let spec = |node: &Node| {
        let spec = node.spec.as_ref();
        (spec.and_then(|it| it.unschedulable), spec.and_then(|it| it.taints.clone()))
    };
    let allocatable = |node: &Node| node.status.as_ref().and_then(|it| it.allocatable.clone());
    old.metadata.labels == new.metadata.labels
        && spec(old) == spec(new)
        && allocatable(old) == allocatable(new)
}

#[cfg(test)]
mod tests;
