//! The place of the file, where it is replaced as a whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::file::FileError;

/// Where a file is kept. It belongs to this process alone while this is there.
pub(super) trait Disk: Send + 'static {
    /// What the file is read and written with.
    type Backend: StorageBackend;

    /// The file, if there is one.
    fn open(&self) -> io::Result<Option<Self::Backend>>;

    /// An empty file beside it, which takes the place of one that has not been installed.
    fn create(&self) -> io::Result<Self::Backend>;

    /// Puts the file that was created last, and is synced, into its place, for good.
    fn install(&self) -> io::Result<()>;
}

/// A file in a directory.
#[derive(Debug)]
pub(super) struct PathDisk {
    path: PathBuf,
    /// Locked as long as this is there. Not the file itself, since that is replaced.
    _lock: File,
}

// === impl PathDisk ===

impl PathDisk {
    pub(super) fn lock(path: &Path) -> Result<Self, FileError> {
        let name = beside(path, ".lock");
        let failed = |error| FileError::Io(format!("{}: {error}", name.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&name).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FileError::InUse),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Disk for PathDisk {
    type Backend = FileBackend;

    fn open(&self) -> io::Result<Option<FileBackend>> {
        let file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut permissions = file.metadata()?.permissions();
        if permissions.mode() & 0o077 != 0 {
            // Such as of a copy that was put back: there are secrets in it.
            permissions.set_mode(0o600);
            file.set_permissions(permissions)?;
        }
        backend(file).map(Some)
    }

    fn create(&self) -> io::Result<FileBackend> {
        let staged = beside(&self.path, ".new");
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        backend(
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(staged)?,
        )
    }

    fn install(&self) -> io::Result<()> {
        fs::rename(beside(&self.path, ".new"), &self.path)?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn backend(file: File) -> io::Result<FileBackend> {
    FileBackend::new(file).map_err(io::Error::other)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
