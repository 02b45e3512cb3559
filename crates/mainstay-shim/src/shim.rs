//! The shim's one loop.
//!
//! # Flow
//!
//! One `poll` over everything that can speak: the listening socket, signals, connections, the
//! channels of processes on their way, and what containers write. Each turn hears them in an order
//! that keeps the story straight: reports of children before their ends, requests last.
//!
//! # Guarantees
//!
//! - Nothing here waits for anything but that `poll`.
//! - A shim without a container ends when its last connection closes and none comes within
//!   [`IDLE_LIFE`]: the agent that started it is gone, and nobody needs it.
//! - Asked to end by a signal, as all processes are when the machine is shut down, the shim ends
//!   when its last container has: until then their logs have a writer.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mainstay_linux::process::{self, Ended, Heard, Signals};
use mainstay_shim_protocol::{
    Command, Container as Spec, ContainerReport, Event, Exec, Failure, Hello, Message, Outcome,
    PROTOCOL, Reply, Request, SandboxNamespaces, Success, nanoseconds,
};
use rustix::event::PollFlags;

use crate::connection::{Closed, Connection};
use crate::container::{Container, Progress};
use crate::cri_log::Stream;
use crate::handshake::{self, Report};
use crate::init::{self, Stdio};
use crate::namespaces;
use crate::watch::Watch;

/// How long a shim without containers and without connections stays. Long enough for an agent to
/// restart; the agent finds what it needs in the run directory either way.
const IDLE_LIFE: Duration = Duration::from_secs(60);

pub(crate) struct Shim {
    listener: UnixListener,
    signals: Signals,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    containers: BTreeMap<String, Container>,
    pod: namespaces::Pod,
    /// Who waits for a container to be created or started.
    waiting: BTreeMap<String, Asker>,
    execs: Vec<Execution>,
    idle_since: Option<Instant>,
    buffer: Box<[u8]>,
    /// A signal asked for the end.
    terminating: bool,
    done: bool,
}

/// A request that is answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) connection: u64,
    pub(crate) number: u64,
}

/// One more process in a container.
struct Execution {
    asker: Asker,
    channel: Option<handshake::Parent>,
    pid: Option<i32>,
    answered: bool,
}

/// What a descriptor of the `poll` stands for.
enum Source {
    Listener,
    Signals,
    Connection(u64),
    Channel(String),
    Output(String, Stream),
    /// What a client sends to a container.
    Input(String, Asker),
    /// A container that takes more of it.
    Stdin(String),
    Exec(usize),
}

impl Shim {
    pub(crate) fn new(listener: UnixListener, signals: Signals) -> Self {
        Self {
            listener,
            signals,
            connections: BTreeMap::new(),
            next_connection: 0,
            containers: BTreeMap::new(),
            pod: namespaces::Pod::default(),
            waiting: BTreeMap::new(),
            execs: Vec::new(),
            idle_since: Some(Instant::now()),
            buffer: vec![0; 16 << 10].into_boxed_slice(),
            terminating: false,
            done: false,
        }
    }

    /// Serves until told to end, or until nobody needs the shim.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.done {
            let Some(ready) = self.wait()? else { return Ok(()) };
            let mut heard = Heard::default();
            let mut requests = Vec::new();
            for source in ready {
                match source {
                    Source::Listener => self.accept(),
                    Source::Signals => heard = self.signals.take(),
                    Source::Connection(id) => requests.push(id),
                    Source::Channel(id) => drop(self.advance(&id)),
                    Source::Output(id, stream) => self.drain(&id, stream),
                    Source::Input(id, asker) => {
                        if let Some(container) = self.containers.get_mut(&id) {
                            container.clients.pass_on(asker, &mut self.buffer);
                        }
                    }
                    Source::Stdin(id) => {
                        if let Some(container) = self.containers.get_mut(&id) {
                            container.clients.flush();
                        }
                    }
                    Source::Exec(which) => drop(self.advance_exec(which)),
                }
            }
            if heard.child {
                self.reap()?;
            }
            self.tell_detached();
            self.execs.retain(|exec| exec.pid.is_some() || exec.channel.is_some());
            for id in requests {
                self.hear(id);
            }
            let idle = self.connections.is_empty() && self.containers.is_empty();
            self.terminating |= heard.terminate;
            self.done |= self.terminating && !self.is_busy();
            self.idle_since = idle.then(|| self.idle_since.unwrap_or_else(Instant::now));
        }
        Ok(())
    }

    /// What can be heard without waiting; `None` when the shim is not needed any more.
    fn wait(&mut self) -> io::Result<Option<Vec<Source>>> {
        let now = Instant::now();
        let mut watch = Watch::default();
        if let Some(since) = self.idle_since {
            let end = since + IDLE_LIFE;
            if end < now {
                return Ok(None);
            }
            watch.until(end);
        }
        watch.add(Source::Listener, self.listener.as_fd());
        watch.add(Source::Signals, self.signals.as_fd());
        for (id, connection) in &self.connections {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, connection.is_waiting());
            watch.add_for(Source::Connection(*id), connection.as_fd(), flags);
        }
        for (id, container) in &self.containers {
            if let Some(channel) = container.channel() {
                watch.add(Source::Channel(id.clone()), channel);
            }
            for (stream, output) in container.outputs() {
                watch.add(Source::Output(id.clone(), stream), output);
            }
            for (asker, input) in container.clients.inputs() {
                watch.add(Source::Input(id.clone(), asker), input);
            }
            if let Some(stdin) = container.clients.blocked() {
                watch.add_for(Source::Stdin(id.clone()), stdin, PollFlags::OUT);
            }
        }
        for (which, exec) in self.execs.iter().enumerate() {
            if let Some(channel) = &exec.channel {
                watch.add(Source::Exec(which), channel.as_fd());
            }
        }
        watch.wait(now).map(Some)
    }

    fn accept(&mut self) {
        let hello = Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id().cast_signed(),
            attach: true,
            apparmor: true,
        };
        if let Some(connection) = Connection::accept(&self.listener, &hello) {
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    /// Takes in and carries out what came on a connection.
    fn hear(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut closed = connection.hear(&mut self.buffer).is_err();
        // What was asked for before the end is carried out all the same.
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            match connection.next_request() {
                Ok(Some(request)) => self.carry_out(id, request),
                Ok(None) => break,
                Err(Closed) => {
                    closed = true;
                    break;
                }
            }
        }
        if closed {
            self.close(id);
        }
    }

    fn close(&mut self, connection: u64) {
        self.connections.remove(&connection);
        for container in self.containers.values_mut() {
            container.clients.forget(connection);
        }
    }

    fn carry_out(&mut self, connection: u64, request: Request) {
        let asker = Asker { connection, number: request.number };
        let descriptors = self
            .connections
            .get_mut(&connection)
            .map(Connection::take_descriptors)
            .unwrap_or_default();
        let done = |result: Result<(), Failure>| Some(result.map(|()| Success::Done));
        let outcome = match request.command {
            Command::EnterNamespaces(which) => done(self.enter(&which)),
            Command::CreateContainer(spec) => match self.create(&spec) {
                Ok(container) => {
                    self.containers.insert(spec.id.clone(), container);
                    self.waiting.insert(spec.id, asker);
                    None
                }
                Err(failure) => Some(Err(failure)),
            },
            Command::StartContainer { id } => match self.container(&id) {
                Ok(container) => match container.start(Timestamp::now()) {
                    Ok(()) => {
                        self.waiting.insert(id, asker);
                        None
                    }
                    Err(failure) => Some(Err(failure)),
                },
                Err(failure) => Some(Err(failure)),
            },
            Command::SignalContainer { id, signal } => {
                done(self.container(&id).and_then(|container| container.signal(signal)))
            }
            Command::RemoveContainer { id } => done(self.remove(&id)),
            Command::ReopenLog { id } => done(self.container(&id).and_then(Container::reopen_log)),
            Command::Exec(exec) => self.exec(asker, &exec, descriptors).err().map(Err),
            Command::Attach(attach) => {
                let attached = self
                    .container(&attach.id)
                    .and_then(|container| container.attach(asker, &attach, descriptors));
                Some(attached.map(|()| Success::Attached))
            }
            Command::Report => Some(Ok(self.report())),
            Command::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.subscribed = true;
                }
                Some(Ok(self.report()))
            }
            Command::Shutdown => {
                let busy = self.is_busy();
                self.done = !busy;
                let refused = || Failure::WrongState("a container has not ended".into());
                Some(if busy { Err(refused()) } else { Ok(Success::Done) })
            }
        };
        if let Some(outcome) = outcome {
            self.answer(asker, outcome);
        }
    }

    fn enter(&mut self, which: &SandboxNamespaces) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| Failure::Failed(init::chain(error));
        // While all hierarchies can be reached.
        init::join_legacy_groups(&which.cgroup).map_err(|error| failed(&error))?;
        self.pod = namespaces::enter(which).map_err(|error| failed(&error))?;
        if let Some(cgroup) = &which.processes {
            self.pod.reaper = Some(init::spawn_reaper(cgroup).map_err(|error| failed(&error))?);
        }
        Ok(())
    }

    /// Starts making a container.
    fn create(&self, spec: &Spec) -> Result<Container, Failure> {
        if self.containers.contains_key(&spec.id) {
            return Err(Failure::WrongState("the container exists already".into()));
        }
        let running = |id: &String| {
            let target = self.containers.get(id).filter(|target| target.runs());
            target.ok_or_else(|| {
                let text =
                    format!("the container {id}, whose processes it is to see, does not run");
                Failure::WrongState(text)
            })
        };
        let target = spec.processes_of.as_ref().map(running).transpose()?;
        Container::spawn(spec, &self.pod, target)
            .map_err(|error| Failure::Failed(error.to_string()))
    }

    fn is_busy(&self) -> bool {
        self.containers.values().any(|container| !container.has_ended())
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers.get_mut(id).ok_or(Failure::NoSuchContainer)
    }

    fn remove(&mut self, id: &str) -> Result<(), Failure> {
        if !self.container(id)?.has_ended() {
            return Err(Failure::WrongState("the container has not ended".into()));
        }
        self.containers.remove(id);
        Ok(())
    }

    fn exec(
        &mut self,
        asker: Asker,
        exec: &Exec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let wrong = || Failure::Failed("an exec came without its descriptors".into());
        let stdio = if exec.process.terminal {
            let [socket] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| wrong())?;
            Stdio::TerminalTo(socket)
        } else {
            Stdio::Streams(<[OwnedFd; 3]>::try_from(descriptors).map_err(|_| wrong())?)
        };
        let channel = self.container(&exec.id)?.exec(&exec.process, stdio)?;
        self.execs.push(Execution { asker, channel: Some(channel), pid: None, answered: false });
        Ok(())
    }

    /// Hears one report of a container's process. Returns whether there may be more.
    fn advance(&mut self, id: &str) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return false };
        let outcome = match container.advance() {
            Progress::Silent => return false,
            Progress::None => return true,
            Progress::Created(pid) => Ok(Success::Created { pid }),
            Progress::Started(at) => Ok(Success::Started { at: nanoseconds(at) }),
            Progress::Failed(failure) => Err(failure),
        };
        if let Some(asker) = self.waiting.remove(id) {
            self.answer(asker, outcome);
        }
        true
    }

    /// Hears one report of a further process. Returns whether there may be more.
    fn advance_exec(&mut self, which: usize) -> bool {
        let Some(exec) = self.execs.get_mut(which) else { return false };
        let Some(channel) = &exec.channel else { return false };
        let outcome = match channel.receive() {
            Ok(Some(Report::Pid(pid))) => {
                exec.pid = Some(pid);
                return true;
            }
            Ok(Some(Report::CannotExecute(text))) => Err(Failure::CannotExecute(text)),
            Ok(Some(Report::Failed(text))) => Err(Failure::Failed(text)),
            Ok(Some(other)) => Err(Failure::Failed(format!("an unexpected report: {other:?}"))),
            Ok(None) => {
                exec.channel = None;
                let vanished = || Failure::Failed("its process ended while being set up".into());
                exec.pid.map(|pid| Success::Executing { pid }).ok_or_else(vanished)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                exec.channel = None;
                Err(Failure::Failed(format!("cannot hear the process: {error}")))
            }
        };
        if !std::mem::replace(&mut exec.answered, true) {
            let asker = exec.asker;
            self.answer(asker, outcome);
        }
        true
    }

    fn drain(&mut self, id: &str, stream: Stream) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let failed = container.drain(stream, Timestamp::now(), &mut self.buffer);
        self.tell_log_failure(id, failed);
    }

    /// Takes leave of all children that have ended.
    fn reap(&mut self) -> io::Result<()> {
        // The signal is only a reason to look; one may stand for many.
        while let Some(Ended { pid, exit_code }) = process::reap_any()? {
            // It may be an exec whose number came after this turn's `poll`.
            for which in 0..self.execs.len() {
                if self.execs[which].pid.is_none() {
                    self.advance_exec(which);
                }
            }
            let ended = self.containers.iter().find(|(_, container)| container.pid() == pid);
            if let Some(id) = ended.map(|(id, _)| id.clone()) {
                self.end_container(&id, exit_code);
            } else if let Some(which) = self.execs.iter().position(|exec| exec.pid == Some(pid)) {
                self.end_exec(which, pid, exit_code);
            } else if self.pod.reaper.as_ref().is_some_and(|reaper| reaper.pid == pid) {
                // The kernel ends all that it was the first of, and nothing can be started there any
                // more; when all have ended, the pod is made anew.
                crate::complain(format_args!("the pod's first process has ended ({exit_code})"));
                self.terminating = true;
            }
            // Anything else was an errand of ours, or an orphan of a container.
        }
        Ok(())
    }

    fn end_container(&mut self, id: &str, exit_code: i32) {
        // What it said before it ended comes first.
        while self.advance(id) {}
        let Some(container) = self.containers.get_mut(id) else { return };
        let (status, log_error) = container.ended(exit_code, Timestamp::now(), &mut self.buffer);
        self.tell_log_failure(id, log_error);
        self.tell(&Event::Exited { id: id.to_owned(), status });
    }

    fn end_exec(&mut self, which: usize, pid: i32, exit_code: i32) {
        while self.advance_exec(which) {}
        let exec = self.execs.remove(which);
        // A quick program may end before the copy of the shim that made its process, and that
        // copy holds the channel open, too.
        if !exec.answered {
            self.answer(exec.asker, Ok(Success::Executing { pid }));
        }
        let event = Event::ExecExited { number: exec.asker.number, exit_code };
        self.send(exec.asker.connection, &Message::Event(event));
    }

    fn report(&self) -> Success {
        let one = |(id, container): (&String, &Container)| ContainerReport {
            id: id.clone(),
            phase: container.report(),
        };
        Success::Report(self.containers.iter().map(one).collect())
    }

    /// Tells clients that no more comes.
    fn tell_detached(&mut self) {
        let mut left = Vec::new();
        for container in self.containers.values_mut() {
            left.extend(container.clients.take_left());
        }
        for (Asker { connection, number }, why) in left {
            self.send(connection, &Message::Event(Event::Detached { number, why }));
        }
    }

    fn tell_log_failure(&mut self, id: &str, error: Option<io::Error>) {
        if let Some(error) = error {
            self.tell(&Event::LogFailed { id: id.to_owned(), error: error.to_string() });
        }
    }

    fn tell(&mut self, event: &Event) {
        let message = Message::Event(event.clone());
        let failed = |connection: &mut Connection| {
            connection.subscribed && connection.send(&message).is_err()
        };
        let closed: Vec<u64> = self
            .connections
            .iter_mut()
            .filter_map(|(id, connection)| failed(connection).then_some(*id))
            .collect();
        for id in closed {
            self.close(id);
        }
    }

    fn answer(&mut self, asker: Asker, outcome: Result<Success, Failure>) {
        let outcome = match outcome {
            Ok(success) => Outcome::Ok(success),
            Err(failure) => Outcome::Err(failure),
        };
        self.send(asker.connection, &Message::Reply(Reply { number: asker.number, outcome }));
    }

    fn send(&mut self, connection: u64, message: &Message) {
        let failed =
            self.connections.get_mut(&connection).is_some_and(|to| to.send(message).is_err());
        if failed {
            self.close(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use mainstay_shim_protocol::{decode, frame_length};

    use super::*;

    fn read_frame(mut stream: &UnixStream) -> Message {
        use std::io::Read;
        let mut header = [0; 4];
        stream.read_exact(&mut header).unwrap();
        let mut json = vec![0; frame_length(header).unwrap()];
        stream.read_exact(&mut json).unwrap();
        decode(&json).unwrap()
    }

    /// Lets an exec end before the shim has heard anything of it.
    fn check_quick_exec(channel_ends: bool) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s.sock")).unwrap();
        let mut shim = Shim::new(listener, process::signals().unwrap());
        let (engine, connection) = UnixStream::pair().unwrap();
        engine.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        shim.connections.insert(0, Connection::new(connection).unwrap());
        let (channel, child) = handshake::channel().unwrap();
        let asker = Asker { connection: 0, number: 7 };
        shim.execs.push(Execution { asker, channel: Some(channel), pid: None, answered: false });

        #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
        #[expect(clippy::zombie_processes, reason = "the shim takes leave of it")]
        let program = std::process::Command::new("/bin/false").spawn().unwrap();
        let pid = i32::try_from(program.id()).unwrap();
        process::Pidfd::open(pid).unwrap().wait().unwrap();
        child.send(&Report::Pid(pid)).unwrap();
        let held = (!channel_ends).then_some(child);
        shim.reap().unwrap();

        let outcome = Outcome::Ok(Success::Executing { pid });
        assert_eq!(read_frame(&engine), Message::Reply(Reply { number: 7, outcome }));
        let ended = Event::ExecExited { number: 7, exit_code: 1 };
        assert_eq!(read_frame(&engine), Message::Event(ended));
        drop(held);
    }

    #[test]
    fn an_exec_that_ends_at_once_is_answered_and_its_end_is_told() {
        check_quick_exec(true);
        check_quick_exec(false);
    }
}
