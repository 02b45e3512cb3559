//! Running one more process inside a container.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{ContainerId, Result};

/// What to run, and on which standard streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container.
    pub container: ContainerId,
    /// Program and arguments; the program is looked up in the container's `PATH`.
    pub command: Vec<String>,
    /// Whether the process gets a terminal. Its output then comes on `stdout` only.
    pub tty: bool,
    /// Whether the caller will send standard input.
    pub stdin: bool,
}

/// A command that is waited for. Source: `ExecSyncRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSyncRequest {
    /// The container.
    pub container: ContainerId,
    /// Program and arguments; the program is looked up in the container's `PATH`.
    pub command: Vec<String>,
    /// How long it may take, from the call on; `None` for as long as it takes.
    pub timeout: Option<Duration>,
}

/// A command that has ended. Source: `ExecSyncResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSync {
    /// The beginning of what it wrote to standard output: [`EXEC_SYNC_OUTPUT`] bytes at the most.
    pub stdout: Vec<u8>,
    /// The same of standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub exit_code: ExitCode,
}

/// How many bytes of each output of a command that is waited for are kept. The rest is read and
/// dropped, so that the command does not wait for a reader.
pub const EXEC_SYNC_OUTPUT: usize = 16 << 10;

/// What a client writes, on its way to a process.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// What a process writes, on its way to a client.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;

/// Tells a terminal its new size.
pub type Resize = Box<dyn Fn(TerminalSize) -> Result<()> + Send + Sync>;

/// A process that runs inside a container.
///
/// Dropping it closes the streams, which ends a process that reads or writes them; it does not
/// kill one that does neither.
pub struct Exec {
    /// Standard input, if it was asked for. Dropping it is end of file; a terminal has none, and goes on.
    pub stdin: Option<Input>,
    /// Standard output, or the terminal's output.
    pub stdout: Output,
    /// Standard error; absent when there is a terminal.
    pub stderr: Option<Output>,
    /// Tells the terminal its new size; absent without a terminal.
    pub resize: Option<Resize>,
    /// Resolves when the process ended.
    pub exit: Pin<Box<dyn Future<Output = Result<ExitCode>> + Send>>,
}

/// How a process ended: 0 to 255, or 128 plus the number of the signal that killed it.
pub type ExitCode = i32;

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}
