//! What `exec` and `attach` share: asking a shim on a connection of its own, and streams.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mainstay_cri::{Error, ErrorKind, Resize, Result, TerminalSize};
use mainstay_linux::socket;
use mainstay_shim_protocol::Command;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

use crate::io_failed;
use crate::launch::SOCKET;
use crate::sandbox::Sandbox;
use crate::shim::{Conversation, ShimError};

/// What is said when a stream cannot be made.
pub(super) const MAKE: &str = "cannot make the streams of the command";

/// Asks the sandbox's shim on a connection of its own; `what` is said when it fails.
pub(super) async fn begin(
    sandbox: &Sandbox,
    command: Command,
    descriptors: Vec<OwnedFd>,
    what: &str,
) -> Result<Conversation> {
    let stream = socket::connect(&sandbox.directory.join(SOCKET))
        .map_err(io_failed("cannot reach the pod's shim"))?;
    Conversation::begin(stream, command, descriptors).await.map_err(|error| {
        let kind = match error {
            ShimError::CannotExecute(_) => ErrorKind::InvalidArgument,
            ShimError::NoSuchContainer => ErrorKind::NotFound,
            ShimError::WrongState(_) => ErrorKind::FailedPrecondition,
            ShimError::TooOld { .. } | ShimError::Version { .. } => ErrorKind::Unimplemented,
            _ => ErrorKind::Internal,
        };
        Error::with_source(kind, what, error)
    })
}

/// The terminal that a shim has sent before its reply.
pub(super) fn take_terminal(socket: &UnixStream) -> Result<OwnedFd> {
    // It has come by now, so this does not wait.
    let (mut byte, mut descriptors) = ([0], Vec::new());
    socket::receive(socket, &mut byte, &mut descriptors).map_err(io_failed(MAKE))?;
    descriptors
        .pop()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the shim has not sent the terminal"))
}

/// Sets the size of a terminal.
pub(super) fn resizer(terminal: OwnedFd) -> Resize {
    Box::new(move |size: TerminalSize| {
        let size = rustix::termios::Winsize {
            ws_row: size.height,
            ws_col: size.width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&terminal, size)
            .map_err(|error| io_failed("cannot resize the terminal")(error.into()))
    })
}

/// What comes out of a terminal, as a stream.
pub(super) struct Terminal(pub(super) pipe::Receiver);

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
