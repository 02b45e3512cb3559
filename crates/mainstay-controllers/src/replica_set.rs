//! As many pods of a template as a ReplicaSet says.
//!
//! # Guarantees
//!
//! - Nothing is made or deleted before all that was made and deleted earlier has been heard of, so
//!   that no pod is made twice.
//! - Pods that cannot be made are tried one first, then two, then four: a refusal is met once.
//!
//! Source: `pkg/controller/replicaset`.

mod rank;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use mainstay_client::{CallError, CallErrorKind};
use mainstay_pod::scheduling::selector::Selector;

use crate::claim::{Claims, claim, claimants};
use crate::context::Context;
use crate::informer::{Informer, ObjectKey};
use crate::informers::path;
use crate::pod_control::{BURST, PodControl};
use crate::pods::Pod;
use crate::queue::Queue;
use crate::written::Written;
use crate::{owner, pods};

/// How many ReplicaSets are looked at at a time. Source: the default of
/// `--concurrent-replicaset-syncs`.
const AT_ONCE: usize = 5;

/// What is to be done about the number of pods.
#[derive(Debug, PartialEq)]
enum Decision {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// `active` are the pods that are controlled and not over, `related` all that are controlled by
/// ReplicaSets of the same owner.
fn decide(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Decision {
    if set.metadata.deletion_timestamp.is_some() {
        return Decision::Nothing;
    }
    let wanted = wanted(set);
    if active.len() < wanted {
        return Decision::Create((wanted - active.len()).min(BURST));
    }
    match (active.len() - wanted).min(BURST) {
        0 => Decision::Nothing,
        surplus => Decision::Delete(rank::first_to_go(active, &related(), surplus, now)),
    }
}

/// How many pods there should be.
fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or_default()
}

fn template(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref().and_then(|spec| spec.template.as_ref())
}

impl Claims for ReplicaSet {
    fn selector(&self) -> Selector {
        Selector::of(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

/// The controller at work.
struct Controller {
    context: Context,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    written: Written,
}

pub(crate) async fn run(context: Context) {
    let (sets, pods) = (context.informers.of::<ReplicaSet>(), context.informers.of::<Pod>());
    let queue = Arc::new(Queue::new("replica_set"));
    let _fed = [
        sets.feed(&queue, |change| change.latest().map(|set| ObjectKey::of(&set.metadata))),
        pods.feed(&queue, {
            let sets = sets.clone();
            move |change| claimants(&sets, change)
        }),
    ];
    sets.complete().await;
    pods.complete().await;
    let controller = Controller { context, sets, pods, written: Written::default() };
    queue.work(AT_ONCE, |key| controller.sync(key)).await;
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Option<Duration>, CallError> {
        let Some(set) = self.sets.get(&key) else {
            self.written.forget(&key);
            return Ok(None);
        };
        // Asked before the pods are read.
        let is_current = self.written.is_seen(&key, self.pods.reached());
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let owned = self.pods.of_controller(uid);
        let terminating = owned.iter().filter(|pod| pods::is_terminating(pod)).count();
        let orphans = self.pods.orphans(&key.namespace);
        let all = owned.into_iter().chain(orphans);
        let active = all.filter(|pod| pods::is_active(pod)).collect();
        let active = claim(&self.context.calls, &self.written, &*set, active).await?;
        let now = Timestamp::now();
        let decision = match is_current {
            true => decide(&set, &active, || self.related(&set), now),
            false => Decision::Nothing,
        };
        let control = PodControl { context: &self.context, written: &self.written, owner: &*set };
        let managed = match decision {
            Decision::Nothing => Ok(()),
            Decision::Create(count) => match template(&set) {
                Some(template) => {
                    let pod = pods::from_template(template, &set.metadata, owner::reference(&*set));
                    control.create(count, |_| pod.clone()).await
                }
                None => Ok(()),
            },
            Decision::Delete(pods) => control.delete(pods).await,
        };
        let failure = managed.as_ref().err().map(|error| error.answer.as_str());
        let status = status::compute(&set, &active, terminating, failure, now);
        if let Some(status) = status {
            let path = path::<ReplicaSet>(&key.namespace, &key.name);
            match self.context.calls.put_status(&path, uid, &status).await {
                Err(error) if error.kind == CallErrorKind::NotFound => {}
                written => written?,
            }
        }
        managed?;
        Ok(status::next_available(&set, &active, now))
    }

    /// The pods of all ReplicaSets that have the same controller.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let uids: Vec<String> = match owner::controller(&set.metadata) {
            Some(owner) => {
                let sets = self.sets.of_controller(&owner.uid);
                sets.iter().filter_map(|set| set.metadata.uid.clone()).collect()
            }
            None => set.metadata.uid.iter().cloned().collect(),
        };
        uids.iter().flat_map(|uid| self.pods.of_controller(uid)).collect()
    }
}

#[cfg(test)]
mod tests;
