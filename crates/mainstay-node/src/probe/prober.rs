//! The task that knows when what is probed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable, BoxFuture, abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use mainstay_cri::{ContainerId, Runtime};
use mainstay_plan::pod::{Health, PodKey};
use mainstay_plan::probe::{ProbeKind, Probes, Start, Target, probed};
use mainstay_pod::Pod;
use rustls::ClientConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::answer::{Answer, Means, ask};
use super::counts::Counts;
use super::kept;
use super::line::{Known, Sight};
use crate::publish::{EventKind, Events, about};

/// What workers tell.
pub(crate) enum Told {
    /// This runs now.
    Sight(Box<Sight>),
    /// Nothing of the pod is probed any more.
    Gone(PodKey),
}

/// Tells the prober. Clones tell the same one.
#[derive(Clone)]
pub(crate) struct Prober {
    told: mpsc::UnboundedSender<Told>,
}

impl Prober {
    /// A handle, and what is told through it.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Told>) {
        let (told, hears) = mpsc::unbounded_channel();
        (Self { told }, hears)
    }

    pub(super) fn tell(&self, told: Told) {
        // Without the prober the agent ends, or is ending.
        let _ = self.told.send(told);
    }
}

/// What probes are asked with, and where it goes.
pub(crate) struct Context {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) events: Events,
    pub(crate) counts: Counts,
    /// Where pods have their directories.
    pub(crate) pods_directory: PathBuf,
}

/// A pod that is probed.
struct ProbedPod {
    pod: Arc<Pod>,
    ip: Arc<str>,
    found: watch::Sender<Known>,
    /// Its containers.
    slots: Vec<u64>,
}

/// A container that is probed.
struct Slot {
    key: PodKey,
    target: Target,
    probes: Probes,
    /// When it is in the heap for, if it is.
    scheduled: Option<Duration>,
    under_way: Vec<(ProbeKind, AbortHandle)>,
}

/// A probe that has ended.
struct Ended {
    slot: u64,
    kind: ProbeKind,
    answer: Answer,
    took: Duration,
}

struct Task {
    context: Context,
    means: Means,
    /// Times of the plan are since this moment.
    origin: Instant,
    pods: BTreeMap<PodKey, ProbedPod>,
    slots: BTreeMap<u64, Slot>,
    next_slot: u64,
    /// When slots are due. An entry that its slot does not have any more means nothing.
    heap: BinaryHeap<Reverse<(Duration, u64)>>,
    /// In this task: tasks of their own would cost more than what most of them do.
    running: FuturesUnordered<Abortable<BoxFuture<'static, Ended>>>,
    /// Pods whose file is behind.
    unwritten: BTreeSet<PodKey>,
    writing: JoinSet<()>,
}

/// Probes for ever, from the first pod with probes on, and on a thread of its own: on the agent's threads
/// every answer would wake two of them, which costs more than the answer.
pub(crate) async fn serve(context: Context, mut hears: mpsc::UnboundedReceiver<Told>) {
    let Some(first) = hears.recv().await else { return };
    let (alive, ended) = oneshot::channel::<()>();
    let probing = move || {
        // Dropped when this ends, in whatever way.
        let _alive = alive;
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run(context, first, hears)),
            Err(error) => tracing::error!(%error, "cannot probe"),
        }
    };
    match std::thread::Builder::new().name("probes".into()).spawn(probing) {
        // Nothing is ever sent.
        Ok(_) => drop(ended.await),
        Err(error) => tracing::error!(%error, "cannot start the thread that probes"),
    }
}

/// Probes until nobody is left who could tell anything. `first` was told already.
async fn run(context: Context, first: Told, mut hears: mpsc::UnboundedReceiver<Told>) {
    let means = Means { runtime: context.runtime.clone(), tls: context.tls.clone() };
    let mut task = Task {
        context,
        means,
        origin: Instant::now(),
        pods: BTreeMap::new(),
        slots: BTreeMap::new(),
        next_slot: 0,
        heap: BinaryHeap::new(),
        running: FuturesUnordered::new(),
        unwritten: BTreeSet::new(),
        writing: JoinSet::new(),
    };
    task.hear(first);
    loop {
        let due = task.heap.peek().map(|Reverse((due, _))| task.origin + *due);
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel-safe per docs on `UnboundedReceiver::recv`.
            told = hears.recv() => match told {
                Some(told) => task.hear(told),
                None => return,
            },
            // Cancel-safe: a stream's `next` holds nothing. One that was given up says nothing.
            Some(ended) = task.running.next() => {
                if let Ok(ended) = ended {
                    task.take_in(ended);
                }
            }
            // Cancel-safe per docs on `JoinSet::join_next`.
            Some(_) = task.writing.join_next() => {}
            () = sleep => task.begin(),
        }
        task.write();
    }
}

impl Task {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Sight(sight) => self.see(*sight),
            Told::Gone(key) => self.forget(&key),
        }
    }

    /// Takes in what runs of a pod.
    fn see(&mut self, sight: Sight) {
        let Sight { key, pod, ip, targets, ending, before, found } = sight;
        let known = self.pods.remove(&key);
        let (stays, gone): (Vec<u64>, Vec<u64>) =
            known.map(|it| it.slots).unwrap_or_default().into_iter().partition(|slot| {
                let slot = self.slots.get(slot);
                slot.is_some_and(|slot| targets.contains(&slot.target))
            });
        gone.iter().for_each(|slot| self.drop_slot(*slot));
        let mut slots = stays;
        for target in targets {
            let has = |slot: &u64| self.slots.get(slot).is_some_and(|it| it.target == target);
            if slots.iter().any(has) {
                continue;
            }
            let Some(container) = container(&pod, &target.name) else { continue };
            let start = self.start(&target, before.get(&target.id).copied());
            let Some(probes) = Probes::new(container, &start, self.now()) else { continue };
            let (key, number) = (key.clone(), self.next_slot);
            self.next_slot += 1;
            let slot = Slot { key, target, probes, scheduled: None, under_way: Vec::new() };
            self.slots.insert(number, slot);
            slots.push(number);
        }
        for number in &slots {
            if let Some(slot) = self.slots.get_mut(number).filter(|_| ending) {
                slot.probes.end();
            }
            self.schedule(*number);
        }
        let probed = ProbedPod { pod, ip: ip.into(), found, slots };
        self.pods.insert(key.clone(), probed);
        self.publish(&key);
    }

    fn start(&self, target: &Target, known: Option<Health>) -> Start {
        let age = Timestamp::now().duration_since(target.started_at);
        let age = Duration::try_from(age).unwrap_or_default();
        // What was there before this agent is not asked all at once. Anything may say when, as long as
        // it is not the same for all.
        let spread = if age > self.now() { spread(&target.id) } else { 0 };
        Start { age, known, spread }
    }

    fn forget(&mut self, key: &PodKey) {
        if let Some(pod) = self.pods.remove(key) {
            pod.slots.iter().for_each(|slot| self.drop_slot(*slot));
        }
        self.unwritten.remove(key);
        self.context.counts.forget(key);
    }

    fn drop_slot(&mut self, number: u64) {
        if let Some(slot) = self.slots.remove(&number) {
            slot.under_way.iter().for_each(|(_, probe)| probe.abort());
        }
    }

    /// Puts a container into the heap for when it is due.
    fn schedule(&mut self, number: u64) {
        let Some(slot) = self.slots.get_mut(&number) else { return };
        let due = slot.probes.due().map(on_grid);
        if due != slot.scheduled {
            slot.scheduled = due;
            self.heap.extend(due.map(|due| Reverse((due, number))));
        }
    }

    /// Begins what is due.
    fn begin(&mut self) {
        let now = self.now();
        while let Some(Reverse((due, number))) = self.heap.peek().copied()
            && due <= now
        {
            self.heap.pop();
            let Some(slot) = self.slots.get_mut(&number) else { continue };
            if slot.scheduled != Some(due) {
                continue;
            }
            slot.scheduled = None;
            let Some(pod) = self.pods.get(&slot.key) else { continue };
            for kind in slot.probes.begin(now) {
                let probe = probe(
                    self.means.clone(),
                    (pod.pod.clone(), pod.ip.clone()),
                    (slot.target.name.clone(), slot.target.id.clone()),
                    number,
                    kind,
                );
                let (probe, handle) = abortable(probe.boxed());
                self.running.push(probe);
                slot.under_way.push((kind, handle));
            }
            self.schedule(number);
        }
    }

    /// Takes in what a probe found.
    fn take_in(&mut self, ended: Ended) {
        let Ended { slot: number, kind, answer, took } = ended;
        let now = self.now();
        let Some(slot) = self.slots.get_mut(&number) else { return };
        slot.under_way.retain(|(other, _)| *other != kind);
        let Some(pod) = self.pods.get(&slot.key) else { return };
        let finding = answer.finding();
        let name = &slot.target.name;
        if let Some((reason, message)) = answer.event(kind) {
            let about = about(&pod.pod, Some(name));
            self.context.events.show(about, EventKind::Warning, reason, message.clone());
            self.context.events.tell(&slot.key, EventKind::Warning, reason, short(message));
        }
        self.context.counts.count((&slot.key, pod.pod.uid()), name, kind, finding, took);
        if slot.probes.finish(kind, finding, now) {
            let key = slot.key.clone();
            tracing::debug!(pod = %key, container = name, %kind, ?finding, "health changed");
            self.publish(&key);
        }
        self.schedule(number);
    }

    /// Tells a worker what is known of its containers.
    fn publish(&mut self, key: &PodKey) {
        let Some(pod) = self.pods.get(key) else { return };
        let health = |number: &u64| {
            let slot = self.slots.get(number)?;
            Some((slot.target.id.clone(), slot.probes.health()))
        };
        let all: BTreeMap<ContainerId, Health> = pod.slots.iter().filter_map(health).collect();
        let changed = pod.found.send_if_modified(|known| {
            let changed = **known != all;
            if changed {
                *known = Arc::new(all);
            }
            changed
        });
        if changed {
            self.unwritten.insert(key.clone());
        }
    }

    /// Writes the files that are behind, one batch after the other, so that none becomes older again.
    fn write(&mut self) {
        if self.unwritten.is_empty() || !self.writing.is_empty() {
            return;
        }
        let keys = std::mem::take(&mut self.unwritten);
        let pods = keys.iter().filter_map(|key| self.pods.get(key));
        let directory = |pod: &ProbedPod| self.context.pods_directory.join(pod.pod.uid());
        let files: Vec<(PathBuf, Known)> =
            pods.map(|pod| (directory(pod), pod.found.borrow().clone())).collect();
        self.writing.spawn_blocking(move || {
            for (directory, known) in files {
                if let Err(error) = kept::write(&directory, &known) {
                    let directory = directory.display();
                    tracing::warn!(%directory, %error, "cannot write what probes found for the next agent");
                }
            }
        });
    }
}

/// How fine time is: what is due within so long is begun together, which wakes this process less.
const GRID: Duration = Duration::from_millis(20);

/// The next moment at which something is begun.
fn on_grid(due: Duration) -> Duration {
    let over = due.as_nanos() % GRID.as_nanos();
    match u64::try_from(over) {
        Ok(over @ 1..) => due.saturating_add(GRID - Duration::from_nanos(over)),
        _ => due,
    }
}

/// Asks once. A panic is the failure of one probe.
async fn probe(
    means: Means,
    (pod, ip): (Arc<Pod>, Arc<str>),
    (name, id): (String, ContainerId),
    slot: u64,
    kind: ProbeKind,
) -> Ended {
    let began = Instant::now();
    let spec = container(&pod, &name).and_then(|container| Some((container, kind.of(container)?)));
    let answer = match spec {
        Some((container, probe)) => {
            let asking = ask(&means, probe, container, &id, &ip);
            AssertUnwindSafe(asking).catch_unwind().await.unwrap_or_else(|_| {
                let message = "mainstay has a bug: the probe panicked".to_owned();
                Answer::Error { state: "unknown", message }
            })
        }
        None => Answer::Success,
    };
    Ended { slot, kind, answer, took: began.elapsed() }
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    probed(pod.spec()).find(|container| container.name == name)
}

/// What people are shown here of what a container answered.
fn short(mut message: String) -> String {
    const MOST: usize = 1024;
    let end = (0..=MOST.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
    message.truncate(end.unwrap_or(0));
    message
}

/// FNV-1a, of which the upper half is taken.
fn spread(id: &ContainerId) -> u16 {
    let hash =
        id.0.bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u16::try_from(hash >> 16).unwrap_or(0)
}

#[cfg(test)]
mod tests;
