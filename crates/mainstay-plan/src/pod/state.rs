//! Goal, seen, memory: what a plan is made from, and what it is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use mainstay_cri::{
    ContainerId, ContainerState, LinuxContainerUser, PodSandboxState, PodSandboxStatus, SandboxId,
};
use mainstay_pod::Pod;

use super::health::Health;
use crate::backoff::Backoff;
use crate::ephemeral_storage::EVICTED;
use crate::exclusive::Exclusive;
use crate::labels;
use crate::node_shutdown::TERMINATED;
use crate::pressure::resource_of;
use crate::resize::{Pending, Resize, Resizing};

pub use mainstay_pod::SourceKind;

/// Which pod it is: where it comes from, and its full name. One worker serves one key, so that
/// versions of a pod follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// The kind of source. A static pod and a pod of the API may bear the same name.
    pub source: SourceKind,
    /// The namespace.
    pub namespace: String,
    /// The name, with the node's name at its end if it is a static pod.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What should be.
#[derive(Clone, Debug)]
pub enum Goal {
    /// The pod runs, or has run to its end.
    Run(RunGoal),
    /// The pod is ended, and still told of: somebody wants to know how it ended.
    Stop {
        /// The pod.
        run: RunGoal,
        /// How long its containers have from when their end began.
        grace: Duration,
    },
    /// Nothing of the pod is left.
    Gone,
}

impl Goal {
    /// The pod that is told of, whether it runs or is ended.
    pub fn pod(&self) -> Option<&RunGoal> {
        match self {
            Self::Run(run) | Self::Stop { run, .. } => Some(run),
            Self::Gone => None,
        }
    }
}

/// A pod that should run.
#[derive(Clone, Debug)]
pub struct RunGoal {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Which taking-in of this version it is, if that matters: sandboxes and ends for good of
    /// another one do not count.
    pub incarnation: Option<Incarnation>,
}

/// Tells apart when the same version of a pod was taken out and put back, or its restart was asked
/// for: by the moment at which that happened, which is only ever compared for being the same, since
/// clocks are set and some begin anew at every boot.
pub type Incarnation = Timestamp;

impl RunGoal {
    /// Whether something of this version's `uid` and `incarnation` is this goal's own.
    pub fn is_own(&self, uid: &str, incarnation: Option<Incarnation>) -> bool {
        uid == self.pod.uid() && (self.incarnation.is_none() || incarnation == self.incarnation)
    }
}

/// All that the runtime has of one pod key, of any version of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenPod {
    /// Newest first.
    pub sandboxes: Vec<SeenSandbox>,
}

impl SeenPod {
    /// The sandbox that a container is in.
    pub fn sandbox_of(&self, id: &ContainerId) -> Option<&SeenSandbox> {
        self.sandboxes.iter().find(|sandbox| sandbox.has(id))
    }
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSandbox {
    /// The runtime's name for it.
    pub id: SandboxId,
    /// The UID of the pod that it was made for.
    pub uid: String,
    /// The incarnation that it was made for.
    pub incarnation: Option<Incarnation>,
    /// Counts the sandboxes of that pod.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The grace period of the pod that it was made for.
    pub grace: Duration,
    /// The names of that pod's sidecars, in the order in which they start.
    pub sidecars: Vec<String>,
    /// What of the machine the pod has for itself.
    pub exclusive: Exclusive,
    /// Its containers.
    pub containers: Vec<SeenContainer>,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenContainer {
    /// The runtime's name for it.
    pub id: ContainerId,
    /// Its name in the pod.
    pub name: String,
    /// How many of this name the pod had before.
    pub restart_count: u32,
    /// How often all containers of its sandbox had been started over when it was made.
    pub round: u32,
    /// Whether it was added to a pod that was there.
    pub ephemeral: bool,
    /// What it is doing.
    pub state: ContainerState,
    /// The back-off that was in force when it was started.
    pub backoff: Option<Backoff>,
    /// The image as the manifest named it.
    pub image: String,
    /// The image that it really was.
    pub image_ref: String,
    /// What is done before its end, as [`crate::lifecycle::note`] has it.
    pub pre_stop: Option<Arc<str>>,
    /// What it left to say when it ended, which is not the runtime's to know; `None` until it was
    /// looked for. See [`crate::termination_message`].
    pub termination_message: Option<String>,
    /// As whom it was started, if the runtime tells.
    pub user: Option<LinuxContainerUser>,
}

impl SeenSandbox {
    /// Reads back what [`crate::translate`] left with a sandbox and its containers.
    pub fn from_status(status: &PodSandboxStatus) -> Self {
        let sandbox = &status.sandbox;
        let grace = sandbox.annotations.get(labels::GRACE_PERIOD);
        let grace = grace.and_then(|seconds| seconds.parse().ok()).unwrap_or(DEFAULT_GRACE);
        let sidecars = sandbox.annotations.get(labels::SIDECARS).map_or("", String::as_str);
        let sidecars = sidecars.split_terminator(',');
        let container = |status: &mainstay_cri::ContainerStatus| {
            let note = |name: &str| status.annotations.get(name);
            let count = note(labels::RESTART_COUNT).and_then(|count| count.parse().ok());
            SeenContainer {
                id: status.id.clone(),
                name: status.metadata.name.clone(),
                restart_count: count.unwrap_or(status.metadata.attempt),
                round: note(labels::ROUND).and_then(|text| text.parse().ok()).unwrap_or(0),
                ephemeral: note(labels::EPHEMERAL).is_some(),
                state: status.state.clone(),
                backoff: note(labels::BACKOFF).and_then(|text| text.parse().ok()),
                image: status.image.0.clone(),
                image_ref: status.image_ref.clone(),
                user: status.user.clone(),
                pre_stop: note(labels::PRE_STOP_HANDLER).map(|text| Arc::from(text.as_str())),
                termination_message: None,
            }
        };
        Self {
            id: sandbox.id.clone(),
            uid: sandbox.metadata.uid.clone(),
            incarnation: sandbox
                .annotations
                .get(labels::INCARNATION)
                .and_then(|text| text.parse().ok()),
            attempt: sandbox.metadata.attempt,
            ready: sandbox.state == PodSandboxState::Ready,
            created_at: sandbox.created_at,
            ips: status.ips.clone(),
            grace: Duration::from_secs(grace),
            sidecars: sidecars.map(str::to_owned).collect(),
            exclusive: Exclusive::noted(&sandbox.annotations),
            containers: status.containers.iter().map(container).collect(),
        }
    }

    /// Lets no container of it be waited for longer than this, whatever was written down.
    pub fn bound_waits(&mut self, longest: Duration) {
        let backoffs =
            self.containers.iter_mut().filter_map(|container| container.backoff.as_mut());
        backoffs.for_each(|backoff| backoff.wait = backoff.wait.min(longest));
    }

    /// Whether a container is in it.
    pub fn has(&self, id: &ContainerId) -> bool {
        self.containers.iter().any(|it| it.id == *id)
    }

    /// The newest of its containers of this name.
    pub fn newest(&self, name: &str) -> Option<&SeenContainer> {
        let of_name = self.containers.iter().filter(|container| container.name == name);
        of_name.max_by_key(|container| container.restart_count)
    }

    /// Whether something in it may still run.
    pub fn is_alive(&self) -> bool {
        self.ready || self.containers.iter().any(|container| !container.has_ended())
    }
}

/// Seconds, for a sandbox that does not say. Source: `DefaultTerminationGracePeriodSeconds`.
const DEFAULT_GRACE: u64 = 30;

impl SeenContainer {
    /// Whether its process has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, ContainerState::Exited { .. })
    }
}

/// What a worker knows beside what it sees.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// What is being carried out.
    pub in_flight: BTreeSet<Key>,
    /// The UIDs that have directories, mounts or control groups on this machine.
    pub hosted: BTreeSet<String>,
    /// The UID that is prepared: all that its sandbox and containers need on the host is there.
    pub prepared: Option<String>,
    /// Whether what its volumes show is not, or may not be, what it should be any more.
    pub outdated: bool,
    /// The version that images and failures are remembered for.
    pub version: Option<String>,
    /// Images of the goal's containers, by container name, since the last start of each.
    pub images: BTreeMap<String, ImageMemory>,
    /// What failed last, until it succeeds.
    pub failures: BTreeMap<Key, Failure>,
    /// Sandboxes whose stop has begun, and when.
    pub stopping: BTreeMap<SandboxId, Timestamp>,
    /// The end for good of a version of the pod, as the ledger has it.
    pub finished: Option<Finished>,
    /// When the pod began that is told of.
    pub began: Option<Began>,
    /// Containers whose end has begun.
    pub ending: BTreeMap<ContainerId, Ending>,
    /// Containers that were started, and whose postStart hook has not ended well yet.
    pub post_start: BTreeSet<ContainerId>,
    /// What probes say of containers; of one that is not here nothing is known yet.
    pub health: BTreeMap<ContainerId, Health>,
    /// A version of the pod that is ended for good by its node.
    pub evicted: Option<Eviction>,
    /// Ephemeral containers of the goal's pod that have been started once, by name, whatever is left of them.
    pub spent: BTreeSet<String>,
    /// Whether the disk is so short that nothing is kept of a pod that has come to its end for good,
    /// but what was written down of it.
    pub reclaims: bool,
    /// What is in force of the goal's pod, while that is not what it is allocated.
    pub resizing: Option<Arc<Resizing>>,
    /// Resources that the goal's pod is to have and that it cannot be allocated yet.
    pub pending: Option<Arc<Pending>>,
    /// Containers that are ended, or have been, to be started with other resources.
    pub resized: BTreeSet<ContainerId>,
}

impl Memory {
    /// Turns to a goal: what is known of another version's images and failures is forgotten.
    pub fn turn_to(&mut self, goal: &Goal) {
        let version = goal.pod().map(|run| run.pod.uid().to_owned());
        if self.version != version {
            self.version = version;
            self.outdated = false;
            self.images.clear();
            self.failures
                .retain(|key, _| matches!(key, Key::Dead(_) | Key::DeadSandbox(_) | Key::Host(_)));
        }
    }

    /// Notes when a goal's pod began.
    pub fn begin(&mut self, run: &RunGoal, at: Timestamp) {
        let (uid, incarnation) = (run.pod.uid().to_owned(), run.incarnation);
        self.began = Some(Began { uid, incarnation, at });
    }

    /// When a goal's pod began, if that is known.
    pub fn began(&self, run: &RunGoal) -> Option<Timestamp> {
        let began = self.began.as_ref().filter(|it| run.is_own(&it.uid, it.incarnation));
        began.map(|began| began.at)
    }

    /// Why a goal's pod is ended, if it took too much or the node had too little.
    pub fn eviction(&self, run: &RunGoal) -> Option<&Eviction> {
        self.evicted.as_ref().filter(|it| run.is_own(&it.uid, it.incarnation))
    }

    /// Forgets what concerns sandboxes and containers that are gone.
    pub fn forget_gone(&mut self, seen: &SeenPod) {
        let sandboxes = &seen.sandboxes;
        self.stopping.retain(|id, _| sandboxes.iter().any(|sandbox| sandbox.id == *id));
        let exists = |id: &ContainerId| {
            sandboxes.iter().flat_map(|sandbox| &sandbox.containers).any(|it| it.id == *id)
        };
        self.ending.retain(|id, _| exists(id));
        self.post_start.retain(exists);
        self.resized.retain(exists);
        self.failures.retain(|key, _| match key {
            Key::Dead(id) | Key::Hook(id) => exists(id),
            Key::DeadSandbox(id) => sandboxes.iter().any(|sandbox| sandbox.id == *id),
            Key::Host(_)
            | Key::Volumes
            | Key::Ledger
            | Key::Sandbox
            | Key::Resize
            | Key::Container(_)
            | Key::Image(_) => true,
        });
    }

    /// The place of this version on the host is gone.
    pub fn forget_place(&mut self, uid: &str) {
        self.hosted.remove(uid);
        if self.prepared.as_deref() == Some(uid) {
            self.prepared = None;
        }
        // That of the goal's own version is known, whatever is left of it.
        let is_own = self.version.as_deref() == Some(uid);
        if !is_own && self.finished.as_ref().is_some_and(|it| it.uid == uid) {
            self.finished = None;
        }
    }

    /// Whether the goal's pod has run to its end for good.
    pub fn has_finished(&self, run: &RunGoal) -> bool {
        self.finished.as_ref().is_some_and(|it| run.is_own(&it.uid, it.incarnation))
    }

    /// What the pod refers to has changed, so what it could not be made of may be there now.
    pub fn retry_sources(&mut self, now: Timestamp) {
        self.retry(now, |key| matches!(key, Key::Host(_) | Key::Volumes | Key::Container(_)));
    }

    /// What there is of the pod has changed, so ephemeral containers whose target was missed may find it now.
    pub fn retry_targets(&mut self, pod: &Pod, now: Timestamp) {
        let has_target = |name: &String| pod.target_of(name).is_some();
        for (key, failure) in &mut self.failures {
            if matches!(key, Key::Container(name) if has_target(name))
                && failure.reason == "CreateContainerConfigError"
            {
                failure.retry_at = Some(now);
            }
        }
    }

    /// What the pod has waited for may be free: ports of the host, huge pages.
    pub fn retry_exclusive(&mut self, now: Timestamp) {
        self.retry(now, |key| *key == Key::Sandbox);
    }

    /// Images can be had that could not, since there are other credentials for them.
    pub fn retry_images(&mut self, now: Timestamp) {
        self.retry(now, |key| matches!(key, Key::Image(_)));
    }

    /// The images of a container that were missed are there now.
    pub fn retry_image(&mut self, container: &str, now: Timestamp) {
        self.retry(now, |key| matches!(key, Key::Image(name) if name == container));
    }

    /// The containers whose images are missed.
    pub fn without_image(&self) -> impl Iterator<Item = &str> {
        self.failures.keys().filter_map(|key| match key {
            Key::Image(name) => Some(&**name),
            _ => None,
        })
    }

    fn retry(&mut self, now: Timestamp, which: impl Fn(&Key) -> bool) {
        for (_, failure) in self.failures.iter_mut().filter(|(key, _)| which(key)) {
            failure.retry_at = Some(failure.retry_at.map_or(now, |due| due.min(now)));
        }
    }
}

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageMemory {
    /// It can be run, under this name.
    Ready(String),
}

/// An action that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One word, as the kubelet says it: `ErrImagePull`, `CreateContainerError` and so on.
    pub reason: String,
    /// The thing, the place and the remedy.
    pub message: String,
    /// How often in a row.
    pub count: u32,
    /// When it is tried again; `None` when something has to change first.
    pub retry_at: Option<Timestamp>,
}

/// The end of a container, which has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Since when.
    pub since: Timestamp,
    /// Whether what is done before has been done, or was given up.
    pub pre_stopped: bool,
}

/// A version of a pod that is to run since some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Began {
    /// Which version.
    pub uid: String,
    /// Which incarnation of it.
    pub incarnation: Option<Incarnation>,
    /// Since when.
    pub at: Timestamp,
}

/// Why a pod is ended that would run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionCause {
    /// It took more than it may.
    Limit,
    /// The node had too little.
    Pressure,
    /// The node is shut down. A static pod is not evicted for that: it runs again when the node does.
    Shutdown,
}

/// A version of a pod that is ended for good by its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Which version.
    pub uid: String,
    /// Which incarnation of it.
    pub incarnation: Option<Incarnation>,
    /// A sentence: of what there was too much or too little.
    pub message: String,
    /// How long its containers have to end.
    pub grace: Duration,
    /// Why.
    pub cause: EvictionCause,
}

impl EvictionCause {
    /// What the status of a pod that was ended so tells; `None` of any other pod.
    pub fn of(status: &PodStatus) -> Option<Self> {
        match status.reason.as_deref()? {
            EVICTED if resource_of(status).is_some() => Some(Self::Pressure),
            EVICTED => Some(Self::Limit),
            TERMINATED => Some(Self::Shutdown),
            _ => None,
        }
    }

    /// The pod's reason. Source: `Reason` in `pkg/kubelet/eviction/helpers.go`, `nodeShutdownReason`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Limit | Self::Pressure => EVICTED,
            Self::Shutdown => TERMINATED,
        }
    }

    /// Whether the pod itself has done nothing that it may not.
    pub const fn is_of_node(self) -> bool {
        match self {
            Self::Pressure | Self::Shutdown => true,
            Self::Limit => false,
        }
    }
}

/// A version of a pod that has run to its end for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which version.
    pub uid: String,
    /// Which incarnation of it.
    pub incarnation: Option<Incarnation>,
}

/// What an action works on; no two with the same key are in flight together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The place of a version of the pod on the host.
    Host(String),
    /// What the volumes of the goal's pod show.
    Volumes,
    /// What is written down of the pod.
    Ledger,
    /// The goal's own sandbox.
    Sandbox,
    /// The container of this name, in the goal's own sandbox.
    Container(String),
    /// What the goal's own sandbox and its containers may use.
    Resize,
    /// The image of the container of this name.
    Image(String),
    /// What is done in a container after its start.
    Hook(ContainerId),
    /// A container of the runtime that is being ended or removed.
    Dead(ContainerId),
    /// A sandbox that is being ended or removed. What keeps it from going keeps no other one from
    /// coming.
    DeadSandbox(SandboxId),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's directories, mounts and control group on the host.
    Prepare {
        /// The version.
        uid: String,
    },
    /// Let the volumes of a pod that runs show what they are made of now.
    UpdateVolumes,
    /// See to the image of the container of this name, as [`crate::image`] decides.
    EnsureImage {
        /// The container.
        container: String,
    },
    /// Make a sandbox.
    RunSandbox {
        /// Counts the sandboxes of this version of the pod.
        attempt: u32,
    },
    /// Make a container and start it.
    StartContainer {
        /// Where.
        sandbox: SandboxId,
        /// What.
        container: ContainerPlan,
    },
    /// Let a pod that runs have what it is allocated.
    Resize(Box<Resize>),
    /// Do what is to be done after a container's start.
    PostStart {
        /// Where.
        id: ContainerId,
        /// Its name in the pod.
        container: String,
    },
    /// Do what is to be done before a container's end.
    PreStop {
        /// Where.
        id: ContainerId,
        /// What, as [`crate::lifecycle::note`] has it.
        hook: Arc<str>,
        /// How long it is waited for.
        grace: Duration,
        /// Why it ends.
        why: StopReason,
    },
    /// End a container: stop signal, grace period, kill.
    StopContainer {
        /// Which.
        id: ContainerId,
        /// What is left of its grace period.
        grace: Duration,
        /// Why; `None` if that has been told, with what was done before.
        why: Option<StopReason>,
    },
    /// Remove an ended container of which nothing is needed any more.
    RemoveContainer {
        /// Which.
        id: ContainerId,
    },
    /// End a sandbox.
    StopSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Remove a sandbox and its containers.
    RemoveSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Write down that the goal's pod has run to its end for good.
    RecordFinished {
        /// When.
        at: Timestamp,
    },
    /// Remove all that a version of the pod has on the host.
    CleanUp {
        /// Which version.
        uid: String,
    },
}

/// Why a container is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Its pod is, or its sandbox.
    PodEnds,
    /// A probe has given it up, and the pod goes on.
    Unhealthy {
        /// What is told of it.
        message: String,
    },
    /// What was to be done after its start has failed, and the pod goes on.
    PostStartFailed,
    /// All containers of the pod are started over.
    RestartAll,
    /// It is to be started with other resources, and the pod goes on.
    Resized {
        /// Its name in the pod.
        container: String,
    },
}

impl Action {
    /// What it works on.
    pub fn key(&self) -> Key {
        match self {
            Self::Prepare { uid } | Self::CleanUp { uid } => Key::Host(uid.clone()),
            Self::UpdateVolumes => Key::Volumes,
            Self::Resize(_) => Key::Resize,
            Self::RecordFinished { .. } => Key::Ledger,
            Self::EnsureImage { container } => Key::Image(container.clone()),
            Self::RunSandbox { .. } => Key::Sandbox,
            Self::StopSandbox { id } | Self::RemoveSandbox { id } => Key::DeadSandbox(id.clone()),
            Self::StartContainer { container, .. } => Key::Container(container.name.clone()),
            Self::PostStart { id, .. } => Key::Hook(id.clone()),
            Self::PreStop { id, .. }
            | Self::StopContainer { id, .. }
            | Self::RemoveContainer { id } => Key::Dead(id.clone()),
        }
    }
}

/// A container to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Its name in the pod.
    pub name: String,
    /// How many of this name the pod had before.
    pub restart_count: u32,
    /// How often all containers of the sandbox have been started over.
    pub round: u32,
    /// The back-off that is in force from this start on; `None` before the first end.
    pub backoff: Option<Backoff>,
    /// The image to run.
    pub image: String,
}

/// What to do now, and when to ask again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In any order; all may be carried out at the same time.
    pub actions: Vec<Action>,
    /// The next moment at which waiting alone changes the answer.
    pub wake_at: Option<Timestamp>,
    /// Why the pod is not further, if it waits for something.
    pub waiting: Option<Waiting>,
    /// Whether the goal is reached, and will stay so unless something happens.
    pub done: bool,
}

/// Why a pod that should run has not been started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An older version of it is still ending.
    Predecessor {
        /// Its UID.
        uid: String,
    },
}
