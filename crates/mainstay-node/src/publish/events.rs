//! What happened to pods and to the node: the last of it, for people who ask here, and all of it, on
//! its way to an API.

mod words;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use mainstay_client::events::{EventQueue, Occurrence};
use mainstay_plan::pod::{Goal, PodKey, SeenSandbox};
use mainstay_pod::{Pod, Role};

pub(crate) use words::{duration, of_failure, waits};

/// How many are kept of each pod.
const KEPT: usize = 20;

/// Whether all is well. Source: `EventTypeNormal` and `EventTypeWarning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Normal,
    Warning,
}

impl EventKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What something happened to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// The node.
    Node,
    /// A pod, or one of its containers.
    Pod {
        namespace: String,
        name: String,
        /// Of a static pod the static one, by which `kubectl describe` finds its events.
        uid: String,
        /// Where in it: that of a container, as [`field_path`] has it.
        field_path: Option<String>,
    },
}

/// One thing that happened, once or more often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// One word, as the kubelet has it.
    pub(crate) reason: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) count: u32,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// The last events of each pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    by_pod: Arc<Mutex<BTreeMap<PodKey, VecDeque<Event>>>>,
    queue: Arc<EventQueue<About>>,
}

/// A pod as something that happens is about it, or one of its containers.
pub(crate) fn about(pod: &Pod, container: Option<&str>) -> About {
    About::Pod {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        field_path: container.map(|name| {
            let role = pod.container(name).map_or(Role::Main, |(role, _)| role);
            field_path(role, name)
        }),
    }
}

/// How an event names a container. Source: `fieldPath` in `pkg/kubelet/container/ref.go`.
pub(crate) fn field_path(role: Role, container: &str) -> String {
    match role {
        Role::Init | Role::Sidecar => format!("spec.initContainers{{{container}}}"),
        Role::Main => format!("spec.containers{{{container}}}"),
        Role::Ephemeral => format!("spec.ephemeralContainers{{{container}}}"),
    }
}

/// A container of a sandbox, of whatever version of the pod, as something that happens is about it.
pub(crate) fn about_seen(key: &PodKey, goal: &Goal, sandbox: &SeenSandbox, name: &str) -> About {
    About::Pod {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: sandbox.uid.clone(),
        field_path: Some(field_path(role_of(goal, sandbox, name), name)),
    }
}

/// What a container is, or was, to its pod.
fn role_of(goal: &Goal, sandbox: &SeenSandbox, name: &str) -> Role {
    let known = goal.pod().filter(|run| run.pod.uid() == sandbox.uid);
    match known.and_then(|run| run.pod.container(name)) {
        Some((role, _)) => role,
        None if sandbox.newest(name).is_some_and(|it| it.ephemeral) => Role::Ephemeral,
        None if sandbox.sidecars.iter().any(|it| it == name) => Role::Sidecar,
        None => Role::Main,
    }
}

impl Events {
    /// Tells one to those who ask here. The same again is counted, not repeated.
    pub(crate) fn tell(
        &self,
        key: &PodKey,
        kind: EventKind,
        reason: impl Into<Cow<'static, str>>,
        message: String,
    ) {
        let reason = reason.into();
        let now = Timestamp::now();
        let mut by_pod = self.by_pod.lock().unwrap_or_else(PoisonError::into_inner);
        let events = by_pod.entry(key.clone()).or_default();
        let same = |event: &&mut Event| {
            event.kind == kind && event.reason == reason && event.message == message
        };
        if let Some(known) = events.iter_mut().find(same) {
            known.count += 1;
            known.last = now;
            return;
        }
        match kind {
            EventKind::Normal => tracing::info!(pod = %key, %reason, message, "event"),
            EventKind::Warning => tracing::warn!(pod = %key, %reason, message, "event"),
        }
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(Event { kind, reason, message, count: 1, first: now, last: now });
    }

    /// Tells one to the API, if there is one, in the words of a kubelet.
    pub(crate) fn show(
        &self,
        about: About,
        kind: EventKind,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.queue.push(|| Occurrence {
            about,
            warning: kind == EventKind::Warning,
            reason: reason.into(),
            message: message.into(),
            at: Timestamp::now(),
        });
    }

    /// Tells one to everybody: those who ask here, and the API.
    pub(crate) fn announce(
        &self,
        key: &PodKey,
        about: About,
        kind: EventKind,
        reason: impl Into<Cow<'static, str>>,
        message: String,
    ) {
        let reason = reason.into();
        self.show(about, kind, &*reason, &*message);
        self.tell(key, kind, reason, message);
    }

    /// Tells one of the node itself.
    pub(crate) fn tell_node(&self, kind: EventKind, reason: &'static str, message: String) {
        tracing::debug!(reason, message, "event of the node");
        self.show(About::Node, kind, reason, message);
    }

    /// What is to be shown.
    pub(crate) fn queue(&self) -> &EventQueue<About> {
        &self.queue
    }

    /// Those of one pod, oldest first.
    pub(crate) fn of(&self, key: &PodKey) -> Vec<Event> {
        let by_pod = self.by_pod.lock().unwrap_or_else(PoisonError::into_inner);
        by_pod.get(key).map(|events| events.iter().cloned().collect()).unwrap_or_default()
    }

    /// Those of a pod that is gone.
    pub(crate) fn forget(&self, key: &PodKey) {
        self.by_pod.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
