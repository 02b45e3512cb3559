//! What the shim and a process that it started say to each other until the process has become
//! another program.
//!
//! Flow: the child says how it goes (`Pid`, `Terminal`, `Ready`, or `Failed`), waits for the word
//! to go on if it said `Ready`, and becomes the program. Its end of the channel closes with that,
//! so the end of the channel without a `Failed` before it means that the program runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mainstay_linux::socket;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// The most text that a message carries; the rest of a longer error is cut.
const MAX_TEXT: usize = 4096;

/// From the child.
#[derive(Debug)]
pub(crate) enum Report {
    /// The process that will become the program, as its parent sees it.
    Pid(i32),
    /// The controlling side of its terminal.
    Terminal(OwnedFd),
    /// All is set up, and the program may be started.
    Ready,
    /// The program cannot be executed.
    CannotExecute(String),
    /// A step failed.
    Failed(String),
}

/// The shim's end.
pub(crate) struct Parent(OwnedFd);

/// The child's end.
pub(crate) struct Child(OwnedFd);

/// Makes both ends; whoever forks keeps one in each process and drops the other.
pub(crate) fn channel() -> io::Result<(Parent, Child)> {
    let (parent, child) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&parent, true)?;
    Ok((Parent(parent), Child(child)))
}

impl Parent {
    /// The next report; `None` when the child has closed its end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing has come yet.
    pub(crate) fn receive(&self) -> io::Result<Option<Report>> {
        let (mut bytes, mut descriptors) = ([0; MAX_TEXT + 1], Vec::new());
        let length = socket::receive(&self.0, &mut bytes, &mut descriptors)?;
        let Some((tag, text)) = bytes[..length].split_first() else { return Ok(None) };
        let text = || String::from_utf8_lossy(text).into_owned();
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "a broken report of a child");
        Ok(Some(match tag {
            b'P' => Report::Pid(text().parse().map_err(|_| broken())?),
            b'T' => Report::Terminal(descriptors.pop().ok_or_else(broken)?),
            b'R' => Report::Ready,
            b'X' => Report::CannotExecute(text()),
            b'F' => Report::Failed(text()),
            _ => return Err(broken()),
        }))
    }

    /// Lets the child go on after its [`Report::Ready`].
    pub(crate) fn go_on(&self) -> io::Result<()> {
        socket::send(&self.0, b"G", &[]).map(drop)
    }
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Child {
    pub(crate) fn send(&self, report: &Report) -> io::Result<()> {
        let (tag, text, descriptor) = match report {
            Report::Pid(pid) => (b'P', pid.to_string(), None),
            Report::Terminal(terminal) => (b'T', String::new(), Some(terminal.as_fd())),
            Report::Ready => (b'R', String::new(), None),
            Report::CannotExecute(text) => (b'X', text.clone(), None),
            Report::Failed(text) => (b'F', text.clone(), None),
        };
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&text.as_bytes()[..text.len().min(MAX_TEXT)]);
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        socket::send(&self.0, &bytes, &descriptors).map(drop)
    }

    /// Waits until the shim says to go on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when it never will, because it has ended or given the child up.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let (mut bytes, mut descriptors) = ([0; 1], Vec::new());
        match socket::receive(&self.0, &mut bytes, &mut descriptors)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
