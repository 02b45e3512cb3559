//! One more process in a container.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;

use mainstay_cri::{Error, ErrorKind, Exec, ExecRequest, ExitCode, Input, Result};
use mainstay_shim_protocol::{Command, Exec as ShimExec, Process};
use tokio::net::unix::pipe;

use super::streams::{self, MAKE, Terminal, resizer, take_terminal};
use crate::shim::Conversation;
use crate::{Instance, failed, io_failed};

/// Starts a process in a running container.
pub(crate) async fn exec(engine: &Arc<Instance>, request: &ExecRequest) -> Result<Exec> {
    let sandbox = engine.sandbox_of(&request.container)?;
    let pattern = {
        let state = sandbox.state();
        let container = state.containers.get(&request.container);
        container.map(|container| container.record.process.clone())
    };
    let pattern = pattern.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("container {} does not exist", request.container))
    })?;
    let mut process = Process { args: request.command.clone(), terminal: request.tty, ..pattern };
    if request.tty && !process.env.iter().any(|variable| variable.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    let exec = ShimExec { id: request.container.0.clone(), process };
    let begin = |descriptors| {
        let command = Command::Exec(Box::new(exec));
        streams::begin(&sandbox, command, descriptors, "failed to exec in container")
    };
    if request.tty {
        let (here, there) = UnixStream::pair().map_err(io_failed(MAKE))?;
        let execution = begin(vec![there.into()]).await?;
        return with_terminal(&here, request.stdin, execution);
    }
    let input = if request.stdin {
        let (write, read) = pipe::pipe().map_err(io_failed(MAKE))?;
        (Some(write), read.into_blocking_fd().map_err(io_failed(MAKE))?)
    } else {
        (None, OwnedFd::from(File::open("/dev/null").map_err(io_failed(MAKE))?))
    };
    let output = pipe::pipe().map_err(io_failed(MAKE))?;
    let error = pipe::pipe().map_err(io_failed(MAKE))?;
    let descriptors = vec![
        input.1,
        output.0.into_blocking_fd().map_err(io_failed(MAKE))?,
        error.0.into_blocking_fd().map_err(io_failed(MAKE))?,
    ];
    let execution = begin(descriptors).await?;
    Ok(Exec {
        stdin: input.0.map(|stdin| Box::pin(stdin) as Input),
        stdout: Box::pin(output.1),
        stderr: Some(Box::pin(error.1)),
        resize: None,
        exit: exit(execution),
    })
}

fn exit(execution: Conversation) -> Pin<Box<dyn Future<Output = Result<ExitCode>> + Send>> {
    let lost = failed("cannot learn how the command ended");
    Box::pin(async move { execution.exited().await.map_err(lost) })
}

fn with_terminal(socket: &UnixStream, stdin: bool, execution: Conversation) -> Result<Exec> {
    let terminal = take_terminal(socket)?;
    rustix::io::ioctl_fionbio(&terminal, true).map_err(|error| io_failed(MAKE)(error.into()))?;
    // A terminal is read and written as a pipe is, and only its kind is what goes unchecked.
    let again = || terminal.try_clone().map_err(io_failed(MAKE));
    let reader = pipe::Receiver::from_owned_fd_unchecked(again()?).map_err(io_failed(MAKE))?;
    let writer = || pipe::Sender::from_owned_fd_unchecked(again()?).map_err(io_failed(MAKE));
    let writer = stdin.then(writer).transpose()?;
    Ok(Exec {
        stdin: writer.map(|stdin| Box::pin(stdin) as Input),
        stdout: Box::pin(Terminal(reader)),
        stderr: None,
        resize: Some(resizer(terminal)),
        exit: exit(execution),
    })
}
