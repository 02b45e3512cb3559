//! The ReplicaSets of a Deployment, one for each template that it has and had: the new one grows as
//! the old ones shrink.
//!
//! A ReplicaSet is that of a template if its own is the same, whatever it is called and whoever
//! made it. Those of earlier templates stay, without pods, as many as `revisionHistoryLimit` says:
//! `kubectl rollout undo` puts the template of one of them back, whose ReplicaSet is then the new
//! one again.
//!
//! # Guarantees
//!
//! - Nothing is decided before all that was written earlier has been heard of.
//! - Each step leaves as many pods as `maxUnavailable` and `maxSurge` say, however often it is
//!   interrupted: what comes next follows from what there is.
//!
//! Source: `pkg/controller/deployment`.

mod annotations;
mod conditions;
mod decide;
mod proportion;
mod rolling;
mod sets;
mod status;
mod strategy;
mod template;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use mainstay_client::{CallError, CallErrorKind, Deletion, Partial};
use mainstay_pod::scheduling::selector::Selector;
use serde_json::{Value, json};

use crate::claim::{Claims, claim, claimants};
use crate::context::Context;
use crate::events::EventType;
use crate::informer::{Change, Informer, ObjectKey};
use crate::informers::path;
use crate::owner::{controller, is_of};
use crate::pods::Pod;
use crate::queue::Queue;
use crate::written::Written;
use conditions::{PROGRESSING, condition, reason};
use decide::{Write, decide};

/// How many Deployments are looked at at a time. Source: the default of
/// `--concurrent-deployment-syncs`.
const AT_ONCE: usize = 5;

impl Claims for Deployment {
    fn selector(&self) -> Selector {
        Selector::of(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

/// The controller at work.
struct Controller {
    context: Context,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    /// What was written to ReplicaSets.
    written: Written,
    /// What was written to the Deployment itself.
    told: Written,
}

pub(crate) async fn run(context: Context) {
    let deployments = context.informers.of::<Deployment>();
    let (sets, pods) = (context.informers.of::<ReplicaSet>(), context.informers.of::<Pod>());
    let queue = Arc::new(Queue::new("deployment"));
    let _fed = [
        deployments.feed(&queue, |change| change.latest().map(|it| ObjectKey::of(&it.metadata))),
        sets.feed(&queue, {
            let deployments = deployments.clone();
            move |change| claimants(&deployments, change)
        }),
        pods.feed(&queue, {
            let (deployments, sets) = (deployments.clone(), sets.clone());
            move |change| waiting(&deployments, &sets, change)
        }),
    ];
    deployments.complete().await;
    sets.complete().await;
    pods.complete().await;
    let (written, told) = (Written::default(), Written::default());
    let controller = Controller { context, deployments, sets, pods, written, told };
    queue.work(AT_ONCE, |key| controller.sync(key)).await;
}

/// The Deployment that waits for old pods to be gone, if one of its pods is. Source: `deletePod`.
fn waiting(
    deployments: &Informer<Deployment>,
    sets: &Informer<ReplicaSet>,
    change: &Change<'_, Pod>,
) -> Option<ObjectKey> {
    let gone = change.old.filter(|_| change.new.is_none())?;
    let namespace = gone.metadata.namespace.as_deref().unwrap_or_default();
    let of_pod = controller(&gone.metadata).filter(|owner| is_of::<ReplicaSet>(owner))?;
    let set = sets.get(&ObjectKey::new(namespace, &of_pod.name))?;
    let of_set = controller(&set.metadata).filter(|owner| is_of::<Deployment>(owner))?;
    let key = ObjectKey::new(namespace, &of_set.name);
    let is_waiting = strategy::Strategy::of(&*deployments.get(&key)?).recreate;
    is_waiting.then_some(key)
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Option<Duration>, CallError> {
        // Asked before anything is read. What was not heard of yet will be, and asks again.
        let is_current = self.written.is_seen(&key, self.sets.reached())
            && self.told.is_seen(&key, self.deployments.reached());
        let Some(deployment) = self.deployments.get(&key) else {
            self.written.forget(&key);
            self.told.forget(&key);
            return Ok(None);
        };
        if !is_current {
            return Ok(None);
        }
        if deployment.selector().is_empty() {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            self.context.events.tell(&*deployment, EventType::Warning, "SelectingAll", message);
            return Ok(None);
        }
        let mut sets = self.sets.of_controller(uid(&deployment.metadata));
        sets.extend(self.sets.orphans(&key.namespace));
        let sets = claim(&self.context.calls, &self.written, &*deployment, sets).await?;
        let pods_of = |set: &ReplicaSet| self.pods.of_controller(uid(&set.metadata));
        let now = Timestamp::now();
        let decision = decide(&deployment, sets, pods_of, now);
        match self.perform(&key, &deployment, decision.writes, now).await {
            // It is gone, or something else that was meant is; that is heard of.
            Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(decision.again),
        }
    }

    async fn perform(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        writes: Vec<Write>,
        now: Timestamp,
    ) -> Result<(), CallError> {
        for write in writes {
            match write {
                Write::Create(set) => {
                    if !self.create(key, deployment, &set, now).await? {
                        return Ok(());
                    }
                }
                Write::Update { set, annotations, min_ready_seconds } => {
                    let mut patch = json!({ "metadata": { "annotations": annotations } });
                    if let Some(seconds) = min_ready_seconds {
                        patch["spec"] = json!({ "minReadySeconds": seconds });
                    }
                    self.patch(key, &set, patch).await?;
                }
                Write::Scale { set, from, to, annotations } => {
                    let meta = json!({ "annotations": annotations });
                    let patch = json!({ "metadata": meta, "spec": { "replicas": to } });
                    self.patch(key, &set, patch).await?;
                    self.tell_scaled(deployment, sets::name(&set), from, to);
                }
                Write::Delete(set) => self.delete(key, &set).await?,
                Write::Status { status, revision } => {
                    self.put_status(key, deployment, &status, revision.as_deref()).await?;
                }
            }
        }
        Ok(())
    }

    /// Makes a ReplicaSet; answers whether it is there and all goes on.
    async fn create(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        set: &ReplicaSet,
        now: Timestamp,
    ) -> Result<bool, CallError> {
        let collection = path::<ReplicaSet>(&key.namespace, "");
        let error = match self.context.calls.post::<Partial, _>(&collection, set).await {
            Ok(made) => {
                self.written.note(key, &made.metadata);
                self.tell_scaled(deployment, sets::name(set), 0, sets::size(set));
                return Ok(true);
            }
            Err(error) => error,
        };
        match error.kind {
            CallErrorKind::AlreadyExists => {
                self.avoid(key, deployment, set).await?;
                Ok(false)
            }
            // Whatever is made there would be refused.
            _ if error.is_of_ending_namespace() => Ok(false),
            CallErrorKind::Away => Err(error),
            CallErrorKind::NotFound
            | CallErrorKind::Conflict
            | CallErrorKind::Gone
            | CallErrorKind::Refused => {
                let name = sets::name(set);
                let message =
                    format!("Failed to create new replica set {name:?}: {}", error.answer);
                let events = &self.context.events;
                events.tell(deployment, EventType::Warning, reason::CANNOT_CREATE, &*message);
                let before = deployment.status.clone().unwrap_or_default();
                let mut status = before.clone();
                if status::deadline(deployment).is_some() {
                    let cannot =
                        condition(PROGRESSING, "False", reason::CANNOT_CREATE, message, now);
                    conditions::set(&mut status, cannot);
                }
                if status != before {
                    self.put_status(key, deployment, &status, None).await?;
                }
                Err(error)
            }
        }
    }

    /// Has another hash computed if the name is taken by a ReplicaSet of something else.
    async fn avoid(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        set: &ReplicaSet,
    ) -> Result<(), CallError> {
        let path = path::<ReplicaSet>(&key.namespace, sets::name(set));
        let there: ReplicaSet = self.context.calls.get(&path).await?;
        let template = |set: &ReplicaSet| set.spec.clone().and_then(|spec| spec.template);
        let is_ours = controller(&there.metadata).map(|it| &*it.uid)
            == Some(uid(&deployment.metadata))
            && template(&there)
                .zip(template(set))
                .is_some_and(|(one, other)| template::is_same(&one, &other));
        if is_ours {
            // It was made before this was started, and will be heard of.
            self.written.note(key, &there.metadata);
            return Ok(());
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default().saturating_add(1));
        self.put_status(key, deployment, &status, None).await
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        mut patch: Value,
    ) -> Result<(), CallError> {
        patch["metadata"]["uid"] = uid(&set.metadata).into();
        let path = path::<ReplicaSet>(&key.namespace, sets::name(set));
        let answer = self.context.calls.patch::<Partial>(&path, &patch).await?;
        self.written.note(key, &answer.metadata);
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, set: &ReplicaSet) -> Result<(), CallError> {
        let path = path::<ReplicaSet>(&key.namespace, sets::name(set));
        match self.context.calls.delete(&path, Deletion::of(uid(&set.metadata))).await {
            Ok(answer) => {
                if let Ok(answer) = serde_json::from_value::<Partial>(answer) {
                    self.written.note(key, &answer.metadata);
                }
                Ok(())
            }
            // It is gone.
            Err(error) if error.is_of_another() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the status and, if there is another one, the revision, which goes with it.
    async fn put_status(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        status: &DeploymentStatus,
        revision: Option<&str>,
    ) -> Result<(), CallError> {
        let path = path::<Deployment>(&key.namespace, &key.name);
        // As JSON: what this program does not know of is not lost.
        let mut object: Value = self.context.calls.get(&path).await?;
        if object["metadata"]["uid"] != uid(&deployment.metadata) {
            return Err(CallError::conflict(format!("{path}: the object is another one by now")));
        }
        if let Some(revision) = revision {
            object["metadata"]["annotations"][annotations::REVISION] = revision.into();
        }
        object["status"] = json!(status);
        let path = format!("{path}/status");
        let answer = self.context.calls.put::<Partial, _>(&path, &object).await?;
        self.told.note(key, &answer.metadata);
        Ok(())
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i64, to: i64) {
        if from != to {
            let direction = if from < to { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
            self.context.events.tell(deployment, EventType::Normal, "ScalingReplicaSet", message);
        }
    }
}

fn uid(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
