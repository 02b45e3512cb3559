//! What watchers are told.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{bail, ensure};
use mainstay_e2e::api::Connection;
use serde_json::Value;

use super::client::known;
use super::kind::Kind;
use super::object::State;
use super::step::NEW_VERSION;

/// A write, as the model knows it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) name: String,
    pub(super) before: Option<State>,
    pub(super) after: Option<State>,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) what: String,
    pub(super) name: String,
    pub(super) state: State,
}

/// What a watcher wants to see.
#[derive(Clone, Copy, Debug)]
pub(super) enum Selector {
    All,
    Red,
    NotBlue,
    Sized,
}

/// A watcher.
pub(super) struct Watcher {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) selector: Selector,
    /// The version that it goes on from.
    pub(super) from: u64,
    /// After how many events it asks anew, from where it is; 0 for never.
    pub(super) patience: usize,
    /// The name that its last event is about.
    pub(super) last: String,
}

// === impl Selector ===

impl Selector {
    pub(super) const EACH: [Self; 4] = [Self::All, Self::Red, Self::NotBlue, Self::Sized];

    /// As a part of a query, encoded.
    pub(super) fn query(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Red => "&labelSelector=color%3Dred",
            Self::NotBlue => "&labelSelector=color%21%3Dblue",
            Self::Sized => "&labelSelector=size",
        }
    }

    pub(super) fn picks(self, state: &State) -> bool {
        match self {
            Self::All => true,
            Self::Red => state.label("color") == Some("red"),
            Self::NotBlue => state.label("color") != Some("blue"),
            Self::Sized => state.label("size").is_some(),
        }
    }

    /// What is told of a change.
    fn event(self, change: &Change) -> Option<Event> {
        let picked = |state: &Option<State>| state.clone().filter(|state| self.picks(state));
        let (what, state) = match (picked(&change.before), picked(&change.after)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            // How it was, at the version at which it is not that any more.
            (Some(before), None) => {
                let version = change.after.as_ref().map_or(NEW_VERSION, |after| after.version);
                ("DELETED", State { version, ..before })
            }
        };
        Some(Event { what: what.to_owned(), name: change.name.clone(), state })
    }
}

// === impl Watcher ===

impl Watcher {
    /// All that it is told.
    pub(super) async fn events(&self, connection: Arc<Connection>) -> anyhow::Result<Vec<Event>> {
        let mut events: Vec<Event> = Vec::new();
        let mut from = self.from;
        loop {
            let collection = self.kind.collection(&self.namespace);
            let query = self.selector.query();
            let path = format!("{collection}?watch=true&resourceVersion={from}{query}");
            let mut watch = connection.watch(&path).await?;
            let mut told = 0;
            while let Some(line) = watch.next().await? {
                let event: Value = serde_json::from_slice(&line)?;
                ensure!(event["type"] != "ERROR", "GET {path}: {event}");
                let event = Event::read(self.kind, &event);
                ensure!(event.state.version > from, "{path}: after {from} comes {event:#?}");
                from = event.state.version;
                // What others put there, such as the certificates of the cluster.
                if !event.name.starts_with("m-") {
                    continue;
                }
                let is_last = event.name == self.last;
                events.push(event);
                told += 1;
                if is_last {
                    return Ok(events);
                }
                if told == self.patience {
                    break;
                }
            }
        }
    }

    /// Checks what it was told against what was done since it began.
    pub(super) fn check(&self, changes: &[Change], events: &[Event]) -> anyhow::Result<()> {
        let expected: Vec<Event> =
            changes.iter().filter_map(|change| self.selector.event(change)).collect();
        for (at, event) in expected.iter().enumerate() {
            let told = events.get(at);
            let same = told.is_some_and(|told| {
                let state = known(&event.state, &told.state);
                *told == Event { state, ..event.clone() }
            });
            if !same {
                let mut text = String::new();
                for (expected, told) in expected.iter().zip(events).take(at) {
                    let version = told.state.version;
                    writeln!(text, "{} {} {version}", expected.what, expected.name)?;
                }
                let (kind, selector) = (self.kind.kind, self.selector);
                bail!(
                    "a watcher of {kind} {selector:?} from {} was told\n{text}\
                     and then {told:#?} instead of {event:#?}",
                    self.from,
                );
            }
        }
        ensure!(events.len() == expected.len(), "too much: {:#?}", &events[expected.len()..]);
        Ok(())
    }
}

impl Event {
    fn read(kind: &Kind, event: &Value) -> Self {
        let object = &event["object"];
        Self {
            what: event["type"].as_str().unwrap_or_default().to_owned(),
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            state: State::read(kind, object),
        }
    }
}
