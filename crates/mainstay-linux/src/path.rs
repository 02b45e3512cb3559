//! Paths that somebody else chose, walked without leaving a directory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

/// How many directories, one in the other, [`remove_all`] has open at the same time.
const DEPTH_MAX: usize = 32;

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

/// Opens `path`, which stays beneath `root` with all links on the way; else it is `EXDEV`.
///
/// Source: openat2(2), `RESOLVE_BENEATH`; kernel 5.6.
pub fn open_beneath(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// The name that the kernel gives to an open file of this process, for calls that take only a
/// path.
pub fn of_descriptor(descriptor: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()).into()
}

/// Removes a file, or a directory and all that is in it, without following a link and without
/// entering another file system.
///
/// Absent is success. A mount point inside makes it fail with `EBUSY`, before anything on the
/// other side is touched. How deep the directory is does not matter: neither the stack nor the
/// number of descriptors grows with it.
pub fn remove_all(directory: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no last component"));
    };
    // What leads to it is the caller's own; only what is in it is somebody else's.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    remove_all_at(&parent, Path::new(name))
}

/// As [`remove_all`], for what is called `name` in an open directory.
pub fn remove_all_at(parent: impl AsFd, name: &Path) -> io::Result<()> {
    let Some(top) = unlink_or_open(parent.as_fd(), name)? else { return Ok(()) };
    let mut removal = Removal { top: &top, moved: 0 };
    loop {
        let moved = removal.moved;
        removal.empty(Dir::read_from(&top)?, 1)?;
        // Nothing was added to the top directory while it was read, so it is empty.
        if removal.moved == moved {
            return Ok(remove_empty(parent.as_fd(), name)?);
        }
    }
}

/// The removal of a directory.
struct Removal<'a> {
    top: &'a OwnedFd,
    /// The next name for a directory that is moved to the top.
    moved: u64,
}

impl Removal<'_> {
    /// Removes what is in a directory. What lies too deep is moved to the top directory, where it
    /// is found when that is read again: whoever made the directories chose how deep they are.
    fn empty(&mut self, mut entries: Dir, depth: usize) -> io::Result<()> {
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let (directory, name) = (entries.fd()?, entry.file_name());
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Some(inner) = unlink_or_open(directory, name)? else { continue };
            if depth == DEPTH_MAX {
                self.move_up(directory, name)?;
            } else {
                self.empty(Dir::new(inner)?, depth + 1)?;
                remove_empty(directory, name)?;
            }
        }
        Ok(())
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            match renameat(directory, name, self.top, self.moved.to_string()) {
                // The name is taken; an empty directory of that name would just have gone.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                // Somebody else removes it too.
                Err(Errno::NOENT) => return Ok(()),
                other => return other,
            }
        }
    }
}

/// Removes what is not a directory, and opens what is one; `None` if there is nothing left to do.
fn unlink_or_open(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<Option<OwnedFd>, Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::XDEV) => Err(Errno::BUSY),
        other => other.map(Some),
    }
}

fn remove_empty(parent: BorrowedFd<'_>, name: impl Arg) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
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
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

    /// Makes directories one in the other, each with a file beside the next one.
    fn make_deep(top: &Path, levels: usize) {
        std::fs::create_dir(top).unwrap();
        let mut directory = open_directory(top).unwrap();
        for level in 0..levels {
            // The name that removing would give the first that it moves.
            let name = if level % 2 == 0 { "1" } else { "d" };
            mkdirat(&directory, name, Mode::RWXU).unwrap();
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&directory, "file", flags, Mode::RUSR).unwrap();
            directory = openat(&directory, name, OFlags::PATH, Mode::empty()).unwrap();
        }
    }

    /// What a container can do with nothing but `mkdir` and `chdir`.
    #[test]
    fn removal_takes_any_depth_with_little_stack_and_few_descriptors() {
        // In memory, since a disk takes its time for so many directories.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let doomed = dir.path().join("doomed");
        make_deep(&doomed, 20_000);
        std::fs::create_dir_all(doomed.join("2/not-empty")).unwrap();
        std::fs::write(doomed.join("3"), "").unwrap();
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).unwrap();
        let path = doomed.clone();
        let thread = std::thread::Builder::new().stack_size(128 << 10);
        let removed = thread.spawn(move || remove_all(&path)).unwrap().join().unwrap();
        setrlimit(Resource::Nofile, limit).unwrap();
        removed.unwrap();
        assert!(!doomed.exists());
    }
}
