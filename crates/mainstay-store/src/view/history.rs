//! The latest commits, within bounds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::Window;
use super::commit::Commit;
use crate::{Revision, StoreError};

/// The latest commits. Each has a place, which counts up from 0 and is never used again.
#[derive(Debug)]
pub(crate) struct History {
    window: Window,
    commits: VecDeque<Timed>,
    /// The place of the first of `commits`.
    first: u64,
    /// The state as of this revision and of any after it can be told.
    oldest: Revision,
    bytes: usize,
    events: usize,
    /// Revisions after the first and before the second of each pair were seen and lost.
    lost: VecDeque<(Revision, Revision)>,
}

#[derive(Debug)]
struct Timed {
    at: Instant,
    commit: Arc<Commit>,
}

// === impl History ===

impl History {
    pub(crate) fn new(window: Window, oldest: Revision) -> Self {
        Self {
            window,
            commits: VecDeque::new(),
            first: 0,
            oldest,
            bytes: 0,
            events: 0,
            lost: VecDeque::new(),
        }
    }

    pub(crate) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// The place of the oldest commit that is there.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The commits that are there, oldest first.
    pub(crate) fn commits(
        &self,
    ) -> impl DoubleEndedIterator<Item = &Arc<Commit>> + ExactSizeIterator {
        self.commits.iter().map(|timed| &timed.commit)
    }

    pub(crate) fn get(&self, place: u64) -> Option<&Arc<Commit>> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        self.commits.get(index).map(|timed| &timed.commit)
    }

    /// The place of the first commit after `revision`.
    pub(crate) fn after(&self, revision: Revision) -> u64 {
        let older = self.commits.partition_point(|timed| timed.commit.revision <= revision);
        self.first + older as u64
    }

    /// The commits after `revision`, newest first.
    pub(crate) fn back_to(&self, revision: Revision) -> impl Iterator<Item = &Arc<Commit>> {
        self.commits().rev().take_while(move |commit| commit.revision > revision)
    }

    /// Whether the state as of `revision`, which is not in the future, can be told.
    pub(crate) fn check(&self, revision: Revision) -> Result<(), StoreError> {
        let compacted = |oldest| Err(StoreError::Compacted { asked: revision, oldest });
        if revision < self.oldest {
            return compacted(self.oldest);
        }
        match self.lost.iter().find(|(from, to)| *from < revision && revision < *to) {
            Some((_, to)) => compacted(*to),
            None => Ok(()),
        }
    }

    /// Adds one commit, and gives its place.
    pub(crate) fn push(&mut self, commit: Arc<Commit>, at: Instant) -> u64 {
        let place = self.first + self.commits.len() as u64;
        self.bytes += commit.size;
        self.events += commit.events.len().max(1);
        if let Some(after) = commit.lost_after {
            self.lost.push_back((after, commit.revision));
        }
        self.commits.push_back(Timed { at, commit });
        place
    }

    /// Forgets all commits: only the state as of `oldest` is known. Gives a place that is after all that
    /// there were, and before all that come.
    pub(crate) fn begin_anew(&mut self, oldest: Revision) -> u64 {
        let between = self.first + self.commits.len() as u64;
        self.first = between + 1;
        self.commits.clear();
        self.lost.clear();
        (self.bytes, self.events) = (0, 0);
        self.oldest = oldest;
        between
    }

    /// Takes the commits away that are over the bounds.
    pub(crate) fn trim(&mut self, now: Instant) -> Vec<Arc<Commit>> {
        let mut gone = Vec::new();
        while let Some(oldest) = self.commits.front() {
            let age = now.saturating_duration_since(oldest.at);
            let is_fresh = age <= self.window.fresh;
            let bytes = if is_fresh { self.window.bytes } else { self.window.aged_bytes };
            let within =
                self.bytes <= bytes && self.events <= self.window.events && age <= self.window.age;
            if within {
                break;
            }
            let Some(Timed { commit, .. }) = self.commits.pop_front() else { break };
            self.first += 1;
            self.bytes -= commit.size;
            self.events -= commit.events.len().max(1);
            self.oldest = commit.revision;
            gone.push(commit);
        }
        while self.lost.front().is_some_and(|(_, to)| *to <= self.oldest) {
            self.lost.pop_front();
        }
        gone
    }
}
