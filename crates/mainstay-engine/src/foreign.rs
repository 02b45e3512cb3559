//! Shims that cannot be spoken with: of another version of the protocol, or silent.
//!
//! Their pods run on. What can be asked of such a shim is what the kernel does without it: its
//! containers are seen in their control groups, get signals, and end. So a pod of a foreign shim
//! can be stopped and replaced; whatever needs the shim's own help is refused with the reason.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use mainstay_cri::{ContainerId, Result};
use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::process::{Pidfd, origin};
use mainstay_shim_protocol::{
    Command, ContainerPhase, ContainerReport, Event, ExitStatus, Success, nanoseconds,
};
use rustix::process::Signal;
use tokio::net::unix::pipe;

use crate::record::{ShimProcess, read_exit};
use crate::sandbox::{KILLED, Sandbox};
use crate::shim::{Requests, ShimError};
use crate::{Instance, io_failed};

/// How long after the end of a first process its shim may take to write down how it ended.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// How often that is looked for.
const WRITE_LOOK: Duration = Duration::from_millis(20);

/// A shim that is not spoken with.
pub(crate) struct Foreign {
    /// Why not.
    reason: String,
    /// The shim's process, if it has not ended.
    process: Option<Process>,
    containers: Vec<Container>,
    requests: Requests,
}

/// A process, and its end.
struct Process {
    pidfd: Pidfd,
    /// Readable when it has ended. It is only waited for as a pipe is, and not read.
    end: pipe::Receiver,
}

/// A container that runs.
struct Container {
    id: ContainerId,
    bundle: PathBuf,
    started_at: Timestamp,
    first: Process,
}

impl Process {
    fn watch(pidfd: Pidfd) -> std::io::Result<Self> {
        let end = pipe::Receiver::from_owned_fd_unchecked(pidfd.as_fd().try_clone_to_owned()?)?;
        Ok(Self { pidfd, end })
    }

    /// Waits for its end.
    async fn ended(&self) {
        if self.end.readable().await.is_err() {
            // The runtime is ending, and this task with it.
            std::future::pending::<()>().await;
        }
    }
}

impl Foreign {
    /// Finds what a shim's containers are doing.
    pub(crate) fn look(
        engine: &Instance,
        sandbox: &Sandbox,
        reason: String,
        requests: Requests,
    ) -> Result<(Self, Vec<ContainerReport>)> {
        let recorded = sandbox.state().record.shim;
        let process = recorded.and_then(ShimProcess::open).map(Process::watch).transpose();
        let process = process.map_err(io_failed("cannot watch the pod's shim"))?;
        let mut containers = Vec::new();
        let mut reports = Vec::new();
        let known: Vec<_> = {
            let state = sandbox.state();
            state.containers.values().map(|container| container.record.clone()).collect()
        };
        for record in known {
            let id = record.id.clone();
            let bundle = sandbox.bundle(&id);
            let phase = if let Some(status) = read_exit(&bundle) {
                ContainerPhase::Exited(status)
            } else {
                let first = first_process(&engine.hierarchies, &record.cgroup)?;
                let open = |pid| Pidfd::open(pid).and_then(Process::watch);
                let opened = first.map(open).transpose();
                let opened = opened.map_err(io_failed("cannot watch a container's process"))?;
                // One of which nothing runs never got so far.
                let (Some(pid), Some(first)) = (first, opened) else { continue };
                let started_at = record.created_at;
                containers.push(Container { id: id.clone(), bundle, started_at, first });
                ContainerPhase::Running { pid, started_at: nanoseconds(started_at) }
            };
            reports.push(ContainerReport { id: id.0, phase });
        }
        Ok((Self { reason, process, containers, requests }, reports))
    }

    /// Carries out what can be, and tells how containers end. Returns when the shim is gone, or
    /// when nobody is left who could ask for anything.
    pub(crate) async fn serve(
        mut self,
        mut on_event: impl FnMut(Event),
    ) -> std::result::Result<(), ShimError> {
        let mut ends: FuturesUnordered<_> = self.containers.iter().map(Container::exit).collect();
        loop {
            tokio::select! {
                () = shim_ended(self.process.as_ref()) => return Err(ShimError::Gone),
                // Cancel-safe: a stream's `next` holds nothing.
                Some((id, status)) = ends.next() => on_event(Event::Exited { id: id.0.clone(), status }),
                // Cancel-safe per docs on `UnboundedReceiver::recv`.
                request = self.requests.recv() => {
                    let Some((command, answer)) = request.map(|ask| *ask) else { return Ok(()) };
                    let shim = self.process.as_ref();
                    // Whoever asked may have given up, which is its right.
                    let _ = answer.send(carry_out(&self.containers, shim, &self.reason, command));
                }
            }
        }
    }
}

impl Container {
    /// Waits for the end of the first process, and for the shim's word on how it ended.
    async fn exit(&self) -> (&ContainerId, ExitStatus) {
        self.first.ended().await;
        let finished_at = nanoseconds(Timestamp::now());
        let written = async {
            loop {
                match read_exit(&self.bundle) {
                    Some(status) => return status,
                    None => tokio::time::sleep(WRITE_LOOK).await,
                }
            }
        };
        let unknown = ExitStatus {
            started_at: Some(nanoseconds(self.started_at)),
            finished_at,
            exit_code: KILLED,
        };
        (&self.id, tokio::time::timeout(WRITE_PATIENCE, written).await.unwrap_or(unknown))
    }
}

async fn shim_ended(shim: Option<&Process>) {
    match shim {
        Some(shim) => shim.ended().await,
        None => std::future::pending().await,
    }
}

fn carry_out(
    containers: &[Container],
    shim: Option<&Process>,
    reason: &str,
    command: Command,
) -> std::result::Result<Success, ShimError> {
    let refused = || Err(ShimError::Foreign(reason.to_owned()));
    match command {
        Command::SignalContainer { id, signal } => {
            let container = containers.iter().find(|container| container.id.0 == id);
            let container = container.ok_or(ShimError::NoSuchContainer)?;
            container.first.pidfd.signal(signal).map_err(ShimError::Connection)?;
            Ok(Success::Done)
        }
        // It ends with all that it remembers.
        Command::RemoveContainer { .. } => Ok(Success::Done),
        // Its containers have ended.
        Command::Shutdown => match shim {
            Some(shim) => {
                shim.pidfd.signal(Signal::KILL.as_raw()).map_err(ShimError::Connection)?;
                Ok(Success::Done)
            }
            None => refused(),
        },
        Command::EnterNamespaces(_)
        | Command::CreateContainer(_)
        | Command::StartContainer { .. }
        | Command::ReopenLog { .. }
        | Command::Exec(_)
        | Command::Attach(_)
        | Command::Report
        | Command::Subscribe => refused(),
    }
}

/// The process of a control group that was there before all others and was not started by one of
/// them: the first process of a container that runs.
fn first_process(hierarchies: &Hierarchies, cgroup: &str) -> Result<Option<i32>> {
    let group = hierarchies.at(cgroup);
    let all = group.processes().map_err(crate::failed("cannot look into a control group"))?;
    let first = all
        .iter()
        // One that cannot be looked at has ended meanwhile.
        .filter_map(|pid| Some((*pid, origin(*pid).ok()?)))
        .filter(|(_, origin)| !all.contains(&origin.parent))
        .min_by_key(|(pid, origin)| (origin.started, *pid));
    Ok(first.map(|(pid, _)| pid))
}
