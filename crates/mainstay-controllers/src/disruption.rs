//! How many of the pods of a PodDisruptionBudget may be disrupted.
//!
//! # Flow
//!
//! For a budget the pods that its selector picks are counted, the [`scale`] of their controllers is
//! looked up if the budget is a share of it, and [`decide()`] has the status. An eviction takes one
//! disruption out of the status and notes the pod there ([`DELETION_TIMEOUT`]).
//!
//! # Guarantees
//!
//! - A status is decided on what the API has at that time and written only if the budget is still
//!   the same, so that no eviction that was granted meanwhile is forgotten.
//! - What cannot be counted allows nothing.
//!
//! Pods that were to be disrupted and were not say so no more after a while: [`stale`].
//!
//! Source: `pkg/controller/disruption`.

mod decide;
mod scale;
mod stale;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use mainstay_client::{CallError, CallErrorKind};
use mainstay_pod::scheduling::selector::{Labels, Selector};
use serde_json::{Value, json};

use crate::context::Context;
use crate::events::{EventType, Events};
use crate::informer::{Change, Informer, ObjectKey};
use crate::informers::path;
use crate::pods::Pod;
use crate::queue::Queue;
use decide::{Decision, decide};
use scale::Scales;

/// How long a pod whose eviction was granted may take to be seen to be deleted. Source:
/// `DeletionTimeout`.
const DELETION_TIMEOUT: Duration = Duration::from_mins(2);

/// The controller at work.
struct Controller {
    context: Context,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    sets: Arc<Informer<ReplicaSet>>,
    deployments: Arc<Informer<Deployment>>,
}

pub(crate) async fn run(context: Context) {
    let budgets = context.informers.of::<PodDisruptionBudget>();
    let (sets, pods) = (context.informers.of::<ReplicaSet>(), context.informers.of::<Pod>());
    let deployments = context.informers.of::<Deployment>();
    let queue = Arc::new(Queue::new("disruption"));
    let targets = Arc::new(Queue::new("disruption_target"));
    let _fed = [
        budgets.feed(&queue, |change| change.latest().map(|it| ObjectKey::of(&it.metadata))),
        pods.feed(&queue, {
            let (budgets, events) = (budgets.clone(), context.events.clone());
            move |change| of_pod(&budgets, &events, change)
        }),
        sets.feed(&queue, {
            let (budgets, pods) = (budgets.clone(), pods.clone());
            move |change| of_set(&budgets, &pods, change)
        }),
        deployments.feed(&queue, {
            let (budgets, pods, sets) = (budgets.clone(), pods.clone(), sets.clone());
            move |change| of_deployment(&budgets, &pods, &sets, change)
        }),
        pods.feed(&targets, |change| {
            let pod = change.new.filter(|pod| stale::target(pod).is_some());
            pod.map(|pod| ObjectKey::of(&pod.metadata))
        }),
    ];
    budgets.complete().await;
    pods.complete().await;
    sets.complete().await;
    deployments.complete().await;
    let controller = Controller { context, budgets, pods, sets, deployments };
    tokio::join!(
        queue.work(1, |key| controller.sync(key)),
        targets.work(1, |key| stale::sync(&controller.context.calls, &controller.pods, key)),
    );
}

// === who is asked again ===

/// The budgets that a pod falls under, and did. A pod should fall under one; others are told of.
fn of_pod(
    budgets: &Informer<PodDisruptionBudget>,
    events: &Events,
    change: &Change<'_, Pod>,
) -> BTreeSet<ObjectKey> {
    let mut keys = BTreeSet::new();
    for pod in change.both() {
        keys.extend(covering(budgets, pod));
    }
    if let Some(pod) = change.new.filter(|_| keys.len() > 1)
        && let [first, _, ..] = &*covering(budgets, pod)
    {
        let ObjectKey { namespace, name } = ObjectKey::of(&pod.metadata);
        let message = format!(
            "Pod {namespace:?}/{name:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
            first.name
        );
        events.tell(&**pod, EventType::Warning, "MultiplePodDisruptionBudgets", message);
    }
    keys
}

/// What is there with another number of pods than before.
fn rescaled<'a, K>(
    change: &Change<'a, K>,
    replicas: impl Fn(&K) -> Option<i32>,
) -> Option<&'a Arc<K>> {
    change.new.filter(|new| change.old.map(|old| replicas(old)) != Some(replicas(new)))
}

/// The budgets of the pods of a ReplicaSet whose number has changed.
fn of_set(
    budgets: &Informer<PodDisruptionBudget>,
    pods: &Informer<Pod>,
    change: &Change<'_, ReplicaSet>,
) -> BTreeSet<ObjectKey> {
    let replicas = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas);
    let Some(new) = rescaled(change, replicas) else { return BTreeSet::new() };
    let pods = pods.of_controller(new.metadata.uid.as_deref().unwrap_or_default());
    pods.iter().flat_map(|pod| covering(budgets, pod)).collect()
}

/// The budgets of the pods of a Deployment whose number has changed.
fn of_deployment(
    budgets: &Informer<PodDisruptionBudget>,
    pods: &Informer<Pod>,
    sets: &Informer<ReplicaSet>,
    change: &Change<'_, Deployment>,
) -> BTreeSet<ObjectKey> {
    let replicas = |it: &Deployment| it.spec.as_ref().and_then(|spec| spec.replicas);
    let Some(new) = rescaled(change, replicas) else { return BTreeSet::new() };
    let sets = sets.of_controller(new.metadata.uid.as_deref().unwrap_or_default());
    let uids = sets.iter().filter_map(|set| set.metadata.uid.as_deref());
    let pods: Vec<Arc<Pod>> = uids.flat_map(|uid| pods.of_controller(uid)).collect();
    pods.iter().flat_map(|pod| covering(budgets, pod)).collect()
}

/// The budgets that a pod falls under, by name.
fn covering(budgets: &Informer<PodDisruptionBudget>, pod: &Pod) -> Vec<ObjectKey> {
    let budgets = budgets.of_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
    let covering = budgets.iter().filter(|budget| covers(&selector(budget), pod));
    covering.map(|budget| ObjectKey::of(&budget.metadata)).collect()
}

fn selector(budget: &PodDisruptionBudget) -> Selector {
    Selector::of(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
}

fn covers(selector: &Selector, pod: &Pod) -> bool {
    static NONE: Labels = Labels::new();
    selector.matches(pod.metadata.labels.as_ref().unwrap_or(&NONE))
}

// === impl Controller ===

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Option<Duration>, CallError> {
        let Some(budget) = self.budgets.get(&key) else { return Ok(None) };
        let decision = self.judge(&key, &budget).await?;
        for (kind, reason, message) in decision.events {
            self.context.events.tell(&*budget, kind, reason, message);
        }
        for pod in decision.not_deleted {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.context.events.tell(&*pod, EventType::Warning, "NotDeleted", message);
        }
        match decision.status {
            Some(_) => self.write(&key).await,
            None => Ok(decision.again),
        }
    }

    async fn judge(
        &self,
        key: &ObjectKey,
        budget: &PodDisruptionBudget,
    ) -> Result<Decision, CallError> {
        let selector = selector(budget);
        let mut pods = self.pods.of_namespace(&key.namespace);
        pods.retain(|pod| covers(&selector, pod));
        let scales = match decide::is_share(budget) {
            true => {
                let calls = &self.context.calls;
                scale::of_pods(calls, &self.sets, &self.deployments, &pods).await?
            }
            false => Scales::new(),
        };
        Ok(decide(budget, &pods, &scales, Timestamp::now()))
    }

    /// Writes the status of a budget as it is by now.
    async fn write(&self, key: &ObjectKey) -> Result<Option<Duration>, CallError> {
        let path = path::<PodDisruptionBudget>(&key.namespace, &key.name);
        // As JSON: what this program does not know of is not lost.
        let mut object: Value = match self.context.calls.get(&path).await {
            Err(error) if error.kind == CallErrorKind::NotFound => return Ok(None),
            object => object?,
        };
        let budget: PodDisruptionBudget = serde_json::from_value(object.clone())
            .map_err(|error| CallError::refused(format!("GET {path}: {error}")))?;
        let decision = self.judge(key, &budget).await?;
        let Some(status) = decision.status else { return Ok(decision.again) };
        object["status"] = json!(status);
        // It has its resource version: what has changed meanwhile is a conflict, which asks again.
        match self.context.calls.put::<Value, _>(&format!("{path}/status"), &object).await {
            Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
            written => written.map(|_| decision.again),
        }
    }
}

#[cfg(test)]
mod tests;
