//! One pod's worker: what should be, what is, and the steps between.
//!
//! # Flow
//!
//! A loop. It looks at the newest goal and the newest picture, asks [`mainstay_plan::pod::plan`],
//! starts what the plan asks for, and waits until an action ends, something changes, or the plan's
//! own time comes. It decides nothing itself.
//!
//! # Guarantees
//!
//! - At most one action for each key is in flight.
//! - Every wake-up is logged with its cause.
//! - A worker that is dropped leaves nothing that the next one for the same pod does not find.

mod evictions;
mod hooks;
mod images;
mod perform;
mod pulls;
mod resize;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use mainstay_plan::admission::Rejection;
use mainstay_plan::backoff::after_failures;
use mainstay_plan::mirror::{self, INVALID_CONDITION};
use mainstay_plan::node_shutdown::{self, Shutdown, TERMINATED};
use mainstay_plan::pod::{
    Action, DEADLINE_EXCEEDED, DEADLINE_MESSAGE, Ending, EvictionCause, Failure, Goal, ImageMemory,
    Key, Memory, PodKey, RunGoal, SeenPod, StopReason, Waiting, has_started, plan, spent,
};
use mainstay_plan::probe::probed;
use mainstay_plan::projection;
use mainstay_plan::resize::Pending;
use mainstay_plan::status::{self, Facts, Phase};
use mainstay_pod::{Diagnostic, Pod, RestartPolicy};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

pub(crate) use evictions::EvictionOrder;
use evictions::Evictions;
pub(crate) use perform::Performer;
use perform::{Done, PerformError};
pub use pulls::PullLimits;

use crate::objects::Following;
use crate::probe::{self, Line};
use crate::publish::{EventKind, PodReport, Publication, about, of_failure, waits};

/// The longest time between two attempts at the same action.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// The same for images. Source: `MaxImageBackOff` of the kubelet, 300 s.
const LONGEST_IMAGE_RETRY: Duration = Duration::from_secs(300);
/// How often whoever waits for what others have looks whether there is more of it by itself.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long a look for an image on this machine may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// What a worker is started with.
pub(crate) struct Worker {
    pub(crate) key: PodKey,
    pub(crate) goal: watch::Receiver<WorkerGoal>,
    pub(crate) seen: watch::Receiver<Arc<SeenPod>>,
    /// Changes when images come or go.
    pub(crate) images: watch::Receiver<u64>,
    pub(crate) memory: Memory,
    pub(crate) status: Option<Arc<PodStatus>>,
    /// What was wrong with its manifest when it was told of last.
    pub(crate) invalid: Option<Arc<[Diagnostic]>>,
    pub(crate) performer: Arc<Performer>,
    pub(crate) probes: Line,
    pub(crate) reports: mpsc::UnboundedSender<Publication>,
    /// Whether it waits for what other pods have.
    pub(crate) waits_for_others: bool,
}

/// A goal, and what is to be told with it.
#[derive(Clone, Debug)]
pub(crate) struct WorkerGoal {
    pub(crate) goal: Goal,
    /// The manifest, and what is wrong with it now.
    pub(crate) manifest: Option<crate::publish::Manifest>,
    /// Resources that the pod is to have and that it cannot be allocated yet.
    pub(crate) pending: Option<Arc<Pending>>,
}

/// What a goal's pod takes from elsewhere.
#[derive(Default)]
struct Sources {
    pod: Option<Arc<Pod>>,
    /// Why the node does not take it, which follows from what neither of them changes.
    rejection: Option<Rejection>,
    /// The objects that it refers to.
    following: Option<Following>,
    /// Whether some of its volumes show what may change.
    has_volumes: bool,
    /// When they have to be made anew, since something in them expires.
    renew_at: Option<Timestamp>,
    /// Actions that were in flight when something changed, which they may not know of.
    surprised: BTreeSet<Key>,
}

/// Actions that are being carried out.
#[derive(Default)]
struct InFlight {
    tasks: JoinSet<Result<Done, PerformError>>,
    /// Few at a time, and mostly none.
    actions: Vec<(Action, AbortHandle)>,
}

impl Worker {
    /// Works until nothing of the pod is left and nothing of it is wanted.
    pub(crate) async fn run(&mut self) {
        let mut in_flight = InFlight::default();
        let (mut ends, mut grace) = (false, None);
        self.remember_health().await;
        let mut evictions = self.performer.evictions();
        let mut freed = self.performer.observer.freed();
        let mut sources = Sources::default();
        loop {
            if let Some(known) = self.probes.news() {
                self.memory.health = (*known).clone();
            }
            let shutdown = {
                let evictions = evictions.borrow_and_update();
                self.memory.reclaims = evictions.reclaims;
                evictions.shutdown.clone()
            };
            let goal = self.goal.borrow_and_update().clone();
            let pod = goal.goal.pod().map(|run| &run.pod);
            let renewed = sources.turn_to(pod, &self.performer);
            let seen = self.seen.borrow_and_update().clone();
            let now = Timestamp::now();
            let version = self.memory.version.clone();
            self.memory.turn_to(&goal.goal);
            if self.memory.version != version {
                // Images of a version that is not wanted any more need not be waited for.
                in_flight.abort_images();
            }
            let ended_before = std::mem::replace(&mut ends, !matches!(goal.goal, Goal::Run(_)));
            if self.memory.version != version || (ends && !ended_before) {
                // The end of the pod has a grace period of its own.
                in_flight.abort_other_stops();
            }
            if let Goal::Stop { grace: now, .. } = &goal.goal {
                in_flight.abort_images();
                if grace.replace(*now).is_some_and(|before| before > *now) {
                    // They are asked again, with the shorter one.
                    in_flight.abort_stops();
                }
            }
            self.memory.outdated |= renewed;
            self.memory.forget_gone(&seen);
            let order = self.performer.take_eviction(&self.key);
            if let Some(run) = goal.goal.pod() {
                if self.memory.began(run).is_none() {
                    self.memory.begin(run, self.performer.beginning_of(run, &seen, now));
                }
                // It may have come to its end by itself meanwhile, or another version is to run.
                let is_for_it = |uid: &str| uid == run.pod.uid() && !self.memory.has_finished(run);
                if let Some((uid, order)) = order.filter(|(uid, _)| is_for_it(uid)) {
                    self.memory.evicted = Some(order.of(uid, run.incarnation));
                }
            }
            let shut_down = self.shut_down(&goal.goal, shutdown.as_ref());
            if let Goal::Run(run) = &goal.goal
                && run.pod.restart_policy() == RestartPolicy::Never
                && has_started(run, &seen)
            {
                self.performer.note_start(run);
            }
            if let Some(run) =
                goal.goal.pod().filter(|it| !it.pod.ephemeral_containers().is_empty())
            {
                self.memory.spent = self.performer.note_spent(run, spent(run, &seen));
            }
            self.memory.pending.clone_from(&goal.pending);
            if let Goal::Run(run) = &goal.goal {
                self.take_in_resize(run, &seen);
            }
            let rejection = sources.rejection.as_ref();
            let rejection = rejection.filter(|_| matches!(goal.goal, Goal::Run(_)));
            let rejected = rejection.and(goal.goal.pod());
            let rejected = rejected.map(|run| run.pod.termination_grace_period());
            let wanted = match (&goal.goal, rejected.or(shut_down)) {
                (Goal::Run(run), Some(grace)) => Goal::Stop { run: run.clone(), grace },
                (other, _) => other.clone(),
            };
            if !matches!(&wanted, Goal::Run(run) if !self.memory.has_finished(run)) {
                self.performer.exclusives.release(&self.key);
            }
            let plan = plan(&wanted, &seen, &self.memory, now);
            // First what is, then what is done about it: an end that is written down is this one.
            let done = (plan.waiting, plan.done);
            self.report(&goal, &seen, (rejection, shut_down.is_some()), done, now);
            if self.status.as_deref().is_some_and(status::is_over) {
                in_flight.abort_images();
            }
            for action in plan.actions {
                tracing::debug!(pod = %self.key, ?action, "begins");
                self.memory.in_flight.insert(action.key());
                self.note_stop(&action, &seen, now);
                if matches!(action, Action::Prepare { .. } | Action::UpdateVolumes) {
                    // They go by what is known from now on.
                    self.memory.outdated = false;
                }
                in_flight.start(&self.performer, &self.key, &wanted, &seen, action);
            }
            if plan.done && matches!(goal.goal, Goal::Gone) {
                return;
            }
            self.tell_probes(&wanted, &seen);
            let changes = (&mut evictions, &mut freed);
            let cause = self.wait(&mut in_flight, changes, &mut sources, plan.wake_at).await;
            tracing::trace!(pod = %self.key, cause, "wakes");
        }
    }

    /// Ends a pod whose turn it is at a shutdown of the machine. One of an API ends for good; answers how long a
    /// static one has, of which nothing is written down.
    fn shut_down(&mut self, goal: &Goal, shutdown: Option<&Shutdown>) -> Option<Duration> {
        let Goal::Run(run) = goal else { return None };
        let grace = shutdown?.grace_of(&run.pod).filter(|_| !self.memory.has_finished(run))?;
        if run.pod.source().is_static() {
            return Some(grace);
        }
        if self.memory.eviction(run).is_none() {
            let message = node_shutdown::MESSAGE.to_owned();
            let order = EvictionOrder { message, grace, cause: EvictionCause::Shutdown };
            self.memory.evicted = Some(order.of(run.pod.uid().to_owned(), run.incarnation));
        }
        None
    }

    /// What an agent before this one knew of the containers with probes.
    async fn remember_health(&mut self) {
        if self.seen.borrow().sandboxes.is_empty() {
            return;
        }
        let run = self.goal.borrow().goal.pod().cloned();
        let Some(run) = run.filter(|run| probed(run.pod.spec()).next().is_some()) else { return };
        let directory = self.performer.facts.pod_directory(run.pod.uid());
        match tokio::task::spawn_blocking(move || probe::remembered(&directory)).await {
            Ok(known) => self.memory.health = known,
            Err(error) => tracing::error!(pod = %self.key, %error, "cannot read what probes found"),
        }
    }

    /// Tells what there is to be probed.
    fn tell_probes(&mut self, goal: &Goal, seen: &SeenPod) {
        let ending = matches!(goal, Goal::Stop { .. })
            || self.status.as_deref().is_some_and(status::is_over);
        let host = || self.performer.node_addresses().ips.first().map(ToString::to_string);
        self.probes.tell(goal.pod(), seen, host, ending, &self.memory);
    }

    /// Waits for the next thing that can change the plan; says what it was.
    async fn wait(
        &mut self,
        in_flight: &mut InFlight,
        (evictions, freed): (&mut watch::Receiver<Evictions>, &mut watch::Receiver<u64>),
        sources: &mut Sources,
        wake_at: Option<Timestamp>,
    ) -> &'static str {
        tokio::select! {
            // Cancel-safe per docs on `watch::Receiver::changed`.
            changed = self.goal.changed() => match changed {
                Ok(()) => "goal",
                // The supervisor is ending, and drops this worker next.
                Err(_) => std::future::pending().await,
            },
            // As above; the observer outlives the workers.
            _ = self.seen.changed() => {
                if let Some(run) = self.goal.borrow().goal.pod() {
                    self.memory.retry_targets(&run.pod, Timestamp::now());
                }
                "seen"
            }
            // As above; the sender is the performer's.
            _ = evictions.changed() => "evictions",
            // As above; the observer outlives the workers.
            _ = freed.changed(), if self.waits_for_others => {
                self.memory.retry_exclusive(Timestamp::now());
                "freed"
            }
            _ = self.images.changed() => {
                self.look_for_images().await;
                "images"
            }
            // Cancel-safe, as it says.
            () = self.probes.changed() => "probes",
            // Cancel-safe, as its documentation says.
            () = sources.changed() => {
                self.memory.retry_sources(Timestamp::now());
                if sources.has_pull_secrets() {
                    // A registry may take other credentials than it was shown.
                    self.memory.retry_images(Timestamp::now());
                }
                self.memory.outdated |= sources.has_volumes;
                sources.surprised = self.memory.in_flight.clone();
                "objects"
            }
            // Cancel-safe per docs on `JoinSet::join_next_with_id`.
            (action, result) = in_flight.next() => {
                self.take_in(action, result, sources);
                "action"
            }
            // Dropping a sleep loses nothing: the plan says anew when to wake.
            () = until(wake_at) => "time",
        }
    }

    /// Goes on with the containers whose images have come. Of the others each keeps its own back-off: what comes
    /// is mostly what somebody else has pulled.
    async fn look_for_images(&mut self) {
        let missing: Vec<String> = self.memory.without_image().map(str::to_owned).collect();
        let run = self.goal.borrow().goal.pod().cloned().filter(|_| !missing.is_empty());
        let Some(run) = run else { return };
        for container in missing {
            // Meanwhile nothing else is heard; without an answer its own time comes.
            let looked = timeout(LOOK_PATIENCE, self.performer.has_images(&run, &container)).await;
            if looked == Ok(true) {
                self.memory.retry_image(&container, Timestamp::now());
            }
        }
    }

    fn note_stop(&mut self, action: &Action, seen: &SeenPod, now: Timestamp) {
        let id = match action {
            Action::StopSandbox { id } | Action::RemoveSandbox { id } => Some(id.clone()),
            Action::PreStop { id, why: StopReason::PodEnds, .. }
            | Action::StopContainer { id, why: Some(StopReason::PodEnds), .. } => {
                seen.sandbox_of(id).map(|sandbox| sandbox.id.clone())
            }
            // The pod goes on, and its sandbox; or it has been noted.
            Action::PreStop { .. } | Action::StopContainer { .. } => None,
            Action::Prepare { .. }
            | Action::EnsureImage { .. }
            | Action::RunSandbox { .. }
            | Action::StartContainer { .. }
            | Action::PostStart { .. }
            | Action::UpdateVolumes
            | Action::Resize(_)
            | Action::RemoveContainer { .. }
            | Action::RecordFinished { .. }
            | Action::CleanUp { .. } => None,
        };
        if let Some(id) = id {
            self.memory.stopping.entry(id).or_insert(now);
        }
        if let Action::PreStop { id, why: StopReason::Resized { .. }, .. }
        | Action::StopContainer { id, why: Some(StopReason::Resized { .. }), .. } = action
        {
            self.memory.resized.insert(id.clone());
        }
        if let Action::PreStop { id, .. } | Action::StopContainer { id, .. } = action {
            let ending = Ending { since: now, pre_stopped: false };
            self.memory.ending.entry(id.clone()).or_insert(ending);
        }
    }

    /// Takes in how an action ended.
    fn take_in(
        &mut self,
        action: Action,
        result: Option<Result<Done, PerformError>>,
        sources: &mut Sources,
    ) {
        let key = action.key();
        self.memory.in_flight.remove(&key);
        release(&mut self.memory.in_flight, BTreeSet::is_empty);
        let surprised = sources.surprised.remove(&key);
        if let Action::PreStop { id, .. } = &action
            && let Some(ending) = self.memory.ending.get_mut(id)
        {
            // However it went: there is no second time.
            ending.pre_stopped = true;
        }
        match result {
            // Given up for a newer goal.
            None => {}
            Some(Ok(done)) => {
                tracing::debug!(pod = %self.key, ?action, "done");
                self.memory.failures.remove(&key);
                self.waits_for_others &= key != Key::Sandbox;
                if let Done::Volumes { left, renew_at } = done {
                    self.memory.outdated |= left;
                    sources.renew_at = renew_at;
                }
                self.remember(action, done);
            }
            // It ends anyway.
            Some(Err(_)) if matches!(&key, Key::Hook(id) if self.memory.ending.contains_key(id)) => {
            }
            Some(Err(error)) => {
                self.memory.outdated |= action == Action::UpdateVolumes;
                self.remember_failure(&key, error);
                if surprised {
                    // What it waits for may be what it did not know of.
                    self.memory.retry_sources(Timestamp::now());
                }
            }
        }
    }

    fn remember(&mut self, action: Action, done: Done) {
        match (action, done) {
            (Action::Prepare { uid }, _) => {
                self.memory.hosted.insert(uid.clone());
                self.memory.prepared = Some(uid);
            }
            // It may have come for a version that is not wanted any more.
            (Action::EnsureImage { container }, Done::Image { version, image })
                if self.memory.version.as_ref() == Some(&version) =>
            {
                self.memory.images.insert(container, ImageMemory::Ready(image));
            }
            // The next start asks for the image anew.
            (Action::StartContainer { container, .. }, done) => {
                self.memory.images.remove(&container.name);
                release(&mut self.memory.images, BTreeMap::is_empty);
                if let Done::Started { id, has_hook: true } = done {
                    self.memory.post_start.insert(id);
                }
            }
            (Action::PostStart { id, .. }, _) => {
                self.memory.post_start.remove(&id);
            }
            (Action::RecordFinished { .. }, Done::Finished(finished)) => {
                self.memory.finished = Some(finished);
            }
            (Action::CleanUp { uid }, _) => self.memory.forget_place(&uid),
            _ => {}
        }
    }

    fn remember_failure(&mut self, key: &Key, error: PerformError) {
        let before = self.memory.failures.get(key);
        let count = before.map_or(1, |failure| failure.count.saturating_add(1));
        // Whoever waits for what others have looks again whenever any is free, and mostly finds what it found.
        let waits_for_others = error.retry == perform::Retry::WhenFreed;
        let waits_on =
            waits_for_others && before.is_some_and(|before| before.message == error.message);
        if *key == Key::Sandbox {
            self.waits_for_others = waits_for_others;
        }
        if *key == Key::Resize {
            if let Some(run) = self.goal.borrow().goal.pod() {
                self.performer.note_resize_error(run, &error.message);
            }
        } else if !waits_on {
            let (reason, message) = error.event();
            self.performer.events.tell(&self.key, EventKind::Warning, reason, message);
            self.show_failure(key, &error);
        }
        if let Key::Host(_) = key {
            // Nobody has to wait for it.
            self.performer.exclusives.release(&self.key);
        }
        if let Key::Container(name) = key {
            // The image may be what was wrong.
            self.memory.images.remove(name);
        }
        let longest = match key {
            Key::Image(_) => LONGEST_IMAGE_RETRY,
            Key::Host(_)
            | Key::Volumes
            | Key::Ledger
            | Key::Sandbox
            | Key::Resize
            | Key::Container(_)
            | Key::Hook(_)
            | Key::Dead(_)
            | Key::DeadSandbox(_) => LONGEST_RETRY,
        };
        let wait = match error.retry {
            perform::Retry::Soon => Some(after_failures(count, longest)),
            perform::Retry::Backoff => {
                let first = Duration::from_secs(10);
                let doubled = first.saturating_mul(1 << (count - 1).min(10));
                Some(doubled.min(longest))
            }
            perform::Retry::WhenChanged => None,
            perform::Retry::WhenFreed => Some(LOOK_AGAIN),
        };
        let retry_at = wait.and_then(|wait| Timestamp::now().checked_add(wait).ok());
        let PerformError { reason, message, .. } = error;
        let failure = Failure { reason: reason.to_owned(), message, count, retry_at };
        self.memory.failures.insert(key.clone(), failure);
    }

    fn show_failure(&self, key: &Key, error: &PerformError) {
        let goal = self.goal.borrow();
        let Some(run) = goal.goal.pod() else { return };
        let seen = self.seen.borrow();
        let mut all = seen.sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
        let name = match key {
            Key::Image(name) | Key::Container(name) => Some(name.as_str()),
            Key::Hook(id) => all.find(|it| it.id == *id).map(|it| it.name.as_str()),
            Key::Host(_)
            | Key::Volumes
            | Key::Ledger
            | Key::Sandbox
            | Key::Resize
            | Key::Dead(_)
            | Key::DeadSandbox(_) => None,
        };
        let container = name.and_then(|name| run.pod.container(name));
        let image = container.and_then(|(_, container)| container.image.as_deref());
        for (reason, message) in of_failure(error.reason, &error.message, image) {
            self.performer.events.show(about(&run.pod, name), EventKind::Warning, reason, message);
        }
    }

    /// Tells what a kubelet tells of containers that wait to be started again and of deadlines, and of
    /// manifests that are not what runs.
    fn show_waits(&self, goal: &WorkerGoal, pod: &Pod, status: &PodStatus) {
        let before = self.status.as_deref();
        for (kind, reason, container, message) in waits(pod, before, status) {
            let about = about(pod, Some(container));
            self.performer.events.show(about, kind, reason, message);
        }
        if is_late(status) && !before.is_some_and(is_late) {
            let (about, message) = (about(pod, None), DEADLINE_MESSAGE.to_owned());
            let (kind, reason) = (EventKind::Normal, DEADLINE_EXCEEDED);
            self.performer.events.announce(&self.key, about, kind, reason, message);
        }
        let Some(manifest) = &goal.manifest else { return };
        if let Some(message) = manifest.why_kept().filter(|_| self.invalid != manifest.invalid) {
            let about = about(pod, None);
            self.performer.events.show(about, EventKind::Warning, INVALID_CONDITION, message);
        }
    }

    fn status_of(
        &self,
        run: &RunGoal,
        seen: &SeenPod,
        stopping: bool,
        done: bool,
        now: Timestamp,
    ) -> Arc<PodStatus> {
        let finished = self.memory.has_finished(run);
        let mut own = seen.sandboxes.iter().filter(|it| it.uid == run.pod.uid());
        let has_containers = own.any(|it| !it.containers.is_empty());
        match &self.status {
            // Nothing of it is there any more but what was written down, or soon will be.
            Some(status) if finished && (self.memory.reclaims || !has_containers) => status.clone(),
            before => {
                let (node, before) = (&self.performer.node_addresses(), before.as_deref());
                let runtime = self.performer.observer.runtime_name();
                let facts = Facts { run, seen, memory: &self.memory, node, before, runtime, now };
                let status = match stopping {
                    true => status::compute_stopping(&facts, done),
                    false => status::compute(&facts),
                };
                Arc::new(status)
            }
        }
    }

    fn show_rejection(&self, pod: &Pod, rejection: &Rejection) {
        let known = self.status.as_ref().and_then(|status| status.reason.as_ref());
        if known == Some(&rejection.reason) {
            return;
        }
        let Rejection { reason, message } = rejection.clone();
        let (about, kind) = (about(pod, None), EventKind::Warning);
        self.performer.events.announce(&self.key, about, kind, reason, message);
    }

    fn report(
        &mut self,
        goal: &WorkerGoal,
        seen: &SeenPod,
        (rejection, shut_down): (Option<&Rejection>, bool),
        (waiting, done): (Option<Waiting>, bool),
        now: Timestamp,
    ) {
        let stopping = matches!(goal.goal, Goal::Stop { .. });
        let Some(run) = goal.goal.pod() else {
            let leaving = !seen.sandboxes.is_empty() || !self.memory.hosted.is_empty();
            let publication = if leaving {
                Publication::Leaving(self.key.clone(), Arc::new(seen.clone()))
            } else {
                Publication::Gone(self.key.clone())
            };
            // The publisher outlives the workers.
            let _ = self.reports.send(publication);
            return;
        };
        let status = match rejection {
            Some(rejection) => {
                self.show_rejection(&run.pod, rejection);
                Arc::new(rejection.status(run.pod.spec()))
            }
            // As a kubelet has it, whatever its containers say.
            None if shut_down => Arc::new(PodStatus {
                phase: Some(Phase::Failed.as_str().to_owned()),
                reason: Some(TERMINATED.to_owned()),
                message: Some(node_shutdown::MESSAGE.to_owned()),
                ..Arc::unwrap_or_clone(self.status_of(run, seen, true, done, now))
            }),
            None => self.status_of(run, seen, stopping, done, now),
        };
        self.show_waits(goal, &run.pod, &status);
        self.invalid = goal.manifest.as_ref().and_then(|it| it.invalid.clone());
        // One for all who keep it.
        let known = self.status.take().filter(|known| *known == status);
        let status = known.unwrap_or(status);
        self.status = Some(status.clone());
        self.performer.remember_status(&self.key, &status);
        let report = PodReport {
            key: self.key.clone(),
            pod: run.pod.clone(),
            manifest: goal.manifest.clone(),
            status,
            waiting,
            ending: mirror::endings(seen, Some(run)),
            stopping,
            ended: stopping && done,
        };
        let _ = self.reports.send(Publication::Pod(Box::new(report)));
    }
}

/// Waits for a moment; for ever without one.
async fn until(at: Option<Timestamp>) {
    let Some(at) = at else { return std::future::pending().await };
    let rest = at.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(rest).unwrap_or_default()).await;
}

/// Gives back the room that a map or a list keeps that has nothing in it: that of eleven entries, often.
fn release<T: Default>(all: &mut T, is_empty: fn(&T) -> bool) {
    if is_empty(all) {
        *all = T::default();
    }
}

/// Whether a status says that the pod was ended by its deadline.
fn is_late(status: &PodStatus) -> bool {
    status.reason.as_deref() == Some(DEADLINE_EXCEEDED)
}

impl Sources {
    /// Turns to a goal's pod. Answers whether its volumes may have to show something else, since the pod
    /// itself has changed.
    fn turn_to(&mut self, pod: Option<&Arc<Pod>>, performer: &Performer) -> bool {
        let before = match (&self.pod, pod) {
            (Some(before), Some(pod)) if Arc::ptr_eq(before, pod) => return false,
            (None, None) => return false,
            (before, _) => before.as_ref().map(|before| before.uid().to_owned()),
        };
        // Before the old ones are let go, so that what both refer to stays known.
        self.following = pod.and_then(|pod| performer.objects.follow(pod));
        self.has_volumes = pod.is_some_and(|pod| projection::has_any(pod));
        self.rejection = pod.and_then(|pod| performer.rejection(pod));
        self.pod = pod.cloned();
        let same = before.as_deref() == pod.map(|pod| pod.uid());
        if !same {
            self.renew_at = None;
        }
        self.has_volumes && same
    }

    /// Whether the pod brings credentials for its images along.
    fn has_pull_secrets(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.spec().image_pull_secrets.is_some())
    }

    /// Resolves when one of the objects has changed, or has to be made anew; never if there are none.
    /// Cancel-safe, as [`Following::changed`] is.
    async fn changed(&mut self) {
        let following = async {
            match &mut self.following {
                Some(following) => following.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = following => {}
            () = until(self.renew_at) => self.renew_at = None,
        }
    }
}

impl InFlight {
    fn start(
        &mut self,
        performer: &Arc<Performer>,
        key: &PodKey,
        goal: &Goal,
        seen: &SeenPod,
        action: Action,
    ) {
        let (goal, seen) = (goal.clone(), seen.clone());
        let work = performer.clone().perform(key.clone(), goal, seen, action.clone());
        let handle = self.tasks.spawn(work);
        self.actions.push((action, handle));
    }

    /// The next action that ends; `None` for one that was given up. Waits for ever when there is
    /// none.
    async fn next(&mut self) -> (Action, Option<Result<Done, PerformError>>) {
        loop {
            let (id, result) = match self.tasks.join_next_with_id().await {
                Some(Ok((id, result))) => (id, Some(result)),
                Some(Err(error)) if error.is_cancelled() => (error.id(), None),
                // A panic in one action is the failure of one action.
                Some(Err(error)) => (error.id(), Some(Err(PerformError::panicked(&error)))),
                None => std::future::pending().await,
            };
            let ended = self.actions.iter().position(|(_, handle)| handle.id() == id);
            if let Some(index) = ended {
                let (action, _) = self.actions.swap_remove(index);
                release(&mut self.actions, Vec::is_empty);
                return (action, result);
            }
        }
    }

    fn abort_images(&self) {
        self.abort(|action| matches!(action, Action::EnsureImage { .. }));
    }

    fn abort_stops(&self) {
        self.abort(|action| {
            matches!(action, Action::PreStop { .. } | Action::StopContainer { .. })
        });
    }

    /// Ends of containers for another reason than that of their pod. What is asked after a hook names none, and
    /// is asked again.
    fn abort_other_stops(&self) {
        self.abort(|action| {
            matches!(action, Action::StopContainer { why, .. } if *why != Some(StopReason::PodEnds))
        });
    }

    fn abort(&self, which: impl Fn(&Action) -> bool) {
        for (_, handle) in self.actions.iter().filter(|(action, _)| which(action)) {
            handle.abort();
        }
    }
}
