//! Paths that somebody else chose, walked without leaving a directory.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat};

/// Opens a directory for walking from it.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?)
}

/// Opens `path` as if `root` were the root directory: `..` and absolute links stay inside.
///
/// Source: openat2(2), `RESOLVE_IN_ROOT`; kernel 5.6.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// The name that the kernel gives to an open file of this process, for calls that take only a
/// path.
pub fn of_descriptor(descriptor: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()).into()
}

/// Removes a directory and all that is in it, without following a link and without entering
/// another file system.
///
/// Absent is success. A mount point inside makes it fail with `EBUSY`, before anything on the
/// other side is touched.
pub fn remove_all(directory: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no last component"));
    };
    let parent = match open_directory(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    remove_entry(parent.as_fd(), Path::new(name))
}

fn remove_entry(parent: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let directory = match openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::XDEV) => return Err(rustix::io::Errno::BUSY.into()),
        other => other?,
    };
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            let name = Path::new(OsStr::from_bytes(bytes));
            remove_entry(directory.as_fd(), name)?;
        }
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory in another one; there already is success.
pub fn ensure_directory(parent: impl AsFd, name: &Path, mode: Mode) -> io::Result<()> {
    match mkdirat(parent, name, mode) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_does_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", dir.path().join("up")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("absolute")).unwrap();
        let root = open_directory(dir.path()).unwrap();
        for name in ["up", "absolute"] {
            let file = open_in_root(&root, Path::new(name), OFlags::RDONLY).unwrap();
            assert_eq!(std::io::read_to_string(std::fs::File::from(file)).unwrap(), "inside");
        }
    }

    #[test]
    fn removal_takes_links_and_not_what_they_point_to() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::write(&kept, "x").unwrap();
        let doomed = dir.path().join("doomed");
        std::fs::create_dir_all(doomed.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&kept, doomed.join("a/link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), doomed.join("a/b/parent")).unwrap();
        remove_all(&doomed).unwrap();
        remove_all(&doomed).unwrap();
        assert!(kept.exists() && !doomed.exists());
    }
}
