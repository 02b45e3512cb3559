//! A worker's line to the prober: what runs there, what is found here.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_cri::ContainerId;
use mainstay_plan::pod::{Health, Memory, PodKey, RunGoal, SeenPod};
use mainstay_plan::probe::{Target, probed, targets};
use mainstay_pod::Pod;
use tokio::sync::watch;

use super::prober::{Prober, Told};

/// What is known of containers with probes.
pub(crate) type Known = Arc<BTreeMap<ContainerId, Health>>;

/// What a worker sees of its pod.
pub(crate) struct Sight {
    pub(super) key: PodKey,
    pub(super) pod: Arc<Pod>,
    /// The pod's address; empty as long as it has none.
    pub(super) ip: String,
    pub(super) targets: Vec<Target>,
    /// Whether the pod is being ended.
    pub(super) ending: bool,
    /// What an earlier agent knew.
    pub(super) before: BTreeMap<ContainerId, Health>,
    /// Where it is told what is found.
    pub(super) found: watch::Sender<Known>,
}

/// The worker's end. Without probes there is nothing to it.
pub(crate) struct Line {
    prober: Prober,
    key: PodKey,
    open: Option<Open>,
}

struct Open {
    pod: Arc<Pod>,
    ip: String,
    targets: Vec<Target>,
    ending: bool,
    sender: watch::Sender<Known>,
    found: watch::Receiver<Known>,
    /// What was taken last.
    taken: Known,
}

impl Line {
    pub(crate) fn new(prober: Prober, key: PodKey) -> Self {
        Self { prober, key, open: None }
    }

    /// Tells what runs now, if that is news. `memory` is what the worker knows so far.
    pub(crate) fn tell(
        &mut self,
        run: Option<&RunGoal>,
        seen: &SeenPod,
        host_ip: impl FnOnce() -> Option<String>,
        ending: bool,
        memory: &Memory,
    ) {
        let Some(run) = run.filter(|run| probed(run.pod.spec()).next().is_some()) else {
            self.close();
            return;
        };
        let targets = targets(run, seen, memory);
        let own = seen.sandboxes.iter().find(|it| run.is_own(&it.uid, it.incarnation));
        let ip = match run.pod.is_host_network() {
            true => host_ip(),
            false => own.and_then(|sandbox| sandbox.ips.first()).map(ToString::to_string),
        };
        let ip = ip.unwrap_or_default();
        let is_same = |open: &Open| {
            Arc::ptr_eq(&open.pod, &run.pod)
                && open.ip == ip
                && open.targets == targets
                && open.ending == ending
        };
        if self.open.as_ref().is_some_and(is_same) {
            return;
        }
        let before = if self.open.is_none() { memory.health.clone() } else { BTreeMap::new() };
        let (sender, found, taken) = match self.open.take() {
            Some(open) => (open.sender, open.found, open.taken),
            None => {
                let taken = Known::default();
                let (sender, found) = watch::channel(taken.clone());
                (sender, found, taken)
            }
        };
        self.prober.tell(Told::Sight(Box::new(Sight {
            key: self.key.clone(),
            pod: run.pod.clone(),
            ip: ip.clone(),
            targets: targets.clone(),
            ending,
            before,
            found: sender.clone(),
        })));
        self.open = Some(Open { pod: run.pod.clone(), ip, targets, ending, sender, found, taken });
    }

    /// Waits for news; for ever without probes.
    pub(crate) async fn changed(&mut self) {
        match &mut self.open {
            // Cancel-safe per docs on `watch::Receiver::changed`. The sender is here, too.
            Some(open) => drop(open.found.changed().await),
            None => std::future::pending().await,
        }
    }

    /// What was found, if that is news.
    pub(crate) fn news(&mut self) -> Option<Known> {
        let open = self.open.as_mut()?;
        let now = open.found.borrow_and_update().clone();
        (!Arc::ptr_eq(&now, &open.taken)).then(|| {
            open.taken = now.clone();
            now
        })
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.prober.tell(Told::Gone(self.key.clone()));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}
