//! What readers see: the entries and the history, at one revision.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::{Bound, Range};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use bytes::Bytes;

use super::Window;
use super::commit::{Commit, Held};
use super::history::History;
use super::watch::Interests;
use crate::{Entry, ListOptions, Page, Revision, StoreError};

pub(crate) type Entries = BTreeMap<Arc<str>, Held>;

/// The state, between the thread that writes and all who read.
#[derive(Debug)]
pub(crate) struct Shared(RwLock<State>);

/// What is seen.
#[derive(Debug)]
pub(crate) struct State {
    entries: Entries,
    revision: Revision,
    history: History,
    pub(crate) interests: Interests,
    /// Set when nothing will change any more: why.
    pub(crate) ended: Option<StoreError>,
}

/// All that there is to know, as a new file is to keep it.
#[derive(Debug)]
pub(crate) struct Image {
    /// The entries as of `base`.
    pub(crate) entries: Entries,
    pub(crate) base: Revision,
    /// The commits after that.
    pub(crate) log: Vec<Arc<Commit>>,
}

/// A key with its value, and the commit that wrote it.
type Row<'a> = (&'a Arc<str>, (&'a Bytes, Revision));

/// The entries of a prefix as of an older revision: those of now, but for some.
struct Merged<'a, N, O>
where
    N: Iterator<Item = Row<'a>>,
    O: Iterator<Item = (&'a Arc<str>, Option<(&'a Bytes, Revision)>)>,
{
    now: Peekable<N>,
    older: Peekable<O>,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self(RwLock::new(state))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is as of a revision, with no history.
    pub(crate) fn begin(entries: Entries, revision: Revision, window: Window) -> Self {
        Self::new(State::new(entries, revision, Vec::new(), window, Instant::now()).0)
    }

    /// Says that nothing will change any more, and why.
    pub(crate) fn end(&self, why: StoreError) {
        let mut state = self.write();
        state.ended = Some(why);
        state.interests.wake_all();
    }

    /// Begins anew with what there is as of a revision. Watches end: what was between is not known.
    pub(crate) fn replace(&self, entries: Entries, revision: Revision) {
        let mut state = self.write();
        state.entries = entries;
        state.revision = revision;
        let between = state.history.begin_anew(revision);
        state.interests.lose(between);
    }

    /// Makes commits visible, all in one step. Gives what is not in the history any more.
    pub(crate) fn publish(&self, commits: &[Arc<Commit>], now: Instant) -> Vec<Arc<Commit>> {
        let mut state = self.write();
        for commit in commits {
            state.apply(commit, now);
        }
        let gone = state.history.trim(now);
        state.settle(&gone);
        gone
    }
}

// === impl State ===

impl State {
    /// What a file held: the entries as of the last commit of the log, which begins after `base`. Gives
    /// also what is not in the history any more.
    pub(crate) fn new(
        entries: Entries,
        base: Revision,
        log: Vec<Arc<Commit>>,
        window: Window,
        now: Instant,
    ) -> (Self, Vec<Arc<Commit>>) {
        let revision = log.last().map_or(base, |commit| commit.revision);
        let mut history = History::new(window, base);
        for commit in log {
            history.push(commit, now);
        }
        let gone = history.trim(now);
        (Self { entries, revision, history, interests: Interests::default(), ended: None }, gone)
    }

    /// What a new file is to hold.
    pub(crate) fn image(&self) -> Image {
        let base = self.history.oldest();
        let held = |(key, (value, revision)): Row<'_>| {
            (key.clone(), Held { value: value.clone(), revision })
        };
        let entries = self.merged("", Bound::Unbounded, base).map(held).collect();
        Image { entries, base, log: self.history.commits().cloned().collect() }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn held(&self, key: &str) -> Option<&Held> {
        self.entries.get(key)
    }

    pub(crate) fn get(&self, key: &str) -> (Option<Entry>, Revision) {
        let entry = self.entries.get_key_value(key).map(|(key, held)| held.entry(key));
        (entry, self.revision)
    }

    pub(crate) fn known(&self) -> Range<Revision> {
        self.history.oldest()..Revision(self.revision.0 + 1)
    }

    /// Whether the state as of `revision` can be told.
    pub(crate) fn check(&self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::Future { asked: revision, current: self.revision });
        }
        self.history.check(revision)
    }

    pub(crate) fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError> {
        let revision = options.at.unwrap_or(self.revision);
        self.check(revision)?;
        let from = match &options.after {
            Some(after) if &**after >= prefix => Bound::Excluded(&**after),
            Some(_) | None => Bound::Included(prefix),
        };
        let mut found = self.merged(prefix, from, revision);
        let limit = options.limit.unwrap_or(usize::MAX);
        let entry = |(key, (value, revision)): Row<'_>| {
            let (key, value) = (key.clone(), value.clone());
            Entry { key, value, revision }
        };
        let entries = found.by_ref().take(limit).map(entry).collect();
        Ok(Page { entries, revision, remaining: found.count() })
    }

    /// The entries from `from` on that begin with `prefix`, as of a revision that is known.
    fn merged<'a>(
        &'a self,
        prefix: &'a str,
        from: Bound<&'a str>,
        revision: Revision,
    ) -> impl Iterator<Item = Row<'a>> {
        // The oldest commit after the revision tells what was there: it comes last.
        let mut older = BTreeMap::new();
        for (key, held) in self.history.back_to(revision).flat_map(|commit| commit.undo()) {
            let wanted = match from {
                Bound::Included(from) => &**key >= from,
                Bound::Excluded(from) => &**key > from,
                Bound::Unbounded => true,
            };
            if wanted && key.starts_with(prefix) {
                older.insert(key, held);
            }
        }
        let now = self.entries.range::<str, _>((from, Bound::Unbounded));
        let now = now.take_while(move |(key, _)| key.starts_with(prefix));
        let now = now.map(|(key, held)| (key, (&held.value, held.revision)));
        Merged { now: now.peekable(), older: older.into_iter().peekable() }
    }

    /// Moves the values together that are there although their commits have left the history. They were made among
    /// others that have gone by now, and each keeps some pages of the heap.
    fn settle(&mut self, gone: &[Arc<Commit>]) {
        for event in gone.iter().flat_map(|commit| &*commit.events) {
            let held = self.entries.get_mut(&event.key);
            if let Some(held) = held.filter(|held| held.revision == event.revision) {
                held.value = Bytes::copy_from_slice(&held.value);
            }
        }
    }

    fn apply(&mut self, commit: &Arc<Commit>, now: Instant) {
        self.revision = commit.revision;
        for event in &*commit.events {
            match event.value.clone() {
                Some(value) => {
                    let held = Held { value, revision: commit.revision };
                    match self.entries.get_mut(&event.key) {
                        Some(there) => *there = held,
                        None => drop(self.entries.insert(event.key.clone(), held)),
                    }
                }
                None => drop(self.entries.remove(&event.key)),
            }
        }
        let place = self.history.push(commit.clone(), now);
        // While the state is locked: whoever sees the new revision finds the watches woken.
        self.interests.note(place, commit, self.history.first());
    }
}

// === impl Merged ===

impl<'a, N, O> Iterator for Merged<'a, N, O>
where
    N: Iterator<Item = Row<'a>>,
    O: Iterator<Item = (&'a Arc<str>, Option<(&'a Bytes, Revision)>)>,
{
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let is_older = match (self.now.peek(), self.older.peek()) {
                (Some((now, _)), Some((older, _))) => older <= now,
                (None, older) => older.is_some(),
                (Some(_), None) => false,
            };
            if !is_older {
                return self.now.next();
            }
            let (key, held) = self.older.next()?;
            self.now.next_if(|(now, _)| *now == key);
            if let Some(held) = held {
                return Some((key, held));
            }
        }
    }
}
