//! The engine's end of a shim: requests go out, answers and events come in.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use mainstay_linux::socket;
use mainstay_shim_protocol::{
    Command, ContainerReport, Detachment, Event, Failure, FrameError, Hello, Message,
    OLDEST_PROTOCOL, Outcome, PROTOCOL, Reply, Request, Success, decode, encode, frame_length,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::foreign::Foreign;

/// A request that was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// The shim has ended, or the connection to it has.
    #[error("the pod's shim has ended")]
    Gone,
    /// The connection failed.
    #[error("the connection to the pod's shim failed")]
    Connection(#[source] io::Error),
    /// The shim said something that is not the protocol.
    #[error("the pod's shim broke the protocol")]
    Frame(#[from] FrameError),
    /// The shim is of a version that cannot be driven.
    #[error(
        "the pod's shim is of mainstay {version} and speaks protocol {protocol}, and this mainstay \
         drives {OLDEST_PROTOCOL} to {PROTOCOL}"
    )]
    Version {
        /// The shim's mainstay.
        version: String,
        /// The shim's protocol.
        protocol: u32,
    },
    /// The shim can be driven and does not know this.
    #[error(
        "the pod's shim is of mainstay {version}, which cannot do it; restart the pod to have a \
         newer one"
    )]
    TooOld {
        /// The shim's mainstay.
        version: String,
    },
    /// The shim does not greet.
    #[error("the pod's shim does not answer within {} s", GREETING_PATIENCE.as_secs())]
    Silent,
    /// The shim does not get on.
    #[error(
        "it has not happened within {} s; a volume of the container may be on a disk or a server \
         that does not answer", PATIENCE.as_secs()
    )]
    Late,
    /// This cannot be done without the shim's help, and the shim cannot be driven.
    #[error("{0}")]
    Foreign(String),
    /// The shim does not know the container.
    #[error("the pod's shim does not know the container")]
    NoSuchContainer,
    /// The container is not in a state that allows this.
    #[error("{0}")]
    WrongState(String),
    /// The program cannot be executed.
    #[error("{0}")]
    CannotExecute(String),
    /// A step failed.
    #[error("{0}")]
    Failed(String),
}

impl From<Failure> for ShimError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSuchContainer => Self::NoSuchContainer,
            Failure::WrongState(text) => Self::WrongState(text),
            Failure::CannotExecute(text) => Self::CannotExecute(text),
            Failure::Failed(text) => Self::Failed(text),
        }
    }
}

/// How long a shim may take to greet: it does at once, as soon as the machine lets it.
const GREETING_PATIENCE: Duration = Duration::from_secs(30);

/// How long anything may take that a shim is asked for. Most is done at once; a container's mounts may
/// have to wait for a disk or a server.
const PATIENCE: Duration = Duration::from_secs(120);

type Answer = oneshot::Sender<Result<Success, ShimError>>;

/// Asks a shim for things. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Shim {
    requests: mpsc::UnboundedSender<Ask>,
    /// Whether it can give a container a profile of AppArmor.
    pub(crate) confines: bool,
}

/// What is asked of a shim, and who is answered. Apart, since every channel keeps room for 32.
type Ask = Box<(Command, Answer)>;

/// All that is asked of a shim.
pub(crate) type Requests = mpsc::UnboundedReceiver<Ask>;

/// What carries requests out.
pub(crate) enum Line {
    /// The shim does.
    Driven(Box<Connection>),
    /// The shim cannot be driven, and the kernel does what it can without it.
    Foreign(Foreign),
}

/// What comes of greeting a shim.
pub(crate) struct Greeting {
    pub(crate) shim: Shim,
    pub(crate) connection: Box<Connection>,
    /// The shim's process.
    pub(crate) pid: i32,
    /// What it has.
    pub(crate) containers: Vec<ContainerReport>,
}

/// The connection itself, to be driven by [`Line::serve`].
pub(crate) struct Connection {
    frames: Frames,
    writer: OwnedWriteHalf,
    requests: Requests,
    hello: Hello,
}

/// Cuts what a shim sends into messages.
struct Frames {
    reader: OwnedReadHalf,
    received: Vec<u8>,
}

impl Frames {
    fn new(reader: OwnedReadHalf) -> Self {
        Self { reader, received: Vec::new() }
    }

    /// The next message. Cancel-safe: what was read of it stays here.
    async fn next<T: DeserializeOwned>(&mut self) -> Result<T, ShimError> {
        loop {
            if let Some((header, rest)) = self.received.split_first_chunk::<4>()
                && let Some(json) = rest.get(..frame_length(*header)?)
            {
                let (length, message) = (4 + json.len(), decode(json));
                self.received.drain(..length);
                return Ok(message?);
            }
            match self.reader.read_buf(&mut self.received).await {
                Ok(0) => return Err(ShimError::Gone),
                Ok(_) => {}
                Err(error) => return Err(ShimError::Connection(error)),
            }
        }
    }

    /// The greeting that every connection begins with.
    async fn hello(&mut self) -> Result<Hello, ShimError> {
        let hello: Hello = self.next().await?;
        if (OLDEST_PROTOCOL..=PROTOCOL).contains(&hello.protocol) {
            return Ok(hello);
        }
        let Hello { version, protocol, .. } = hello;
        Err(ShimError::Version { version, protocol })
    }
}

impl Shim {
    /// A handle, and what is asked for through it.
    pub(crate) fn new() -> (Self, Requests) {
        let (sender, requests) = mpsc::unbounded_channel();
        (Self { requests: sender, confines: true }, requests)
    }

    /// Greets a shim on a fresh connection, and hears from now on what happens there.
    pub(crate) async fn greet(stream: StdStream) -> Result<Greeting, ShimError> {
        let greeting = timeout(GREETING_PATIENCE, Self::talk(stream)).await;
        greeting.unwrap_or(Err(ShimError::Silent))
    }

    async fn talk(stream: StdStream) -> Result<Greeting, ShimError> {
        stream.set_nonblocking(true).map_err(ShimError::Connection)?;
        let stream = UnixStream::from_std(stream).map_err(ShimError::Connection)?;
        let (reader, mut writer) = stream.into_split();
        let mut frames = Frames::new(reader);
        let hello = frames.hello().await?;
        // Nothing else has been asked for, so the next message is the answer to this.
        let subscribe = encode(&Request { number: 0, command: Command::Subscribe })?;
        writer.write_all(&subscribe).await.map_err(ShimError::Connection)?;
        let containers = match frames.next().await? {
            Message::Reply(Reply { outcome: Outcome::Ok(Success::Report(list)), .. }) => list,
            Message::Reply(Reply { outcome: Outcome::Err(failure), .. }) => {
                return Err(failure.into());
            }
            other => return Err(ShimError::Failed(format!("an odd answer: {other:?}"))),
        };
        let (shim, requests) = Self::new();
        let shim = Self { confines: hello.apparmor, ..shim };
        let pid = hello.pid;
        let connection = Box::new(Connection { frames, writer, requests, hello });
        Ok(Greeting { shim, connection, pid, containers })
    }

    /// Sends a command and waits for its answer, for [`PATIENCE`].
    pub(crate) async fn call(&self, command: Command) -> Result<Success, ShimError> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(Box::new((command, sender))).map_err(|_| ShimError::Gone)?;
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| ShimError::Gone)?,
            Err(_) => Err(ShimError::Late),
        }
    }
}

impl Line {
    /// Carries requests and answers, and hands on events, until nobody is left who could ask
    /// anything.
    ///
    /// # Errors
    ///
    /// [`ShimError::Gone`] when the shim has ended, and others when the connection is lost.
    pub(crate) async fn serve(self, on_event: impl FnMut(Event)) -> Result<(), ShimError> {
        match self {
            Self::Driven(connection) => connection.serve(on_event).await,
            Self::Foreign(foreign) => foreign.serve(on_event).await,
        }
    }
}

impl Connection {
    async fn serve(mut self: Box<Self>, mut on_event: impl FnMut(Event)) -> Result<(), ShimError> {
        let mut waiting: BTreeMap<u64, Answer> = BTreeMap::new();
        let mut number = 0;
        loop {
            tokio::select! {
                // Cancel-safe, as `Frames::next` says.
                message = self.frames.next() => match message {
                    Ok(Message::Event(event)) => on_event(event),
                    Ok(Message::Reply(Reply { number, outcome })) => {
                        if let Some(answer) = waiting.remove(&number) {
                            // Whoever asked may have given up, which is its right.
                            let _ = answer.send(match outcome {
                                Outcome::Ok(success) => Ok(success),
                                Outcome::Err(failure) => Err(failure.into()),
                            });
                        }
                    }
                    // The waiting answers are dropped, which tells those who wait.
                    Err(error) => return Err(error),
                },
                // Cancel-safe per docs on `UnboundedReceiver::recv`.
                request = self.requests.recv() => {
                    let Some((command, answer)) = request.map(|ask| *ask) else { return Ok(()) };
                    if !knows(&self.hello, &command) {
                        let version = self.hello.version.clone();
                        drop(answer.send(Err(ShimError::TooOld { version })));
                        continue;
                    }
                    number += 1;
                    match encode(&Request { number, command }) {
                        Ok(frame) => {
                            // That it cannot be written is seen when it is read from.
                            if self.writer.write_all(&frame).await.is_ok() {
                                waiting.insert(number, answer);
                            }
                        }
                        Err(error) => drop(answer.send(Err(error.into()))),
                    }
                }
            }
        }
    }
}

/// Whether a shim does all of a command. What it does not know it would leave out.
fn knows(hello: &Hello, command: &Command) -> bool {
    match command {
        Command::Attach(_) => hello.attach,
        Command::CreateContainer(container) => {
            hello.apparmor || container.process.apparmor.is_none()
        }
        _ => true,
    }
}

/// A connection of its own for one request, and for what the shim tells of it later.
pub(crate) struct Conversation {
    frames: Frames,
    /// Kept open: what the shim tells comes on this connection.
    _writer: OwnedWriteHalf,
    /// The process that was started, as seen from the host.
    pub(crate) pid: Option<i32>,
}

impl Conversation {
    /// Asks for something; `descriptors` are what the command says.
    pub(crate) async fn begin(
        stream: StdStream,
        command: Command,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, ShimError> {
        // First whom it is sent to: another one might do something else.
        stream.set_nonblocking(true).map_err(ShimError::Connection)?;
        let (reader, writer) =
            UnixStream::from_std(stream).map_err(ShimError::Connection)?.into_split();
        let mut frames = Frames::new(reader);
        let hello = timeout(GREETING_PATIENCE, frames.hello()).await;
        let hello = hello.unwrap_or(Err(ShimError::Silent))?;
        if !knows(&hello, &command) {
            return Err(ShimError::TooOld { version: hello.version });
        }
        let Frames { reader, received } = frames;
        let stream = reader.reunite(writer).map_err(io::Error::other);
        let stream = stream.and_then(UnixStream::into_std).map_err(ShimError::Connection)?;

        let frame = encode(&Request { number: 1, command })?;
        let stream = tokio::task::spawn_blocking(move || {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            // A shim reads at once, and a frame is short.
            stream.set_nonblocking(false)?;
            let sent = socket::send(&stream, &frame, &borrowed)?;
            (&stream).write_all(&frame[sent..])?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        let stream = stream.await.map_err(io::Error::other).flatten();
        let stream = stream.and_then(UnixStream::from_std).map_err(ShimError::Connection)?;
        let (reader, writer) = stream.into_split();
        let mut frames = Frames { reader, received };
        loop {
            if let Message::Reply(Reply { outcome, .. }) = frames.next().await? {
                return match outcome {
                    Outcome::Ok(success) => {
                        let pid = match success {
                            Success::Executing { pid } => Some(pid),
                            _ => None,
                        };
                        Ok(Self { frames, _writer: writer, pid })
                    }
                    Outcome::Err(failure) => Err(failure.into()),
                };
            }
        }
    }

    /// Waits for the end of the process that was started.
    pub(crate) async fn exited(mut self) -> Result<i32, ShimError> {
        loop {
            let message = self.frames.next().await?;
            if let Message::Event(Event::ExecExited { exit_code, .. }) = message {
                return Ok(exit_code);
            }
        }
    }

    /// Waits for the end of the attachment that was made.
    pub(crate) async fn detached(mut self) -> Result<Detachment, ShimError> {
        loop {
            if let Message::Event(Event::Detached { why, .. }) = self.frames.next().await? {
                return Ok(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_shim_protocol::Attach;

    use super::*;

    #[tokio::test]
    async fn a_shim_is_known_by_its_greeting() {
        for (more, confines) in [("", false), (r#","attach":true,"apparmor":true"#, true)] {
            let (here, mut there) = StdStream::pair().unwrap();
            let hello = format!(r#"{{"protocol":1,"version":"0.0.9","pid":7{more}}}"#);
            there.write_all(&u32::try_from(hello.len()).unwrap().to_le_bytes()).unwrap();
            there.write_all(hello.as_bytes()).unwrap();
            let report = Reply { number: 0, outcome: Outcome::Ok(Success::Report(Vec::new())) };
            there.write_all(&encode(&Message::Reply(report)).unwrap()).unwrap();
            let greeting = Shim::greet(here).await.ok().unwrap();
            assert_eq!((greeting.pid, greeting.shim.confines), (7, confines), "{more}");
        }
    }

    #[tokio::test]
    async fn a_shim_from_before_attach_is_not_asked_for_it() {
        let (here, mut there) = StdStream::pair().unwrap();
        // As shims said it before there was more to say.
        let hello = br#"{"protocol":1,"version":"0.0.9","pid":7}"#;
        there.write_all(&u32::try_from(hello.len()).unwrap().to_le_bytes()).unwrap();
        there.write_all(hello).unwrap();
        let attach = Attach {
            id: "c".to_owned(),
            stdin: false,
            stdout: true,
            stderr: true,
            terminal: false,
        };
        let begun = Conversation::begin(here, Command::Attach(attach), Vec::new()).await;
        let error = begun.err().unwrap();
        assert!(matches!(error, ShimError::TooOld { .. }), "{error}");
        assert!(error.to_string().contains("0.0.9"), "{error}");
        // The other one heard nothing but the end.
        assert_eq!(std::io::read_to_string(there).unwrap(), "");
    }
}
