//! Telling workers which pods are to be ended because something is short.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_plan::ephemeral_storage::EVICTED;
use mainstay_plan::node_shutdown::Shutdown;
use mainstay_plan::pod::{Eviction, EvictionCause, Incarnation, PodKey};
use mainstay_pod::Pod;
use tokio::sync::watch;

use super::Performer;
use crate::publish::{EventKind, about};

/// What is to be ended, and what goes with it.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    /// Versions of pods that are to be ended, by their UIDs.
    orders: BTreeMap<PodKey, (String, EvictionOrder)>,
    /// That the machine is being shut down, and how far that is.
    pub(super) shutdown: Option<Shutdown>,
    /// Whether nothing is kept of pods that have come to their end for good.
    pub(super) reclaims: bool,
}

/// Why and how a pod is to be ended.
#[derive(Clone, Debug)]
pub(crate) struct EvictionOrder {
    /// Of what there was too much or too little.
    pub(crate) message: String,
    /// How long its containers have to end.
    pub(crate) grace: Duration,
    pub(crate) cause: EvictionCause,
}

impl EvictionOrder {
    /// The same of a version of a pod.
    pub(super) fn of(self, uid: String, incarnation: Option<Incarnation>) -> Eviction {
        let Self { message, grace, cause } = self;
        Eviction { uid, incarnation, message, grace, cause }
    }
}

impl Performer {
    /// Lets the worker of a pod end this version of it, and tells why.
    pub(crate) fn evict(&self, key: &PodKey, pod: &Pod, order: EvictionOrder) {
        let (about, message) = (about(pod, None), order.message.clone());
        self.events.announce(key, about, EventKind::Warning, EVICTED, message);
        self.evictions.send_modify(|all| {
            all.orders.insert(key.clone(), (pod.uid().to_owned(), order));
        });
    }

    /// Says whether the disk is so short that nothing is kept of pods that have come to their end for good.
    pub(crate) fn reclaim(&self, reclaims: bool) {
        self.evictions
            .send_if_modified(|all| std::mem::replace(&mut all.reclaims, reclaims) != reclaims);
    }

    /// Says how far a shutdown of the machine is, or that there is none any more.
    pub(crate) fn shut_down(&self, shutdown: Option<Shutdown>) {
        self.evictions.send_modify(|all| all.shutdown = shutdown);
    }

    /// Changes when pods are to be ended, or room is to be made.
    pub(super) fn evictions(&self) -> watch::Receiver<Evictions> {
        self.evictions.subscribe()
    }

    /// Which version of a pod is to be ended, by its UID, and why. It is told once: what was to be told of a
    /// version that is not there any more is never.
    pub(super) fn take_eviction(&self, key: &PodKey) -> Option<(String, EvictionOrder)> {
        if self.evictions.borrow().orders.is_empty() {
            return None;
        }
        let mut order = None;
        self.evictions.send_if_modified(|all| {
            order = all.orders.remove(key);
            // Nobody has to hear of that.
            false
        });
        order
    }
}
