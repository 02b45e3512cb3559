//! Clients that have joined a container's streams.
//!
//! # Guarantees
//!
//! - Nobody waits for a client: what does not go into its pipe at once ends it.
//! - What a client sent before it left reaches the container, as far as that reads it. No more of
//!   it is taken in than one buffer before the container has taken that.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mainstay_shim_protocol::Detachment;

use crate::cri_log::Stream;
use crate::shim::Asker;

/// Everybody who is attached to one container, and the container's standard input.
#[derive(Default)]
pub(crate) struct Clients {
    outputs: Vec<Client>,
    inputs: Vec<Input>,
    stdin: Option<File>,
    /// What was read of an input and not written yet.
    pending: Vec<u8>,
    /// Whether `stdin` closes when a client leaves.
    once: bool,
    /// Those who get no more, to be told so.
    left: Vec<(Asker, Detachment)>,
}

/// One client's ends of the streams that it asked for.
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Where a client reads.
struct Client {
    asker: Asker,
    stdout: Option<File>,
    stderr: Option<File>,
}

/// Where a client writes.
struct Input {
    asker: Asker,
    source: File,
}

impl Clients {
    /// Takes charge of the container's standard input, if it has one.
    ///
    /// `once` closes it after the first client; a terminal is never closed.
    pub(crate) fn set_stdin(&mut self, stdin: OwnedFd, once: bool) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&stdin, true)?;
        self.stdin = Some(stdin.into());
        self.once = once;
        Ok(())
    }

    /// Adds one, with the streams that it asked for.
    pub(crate) fn add(&mut self, asker: Asker, streams: Streams) -> io::Result<()> {
        let Streams { stdin, stdout, stderr } = streams;
        for stream in [&stdin, &stdout, &stderr].into_iter().flatten() {
            rustix::io::ioctl_fionbio(stream, true)?;
        }
        let (stdout, stderr) = (stdout.map(File::from), stderr.map(File::from));
        self.outputs.push(Client { asker, stdout, stderr });
        // Without a standard input there is nobody to read it, which closing it tells.
        if let (Some(source), true) = (stdin, self.stdin.is_some()) {
            self.inputs.push(Input { asker, source: source.into() });
        }
        Ok(())
    }

    /// Where to listen: to clients, unless what one of them sent is still to be written.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (Asker, BorrowedFd<'_>)> {
        let listen = self.pending.is_empty();
        let listened = self.inputs.iter().filter(move |_| listen);
        listened.map(|input| (input.asker, input.source.as_fd()))
    }

    /// What to wait for until it takes more.
    pub(crate) fn blocked(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().filter(|_| !self.pending.is_empty()).map(AsFd::as_fd)
    }

    /// Gives what the container wrote to those who want it.
    pub(crate) fn hear(&mut self, stream: Stream, bytes: &[u8]) {
        let left = &mut self.left;
        self.outputs.retain_mut(|client| {
            let to = match stream {
                Stream::Stdout => &mut client.stdout,
                Stream::Stderr => &mut client.stderr,
            };
            match to.as_mut().map(|to| to.write(bytes)) {
                None => {}
                Some(Ok(length)) if length == bytes.len() => {}
                // It does not want this one any more.
                Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => *to = None,
                Some(_) => {
                    left.push((client.asker, Detachment::FellBehind));
                    return false;
                }
            }
            true
        });
    }

    /// Passes on what one client sent, as far as the container takes it.
    pub(crate) fn pass_on(&mut self, asker: Asker, buffer: &mut [u8]) {
        let Some(which) = self.inputs.iter().position(|input| input.asker == asker) else {
            return;
        };
        // Another one may have been faster.
        let Some(input) = self.inputs.get_mut(which).filter(|_| self.pending.is_empty()) else {
            return;
        };
        match input.source.read(buffer) {
            Ok(length) if length > 0 => {
                self.pending.extend_from_slice(&buffer[..length]);
                self.flush();
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Ok(_) | Err(_) => {
                self.inputs.remove(which);
                if self.once {
                    self.close_stdin();
                } else {
                    self.detach(asker, Detachment::InputEnded);
                }
            }
        }
    }

    /// Goes on writing to the container.
    pub(crate) fn flush(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.pending.is_empty() {
            match stdin.write(&self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody reads it any more.
                Err(_) => return self.close_stdin(),
            }
        }
        self.pending = Vec::new();
    }

    fn close_stdin(&mut self) {
        self.stdin = None;
        self.pending = Vec::new();
        self.inputs.clear();
    }

    /// The container has ended.
    pub(crate) fn end(&mut self) {
        self.close_stdin();
        let all = self.outputs.drain(..).map(|client| (client.asker, Detachment::Ended));
        self.left.extend(all);
    }

    /// A connection has ended, and with it whoever was attached through it. What they sent is
    /// still read: its end comes by itself.
    pub(crate) fn forget(&mut self, connection: u64) {
        self.outputs.retain(|client| client.asker.connection != connection);
    }

    fn detach(&mut self, asker: Asker, why: Detachment) {
        let before = self.outputs.len();
        self.outputs.retain(|client| client.asker != asker);
        if self.outputs.len() < before {
            self.left.push((asker, why));
        }
    }

    /// Those who get no more since this was asked last.
    pub(crate) fn take_left(&mut self) -> Vec<(Asker, Detachment)> {
        std::mem::take(&mut self.left)
    }
}
