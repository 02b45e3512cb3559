//! One more process in a container.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay_cri::{
    Error, ErrorKind, Exec, ExecRequest, ExecSync, ExecSyncRequest, ExitCode, Input, Output, Result,
};
use mainstay_linux::process::Pidfd;
use mainstay_shim_protocol::{Command, Exec as ShimExec, Process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until, timeout};

use super::streams::{self, MAKE, Terminal, resizer, take_terminal};
use crate::shim::Conversation;
use crate::{Instance, failed, io_failed};

/// Starts a process in a running container.
pub(crate) async fn exec(engine: &Arc<Instance>, request: &ExecRequest) -> Result<Exec> {
    start(engine, request).await.map(|(exec, _)| exec)
}

/// How long the outputs of a command that has ended may take to end, too. What it wrote itself is there
/// already; a child of its own may hold them for ever.
const DRAIN_PATIENCE: Duration = Duration::from_millis(100);

/// Runs a process in a running container and waits for its end. So many bytes are kept of each output. When
/// `left` resolves nobody waits any more, and it is killed.
pub(crate) async fn exec_sync(
    engine: &Arc<Instance>,
    request: &ExecSyncRequest,
    most: usize,
    left: impl Future<Output = ()>,
) -> Result<ExecSync> {
    let deadline = request.timeout.map(|timeout| Instant::now() + timeout);
    let ExecSyncRequest { container, command, .. } = request.clone();
    let asked = ExecRequest { container, command, tty: false, stdin: false };
    // Not given up half-way: what has been started has to be known to be killed.
    let (exec, pid) = start(engine, &asked).await?;
    let process = pid.and_then(|pid| Pidfd::open(pid).ok().map(|process| (pid, process)));
    let Exec { mut stdout, stderr, exit, .. } = exec;
    let (mut output, mut error) = (Vec::new(), Vec::new());
    let outputs = async {
        let error = async {
            if let Some(mut stderr) = stderr {
                keep(&mut stderr, &mut error, most).await;
            }
        };
        tokio::join!(keep(&mut stdout, &mut output, most), error);
    };
    let ended = async {
        tokio::pin!(outputs, exit);
        let code = tokio::select! {
            code = &mut exit => {
                // Whether they end is not the command's business any more.
                let _ = timeout(DRAIN_PATIENCE, outputs).await;
                code
            }
            () = &mut outputs => exit.await,
        };
        code
    };
    let late = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        code = ended => {
            let exit_code = code?;
            return Ok(ExecSync { stdout: output, stderr: error, exit_code });
        }
        () = late => "the command has not ended in its time and was killed",
        () = left => "nobody waits for the command any more, and it was killed",
    };
    if let Some((pid, process)) = process {
        kill_session(pid, &process)?;
    }
    Err(Error::new(ErrorKind::DeadlineExceeded, why))
}

/// Reads to the end, and keeps the beginning.
async fn keep(from: &mut Output, kept: &mut Vec<u8>, most: usize) {
    let mut piece = Vec::with_capacity(4096);
    // What cannot be read is not there.
    while let Ok(1..) = from.read_buf(&mut piece).await {
        let room = most - kept.len();
        kept.extend_from_slice(&piece[..piece.len().min(room)]);
        piece.clear();
    }
}

/// Kills a process that leads a session of its own, as all do that a shim starts, and with it those of its
/// children that are still in its process group.
fn kill_session(pid: i32, process: &Pidfd) -> Result<()> {
    let failed = |error| io_failed("cannot kill the command that nobody waits for any more")(error);
    // As long as it has not ended, its number is nobody else's.
    if process.wait_until(std::time::Instant::now()).map_err(failed)? {
        return Ok(());
    }
    let Some(group) = rustix::process::Pid::from_raw(pid) else { return Ok(()) };
    match rustix::process::kill_process_group(group, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// Starts a process; says which, as seen from the host.
async fn start(engine: &Arc<Instance>, request: &ExecRequest) -> Result<(Exec, Option<i32>)> {
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
        let pid = execution.pid;
        return Ok((with_terminal(&here, request.stdin, execution)?, pid));
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
    let pid = execution.pid;
    let exec = Exec {
        stdin: input.0.map(|stdin| Box::pin(stdin) as Input),
        stdout: Box::pin(output.1),
        stderr: Some(Box::pin(error.1)),
        resize: None,
        exit: exit(execution),
    };
    Ok((exec, pid))
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
