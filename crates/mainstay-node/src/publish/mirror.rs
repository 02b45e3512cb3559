//! The mirror pods of the API: they are made to show what the board says. Of its own pods that run
//! here it is told the status, and that they are gone.
//!
//! # Flow
//!
//! One task looks at every name that has a static pod or a pod of the API, asks
//! [`mainstay_plan::mirror::next`] or [`mainstay_plan::api_pod::next`], carries out what is to be done, one request at a time for each
//! name, and looks again. It wakes when the board changes, when the API's pods or the Node do, and
//! when something that failed is due.
//!
//! # Guarantees
//!
//! - It never waits for a pod, and no pod ever waits for it.
//! - Nothing is deleted before the agent knows what should run and the API has said what it holds.
//! - A failure concerns one name, is logged once, and is tried again more and more rarely, or at
//!   once when something about it changes.

mod perform;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use mainstay_plan::api_pod;
use mainstay_plan::mirror::{self, Held, Static, Wanted};
use mainstay_plan::pod::{PodKey, SeenPod, SourceKind};
use mainstay_pod::FullName;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::{ApiPods, Calls, Entry, Trouble};
use super::{Board, EventKind, Events, Manifest, PodReport, about};
use crate::sources::api::{ApiGoals, Verdict};
use perform::{Patched, Work};

/// How many requests are under way at the same time, at the most.
const ABREAST: usize = 16;

/// How long nothing is told of a pod that only begins. Most run by then, and are told of once instead of three times;
/// and what is told takes no processor's time away from what starts.
const BEGINNING: Duration = Duration::from_millis(30);

/// What mirrors are kept with.
pub(crate) struct Mirrors {
    pub(crate) calls: Calls,
    pub(crate) pods: Arc<ApiPods>,
    pub(crate) node_name: String,
    /// The UID of the Node object, when there is one.
    pub(crate) node: watch::Receiver<Option<String>>,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    /// What is to become of the API's own pods of this node.
    pub(crate) goals: watch::Receiver<Option<Arc<ApiGoals>>>,
    pub(crate) events: Events,
    /// Notified when a refusal may come from the Node being another one.
    pub(crate) doubt: Arc<Notify>,
}

/// What is remembered of one name.
#[derive(Default)]
struct Memory {
    /// What was there when nothing was to be done.
    settled: Option<Looked>,
    failure: Option<Failure>,
    /// The last patch that was carried out, and the version that came of it.
    patched: Option<Patched>,
    /// The pod that has the name, as far as it was told of.
    taken_by: Option<String>,
    /// The version that begins, and until when nothing is told of it.
    begins: Option<(String, Instant)>,
}

/// What a decision was made from.
#[derive(Clone, Default)]
struct Looked {
    report: Option<Arc<PodReport>>,
    leaving: Option<Arc<SeenPod>>,
    held: Option<Arc<Entry>>,
    node: Option<String>,
    awaited: bool,
    /// Of a pod of the API's own.
    own: Option<Own>,
}

/// What is known of a pod of the API's own.
#[derive(Clone)]
enum Own {
    /// It is, or was, run here.
    Runs(Arc<PodReport>),
    /// It is not run here.
    Refused(Arc<PodStatus>),
}

/// What failed, and when it is tried again.
struct Failure {
    trouble: Trouble,
    until: Instant,
    /// The version of the pod, the pod of the API and the Node that it was about.
    about: About,
}

type About = (Option<String>, Option<(String, Option<u64>)>, Option<String>);

impl Mirrors {
    /// Keeps them, for ever.
    pub(crate) async fn run(mut self) {
        let mut changed = self.pods.changed();
        let mut reachable = self.pods.reachable();
        let mut memories: BTreeMap<FullName, Memory> = BTreeMap::new();
        let mut busy: BTreeSet<FullName> = BTreeSet::new();
        let mut tasks: JoinSet<(FullName, Work)> = JoinSet::new();
        loop {
            let board = self.board.borrow_and_update().clone();
            let node = self.node.borrow_and_update().clone();
            let goals = self.goals.borrow_and_update().clone();
            changed.mark_unchanged();
            let wake = match self.pods.all() {
                Some(held) => {
                    let goals = goals.as_deref();
                    let look = Look { board: &board, held: &held, node: node.as_ref(), goals };
                    self.see_to(&look, &mut memories, &mut busy, &mut tasks)
                }
                None => None,
            };
            drop(board);
            let sleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Cancel-safe per docs on `watch::Receiver::changed`; the same holds below.
                told = self.board.changed() => {
                    if told.is_err() {
                        return;
                    }
                }
                told = self.node.changed() => {
                    if told.is_err() {
                        return;
                    }
                }
                told = self.goals.changed() => {
                    if told.is_err() {
                        return;
                    }
                }
                // The sender is ours.
                _ = changed.changed() => {}
                _ = reachable.changed() => {
                    if *reachable.borrow_and_update() {
                        let failures = memories.values_mut().filter_map(|it| it.failure.as_mut());
                        failures.for_each(|failure| failure.until = Instant::now());
                    }
                }
                // Cancel-safe per docs on `JoinSet::join_next`.
                Some(ended) = tasks.join_next() => match ended {
                    Ok((name, work)) => {
                        busy.remove(&name);
                        let memory = memories.entry(name.clone()).or_default();
                        if let Some((report, uid)) = &work.taken {
                            self.tell_taken(report, uid, memory);
                        }
                        if work.refused() {
                            self.doubt.notify_one();
                        }
                        take_in(&name, work, memory);
                    }
                    Err(error) => {
                        // Whose it was is not known; nothing of it is lost.
                        tracing::error!(%error, "a request for a mirror pod panicked");
                        tasks.shutdown().await;
                        busy.clear();
                    }
                },
                () = sleep => {}
            }
        }
    }

    /// Looks at every name and begins what is to be done. Says when to look again.
    fn see_to(
        &self,
        look: &Look<'_>,
        memories: &mut BTreeMap<FullName, Memory>,
        busy: &mut BTreeSet<FullName>,
        tasks: &mut JoinSet<(FullName, Work)>,
    ) -> Option<Instant> {
        let names = look.names();
        memories.retain(|name, _| names.contains_key(name) || busy.contains(name));
        let mut wake: Option<Instant> = None;
        for (name, key) in names {
            if tasks.len() >= ABREAST {
                // The next one that ends looks again.
                return wake;
            }
            if busy.contains(&name) {
                continue;
            }
            let memory = memories.entry(name.clone()).or_default();
            let looked = look.at(&name, key.as_ref());
            if memory.settled.as_ref().is_some_and(|settled| settled.is_same(&looked)) {
                continue;
            }
            memory.settled = None;
            let now = Instant::now();
            if let Some(failure) = &memory.failure {
                if failure.about != looked.about() {
                    memory.failure = None;
                } else if failure.until > now {
                    wake = Some(wake.map_or(failure.until, |wake| wake.min(failure.until)));
                    continue;
                }
            }
            if let Some(until) = memory.waits_for(looked.beginning(), now) {
                wake = Some(wake.map_or(until, |wake| wake.min(until)));
                continue;
            }
            if let Some(held) = &looked.held {
                match (&looked.report, &held.held) {
                    (Some(report), Held::Foreign(_)) => {
                        self.tell_taken(report, &held.uid, memory);
                    }
                    (_, Held::Mirror(_)) => memory.taken_by = None,
                    (None, Held::Foreign(_)) => {}
                }
            }
            match decide(&looked).filter(|action| !memory.was_in_vain(action, &looked)) {
                None => {
                    memory.failure = None;
                    memory.settled = Some(looked);
                }
                Some(action) => {
                    let request = perform::Request {
                        calls: self.calls.clone(),
                        pods: self.pods.clone(),
                        node_name: self.node_name.clone(),
                        name: name.clone(),
                        action,
                        looked,
                    };
                    busy.insert(name.clone());
                    tasks.spawn(async move { (name, request.perform().await) });
                }
            }
        }
        wake
    }

    /// A normal pod has a static pod's name: the static pod runs, and people have to know why they
    /// do not see it.
    fn tell_taken(&self, report: &PodReport, uid: &str, memory: &mut Memory) {
        if memory.taken_by.as_deref() != Some(uid) {
            let (about, kind) = (about(&report.pod, None), EventKind::Warning);
            let message = taken_by(&report.key, uid);
            self.events.announce(&report.key, about, kind, "FailedMirror", message);
            memory.taken_by = Some(uid.to_owned());
        }
    }
}

/// All that decisions are made from.
struct Look<'a> {
    board: &'a Board,
    held: &'a BTreeMap<FullName, Arc<Entry>>,
    node: Option<&'a String>,
    goals: Option<&'a ApiGoals>,
}

impl Look<'_> {
    /// Every name that has a static pod, or a pod of the API.
    fn names(&self) -> BTreeMap<FullName, Option<PodKey>> {
        let mut names: BTreeMap<FullName, Option<PodKey>> =
            self.held.keys().map(|name| (name.clone(), None)).collect();
        for key in self.board.pods.keys().filter(|key| key.source.is_static()) {
            let name = FullName { name: key.name.clone(), namespace: key.namespace.clone() };
            let known = names.entry(name).or_default();
            // Of two sources the first one is shown.
            if known.is_none() {
                *known = Some(key.clone());
            }
        }
        names
    }

    fn at(&self, name: &FullName, key: Option<&PodKey>) -> Looked {
        let entry = key.and_then(|key| self.board.pods.get(key));
        let awaited = entry.is_none()
            && [SourceKind::File, SourceKind::Http].into_iter().any(|source| {
                let (namespace, name) = (name.namespace.clone(), name.name.clone());
                self.board.is_awaited(&PodKey { source, namespace, name })
            });
        let held = self.held.get(name).cloned();
        Looked {
            own: held.as_ref().and_then(|held| self.own(name, held)),
            report: entry.and_then(|entry| entry.report.clone()),
            leaving: entry.and_then(|entry| entry.leaving.clone()),
            held,
            node: self.node.cloned(),
            awaited,
        }
    }

    /// What is known of a pod of the API's own.
    fn own(&self, name: &FullName, held: &Entry) -> Option<Own> {
        held.own()?;
        let (namespace, name) = (name.namespace.clone(), name.name.clone());
        let key = PodKey { source: SourceKind::Api, namespace, name };
        match self.goals?.get(&key)? {
            Verdict::Mirror(_) => None,
            Verdict::Refused { uid, status } => {
                (*uid == held.uid).then(|| Own::Refused(status.clone()))
            }
            Verdict::Run(..) | Verdict::Stop(..) => {
                let report = self.board.pods.get(&key)?.report.as_ref()?;
                (report.pod.uid() == held.uid).then(|| Own::Runs(report.clone()))
            }
        }
    }
}

impl Looked {
    fn is_same(&self, other: &Self) -> bool {
        fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            }
        }
        same(self.report.as_ref(), other.report.as_ref())
            && same(self.leaving.as_ref(), other.leaving.as_ref())
            && same(self.held.as_ref(), other.held.as_ref())
            && self.node == other.node
            && self.awaited == other.awaited
            && match (&self.own, &other.own) {
                (Some(Own::Runs(a)), Some(Own::Runs(b))) => Arc::ptr_eq(a, b),
                (Some(Own::Refused(a)), Some(Own::Refused(b))) => a == b,
                (None, None) => true,
                _ => false,
            }
    }

    /// The version of the pod, if nothing of it has run yet.
    fn beginning(&self) -> Option<&str> {
        let own = self.own.as_ref().and_then(|own| match own {
            Own::Runs(report) => Some(report),
            Own::Refused(_) => None,
        });
        let report = own.or(self.report.as_ref()).filter(|_| self.leaving.is_none())?;
        (report.status.phase.as_deref() == Some("Pending")).then(|| report.pod.uid())
    }

    fn about(&self) -> About {
        let uid = self.report.as_ref().map(|report| report.pod.uid().to_owned());
        let held = self.held.as_ref().map(|held| (held.uid.clone(), held.version));
        (uid, held, self.node.clone())
    }
}

impl Memory {
    /// Until when a pod that begins, whose version this is, may run before it is told of.
    fn waits_for(&mut self, beginning: Option<&str>, now: Instant) -> Option<Instant> {
        let Some(uid) = beginning else {
            self.begins = None;
            return None;
        };
        let until = match &self.begins {
            Some((known, until)) if known == uid => *until,
            _ => self.begins.insert((uid.to_owned(), now + BEGINNING)).1,
        };
        (until > now).then_some(until)
    }

    /// Whether an action is the same patch that was carried out already, without the effect that
    /// was to be expected: a server that keeps a field as it is would be asked for ever.
    fn was_in_vain(&self, action: &mirror::Action, looked: &Looked) -> bool {
        let (mirror::Action::PatchStatus { patch } | mirror::Action::AddContainers { patch }) =
            action
        else {
            return false;
        };
        let version = looked.held.as_ref().and_then(|held| held.version);
        self.patched.as_ref().is_some_and(|it| it.is(patch, version))
    }
}

/// The next thing to do about one name.
fn decide(looked: &Looked) -> Option<mirror::Action> {
    if let Some(pod) = looked.held.as_ref().and_then(|held| held.own()) {
        let known = match looked.own.as_ref()? {
            Own::Runs(report) => api_pod::Known {
                status: &report.status,
                generation: report.pod.metadata().generation,
                ended: report.ended,
            },
            Own::Refused(status) => {
                api_pod::Known { status, generation: pod.metadata.generation, ended: true }
            }
        };
        return api_pod::next(&known, pod);
    }
    let manifest = looked.report.as_ref().and_then(|report| report.manifest.as_ref());
    let invalid = manifest.and_then(Manifest::why_kept);
    let leaving = looked.leaving.as_ref().map(|seen| mirror::endings(seen, None));
    let known = match (&leaving, &looked.report) {
        _ if looked.awaited => Some(Static::Awaited),
        (Some(ending), _) => Some(Static::Leaving { ending }),
        (None, Some(report)) => Some(Static::Wanted(Wanted {
            pod: &report.pod,
            status: &report.status,
            invalid: invalid.as_deref(),
            ending: &report.ending,
        })),
        (None, None) => None,
    };
    let held = looked.held.as_ref().map(|entry| &entry.held);
    mirror::next(known.as_ref(), held, looked.node.as_deref(), Timestamp::now())
}

fn taken_by(key: &PodKey, uid: &str) -> String {
    let (namespace, name) = (&key.namespace, &key.name);
    format!(
        "the API has another pod of this name (uid {uid}), so the static pod runs without a mirror; \
         rename one of them, or `kubectl delete pod {name} -n {namespace}`"
    )
}

fn take_in(name: &FullName, work: Work, memory: &mut Memory) {
    let error = match work.result {
        Ok(patched) => {
            memory.failure = None;
            memory.patched = patched.or(memory.patched.take());
            return;
        }
        Err(error) => error,
    };
    let about = work.about;
    let mut trouble = Trouble::default();
    if let Some(before) = memory.failure.take() {
        trouble = before.trouble;
        if before.about != about {
            trouble.recount();
        }
    }
    let pod = format_args!("{}/{}", name.namespace, name.name);
    if trouble.is_news(&error) && !work.stale {
        tracing::warn!(%pod, error = error.message, "cannot show a pod to the API");
    } else {
        tracing::debug!(%pod, error = error.message, "cannot show a pod to the API");
    }
    let until = Instant::now() + trouble.count(error.longest());
    memory.failure = Some(Failure { trouble, until, about });
}

#[cfg(test)]
mod tests;
