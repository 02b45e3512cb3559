//! Pods do not stay on a node with a taint `NoExecute`: those that do not tolerate it go at once, those
//! that tolerate it for a while after that, if it is still there then.
//!
//! # Guarantees
//!
//! - The time that a pod is given begins once: it does not begin anew when one taint takes the place
//!   of another, as when a node that was not ready is not heard of any more. It does after a start.
//! - Who decides is the pod's tolerations alone: static pods tolerate everything, pods of a DaemonSet
//!   that their node is away.
//!
//! Source: `pkg/controller/tainteviction`.

mod decide;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod as KubernetesPod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::{CallError, Deletion};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::Context;
use crate::events::EventType;
use crate::informer::{Change, Informer, ObjectKey};
use crate::informers::path;
use crate::pods::{self, Pod};
use crate::queue::Queue;
use decide::{Timer, decide, no_execute};

/// How many pods are looked at at a time. Source: `UpdateWorkerSize`.
const AT_ONCE: usize = 8;

/// The controller at work.
struct Controller {
    context: Context,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    /// Of each pod that is to go, when.
    timers: Mutex<BTreeMap<ObjectKey, Eviction>>,
}

/// That a pod is to go.
struct Eviction {
    /// Of the pod.
    uid: Option<String>,
    timer: Timer,
}

pub(crate) async fn run(context: Context) {
    let (pods, nodes) = (context.informers.of::<Pod>(), context.informers.of::<Node>());
    let queue = Arc::new(Queue::new("taint_eviction"));
    let _fed = [
        pods.feed(&queue, of_pod),
        nodes.feed(&queue, {
            let pods = pods.clone();
            move |change| of_node(&pods, change)
        }),
    ];
    pods.complete().await;
    nodes.complete().await;
    let controller = Controller { context, pods, nodes, timers: Mutex::default() };
    queue.work(AT_ONCE, |key| controller.sync(key)).await;
}

/// A pod that is new or gone, or tolerates something else. Source: `PodUpdated`.
fn of_pod(change: &Change<'_, Pod>) -> Option<ObjectKey> {
    fn facts(pod: &Arc<Pod>) -> impl PartialEq {
        (pods::node(pod), tolerations(pod))
    }
    let is_news = change.old.map(facts) != change.new.map(facts);
    let pod = change.latest().filter(|_| is_news)?;
    (!pods::node(pod).is_empty()).then(|| ObjectKey::of(&pod.metadata))
}

/// The pods of a node whose taints are others than they were. Source: `NodeUpdated`.
fn of_node(pods: &Informer<Pod>, change: &Change<'_, Node>) -> Vec<ObjectKey> {
    let Some(node) = change.new else { return Vec::new() };
    if change.old.into_iter().flat_map(|old| no_execute(old)).eq(no_execute(node)) {
        return Vec::new();
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut pods = pods.all();
    pods.retain(|pod| pods::node(pod) == name);
    pods.iter().map(|pod| ObjectKey::of(&pod.metadata)).collect()
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Option<Duration>, CallError> {
        let pod = self.pods.get(&key);
        let uid = pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
        let known = self.timers().get(&key).map(|known| (known.uid.clone(), known.timer));
        let before = match known {
            Some((other, _)) if pod.is_none() || other != uid => {
                self.timers().remove(&key);
                self.tell(&key, other, "Cancelling deletion of Pod");
                None
            }
            known => known.map(|(_, timer)| timer),
        };
        let Some(pod) = pod else { return Ok(None) };
        let node = self.nodes.get(&ObjectKey::new("", pods::node(&pod)));
        let now = Instant::now();
        let timer = match &node {
            Some(node) => {
                let taints: Vec<&Taint> = no_execute(node).collect();
                decide(before, &taints, tolerations(&pod), now)
            }
            // What was decided stands.
            None => before,
        };
        if before.is_some() && timer != before {
            self.timers().remove(&key);
            self.tell(&key, uid.clone(), "Cancelling deletion of Pod");
        }
        let Some(timer) = timer else { return Ok(None) };
        self.timers().insert(key.clone(), Eviction { uid: uid.clone(), timer });
        let rest = timer.fires.saturating_duration_since(now);
        if rest > Duration::ZERO {
            return Ok(Some(rest));
        }
        let is_deleted = self.evict(&key, &pod).await?;
        self.timers().remove(&key);
        if is_deleted {
            self.tell(&key, uid, "Marking for deletion Pod");
        }
        Ok(None)
    }

    /// Says of a pod that it is to be disrupted, and deletes it. Source: `addConditionAndDeletePod`.
    /// Answers whether it was there still.
    async fn evict(&self, key: &ObjectKey, pod: &Pod) -> Result<bool, CallError> {
        let node = pods::node(pod);
        tracing::info!(pod = %key, node, "deletes a pod that does not tolerate a taint");
        let meta = &pod.metadata;
        let condition = pods::disruption_target(
            pod,
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            Timestamp::now(),
        );
        let patch =
            json!({ "metadata": { "uid": meta.uid }, "status": { "conditions": [condition] } });
        let path = path::<Pod>(&key.namespace, &key.name);
        let evicted = async {
            self.context.calls.patch::<Value>(&format!("{path}/status"), &patch).await?;
            let uid = meta.uid.as_deref().unwrap_or_default();
            self.context.calls.delete(&path, Deletion::of(uid)).await
        };
        match evicted.await {
            // It is gone, or another one.
            Err(error) if error.is_of_another() => Ok(false),
            evicted => evicted.map(|_| true),
        }
    }

    fn tell(&self, key: &ObjectKey, uid: Option<String>, what: &str) {
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            uid,
            ..ObjectMeta::default()
        };
        let pod = KubernetesPod { metadata, ..KubernetesPod::default() };
        let message = format!("{what} {key}");
        self.context.events.tell(&pod, EventType::Normal, "TaintManagerEviction", message);
    }

    fn timers(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Eviction>> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
