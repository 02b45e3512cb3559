//! One pod of a template on each node that takes it.
//!
//! A pod is tied to its node by its affinity, and the scheduler binds it; on a cordoned node too, since
//! these pods tolerate that. Those of an older template are replaced, so many at a time as may be
//! unavailable, or when somebody deletes them (`OnDelete`).
//!
//! # Guarantees
//!
//! - Nothing is made or deleted before all that was made and deleted earlier has been heard of, so
//!   that no node gets two pods.
//! - A pod that fails again and again is replaced more and more rarely.
//!
//! Not there yet: revisions, to which `kubectl rollout undo` goes back, and `maxSurge`.
//!
//! Source: `pkg/controller/daemon`.

mod decide;
mod place;
mod status;
mod template;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use mainstay_client::{CallError, CallErrorKind};
use mainstay_pod::scheduling::selector::Selector;

use crate::claim::{Claims, claim, claimants};
use crate::context::Context;
use crate::events::EventType;
use crate::informer::{Change, Informer, ObjectKey};
use crate::informers::path;
use crate::pod_control::{BURST, PodControl};
use crate::queue::Queue;
use crate::written::Written;
use decide::{Decision, Why, decide};

/// How many DaemonSets are looked at at a time. Source: the default of
/// `--concurrent-daemonset-syncs`.
const AT_ONCE: usize = 2;

/// How long a pod that failed is left there: first, and at the longest. Source:
/// `startDaemonSetController` in `cmd/kube-controller-manager/app/apps.go`.
const FIRST_HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(15 * 60);

impl Claims for DaemonSet {
    fn selector(&self) -> Selector {
        Selector::of(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

/// The controller at work.
struct Controller {
    context: Context,
    sets: Arc<Informer<DaemonSet>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    written: Written,
    holds: Mutex<BTreeMap<(ObjectKey, String), Hold>>,
}

/// That pods of a DaemonSet fail on a node.
#[derive(Clone, Copy)]
struct Hold {
    since: Timestamp,
    length: Duration,
}

pub(crate) async fn run(context: Context) {
    let (sets, pods) = (context.informers.of::<DaemonSet>(), context.informers.of::<Pod>());
    let nodes = context.informers.of::<Node>();
    let queue = Arc::new(Queue::new("daemon_set"));
    let _fed = [
        sets.feed(&queue, |change| change.latest().map(|set| ObjectKey::of(&set.metadata))),
        pods.feed(&queue, {
            let sets = sets.clone();
            move |change| claimants(&sets, change)
        }),
        nodes.feed(&queue, {
            let sets = sets.clone();
            move |change| match matters(change) {
                true => sets.all().iter().map(|set| ObjectKey::of(&set.metadata)).collect(),
                false => Vec::new(),
            }
        }),
    ];
    sets.complete().await;
    pods.complete().await;
    nodes.complete().await;
    let (written, holds) = (Written::default(), Mutex::default());
    let controller = Controller { context, sets, pods, nodes, written, holds };
    queue.work(AT_ONCE, |key| controller.sync(key)).await;
}

/// Whether a change of a node may be one of the nodes that take pods. Source: `shouldIgnoreNodeUpdate`.
fn matters(change: &Change<'_, Node>) -> bool {
    let facts = |node: &Arc<Node>| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        (node.metadata.labels.clone(), taints)
    };
    change.old.map(facts) != change.new.map(facts)
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Option<Duration>, CallError> {
        let Some(set) = self.sets.get(&key) else {
            self.written.forget(&key);
            self.holds().retain(|(set, _), _| *set != key);
            return Ok(None);
        };
        // What it has is the garbage collector's now.
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        if set.selector().is_empty() {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            self.context.events.tell(&*set, EventType::Warning, "SelectingAll", message);
            return Ok(None);
        }
        // Asked before the pods are read.
        let is_current = self.written.is_seen(&key, self.pods.reached());
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = self.pods.of_controller(uid);
        pods.extend(self.pods.orphans(&key.namespace));
        let pods = claim(&self.context.calls, &self.written, &*set, pods).await?;
        let (nodes, now) = (self.nodes.all(), Timestamp::now());
        let pods = place::by_node(&pods);
        let held = |node: &str| self.held(&key, node, now);
        let mut again = None;
        let mut managed = Ok(());
        if is_current {
            let decision = decide(&set, &nodes, &pods, held, now);
            again = decision.again;
            managed = self.perform(&key, &set, decision, now).await;
        }
        let status = status::compute(&set, &nodes, &pods, is_current, now);
        if let Some(status) = status {
            let path = path::<DaemonSet>(&key.namespace, &key.name);
            match self.context.calls.put_status(&path, uid, &status).await {
                Err(error) if error.kind == CallErrorKind::NotFound => {}
                written => written?,
            }
        }
        managed?;
        Ok(again.into_iter().chain(status::next_available(&set, &pods, now)).min())
    }

    async fn perform(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        decision: Decision,
        now: Timestamp,
    ) -> Result<(), CallError> {
        let control = PodControl { context: &self.context, written: &self.written, owner: set };
        let Decision { mut create, mut delete, .. } = decision;
        create.truncate(BURST);
        delete.truncate(BURST);
        for (pod, why) in &delete {
            let ObjectKey { namespace, name } = ObjectKey::of(&pod.metadata);
            let node = place::node_of(pod).unwrap_or_default();
            let found =
                |how: &str| format!("Found {how} daemon pod {namespace}/{name} on node {node}");
            let events = &self.context.events;
            match why {
                Why::Failed => {
                    self.hold(key, node, now);
                    let message = format!("{}, will try to kill it", found("failed"));
                    events.tell(set, EventType::Warning, "FailedDaemonPod", message);
                }
                Why::Succeeded => {
                    let message = format!("{}, will try to delete it", found("succeeded"));
                    events.tell(set, EventType::Normal, "SucceededDaemonPod", message);
                }
                Why::Surplus | Why::Unwanted | Why::Outdated => {}
            }
        }
        let created = match template::pod(set) {
            Some(pod) => {
                control.create(create.len(), |number| template::tied(&pod, &create[number])).await
            }
            None => Ok(()),
        };
        let deleted = control.delete(delete.into_iter().map(|(pod, _)| pod).collect()).await;
        created.and(deleted)
    }

    /// How long a pod that failed on a node is still left there.
    fn held(&self, key: &ObjectKey, node: &str, now: Timestamp) -> Option<Duration> {
        let hold = self.holds().get(&(key.clone(), node.to_owned())).copied()?;
        let passed = Duration::try_from(now.duration_since(hold.since)).unwrap_or_default();
        hold.length.checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// Notes that a pod that failed is replaced.
    fn hold(&self, key: &ObjectKey, node: &str, now: Timestamp) {
        let mut holds = self.holds();
        let length = match holds.get(&(key.clone(), node.to_owned())) {
            Some(hold)
                if Duration::try_from(now.duration_since(hold.since))
                    .is_ok_and(|passed| passed <= LONGEST_HOLD * 2) =>
            {
                (hold.length * 2).min(LONGEST_HOLD)
            }
            _ => FIRST_HOLD,
        };
        holds.insert((key.clone(), node.to_owned()), Hold { since: now, length });
    }

    fn holds(&self) -> std::sync::MutexGuard<'_, BTreeMap<(ObjectKey, String), Hold>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
