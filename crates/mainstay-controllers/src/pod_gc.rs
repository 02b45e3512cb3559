//! Pods that nobody runs any more, and nobody else removes: those of nodes that are gone, those that
//! are to end and have no node that would end them, and the oldest of too many that are over.
//!
//! # Guarantees
//!
//! - A node is gone only after it has been missing for [`QUARANTINE`] and the API, asked again,
//!   has none.
//! - A pod that was not over is `Failed` before it goes, so that whoever counts on it is told.
//!
//! Source: `pkg/controller/podgc/gc_controller.go`.

mod decide;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use mainstay_client::{CallError, CallErrorKind, Deletion};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::Context;
use crate::informer::{Change, Informer, ObjectKey};
use crate::informers::path;
use crate::pods::{self, Pod};
use crate::queue::Queue;
use decide::{Place, Why, decide, failed, is_out_of_service, surplus};

/// How long a node may be missing: it may only not have been heard of. Source: `quarantineTime`.
const QUARANTINE: Duration = Duration::from_secs(40);

/// How many pods that are over may be there. Source: the default of
/// `--terminated-pod-gc-threshold`.
const MOST_OVER: usize = 12_500;

/// How many things are looked at at a time.
const AT_ONCE: usize = 4;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Pod(ObjectKey),
    /// The pods of a node.
    Node(String),
    /// All pods that are over.
    Over,
}

/// The controller at work.
struct Controller {
    context: Context,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    missing: Mutex<Missing>,
}

/// Since when nodes that have pods are missing.
#[derive(Default)]
struct Missing(BTreeMap<String, Instant>);

pub(crate) async fn run(context: Context) {
    let (pods, nodes) = (context.informers.of::<Pod>(), context.informers.of::<Node>());
    let queue = Arc::new(Queue::new("pod_gc"));
    let _fed = [
        pods.feed(&queue, {
            let nodes = nodes.clone();
            move |change| of_pod(&nodes, change)
        }),
        nodes.feed(&queue, of_node),
    ];
    pods.complete().await;
    nodes.complete().await;
    let controller = Controller { context, pods, nodes, missing: Mutex::default() };
    queue.work(AT_ONCE, |about| controller.sync(about)).await;
}

/// What a change of a pod has to be looked at for.
fn of_pod(nodes: &Informer<Node>, change: &Change<'_, Pod>) -> Vec<About> {
    let mut about = Vec::new();
    let Some(pod) = change.new else { return about };
    if pods::is_over(pod) && !change.old.is_some_and(|old| pods::is_over(old)) {
        about.push(About::Over);
    }
    match pods::node(pod) {
        node if !node.is_empty() && nodes.get(&ObjectKey::new("", node)).is_none() => {
            about.push(About::Node(node.to_owned()));
        }
        _ if pod.metadata.deletion_timestamp.is_some() => {
            about.push(About::Pod(ObjectKey::of(&pod.metadata)));
        }
        _ => {}
    }
    about
}

/// A node that is gone, or that is back, or that somebody says will not come back.
fn of_node(change: &Change<'_, Node>) -> Option<About> {
    let name = change.latest()?.metadata.name.clone()?;
    let is_news = match (change.old, change.new) {
        (Some(_), Some(new)) => is_out_of_service(new),
        _ => true,
    };
    is_news.then_some(About::Node(name))
}

// === impl Controller ===

impl Controller {
    async fn sync(&self, about: About) -> Result<Option<Duration>, CallError> {
        match about {
            About::Pod(key) => {
                let Some(pod) = self.pods.get(&key) else { return Ok(None) };
                let name = pods::node(&pod);
                let node = self.nodes.get(&ObjectKey::new("", name));
                let place = match &node {
                    Some(node) => Place::On(node),
                    None if name.is_empty() => Place::Nowhere,
                    // That is looked at with the node.
                    None => return Ok(None),
                };
                self.look_at(&pod, &place).await.map(|()| None)
            }
            About::Node(name) => self.look_at_node(&name).await,
            About::Over => {
                let mut result = Ok(());
                for pod in surplus(self.pods.all(), MOST_OVER) {
                    result = self.remove(&pod, Why::TooMany).await.and(result);
                }
                result.map(|()| None)
            }
        }
    }

    async fn look_at_node(&self, name: &str) -> Result<Option<Duration>, CallError> {
        let mut pods = self.pods.all();
        pods.retain(|pod| pods::node(pod) == name);
        let node = self.nodes.get(&ObjectKey::new("", name));
        let place = match &node {
            Some(node) => {
                self.missing(|missing| missing.is_there(name));
                Place::On(node)
            }
            None if pods.is_empty() => {
                self.missing(|missing| missing.is_there(name));
                return Ok(None);
            }
            None => {
                let rest = self.missing(|missing| missing.rest(name, Instant::now()));
                if rest > Duration::ZERO {
                    return Ok(Some(rest));
                }
                match self.context.calls.get_metadata(&path::<Node>("", name)).await {
                    Err(error) if error.kind == CallErrorKind::NotFound => Place::Gone,
                    Err(error) => return Err(error),
                    // It will be heard of.
                    Ok(_) => {
                        self.missing(|missing| missing.is_there(name));
                        return Ok(Some(QUARANTINE));
                    }
                }
            }
        };
        // One that cannot go keeps no other one.
        let mut result = Ok(());
        for pod in pods {
            result = self.look_at(&pod, &place).await.and(result);
        }
        result.map(|()| None)
    }

    async fn look_at(&self, pod: &Pod, place: &Place<'_>) -> Result<(), CallError> {
        match decide(pod, place) {
            Some(why) => self.remove(pod, why).await,
            None => Ok(()),
        }
    }

    /// Says that a pod has failed, if it is not over, and deletes it at once.
    async fn remove(&self, pod: &Pod, why: Why) -> Result<(), CallError> {
        let (key, uid) = (ObjectKey::of(&pod.metadata), &pod.metadata.uid);
        let path = path::<Pod>(&key.namespace, &key.name);
        tracing::info!(pod = %key, why = ?why, "deletes a pod that nobody runs");
        let removed = async {
            if let Some(status) = failed(pod, why, Timestamp::now()) {
                let patch = json!({ "metadata": { "uid": uid }, "status": status });
                self.context.calls.patch::<Value>(&format!("{path}/status"), &patch).await?;
            }
            let uid = uid.as_deref().unwrap_or_default();
            let deletion = Deletion { grace: Some(0), ..Deletion::of(uid) };
            self.context.calls.delete(&path, deletion).await
        };
        match removed.await {
            // It is gone, or another one.
            Err(error) if error.is_of_another() => Ok(()),
            removed => removed.map(drop),
        }
    }

    fn missing<T>(&self, look: impl FnOnce(&mut Missing) -> T) -> T {
        look(&mut self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Missing ===

impl Missing {
    /// For how long a node that is missing has to be missing still to be taken as gone.
    fn rest(&mut self, node: &str, now: Instant) -> Duration {
        let since = *self.0.entry(node.to_owned()).or_insert(now);
        QUARANTINE.saturating_sub(now.duration_since(since))
    }

    /// A node is there, or nobody misses it.
    fn is_there(&mut self, node: &str) {
        self.0.remove(node);
    }
}

#[cfg(test)]
mod tests;
