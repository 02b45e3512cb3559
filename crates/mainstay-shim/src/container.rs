//! One container's life in the shim.
//!
//! ```text
//! spawn ──► Creating ──ready──► Created ──start──► Starting ──end of channel──► Running
//!               │                  │                   │                          │
//!               └──────────────────┴──── process ends ─┴──────────────────────────┴──► Exited
//! ```
//!
//! The shim is the parent of the first process, so it alone learns how that ended; it writes it
//! to `exit.json` as well, for the case that it dies itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mainstay_linux::cgroup::{Hierarchies, Hierarchy};
use mainstay_linux::process::{Pidfd, signal_child};
use mainstay_linux::socket;
use mainstay_shim_protocol::{
    Attach, CgroupDirectories, Container as Spec, ContainerPhase, ExitStatus, Failure, Process,
    START_FAILED, nanoseconds,
};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

use crate::attach::{Clients, Streams};
use crate::cri_log::{Lines, Log, Stream};
use crate::handshake::{self, Report};
use crate::init::{self, Membership, Stdio};
use crate::namespaces::Pod;
use crate::shim::Asker;

pub(crate) struct Container {
    bundle: PathBuf,
    /// Whether its processes end with the first one of them.
    alone: bool,
    membership: Membership,
    phase: Phase,
    pid: i32,
    process: Pidfd,
    channel: Option<handshake::Parent>,
    outputs: Vec<Output>,
    log: Log,
    /// Whether standard input is open.
    stdin: bool,
    /// The controlling side of the terminal, if there is one, to set its size by.
    terminal: Option<OwnedFd>,
    pub(crate) clients: Clients,
}

enum Phase {
    Creating,
    Created,
    Starting { at: Timestamp, failure: Option<Failure> },
    Running { since: Timestamp },
    Exited(ExitStatus),
}

/// Something that a process writes to and the shim reads from.
pub(crate) struct Output {
    source: File,
    stream: Stream,
    lines: Lines,
}

/// What came of a report of the child.
pub(crate) enum Progress {
    /// There is no report.
    Silent,
    /// Nothing to tell yet.
    None,
    /// The container waits for its start.
    Created(i32),
    /// The program runs.
    Started(Timestamp),
    /// It will not come to run. The process ends by itself.
    Failed(Failure),
}

impl Container {
    /// Starts making a container. `target` is the one whose process numbers it is to have.
    pub(crate) fn spawn(spec: &Spec, pod: &Pod, target: Option<&Self>) -> io::Result<Self> {
        let log = Log::open(Path::new(&spec.log_path)).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open the log {}: {error}", spec.log_path))
        })?;
        let (parent, child) = handshake::channel()?;
        let mut outputs = Vec::new();
        let mut clients = Clients::default();
        let stdio = if spec.process.terminal {
            Stdio::Terminal
        } else {
            let input = if spec.stdin {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                clients.set_stdin(write, spec.stdin_once)?;
                read
            } else {
                open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?
            };
            let (output, error) = (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
            outputs.push(Output::new(output.0, Stream::Stdout)?);
            outputs.push(Output::new(error.0, Stream::Stderr)?);
            Stdio::Streams([input, output.1, error.1])
        };
        let pid = init::spawn(spec, pod, target.map(|it| &it.process), stdio, &child)
            .map_err(|error| io::Error::other(init::chain(&error)))?;
        Ok(Self {
            bundle: PathBuf::from(&spec.bundle),
            alone: spec.new_pid_namespace && target.is_none(),
            membership: Membership {
                cgroup: spec.cgroup.clone(),
                new_cgroup_namespace: spec.new_cgroup_namespace,
                users: pod.users.clone(),
            },
            phase: Phase::Creating,
            pid,
            process: Pidfd::open(pid)?,
            channel: Some(parent),
            outputs,
            log,
            stdin: spec.stdin,
            terminal: None,
            clients,
        })
    }

    /// Starts one more process. Its number comes through the channel.
    pub(crate) fn exec(
        &self,
        process: &Process,
        stdio: Stdio,
    ) -> Result<handshake::Parent, Failure> {
        if !self.runs() {
            return Err(self.wrong_state("running"));
        }
        let failed = |error: io::Error| Failure::Failed(error.to_string());
        let (parent, child) = handshake::channel().map_err(failed)?;
        init::spawn_in(&self.membership, &self.process, process, stdio, &child)
            .map_err(|error| Failure::Failed(init::chain(&error)))?;
        Ok(parent)
    }

    /// Joins a client to its streams; `descriptors` are those of [`Attach`].
    pub(crate) fn attach(
        &mut self,
        asker: Asker,
        attach: &Attach,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        if matches!(self.phase, Phase::Exited(_)) {
            return Err(self.wrong_state("running"));
        }
        let Attach { stdin, stdout, stderr, terminal, .. } = *attach;
        let count = [stdin, stdout, stderr, terminal].into_iter().filter(|it| *it).count();
        if descriptors.len() != count {
            return Err(Failure::Failed("an attach came without its descriptors".into()));
        }
        let failed = |error: io::Error| Failure::Failed(format!("cannot attach: {error}"));
        let mut descriptors = descriptors.into_iter();
        let mut next = |wanted: bool| if wanted { descriptors.next() } else { None };
        let streams = Streams { stdin: next(stdin), stdout: next(stdout), stderr: next(stderr) };
        if let Some(socket) = next(terminal) {
            let none = || Failure::WrongState("the container has no terminal".into());
            let terminal = self.terminal.as_ref().ok_or_else(none)?;
            socket::send(&socket, b"T", &[terminal.as_fd()]).map_err(failed)?;
        }
        self.clients.add(asker, streams).map_err(failed)
    }

    fn take_terminal(&mut self, terminal: OwnedFd) -> io::Result<()> {
        let again = terminal.try_clone()?;
        if self.stdin {
            self.clients.set_stdin(terminal.try_clone()?, false)?;
        }
        self.outputs.push(Output::new(terminal, Stream::Stdout)?);
        self.terminal = Some(again);
        Ok(())
    }

    /// Lets a created container run.
    pub(crate) fn start(&mut self, now: Timestamp) -> Result<(), Failure> {
        let (Phase::Created, Some(channel)) = (&self.phase, &self.channel) else {
            return Err(self.wrong_state("created"));
        };
        channel.go_on().map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
        self.phase = Phase::Starting { at: now, failure: None };
        Ok(())
    }

    /// Sends a signal to the first process. One that has ended is success.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), Failure> {
        if matches!(self.phase, Phase::Exited(_)) {
            return Ok(());
        }
        signal_child(self.pid, signal)
            .map_err(|error| Failure::Failed(format!("cannot send signal {signal}: {error}")))
    }

    pub(crate) fn reopen_log(&mut self) -> Result<(), Failure> {
        self.log
            .reopen()
            .map_err(|error| Failure::Failed(format!("cannot reopen the log: {error}")))
    }

    /// Where to listen for the child, until it has become the program.
    pub(crate) fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// Where to listen for output.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        self.outputs.iter().map(|output| (output.stream, output.source.as_fd()))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Takes the child's next report.
    pub(crate) fn advance(&mut self) -> Progress {
        let Some(channel) = &self.channel else { return Progress::Silent };
        let report = match channel.receive() {
            Ok(report) => report,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Silent,
            Err(error) => {
                self.channel = None;
                Some(Report::Failed(format!("cannot hear the container: {error}")))
            }
        };
        match (report, &mut self.phase) {
            (Some(Report::Ready), Phase::Creating) => {
                self.phase = Phase::Created;
                Progress::Created(self.pid)
            }
            (Some(Report::Terminal(terminal)), _) => match self.take_terminal(terminal) {
                Ok(()) => Progress::None,
                Err(error) => Progress::Failed(Failure::Failed(error.to_string())),
            },
            (Some(report), phase) => {
                let failure = match report {
                    Report::CannotExecute(text) => Failure::CannotExecute(text),
                    Report::Failed(text) => Failure::Failed(text),
                    other => Failure::Failed(format!("an unexpected report: {other:?}")),
                };
                if let Phase::Starting { failure: kept, .. } = phase {
                    *kept = Some(failure.clone());
                }
                Progress::Failed(failure)
            }
            (None, phase) => {
                self.channel = None;
                match phase {
                    Phase::Starting { at, failure: None } => {
                        let since = *at;
                        *phase = Phase::Running { since };
                        Progress::Started(since)
                    }
                    Phase::Creating => Progress::Failed(Failure::Failed(
                        "its process ended while being set up".into(),
                    )),
                    _ => Progress::None,
                }
            }
        }
    }

    /// Reads one output and writes it to the log, and to those who are attached. Returns the first
    /// error of the log.
    pub(crate) fn drain(
        &mut self,
        stream: Stream,
        now: Timestamp,
        buffer: &mut [u8],
    ) -> Option<io::Error> {
        let mut lines = Vec::new();
        let which = self.outputs.iter().position(|output| output.stream == stream)?;
        let reading = self.outputs.get_mut(which)?.read(now, buffer, &mut lines);
        let error = self.log.write(&lines);
        match reading {
            Reading::Some(length) => self.clients.hear(stream, &buffer[..length]),
            Reading::Nothing => {}
            Reading::End => drop(self.outputs.remove(which)),
        }
        error
    }

    /// Reads what the first process had written when it ended.
    ///
    /// That is no more than the kernel holds. There may be more without end: the process may have
    /// given its outputs to others, which write on.
    fn drain_all(&mut self, now: Timestamp, buffer: &mut [u8]) -> Option<io::Error> {
        let mut first = None;
        let (log, clients) = (&mut self.log, &mut self.clients);
        self.outputs.retain_mut(|output| {
            let mut rest = output.capacity();
            while rest > 0 {
                let mut lines = Vec::new();
                let reading = output.read(now, buffer, &mut lines);
                first = first.take().or(log.write(&lines));
                match reading {
                    Reading::Some(length) => {
                        clients.hear(output.stream, &buffer[..length]);
                        rest = rest.saturating_sub(length);
                    }
                    Reading::Nothing => break,
                    Reading::End => return false,
                }
            }
            true
        });
        first
    }

    /// The first process has ended. Returns how, and the first error of the log.
    pub(crate) fn ended(
        &mut self,
        exit_code: i32,
        now: Timestamp,
        buffer: &mut [u8],
    ) -> (ExitStatus, Option<io::Error>) {
        self.end_rest();
        // What it wrote last is in the log before anybody hears of its end.
        let log_error = self.drain_all(now, buffer);
        let (started_at, exit_code) = match &self.phase {
            Phase::Starting { failure: Some(_), .. } => (None, START_FAILED),
            Phase::Starting { at, .. } => (Some(*at), exit_code),
            Phase::Running { since } => (Some(*since), exit_code),
            Phase::Creating | Phase::Created | Phase::Exited(_) => (None, exit_code),
        };
        let status = ExitStatus {
            started_at: started_at.map(nanoseconds),
            finished_at: nanoseconds(now),
            exit_code,
        };
        self.phase = Phase::Exited(status.clone());
        self.channel = None;
        // The machine has not so many terminals that one may stay with who needs none.
        self.terminal = None;
        self.clients.end();
        self.remember(&status);
        (status, log_error)
    }

    /// Kills what the first process left behind: with its end the container has ended, as one with
    /// process numbers of its own has by itself.
    fn end_rest(&self) {
        /// One that is killed forks no more; what the last round missed was forked before.
        const ROUNDS: usize = 16;
        if self.alone {
            return;
        }
        let CgroupDirectories { unified, legacy } = &self.membership.cgroup;
        let group = |directory: &String, unified| Hierarchy {
            mount_point: PathBuf::from(directory),
            controllers: BTreeSet::new(),
            unified,
        };
        let unified = unified.iter().map(|directory| group(directory, true));
        let groups = unified.chain(legacy.iter().map(|directory| group(directory, false)));
        let groups = Hierarchies::of(groups.collect());
        for _ in 0..ROUNDS {
            match groups.at("").kill() {
                Ok(0) => return,
                Ok(_) => {}
                // Whoever removes the container's control group kills what is left.
                Err(error) => return crate::complain(format_args!("{}", init::chain(&error))),
            }
        }
    }

    /// Leaves the exit status where it is found when the shim is gone.
    fn remember(&self, status: &ExitStatus) {
        let write = || -> io::Result<()> {
            let new = self.bundle.join("exit.json.new");
            std::fs::write(&new, serde_json::to_vec(status)?)?;
            std::fs::rename(&new, self.bundle.join("exit.json"))
        };
        // It is a second copy: losing it costs the exit code of a container whose shim is killed
        // before the engine has read the first one.
        if let Err(error) = write() {
            let bundle = self.bundle.display();
            crate::complain(format_args!("cannot write exit.json in {bundle}: {error}"));
        }
    }

    /// Whether its program runs.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Exited(_))
    }

    pub(crate) fn report(&self) -> ContainerPhase {
        match &self.phase {
            Phase::Creating => ContainerPhase::Creating,
            Phase::Created => ContainerPhase::Created { pid: self.pid },
            Phase::Starting { at: since, .. } | Phase::Running { since } => {
                ContainerPhase::Running { pid: self.pid, started_at: nanoseconds(*since) }
            }
            Phase::Exited(status) => ContainerPhase::Exited(status.clone()),
        }
    }

    fn wrong_state(&self, wanted: &str) -> Failure {
        let is = match self.phase {
            Phase::Creating => "being created",
            Phase::Created => "created",
            Phase::Starting { .. } => "being started",
            Phase::Running { .. } => "running",
            Phase::Exited(_) => "ended",
        };
        Failure::WrongState(format!("the container is {is}, not {wanted}"))
    }
}

/// What came of reading an [`Output`] once.
enum Reading {
    /// So many bytes; there may be more.
    Some(usize),
    Nothing,
    /// All who could write have left.
    End,
}

impl Output {
    fn new(source: OwnedFd, stream: Stream) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&source, true)?;
        Ok(Self { source: source.into(), stream, lines: Lines::default() })
    }

    /// Reads once, and appends the lines that are complete to `lines`.
    fn read(&mut self, now: Timestamp, buffer: &mut [u8], lines: &mut Vec<u8>) -> Reading {
        match self.source.read(buffer) {
            Ok(length) if length > 0 => {
                self.lines.push(self.stream, &buffer[..length], now, lines);
                Reading::Some(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Reading::Some(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Reading::Nothing,
            // The end; a terminal whose last user has left says so with an error (EIO).
            Ok(_) | Err(_) => {
                self.lines.finish(self.stream, now, lines);
                Reading::End
            }
        }
    }

    /// How many bytes the kernel holds at most between the process and us.
    fn capacity(&self) -> usize {
        // It is a terminal if it is no pipe; those hold less than a pipe usually does.
        // Source: `drivers/tty/pty.c`, `tty_buffer_set_limit`.
        fcntl_getpipe_size(&self.source).unwrap_or(64 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_without_end_does_not_keep_the_end_of_its_container() {
        let directory = tempfile::tempdir().unwrap();
        let endless = File::open("/dev/zero").unwrap();
        let mut container = Container {
            alone: true,
            bundle: directory.path().to_owned(),
            membership: Membership {
                cgroup: Default::default(),
                new_cgroup_namespace: false,
                users: None,
            },
            phase: Phase::Creating,
            pid: 1,
            process: Pidfd::open(1).unwrap(),
            channel: None,
            outputs: vec![Output::new(endless.into(), Stream::Stdout).unwrap()],
            log: Log::open(&directory.path().join("log")).unwrap(),
            stdin: false,
            terminal: None,
            clients: Clients::default(),
        };
        let (status, failed) = container.ended(3, Timestamp::UNIX_EPOCH, &mut [0; 16 << 10]);
        assert!(status.exit_code == 3 && failed.is_none());
        // It is read on like any other.
        assert_eq!(container.outputs().count(), 1);
    }
}
