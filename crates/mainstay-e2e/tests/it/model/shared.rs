//! A namespace that all clients write to: each answer has to follow from some state between the
//! request and the answer, and each write is somebody's.
//!
//! What watchers are told is the one order of all writes, whose versions tell where an answer stands
//! in it. Source of the idea: Herlihy and Wing, "Linearizability", 1990.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::{bail, ensure};
use mainstay_e2e::api::Connection;

use super::client::{Said, agrees, ask, known};
use super::generate::{self, Known};
use super::kind::KINDS;
use super::object::State;
use super::operation::{Action, Operation};
use super::own::LAST;
use super::step::{Answer, NEW_VERSION, Refusal, step};
use super::watch::Event;
use crate::chance::Chance;

/// How many names there are of each kind.
const NAMES: u64 = 3;
/// How often somebody else may be faster before a server gives a patch up.
const RETRIES: usize = 4;

/// What was asked and answered, by all clients.
#[derive(Default)]
pub(super) struct Log(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// Counts requests and answers.
    time: usize,
    /// The newest version that was told.
    newest: u64,
    calls: Vec<Call>,
}

/// A request and its answer.
struct Call {
    operation: Operation,
    answer: Answer,
    /// When it was asked and answered.
    from: usize,
    until: usize,
    /// The newest version that anybody had been told of before.
    known: u64,
}

/// A client of the shared namespace.
pub(super) struct Shared {
    pub(super) connection: Arc<Connection>,
    pub(super) namespace: String,
    pub(super) log: Arc<Log>,
    pub(super) chance: Chance,
    pub(super) known: BTreeMap<(&'static str, String), Known>,
}

/// The states of a name, each with the version from which on it was that.
type States = Vec<(u64, Option<State>)>;

// === impl Shared ===

impl Shared {
    /// Does something.
    pub(super) async fn act(&mut self) -> anyhow::Result<()> {
        let kind = &KINDS[self.chance.index(KINDS.len())];
        let name = format!("m-{}", self.chance.below(NAMES));
        let known = self.known.entry((kind.kind, name.clone())).or_default();
        let operation = generate::operation(&mut self.chance, kind, &name, known);
        let (from, newest) = self.log.begin();
        let said = ask(&self.connection, &self.namespace, &operation).await?;
        said.remember(&operation, known);
        self.log.end(operation, said, from, newest);
        Ok(())
    }
}

// === impl Log ===

impl Log {
    fn begin(&self) -> (usize, u64) {
        let mut entries = self.0.lock().unwrap();
        entries.time += 1;
        (entries.time, entries.newest)
    }

    fn end(&self, operation: Operation, said: Said, from: usize, known: u64) {
        let mut entries = self.0.lock().unwrap();
        entries.time += 1;
        let until = entries.time;
        if let Some(state) = said.object() {
            entries.newest = entries.newest.max(state.version);
        }
        entries.calls.push(Call { operation, answer: said.answer, from, until, known });
    }

    /// Holds all answers against what watchers of each kind were told, in the order of [`KINDS`].
    ///
    /// # Errors
    ///
    /// When an answer follows from no state of its time, or a write is nobody's or of two.
    pub(super) fn check(&self, told: &[Vec<Event>], is_reference: bool) -> anyhow::Result<()> {
        let entries = self.0.lock().unwrap();
        let mut states: BTreeMap<(&str, &str), States> = BTreeMap::new();
        let mut unclaimed = BTreeMap::new();
        for (kind, events) in KINDS.iter().zip(told) {
            for event in events {
                let version = event.state.version;
                let after = (event.what != "DELETED").then(|| event.state.clone());
                let states = states.entry((kind.kind, &event.name)).or_insert(vec![(0, None)]);
                states.push((version, after));
                unclaimed.insert(version, (kind, event));
            }
        }
        let limits = entries.limits();
        let nothing = vec![(0, None)];
        let mut in_steps = BTreeSet::new();
        for (call, limit) in entries.calls.iter().zip(limits) {
            // Not all deletes tell there which version they have written.
            let limit = if is_reference { u64::MAX } else { limit };
            let key = (call.operation.kind.kind, call.operation.name.as_str());
            let states = states.get(&key).unwrap_or(&nothing);
            let free = |writes: &Vec<u64>| writes.iter().all(|it| unclaimed.contains_key(it));
            let places = |alone| {
                (0..states.len()).filter_map(move |at| call.place(states, at, limit, alone))
            };
            let place = places(true).find(free).or_else(|| places(false).find(free));
            let Some(writes) = place else {
                if call.gave_up(states, limit) || is_reference && call.is_late(states) {
                    continue;
                }
                // What deletes does so in several steps there, between which others may write.
                if is_reference && call.may_delete() {
                    in_steps.insert(key);
                    continue;
                }
                let before = states.iter().filter(|(version, _)| *version < limit);
                let late = before.clone().filter(|(version, _)| *version > call.known).count();
                let from = before.clone().count().saturating_sub(late + 1);
                let states: Vec<_> = before.skip(from).collect();
                bail!(
                    "{:?}\nis answered {:?}\nwhich follows from none of {states:?}",
                    call.operation,
                    call.answer,
                );
            };
            for version in writes {
                unclaimed.remove(&version);
            }
        }
        unclaimed.retain(|_, (kind, event)| {
            event.name != LAST && !in_steps.contains(&(kind.kind, event.name.as_str()))
        });
        ensure!(unclaimed.is_empty(), "nobody asked for {unclaimed:#?}");
        Ok(())
    }
}

impl Entries {
    /// For each call, the oldest version that was written by a call that began after its answer.
    fn limits(&self) -> Vec<u64> {
        // A version may be told by several, of which one has written it; but for what is marked and
        // taken away by one call, which tells the second version only.
        let mut began: BTreeMap<u64, usize> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| call.may_write()) {
            if let Answer::Object(state, _) = &call.answer
                && state.ending != Some(0)
            {
                let first = began.entry(state.version).or_insert(call.from);
                *first = call.from.min(*first);
            }
        }
        let mut began: Vec<(usize, u64)> =
            began.into_iter().map(|(version, from)| (from, version)).collect();
        began.sort_unstable();
        let mut oldest = u64::MAX;
        for (_, version) in began.iter_mut().rev() {
            oldest = oldest.min(*version);
            *version = oldest;
        }
        let limit = |call: &Call| {
            let at = began.partition_point(|(from, _)| *from <= call.until);
            began.get(at).map_or(u64::MAX, |(_, version)| *version)
        };
        self.calls.iter().map(limit).collect()
    }
}

// === impl Call ===

impl Call {
    fn may_write(&self) -> bool {
        !self.operation.dry_run && !matches!(self.operation.action, Action::Get)
    }

    fn may_delete(&self) -> bool {
        let is_over = match &self.answer {
            Answer::Object(state, _) => state.ending == Some(0) && !state.has_finalizers(),
            Answer::Gone(_) | Answer::Refused(_) => false,
        };
        is_over || matches!(self.operation.action, Action::Delete(_))
    }

    /// The versions that it wrote if it met the state at this place; `None` if it cannot have. What it
    /// wanted gone may have been taken away by another one that wanted the same, unless it was `alone`:
    /// a server marks a pod that is to go at once before it goes.
    fn place(&self, states: &States, at: usize, limit: u64, alone: bool) -> Option<Vec<u64>> {
        let (since, before) = &states[at];
        let until = states.get(at + 1).map_or(u64::MAX, |(version, _)| *version);
        if *since >= limit || until <= self.known {
            return None;
        }
        let outcome = step(before.as_ref(), &self.operation);
        // What has the name is looked at when it is known that something has it.
        if !agrees(&of_any(&self.answer), &of_any(&outcome.answer)) {
            return None;
        }
        let mut writes = Vec::new();
        for (write, (version, after)) in outcome.writes.iter().zip(states.get(at + 1..)?) {
            if *version <= self.known || *version >= limit {
                return None;
            }
            match (write, after) {
                (Some(write), Some(after)) if known(write, after) == *after => {
                    writes.push(*version);
                }
                (None, None) if alone => writes.push(*version),
                (None, None) => return Some(writes),
                _ => return None,
            }
        }
        if let (Answer::Object(said, _), Answer::Object(expected, _)) =
            (&self.answer, &outcome.answer)
            && expected.version == NEW_VERSION
            && writes.last().is_some_and(|version| *version != said.version)
        {
            return None;
        }
        (writes.len() == outcome.writes.len()).then_some(writes)
    }

    /// Whether it was refused since a version is not there any more, when it was the object that was
    /// not there any more. That is told by a cache, and as true.
    fn is_late(&self, states: &States) -> bool {
        let mut before = states.iter().filter_map(|(_, state)| state.as_ref());
        before.any(|state| agrees(&self.answer, &step(Some(state), &self.operation).answer))
            && self.answer == Answer::Refused(Refusal::modified(&self.operation))
    }

    /// Whether the server may have given up, since others were faster again and again.
    fn gave_up(&self, states: &States, limit: u64) -> bool {
        let Answer::Refused(refusal) = &self.answer else { return false };
        let meanwhile =
            states.iter().filter(|(version, _)| *version > self.known && *version < limit);
        let retries = !matches!(self.operation.action, Action::Get | Action::Create(_));
        retries && refusal.code == 409 && meanwhile.count() >= RETRIES
    }
}

fn of_any(answer: &Answer) -> Answer {
    match answer.clone() {
        Answer::Refused(refusal) => Answer::Refused(refusal.of_any()),
        other => other,
    }
}
