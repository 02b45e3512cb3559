//! The directory that a layer is unpacked into, ready to be a lower directory of overlayfs.
//!
//! # Guarantees
//!
//! - Nothing outside the directory is read, changed or linked to, whatever the entries say: every
//!   path is resolved by the kernel with `RESOLVE_BENEATH`, and the last component of a path is
//!   never followed. Symbolic links within the layer that stay in it may be parents, as they are
//!   for other unpackers.
//! - Of several entries for one path the last one counts; a directory keeps what is in it.
//!
//! # Assumptions
//!
//! - Nobody else writes to the directory meanwhile.
//! - The caller may change owners, make devices and set `trusted.*` attributes: it is root.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mainstay_linux::path::remove_all_at;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
    Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::layer::LayerPath;
use crate::tar::{Entry, Kind};

/// The attribute by which overlayfs hides everything below a directory in lower layers.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
/// The most parent directories that a layer may leave out: each is remembered until the end.
const IMPLICIT_MAX: usize = 10_000;
/// The most kinds of attributes that are reported as left out.
const SKIPPED_MAX: usize = 16;

/// Why an entry could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The parent resolves to something outside.
    #[error("its parent directory leads out of the layer through a symbolic link")]
    ParentEscapes,
    /// The parent is a symbolic link to itself, or to nothing in this layer.
    #[error("its parent directory {0:?} is a symbolic link that leads nowhere in this layer")]
    ParentDangles(String),
    /// The parent is a file.
    #[error("its parent {0:?} is not a directory")]
    ParentNotDirectory(String),
    /// Far too many parents without an entry of their own.
    #[error("the layer leaves out the entries of more than {IMPLICIT_MAX} parent directories")]
    TooManyImplicit,
    /// A hard link to a file that the layer does not have.
    #[error(
        "it is a hard link to {0:?}, which this layer has not: a link into a lower layer cannot be made"
    )]
    LinkTargetMissing(String),
    /// A hard link whose target resolves to something outside.
    #[error("it is a hard link to {0:?}, which leads out of the layer through a symbolic link")]
    LinkTargetEscapes(String),
    /// A hard link to a directory.
    #[error("it is a hard link to the directory {0:?}")]
    LinkToDirectory(String),
    /// The file system has no place for an attribute that matters.
    #[error(
        "the file system of the store does not support the attribute {0:?}, which the file needs"
    )]
    XattrUnsupported(String),
    /// A system call failed.
    #[error("{step} failed")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A directory that is being filled.
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory of the newest entry: entries mostly come directory by directory.
    open: Option<Open>,
    /// Parents that had to be made without an entry of their own.
    implicit: BTreeSet<Vec<u8>>,
    /// Attributes that the file system would not take.
    skipped: BTreeSet<String>,
}

struct Open {
    path: Vec<u8>,
    fd: OwnedFd,
    /// Its time from before anything was put into it, to be put back on leaving: so it does not
    /// matter whether the entry of a directory comes before or after what is in it.
    mtime: Timespec,
}

/// What became of the tree.
pub(crate) struct Finished {
    pub(crate) implicit: Vec<Vec<u8>>,
    pub(crate) skipped_xattrs: Vec<String>,
}

// === impl Tree ===

impl Tree {
    /// The empty directory at `path`.
    pub(crate) fn new(path: &Path) -> Result<Self, TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(io("opening the root"))?;
        // Nobody chose the root's owner and mode either, until its entry comes.
        let implicit = BTreeSet::from([Vec::new()]);
        Ok(Self { root, open: None, implicit, skipped: BTreeSet::new() })
    }

    /// The root, for asking about its file system.
    pub(crate) fn root_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(crate) fn finish(mut self) -> Result<Finished, TreeError> {
        self.leave()?;
        Ok(Finished {
            implicit: self.implicit.into_iter().collect(),
            skipped_xattrs: self.skipped.into_iter().collect(),
        })
    }

    /// Gives the root the metadata of `entry`.
    pub(crate) fn root(&mut self, entry: &Entry) -> Result<(), TreeError> {
        self.leave()?;
        let root = self.root.try_clone();
        let root = root.map_err(|source| TreeError::Io { step: "duplicating the root", source })?;
        self.implicit.remove(&b""[..]);
        self.finish_open(&root, entry)
    }

    pub(crate) fn directory(&mut self, path: &LayerPath, entry: &Entry) -> Result<(), TreeError> {
        let (parent, name) = parent_and_name(path);
        self.enter(parent)?;
        let fd = self.parent();
        match rustix::fs::mkdirat(fd, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = lstat(fd, name)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    unlink(fd, name)?;
                    rustix::fs::mkdirat(fd, name, Mode::RWXU).map_err(io("making a directory"))?;
                    // A whiteout and a directory of the same name in one layer: the directory is
                    // there, and nothing of what lower layers have in it.
                    if is_whiteout(&stat) {
                        self.set_opaque(name)?;
                    }
                }
            }
            Err(error) => return Err(io("making a directory")(error)),
        }
        self.implicit.remove(path.as_bytes());
        self.finish_named(name, entry)
    }

    /// A new empty file. Its content is to be written, and then [`Tree::finish_file`] called.
    pub(crate) fn file(&mut self, path: &LayerPath) -> Result<File, TreeError> {
        let (parent, name) = parent_and_name(path);
        self.enter(parent)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.make(name, "making a file", |fd| {
            rustix::fs::openat(fd, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(fd.into())
    }

    /// Gives a file its owner, mode, attributes and times, which writing would change again.
    pub(crate) fn finish_file(&mut self, file: &File, entry: &Entry) -> Result<(), TreeError> {
        self.finish_open(file, entry)
    }

    pub(crate) fn symlink(&mut self, path: &LayerPath, entry: &Entry) -> Result<(), TreeError> {
        let (parent, name) = parent_and_name(path);
        self.enter(parent)?;
        let target = entry.link.as_slice();
        self.make(name, "making a symbolic link", |fd| rustix::fs::symlinkat(target, fd, name))?;
        self.finish_named(name, entry)
    }

    pub(crate) fn node(&mut self, path: &LayerPath, entry: &Entry) -> Result<(), TreeError> {
        let (parent, name) = parent_and_name(path);
        self.enter(parent)?;
        let kind = match entry.kind {
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::Fifo | Kind::File | Kind::HardLink | Kind::Symlink | Kind::Directory => {
                FileType::Fifo
            }
        };
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        self.make(name, "making a device node or FIFO", |fd| {
            rustix::fs::mknodat(fd, name, kind, Mode::RUSR | Mode::WUSR, device)
        })?;
        self.finish_named(name, entry)
    }

    pub(crate) fn hard_link(
        &mut self,
        path: &LayerPath,
        target: &LayerPath,
    ) -> Result<(), TreeError> {
        let (parent, name) = parent_and_name(path);
        let (target_parent, target_name) = parent_and_name(target);
        let shown = || lossy(target.as_bytes());
        let directory = self.open_directory(target_parent).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => TreeError::LinkTargetMissing(shown()),
            Errno::XDEV | Errno::LOOP => TreeError::LinkTargetEscapes(shown()),
            errno => io("opening the directory of a hard link's target")(errno),
        })?;
        let target_stat =
            match rustix::fs::statat(&directory, target_name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    return Err(TreeError::LinkToDirectory(shown()));
                }
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Err(TreeError::LinkTargetMissing(shown())),
                Err(errno) => return Err(io("looking at a hard link's target")(errno)),
            };
        self.enter(parent)?;
        if let Ok(stat) = rustix::fs::statat(self.parent(), name, AtFlags::SYMLINK_NOFOLLOW)
            && (stat.st_dev, stat.st_ino) == (target_stat.st_dev, target_stat.st_ino)
        {
            return Ok(());
        }
        self.make(name, "making a hard link", |fd| {
            rustix::fs::linkat(&directory, target_name, fd, name, AtFlags::empty())
        })
    }

    /// Hides `path` in lower layers. What this layer itself has there stays, whichever came first.
    pub(crate) fn whiteout(&mut self, path: &LayerPath) -> Result<(), TreeError> {
        let (parent, name) = parent_and_name(path);
        self.enter(parent)?;
        let fd = self.parent();
        match rustix::fs::mknodat(fd, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let stat = lstat(fd, name)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => self.set_opaque(name),
                    _ => Ok(()),
                }
            }
            Err(errno) => Err(io("making a whiteout")(errno)),
        }
    }

    /// Hides everything that lower layers have in the directory `path`.
    pub(crate) fn opaque(&mut self, path: &LayerPath) -> Result<(), TreeError> {
        self.enter(path.as_bytes())?;
        rustix::fs::fsetxattr(self.parent(), OPAQUE, b"y", XattrFlags::empty())
            .map_err(io("marking a directory as opaque"))
    }

    fn set_opaque(&self, name: &[u8]) -> Result<(), TreeError> {
        rustix::fs::lsetxattr(self.proc_path(name), OPAQUE, b"y", XattrFlags::empty())
            .map_err(io("marking a directory as opaque"))
    }

    /// Makes `name` in the open directory; what was there before goes.
    fn make<T>(
        &self,
        name: &[u8],
        step: &'static str,
        make: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, TreeError> {
        match make(self.parent()) {
            Err(Errno::EXIST) => {
                let stat = lstat(self.parent(), name)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let name = Path::new(OsStr::from_bytes(name));
                    remove_all_at(self.parent(), name).map_err(|source| TreeError::Io {
                        step: "removing a directory that is replaced",
                        source,
                    })?;
                } else {
                    unlink(self.parent(), name)?;
                }
                make(self.parent()).map_err(io(step))
            }
            result => result.map_err(io(step)),
        }
    }

    /// Makes the directory at `path` the open one, and its parents if they are missing.
    fn enter(&mut self, path: &[u8]) -> Result<(), TreeError> {
        if self.open.as_ref().is_some_and(|open| open.path == path) {
            return Ok(());
        }
        self.leave()?;
        let fd = match self.open_directory(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_parents(path)?;
                self.leave()?;
                self.open_directory(path).map_err(io("opening a parent directory"))?
            }
            result => result.map_err(parent_error(path))?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(io("looking at a parent directory"))?;
        let mtime = Timespec {
            tv_sec: stat.st_mtime,
            // Below 1,000,000,000 by definition, so the conversion loses nothing.
            tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        };
        self.open = Some(Open { path: path.to_vec(), fd, mtime });
        Ok(())
    }

    /// Makes every directory of `path` that is missing, as root's with mode 0755.
    fn make_parents(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        for end in slashes.chain([path.len()]) {
            let prefix = &path[..end];
            match self.open_directory(prefix) {
                Ok(_) => continue,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(parent_error(prefix)(errno)),
            }
            let (parent, name) = split(prefix);
            self.enter(parent)?;
            let mode = Mode::from_raw_mode(0o755);
            let opaque = match rustix::fs::mkdirat(self.parent(), name, mode) {
                Ok(()) => false,
                Err(Errno::EXIST) => {
                    let stat = lstat(self.parent(), name)?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                        return Err(TreeError::ParentDangles(lossy(prefix)));
                    }
                    if !is_whiteout(&stat) {
                        return Err(TreeError::ParentNotDirectory(lossy(prefix)));
                    }
                    unlink(self.parent(), name)?;
                    rustix::fs::mkdirat(self.parent(), name, mode)
                        .map_err(io("making a parent directory"))?;
                    true
                }
                Err(errno) => return Err(io("making a parent directory")(errno)),
            };
            // The mode that was asked for is subject to the umask.
            rustix::fs::chmodat(self.parent(), name, mode, AtFlags::empty())
                .map_err(io("setting the mode of a parent directory"))?;
            if opaque {
                self.set_opaque(name)?;
            }
            if self.implicit.len() >= IMPLICIT_MAX {
                return Err(TreeError::TooManyImplicit);
            }
            self.implicit.insert(prefix.to_vec());
        }
        Ok(())
    }

    /// Closes the open directory and puts its time back.
    fn leave(&mut self) -> Result<(), TreeError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: omit, last_modification: open.mtime };
        rustix::fs::futimens(&open.fd, &times).map_err(io("setting the time of a directory"))
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.open.as_ref().map_or(self.root.as_fd(), |open| open.fd.as_fd())
    }

    /// A path to `name` in the open directory for calls that take no descriptor. It is resolved
    /// through the descriptor, so it cannot lead elsewhere.
    fn proc_path(&self, name: &[u8]) -> PathBuf {
        let directory = format!("/proc/self/fd/{}", self.parent().as_raw_fd());
        Path::new(&directory).join(OsStr::from_bytes(name))
    }

    /// Metadata of something that is not open: everything but files and the root.
    fn finish_named(&mut self, name: &[u8], entry: &Entry) -> Result<(), TreeError> {
        let fd = self.parent();
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io("setting the owner"))?;
        if entry.kind != Kind::Symlink {
            // After the owner, since a change of owner takes the set-id bits away.
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::chmodat(fd, name, mode, AtFlags::empty())
                .map_err(io("setting the mode"))?;
        }
        if !entry.xattrs.is_empty() {
            let path = self.proc_path(name);
            self.set_xattrs(entry, |key, value| {
                rustix::fs::lsetxattr(&path, key, value, XattrFlags::empty())
            })?;
        }
        rustix::fs::utimensat(self.parent(), name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io("setting the times"))
    }

    fn finish_open(&mut self, fd: &impl AsFd, entry: &Entry) -> Result<(), TreeError> {
        let (uid, gid) = owner(entry);
        rustix::fs::fchown(fd, uid, gid).map_err(io("setting the owner"))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(io("setting the mode"))?;
        self.set_xattrs(entry, |key, value| {
            rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty())
        })?;
        rustix::fs::futimens(fd, &times(entry)).map_err(io("setting the times"))
    }

    fn set_xattrs(
        &mut self,
        entry: &Entry,
        set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
    ) -> Result<(), TreeError> {
        for (key, value) in &entry.xattrs {
            // A label of the machine where the image was built means nothing here; the one that
            // counts is given to the mount.
            if key == b"security.selinux" {
                continue;
            }
            match set(key, value) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) if key.starts_with(b"security.") => {
                    return Err(TreeError::XattrUnsupported(lossy(key)));
                }
                // Attributes of other systems, and user attributes of links and devices.
                Err(Errno::OPNOTSUPP) => self.note_skipped(key),
                Err(Errno::PERM) if key.starts_with(b"user.") => self.note_skipped(key),
                Err(errno) => return Err(io("setting an extended attribute")(errno)),
            }
        }
        Ok(())
    }

    fn note_skipped(&mut self, key: &[u8]) {
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.insert(lossy(key));
        }
    }
}

/// Whether a file is overlayfs's mark for something hidden.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn parent_and_name(path: &LayerPath) -> (&[u8], &[u8]) {
    split(path.as_bytes())
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn lstat(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, TreeError> {
    rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io("looking at what is there"))
}

fn unlink(fd: BorrowedFd<'_>, name: &[u8]) -> Result<(), TreeError> {
    rustix::fs::unlinkat(fd, name, AtFlags::empty()).map_err(io("removing what is replaced"))
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn parent_error(path: &[u8]) -> impl Fn(Errno) -> TreeError {
    move |errno| match errno {
        Errno::XDEV => TreeError::ParentEscapes,
        Errno::LOOP => TreeError::ParentDangles(lossy(path)),
        errno => io("opening a parent directory")(errno),
    }
}

fn io(step: &'static str) -> impl Fn(Errno) -> TreeError {
    move |errno| TreeError::Io { step, source: errno.into() }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
