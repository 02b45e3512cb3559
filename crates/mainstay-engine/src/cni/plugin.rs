//! Running plugins.
//!
//! # Guarantees
//!
//! - Only a file of the plugin's name in one of the given directories is run.
//! - However long a plugin takes and whatever it writes: it is ended when its time is over
//!   ([`patience`]), with all that it started in its process group, and only the beginning of what it
//!   writes is kept.
//! - What an earlier agent started for a sandbox and did not live to see the end of can be ended
//!   ([`end_leftovers`]).

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mainstay_linux::process::Pidfd;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::answer::Complaint;
use super::error::CniError;
use super::request::{Command as Asked, Request};

/// How long a call may take. A kubelet gives up on a sandbox after twice its `runtimeRequestTimeout` of
/// 2 min, within which several plugins have their turn. While GC is called no sandbox is started, and
/// the others are only asked.
fn patience(command: Asked) -> Duration {
    Duration::from_secs(match command {
        Asked::Add | Asked::Del | Asked::Check => 120,
        Asked::Gc => 30,
        Asked::Status | Asked::Version => 10,
    })
}

/// How much of each stream is kept, in bytes.
const OUTPUT_MAX: usize = 1 << 20;

/// How often a program is tried that is just being written. Source: `pkg/invoke/raw_exec.go`.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// How long what was killed may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Variables of the agent that are not for others.
const WITHHELD: [&str; 5] =
    ["MAINSTAY_TOKEN", "MAINSTAY_LOG", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Finds the program of a plugin, whose type is known to be a name and no path.
pub(super) fn find(kind: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    directories.iter().map(|directory| directory.join(kind)).find(|path| path.is_file())
}

/// Calls a plugin and returns what it answered.
///
/// # Errors
///
/// When it is not there, cannot be run, takes too long, or says that it failed.
pub(super) async fn call(request: &Request, directories: &[PathBuf]) -> Result<Vec<u8>, CniError> {
    let Request { command, plugin, network, environment, input } = request;
    let failed = |problem: String| CniError::Call {
        command: *command,
        plugin: plugin.clone(),
        network: network.clone(),
        problem,
    };
    let Some(program) = find(plugin, directories) else {
        return Err(CniError::missing(plugin, network, directories));
    };
    // It has buffers, which nobody else has to carry.
    let run = Box::pin(run(&program, environment, input));
    let patience = patience(*command);
    let ended = tokio::time::timeout(patience, run).await;
    let ended =
        ended.map_err(|_| failed(format!("it took longer than {} s", patience.as_secs())))?;
    let Ended { success, how, stdout, stderr } =
        ended.map_err(|error| failed(format!("{} cannot be run: {error}", program.display())))?;
    if !stderr.is_empty() {
        let said = String::from_utf8_lossy(&stderr);
        tracing::debug!(plugin, command = command.name(), said = said.trim(), "a plugin says");
    }
    match success {
        true => Ok(stdout),
        false => Err(CniError::Plugin {
            command: *command,
            plugin: plugin.clone(),
            network: network.clone(),
            complaint: Complaint::of(&stdout, &stderr, &how),
        }),
    }
}

/// A program that has ended.
#[derive(Debug)]
struct Ended {
    success: bool,
    how: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Kills a process group when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nobody is left in it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn run(
    program: &Path,
    environment: &[(&'static str, String)],
    input: &[u8],
) -> io::Result<Ended> {
    let mut command = Command::new(program);
    command.current_dir("/").process_group(0);
    for name in WITHHELD {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tries = 0;
    let mut child = loop {
        match command.spawn() {
            Err(error) if tries < BUSY_TRIES && is_busy(&error) => tries += 1,
            other => break other?,
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    };
    // Until its end is seen, so that the number is still its own.
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let mut group = Group(id);
    let (mut stdin, mut stdout, mut stderr) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let status = {
        let write = async {
            if let Some(mut stdin) = stdin.take() {
                // One that does not want to know answers all the same.
                let _ = stdin.write_all(input).await;
            }
        };
        let read = async {
            tokio::join!(keep(stdout.as_mut(), &mut output), keep(stderr.as_mut(), &mut complaint));
            // It goes on without its streams.
            std::future::pending::<()>().await;
        };
        let write = async { tokio::join!(write, read) };
        tokio::select! {
            // What it started and left running may keep its streams open: nobody waits for that.
            status = child.wait() => status?,
            _ = write => return Err(io::ErrorKind::Other.into()),
        }
    };
    group.0 = None;
    drain(stdout.as_ref(), &mut output);
    drain(stderr.as_ref(), &mut complaint);
    Ok(Ended {
        success: status.success(),
        how: status.to_string(),
        stdout: output,
        stderr: complaint,
    })
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::TXTBSY.raw_os_error())
}

/// Keeps the beginning of what comes and drops the rest, so that nobody waits to get rid of it.
async fn keep(from: Option<&mut (impl AsyncReadExt + Unpin)>, kept: &mut Vec<u8>) {
    let Some(from) = from else { return };
    let mut buffer = [0; 4096];
    // What was read until an error is what there is.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        push(kept, &buffer[..count]);
    }
}

/// The rest of what a program wrote that has ended.
fn drain(from: Option<&impl AsFd>, kept: &mut Vec<u8>) {
    let Some(from) = from else { return };
    let mut buffer = [0; 4096];
    // Does not wait: the descriptor is that of a stream that tasks wait for.
    while kept.len() < OUTPUT_MAX {
        match rustix::io::read(from, &mut buffer) {
            Ok(count @ 1..) => push(kept, &buffer[..count]),
            _ => return,
        }
    }
}

fn push(kept: &mut Vec<u8>, more: &[u8]) {
    let room = OUTPUT_MAX.saturating_sub(kept.len());
    kept.extend_from_slice(&more[..more.len().min(room)]);
}

/// Ends all processes in whose environment there is `CNI_CONTAINERID` with this sandbox: plugins that
/// an earlier agent called for it, and what those called.
pub(super) fn end_leftovers(sandbox: &str) -> io::Result<()> {
    end_all_with(&format!("CNI_CONTAINERID={sandbox}"))
}

/// The same of any variable.
pub(super) fn end_all_with(variable: &str) -> io::Result<()> {
    let deadline = Instant::now() + KILL_PATIENCE;
    let mut killed = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // Opened before it is looked at, so that it cannot be another one that is killed. One that
        // has ended meanwhile is what is wanted.
        let Ok(process) = Pidfd::open(pid) else { continue };
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if !environment.split(|byte| *byte == 0).any(|it| it == variable.as_bytes()) {
            continue;
        }
        tracing::warn!(pid, variable, "a plugin that an earlier agent called is ended");
        match process.signal(Signal::KILL.as_raw()) {
            Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
                return Err(error);
            }
            _ => killed.push(process),
        }
    }
    for process in killed {
        if !process.wait_until(deadline)? {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a plugin that an earlier agent called does not end, although it was killed",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
