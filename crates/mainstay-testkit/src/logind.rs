//! A message bus with nothing on it but a logind.
//!
//! It speaks the protocol by itself, so that a client is not held against its own ideas of it. What it sends is
//! as systemd-logind sends it; clients may say what the client here says.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

/// The names that the bus gives: the logind's, and that of somebody else.
const LOGIND: &str = ":1.1";
const SOMEBODY: &str = ":1.66";
const BUS: &str = "org.freedesktop.DBus";

/// How long something that has to come may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bus; it ends with this.
#[derive(Debug)]
pub struct FakeLogind {
    directory: TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// How long shutdowns are delayed at the most.
    delay: Duration,
    preparing: bool,
    /// Whether it refuses locks.
    refuses: bool,
    /// The other ends of the locks that were given.
    locks: Vec<OwnedFd>,
    clients: Vec<UnixStream>,
    /// What was called, by its member.
    calls: Vec<String>,
}

impl FakeLogind {
    /// Begins to listen. Shutdowns are delayed for five seconds, as by default.
    pub fn start() -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let state = Arc::new(Mutex::new(State {
            delay: Duration::from_secs(5),
            preparing: false,
            refuses: false,
            locks: Vec::new(),
            clients: Vec::new(),
            calls: Vec::new(),
        }));
        let logind = Self { directory, state };
        let listener = UnixListener::bind(logind.bus())?;
        let (state, settings) = (logind.state.clone(), logind.settings());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, settings) = (state.clone(), settings.clone());
                thread::spawn(move || {
                    // The client has gone.
                    let _ = serve(stream, &state, &settings);
                });
            }
        });
        Ok(logind)
    }

    /// Where the bus is.
    pub fn bus(&self) -> PathBuf {
        self.directory.path().join("bus")
    }

    /// Which file of settings it reads when it is told to.
    pub fn settings(&self) -> PathBuf {
        self.directory.path().join("logind.conf.d/99-mainstay.conf")
    }

    /// Refuses locks, or gives them again.
    pub fn refuse(&self, refuses: bool) {
        self.lock().refuses = refuses;
    }

    /// Tells everybody that the machine is to go down, or not any more.
    pub fn prepare(&self, shutting_down: bool) {
        self.lock().preparing = shutting_down;
        self.signal(LOGIND, shutting_down);
    }

    /// Somebody else says so.
    pub fn forge(&self, shutting_down: bool) {
        self.signal(SOMEBODY, shutting_down);
    }

    /// Loses all connections.
    pub fn cut(&self) {
        for client in self.lock().clients.drain(..) {
            // It may be gone.
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    }

    /// How many locks are held.
    pub fn locks(&self) -> usize {
        let mut state = self.lock();
        // The end of what is read is that of the lock.
        state.locks.retain(|lock| rustix::io::read(lock, &mut [0u8; 1]) != Ok(0));
        state.locks.len()
    }

    /// What was called, by its members.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// How long shutdowns are delayed at the most.
    pub fn delay(&self) -> Duration {
        self.lock().delay
    }

    /// Waits until something holds. Answers whether it ever did.
    pub fn until(&self, holds: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn signal(&self, sender: &str, shutting_down: bool) {
        let mut message = Message::new(4);
        message.field(1, "o", "/org/freedesktop/login1");
        message.field(2, "s", "org.freedesktop.login1.Manager");
        message.field(3, "s", "PrepareForShutdown");
        message.field(7, "s", sender);
        message.signature("b");
        let bytes = message.finish(&u32::from(shutting_down).to_le_bytes());
        for mut client in &self.lock().clients {
            // It may be gone.
            let _ = client.write_all(&bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client calls.
struct Called {
    serial: u32,
    member: String,
    /// The texts that it says.
    texts: Vec<String>,
}

fn serve(mut stream: UnixStream, state: &Mutex<State>, settings: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    for answer in ["OK 00112233445566778899aabbccddeeff\r\n", "AGREE_UNIX_FD\r\n", ""] {
        reader.read_line(&mut String::new())?;
        stream.write_all(answer.as_bytes())?;
    }
    loop {
        let call = next_call(&mut reader)?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.push(call.member.clone());
        let sender =
            if matches!(call.member.as_str(), "Hello" | "AddMatch") { BUS } else { LOGIND };
        let mut answer = Message::new(2);
        answer.reply_to(call.serial);
        answer.field(7, "s", sender);
        let texts: Vec<&str> = call.texts.iter().map(String::as_str).collect();
        match (call.member.as_str(), texts.as_slice()) {
            ("Hello", _) => {
                answer.signature("s");
                stream.write_all(&answer.finish(b"\x05\0\0\0:1.42\0"))?;
                let other = stream.try_clone()?;
                state.clients.push(other);
            }
            ("Get", [.., "InhibitDelayMaxUSec"]) => {
                answer.signature("v");
                let micros = u64::try_from(state.delay.as_micros()).unwrap_or(u64::MAX);
                let mut body = b"\x01t\0\0\0\0\0\0".to_vec();
                body.extend(micros.to_le_bytes());
                stream.write_all(&answer.finish(&body))?;
            }
            ("Get", [.., "PreparingForShutdown"]) => {
                answer.signature("v");
                let mut body = b"\x01b\0\0".to_vec();
                body.extend(u32::from(state.preparing).to_le_bytes());
                stream.write_all(&answer.finish(&body))?;
            }
            ("Inhibit", ["shutdown", _, _, "delay"]) if !state.refuses => {
                let (read, write) = io::pipe()?;
                let read = OwnedFd::from(read);
                fcntl_setfl(&read, OFlags::NONBLOCK)?;
                state.locks.push(read);
                answer.signature("h");
                answer.descriptors(1);
                send(&stream, &answer.finish(&0u32.to_le_bytes()), &OwnedFd::from(write))?;
            }
            ("KillUnit", ["systemd-logind.service", "all", ..]) => {
                let text = std::fs::read_to_string(settings).unwrap_or_default();
                let seconds = text.lines().find_map(|it| it.strip_prefix("InhibitDelayMaxSec="));
                if let Some(seconds) = seconds.and_then(|it| it.parse().ok()) {
                    state.delay = Duration::from_secs(seconds);
                }
                stream.write_all(&answer.finish(b""))?;
            }
            ("AddMatch", _) => stream.write_all(&answer.finish(b""))?,
            (member, _) => {
                let mut refusal = Message::new(3);
                refusal.reply_to(call.serial);
                refusal.field(4, "s", "org.freedesktop.DBus.Error.AccessDenied");
                refusal.field(7, "s", sender);
                refusal.signature("s");
                let mut body = Vec::new();
                put_text(&mut body, &format!("{member} is not for you"));
                stream.write_all(&refusal.finish(&body))?;
            }
        }
    }
}

fn send(stream: &UnixStream, bytes: &[u8], descriptor: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

// === reading ===

fn next_call(reader: &mut impl Read) -> io::Result<Called> {
    let mut fixed = [0; 16];
    reader.read_exact(&mut fixed)?;
    let number = |at: usize| number_at(&fixed, at).unwrap_or_default();
    let (body, fields) = (number(4), number(12));
    let mut bytes = vec![0; fields.next_multiple_of(8) + body];
    reader.read_exact(&mut bytes)?;
    let (all, body) = bytes.split_at(fields.next_multiple_of(8));
    let serial = u32::try_from(number(8)).unwrap_or_default();
    let mut call = Called { serial, member: String::new(), texts: Vec::new() };
    // A field is its code, its type with its length and its end, and a text; of a signature a shorter one.
    let mut at = 0;
    while let Some(code) = all.get(at).filter(|_| at < fields) {
        let (text, end) = match *code {
            8 => (String::new(), at + 6 + usize::from(*all.get(at + 4).unwrap_or(&0))),
            _ => text_at(all, at + 4),
        };
        if *code == 3 {
            call.member = text;
        }
        at = end.next_multiple_of(8);
    }
    let mut at = 0;
    while number_at(body, at).is_some_and(|length| at + 5 + length <= body.len()) {
        let (text, end) = text_at(body, at);
        call.texts.push(text);
        at = end.next_multiple_of(4);
    }
    Ok(call)
}

fn number_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// A text, and where it ends.
fn text_at(bytes: &[u8], at: usize) -> (String, usize) {
    let length = number_at(bytes, at).unwrap_or_default();
    let text = bytes.get(at + 4..at + 4 + length).unwrap_or_default();
    (String::from_utf8_lossy(text).into_owned(), at + 5 + length)
}

// === writing ===

struct Message {
    kind: u8,
    fields: Vec<u8>,
}

impl Message {
    fn new(kind: u8) -> Self {
        Self { kind, fields: Vec::new() }
    }

    fn begin(&mut self, code: u8, kind: &str) {
        let end = self.fields.len().next_multiple_of(8);
        self.fields.resize(end, 0);
        self.fields.extend([code, 1]);
        self.fields.extend(kind.bytes());
        self.fields.push(0);
    }

    fn field(&mut self, code: u8, kind: &str, text: &str) {
        self.begin(code, kind);
        put_text(&mut self.fields, text);
    }

    fn reply_to(&mut self, serial: u32) {
        self.begin(5, "u");
        self.fields.extend(serial.to_le_bytes());
    }

    fn descriptors(&mut self, count: u32) {
        self.begin(9, "u");
        self.fields.extend(count.to_le_bytes());
    }

    fn signature(&mut self, types: &str) {
        self.begin(8, "g");
        self.fields.push(u8::try_from(types.len()).unwrap_or(u8::MAX));
        self.fields.extend(types.bytes());
        self.fields.push(0);
    }

    fn finish(&self, body: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = vec![b'l', self.kind, 0, 1];
        bytes.extend(length(body));
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(length(&self.fields));
        bytes.extend(&self.fields);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(body);
        bytes
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(text.bytes());
    bytes.push(0);
}
