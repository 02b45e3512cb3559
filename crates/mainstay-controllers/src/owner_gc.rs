//! What is owned goes with its owners: in the background, before them (`foregroundDeletion`), or not
//! at all (`orphan`).
//!
//! # Flow
//!
//! The metadata of all objects of all kinds, but for events, make a [`graph`]; what changes in it
//! makes tasks. Before anything is deleted the object and its owners are read from the API, since
//! the graph may be behind; the deletion is of the object that was read, in the version that was read.
//!
//! # Assumptions
//!
//! The kinds are those that the API has when this begins. An object with an owner of a kind that is
//! not known is left alone.
//!
//! Source: `pkg/controller/garbagecollector`.

mod graph;
mod kinds;
mod verdict;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use mainstay_client::{CallError, CallErrorKind, Deletion, LONGEST_AWAY, Partial, Trouble};
use serde_json::{Value, json};

use crate::context::Context;
use crate::queue::Queue;
use graph::{Ask, Ending, Graph, Seen, Task};
use kinds::{Kinds, Resource};
use verdict::{OwnerState, Verdict, decide};

/// The finalizer of what waits for what it owns to go. Source: `FinalizerDeleteDependents`.
const FOREGROUND: &str = "foregroundDeletion";
/// That of what waits for what it owns to be nobody's. Source: `FinalizerOrphanDependents`.
const ORPHAN: &str = "orphan";

/// How many objects are looked at at a time. Source: the default of `--concurrent-gc-syncs`.
const AT_ONCE: usize = 20;

/// When an owner is looked at again that is there and has not been heard of.
const UNHEARD: Duration = Duration::from_secs(1);

/// The collector at work.
struct Collector {
    context: Context,
    kinds: Kinds,
    graph: Arc<Mutex<Graph>>,
    queue: Arc<Queue<Task>>,
}

pub(crate) async fn run(context: Context) {
    let kinds = discover(&context).await;
    let graph = Arc::<Mutex<Graph>>::default();
    let queue = Arc::new(Queue::new("owner_gc"));
    let mut followed = Vec::new();
    for resource in kinds.0.iter().filter(|resource| resource.followed) {
        let informer = context.informers.metadata(&resource.path("", ""));
        let (graph, queue, resource) = (graph.clone(), queue.clone(), resource.clone());
        let subscription = informer.on_metadata(Box::new(move |old, new| {
            hear(&graph, &resource, old, new).into_iter().for_each(|task| queue.add(task));
        }));
        followed.push((informer, subscription));
    }
    for (informer, _) in &followed {
        informer.complete().await;
    }
    let collector = Collector { context, kinds, graph, queue: queue.clone() };
    queue.work(AT_ONCE, |task| collector.perform(task)).await;
}

/// The kinds, however often it takes to learn them.
async fn discover(context: &Context) -> Kinds {
    let mut trouble = Trouble::default();
    loop {
        match Kinds::discover(&context.calls).await {
            Ok(kinds) => return kinds,
            Err(error) => {
                if trouble.is_news(&error) {
                    tracing::warn!(error = error.message, "cannot learn the kinds of the API");
                }
                tokio::time::sleep(trouble.count(LONGEST_AWAY)).await;
            }
        }
    }
}

/// Takes in a change; answers what is to be done.
fn hear(
    graph: &Mutex<Graph>,
    resource: &Arc<Resource>,
    old: Option<&ObjectMeta>,
    new: Option<&ObjectMeta>,
) -> Vec<Task> {
    let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
    match (old, new) {
        (Some(old), Some(new)) if matters(old) == matters(new) => Vec::new(),
        (_, Some(new)) => graph.set(Seen::of(resource, new)),
        (old, None) => {
            let uid = old.and_then(|old| old.uid.as_deref());
            uid.map_or_else(Vec::new, |uid| graph.remove(uid))
        }
    }
}

/// What of an object's metadata matters.
fn matters(meta: &ObjectMeta) -> (Option<&[OwnerReference]>, Ending) {
    (meta.owner_references.as_deref(), Ending::of(meta))
}

impl Collector {
    async fn perform(&self, task: Task) -> Result<Option<Duration>, CallError> {
        match task {
            Task::Check(uid) => {
                let object = {
                    let graph = self.graph();
                    match graph.ask(&uid) {
                        Ask::Nothing => return Ok(None),
                        Ask::Waits(uids) => {
                            uids.into_iter()
                                .for_each(|uid| self.queue.add(Task::Check(uid.into())));
                            return Ok(None);
                        }
                        Ask::Finish(object) => Err(object.clone()),
                        Ask::Look(object) => Ok(object.clone()),
                    }
                };
                match object {
                    Ok(object) => self.look(&object).await,
                    Err(object) => self.finish(&object, FOREGROUND).await.map(|()| None),
                }
            }
            Task::Orphan(uid) => {
                let found = self.graph().orphans(&uid).map(|(owner, dependents)| {
                    (owner.clone(), dependents.into_iter().cloned().collect::<Vec<_>>())
                });
                let Some((owner, dependents)) = found else { return Ok(None) };
                for dependent in &dependents {
                    if let Some(object) = self.read(dependent).await? {
                        self.release(dependent, &object, &[uid.as_str()]).await?;
                    }
                }
                self.finish(&owner, ORPHAN).await.map(|()| None)
            }
        }
    }

    /// Looks at an object and its owners where they are, and does what follows.
    async fn look(&self, seen: &Seen) -> Result<Option<Duration>, CallError> {
        let Some(object) = self.read(seen).await? else { return Ok(None) };
        let mut owners = Vec::new();
        for owner in object.owner_references.iter().flatten() {
            owners.push((owner.uid.clone(), self.owner_state(seen, owner).await?));
        }
        let (verdict, unheard) = {
            let graph = self.graph();
            let finalizers = object.finalizers.as_deref().unwrap_or_default();
            let verdict = decide(&owners, finalizers, graph.has_dependents(&seen.uid));
            let unheard = |(uid, state): &(String, OwnerState)| {
                *state == OwnerState::Solid && !graph.contains(uid)
            };
            (verdict, owners.iter().any(unheard))
        };
        let path = seen.path();
        match verdict {
            Verdict::Keep => {}
            Verdict::Release(owners) => {
                let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
                self.release(seen, &object, &owners).await?;
            }
            Verdict::Delete { propagation, unblock } => {
                let mut version = object.resource_version.clone();
                if unblock {
                    let mut owners = object.owner_references.clone().unwrap_or_default();
                    owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
                    version = self.write(&path, &object, "ownerReferences", json!(owners)).await?;
                }
                tracing::debug!(object = path, propagation, "goes with its owners");
                let deletion = Deletion {
                    uid: &seen.uid,
                    version: version.as_deref(),
                    propagation: Some(propagation),
                    ..Deletion::default()
                };
                match self.context.calls.delete(&path, deletion).await {
                    Ok(_) => return Ok(None),
                    Err(error) if error.kind == CallErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        }
        // One that comes and goes while nobody watches is never heard of.
        Ok(unheard.then_some(UNHEARD))
    }

    /// An owner of an object, as it is now.
    async fn owner_state(
        &self,
        seen: &Seen,
        owner: &OwnerReference,
    ) -> Result<OwnerState, CallError> {
        let Some(resource) = self.kinds.find(&owner.api_version, &owner.kind) else {
            return Ok(OwnerState::Unknown);
        };
        let namespace = if resource.namespaced { seen.key.namespace.as_str() } else { "" };
        if resource.namespaced && namespace.is_empty() {
            return Ok(OwnerState::Unknown);
        }
        let path = resource.path(namespace, &owner.name);
        let found = match self.context.calls.get_metadata(&path).await {
            Ok(found) => found.metadata,
            Err(error) if error.kind == CallErrorKind::NotFound => return Ok(OwnerState::Absent),
            Err(error) => return Err(error),
        };
        if found.uid.as_ref() != Some(&owner.uid) {
            return Ok(OwnerState::Absent);
        }
        Ok(match Ending::of(&found) {
            Ending::Foreground => OwnerState::Waits,
            Ending::No | Ending::Plain | Ending::Orphan => OwnerState::Solid,
        })
    }

    /// An object as it is now; `None` if it is gone.
    async fn read(&self, seen: &Seen) -> Result<Option<ObjectMeta>, CallError> {
        match self.context.calls.get_metadata(&seen.path()).await {
            Ok(found) => {
                Ok(Some(found.metadata).filter(|it| it.uid.as_deref() == Some(&*seen.uid)))
            }
            Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes owners from an object.
    async fn release(
        &self,
        seen: &Seen,
        object: &ObjectMeta,
        owners: &[&str],
    ) -> Result<(), CallError> {
        let all = object.owner_references.as_deref().unwrap_or_default();
        let left: Vec<&OwnerReference> =
            all.iter().filter(|owner| !owners.contains(&owner.uid.as_str())).collect();
        if left.len() == all.len() {
            return Ok(());
        }
        self.write(&seen.path(), object, "ownerReferences", json!(left)).await.map(drop)
    }

    /// Takes a finalizer from an object, which has nothing to wait for any more.
    async fn finish(&self, seen: &Seen, finalizer: &str) -> Result<(), CallError> {
        let Some(object) = self.read(seen).await? else { return Ok(()) };
        let all = object.finalizers.as_deref().unwrap_or_default();
        let left: Vec<&String> = all.iter().filter(|it| *it != finalizer).collect();
        if left.len() == all.len() {
            return Ok(());
        }
        self.write(&seen.path(), &object, "finalizers", json!(left)).await.map(drop)
    }

    /// Writes one field of the metadata of an object that is as it was read. Answers its new version.
    async fn write(
        &self,
        path: &str,
        object: &ObjectMeta,
        field: &str,
        value: Value,
    ) -> Result<Option<String>, CallError> {
        let mut metadata = json!({
            "uid": object.uid,
            "resourceVersion": object.resource_version,
        });
        metadata[field] = value;
        let patch = json!({ "metadata": metadata });
        match self.context.calls.merge::<Partial>(path, &patch).await {
            Ok(written) => Ok(written.metadata.resource_version),
            Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn path(&self) -> String {
        self.resource.path(&self.key.namespace, &self.key.name)
    }
}
