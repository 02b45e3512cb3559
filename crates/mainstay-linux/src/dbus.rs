//! A client of a message bus, as far as services of the machine are asked by one.
//!
//! It blocks, and is made for a thread of its own: calls that have an end, and signals that are waited for.
//!
//! # Guarantees
//!
//! - Whatever others send over the bus is bounded in bytes, depth, time and descriptors.
//! - Who sent a message is what the bus says, and not what the message does.
//!
//! Source: the D-Bus specification, "Authentication Protocol" and "Message Bus Messages".

mod message;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use message::{Body, Call, Kind, Message, Reader};
use message::{FIXED, invalid};

use crate::socket::{self, MAX_DESCRIPTORS};

/// Where the machine's bus is, unless the environment says otherwise. Source: "Well-known Message Bus
/// Instances".
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// How long an answer may take. Source: what libdbus takes for one that is not said otherwise, 25 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// How many signals wait while an answer is waited for.
const MAX_WAITING: usize = 64;

/// The longest line of the authentication.
const LONGEST_LINE: usize = 1024;

/// A connection to a message bus.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    serial: u32,
    /// What was received and belongs to no whole message yet.
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    waiting: VecDeque<Message>,
}

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody was asked, or nobody answers.
    #[error("the bus does not answer")]
    Io(#[from] io::Error),
    /// The answer is that it cannot be done.
    #[error("{name}: {message}")]
    Refused {
        /// The name of the error, such as `org.freedesktop.DBus.Error.AccessDenied`.
        name: String,
        /// A sentence.
        message: String,
    },
}

/// The path of the machine's bus, by the value of `DBUS_SYSTEM_BUS_ADDRESS` if there is one; `None` when that
/// says something else than a path.
pub fn system_bus(address: Option<&str>) -> Option<PathBuf> {
    let Some(address) = address.filter(|it| !it.is_empty()) else { return Some(SYSTEM_BUS.into()) };
    let all = address.split(';').filter_map(|it| it.strip_prefix("unix:"));
    let path = all.flat_map(|it| it.split(',')).find_map(|it| it.strip_prefix("path="))?;
    // What is escaped is nowhere in use.
    (!path.contains('%')).then(|| path.into())
}

/// A call of the bus itself.
fn of_bus(member: &str, body: Body) -> Call<'_> {
    Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
        body,
    }
}

// === impl Connection ===

impl Connection {
    /// Connects to a bus, as the user that this process is.
    ///
    /// # Errors
    ///
    /// When there is none, or it does not take this user or descriptors.
    pub fn open(path: &Path) -> Result<Self, CallError> {
        let stream = socket::connect(path)?;
        let mut connection = Self {
            stream,
            serial: 0,
            bytes: Vec::new(),
            descriptors: Vec::new(),
            waiting: VecDeque::new(),
        };
        connection.authenticate()?;
        connection.call(&of_bus("Hello", Body::default()))?;
        Ok(connection)
    }

    fn authenticate(&mut self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        for (command, expected) in [
            (format!("\0AUTH EXTERNAL {hex}\r\n"), "OK "),
            ("NEGOTIATE_UNIX_FD\r\n".to_owned(), "AGREE_UNIX_FD"),
        ] {
            self.stream.write_all(command.as_bytes())?;
            let answer = self.line(end)?;
            if !answer.starts_with(expected.as_bytes()) {
                let answer = String::from_utf8_lossy(&answer);
                let why = format!("the bus does not take this user: {answer}");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// A line of the authentication.
    fn line(&mut self, end: Instant) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.bytes.windows(2).position(|it| it == b"\r\n") {
                let rest = self.bytes.split_off(at + 2);
                let mut line = std::mem::replace(&mut self.bytes, rest);
                line.truncate(at);
                return Ok(line);
            }
            if self.bytes.len() > LONGEST_LINE {
                return Err(invalid("the bus answers with a line that does not end"));
            }
            self.receive(Some(end))?;
        }
    }

    /// Asks for something, and waits for the answer.
    ///
    /// # Errors
    ///
    /// What is answered instead, or that nothing is.
    pub fn call(&mut self, call: &Call<'_>) -> Result<Message, CallError> {
        let end = Instant::now() + PATIENCE;
        // None is zero. Nobody calls so often that the same one comes again.
        self.serial = self.serial.wrapping_add(1).max(1);
        self.stream.write_all(&call.encode(self.serial)?)?;
        loop {
            let message = self.message(Some(end))?;
            match message.kind {
                Kind::Return if message.reply_to == Some(self.serial) => return Ok(message),
                Kind::Error if message.reply_to == Some(self.serial) => {
                    let message_of = message.text().to_owned();
                    return Err(CallError::Refused { name: message.error, message: message_of });
                }
                Kind::Signal => {
                    if self.waiting.len() == MAX_WAITING {
                        self.waiting.pop_front();
                    }
                    self.waiting.push_back(message);
                }
                // Nothing here can be called, and an answer that comes late helps nobody.
                Kind::Call | Kind::Return | Kind::Error | Kind::Unknown => {}
            }
        }
    }

    /// Has the bus send signals that a rule matches, in the words of "Match Rules".
    ///
    /// # Errors
    ///
    /// As with a call.
    pub fn add_match(&mut self, rule: &str) -> Result<(), CallError> {
        self.call(&of_bus("AddMatch", Body::default().string(rule))).map(drop)
    }

    /// Waits for the next signal, for ever.
    ///
    /// # Errors
    ///
    /// That the bus is gone, or sends what is no message.
    pub fn signal(&mut self) -> io::Result<Message> {
        if let Some(message) = self.waiting.pop_front() {
            return Ok(message);
        }
        loop {
            let message = self.message(None)?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }

    fn message(&mut self, end: Option<Instant>) -> io::Result<Message> {
        loop {
            if let Some(fixed) = self.bytes.first_chunk::<FIXED>() {
                let length = Message::length(fixed)?;
                if self.bytes.len() >= length {
                    let rest = self.bytes.split_off(length);
                    let bytes = std::mem::replace(&mut self.bytes, rest);
                    let mut message = Message::decode(&bytes)?;
                    if message.promised > self.descriptors.len() {
                        return Err(invalid("descriptors of a message are missing"));
                    }
                    message.descriptors = self.descriptors.drain(..message.promised).collect();
                    return Ok(message);
                }
            }
            self.receive(end)?;
        }
    }

    /// Receives something, until a moment at the latest.
    fn receive(&mut self, end: Option<Instant>) -> io::Result<()> {
        let rest = end.map(|end| end.saturating_duration_since(Instant::now()));
        if rest.is_some_and(|rest| rest.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(rest)?;
        let mut bytes = [0; 4096];
        let received = match socket::receive(&self.stream, &mut bytes, &mut self.descriptors) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        // Each message takes its own; more than a few at a time nobody sends.
        if self.descriptors.len() > 4 * MAX_DESCRIPTORS {
            return Err(invalid("the bus sends descriptors that belong to no message"));
        }
        match bytes.get(..received) {
            Some([]) | None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(received) => {
                self.bytes.extend(received);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
