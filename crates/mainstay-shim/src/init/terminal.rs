//! Standard streams and terminals.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use mainstay_linux::mount;
use mainstay_linux::socket;
use rustix::fs::{CWD, FileType, Mode, OFlags, Uid, fchown, fstat, mknodat, open};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::{InitError, Stdio, step};
use crate::handshake::{Child, Report};

/// Puts the standard streams in their places, which are the user's `owner` then. Returns the process's side
/// of its terminal if it has one.
pub(super) fn connect(
    owner: u32,
    stdio: Stdio,
    channel: &Child,
) -> Result<Option<OwnedFd>, InitError> {
    let to_socket = match stdio {
        Stdio::Streams([input, output, error]) => {
            place(input.as_fd(), output.as_fd(), error.as_fd(), owner)?;
            return Ok(None);
        }
        Stdio::Terminal => None,
        Stdio::TerminalTo(socket) => Some(socket),
    };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let named = |what: &'static str| move |error: rustix::io::Errno| step(what)(error.into());
    // Inside the container, so that its own `/dev/pts` has the device.
    let controller = openpt(flags).map_err(named("open /dev/ptmx in the container"))?;
    grantpt(&controller).map_err(named("set up the terminal"))?;
    unlockpt(&controller).map_err(named("unlock the terminal"))?;
    // Not by its name: what lies there is the container's choice.
    let terminal = ioctl_tiocgptpeer(&controller, flags).map_err(named("open the terminal"))?;
    match to_socket {
        None => channel.send(&Report::Terminal(controller)),
        Some(socket) => socket::send(&socket, b"T", &[controller.as_fd()]).map(drop),
    }
    .map_err(step("hand over the terminal"))?;
    place(terminal.as_fd(), terminal.as_fd(), terminal.as_fd(), owner)?;
    rustix::process::ioctl_tiocsctty(&terminal).map_err(named("take control of the terminal"))?;
    Ok(Some(terminal))
}

/// Programs that write to `/dev/console` mean the terminal.
pub(super) fn show_as_console(terminal: &OwnedFd) -> Result<(), InitError> {
    let path = Path::new("/dev/console");
    let named = || step("mount the terminal at /dev/console");
    let mode = Mode::from_raw_mode(0o600);
    match mknodat(CWD, path, FileType::RegularFile, mode, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(named()(error.into())),
    }
    let copy = mount::copy_one(terminal).map_err(named())?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = open(path, flags, Mode::empty()).map_err(|error| named()(error.into()))?;
    mount::attach(&copy, &target).map_err(named())
}

fn place(
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    error: BorrowedFd<'_>,
    uid: u32,
) -> Result<(), InitError> {
    for stream in [input, output, error] {
        give_to(stream, uid)?;
    }
    let named = |error: rustix::io::Errno| step("place the standard streams")(error.into());
    dup2_stdin(input).map_err(named)?;
    dup2_stdout(output).map_err(named)?;
    dup2_stderr(error).map_err(named)
}

/// Lets the process open its own streams anew by `/proc/self/fd`, as many images' logs do.
///
/// Only what was made for this process: a device such as `/dev/null` belongs to all.
fn give_to(stream: BorrowedFd<'_>, uid: u32) -> Result<(), InitError> {
    let named =
        |error: rustix::io::Errno| step("give the standard streams to the user")(error.into());
    let status = fstat(stream).map_err(named)?;
    let own = match FileType::from_raw_mode(status.st_mode) {
        FileType::Fifo | FileType::Socket => true,
        FileType::CharacterDevice => rustix::termios::isatty(stream),
        _ => false,
    };
    if own && status.st_uid != uid {
        fchown(stream, Some(Uid::from_raw(uid)), None).map_err(named)?;
    }
    Ok(())
}
