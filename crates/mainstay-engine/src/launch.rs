//! Starting shims, and the resolver, which is the same program.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use mainstay_linux::spawn::{Spawn, spawn};
use mainstay_linux::{memfd, socket};

use crate::io_failed;

/// The shim's socket in its sandbox's directory.
pub(crate) const SOCKET: &str = "shim.sock";

/// What a shim prints, which is nothing unless something is very wrong.
const OUTPUT: &str = "shim.log";

/// A shim that cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The program is not where it should be.
    #[error("cannot load {}; it is installed beside mainstay", path.display())]
    Load {
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: io::Error,
    },
    /// A step of starting it failed.
    #[error("cannot {step} in {}", directory.display())]
    Start {
        /// What was tried.
        step: &'static str,
        /// The sandbox's directory.
        directory: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Connects to the process of a directory; `None` where none listens.
///
/// # Errors
///
/// When that cannot be told.
pub(crate) fn connect(directory: &Path) -> mainstay_cri::Result<Option<UnixStream>> {
    let path = directory.join(SOCKET);
    match socket::connect(&path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(io_failed(format!("cannot connect to {}", path.display()))(error)),
    }
}

/// The shim's program, held in memory.
#[derive(Debug)]
pub(crate) struct Launcher {
    program: OwnedFd,
}

/// What a process of the program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To hold a pod.
    Shim,
    /// To answer pods' questions for names.
    Resolver,
}

/// A shim that was started.
pub(crate) struct Launched {
    pub(crate) pid: i32,
    pub(crate) stream: UnixStream,
}

impl Launcher {
    pub(crate) fn load(path: &Path) -> Result<Self, LaunchError> {
        let load = |source| LaunchError::Load { path: path.to_owned(), source };
        Ok(Self { program: memfd::sealed_copy(path).map_err(load)? })
    }

    /// Starts a shim, or a resolver, that serves the socket in `directory`, in a version 2 control group, and
    /// connects to it.
    ///
    /// The socket is bound here and handed to the shim, so there is no moment at which the shim
    /// exists and cannot be found: a connection is refused exactly when there is no shim.
    pub(crate) fn launch(
        &self,
        directory: &Path,
        purpose: Purpose,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Launched, LaunchError> {
        let failed = |step| {
            move |source| LaunchError::Start { step, directory: directory.to_owned(), source }
        };
        let path = directory.join(SOCKET);
        let listener = socket::listen(&path).map_err(failed("bind the shim's socket"))?;
        // Before there is a shim, which nobody would know if this failed.
        let stream = socket::connect(&path).map_err(failed("connect to the shim's socket"))?;
        let output = File::create(directory.join(OUTPUT)).map_err(failed("make the shim's log"))?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(failed("open /dev/null"))?;
        let arguments = match purpose {
            Purpose::Shim => &[c"mainstay-shim"][..],
            Purpose::Resolver => &[c"mainstay-shim", c"resolver"],
        };
        // Nothing of the agent's surroundings concerns a pod.
        let started = spawn(&Spawn {
            program: self.program.as_fd(),
            arguments,
            stdio: [listener.as_fd(), null.as_fd(), output.as_fd()],
            cgroup,
        });
        let pid = started.map_err(failed("start the shim"))?;
        Ok(Launched { pid, stream })
    }
}
