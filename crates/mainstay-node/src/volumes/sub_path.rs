//! Parts of volumes that are mounted by themselves.
//!
//! Whoever writes to a volume chooses what its names lead to, also between two looks. So the kernel resolves
//! a sub path beneath the volume's root, and only descriptors are used after that: here, to make what is
//! missing and to say what is wrong, and again when it is mounted.
//!
//! Source: `pkg/volume/util/subpath/subpath_linux.go`; openat2(2), `RESOLVE_BENEATH`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use mainstay_linux::path::{open_beneath, open_directory};
use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat2};
use rustix::io::Errno;

/// Sees to it that a path leads to something in a volume. What is not there becomes a directory with the
/// rights of the volume's own.
pub(super) fn prepare(volume: &Path, path: &Path) -> io::Result<()> {
    open(&open_directory(volume)?, path).map(drop)
}

/// Opens what a path leads to, which stays beneath the root, links included.
fn open(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    match open_beneath(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_directories(root, path),
        other => other.map_err(leads_out),
    }
}

fn leads_out(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::XDEV) => io::Error::other(
            "it leads out of the volume, or over a link with an absolute path, which has to be a relative one",
        ),
        _ => error,
    }
}

/// Makes what is missing, one directory in the other.
fn make_directories(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(fstat(root)?.st_mode & 0o7777);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut directory = open_beneath(root, Path::new("."), flags)?;
    let mut walked = PathBuf::new();
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        walked.push(name);
        directory = match open_beneath(root, &walked, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(&directory, Path::new(name), mode)?
            }
            other => other.map_err(leads_out)?,
        };
    }
    Ok(directory)
}

fn make_directory(parent: &OwnedFd, name: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let made = match mkdirat(parent, name, mode) {
        Ok(()) => true,
        // Somebody was faster, or it is a link to nowhere, which is not followed.
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let directory = openat2(parent, name, flags, Mode::empty(), resolve)?;
    if made {
        // Whatever the umask is.
        fchmod(&directory, mode)?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests;
