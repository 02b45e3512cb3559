//! Whether nodes are there: of one that is not heard of for a while nobody knows how it is, its pods are
//! not ready, and they are moved off by and by.
//!
//! # Flow
//!
//! All nodes are looked at every few seconds, and when one turns or is new. One that neither renewed
//! its lease nor wrote its status gets the status `Unknown` ([`health`]); one that is not ready gets a
//! taint with which pods do not stay, as fast as its zone allows ([`zones`]), which
//! [`taint_eviction`](super::taint_eviction) acts on. Beside that, each node has the taints with which
//! nothing is scheduled there for what it says of itself ([`taints`]).
//!
//! # Guarantees
//!
//! - When no node is heard of any more, no pod is moved: it is the API that is cut off.
//! - After a start every node has its full time to be heard of.
//! - Clocks that are wrong, and sleep of the machine, make no node late.
//!
//! Source: `pkg/controller/nodelifecycle`.

mod health;
mod taints;
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_client::{CallError, CallErrorKind, Trouble};
use mainstay_pod::scheduling::taints::{NOT_READY, UNREACHABLE};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::context::Context;
use crate::events::EventType;
use crate::informer::{Change, Informer, ObjectKey};
use crate::informers::path;
use crate::pods::{self, Pod};
use crate::queue::Queue;
use health::{Health, Now, Ready, ready};
use zones::{Count, Turn, Zones};

/// How many things are looked at at a time. Source: `nodeUpdateWorkerSize`.
const AT_ONCE: usize = 8;

/// How often a change is tried that others are faster than.
const TRIES: usize = 5;

/// Where the leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// How long nodes are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTimes {
    /// How often all nodes are looked at. Source: `--node-monitor-period`.
    pub monitor_period: Duration,
    /// How long a node may say nothing. Source: `--node-monitor-grace-period`.
    pub monitor_grace_period: Duration,
    /// How long one may that has never written its status. Source: `--node-startup-grace-period`.
    pub startup_grace_period: Duration,
}

impl Default for NodeTimes {
    fn default() -> Self {
        Self {
            monitor_period: Duration::from_secs(5),
            monitor_grace_period: Duration::from_secs(50),
            startup_grace_period: Duration::from_secs(60),
        }
    }
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Node(String),
    /// A pod that came to a node.
    Pod(ObjectKey),
}

/// The controller at work.
struct Controller {
    context: Context,
    nodes: Arc<Informer<Node>>,
    leases: Arc<Informer<Lease>>,
    pods: Arc<Informer<Pod>>,
    known: Mutex<Known>,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Known {
    nodes: BTreeMap<String, Arc<Node>>,
    health: BTreeMap<String, Health>,
    zones: Zones,
    /// The nodes whose pods could not all be written.
    unwritten: BTreeSet<String>,
    trouble: Trouble,
}

/// What a look at a node brought.
struct Look {
    node: Arc<Node>,
    /// How ready it was.
    before: Option<Ready>,
    /// What nobody knows of it any more.
    lost: Vec<NodeCondition>,
}

pub(crate) async fn run(context: Context) {
    let nodes = context.informers.of::<Node>();
    let (leases, pods) = (context.informers.of::<Lease>(), context.informers.of::<Pod>());
    let (queue, turned) = (Arc::new(Queue::new("node_lifecycle")), Arc::new(Notify::new()));
    let _fed = [
        nodes.feed(&queue, |change| {
            change.new.map(|it| About::Node(ObjectKey::of(&it.metadata).name))
        }),
        pods.feed(&queue, |change| comes_to_a_node(change).map(About::Pod)),
        nodes.on_change({
            let turned = turned.clone();
            move |change| {
                if change.old.map(|it| ready(it)) != change.new.map(|it| ready(it)) {
                    turned.notify_one();
                }
            }
        }),
    ];
    nodes.complete().await;
    leases.complete().await;
    pods.complete().await;
    let controller = Controller { context, nodes, leases, pods, known: Mutex::default() };
    tokio::join!(controller.keep_looking(&turned), queue.work(AT_ONCE, |it| controller.sync(it)));
}

/// A pod that has a node now and had none, or another one.
fn comes_to_a_node(change: &Change<'_, Pod>) -> Option<ObjectKey> {
    let new = change.new?;
    let is_news = change.old.is_none_or(|old| pods::node(old) != pods::node(new));
    (is_news && !pods::node(new).is_empty()).then(|| ObjectKey::of(&new.metadata))
}

impl Controller {
    /// Looks at all nodes for ever.
    async fn keep_looking(&self, turned: &Notify) {
        let mut tick = interval(self.context.facts.node_times.monitor_period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.known().zones.due();
            tokio::select! {
                // Cancel-safe per docs on `Interval::tick`, `Notify::notified` and `Sleep`.
                _ = tick.tick() => self.look().await,
                () = turned.notified() => self.look().await,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.taint_next().await;
                }
            }
        }
    }

    async fn look(&self) {
        let now = Now::read();
        self.meet().await;
        let looks = self.observe(now);
        let mut counts: BTreeMap<String, Count> = BTreeMap::new();
        let mut looks = looks.into_iter();
        let mut working = FuturesUnordered::new();
        loop {
            while working.len() < AT_ONCE
                && let Some(look) = looks.next()
            {
                working.push(self.look_at(look, now));
            }
            match working.next().await {
                Some(Some((node, ready))) if zones::counts(&node) => {
                    let count = counts.entry(zones::key(&node)).or_default();
                    match ready {
                        Some(Ready::True) => count.ready += 1,
                        _ => count.away += 1,
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
        let turn = self.known().zones.turn(&counts, now.instant);
        match turn {
            Some(Turn::AllAway) => {
                tracing::info!("no node is ready any more: pods stay where they are");
                for node in self.nodes.all() {
                    self.welcome(&node).await;
                }
            }
            Some(Turn::SomeBack) => {
                tracing::info!("nodes are ready again");
                let now = Instant::now();
                self.known().health.values_mut().for_each(|health| health.heard = now);
            }
            None => {}
        }
    }

    /// Tells of nodes that are new and of those that are gone.
    async fn meet(&self) {
        let nodes = self.nodes.all();
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        {
            let mut known = self.known();
            let names: BTreeSet<&str> = nodes.iter().map(|node| name(node)).collect();
            let lost: Vec<String> =
                known.nodes.keys().filter(|it| !names.contains(it.as_str())).cloned().collect();
            for name in lost {
                known.zones.forget(&name);
                known.health.remove(&name);
                known.unwritten.remove(&name);
                gone.extend(known.nodes.remove(&name));
            }
            for node in &nodes {
                if known.nodes.insert(name(node).to_owned(), node.clone()).is_none() {
                    new.push(node.clone());
                }
            }
        }
        for node in new {
            let message = format!("Registered Node {} in Controller", name(&node));
            self.tell(&node, "RegisteredNode", &message);
            self.welcome(&node).await;
        }
        for node in gone {
            let message = format!("Removing Node {} from Controller", name(&node));
            self.tell(&node, "RemovingNode", &message);
        }
    }

    fn tell(&self, node: &Node, reason: &str, what: &str) {
        let message = format!("Node {} event: {what}", name(node));
        self.context.events.tell(node, EventType::Normal, reason, message);
    }

    /// Takes in what is heard of all nodes.
    fn observe(&self, now: Now) -> Vec<Look> {
        let nodes = self.nodes.all();
        let mut known = self.known();
        let looks = nodes.into_iter().map(|node| {
            let lease = self.leases.get(&ObjectKey::new(LEASES, name(&node)));
            let before = known.health.get(name(&node));
            let health = Health::observe(before, &node, lease.as_deref(), now);
            let lost = health.lost(&node, &self.context.facts.node_times, now);
            known.health.insert(name(&node).to_owned(), health);
            Look { before: ready(&node), node, lost }
        });
        looks.collect()
    }

    /// Does what a look at a node asks for; answers the node and how ready it is, if that could be
    /// written.
    async fn look_at(&self, look: Look, now: Now) -> Option<(Arc<Node>, Option<Ready>)> {
        let Look { mut node, before, lost } = look;
        if !lost.is_empty() {
            let patch = json!({
                // What the node writes meanwhile is newer.
                "metadata": {
                    "uid": node.metadata.uid,
                    "resourceVersion": node.metadata.resource_version,
                },
                "status": { "conditions": lost },
            });
            let path = format!("{}/status", path::<Node>("", name(&node)));
            match self.context.calls.patch(&path, &patch).await {
                Ok(written) => node = Arc::new(written),
                Err(error) => {
                    self.failed(&error);
                    return None;
                }
            }
        }
        let Some(after) = ready(&node) else { return Some((node, None)) };
        match (after, taints::unwanted(after)) {
            (Ready::True, _) => self.welcome(&node).await,
            (_, Some(key)) if !taints::has_no_execute(&node, key) => {
                let other = if key == NOT_READY { UNREACHABLE } else { NOT_READY };
                match taints::has_no_execute(&node, other) {
                    // Its pods have been on their way already.
                    true => drop(self.taint(&node).await),
                    false => {
                        let zone = zones::key(&node);
                        self.known().zones.wait(&zone, name(&node), now.instant);
                    }
                }
            }
            _ => self.known().zones.forget(name(&node)),
        }
        let turned = before == Some(Ready::True) && after != Ready::True;
        if turned {
            let message = format!("Node {} status is now: NodeNotReady", name(&node));
            self.context.events.tell(&*node, EventType::Normal, "NodeNotReady", message);
        }
        let again = self.known().unwritten.contains(name(&node)) && before != Some(Ready::True);
        let written = match turned || again {
            true => self.mark_pods(name(&node)).await,
            false => true,
        };
        match written {
            true => self.known().unwritten.remove(name(&node)),
            false => self.known().unwritten.insert(name(&node).to_owned()),
        };
        Some((node, Some(after)))
    }

    /// Lets pods stay on a node.
    async fn welcome(&self, node: &Node) {
        self.known().zones.forget(name(node));
        self.write_taints(node, |node, now| taints::no_execute(node, None, now.time)).await;
    }

    /// Gives a node the taint that goes with how ready it is.
    async fn taint(&self, node: &Node) -> bool {
        self.write_taints(node, |node, now| {
            let key = ready(node).and_then(taints::unwanted)?;
            taints::no_execute(node, Some(key), now.time)
        })
        .await
    }

    /// The next node that is to get a taint gets it.
    async fn taint_next(&self) {
        let now = Instant::now();
        let Some(name) = self.known().zones.next(now) else { return };
        let Some(node) = self.nodes.get(&ObjectKey::new("", &name)) else { return };
        if !self.taint(&node).await {
            self.known().zones.wait(&zones::key(&node), &name, now);
        }
    }

    /// Writes taints, looking again when others were faster; whether they are written.
    async fn write_taints(
        &self,
        node: &Node,
        wanted: impl Fn(&Node, Now) -> Option<Vec<Taint>>,
    ) -> bool {
        match self.try_taints(node, wanted).await {
            Ok(()) => true,
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    async fn try_taints(
        &self,
        node: &Node,
        wanted: impl Fn(&Node, Now) -> Option<Vec<Taint>>,
    ) -> Result<(), CallError> {
        let path = path::<Node>("", name(node));
        let mut newer: Option<Node> = None;
        for tries in 1.. {
            let node = newer.as_ref().unwrap_or(node);
            let Some(taints) = wanted(node, Now::read()) else { return Ok(()) };
            let patch = json!({
                "metadata": {
                    "uid": node.metadata.uid,
                    "resourceVersion": node.metadata.resource_version,
                },
                "spec": { "taints": taints },
            });
            match self.context.calls.patch::<Value>(&path, &patch).await {
                Err(error) if error.kind == CallErrorKind::Conflict && tries < TRIES => {}
                Err(error) if error.kind == CallErrorKind::NotFound => return Ok(()),
                written => return written.map(drop),
            }
            newer = Some(self.context.calls.get(&path).await?);
        }
        Ok(())
    }

    /// Says of the pods of a node that they are not ready; whether all are written.
    async fn mark_pods(&self, node: &str) -> bool {
        let mut all = true;
        for pod in self.pods.all() {
            if pods::node(&pod) == node
                && let Err(error) = self.mark_pod(&pod).await
            {
                self.failed(&error);
                all = false;
            }
        }
        all
    }

    /// Source: `MarkPodsNotReady` in `pkg/controller/util/node/controller_utils.go`.
    async fn mark_pod(&self, pod: &Pod) -> Result<(), CallError> {
        if !has_other_than_not_ready(pod) {
            return Ok(());
        }
        let key = ObjectKey::of(&pod.metadata);
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": { "conditions": [{
                "type": "Ready",
                "status": "False",
                "lastTransitionTime": Time(Now::read().time),
            }] },
        });
        let path = format!("{}/status", path::<Pod>(&key.namespace, &key.name));
        match self.context.calls.patch::<Value>(&path, &patch).await {
            Ok(_) => {}
            // It is gone, or another one.
            Err(error) if error.is_of_another() => return Ok(()),
            Err(error) => return Err(error),
        }
        let events = &self.context.events;
        events.tell(pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        Ok(())
    }

    async fn sync(&self, about: About) -> Result<Option<Duration>, CallError> {
        match about {
            About::Node(name) => {
                let Some(node) = self.nodes.get(&ObjectKey::new("", &name)) else {
                    return Ok(None);
                };
                self.try_taints(&node, |node, now| taints::no_schedule(node, now.time)).await?;
                let labels = taints::labels(&node);
                if !labels.is_empty() {
                    let patch = json!({ "metadata": { "labels": labels } });
                    self.context.calls.patch::<Value>(&path::<Node>("", &name), &patch).await?;
                }
            }
            About::Pod(key) => {
                let Some(pod) = self.pods.get(&key) else { return Ok(None) };
                let node = pods::node(&pod);
                let is_known = self.known().health.contains_key(node);
                let node = self.nodes.get(&ObjectKey::new("", node)).filter(|_| is_known);
                let ready = node.and_then(|node| ready(&node));
                if ready.is_some_and(|ready| ready != Ready::True) {
                    self.mark_pod(&pod).await?;
                }
            }
        }
        Ok(None)
    }

    /// Tells of a write that failed, which is made again with the next look.
    fn failed(&self, error: &CallError) {
        // That others were faster is how it is meant to be.
        if error.kind != CallErrorKind::Conflict && self.known().trouble.is_news(error) {
            tracing::warn!(controller = "node_lifecycle", error = error.message, "cannot go on");
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// Whether a pod says how ready it is, and not that it is not.
fn has_other_than_not_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|it| it.type_ == "Ready" && it.status != "False")
}

#[cfg(test)]
mod tests;
