//! The messages.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::{CgroupDirectories, Container, Process};

/// The first frame on every connection, from the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version that the shim speaks.
    pub protocol: u32,
    /// The version of mainstay that the shim was built with.
    pub version: String,
    /// The shim's process, as seen from the host.
    pub pid: i32,
    /// Whether it knows [`Command::Attach`].
    #[serde(default)]
    pub attach: bool,
    /// Whether it knows [`Process::apparmor`].
    #[serde(default)]
    pub apparmor: bool,
}

/// From the engine to the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the reply; unique among the unanswered requests of a connection.
    pub number: u64,
    /// What to do.
    pub command: Command,
}

/// What the engine can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Enter the pod's own namespaces. The first command of a new shim, given once.
    EnterNamespaces(SandboxNamespaces),
    /// Mount a root file system and create a container in it. Answered with
    /// [`Success::Created`] when its first process waits for the start.
    CreateContainer(Box<Container>),
    /// Let a created container run. Answered with [`Success::Started`].
    StartContainer {
        /// Which container.
        id: String,
    },
    /// Send a signal to a container's first process, if it still runs.
    SignalContainer {
        /// Which container.
        id: String,
        /// The number of the signal.
        signal: i32,
    },
    /// Forget an ended container.
    RemoveContainer {
        /// Which container.
        id: String,
    },
    /// Open the log file anew, after it was renamed.
    ReopenLog {
        /// Which container.
        id: String,
    },
    /// Run one more process in a container. Standard input, output and error come with the frame
    /// as three descriptors. With a terminal, one end of a socket pair comes instead, on which
    /// the terminal's descriptor is sent back before the reply. Answered with
    /// [`Success::Executing`]; an [`Event::ExecExited`] on the same connection tells how it ended.
    Exec(Box<Exec>),
    /// Join the streams of a container that has not ended. One end of a pipe comes with the frame
    /// for each stream that is asked for, in the order of [`Attach`], and with a terminal one end
    /// of a socket pair after them, on which the terminal's descriptor is sent back before the
    /// reply. Answered with [`Success::Attached`]; an [`Event::Detached`] on the same connection
    /// tells that no more output comes. The end of the connection ends it too, but for the input,
    /// which ends by itself.
    Attach(Attach),
    /// Tell all that is known. Answered with [`Success::Report`].
    Report,
    /// Send [`Event`]s on this connection from now on. Answered with [`Success::Report`], so that
    /// nothing is missed between.
    Subscribe,
    /// End the shim. Refused while a container runs.
    Shutdown,
}

/// The namespaces that a pod has for itself, and what to set in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxNamespaces {
    /// Where the shim itself is accounted. It was started in the one of version 2, and goes into the others.
    #[serde(default)]
    pub cgroup: CgroupDirectories,
    /// A network namespace of its own.
    pub network: bool,
    /// A namespace for System V and POSIX message queues of its own.
    pub ipc: bool,
    /// Process numbers that its containers share, and where their first process, which takes leave
    /// of orphans, is accounted.
    #[serde(default)]
    pub processes: Option<CgroupDirectories>,
    /// Users and groups of its own.
    #[serde(default)]
    pub users: Option<UserRange>,
    /// A host name of its own.
    pub hostname: Option<String>,
    /// A directory to mount a memory file system at, which the containers then share as
    /// `/dev/shm`.
    pub shm: Option<Shm>,
    /// Files below `/proc/sys`, named with dots, and what to write there.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
}

/// The users and groups that a pod has for itself: its own from 0 on are these of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRange {
    /// The first one.
    pub first: u32,
    /// How many.
    pub length: u32,
}

/// One more process in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Which container.
    pub id: String,
    /// What to run.
    pub process: Process,
}

/// Which streams of a container to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Which container.
    pub id: String,
    /// Standard input, from a pipe to read from.
    pub stdin: bool,
    /// Standard output or the terminal's, to a pipe to write to. The shim does not wait for
    /// whoever reads it: what does not go into the pipe ends the whole.
    pub stdout: bool,
    /// Standard error, likewise. Without effect if there is a terminal.
    pub stderr: bool,
    /// The descriptor of the container's terminal, for setting its size.
    pub terminal: bool,
}

/// The memory that the containers of a pod share by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shm {
    /// An existing directory; absolute.
    pub directory: String,
    /// Bytes.
    pub size: u64,
}

/// From the shim to the engine, after the [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The answer to a request.
    Reply(Reply),
    /// Something happened.
    Event(Event),
}

/// The answer to the request with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number.
    pub number: u64,
    /// How it went.
    pub outcome: Outcome,
}

/// How a request went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As asked for.
    Ok(Success),
    /// Not done.
    Err(Failure),
}

/// What a request brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Success {
    /// Nothing but the fact.
    Done,
    /// The container waits for its start.
    Created {
        /// Its first process, as seen from the host.
        pid: i32,
    },
    /// The container runs.
    Started {
        /// Nanoseconds since 1970.
        at: i64,
    },
    /// The further process runs.
    Executing {
        /// It, as seen from the host.
        pid: i32,
    },
    /// The streams are joined.
    Attached,
    /// All containers that the shim knows.
    Report(Vec<ContainerReport>),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The shim does not know the container.
    NoSuchContainer,
    /// The container is not in a state that allows this; the text names it.
    WrongState(String),
    /// The program is not in the container's file system, or cannot be executed; the text names
    /// it and why.
    CannotExecute(String),
    /// A step failed; the text names it and its cause.
    Failed(String),
}

/// One container, as the shim knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// The engine's name for it.
    pub id: String,
    /// What it is doing.
    pub phase: ContainerPhase,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerPhase {
    /// Being created.
    Creating,
    /// Waiting for its start.
    Created {
        /// Its first process.
        pid: i32,
    },
    /// Running.
    Running {
        /// Its first process.
        pid: i32,
        /// Since when, in nanoseconds since 1970.
        started_at: i64,
    },
    /// Ended.
    Exited(ExitStatus),
}

/// How a container ended. Also the content of the file `exit.json` in its bundle, which remains
/// when the shim itself dies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// When it was started, in nanoseconds since 1970; `None` if it never ran.
    pub started_at: Option<i64>,
    /// When it ended, in nanoseconds since 1970.
    pub finished_at: i64,
    /// 0 to 255, or 128 plus the number of the signal that killed it. [`START_FAILED`] of one that
    /// never ran.
    pub exit_code: i32,
}

/// A point in time as the messages have it. They can tell times from 1677 to 2262.
pub fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The exit code of a container whose program could not be started, as containerd gives it.
pub const START_FAILED: i32 = 128;

/// What a shim reports by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A container's first process ended.
    Exited {
        /// Which container.
        id: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A further process ended.
    ExecExited {
        /// The number of the request that started it.
        number: u64,
        /// 0 to 255, or 128 plus the number of the signal that killed it.
        exit_code: i32,
    },
    /// No more output comes to one who was attached.
    Detached {
        /// The number of the request that attached it.
        number: u64,
        /// Why.
        why: Detachment,
    },
    /// Log lines of a container are being lost; told once, when it begins.
    LogFailed {
        /// Which container.
        id: String,
        /// The file and the cause.
        error: String,
    },
}

/// Why an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detachment {
    /// The container's first process ended.
    Ended,
    /// The client's input did.
    InputEnded,
    /// The client did not read what came.
    FellBehind,
}
