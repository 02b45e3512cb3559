//! Joining the streams of a container.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use mainstay_cri::{AttachRequest, Attached, Error, ErrorKind, FELL_BEHIND, Input, Output, Result};
use mainstay_shim_protocol::{Attach, Command, Detachment};
use tokio::net::unix::pipe;

use super::streams::{MAKE, begin, resizer, take_terminal};
use crate::{Instance, failed, io_failed};

/// How much the kernel keeps for a client that does not read: what a pipe may hold at most unless
/// the machine's administrator says otherwise. It takes memory only as far as it is filled.
/// Source: pipe(7), `/proc/sys/fs/pipe-max-size`.
const BACKLOG: usize = 1 << 20;

/// Attaches to a container that has not ended.
pub(crate) async fn attach(engine: &Arc<Instance>, request: &AttachRequest) -> Result<Attached> {
    let sandbox = engine.sandbox_of(&request.container)?;
    let found = {
        let state = sandbox.state();
        let container = state.containers.get(&request.container);
        container.map(|container| (container.record.process.terminal, container.has_ended()))
    };
    let id = &request.container;
    let (terminal, ended) = found
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("container {id} does not exist")))?;
    if ended {
        let message = format!("container {id} has ended");
        return Err(Error::new(ErrorKind::FailedPrecondition, message));
    }
    if terminal != request.tty {
        let has = if terminal { "has" } else { "has no" };
        let message = format!("container {id} {has} terminal");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let mut descriptors = Vec::new();
    let stdin = request.stdin.then(|| input(&mut descriptors)).transpose()?;
    let stdout = request.stdout.then(|| output(&mut descriptors)).transpose()?;
    let wants_error = request.stderr && !terminal;
    let stderr = wants_error.then(|| output(&mut descriptors)).transpose()?;
    let (here, there) = UnixStream::pair().map_err(io_failed(MAKE))?;
    if terminal {
        descriptors.push(there.into());
    }
    let command = Command::Attach(Attach {
        id: id.0.clone(),
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: wants_error,
        terminal,
    });
    let conversation =
        begin(&sandbox, command, descriptors, "failed to attach to container").await?;
    let resize = if terminal { Some(resizer(take_terminal(&here)?)) } else { None };
    let end = Box::pin(async move {
        let lost = failed("cannot learn how the attachment to the container ended");
        match conversation.detached().await.map_err(lost)? {
            Detachment::Ended | Detachment::InputEnded => Ok(()),
            Detachment::FellBehind => Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!("{FELL_BEHIND}, and does not wait; its log has all of it"),
            )),
        }
    });
    Ok(Attached { stdin, stdout, stderr, resize, end })
}

/// A pipe to the container; its other end is added to what is sent.
fn input(descriptors: &mut Vec<OwnedFd>) -> Result<Input> {
    let (write, read) = pipe::pipe().map_err(io_failed(MAKE))?;
    descriptors.push(read.into_nonblocking_fd().map_err(io_failed(MAKE))?);
    Ok(Box::pin(write))
}

/// A pipe from the container; its other end is added to what is sent.
fn output(descriptors: &mut Vec<OwnedFd>) -> Result<Output> {
    let (write, read) = pipe::pipe().map_err(io_failed(MAKE))?;
    let write = write.into_nonblocking_fd().map_err(io_failed(MAKE))?;
    // A smaller one works as well, for those who read faster.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, BACKLOG);
    descriptors.push(write);
    Ok(Box::pin(read))
}
