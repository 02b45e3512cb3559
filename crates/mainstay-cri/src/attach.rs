//! Joining the streams of a container, and reaching its ports.

use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{ContainerId, Input, Output, Resize, Result};

/// Which streams of a container to join. Source: `AttachRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// The container.
    pub container: ContainerId,
    /// Whether the caller will send standard input. A container that was made without it reads
    /// nothing.
    pub stdin: bool,
    /// Whether the container has a terminal; the same as at its making.
    pub tty: bool,
    /// Whether the caller wants standard output, or the terminal's output.
    pub stdout: bool,
    /// Whether the caller wants standard error. There is none with a terminal.
    pub stderr: bool,
}

/// A container's streams, from now on: what it wrote before is in its log.
///
/// # Guarantees
///
/// - Neither the container nor its log waits for whoever is attached. One who does not read for so
///   long that the runtime cannot keep what was written gets nothing more, and an error at
///   [`Self::end`].
/// - The end of the input is the end of the container's standard input if that was to be so
///   ([`crate::ContainerConfig::stdin_once`]) and it has no terminal; the outputs then go on.
///   Otherwise the container notices nothing, and the outputs end.
pub struct Attached {
    /// Standard input, if it was asked for. Dropping it is its end. Fails with `BrokenPipe` when
    /// the container has no standard input, or has it no more.
    pub stdin: Option<Input>,
    /// Standard output, or the terminal's output, if it was asked for.
    pub stdout: Option<Output>,
    /// Standard error, if it was asked for and there is no terminal.
    pub stderr: Option<Output>,
    /// Tells the terminal its new size; absent without a terminal.
    pub resize: Option<Resize>,
    /// Resolves when no more output comes.
    pub end: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// How the message of [`Attached::end`]'s error begins for one who did not read: over the protocol the
/// message is all that arrives.
pub const FELL_BEHIND: &str = "the container writes faster than is read";

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A connection to a port of a sandbox.
pub type PortForward = Pin<Box<dyn Duplex>>;
