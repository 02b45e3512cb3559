//! One commit, as the history and the log keep it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Entry, Event, Revision};

/// What an event costs in memory beside its key and values, about, in bytes.
const EVENT_OVERHEAD: usize = 160;

/// A value that is there, and the commit that wrote it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    pub(crate) value: Bytes,
    pub(crate) revision: Revision,
}

/// One change of a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Changed {
    pub(crate) key: Arc<str>,
    pub(crate) value: Option<Bytes>,
    /// What was there.
    pub(crate) previous: Option<Held>,
}

/// One commit.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) revision: Revision,
    /// At most one for each key.
    pub(crate) events: Arc<[Event]>,
    /// For each event, the commit that wrote its previous value.
    written: Box<[Revision]>,
    /// For the beginning of a process after a crash, which changes nothing: revisions after this one
    /// have been seen and lost.
    pub(crate) lost_after: Option<Revision>,
    /// What it costs in memory, about, in bytes.
    pub(crate) size: usize,
}

// === impl Held ===

impl Held {
    pub(crate) fn entry(&self, key: &Arc<str>) -> Entry {
        Entry { key: key.clone(), value: self.value.clone(), revision: self.revision }
    }
}

// === impl Commit ===

impl Commit {
    pub(crate) fn new(revision: Revision, changes: Vec<Changed>) -> Self {
        let mut events = Vec::with_capacity(changes.len());
        let mut written = Vec::with_capacity(changes.len());
        let mut size = EVENT_OVERHEAD;
        for Changed { key, value, previous } in changes {
            written.push(previous.as_ref().map(|held| held.revision).unwrap_or_default());
            let previous = previous.map(|held| held.value);
            // A value that was replaced is held by this alone once the commit that wrote it has gone.
            let bytes = [&value, &previous].into_iter().flatten().map(Bytes::len).sum::<usize>();
            size += EVENT_OVERHEAD + key.len() + bytes;
            events.push(Event { revision, key, value, previous });
        }
        Self { revision, events: events.into(), written: written.into(), lost_after: None, size }
    }

    /// The beginning of a process after a crash.
    pub(crate) fn after_loss(revision: Revision, lost_after: Revision) -> Self {
        Self { lost_after: Some(lost_after), ..Self::new(revision, Vec::new()) }
    }

    /// The events, each with what was there before it and the commit that had written that.
    pub(crate) fn undo(&self) -> impl Iterator<Item = (&Arc<str>, Option<(&Bytes, Revision)>)> {
        self.events.iter().zip(&self.written).map(|(event, revision)| {
            (&event.key, event.previous.as_ref().map(|value| (value, *revision)))
        })
    }
}
