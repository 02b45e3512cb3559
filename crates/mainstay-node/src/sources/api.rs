//! From the pods that an API has for this node to what should run.
//!
//! # Flow
//!
//! One task looks at the API's pods whenever they change. A pod that it has not seen before is
//! judged once: whether this version carries out what it says, and whether the node takes it
//! ([`mainstay_plan::admission`]). What comes of it is told to the supervisor, and to whoever tells
//! the API.
//!
//! # Guarantees
//!
//! - Mirrors are never run. Containers that are added to them are told to the supervisor.
//! - Nothing is told before the API has said which pods there are: one that is away stops nothing.
//! - A pod that runs already, or did under an earlier agent, is not judged again.
//! - A pod that has come to its end is not run again.
//! - A pod has the resources that it was allocated, until others are ([`resize`]).

mod resize;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod as KubernetesPod, PodStatus};
use k8s_openapi::api::node::v1::RuntimeClass;
use mainstay_plan::admission::{Kernel, Rejection, admit, admit_under, without_runtime};
use mainstay_plan::api_pod::is_terminal;
use mainstay_plan::mirror::{Held, Mirror};
use mainstay_plan::pod::{PodKey, SourceKind};
use mainstay_plan::pressure::Pressure;
use mainstay_plan::resize::{Pending, pending_of};
use mainstay_plan::status::is_over;
use mainstay_pod::{FullName, Pod};
use tokio::sync::watch;

use super::merge::key_of;
use crate::publish::api::{ApiPods, CallError, CallErrorKind, Calls, Entry, Trouble};
use crate::publish::{About, Board, EventKind, Events};
use crate::worker::Performer;

/// The longest wait for the Node object, which is registered at the same time.
const LONGEST_WAIT: Duration = Duration::from_millis(800);

/// What the handlers of RuntimeClasses call the one runtime that a node has.
const RUNTIME_HANDLER: &str = "mainstay";

/// What is to become of the API's pods of this node.
pub(crate) type ApiGoals = BTreeMap<PodKey, Verdict>;

/// What is to become of one pod.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// It runs, with the resources that it is allocated; perhaps it is to have others that it has to wait for.
    Run(Arc<Pod>, Option<Arc<Pending>>),
    /// It is ended, with this grace period, and told of.
    Stop(Arc<Pod>, Duration),
    /// It is not run.
    Refused {
        uid: String,
        /// Says why.
        status: Arc<PodStatus>,
    },
    /// It is the mirror of a static pod, to which containers have been added.
    Mirror(Arc<Entry>),
}

impl Verdict {
    /// Of a mirror to which containers have been added.
    pub(crate) fn mirror(&self) -> Option<&Mirror> {
        match self {
            Self::Mirror(entry) => match &entry.held {
                Held::Mirror(mirror) => Some(mirror),
                Held::Foreign(_) => None,
            },
            Self::Run(..) | Self::Stop(..) | Self::Refused { .. } => None,
        }
    }
}

/// What is known of pods from earlier on.
pub(crate) trait Earlier: Send + Sync {
    /// This version of a pod; `None` if it was never accepted here.
    fn find(&self, key: &PodKey, uid: &str) -> Option<Accepted>;
}

/// A pod that was accepted once.
pub(crate) struct Accepted {
    /// As it was accepted, if that is remembered.
    pub(crate) pod: Option<Arc<Pod>>,
    /// Whether its end for good is remembered.
    pub(crate) finished: bool,
}

impl Earlier for Performer {
    fn find(&self, key: &PodKey, uid: &str) -> Option<Accepted> {
        let record = self.record(key).filter(|record| record.pod.uid() == uid);
        match record {
            Some(record) => {
                Some(Accepted { finished: record.finished.is_some(), pod: Some(record.pod) })
            }
            None => self.observer.has(key, uid).then_some(Accepted { pod: None, finished: false }),
        }
    }
}

/// What goals are made with.
pub(crate) struct ApiSource {
    pub(crate) calls: Calls,
    pub(crate) pods: Arc<ApiPods>,
    pub(crate) node_name: String,
    pub(crate) earlier: Arc<dyn Earlier>,
    pub(crate) kernel: Kernel,
    pub(crate) events: Events,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    /// What is short on the machine.
    pub(crate) pressure: watch::Receiver<Pressure>,
    /// Whether it is being shut down.
    pub(crate) shutting_down: watch::Receiver<bool>,
    pub(crate) goals: watch::Sender<Option<Arc<ApiGoals>>>,
}

/// What was decided of a pod when it was seen first.
struct Decided {
    pod: Result<Arc<Pod>, Arc<PodStatus>>,
    /// Whether it has come to its end, other than by this agent.
    over: bool,
    /// With the resources that it is to have, if it is not allocated them.
    wanted: Option<Arc<Pod>>,
    /// Why it waits for them.
    pending: Option<Arc<Pending>>,
}

/// A pod that nothing has been decided of.
struct Newcomer<'a> {
    key: PodKey,
    held: &'a KubernetesPod,
    pod: Arc<Pod>,
}

impl ApiSource {
    /// Makes goals, for ever.
    pub(crate) async fn run(self) {
        let mut changed = self.pods.changed();
        let mut board = self.board.clone();
        // By UID.
        let mut decided: BTreeMap<String, Decided> = BTreeMap::new();
        let mut trouble = Trouble::default();
        loop {
            changed.mark_unchanged();
            board.mark_unchanged();
            let mut wait = None;
            if let Some(all) = self.pods.all() {
                let own = all.values().map(|entry| entry.uid.as_str()).collect::<BTreeSet<_>>();
                decided.retain(|uid, _| own.contains(uid.as_str()));
                let result = match self.decide(&all, &mut decided).await {
                    Ok(()) => self.allocate(&all, &mut decided).await,
                    Err(error) => Err(error),
                };
                match result {
                    Ok(()) => trouble.recount(),
                    Err(error) => {
                        tracing::debug!(error = error.message, "new pods of the API have to wait");
                        wait = Some(trouble.count(LONGEST_WAIT));
                    }
                }
                let goals = self.goals_of(&all, &mut decided);
                self.goals.send_if_modified(|known| {
                    let news = known.as_deref().is_none_or(|known| !is_same(known, &goals));
                    *known = Some(Arc::new(goals));
                    news
                });
            }
            let waits = decided.values().any(|it| it.pending.is_some());
            wait = wait.or(waits.then_some(resize::RETRY));
            let room = async {
                match waits {
                    // The sender outlives the sources.
                    true if board.changed().await.is_ok() => {}
                    _ => std::future::pending().await,
                }
            };
            let sleep = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Cancel-safe per docs on `watch::Receiver::changed`; the sender is ours.
                _ = changed.changed() => {}
                // As above: static pods may have left something, which is to be seen there.
                () = room => {}
                () = sleep => {}
            }
        }
    }

    /// Decides what was not decided before. An error leaves pods undecided that could not be.
    async fn decide(
        &self,
        all: &BTreeMap<FullName, Arc<Entry>>,
        decided: &mut BTreeMap<String, Decided>,
    ) -> Result<(), CallError> {
        let mut newcomers = Vec::new();
        for (name, entry) in all {
            let Some(held) = entry.own() else { continue };
            if let Some(known) = decided.get_mut(&entry.uid) {
                known.update(held);
                continue;
            }
            let key = key_of_name(name);
            let earlier = self.earlier.find(&key, &entry.uid);
            let accepted = earlier.as_ref().and_then(|it| it.pod.clone());
            let (pod, wanted) = match (Pod::from_api((**held).clone()), accepted) {
                (Ok(pod), None) => (Arc::new(pod), None),
                (Ok(pod), Some(accepted)) => resize::allocated(pod, &accepted),
                (Err(_), Some(accepted)) => (accepted, None),
                (Err(unsupported), None) => {
                    let rejection = Rejection::unsupported(&unsupported.to_string());
                    decided.insert(entry.uid.clone(), self.refuse(held, &rejection));
                    continue;
                }
            };
            let leaving = held.metadata.deletion_timestamp.is_some();
            // What an earlier agent saw ending, its ledger knows of.
            let over = is_terminal(held) && !earlier.as_ref().is_some_and(|it| it.finished);
            if earlier.is_some() || over || leaving {
                // What an earlier agent told of it holds until it is judged again.
                let told = wanted.as_ref().and(held.status.as_ref()).and_then(pending_of);
                let known = Decided { pod: Ok(pod), over, wanted, pending: told.map(Arc::new) };
                decided.insert(entry.uid.clone(), known);
            } else {
                newcomers.push(Newcomer { key, held, pod });
            }
        }
        if newcomers.is_empty() {
            return Ok(());
        }
        // Source: `HandlePodAdditions` in `pkg/kubelet/kubelet.go`.
        newcomers.sort_by_key(|it| it.held.metadata.creation_timestamp.as_ref().map(|at| at.0));
        let node: Node = self.calls.get(&format!("/api/v1/nodes/{}", self.node_name)).await?;
        let mut others = self.others(decided);
        for newcomer in newcomers {
            let Newcomer { key, held, pod } = newcomer;
            let no_runtime = self.why_no_runtime(&pod).await?;
            let others_now = others.iter().filter(|(other, _)| **other != key);
            let others_now = others_now.map(|(_, pod)| &**pod);
            let goes_down = *self.shutting_down.borrow();
            let stays_up = if goes_down { Err(Rejection::node_shutdown()) } else { Ok(()) };
            let admitted = admit_under(*self.pressure.borrow(), &pod)
                .and(stays_up)
                .and_then(|()| admit(&pod, &node, &self.kernel, others_now));
            let verdict = match (admitted, no_runtime) {
                (Ok(()), None) => {
                    others.insert(key, pod.clone());
                    Decided::new(Ok(pod))
                }
                (Ok(()), Some(why)) => self.without_runtime(held, &why),
                (Err(rejection), _) => self.refuse(held, &rejection),
            };
            decided.insert(held.metadata.uid.clone().unwrap_or_default(), verdict);
        }
        Ok(())
    }

    /// Why the class of runtime that a pod asks for is not of the one that is here, in the words of a kubelet and of
    /// containerd; `None` if it is. An error is that the API cannot say.
    async fn why_no_runtime(&self, pod: &Pod) -> Result<Option<String>, CallError> {
        let Some(name) = pod.spec().runtime_class_name.as_deref().filter(|it| !it.is_empty())
        else {
            return Ok(None);
        };
        let path = format!("/apis/node.k8s.io/v1/runtimeclasses/{name}");
        match self.calls.get::<RuntimeClass>(&path).await {
            Ok(class) if class.handler == RUNTIME_HANDLER => Ok(None),
            Ok(RuntimeClass { handler, .. }) => {
                Ok(Some(format!("no runtime for {handler:?} is configured")))
            }
            Err(error) if error.kind == CallErrorKind::NotFound => {
                Ok(Some(format!("runtimeclass.node.k8s.io {name:?} not found")))
            }
            Err(error) => Err(error),
        }
    }

    /// A pod that waits for a runtime. Classes do not change, so it is judged once, as all are.
    fn without_runtime(&self, held: &KubernetesPod, why: &str) -> Decided {
        let message = format!("Failed to create pod sandbox: {why}");
        self.tell(held, "FailedCreatePodSandBox", message);
        let spec = held.spec.as_ref();
        let status = spec.map(without_runtime).unwrap_or_default();
        Decided::new(Err(Arc::new(status)))
    }

    /// The pods that take up something of the node.
    fn others(&self, decided: &BTreeMap<String, Decided>) -> BTreeMap<PodKey, Arc<Pod>> {
        let running = decided.values().filter(|it| !it.over).filter_map(|it| it.pod.as_ref().ok());
        let mut others: BTreeMap<PodKey, Arc<Pod>> =
            running.map(|pod| (key_of(pod), pod.clone())).collect();
        let board = self.board.borrow();
        for (key, entry) in &board.pods {
            let Some(report) = &entry.report else { continue };
            if is_over(&report.status) || report.ended {
                others.remove(key);
            } else if key.source.is_static() {
                others.insert(key.clone(), report.pod.clone());
            }
        }
        others
    }

    fn refuse(&self, held: &KubernetesPod, rejection: &Rejection) -> Decided {
        let leaving = held.metadata.deletion_timestamp.is_some();
        if !leaving && !is_terminal(held) {
            let Rejection { reason, message } = rejection.clone();
            self.tell(held, &reason, message);
        }
        let status = rejection.status(&held.spec.clone().unwrap_or_default());
        Decided::new(Err(Arc::new(status)))
    }

    fn tell(&self, held: &KubernetesPod, reason: &str, message: String) {
        let metadata = &held.metadata;
        let about = About::Pod {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            field_path: None,
        };
        self.events.show(about, EventKind::Warning, reason, message);
    }

    fn goals_of(
        &self,
        all: &BTreeMap<FullName, Arc<Entry>>,
        decided: &mut BTreeMap<String, Decided>,
    ) -> ApiGoals {
        let board = self.board.borrow();
        let mut goals = ApiGoals::new();
        for (name, entry) in all {
            let held = match &entry.held {
                Held::Foreign(held) => held,
                // One that goes is of what goes, or comes again and gets them from us.
                Held::Mirror(mirror) => {
                    if !mirror.ephemeral.is_empty() && !mirror.deleting {
                        goals.insert(key_of_name(name), Verdict::Mirror(entry.clone()));
                    }
                    continue;
                }
            };
            let Some(known) = decided.get_mut(&entry.uid) else { continue };
            let key = key_of_name(name);
            let report = board.pods.get(&key).and_then(|entry| entry.report.as_ref());
            let report = report.filter(|report| report.pod.uid() == entry.uid);
            // Somebody else says that it has come to its end.
            known.over |= is_terminal(held) && report.is_some_and(|it| !is_over(&it.status));
            goals.insert(key, known.verdict(held, &entry.uid));
        }
        goals
    }
}

impl Decided {
    /// Of one that has what it is to have.
    fn new(pod: Result<Arc<Pod>, Arc<PodStatus>>) -> Self {
        Self { pod, over: false, wanted: None, pending: None }
    }

    /// Takes in what may be changed of a pod that runs.
    fn update(&mut self, held: &KubernetesPod) {
        let same = |pod: &Pod| {
            let (known, held) = (pod.metadata(), &held.metadata);
            known.generation == held.generation
                && known.labels == held.labels
                && known.annotations == held.annotations
        };
        if let Ok(pod) = &mut self.pod
            && !same(pod)
            && let Ok(newer) = Pod::from_api(held.clone())
        {
            (*pod, self.wanted) = resize::allocated(newer, pod);
            if self.wanted.is_none() {
                self.pending = None;
            }
        }
    }

    fn verdict(&self, held: &KubernetesPod, uid: &str) -> Verdict {
        let pod = match &self.pod {
            Ok(pod) => pod.clone(),
            Err(status) => {
                return Verdict::Refused { uid: uid.to_owned(), status: status.clone() };
            }
        };
        if held.metadata.deletion_timestamp.is_some() {
            let own = pod.termination_grace_period();
            let seconds = held.metadata.deletion_grace_period_seconds;
            let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
            // Source: `calculateEffectiveGracePeriod` in `pkg/kubelet/pod_workers.go`.
            let grace = seconds.map_or(own, Duration::from_secs).max(Duration::from_secs(1));
            return Verdict::Stop(pod, grace);
        }
        match self.over {
            true => {
                let grace = pod.termination_grace_period();
                Verdict::Stop(pod, grace)
            }
            false => Verdict::Run(pod, self.pending.clone()),
        }
    }
}

/// Whether goals are those that were told before. Most changes of pods are our own statuses.
fn is_same(before: &ApiGoals, after: &ApiGoals) -> bool {
    let same = |(a, b): (&Verdict, &Verdict)| match (a, b) {
        (Verdict::Run(a, waits), Verdict::Run(b, other)) => Arc::ptr_eq(a, b) && waits == other,
        (Verdict::Stop(a, grace), Verdict::Stop(b, other)) => Arc::ptr_eq(a, b) && grace == other,
        (Verdict::Refused { uid: a, .. }, Verdict::Refused { uid: b, .. }) => a == b,
        (Verdict::Mirror(_), Verdict::Mirror(_)) => match (a.mirror(), b.mirror()) {
            (Some(a), Some(b)) => (&a.uid, &a.ephemeral) == (&b.uid, &b.ephemeral),
            _ => false,
        },
        (
            Verdict::Run(..) | Verdict::Stop(..) | Verdict::Refused { .. } | Verdict::Mirror(_),
            _,
        ) => false,
    };
    before.keys().eq(after.keys()) && before.values().zip(after.values()).all(same)
}

fn key_of_name(name: &FullName) -> PodKey {
    let (namespace, name) = (name.namespace.clone(), name.name.clone());
    PodKey { source: SourceKind::Api, namespace, name }
}

#[cfg(test)]
mod tests;
