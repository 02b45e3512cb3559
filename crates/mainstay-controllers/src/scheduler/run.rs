//! Carries out what was decided.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use mainstay_client::{CallError, CallErrorKind, Deletion};
use mainstay_pod::scheduling::selector::Selector;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::pod::PodInfo;
use super::state::{State, Step, Wait};
use crate::context::Context;
use crate::events::EventType;
use crate::informer::{Informer, ObjectKey, Subscription};
use crate::informers::path;
use crate::pods::{DISRUPTION_TARGET, Pod};

/// How many requests are under way at a time.
const AT_ONCE: usize = 16;
/// The longest that is told of why a pod waits, in bytes. Source: `NoteLengthLimit`.
const LONGEST_NOTE: usize = 1024;

/// All that is known, and who is waiting for it to change.
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    began: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn change(&self, change: impl FnOnce(&mut State, Duration)) {
        change(&mut self.lock(), self.now());
        self.changed.notify_one();
    }
}

pub(crate) async fn run(context: Context) {
    let seed = RandomState::new().build_hasher().finish();
    let shared = Arc::new(Shared {
        state: Mutex::new(State::new(seed)),
        changed: Notify::new(),
        began: Instant::now(),
    });
    let _told = follow(&context, &shared).await;
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() >= AT_ONCE
            && let Some(ended) = under_way.join_next().await
        {
            go_on_unless_panicked(ended);
        }
        let (step, due) = {
            let mut state = shared.lock();
            let step = state.next(shared.now());
            (step, state.due())
        };
        if let Some(step) = step {
            let (context, shared) = (context.clone(), shared.clone());
            under_way.spawn(async move { carry_out(&context, &shared, step).await });
            // What was bound is to get through although there is more to decide.
            tokio::task::yield_now().await;
            continue;
        }
        let due = due.map(|due| shared.began + due);
        // All of them may be dropped: nothing is taken out of anything.
        tokio::select! {
            () = shared.changed.notified() => {}
            Some(ended) = under_way.join_next() => go_on_unless_panicked(ended),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

/// What became of a pod is not known after a panic: all is begun anew then.
fn go_on_unless_panicked(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Hears of all there is, and goes on to be told.
async fn follow(context: &Context, shared: &Arc<Shared>) -> Vec<Subscription> {
    let namespaces = context.informers.of::<Namespace>();
    let nodes = context.informers.of::<Node>();
    let pods = context.informers.of::<Pod>();
    let services = context.informers.of::<Service>();
    let replica_sets = context.informers.of::<ReplicaSet>();
    let budgets = context.informers.of::<PodDisruptionBudget>();
    let told = vec![
        tell(&namespaces, shared, |state, _, new, key| {
            let labels = new.map(|it| it.metadata.labels.clone().unwrap_or_default());
            match labels {
                Some(labels) => state.snapshot.namespaces.insert(key.name, labels),
                None => state.snapshot.namespaces.remove(&key.name),
            };
        }),
        tell(&services, shared, |state, _, new, key| {
            state.snapshot.workloads.set_service(key, new.map(|it| &**it));
        }),
        tell(&replica_sets, shared, |state, _, new, key| {
            let spec = new.and_then(|it| it.spec.as_ref());
            let selector = spec.map(|spec| Selector::of(Some(&spec.selector)));
            state.snapshot.workloads.set_replica_set(key, selector);
        }),
        tell(&budgets, shared, |state, _, new, key| {
            match new {
                Some(new) => state.snapshot.budgets.insert(key, new.clone()),
                None => state.snapshot.budgets.remove(&key),
            };
        }),
        {
            let shared = shared.clone();
            nodes.on_change(move |change| {
                shared.change(|state, now| state.node_changed(change.old, change.new, now));
            })
        },
        {
            let shared = shared.clone();
            pods.on_change(move |change| {
                shared.change(|state, now| state.pod_changed(change.old, change.new, now));
            })
        },
    ];
    namespaces.complete().await;
    services.complete().await;
    replica_sets.complete().await;
    budgets.complete().await;
    nodes.complete().await;
    pods.complete().await;
    told
}

fn tell<K: mainstay_client::Object + Send + Sync + 'static>(
    informer: &Informer<K>,
    shared: &Arc<Shared>,
    then: impl Fn(&mut State, Option<&Arc<K>>, Option<&Arc<K>>, ObjectKey) + Send + Sync + 'static,
) -> Subscription {
    let shared = shared.clone();
    informer.on_change(move |change| {
        let Some(latest) = change.latest() else { return };
        let key = ObjectKey::of(latest.meta());
        // No pod has to be looked at because of these.
        then(&mut shared.lock(), change.old, change.new, key);
    })
}

async fn carry_out(context: &Context, shared: &Shared, step: Step) {
    match step {
        Step::Bind { pod, node } => {
            if let Err(error) = bind(context, &pod, &node).await {
                let message = format!(
                    "binding rejected: running Bind plugin \"DefaultBinder\": {}",
                    error.message
                );
                shared.change(|state, now| state.not_bound(&pod, now));
                // Who is bound by another one, or gone, has nothing to be told.
                if !error.is_of_another() {
                    fail(context, &pod, "SchedulerError", &message, None).await;
                }
                shared.change(|state, _| state.told(&pod));
            }
        }
        Step::Wait(wait) => {
            if let Err(error) = make_room(context, &wait).await {
                tracing::warn!(pod = %wait.pod.key, error = error.message, "cannot make room");
                shared.change(|state, now| state.no_room(&wait, now));
            }
            let node = wait.nominated_node.as_deref();
            fail(context, &wait.pod, "Unschedulable", &wait.message, node).await;
            shared.change(|state, _| state.told(&wait.pod));
        }
    }
}

async fn bind(context: &Context, pod: &PodInfo, node: &str) -> Result<(), CallError> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.key.name.clone()),
            namespace: Some(pod.key.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let path = format!("{}/binding", path::<Pod>(&pod.key.namespace, &pod.key.name));
    context.calls.post::<Value, _>(&path, &binding).await?;
    let message = format!("Successfully assigned {} to {node}", pod.key);
    context.events.tell(&*pod.object, EventType::Normal, "Scheduled", message);
    Ok(())
}

/// Deletes the pods that make room for another one.
async fn make_room(context: &Context, wait: &Wait) -> Result<(), CallError> {
    let node = wait.nominated_node.as_deref().unwrap_or_default();
    for victim in &wait.victims {
        let uid = &wait.pod.uid;
        let condition = json!({
            "type": DISRUPTION_TARGET,
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": "default-scheduler: preempting to accommodate a higher priority pod",
            "lastProbeTime": null,
            "lastTransitionTime": Time(Timestamp::now()),
            "observedGeneration": victim.object.metadata.generation,
        });
        let path = path::<Pod>(&victim.key.namespace, &victim.key.name);
        let deleted = async {
            patch_status(context, victim, json!({"conditions": [condition]})).await?;
            let deletion = Deletion { uid: &victim.uid, ..Deletion::default() };
            context.calls.delete(&path, deletion).await
        };
        match deleted.await {
            Ok(_) => {
                let message = format!("Preempted by pod {uid} on node {node}");
                context.events.tell(&*victim.object, EventType::Normal, "Preempted", message);
            }
            Err(error) if error.kind == CallErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for other in wait.outdone.iter().filter(|other| other.nominated_node().is_some()) {
        let cleared = json!({"nominatedNodeName": null});
        if let Err(error) = patch_status(context, other, cleared).await
            && !error.is_of_another()
        {
            tracing::debug!(pod = %other.key, error = error.message, "still nominated");
        }
    }
    Ok(())
}

/// Tells why a pod has to wait.
async fn fail(context: &Context, pod: &PodInfo, reason: &str, message: &str, node: Option<&str>) {
    context.events.tell(&*pod.object, EventType::Warning, "FailedScheduling", note(message));
    let Some(status) = status(pod, reason, message, node, Timestamp::now()) else { return };
    if let Err(error) = patch_status(context, pod, status).await
        && !error.is_of_another()
    {
        // It is told again with the next attempt.
        tracing::debug!(pod = %pod.key, error = error.message, "cannot tell why it waits");
    }
}

/// What of a pod's status is to be changed for it to say why the pod waits. None if it says so.
fn status(
    pod: &PodInfo,
    reason: &str,
    message: &str,
    node: Option<&str>,
    now: Timestamp,
) -> Option<Value> {
    let mut status = json!({});
    let conditions = pod.status().and_then(|status| status.conditions.as_deref());
    let known = conditions.unwrap_or_default().iter().find(|it| it.type_ == "PodScheduled");
    let generation = pod.object.metadata.generation;
    let says = known.is_some_and(|it| {
        it.status == "False"
            && it.reason.as_deref() == Some(reason)
            && it.message.as_deref() == Some(message)
            && it.observed_generation == generation
    });
    if !says {
        let mut condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
        });
        if known.is_none_or(|it| it.status != "False") {
            condition["lastProbeTime"] = Value::Null;
            condition["lastTransitionTime"] = json!(Time(now));
        }
        status["conditions"] = json!([condition]);
    }
    if let Some(node) = node
        && node != pod.nominated_node().unwrap_or_default()
    {
        status["nominatedNodeName"] = if node.is_empty() { Value::Null } else { node.into() };
    }
    status.as_object().is_some_and(|it| !it.is_empty()).then_some(status)
}

async fn patch_status(context: &Context, pod: &PodInfo, status: Value) -> Result<(), CallError> {
    let path = format!("{}/status", path::<Pod>(&pod.key.namespace, &pod.key.name));
    let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
    context.calls.patch::<Value>(&path, &patch).await.map(drop)
}

/// As much of a message as events take.
fn note(message: &str) -> String {
    const MORE: &str = " ...";
    if message.len() <= LONGEST_NOTE {
        return message.to_owned();
    }
    let mut end = LONGEST_NOTE - MORE.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MORE}", message.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests;
