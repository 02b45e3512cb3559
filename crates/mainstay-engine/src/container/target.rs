//! The container whose process numbers another one has: the mode `TARGET` of the CRI.

use std::fs;

use mainstay_cri::{
    ContainerId, ContainerState, Error, ErrorKind, LinuxContainerSecurityContext, NamespaceMode,
    Result,
};
use mainstay_shim_protocol::{Command, ContainerPhase, Success};

use crate::sandbox::Sandbox;
use crate::shim::Shim;
use crate::{failed, io_failed};

/// Whether a container can have the process numbers that it asks for.
///
/// # Errors
///
/// When its target does not run, or the numbers are not the containers' own. Source: `validateTargetContainer`
/// in containerd's `internal/cri/server/container_create_linux.go`.
pub(super) fn check(sandbox: &Sandbox, security: &LinuxContainerSecurityContext) -> Result<()> {
    let Some(target) = &security.target else { return Ok(()) };
    let invalid = |kind, why: &str| {
        Err(Error::new(kind, format!("invalid target container: container \"{target}\" {why}")))
    };
    let state = sandbox.state();
    if state.record.namespaces.pid != NamespaceMode::Container {
        let why = "shares its process numbers with others already";
        return invalid(ErrorKind::InvalidArgument, why);
    }
    let precondition = ErrorKind::FailedPrecondition;
    match state.containers.get(target).map(|it| &it.state) {
        None => invalid(ErrorKind::NotFound, "does not exist"),
        Some(ContainerState::Running { .. }) => Ok(()),
        Some(ContainerState::Created) => {
            invalid(precondition, "is not running - in state CONTAINER_CREATED")
        }
        Some(ContainerState::Exited { .. }) => {
            invalid(precondition, "is not running - in state CONTAINER_EXITED")
        }
    }
}

/// Whether a container that has been made has the process numbers of its target.
///
/// # Errors
///
/// When it has its own: the pod's shim is of a mainstay that did not know of targets.
pub(super) async fn verify(shim: &Shim, target: &ContainerId, pid: i32) -> Result<()> {
    let asked = shim.call(Command::Report).await;
    let asked = asked.map_err(failed("cannot look at the target container"))?;
    let Success::Report(list) = asked else {
        return Err(Error::new(ErrorKind::Internal, format!("an odd answer: {asked:?}")));
    };
    let phase = list.into_iter().find(|it| it.id == target.0).map(|it| it.phase);
    let Some(ContainerPhase::Running { pid: first, .. }) = phase else {
        let message = format!("invalid target container: container \"{target}\" has ended");
        return Err(Error::new(ErrorKind::FailedPrecondition, message));
    };
    let numbers = |pid: i32| {
        let path = format!("/proc/{pid}/ns/pid");
        fs::read_link(&path).map_err(io_failed(format!("cannot read {path}")))
    };
    if numbers(first)? == numbers(pid)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unimplemented,
        "the pod was started by an earlier version of mainstay, which cannot let a container see the \
         processes of another one; restart the pod first",
    ))
}
