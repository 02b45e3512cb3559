//! One sandbox: what is known of it, and the task that listens to its shim.
//!
//! # Flow
//!
//! Each sandbox has one task, [`keep`], which drives the connection to the shim, notes how
//! containers end, and notices the end of the shim itself. The verbs beside this file ask the shim
//! through [`State::shim`] and wait for changes of [`State`].
//!
//! # Guarantees
//!
//! - When a shim ends before its time, its containers are killed before the sandbox is shown as
//!   not ready: nothing of it runs when somebody starts the next one.

pub(crate) mod port_forward;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod stop;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mainstay_cri::{
    ContainerEventKind, ContainerId, ContainerState, ContainerStatus, LinuxContainerUser,
    NamespaceMode, PodSandbox, PodSandboxState, PodSandboxStatus, START_ERROR, STATUS_UNKNOWN,
};
use mainstay_linux::process::reap;
use mainstay_shim_protocol::{Event, ExitStatus, START_FAILED};
use rustix::process::Signal;
use tokio::sync::watch;

use crate::record::{ContainerRecord, Maker, SandboxRecord, ShimProcess};
use crate::shim::{Line, Shim, ShimError};
use crate::{Instance, Role, failed, io_failed};

/// The exit code of a container whose end nobody saw, as after SIGKILL.
pub(crate) const KILLED: i32 = 137;

/// How long after the end of its connection a shim may take to end.
const END_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Sandbox {
    pub(crate) directory: PathBuf,
    state: Mutex<State>,
    /// Counts the changes of `state`, for those who wait for one.
    changes: watch::Sender<u64>,
    /// Held while plugins are called for it: one after the other.
    pub(crate) plugins: tokio::sync::Mutex<()>,
}

/// What is known of a sandbox.
pub(crate) struct State {
    pub(crate) record: SandboxRecord,
    pub(crate) ready: bool,
    /// Present as long as its connection is.
    pub(crate) shim: Option<Shim>,
    /// Why the shim, which an earlier agent has started, cannot be in its control group.
    pub(crate) placed: std::result::Result<(), String>,
    /// Why the shim, although it runs, cannot be driven.
    pub(crate) foreign: Option<String>,
    /// Each apart, since maps keep room for ten more.
    pub(crate) containers: BTreeMap<ContainerId, Box<Container>>,
}

/// What is known of a container.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    pub(crate) state: ContainerState,
    /// The message of a start that failed.
    pub(crate) failure: Option<String>,
}

impl Sandbox {
    pub(crate) fn new(directory: PathBuf, record: SandboxRecord) -> Self {
        let state = State {
            record,
            ready: false,
            shim: None,
            placed: Ok(()),
            foreign: None,
            containers: BTreeMap::new(),
        };
        Self {
            directory,
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            plugins: tokio::sync::Mutex::default(),
        }
    }

    /// Looks at the state. It is never held across an `await`.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere while it was held left whole values behind: each change is one
        // assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes those who wait.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changes.send_modify(|count| *count += 1);
        result
    }

    /// Waits until `look` finds what it looks for.
    pub(crate) async fn wait_for<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let found = look(&self.state());
            if let Some(found) = found {
                return found;
            }
            if changes.changed().await.is_err() {
                // The sender is part of `self`, so it is still there.
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn bundle(&self, id: &ContainerId) -> PathBuf {
        bundle_in(&self.directory, id)
    }

    pub(crate) fn summary(&self) -> PodSandbox {
        summary(&self.state())
    }

    /// What there is of it for somebody to see, and who made it.
    pub(crate) fn status(&self, to: Maker) -> (PodSandboxStatus, Maker) {
        let state = self.state();
        let containers = state.containers.values().filter(|it| to.sees(it.record.maker));
        let status = PodSandboxStatus {
            sandbox: summary(&state),
            namespaces: state.record.namespaces,
            ips: state.record.ips.clone(),
            containers: containers.map(|it| container_status(it)).collect(),
        };
        (status, state.record.maker)
    }
}

/// The control group of the first process of a sandbox, if it has one: its containers share their process
/// numbers.
pub(crate) fn reaper_cgroup(record: &SandboxRecord) -> Option<String> {
    let shared = record.namespaces.pid == NamespaceMode::Pod;
    let parent = record.cgroup_parent.trim_end_matches('/');
    shared.then(|| format!("{parent}/{}", record.id))
}

/// A container's directory in its sandbox's.
pub(crate) fn bundle_in(sandbox: &Path, id: &ContainerId) -> PathBuf {
    sandbox.join("containers").join(&id.0)
}

fn summary(state: &State) -> PodSandbox {
    PodSandbox {
        id: state.record.id.clone(),
        metadata: state.record.metadata.clone(),
        state: if state.ready { PodSandboxState::Ready } else { PodSandboxState::NotReady },
        created_at: state.record.created_at,
        labels: state.record.labels.to_map(),
        annotations: state.record.annotations.to_map(),
    }
}

pub(crate) fn container_status(container: &Container) -> ContainerStatus {
    let Container { record, state, .. } = container;
    ContainerStatus {
        id: record.id.clone(),
        metadata: record.metadata.clone(),
        state: state.clone(),
        created_at: record.created_at,
        image: record.image.clone(),
        image_ref: record.image_ref.clone(),
        labels: record.labels.to_map(),
        annotations: record.annotations.to_map(),
        log_path: record.log_path.clone(),
        user: Some(LinuxContainerUser {
            uid: record.process.uid,
            gid: record.process.gid,
            supplemental_groups: record.process.additional_gids.clone(),
        }),
        details: None,
    }
}

/// Drives the connection to a sandbox's shim until the shim is gone, and then sees to what it
/// left.
pub(crate) async fn keep(engine: Arc<Instance>, sandbox: Arc<Sandbox>, line: Line) {
    let heard = |event| hear(&engine, &sandbox, event);
    let served = line.serve(heard).await;
    let process = sandbox.change(|state| {
        state.shim = None;
        state.foreign = None;
        state.record.shim
    });
    if engine.role == Role::Visitor {
        // What is to be done about it is the owner's to know.
        engine.tell(&sandbox, None, ContainerEventKind::Stopped);
        return;
    }
    // What comes at the end is not to take room in the task of every sandbox until then.
    if let (Err(error), Some(process)) = (served, process) {
        Box::pin(take_leave(process, error, &sandbox)).await;
    }
    let (was_ready, id) = {
        let state = sandbox.state();
        (state.ready, state.record.id.clone())
    };
    // Otherwise it was told to end, by somebody who sees to the rest.
    if was_ready {
        tracing::warn!(sandbox = %id, "the pod's shim has ended before its time");
        Box::pin(stop::give_up(&engine, &sandbox)).await;
    }
}

/// Waits for the end of a shim whose connection has ended, and reaps it if it is a child of this
/// process. One that does not end is ended: nobody could drive it any more, and its pod is made anew.
async fn take_leave(process: ShimProcess, error: ShimError, sandbox: &Sandbox) {
    let id = sandbox.state().record.id.clone();
    let left = crate::blocking(move || {
        // Gone already: there is nothing to wait for.
        let Some(shim) = process.open() else { return Ok(()) };
        let wait = || io_failed("cannot wait for the end of a shim");
        // Its connections are closed before its process has ended.
        if !shim.wait_until(Instant::now() + END_PATIENCE).map_err(wait())? {
            let error = failed("the connection to a pod's shim is lost, so it is ended")(error);
            tracing::error!(sandbox = %id, "{}", error.chain());
            shim.signal(Signal::KILL.as_raw()).map_err(io_failed("cannot end a shim"))?;
        }
        shim.wait().and_then(|()| reap(process.pid)).map(drop).map_err(wait())
    });
    if let Err(error) = left.await {
        tracing::debug!(pid = process.pid, error = error.chain(), "cannot take leave of a shim");
    }
}

fn hear(engine: &Instance, sandbox: &Sandbox, event: Event) {
    match event {
        Event::Exited { id, status } => {
            let id = ContainerId(id);
            let known = sandbox.change(|state| {
                let container = state.containers.get_mut(&id)?;
                let oom = engine.oom_killed(&container.record.cgroup);
                container.state = exited(&status, oom, container.failure.clone());
                Some(())
            });
            if known.is_some() {
                engine.tell(sandbox, Some(id), ContainerEventKind::Stopped);
            }
        }
        Event::LogFailed { id, error } => {
            tracing::warn!(container = %id, error, "log lines of a container are being lost");
        }
        // Those come on connections of their own.
        Event::ExecExited { .. } | Event::Detached { .. } => {}
    }
}

/// The state of a container that ended as the shim says.
pub(crate) fn exited(status: &ExitStatus, oom: bool, failure: Option<String>) -> ContainerState {
    // The message of a failed start is lost with the agent that asked for it.
    let start_failed = status.started_at.is_none() && status.exit_code == START_FAILED;
    let reason = match status.exit_code {
        _ if failure.is_some() || start_failed => START_ERROR,
        _ if oom => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    };
    ContainerState::Exited {
        started_at: status.started_at.map(timestamp),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: reason.to_owned(),
        message: failure.unwrap_or_default(),
    }
}

/// The state of a container whose end nobody saw.
pub(crate) fn vanished(before: &ContainerState, now: Timestamp) -> ContainerState {
    let started_at = match before {
        ContainerState::Running { started_at } => Some(*started_at),
        ContainerState::Exited { .. } => return before.clone(),
        ContainerState::Created => None,
    };
    ContainerState::Exited {
        started_at,
        finished_at: now,
        exit_code: KILLED,
        reason: STATUS_UNKNOWN.to_owned(),
        message: "The process that watched over the container was killed.".to_owned(),
    }
}

pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    // All numbers of 64 bits are within what a timestamp holds.
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}
