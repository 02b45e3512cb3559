//! Ending pods when something is short on the machine, and starting static ones again afterwards.
//!
//! # Flow
//!
//! Every [`INTERVAL`] one task reads how much there is, which costs a few small files. While nothing is
//! below its threshold, that is all, but for pods with limits on disk ([`storage`]). Otherwise what
//! nobody needs is removed first, if it is the disk that is short; then what each pod uses is
//! measured, and the worker of one pod is told to end it. When that has ended, the machine is looked
//! at again at once.
//!
//! # Guarantees
//!
//! - At most one pod is ended because something is short, or started again afterwards, for one look at the
//!   machine.
//! - A static pod that was ended is started again when there is enough of what it was ended for, also by a
//!   later agent: it is found by what the ledger has of its end. One that took more of the disk than it may is
//!   started again with the back-off of containers.
//! - No static pod is ended for the disk before it is known which images may go instead.
//!
//! Source: `pkg/kubelet/eviction/eviction_manager.go`.

mod levels;
mod storage;
mod usage;

pub(crate) use levels::most_processes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use mainstay_plan::ephemeral_storage::{Returns, comes_back};
use mainstay_plan::pod::{EvictionCause, PodKey, SeenSandbox};
use mainstay_plan::pressure::{
    Candidate, Course, Judgement, Levels, Pressure, Threshold, Thresholds, message, resource_of,
    returning, victim,
};
use mainstay_plan::status::is_over;
use mainstay_pod::Pod;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::image_gc::ImageGc;
use crate::publish::{Board, EventKind, about};
use crate::supervise::Request;
use crate::worker::{EvictionOrder, Performer};

/// How often is looked. Source: `evictionMonitoringPeriod` in `pkg/kubelet/kubelet.go`.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long the end of a pod is waited for before the next look. Source: `podCleanupTimeout`.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether its files are gone. Source: `podCleanupPollFreq`.
const POLL: Duration = Duration::from_secs(1);

/// What it is done with.
pub(crate) struct Eviction {
    pub(crate) performer: Arc<Performer>,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) thresholds: Thresholds,
    /// Whether pods are held to their limits of disk. Source: `localStorageCapacityIsolation`.
    pub(crate) limits_storage: bool,
    /// A directory of the file system whose space is the node's.
    pub(crate) directory: PathBuf,
    /// How many bytes of memory all pods may have together.
    pub(crate) allocatable: u64,
    /// What is short.
    pub(crate) pressure: watch::Sender<Pressure>,
    pub(crate) images: Arc<ImageGc>,
    pub(crate) requests: mpsc::Sender<Request>,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    AtOnce,
    InTime,
}

impl Eviction {
    /// Looks, for ever.
    pub(crate) async fn run(self) {
        let begun = Instant::now();
        let mut course = Course::default();
        let mut returns = Returns::default();
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Next::InTime;
        let mut said = None;
        loop {
            match next {
                Next::InTime => drop(ticks.tick().await),
                // So that what was ended is seen to be.
                Next::AtOnce => sleep(POLL).await,
            }
            let levels = self.levels().await;
            let judgement = course.judge(&self.thresholds, &levels, begun.elapsed());
            self.pressure.send_if_modified(|known| {
                std::mem::replace(known, judgement.pressure) != judgement.pressure
            });
            let most_urgent = judgement.due.first();
            let signal = most_urgent.map(|threshold| threshold.signal);
            if std::mem::replace(&mut said, signal) != signal {
                tell(most_urgent, &levels);
            }
            if !judgement.short.disk {
                self.start_anew(&mut returns).await;
            }
            next = self.act(&judgement, levels, begun.elapsed()).await;
        }
    }

    async fn levels(&self) -> Levels {
        let (directory, performer) = (self.directory.clone(), self.performer.clone());
        let allocatable = self.allocatable;
        let read = tokio::task::spawn_blocking(move || {
            crate::volumes::cover_memory(&performer.facts, &performer.hierarchies);
            let pods = (performer.facts.cgroup_root.as_str(), allocatable);
            levels::levels(&directory, &performer.hierarchies, pods)
        });
        read.await.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look how much there is on this machine");
            Levels::default()
        })
    }

    /// Does what follows from a look.
    async fn act(&self, judgement: &Judgement, levels: Levels, age: Duration) -> Next {
        let of_disk = |threshold: &Threshold| threshold.signal.resource().is_of_disk();
        self.performer.reclaim(judgement.due.iter().any(of_disk));
        let exceeding = match self.limits_storage {
            true => storage::enforce(&self.performer, &self.active()).await,
            false => Vec::new(),
        };
        if !exceeding.is_empty() {
            let (back, over): (Vec<_>, Vec<_>) =
                exceeding.into_iter().partition(|(_, pod)| comes_back(pod));
            self.until_ended(&over, false).await;
            self.until_ended(&back, true).await;
            return Next::AtOnce;
        }
        self.bring_back(judgement.short).await;
        let Some(threshold) = judgement.due.first() else { return Next::InTime };
        let resource = threshold.signal.resource().as_str();
        let attempt = format!("Attempting to reclaim {resource}");
        self.performer.events.tell_node(EventKind::Warning, "EvictionThresholdMet", attempt);
        if !of_disk(threshold) {
            return self.evict(threshold, threshold.missing(&levels), &levels, self.active()).await;
        }
        self.until_ended(&self.over(), true).await;
        let are_known = self.images.delete_unused().await;
        let levels = self.levels().await;
        let mut left = judgement.due.iter().filter(|it| of_disk(it) && !it.is_resolved(&levels));
        let Some(threshold) = left.next() else { return Next::InTime };
        // Whoever has to go for one of them has to help with the others.
        let is_alike = |it: &&Threshold| it.signal.resource() == threshold.signal.resource();
        let others = left.filter(is_alike).map(|it| it.missing(&levels));
        let most = others.max().unwrap_or_default().max(threshold.missing(&levels));
        let mut pods = self.active();
        if !are_known || age < self.images.least_age() {
            pods.retain(|(key, _)| !key.source.is_static());
        }
        self.evict(threshold, most, &levels, pods).await
    }

    /// Ends the pod that is least important of these.
    async fn evict(
        &self,
        threshold: &Threshold,
        missing: u64,
        levels: &Levels,
        pods: Vec<(PodKey, Arc<Pod>)>,
    ) -> Next {
        let resource = threshold.signal.resource();
        let usage = match usage::measure(&self.performer, resource, &pods).await {
            Ok(usage) => usage,
            Err(error) => {
                let error = error.chain();
                tracing::warn!(error, "cannot learn from the runtime what pods use; none is ended");
                return Next::InTime;
            }
        };
        let candidate = |(_, pod): &'_ (PodKey, Arc<Pod>)| usage.get(pod.uid());
        let candidates: Vec<Candidate<'_>> =
            pods.iter().map(|it| Candidate { pod: &it.1, usage: candidate(it) }).collect();
        let victim = victim(resource, missing, &candidates);
        let Some((key, pod)) = victim.and_then(|index| pods.get(index)) else {
            tracing::debug!("there is no pod that could be ended to make room");
            return Next::InTime;
        };
        // To measure them takes time.
        if !self.active().iter().any(|(_, active)| active.uid() == pod.uid()) {
            return Next::AtOnce;
        }
        let grace = match threshold.is_hard() {
            true => storage::GRACE,
            false => pod.termination_grace_period().min(self.thresholds.most_grace),
        };
        let message = message(threshold, levels, pod, usage.get(pod.uid()));
        tracing::warn!(pod = %key, message, "ends a pod to make room");
        let grace = grace.max(storage::GRACE);
        let order = EvictionOrder { message, grace, cause: EvictionCause::Pressure };
        self.performer.evict(key, pod, order);
        self.until_ended(&[(key.clone(), pod.clone())], true).await;
        Next::AtOnce
    }

    /// Has the most important one of the static pods started again that were ended for what is not short
    /// any more.
    async fn bring_back(&self, short: Pressure) {
        let is_enough = |status| resource_of(status).is_some_and(|it| !short.is_of(it));
        let board = self.board.borrow().clone();
        let ended: BTreeMap<&str, (&PodKey, &Arc<Pod>)> = board
            .reports()
            .filter(|it| it.key.source.is_static() && !it.stopping && is_enough(&it.status))
            .map(|it| (it.pod.uid(), (&it.key, &it.pod)))
            .collect();
        let Some(pod) = returning(ended.values().map(|(_, pod)| &***pod)) else { return };
        let Some((key, pod)) = ended.get(pod.uid()) else { return };
        self.start(key, pod, "The node has enough again: it is started again.").await;
    }

    /// Has those static pods started again that took more of the disk than they may, and of which nothing is
    /// left there.
    async fn start_anew(&self, returns: &mut Returns) {
        let board = self.board.borrow().clone();
        let is_gone = |pod: &Pod| !self.performer.facts.pod_directory(pod.uid()).exists();
        let ended: BTreeMap<&str, (&PodKey, &Pod)> = board
            .reports()
            .filter(|it| is_exceeded(&it.status) && comes_back(&it.pod) && !it.stopping)
            .filter(|it| is_gone(&it.pod))
            .map(|it| (it.pod.uid(), (&it.key, &*it.pod)))
            .collect();
        for pod in returns.due(ended.values().map(|(_, pod)| *pod), Timestamp::now()) {
            if let Some((key, pod)) = ended.get(pod.uid()) {
                self.start(key, pod, "It is started again, with empty volumes.").await;
            }
        }
    }

    async fn start(&self, key: &PodKey, pod: &Pod, message: &str) {
        let (kind, events) = (EventKind::Normal, &self.performer.events);
        events.announce(key, about(pod, None), kind, "Returned", message.to_owned());
        tracing::info!(pod = %key, "starts a pod again that was evicted");
        // Whether there still is such a pod is the supervisor's to know; without it the agent ends.
        let (answer, _) = oneshot::channel();
        let _ = self.requests.send(Request::Restart { pod: key.clone(), answer }).await;
    }

    /// The pods that may run.
    fn active(&self) -> Vec<(PodKey, Arc<Pod>)> {
        let board = self.board.borrow();
        board.active().map(|report| (report.key.clone(), report.pod.clone())).collect()
    }

    /// The pods that have come to their end for good.
    fn over(&self) -> Vec<(PodKey, Arc<Pod>)> {
        let board = self.board.borrow();
        let over = board.reports().filter(|it| !it.stopping && is_over(&it.status));
        over.map(|report| (report.key.clone(), report.pod.clone())).collect()
    }

    /// Waits, not too long, until nothing of the pods runs any more; or until nothing of them is left.
    async fn until_ended(&self, pods: &[(PodKey, Arc<Pod>)], gone: bool) {
        let all = async {
            for (key, pod) in pods {
                let is_own = |sandbox: &SeenSandbox| {
                    sandbox.uid == pod.uid() && (gone || sandbox.is_alive())
                };
                let mut seen = self.performer.observer.subscribe(key);
                // The observer outlives this.
                let _ = seen.wait_for(|seen| !seen.sandboxes.iter().any(is_own)).await;
                let directory = self.performer.facts.pod_directory(pod.uid());
                while gone && directory.exists() {
                    sleep(POLL).await;
                }
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            tracing::warn!("pods that were ended to make room have not gone yet");
        }
    }
}

/// Logs what has come to be short, or that nothing is any more.
fn tell(threshold: Option<&Threshold>, levels: &Levels) {
    let Some(threshold) = threshold else {
        tracing::info!("there is enough of everything on this machine again");
        return;
    };
    let (signal, missing) = (threshold.signal.as_str(), threshold.missing(levels));
    let available = levels.of(threshold.signal).map(|level| level.available);
    tracing::warn!(
        signal,
        available,
        missing,
        "there is too little left on this machine; what is not needed goes, then pods are ended"
    );
}

/// Whether a pod has ended because it took more of the disk than it may.
fn is_exceeded(status: &PodStatus) -> bool {
    is_over(status) && EvictionCause::of(status) == Some(EvictionCause::Limit)
}
