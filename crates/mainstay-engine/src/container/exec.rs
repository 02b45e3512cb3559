//! One more process in a container.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mainstay_cri::{Error, ErrorKind, Exec, ExecRequest, Result, TerminalSize};
use mainstay_linux::socket;
use mainstay_shim_protocol::{Exec as ShimExec, Process};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use crate::launch::SOCKET;
use crate::shim::{Execution, ShimError};
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
    let stream = socket::connect(&sandbox.directory.join(SOCKET))
        .map_err(io_failed("cannot reach the pod's shim"))?;
    let started = |execution: std::result::Result<Execution, ShimError>| {
        execution.map_err(|error| {
            let kind = match error {
                ShimError::CannotExecute(_) => ErrorKind::InvalidArgument,
                ShimError::NoSuchContainer => ErrorKind::NotFound,
                ShimError::WrongState(_) => ErrorKind::FailedPrecondition,
                _ => ErrorKind::Internal,
            };
            Error::with_source(kind, "cannot run the command in the container", error)
        })
    };
    if request.tty {
        let (here, there) = std::os::unix::net::UnixStream::pair().map_err(io_failed(MAKE))?;
        let execution = started(Execution::start(stream, exec, vec![there.into()]).await)?;
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
    let execution = started(Execution::start(stream, exec, descriptors).await)?;
    Ok(Exec {
        stdin: input.0.map(|stdin| Box::pin(stdin) as Pin<Box<dyn AsyncWrite + Send>>),
        stdout: Box::pin(output.1),
        stderr: Some(Box::pin(error.1)),
        resize: None,
        exit: exit(execution),
    })
}

const MAKE: &str = "cannot make the streams of the command";

fn exit(execution: Execution) -> Pin<Box<dyn Future<Output = Result<i32>> + Send>> {
    Box::pin(
        async move { execution.wait().await.map_err(failed("cannot learn how the command ended")) },
    )
}

fn with_terminal(
    socket: &std::os::unix::net::UnixStream,
    stdin: bool,
    execution: Execution,
) -> Result<Exec> {
    // It was sent before the reply that has come, so this does not wait.
    let (mut byte, mut descriptors) = ([0], Vec::new());
    socket::receive(socket, &mut byte, &mut descriptors).map_err(io_failed(MAKE))?;
    let terminal = descriptors
        .pop()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the command came without its terminal"))?;
    rustix::io::ioctl_fionbio(&terminal, true).map_err(|error| io_failed(MAKE)(error.into()))?;
    // A terminal is read and written as a pipe is, and only its kind is what goes unchecked.
    let again = || terminal.try_clone().map_err(io_failed(MAKE));
    let reader = pipe::Receiver::from_owned_fd_unchecked(again()?).map_err(io_failed(MAKE))?;
    let writer = || pipe::Sender::from_owned_fd_unchecked(again()?).map_err(io_failed(MAKE));
    let writer = stdin.then(writer).transpose()?;
    let sizer = terminal;
    let resize = move |size: TerminalSize| {
        let size = rustix::termios::Winsize {
            ws_row: size.height,
            ws_col: size.width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&sizer, size)
            .map_err(|error| io_failed("cannot resize the terminal")(error.into()))
    };
    Ok(Exec {
        stdin: writer.map(|stdin| Box::pin(stdin) as Pin<Box<dyn AsyncWrite + Send>>),
        stdout: Box::pin(Terminal(reader)),
        stderr: None,
        resize: Some(Box::new(resize)),
        exit: exit(execution),
    })
}

/// What comes out of a terminal, as a stream.
struct Terminal(pipe::Receiver);

impl AsyncRead for Terminal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(context, buffer)) {
            // How a terminal says that its last user has left.
            Err(error) if error.raw_os_error() == Some(EIO) => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}

/// Source: `include/uapi/asm-generic/errno-base.h`.
const EIO: i32 = 5;
