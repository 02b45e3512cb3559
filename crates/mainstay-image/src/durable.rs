//! Files that are either not there or whole, whatever happens: written under another name, synced,
//! renamed, and the directory synced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::space::is_disk_full;

/// A failed step of work on a file or directory.
#[derive(Debug, thiserror::Error)]
#[error("{step} {} failed", path.display())]
pub struct FileError {
    /// What was being done.
    pub step: &'static str,
    /// To what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Whether a full disk or an exhausted quota is the reason, so that freeing space helps.
    pub fn is_disk_full(&self) -> bool {
        is_disk_full(&self.source)
    }
}

/// Says what was being done to `path` when it failed.
pub(crate) fn at<'a>(
    step: &'static str,
    path: impl AsRef<Path> + 'a,
) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { step, path: path.as_ref().to_path_buf(), source }
}

/// A file with content that is on disk already, under a name that means nothing yet.
pub(crate) struct Prepared {
    file: NamedTempFile,
    target: PathBuf,
}

/// An empty file below `work` that is locked, so that whoever tidies up there can tell that
/// somebody still needs it.
pub(crate) fn scratch(work: &Path) -> Result<NamedTempFile, FileError> {
    let file =
        NamedTempFile::with_prefix_in("file-", work).map_err(at("making a file in", work))?;
    file.as_file().lock().map_err(at("locking", file.path()))?;
    Ok(file)
}

/// Writes and syncs `content`, to become `target` later.
pub(crate) fn prepare(
    mut file: NamedTempFile,
    target: PathBuf,
    content: &[u8],
) -> Result<Prepared, FileError> {
    file.write_all(content).map_err(at("writing", file.path()))?;
    file.as_file().sync_all().map_err(at("syncing", file.path()))?;
    Ok(Prepared { file, target })
}

impl Prepared {
    /// Gives the file its name. That it keeps it over a power cut takes a [`sync_dir`] after this.
    pub(crate) fn publish(self) -> Result<(), FileError> {
        let target = self.target;
        self.file
            .persist(&target)
            .map_err(|error| at("renaming a file to", target)(error.error))?;
        Ok(())
    }
}

/// Makes the names in `directory` durable.
pub(crate) fn sync_dir(directory: &Path) -> Result<(), FileError> {
    let file = File::open(directory).map_err(at("opening", directory))?;
    file.sync_all().map_err(at("syncing", directory))
}

/// Makes everything below `directory` durable, and everything else on its file system with it:
/// syncing thousands of files one by one would take far longer.
pub(crate) fn sync_tree(directory: &Path) -> Result<(), FileError> {
    let file = File::open(directory).map_err(at("opening", directory))?;
    rustix::fs::syncfs(&file)
        .map_err(|errno| at("syncing the file system of", directory)(errno.into()))
}

/// The content of a file, or `None` if there is none. Longer ones than `limit` bytes are an error.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("opening", path)(error)),
    };
    read_limited(file, limit).map(Some).map_err(at("reading", path))
}

/// Everything that `reader` has, or an error if that is more than `limit` bytes.
pub(crate) fn read_limited(reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        let message = format!("longer than the {limit} bytes that are read at most");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}

/// Removes a file; that it is gone already is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("removing", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a directory and what is in it, however deep; that it is gone already, or that somebody
/// else removes it at the same time, is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<(), FileError> {
    mainstay_linux::path::remove_all(path).map_err(at("removing", path))
}
