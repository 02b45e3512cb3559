//! A namespace that only one client writes to: every answer is known before.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{bail, ensure};
use hyper::Method;
use mainstay_e2e::api::Connection;
use serde_json::Value;
use tokio::task::JoinSet;

use super::client::{agrees, ask, differences, known};
use super::generate::{self, Known};
use super::kind::{KINDS, Kind};
use super::object::State;
use super::operation::{Action, Delete, Operation};
use super::step::{Answer, NEW_VERSION, step};
use super::watch::{Change, Event, Selector, Watcher};
use crate::chance::Chance;

/// How many names there are of each kind.
const NAMES: u64 = 3;
/// The object that ends what watchers are told.
pub(super) const LAST: &str = "m-end";
/// How many watchers a client has.
const WATCHERS: usize = 6;

type Key = (&'static str, String);

/// A client and its namespace, as the model has them.
pub(super) struct Own {
    connection: Arc<Connection>,
    namespace: String,
    chance: Chance,
    states: BTreeMap<Key, State>,
    known: BTreeMap<Key, Known>,
    /// By kind.
    changes: BTreeMap<&'static str, Vec<Change>>,
    /// The newest version that it knows of.
    version: u64,
    /// With the number of changes before they began.
    watchers: JoinSet<anyhow::Result<(Watcher, usize, Vec<Event>)>>,
}

impl Own {
    pub(super) fn new(connection: Arc<Connection>, namespace: String, chance: Chance) -> Self {
        Self {
            connection,
            namespace,
            chance,
            states: BTreeMap::new(),
            known: BTreeMap::new(),
            changes: BTreeMap::new(),
            version: 0,
            watchers: JoinSet::new(),
        }
    }

    /// Does something.
    ///
    /// # Errors
    ///
    /// When the answer is not what the model says.
    pub(super) async fn act(&mut self) -> anyhow::Result<()> {
        let kind = &KINDS[self.chance.index(KINDS.len())];
        match self.chance.below(100) {
            0..4 => {
                let selector = self.chance.pick(&Selector::EACH);
                self.list(kind, selector).await
            }
            4..6 => self.delete_collection(kind).await,
            6..9 if self.watchers.len() < WATCHERS => {
                self.list(kind, Selector::All).await?;
                self.watch(kind);
                Ok(())
            }
            _ => {
                let name = format!("m-{}", self.chance.below(NAMES));
                let known = self.known.entry((kind.kind, name.clone())).or_default();
                let operation = generate::operation(&mut self.chance, kind, &name, known);
                self.carry_out(&operation).await
            }
        }
    }

    async fn carry_out(&mut self, operation: &Operation) -> anyhow::Result<()> {
        let key = (operation.kind.kind, operation.name.clone());
        let before = self.states.get(&key).cloned();
        let outcome = step(before.as_ref(), operation);
        let said = ask(&self.connection, &self.namespace, operation).await?;
        let newer = match (&outcome.answer, said.object()) {
            (Answer::Object(expected, _), Some(state)) if expected.version == NEW_VERSION => {
                state.version > self.version
            }
            _ => true,
        };
        if !newer || !agrees(&said.answer, &outcome.answer) {
            let request = operation.request(&self.namespace);
            let body = String::from_utf8_lossy(&request.body).into_owned();
            bail!(
                "{} {}\n{} {body}\nwith {before:?}\nanswers {}\nDifferences to the model:\n{}",
                request.method,
                request.path,
                request.content_type,
                said.body,
                differences(&said.answer, &outcome.answer),
            );
        }
        said.remember(operation, self.known.entry(key.clone()).or_default());
        let last = outcome.writes.len();
        for (at, write) in outcome.writes.into_iter().enumerate() {
            let told = said.object().filter(|_| at + 1 == last);
            self.write(
                &key,
                write.map(|state| told.map_or(state.clone(), |told| known(&state, told))),
            );
        }
        if let Some(state) = said.object() {
            self.version = self.version.max(state.version);
        }
        Ok(())
    }

    fn write(&mut self, key: &Key, after: Option<State>) {
        let before = match &after {
            Some(state) => self.states.insert(key.clone(), state.clone()),
            None => self.states.remove(key),
        };
        let change = Change { name: key.1.clone(), before, after };
        self.changes.entry(key.0).or_default().push(change);
    }

    /// Lists, in pieces, and compares.
    async fn list(&mut self, kind: &'static Kind, selector: Selector) -> anyhow::Result<()> {
        let limit = self.chance.below(3);
        let collection = kind.collection(&self.namespace);
        let first = format!("{collection}?limit={limit}{}", selector.query());
        let mut found: Vec<(String, State)> = Vec::new();
        let mut path = first.clone();
        let mut version = String::new();
        loop {
            let body = self.connection.done(Method::GET, &path, "", Vec::new()).await?;
            let list: Value = serde_json::from_slice(&body)?;
            let items = list["items"].as_array().into_iter().flatten();
            let name =
                |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let before = found.len();
            found.extend(items.map(|item| (name(item), State::read(kind, item))));
            let count = u64::try_from(found.len() - before)?;
            ensure!(limit == 0 || count <= limit, "GET {path} answers {count} objects");
            let meta = &list["metadata"];
            let at = meta["resourceVersion"].as_str().unwrap_or_default();
            ensure!(version.is_empty() || version == at, "GET {path} is of another version");
            at.clone_into(&mut version);
            match meta["continue"].as_str().unwrap_or_default() {
                "" => break,
                more => path = format!("{first}&continue={more}"),
            }
        }
        found.retain(|(name, _)| name.starts_with("m-"));
        let version: u64 = version.parse()?;
        ensure!(version >= self.version, "GET {first}: {version} is older than {}", self.version);
        self.version = version;
        self.compare(kind, selector, &first, found)
    }

    fn compare(
        &mut self,
        kind: &'static Kind,
        selector: Selector,
        path: &str,
        found: Vec<(String, State)>,
    ) -> anyhow::Result<()> {
        let states = self
            .states
            .iter_mut()
            .filter(|((of, _), state)| *of == kind.kind && selector.picks(state));
        let mut found = found.into_iter();
        for ((_, name), state) in states {
            let told = found.next();
            // What a collection became has versions that nobody has told of yet.
            let expected = told.as_ref().map(|(_, told)| known(state, told));
            if told.as_ref().map(|told| (&told.0, Some(&told.1))) != Some((name, expected.as_ref()))
            {
                bail!("GET {path} has {told:?} instead of {name} {state:?}");
            }
            *state = expected.unwrap_or_default();
        }
        let more: Vec<_> = found.collect();
        ensure!(more.is_empty(), "GET {path} has {more:?} too");
        Ok(())
    }

    async fn delete_collection(&mut self, kind: &'static Kind) -> anyhow::Result<()> {
        let color = self.chance.pick(&["red", "green", "blue"]);
        let grace = self.chance.pick(&[None, Some(0), Some(500)]);
        let options = Delete { grace, ..Delete::default() };
        let collection = kind.collection(&self.namespace);
        let path = format!("{collection}?labelSelector=color%3D{color}");
        let body = serde_json::to_vec(&options.document(false))?;
        self.connection.done(Method::DELETE, &path, "application/json", body).await?;
        let picked =
            |(of, _): &Key, state: &State| *of == kind.kind && state.label("color") == Some(color);
        let keys = self.states.iter().filter(|(key, state)| picked(key, state));
        for key in keys.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            let operation = Operation {
                kind,
                name: key.1.clone(),
                manager: "",
                dry_run: false,
                action: Action::Delete(options.clone()),
            };
            for write in step(self.states.get(&key), &operation).writes {
                self.write(&key, write);
            }
            if !self.states.contains_key(&key) {
                self.known.entry(key).or_default().missed();
            }
        }
        self.list(kind, Selector::All).await
    }

    /// Watches from the newest version.
    fn watch(&mut self, kind: &'static Kind) {
        let watcher = Watcher {
            kind,
            namespace: self.namespace.clone(),
            selector: self.chance.pick(&Selector::EACH),
            from: self.version,
            patience: usize::try_from(self.chance.below(3) * 7).unwrap_or(0),
            last: LAST.to_owned(),
        };
        let connection = self.connection.clone();
        let changes = self.changes.get(kind.kind).map_or(0, Vec::len);
        self.watchers.spawn(async move {
            let events = watcher.events(connection).await?;
            Ok((watcher, changes, events))
        });
    }

    /// Ends what watchers are told, and checks it.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        for kind in KINDS {
            self.list(kind, Selector::All).await?;
            self.carry_out(&generate::last(kind, LAST)).await?;
        }
        while let Some(told) = self.watchers.join_next().await {
            let (watcher, changes, events) = told??;
            watcher.check(&self.changes[watcher.kind.kind][changes..], &events)?;
        }
        Ok(())
    }
}
