//! The ConfigMaps and Secrets beside manifests, as an API shows them.
//!
//! # Flow
//!
//! Two tasks follow what an API has with this node's label, one task makes that what it should be, with
//! [`mainstay_plan::object_mirror`]: one request at a time. It wakes when files change, when the API's objects or
//! the Node do, and when something that failed is due.
//!
//! # Guarantees
//!
//! - No pod waits for any of it, and none sees it.
//! - Nothing is deleted before it is known what lies on disk.
//! - After a request about a name, nothing more is asked about it before something was heard of it, or failed.
//! - An API that lets nodes have no such objects is told of once, and is asked again rarely.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay_client::{Collection, Partial, Sink};
use mainstay_plan::object_mirror::{self, Action, Held, Mirror};
use mainstay_pod::identity::CONFIG_NODE_LABEL;
use mainstay_pod::{Object, ObjectKind, ObjectName};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::{CallError, CallErrorKind, Calls, Deletion, Trouble};
use super::{EventKind, Events};

/// How long one watch lasts: one that is wedged is found out by then.
const WATCH: Duration = Duration::from_secs(600);

/// How long an API that lets nodes have no such objects is left alone.
const REFUSED: Duration = Duration::from_secs(600);

/// What lies beside manifests.
#[derive(Debug, PartialEq)]
pub(crate) struct StaticObjects {
    /// What was found, and in which file; by what pods know it by.
    pub(crate) found: BTreeMap<ObjectName, (Arc<Object>, PathBuf)>,
    /// Whether there is no more. What may be there and has not been read is shown on.
    pub(crate) is_all: bool,
}

/// What mirrors of objects are kept with.
pub(crate) struct ObjectMirrors {
    pub(crate) calls: Calls,
    pub(crate) node_name: String,
    /// The UID of the Node object, when there is one.
    pub(crate) node: watch::Receiver<Option<String>>,
    /// `None` until the manifests have been looked at.
    pub(crate) objects: watch::Receiver<Option<Arc<StaticObjects>>>,
    pub(crate) events: Events,
}

/// What an API has with the node's label.
#[derive(Default)]
struct Shown {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    held: BTreeMap<ObjectName, Held>,
    /// Which kinds have been listed.
    listed: BTreeSet<ObjectKind>,
    /// What was asked for and nothing has been heard of since.
    asked: BTreeSet<ObjectName>,
}

/// What is remembered of one name.
#[derive(Default)]
struct Memory {
    trouble: Trouble,
    /// When it is tried again.
    until: Option<Instant>,
    /// How often in a row there was something of that name already.
    taken: u32,
}

impl ObjectMirrors {
    /// Starts the tasks.
    pub(crate) fn keep(self, tasks: &mut JoinSet<()>) {
        let shown = Arc::new(Shown::default());
        for kind in [ObjectKind::ConfigMap, ObjectKind::Secret] {
            let (calls, node) = (self.calls.clone(), self.node_name.clone());
            let trouble = Mutex::default();
            let (objects, shown) = (self.objects.clone(), shown.clone());
            let heard = Heard { kind, node, shown, objects, trouble, refused: Notify::new() };
            tasks.spawn(follow(calls, heard));
        }
        tasks.spawn(self.run(shown));
    }

    async fn run(mut self, shown: Arc<Shown>) {
        let mut mirrors: Option<(BTreeMap<ObjectName, Mirror>, bool)> = None;
        let mut stale = true;
        let mut memories: BTreeMap<ObjectName, Memory> = BTreeMap::new();
        let mut told = BTreeSet::new();
        loop {
            if std::mem::take(&mut stale) {
                let objects = self.objects.borrow_and_update().clone();
                mirrors = objects.map(|it| (self.mirrors(&it, &mut told), it.is_all));
            }
            let node = self.node.borrow_and_update().clone();
            let mut wake: Option<Instant> = None;
            if let Some(mirrors) = &mirrors {
                let (mirrors, is_all) = (&mirrors.0, mirrors.1);
                let work = shown.work(mirrors, is_all, (&self.node_name, node.as_deref()));
                memories.retain(|name, _| work.contains_key(name));
                for (name, action) in work {
                    let memory = memories.entry(name.clone()).or_default();
                    if memory.until.is_none_or(|until| until <= Instant::now()) {
                        self.perform(&name, action, memory, &shown).await;
                    }
                    wake = wake.into_iter().chain(memory.until).min();
                }
            }
            let sleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // All are cancel-safe per their docs: what changed is looked at in the next round. The senders
                // live as long as the agent.
                Ok(()) = self.objects.changed() => stale = true,
                Ok(()) = self.node.changed() => {}
                () = shown.changed.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// What the API should show. What cannot be shown is told once.
    fn mirrors(
        &self,
        objects: &StaticObjects,
        told: &mut BTreeSet<String>,
    ) -> BTreeMap<ObjectName, Mirror> {
        let mut why = BTreeSet::new();
        let mut mirrors = BTreeMap::new();
        for (name, (object, path)) in &objects.found {
            match Mirror::new(name, object, &path.to_string_lossy(), &self.node_name) {
                Ok(mirror) => drop(mirrors.insert(mirror.name.clone(), mirror)),
                Err(error) => drop(why.insert(error)),
            }
        }
        why.difference(told).for_each(|why| self.tell(why.clone()));
        *told = why;
        mirrors
    }

    async fn perform(&self, name: &ObjectName, action: Action, memory: &mut Memory, shown: &Shown) {
        let ObjectName { kind, namespace, name: own } = name;
        let path = format!("/api/v1/namespaces/{namespace}/{}", kind.plural());
        // Before it is asked for, since it may be heard of before the answer.
        shown.lock().asked.insert(name.clone());
        let deletes = matches!(action, Action::Delete { .. });
        let answer = match action {
            Action::Create(object) => self.calls.post::<Partial, _>(&path, &object).await.map(drop),
            Action::Delete { uid } => {
                let deletion = Deletion { grace: Some(0), ..Deletion::of(&uid) };
                self.calls.delete(&format!("{path}/{own}"), deletion).await.map(drop)
            }
        };
        let Err(error) = answer else {
            *memory = Memory::default();
            return;
        };
        shown.lock().asked.remove(name);
        memory.until = Some(Instant::now() + memory.trouble.count(error.longest()));
        memory.taken = match error.kind {
            CallErrorKind::AlreadyExists => memory.taken + 1,
            _ => 0,
        };
        // What was known is old; the watch tells.
        let stale = match error.kind {
            // One of ours, the first time.
            CallErrorKind::AlreadyExists => memory.taken == 1,
            CallErrorKind::NotFound | CallErrorKind::Conflict => deletes,
            CallErrorKind::Gone | CallErrorKind::Refused => error.is_of_ending_namespace(),
            // All names say the same, and whoever follows pods says it.
            CallErrorKind::Away => true,
        };
        if !stale && memory.trouble.is_news(&error) {
            self.complain(name, &error);
        }
    }

    fn complain(&self, name: &ObjectName, error: &CallError) {
        match error.kind {
            CallErrorKind::AlreadyExists => self.tell(format!(
                "the API has another {name}, so that what lies beside the manifests is not shown; rename one \
                 of them, or `kubectl delete {} {} -n {}`",
                name.kind.singular(),
                name.name,
                name.namespace,
            )),
            CallErrorKind::NotFound
            | CallErrorKind::Conflict
            | CallErrorKind::Gone
            | CallErrorKind::Refused
            | CallErrorKind::Away => self.tell(format!("cannot show {name}: {}", error.answer)),
        }
    }

    fn tell(&self, message: String) {
        tracing::warn!("{message}");
        self.events.tell_node(EventKind::Warning, "FailedMirror", message);
    }
}

// === impl Shown ===

impl Shown {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was heard.
    fn take_in(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    /// What is to be done now.
    fn work(
        &self,
        mirrors: &BTreeMap<ObjectName, Mirror>,
        is_all: bool,
        node: (&str, Option<&str>),
    ) -> BTreeMap<ObjectName, Action> {
        let state = self.lock();
        let names: BTreeSet<_> = mirrors.keys().chain(state.held.keys()).collect();
        let known = names.into_iter().filter(|it| state.listed.contains(&it.kind));
        let next = |name: &ObjectName| {
            let action = object_mirror::next(mirrors.get(name), state.held.get(name), node)?;
            Some((name.clone(), action))
        };
        let known = known.filter(|name| is_all || mirrors.contains_key(*name));
        known.filter(|name| !state.asked.contains(*name)).filter_map(next).collect()
    }
}

// === following ===

/// Follows the objects of one kind for ever.
async fn follow(calls: Calls, heard: Heard) {
    let collection = Collection {
        path: format!("/api/v1/{}", heard.kind.plural()),
        query: format!("labelSelector={CONFIG_NODE_LABEL}%3D{}", heard.node).replace('/', "%2F"),
        metadata_only: true,
        lasting: WATCH,
    };
    loop {
        tokio::select! {
            () = mainstay_client::follow(&calls, &collection, &heard) => {}
            () = heard.refused.notified() => {}
        }
        tokio::time::sleep(REFUSED).await;
    }
}

/// Takes in what is heard of one kind.
struct Heard {
    kind: ObjectKind,
    node: String,
    shown: Arc<Shown>,
    /// What lies beside manifests.
    objects: watch::Receiver<Option<Arc<StaticObjects>>>,
    trouble: Mutex<Trouble>,
    refused: Notify,
}

impl Heard {
    /// Whether there is something of this kind that an API could show.
    fn is_wanted(&self) -> bool {
        let objects = self.objects.borrow();
        objects.iter().flat_map(|it| it.found.keys()).any(|name| name.kind == self.kind)
    }

    fn of(&self, object: &Partial) -> (ObjectName, Held) {
        let metadata = &object.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        (ObjectName { kind: self.kind, namespace, name }, Held::of(metadata, &self.node))
    }
}

impl Sink<Partial> for Heard {
    fn replace(&self, listed: Vec<Partial>, _version: &str) {
        self.shown.take_in(|state| {
            state.held.retain(|name, _| name.kind != self.kind);
            state.asked.retain(|name| name.kind != self.kind);
            state.held.extend(listed.iter().map(|it| self.of(it)));
            state.listed.insert(self.kind);
        });
    }

    fn heard(&self, object: Partial) {
        let (name, held) = self.of(&object);
        self.shown.take_in(|state| {
            state.asked.remove(&name);
            state.held.insert(name, held);
        });
    }

    fn deleted(&self, object: Partial) {
        let (name, _) = self.of(&object);
        self.shown.take_in(|state| {
            state.asked.remove(&name);
            state.held.remove(&name);
        });
    }

    fn answered(&self, how: Result<(), &CallError>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(error) = how else {
            trouble.unsay();
            return;
        };
        match error.kind {
            CallErrorKind::Refused => {
                // Where there is nothing to show nobody misses it.
                if self.is_wanted() && trouble.is_news(error) {
                    let (kind, error) = (self.kind.as_str(), &error.message);
                    tracing::warn!(
                        kind,
                        error,
                        "the API does not show what lies beside manifests; pods have it nevertheless"
                    );
                }
                self.refused.notify_one();
            }
            // Whoever follows pods says it.
            CallErrorKind::Away
            | CallErrorKind::NotFound
            | CallErrorKind::AlreadyExists
            | CallErrorKind::Conflict
            | CallErrorKind::Gone => {
                tracing::debug!(error = error.message, "cannot follow what lies beside manifests");
            }
        }
    }
}

#[cfg(test)]
mod tests;
