//! Watches: each is a place in the history, and is woken by what it is for.
//!
//! # Flow
//!
//! Watches of one prefix share a [`Group`], which knows the places of the commits that are for them. A
//! commit is looked up in the groups once, however many watches there are, and wakes those of its groups
//! only. A watch that is woken reads the next commit for it from the history.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::stream;
use tokio::sync::watch as signal;
use tokio::task::unconstrained;

use super::commit::Commit;
use super::state::{Shared, State};
use crate::{Event, Revision, StoreError, WatchItem};

/// What is watched.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    groups: HashMap<Arc<str>, Group>,
    /// How many groups have prefixes of each length, so that the prefixes of a key are soon found.
    lengths: BTreeMap<usize, usize>,
}

/// The watches of one prefix.
#[derive(Debug)]
struct Group {
    /// The places in the history of commits with this prefix, except such as have left it.
    places: VecDeque<u64>,
    /// The last such commit that has left both the history and `places`.
    gone: Option<u64>,
    wake: signal::Sender<()>,
    watches: usize,
}

/// One watch.
struct Watch {
    shared: Arc<Shared>,
    prefix: Arc<str>,
    /// What is before this place has been told.
    next: u64,
    /// The revision of what was told last.
    told: Revision,
    woken: signal::Receiver<()>,
    ended: bool,
}

/// Begins a watch.
pub(crate) fn watch(
    shared: Arc<Shared>,
    prefix: &str,
    after: Revision,
) -> Result<BoxStream<'static, WatchItem>, StoreError> {
    let prefix: Arc<str> = prefix.into();
    let (next, woken) = {
        let mut state = shared.write();
        state.check(after)?;
        (state.history().after(after), state.join(&prefix))
    };
    let watch = Watch { shared, prefix, next, told: after, woken, ended: false };
    Ok(Box::pin(stream::unfold(watch, Watch::tell)))
}

// === impl State ===

impl State {
    /// Adds a watch of `prefix`.
    fn join(&mut self, prefix: &Arc<str>) -> signal::Receiver<()> {
        if !self.interests.groups.contains_key(prefix) {
            let first = self.history().first();
            let commits = (first..).zip(self.history().commits());
            let places = commits.filter(|(_, commit)| concerns(commit, prefix));
            let group = Group {
                places: places.map(|(place, _)| place).collect(),
                gone: None,
                wake: signal::Sender::new(()),
                watches: 0,
            };
            self.interests.groups.insert(prefix.clone(), group);
            *self.interests.lengths.entry(prefix.len()).or_default() += 1;
        }
        self.interests.enter(prefix)
    }

    /// What is to be told next to a watch, and its place.
    fn next_for(&self, watch: &Watch) -> Option<Result<(u64, Arc<Commit>), StoreError>> {
        let group = self.interests.groups.get(&watch.prefix)?;
        let index = group.places.partition_point(|place| *place < watch.next);
        let place = group.places.get(index).copied();
        let lost = group.gone.is_some_and(|gone| gone >= watch.next)
            || place.is_some_and(|place| place < self.history().first());
        if lost {
            let oldest = self.history().oldest();
            return Some(Err(StoreError::Compacted { asked: watch.told, oldest }));
        }
        match (place, &self.ended) {
            (Some(place), _) => self.history().get(place).map(|commit| Ok((place, commit.clone()))),
            (None, Some(error)) => Some(Err(error.clone())),
            (None, None) => None,
        }
    }
}

// === impl Interests ===

impl Interests {
    /// Notes a commit for the watches that it is for, and wakes them. `first` is the first place that is
    /// there.
    pub(crate) fn note(&mut self, place: u64, commit: &Commit, first: u64) {
        if self.groups.is_empty() {
            return;
        }
        for event in &*commit.events {
            for length in self.lengths.keys() {
                let Some(prefix) = event.key.get(..*length) else { continue };
                let Some(group) = self.groups.get_mut(prefix) else { continue };
                if group.places.back() == Some(&place) {
                    continue;
                }
                group.note(place, first);
                group.wake.send_replace(());
            }
        }
    }

    /// Lets all watches know that what comes after `place` does not go on from what they were told.
    pub(crate) fn lose(&mut self, place: u64) {
        for group in self.groups.values_mut() {
            group.places.clear();
            group.gone = Some(place);
            group.wake.send_replace(());
        }
    }

    /// Wakes all watches.
    pub(crate) fn wake_all(&self) {
        for group in self.groups.values() {
            group.wake.send_replace(());
        }
    }

    /// How many groups there are, and how many lengths of prefixes.
    #[cfg(test)]
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.groups.len(), self.lengths.len())
    }

    fn enter(&mut self, prefix: &Arc<str>) -> signal::Receiver<()> {
        match self.groups.get_mut(prefix) {
            Some(group) => {
                group.watches += 1;
                group.wake.subscribe()
            }
            // It would end at once.
            None => signal::Sender::new(()).subscribe(),
        }
    }

    fn leave(&mut self, prefix: &str) {
        let Some(group) = self.groups.get_mut(prefix) else { return };
        group.watches -= 1;
        if group.watches > 0 {
            return;
        }
        self.groups.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }
}

// === impl Group ===

impl Group {
    fn note(&mut self, place: u64, first: u64) {
        while let Some(gone) = self.places.pop_front_if(|place| *place < first) {
            self.gone = Some(gone);
        }
        self.places.push_back(place);
    }
}

// === impl Watch ===

impl Watch {
    async fn tell(mut self) -> Option<(WatchItem, Self)> {
        loop {
            if self.ended {
                return None;
            }
            // What comes from here on wakes it again.
            self.woken.borrow_and_update();
            let next = self.shared.read().next_for(&self);
            match next {
                Some(Ok((place, commit))) => {
                    self.next = place + 1;
                    self.told = commit.revision;
                    return Some((Ok(events(&commit, &self.prefix)), self));
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some((Err(error), self));
                }
                None => {}
            }
            // Not limited by the runtime, so that a watch that is pending has nothing to tell.
            // Cancel-safe per docs on `watch::Receiver::changed`.
            if unconstrained(self.woken.changed()).await.is_err() {
                return None;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.write().interests.leave(&self.prefix);
    }
}

fn concerns(commit: &Commit, prefix: &str) -> bool {
    commit.events.iter().any(|event| event.key.starts_with(prefix))
}

/// The events of a commit with a prefix; mostly all of them, which costs nothing.
fn events(commit: &Commit, prefix: &str) -> Arc<[Event]> {
    let is_meant = |event: &&Event| event.key.starts_with(prefix);
    if commit.events.iter().all(|event| is_meant(&event)) {
        return commit.events.clone();
    }
    commit.events.iter().filter(is_meant).cloned().collect()
}
