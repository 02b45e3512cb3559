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
//! Each template that it had is kept as a revision ([`history`]), to which `kubectl rollout undo` goes
//! back.
//!
//! Source: `pkg/controller/daemon`.

mod decide;
mod history;
mod place;
mod status;
mod surge;
mod template;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Node;
use mainstay_client::{CallError, CallErrorKind, Deletion, Partial};
use mainstay_pod::scheduling::selector::Selector;
use serde_json::{Value, json};

use crate::claim::{Claims, claim, claimants};
use crate::context::Context;
use crate::events::EventType;
use crate::informer::{Change, Informer, ObjectKey};
use crate::informers::path;
use crate::pod_control::{BURST, PodControl};
use crate::pods::Pod;
use crate::queue::Queue;
use crate::written::{SOON, Written};
use decide::{Decision, Why, decide};
use history::{HASH, History};

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
    revisions: Arc<Informer<ControllerRevision>>,
    written: Written,
    revised: Written,
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
    let revisions = context.informers.of::<ControllerRevision>();
    let queue = Arc::new(Queue::new("daemon_set"));
    let _fed = [
        sets.feed(&queue, |change| change.latest().map(|set| ObjectKey::of(&set.metadata))),
        pods.feed(&queue, {
            let sets = sets.clone();
            move |change| claimants(&sets, change)
        }),
        revisions.feed(&queue, {
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
    revisions.complete().await;
    let controller = Controller {
        context,
        sets,
        pods,
        nodes,
        revisions,
        written: Written::default(),
        revised: Written::default(),
        holds: Mutex::default(),
    };
    queue.work(AT_ONCE, |key| controller.sync(key)).await;
}

/// Whether a change of a node may be one of the nodes that take pods. Source: `shouldIgnoreNodeUpdate`.
fn matters(change: &Change<'_, Node>) -> bool {
    fn facts(node: &Arc<Node>) -> impl PartialEq {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        (node.metadata.labels.as_ref(), taints)
    }
    change.old.map(facts) != change.new.map(facts)
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Option<Duration>, CallError> {
        let Some(set) = self.sets.get(&key) else {
            self.written.forget(&key);
            self.revised.forget(&key);
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
        if !self.revised.is_seen(&key, self.revisions.reached()) {
            return Ok(Some(SOON));
        }
        let (hash, old) = self.revise(&key, &set).await?;
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
            let decision = decide(&set, &hash, &nodes, &pods, held, now);
            again = decision.again;
            managed = self.perform(&key, &set, &hash, decision, now).await;
            for surplus in old.surplus(&set, pods.values().flatten()) {
                self.forget(&key, &surplus).await?;
            }
        }
        let status = status::compute(&set, &hash, &nodes, &pods, is_current, now);
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

    /// Sees to it that there is one revision of the template as it is; answers its hash, and the others.
    async fn revise(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
    ) -> Result<(String, History), CallError> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut revisions = self.revisions.of_controller(uid);
        revisions.extend(self.revisions.orphans(&key.namespace));
        let revisions = claim(&self.context.calls, &self.revised, set, revisions).await?;
        let mut history = History::of(set, revisions);
        let current = match history.current.split_first() {
            None => self.snapshot(key, set, history.number).await?,
            Some((current, doubles)) => {
                let hash = history::label(&current.metadata).unwrap_or_default();
                if !doubles.is_empty() {
                    self.relabel(uid, hash).await?;
                }
                for double in doubles {
                    self.forget(key, double).await?;
                }
                if current.revision < history.number {
                    let patch = json!({ "revision": history.number });
                    self.patch_revision(key, current, &patch).await?;
                }
                if hash.is_empty() {
                    let labels = json!({ HASH: current.metadata.name });
                    let patch = json!({ "metadata": { "labels": labels } });
                    self.patch_revision(key, current, &patch).await?;
                    return Err(CallError::conflict("a revision has a hash only now".to_owned()));
                }
                hash.to_owned()
            }
        };
        history.current.clear();
        Ok((current, history))
    }

    /// Makes the revision of the template as it is; answers its hash. Source: `snapshot`.
    async fn snapshot(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        number: i64,
    ) -> Result<String, CallError> {
        let revision = history::revision(set, number);
        let hash = history::label(&revision.metadata).unwrap_or_default().to_owned();
        let collection = path::<ControllerRevision>(&key.namespace, "");
        let error = match self.context.calls.post::<Partial, _>(&collection, &revision).await {
            Ok(made) => {
                self.revised.note(key, &made.metadata);
                return Ok(hash);
            }
            Err(error) if error.kind == CallErrorKind::AlreadyExists => error,
            Err(error) => return Err(error),
        };
        let name = revision.metadata.name.unwrap_or_default();
        let path = path::<ControllerRevision>(&key.namespace, &name);
        let there: ControllerRevision = self.context.calls.get(&path).await?;
        if there.data == revision.data {
            return Ok(hash);
        }
        // Another template has the same hash: with one more collision it has another one.
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let of_set = crate::informers::path::<DaemonSet>(&key.namespace, &key.name);
        self.context.calls.put_status(&of_set, uid, &status).await?;
        Err(error)
    }

    async fn patch_revision(
        &self,
        key: &ObjectKey,
        revision: &ControllerRevision,
        patch: &Value,
    ) -> Result<(), CallError> {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let path = path::<ControllerRevision>(&key.namespace, name);
        let answer = self.context.calls.merge::<Partial>(&path, patch).await?;
        self.revised.note(key, &answer.metadata);
        Ok(())
    }

    async fn forget(
        &self,
        key: &ObjectKey,
        revision: &ControllerRevision,
    ) -> Result<(), CallError> {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let uid = revision.metadata.uid.as_deref().unwrap_or_default();
        let path = path::<ControllerRevision>(&key.namespace, name);
        match self.context.calls.delete(&path, Deletion::of(uid)).await {
            Err(error) if error.kind == CallErrorKind::NotFound => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Has all pods say that they are of the revision that stays.
    async fn relabel(&self, uid: &str, hash: &str) -> Result<(), CallError> {
        for pod in self.pods.of_controller(uid) {
            if history::label(&pod.metadata) != Some(hash) {
                let key = ObjectKey::of(&pod.metadata);
                let patch = json!({ "metadata": {
                    "uid": pod.metadata.uid, "labels": { HASH: hash },
                } });
                let path = path::<Pod>(&key.namespace, &key.name);
                self.context.calls.merge::<Partial>(&path, &patch).await?;
            }
        }
        Ok(())
    }

    async fn perform(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        hash: &str,
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
        let created = match template::pod(set, hash) {
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
