//! The small single-threaded process that holds one pod's namespaces and containers.
//!
//! Started as `mainstay-shim resolver`, it is another one that answers pods' questions for names; see
//! [`resolver`].
//!
//! The engine starts it with a listening socket as standard input and drives it through the
//! protocol of `mainstay-shim-protocol`. It outlives the agent: it keeps the pod's namespaces,
//! is the parent of the containers' first processes, writes their logs and remembers how they
//! ended. It decides nothing.

// They panic where standard error cannot be written, and the pod would go with the shim.
#![forbid(clippy::print_stderr)]

mod attach;
mod connection;
mod container;
mod cri_log;
mod handshake;
mod init;
mod namespaces;
mod resolver;
mod shim;
mod watch;

use std::ffi::CStr;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags, open};

fn main() -> ExitCode {
    let served = match std::env::args().nth(1).as_deref() {
        Some("--version") => {
            println!("mainstay-shim {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some("resolver") => resolve(),
        _ => serve(),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error}; it is started by mainstay, not by hand"));
            ExitCode::FAILURE
        }
    }
}

/// Says something to whoever looks for it in the shim's log; there is nobody to tell it to.
fn complain(text: fmt::Arguments<'_>) {
    // The disk may be full, which is often what the text is about.
    let _ = writeln!(io::stderr(), "mainstay-shim: {text}");
}

fn resolve() -> io::Result<()> {
    let listener = take_listener()?;
    settle(c"mainstay-dns")?;
    resolver::Resolver::new(listener).run()
}

/// Becomes a process of its own.
fn settle(name: &CStr) -> io::Result<()> {
    // It was executed by a number, which would be its name in lists of processes.
    rustix::thread::set_name(name)?;
    // Before anything is started: signals to the agent's process group are not for the pods.
    // A group leader, as a shell makes one, cannot leave; then there is nothing to leave.
    match rustix::process::setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::process::chdir("/").map_err(io::Error::from)
}

fn serve() -> io::Result<()> {
    let listener = take_listener()?;
    settle(c"mainstay-shim")?;
    let signals = mainstay_linux::process::signals()?;
    // Orphans of containers that use the host's process numbers come here, not to init.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    shim::Shim::new(listener, signals).run()
}

/// Takes the listening socket from standard input, and leaves `/dev/null` there.
fn take_listener() -> io::Result<UnixListener> {
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    if !rustix::net::sockopt::socket_acceptconn(&listener)? {
        return Err(io::Error::other("standard input is not a listening socket"));
    }
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    Ok(listener)
}
