//! Which pods have workers, and what their goals are.
//!
//! # Guarantees
//!
//! - Every pod that should run, or of which the runtime has something, has one worker.
//! - A worker that panicked is started again, from what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodStatus};
use mainstay_plan::mirror::Mirror;
use mainstay_plan::pod::{
    Eviction, EvictionCause, Finished, Goal, Memory, PodKey, RunGoal, SeenContainer, SeenPod,
    SourceKind, was_interrupted,
};
use mainstay_plan::resize::{self, Pending, Resizing};
use mainstay_plan::status;
use mainstay_pod::Pod;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};

use crate::image_gc::{images_of, images_of_volumes};
use crate::ledger::{Added, Record};
use crate::probe::{Line, Prober};
use crate::publish::{Manifest, Publication};
use crate::sources::api::{ApiGoals, Verdict};
use crate::sources::manifest_dir::Place;
use crate::sources::merge::{GoalPod, Goals, key_of};
use crate::volumes;
use crate::worker::{Performer, Worker, WorkerGoal};

/// How long a worker that panicked stays away.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// How long a new agent waits for an API to say which of its pods are wanted, before it starts again
/// what the ledger has of them. What runs is left alone until then.
const API_PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked of the supervisor.
#[derive(Debug)]
pub(crate) enum Request {
    /// Stop a pod and start it anew. Answers whether there is such a pod.
    Restart { pod: PodKey, answer: oneshot::Sender<bool> },
}

/// What is known of the pods that an API wants here.
enum ApiKnown {
    /// Nothing yet: none of its pods is started or stopped.
    Awaited,
    /// Nothing, and nobody waits any longer: what the ledger has of them counts.
    Away,
    /// This, as of when the API answered last.
    Known(Arc<ApiGoals>),
}

/// Keeps the workers.
pub(crate) struct Supervisor {
    performer: Arc<Performer>,
    reports: mpsc::UnboundedSender<Publication>,
    images: watch::Receiver<u64>,
    prober: Prober,
    /// The versions that have a place on this machine and no worker yet.
    hosted: BTreeSet<String>,
    /// What the manifests say.
    files: Goals,
    api: ApiKnown,
    /// Both.
    goals: Goals,
    /// Mirrors of pods that have been taken in anew since, by UID: containers were added to what was before.
    earlier: BTreeMap<PodKey, String>,
    workers: BTreeMap<PodKey, watch::Sender<WorkerGoal>>,
    tasks: JoinSet<PodKey>,
    keys: BTreeMap<Id, PodKey>,
}

impl Supervisor {
    pub(crate) fn new(
        performer: Arc<Performer>,
        reports: mpsc::UnboundedSender<Publication>,
        images: watch::Receiver<u64>,
        hosted: impl IntoIterator<Item = String>,
        prober: Prober,
    ) -> Self {
        Self {
            performer,
            reports,
            images,
            prober,
            hosted: hosted.into_iter().collect(),
            files: Goals::new(),
            api: ApiKnown::Awaited,
            goals: Goals::new(),
            earlier: BTreeMap::new(),
            workers: BTreeMap::new(),
            tasks: JoinSet::new(),
            keys: BTreeMap::new(),
        }
    }

    /// Supervises for ever. `goals` is `None` until the manifests have been looked at once, `api`
    /// until the API has been.
    pub(crate) async fn run(
        mut self,
        mut goals: watch::Receiver<Option<Arc<Goals>>>,
        mut api: watch::Receiver<Option<Arc<ApiGoals>>>,
        mut requests: mpsc::Receiver<Request>,
    ) {
        let mut appeared = self.performer.observer.appeared();
        if goals.wait_for(Option::is_some).await.is_err() {
            return;
        }
        self.files = goals.borrow_and_update().as_deref().cloned().unwrap_or_default();
        if let Some(known) = &*api.borrow_and_update() {
            self.api = ApiKnown::Known(known.clone());
        }
        let first = self.merged();
        let mut keys = self.performer.observer.keys();
        keys.retain(|key| self.is_decided(key));
        keys.extend(first.keys().cloned());
        // The publisher outlives the supervisor.
        let _ = self.reports.send(Publication::Begun(keys));
        self.turn_to(first);
        // Before anything else is wanted, so that no place is cleared that is wanted again.
        self.clear_orphans().await;
        let patience = tokio::time::sleep(API_PATIENCE);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                // Cancel-safe per docs on `watch::Receiver::changed`.
                changed = goals.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.files = goals.borrow_and_update().as_deref().cloned().unwrap_or_default();
                    self.turn_to(self.merged());
                }
                // As above.
                changed = api.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let known = api.borrow_and_update().clone();
                    let first = !matches!(self.api, ApiKnown::Known(_));
                    if let Some(known) = known {
                        self.api = ApiKnown::Known(known);
                        self.turn_to(self.merged());
                        if first {
                            self.clear_orphans().await;
                        }
                    }
                }
                () = &mut patience, if matches!(self.api, ApiKnown::Awaited) => {
                    self.api = ApiKnown::Away;
                    self.turn_to(self.merged());
                }
                // As above; the observer is held by the performer.
                _ = appeared.changed() => self.see_to_workers(),
                // Cancel-safe per docs on `mpsc::Receiver::recv`.
                request = requests.recv() => match request {
                    Some(Request::Restart { pod, answer }) => {
                        // Whoever asked may have gone.
                        let _ = answer.send(self.restart(&pod));
                    }
                    None => return,
                },
                // Cancel-safe per docs on `JoinSet::join_next_with_id`.
                Some(ended) = self.tasks.join_next_with_id() => {
                    let id = match &ended {
                        Ok((id, _)) => *id,
                        Err(error) => error.id(),
                    };
                    let key = self.keys.remove(&id);
                    if let Some(key) = key {
                        self.workers.remove(&key);
                        if let Err(error) = ended {
                            tracing::error!(pod = %key, %error, "a pod's worker panicked; it is started again");
                            self.start(key, AFTER_PANIC);
                            continue;
                        }
                        self.performer.observer.forget(&key);
                        if !self.goals.contains_key(&key) {
                            self.performer.events.forget(&key);
                        }
                    }
                    self.see_to_workers();
                }
            }
        }
    }

    /// What is wanted by whomever.
    fn merged(&self) -> Goals {
        let mut goals = self.files.clone();
        let mut add = |pod: &Arc<Pod>, stop, pending: Option<&Arc<Pending>>| {
            let goal = GoalPod {
                pod: pod.clone(),
                path: PathBuf::new(),
                place: Place::default(),
                incarnation: None,
                invalid: None,
                stop,
                pending: pending.cloned(),
            };
            goals.insert(key_of(pod), goal);
        };
        match &self.api {
            ApiKnown::Awaited => {}
            ApiKnown::Away => {
                for key in self.performer.recorded().iter().filter(|key| !key.source.is_static()) {
                    if let Some(record) = self.performer.record(key) {
                        add(&record.pod, record.stop, None);
                    }
                }
            }
            ApiKnown::Known(known) => {
                for verdict in known.values() {
                    match verdict {
                        Verdict::Run(pod, pending) => add(pod, None, pending.as_ref()),
                        Verdict::Stop(pod, grace) => add(pod, Some(*grace), None),
                        Verdict::Refused { .. } | Verdict::Mirror(_) => {}
                    }
                }
            }
        }
        goals
    }

    /// Whether it is known what is to become of a pod.
    fn is_decided(&self, key: &PodKey) -> bool {
        key.source.is_static()
            || self.goals.contains_key(key)
            || matches!(self.api, ApiKnown::Known(_))
    }

    fn turn_to(&mut self, goals: Goals) {
        for (key, goal) in &goals {
            let is_anew = self.write_down(key, goal, self.goals.get(key));
            let mirror = self.mirror_of(key, goal).map(|mirror| mirror.uid.clone());
            if let Some(uid) = mirror.filter(|_| is_anew) {
                self.earlier.insert(key.clone(), uid);
            }
            self.add_containers(key, goal);
        }
        self.expect_exclusives(&goals);
        self.earlier.retain(|key, _| goals.contains_key(key));
        // Also those that went while no agent ran.
        let gone = |key: &&PodKey| !goals.contains_key(*key) && self.is_decided(key);
        for key in self.performer.recorded().iter().filter(gone) {
            // It may come back with the same content, and is to run then.
            self.performer.forget(key);
            self.performer.events.forget(key);
        }
        self.goals = goals;
        self.see_to_workers();
    }

    /// Tells of what pods need for themselves which are to begin.
    fn expect_exclusives(&self, goals: &Goals) {
        for (key, goal) in goals.iter().filter(|(_, goal)| goal.stop.is_none()) {
            let known = self.goals.get(key).is_some_and(|it| it.pod.uid() == goal.pod.uid());
            if !known && self.performer.record(key).is_none_or(|it| it.finished.is_none()) {
                self.performer.exclusives.expect(key, &goal.pod);
            }
        }
    }

    /// The mirror of this version of a static pod, if containers have been added to it.
    fn mirror_of(&self, key: &PodKey, goal: &GoalPod) -> Option<&Mirror> {
        let ApiKnown::Known(known) = &self.api else { return None };
        if !key.source.is_static() {
            return None;
        }
        let verdict = known.get(&PodKey { source: SourceKind::Api, ..key.clone() })?;
        verdict.mirror().filter(|mirror| mirror.hash == goal.pod.uid())
    }

    /// Lets the ledger know what has been added to the mirror of a static pod: it stays, whatever becomes of the
    /// mirror.
    fn add_containers(&self, key: &PodKey, goal: &GoalPod) {
        let Some(mirror) = self.mirror_of(key, goal) else { return };
        if self.earlier.get(key) != Some(&mirror.uid) {
            self.performer.add_containers(key, goal.pod.uid(), &mirror.ephemeral);
        }
    }

    /// Lets the ledger know what is accepted, if it is news. Answers whether a pod is taken in that was not
    /// there, as far as is known.
    fn write_down(&self, key: &PodKey, goal: &GoalPod, before: Option<&GoalPod>) -> bool {
        let is_anew = goal.incarnation.is_some()
            && before.is_none_or(|before| {
                before.pod.uid() != goal.pod.uid() || before.incarnation != goal.incarnation
            });
        let known = self.performer.record(key);
        let rollback = known.as_ref().map(|known| self.rollback(key, known, goal));
        let same = known.filter(|it| it.pod.uid() == goal.pod.uid() && !is_anew);
        match same {
            Some(mut known) => {
                let is_allocated = has_same_resources(&known.pod, &goal.pod);
                if !is_allocated {
                    let before = known.resizing.as_deref();
                    let now = Timestamp::now();
                    let resizing = Resizing::begin(before, &known.pod, &goal.pod, now);
                    known.resizing = Some(Arc::new(resizing));
                    known.pod = goal.pod.clone();
                }
                let is_news =
                    (&known.path, &known.place, known.stop) != (&goal.path, &goal.place, goal.stop);
                if is_news || !is_allocated {
                    let (path, place, stop) = (goal.path.clone(), goal.place.clone(), goal.stop);
                    self.performer.accept(key, Record { path, place, stop, ..known });
                }
            }
            None => {
                let record = Record {
                    path: goal.path.clone(),
                    place: goal.place.clone(),
                    pod: goal.pod.clone(),
                    started: false,
                    finished: None,
                    incarnation: goal.incarnation,
                    stop: goal.stop,
                    began: Some(Timestamp::now()),
                    added: Vec::new(),
                    rollback: rollback.unwrap_or_default(),
                    resizing: None,
                };
                self.performer.accept(key, record);
            }
        }
        is_anew
    }

    /// The images by which what is accepted now can be taken back: those that the version before it ran with.
    /// Of one that never ran they are those before that; if nobody knows any more whether it did, both.
    fn rollback(&self, key: &PodKey, before: &Record, goal: &GoalPod) -> Vec<String> {
        let old = before.pod.uid();
        if !key.source.is_static() || old == goal.pod.uid() {
            return before.rollback.clone();
        }
        let seen = self.performer.observer.seen(key);
        let own = || seen.sandboxes.iter().filter(|sandbox| sandbox.uid == old);
        let ran = own().flat_map(|sandbox| &sandbox.containers);
        let ran: Vec<&SeenContainer> = ran.filter(|it| !it.state.never_ran()).collect();
        if ran.is_empty() && own().next().is_some() {
            return before.rollback.clone();
        }
        let refs: BTreeSet<String> = ran.iter().map(|it| it.image_ref.clone()).collect();
        let has_run = |it: &Container| ran.iter().any(|ran| ran.name == it.name);
        if before.pod.spec().containers.iter().all(has_run) {
            return refs.into_iter().chain(images_of_volumes(&before.pod)).collect();
        }
        // Some of it ran, or nobody knows: neither is known to be good.
        images_of(&before.pod).chain(refs).chain(before.rollback.clone()).collect()
    }

    /// Tells every worker its goal, and starts those that are missing.
    fn see_to_workers(&mut self) {
        let mut keys: BTreeSet<PodKey> = self.goals.keys().cloned().collect();
        let seen = self.performer.observer.keys();
        keys.extend(seen.into_iter().filter(|key| self.is_decided(key)));
        keys.extend(self.workers.keys().cloned());
        for key in keys {
            let goal = self.goal_of(&key);
            match self.workers.get(&key) {
                Some(worker) => drop(worker.send_if_modified(|known| {
                    let changed = !known.is_same(&goal);
                    if changed {
                        *known = goal;
                    }
                    changed
                })),
                None => self.start(key, Duration::ZERO),
            }
        }
    }

    fn goal_of(&self, key: &PodKey) -> WorkerGoal {
        let Some(goal) = self.goals.get(key) else {
            return WorkerGoal { goal: Goal::Gone, manifest: None, pending: None };
        };
        // It is there since the goal was written down, and knows of restarts that were asked for.
        let record = self.performer.record(key);
        let incarnation = record.as_ref().and_then(|record| record.incarnation);
        let added = record.map(|record| record.added).unwrap_or_default();
        let run = RunGoal { pod: with_containers(&goal.pod, added), incarnation };
        let manifest = Manifest { path: goal.path.clone(), invalid: goal.invalid.clone() };
        WorkerGoal {
            goal: match goal.stop {
                Some(grace) => Goal::Stop { run, grace },
                None => Goal::Run(run),
            },
            manifest: key.source.is_static().then_some(manifest),
            pending: goal.pending.clone(),
        }
    }

    /// Starts a worker; it begins after a while.
    fn start(&mut self, key: PodKey, after: Duration) {
        let goal = self.goal_of(&key);
        let seen = self.performer.observer.subscribe(&key);
        let mut memory = Memory::default();
        let mut status = None;
        let uids = seen.borrow().sandboxes.iter().map(|sandbox| sandbox.uid.clone()).collect();
        let mut own: BTreeSet<String> = uids;
        if let Some(run) = goal.goal.pod() {
            own.insert(run.pod.uid().to_owned());
            (memory.finished, status) = self.end_of(&key, run, &seen.borrow());
            memory.evicted = status.as_deref().and_then(|status| eviction_of(run, status));
        }
        memory.hosted = self.hosted.iter().filter(|uid| own.contains(*uid)).cloned().collect();
        self.hosted.retain(|uid| !own.contains(uid));
        let (sender, receiver) = watch::channel(goal);
        let mut worker = Worker {
            key: key.clone(),
            goal: receiver,
            seen,
            images: self.images.clone(),
            memory,
            status,
            invalid: None,
            performer: self.performer.clone(),
            probes: Line::new(self.prober.clone(), key.clone()),
            reports: self.reports.clone(),
            waits_for_others: false,
        };
        let name = key.clone();
        let handle = self.tasks.spawn(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            worker.run().await;
            name
        });
        self.keys.insert(handle.id(), key.clone());
        self.workers.insert(key, sender);
    }

    /// The end for good of a pod that came to it before this agent was there.
    fn end_of(
        &self,
        key: &PodKey,
        run: &RunGoal,
        seen: &SeenPod,
    ) -> (Option<Finished>, Option<Arc<PodStatus>>) {
        let record = self.performer.record(key).filter(|it| it.pod.uid() == run.pod.uid());
        let Some(record) = record else { return (None, None) };
        let finished = Finished { uid: run.pod.uid().to_owned(), incarnation: run.incarnation };
        match record.finished {
            Some((_, status)) => (Some(finished), Some(status)),
            None if was_interrupted(run.pod.restart_policy(), record.started, seen) => {
                let at = Timestamp::now();
                let status = Arc::new(status::interrupted(&Default::default()));
                let end = Some((at, status.clone()));
                self.performer.amend(run, |record| record.finished = end);
                (Some(finished), Some(status))
            }
            None => (None, None),
        }
    }

    fn restart(&mut self, key: &PodKey) -> bool {
        let Some(record) = self.performer.record(key) else { return false };
        let now = Some(Timestamp::now());
        let record =
            Record { started: false, finished: None, incarnation: now, began: now, ..record };
        self.performer.accept(key, record);
        self.see_to_workers();
        true
    }

    /// Clears the places of versions that nobody knows any more.
    async fn clear_orphans(&mut self) {
        let kept = self.undecided();
        let orphans: Vec<String> = self.hosted.difference(&kept).cloned().collect();
        self.hosted.retain(|uid| kept.contains(uid));
        for uid in orphans {
            let performer = self.performer.clone();
            // A server that does not answer is waited for so long only.
            if let Err(error) = volumes::nfs::unmount_all(&uid, &performer.facts).await {
                tracing::warn!(%error, "cannot clear what is left of a pod");
                continue;
            }
            let cleared = tokio::task::spawn_blocking(move || {
                volumes::clean_up(&uid, &performer.facts, &performer.hierarchies)
            });
            match cleared.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error = mainstay_cri::chain(&error);
                    tracing::warn!(error, "cannot clear what is left of a pod");
                }
                Err(error) => tracing::error!(%error, "cannot clear what is left of a pod"),
            }
        }
    }
}

impl Supervisor {
    /// The versions of pods of which it is not known what is to become of them.
    fn undecided(&self) -> BTreeSet<String> {
        let mut uids = BTreeSet::new();
        for key in self.performer.observer.keys().iter().filter(|key| !self.is_decided(key)) {
            let seen = self.performer.observer.subscribe(key);
            uids.extend(seen.borrow().sandboxes.iter().map(|sandbox| sandbox.uid.clone()));
        }
        for key in self.performer.recorded().iter().filter(|key| !self.is_decided(key)) {
            uids.extend(self.performer.record(key).map(|record| record.pod.uid().to_owned()));
        }
        uids
    }
}

/// Whether two versions of a pod have the same resources. Those of a static pod never change.
fn has_same_resources(one: &Pod, other: &Pod) -> bool {
    one.source().is_static() || resize::is_same(one, other)
}

/// A pod with the containers that are known to have been added to it.
fn with_containers(pod: &Arc<Pod>, added: Vec<Added>) -> Arc<Pod> {
    let known = pod.spec().ephemeral_containers.as_deref().unwrap_or_default();
    let missing = |it: &EphemeralContainer| !known.iter().any(|known| known.name == it.name);
    let missing: Vec<_> = added.into_iter().map(|it| it.container).filter(missing).collect();
    if missing.is_empty() {
        return pod.clone();
    }
    Arc::new(pod.with_ephemeral_containers([known, &missing].concat()))
}

/// The eviction that a recorded end tells of.
fn eviction_of(run: &RunGoal, status: &PodStatus) -> Option<Eviction> {
    let (cause, message) = (EvictionCause::of(status)?, status.message.clone()?);
    let (uid, incarnation) = (run.pod.uid().to_owned(), run.incarnation);
    // It has ended.
    Some(Eviction { uid, incarnation, message, grace: Duration::ZERO, cause })
}

impl WorkerGoal {
    fn is_same(&self, other: &Self) -> bool {
        let manifest = match (&self.manifest, &other.manifest) {
            (Some(a), Some(b)) => a.path == b.path && a.invalid.as_deref() == b.invalid.as_deref(),
            (None, None) => true,
            _ => false,
        };
        let goal = match (&self.goal, &other.goal) {
            (Goal::Run(a), Goal::Run(b)) => {
                let (one, other) = (a.pod.metadata(), b.pod.metadata());
                a.pod.uid() == b.pod.uid()
                    && a.incarnation == b.incarnation
                    // Of pods of an API only.
                    && one.generation == other.generation
                    && one.labels == other.labels
                    && one.annotations == other.annotations
                    && a.pod.ephemeral_containers() == b.pod.ephemeral_containers()
                    && has_same_resources(&a.pod, &b.pod)
            }
            (Goal::Stop { run: a, grace }, Goal::Stop { run: b, grace: other }) => {
                a.pod.uid() == b.pod.uid() && grace == other
            }
            (Goal::Gone, Goal::Gone) => true,
            _ => false,
        };
        manifest && goal && self.pending == other.pending
    }
}

#[cfg(test)]
mod tests;
