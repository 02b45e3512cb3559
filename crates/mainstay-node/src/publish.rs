//! What is told to people: the state of every pod, of the manifests, and what happened.
//!
//! # Flow
//!
//! Workers send what changed ([`Publication`]); one task keeps the whole ([`Board`]) and puts it
//! on a `watch` channel, from which the control socket answers and the mirror pods of an API are
//! kept and its own pods are told of ([`mirror`]).

pub(crate) mod api;
mod events;
pub(crate) mod mirror;
pub(crate) mod network;
pub(crate) mod node;
mod notes;
pub(crate) mod object_mirrors;
mod recorder;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodStatus;
use mainstay_cri::RuntimeCondition;
use mainstay_plan::mirror::Ending;
use mainstay_plan::pod::{PodKey, SeenPod, Waiting};
use mainstay_plan::status::is_over;
use mainstay_pod::{Diagnostic, Pod};
use tokio::sync::{mpsc, watch};

pub use api::ApiAccess;
pub(crate) use events::{
    About, Event, EventKind, Events, about, about_seen, duration, of_failure, waits,
};
pub use network::PodNetwork;
pub use node::{NodeTimes, look_at_processors, look_at_resources};
pub(crate) use show::{Shown, show};

use crate::sources::merge::Notes;

/// What a pod's worker tells.
#[derive(Debug)]
pub(crate) enum Publication {
    /// The pods that will be told of next, now that all sources have been looked at once.
    Begun(BTreeSet<PodKey>),
    /// The pod, as it is now.
    Pod(Box<PodReport>),
    /// The pod is not wanted any more, and this of it is still there.
    Leaving(PodKey, Arc<SeenPod>),
    /// Nothing of the pod is left.
    Gone(PodKey),
}

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct PodReport {
    pub(crate) key: PodKey,
    pub(crate) pod: Arc<Pod>,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) status: Arc<PodStatus>,
    pub(crate) waiting: Option<Waiting>,
    /// Older versions of it that still run.
    pub(crate) ending: Vec<Ending>,
    /// It is to be ended, or has been.
    pub(crate) stopping: bool,
    /// It was to be ended, and nothing of it runs any more.
    pub(crate) ended: bool,
}

/// The manifest that a pod came from.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) path: PathBuf,
    /// Why it is not valid as it is now; the pod is an earlier version then.
    pub(crate) invalid: Option<Arc<[Diagnostic]>>,
}

impl Manifest {
    /// Why it is not what runs: its first error, and how many more there are.
    pub(crate) fn why_kept(&self) -> Option<String> {
        let errors = self.invalid.as_ref()?;
        let first = errors.first()?;
        let kept = "the last good version is kept";
        Some(match errors.len() - 1 {
            0 => format!("{first}; {kept}"),
            more => format!("{first}; and {more} more; {kept}"),
        })
    }
}

/// All that is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    /// The pods that have not been told of yet; `None` until it is known which they are.
    awaited: Option<BTreeSet<PodKey>>,
    pub(crate) pods: BTreeMap<PodKey, PodEntry>,
    pub(crate) notes: Notes,
    pub(crate) runtime: Vec<RuntimeCondition>,
}

/// One pod on the board.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodEntry {
    /// As it was told last; `None` when it is only taken away since this agent is there.
    pub(crate) report: Option<Arc<PodReport>>,
    /// What is left of it, if it is being taken away.
    pub(crate) leaving: Option<Arc<SeenPod>>,
}

/// Keeps the board for ever.
pub(crate) async fn keep(
    mut publications: mpsc::UnboundedReceiver<Publication>,
    mut notes: watch::Receiver<Arc<Notes>>,
    mut health: watch::Receiver<Vec<RuntimeCondition>>,
    board: watch::Sender<Arc<Board>>,
) {
    loop {
        tokio::select! {
            // In this order, so that a board is not complete without the notes that came before.
            biased;
            // Cancel-safe per docs on `watch::Receiver::changed`.
            changed = notes.changed() => {
                if changed.is_err() {
                    return;
                }
                let notes = (**notes.borrow_and_update()).clone();
                board.send_modify(|board| Arc::make_mut(board).notes = notes);
            }
            // As above.
            changed = health.changed() => {
                if changed.is_err() {
                    return;
                }
                let health = health.borrow_and_update().clone();
                board.send_modify(|board| Arc::make_mut(board).runtime = health);
            }
            // Cancel-safe per docs on `UnboundedReceiver::recv`.
            publication = publications.recv() => {
                let Some(publication) = publication else { return };
                board.send_modify(|board| put(Arc::make_mut(board), publication));
            }
        }
    }
}

impl Board {
    /// Whether every pod that was there at the start has been told of, and the runtime.
    pub(crate) fn is_complete(&self) -> bool {
        self.awaited.as_ref().is_some_and(BTreeSet::is_empty) && !self.runtime.is_empty()
    }

    /// Whether a pod that was there at the start has not been told of yet.
    pub(crate) fn is_awaited(&self, key: &PodKey) -> bool {
        self.awaited.as_ref().is_none_or(|awaited| awaited.contains(key))
    }

    /// The pods that were told of and are not being taken away.
    pub(crate) fn reports(&self) -> impl Iterator<Item = &PodReport> {
        let present = self.pods.values().filter(|entry| entry.leaving.is_none());
        present.filter_map(|entry| entry.report.as_deref())
    }

    /// Those of them that may run.
    pub(crate) fn active(&self) -> impl Iterator<Item = &PodReport> {
        self.reports().filter(|it| !it.stopping && !is_over(&it.status))
    }

    fn tell(&mut self, key: &PodKey) {
        if let Some(awaited) = &mut self.awaited {
            awaited.remove(key);
        }
    }
}

fn put(board: &mut Board, publication: Publication) {
    match publication {
        Publication::Begun(keys) => board.awaited = Some(keys),
        Publication::Pod(report) => {
            let key = report.key.clone();
            board.tell(&key);
            let report = Some(Arc::from(report));
            board.pods.insert(key, PodEntry { report, leaving: None });
        }
        Publication::Leaving(key, seen) => {
            board.tell(&key);
            board.pods.entry(key).or_default().leaving = Some(seen);
        }
        Publication::Gone(key) => {
            board.tell(&key);
            board.pods.remove(&key);
        }
    }
}
