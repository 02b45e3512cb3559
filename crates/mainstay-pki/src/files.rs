//! Reading and writing the files, and what can be wrong with them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes of one file that are read. A bundle of a hundred authorities is far smaller.
const MAX_BYTES: u64 = 1 << 20;

/// Why the keys and certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A step of work on a file failed.
    #[error("{step} {} failed", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is there and is not what it should be, and nothing may replace it without being asked.
    #[error("{} {what}; {remedy}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A key or a certificate could not be made.
    #[error("making {what} failed")]
    Make {
        /// What was being made.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// 0600.
    Secret,
    /// 0644; the directory is 0700 nevertheless.
    Public,
}

impl Mode {
    fn bits(self) -> u32 {
        match self {
            Self::Secret => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Says what was being done to `path` when it failed.
pub(crate) fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    move |source| PkiError::Io { step, path: path.to_owned(), source }
}

/// A directory for nobody else, made with those above it if need be. Tells whether others could look
/// into it before.
pub(crate) fn private_directory(path: &Path) -> Result<bool, PkiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at("making the directory", path))?;
    restrict(path, 0o077, 0o700)
}

/// Takes the rights in `mask` away from a file that has them, by giving it `mode`. Tells whether it had.
fn restrict(path: &Path, mask: u32, mode: u32) -> Result<bool, PkiError> {
    let found = fs::metadata(path).map_err(at("looking at", path))?.permissions().mode();
    let open = found & mask != 0;
    if open {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(at("restricting the permissions of", path))?;
    }
    Ok(open)
}

/// Takes a key file away from everybody else. Tells whether they could read it before.
pub(crate) fn restrict_key(path: &Path) -> Result<bool, PkiError> {
    restrict(path, 0o077, 0o600)
}

/// The text of a file; `None` if there is none. One that is no text is empty, and so is one that is far
/// too long: neither is anything that is looked for here.
pub(crate) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("opening", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(at("reading", path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Ok(Some(String::new()));
    }
    Ok(Some(String::from_utf8(bytes).unwrap_or_default()))
}

/// Replaces a file: after a power cut the old one or the new one is there, whole, and never one that
/// others could read in between.
pub(crate) fn write(path: &Path, content: &str, mode: Mode) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let staged = path.with_file_name(name);
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at("removing", &staged)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode.bits())
        .open(&staged)
        .map_err(at("making", &staged))?;
    file.write_all(content.as_bytes()).map_err(at("writing", &staged))?;
    file.sync_all().map_err(at("syncing", &staged))?;
    fs::rename(&staged, path).map_err(at("renaming a file to", path))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(directory.unwrap_or(Path::new(".")))
}

/// Sees to it that the names in a directory are on the disk.
pub(crate) fn sync(directory: &Path) -> Result<(), PkiError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(at("syncing", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_whole_and_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        // What an attempt that was cut off has left is in nobody's way, and its mode is not taken over.
        fs::write(directory.path().join("a.key.new"), "half of someth").unwrap();
        for content in ["a long first one", "short"] {
            write(&path, content, Mode::Secret).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(content));
            assert_eq!(mode(&path), 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(read(&directory.path().join("b")).unwrap(), None);
    }

    #[test]
    fn what_others_could_read_is_taken_away_from_them() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("x/pki");
        assert!(!private_directory(&inner).unwrap());
        assert_eq!(mode(&inner), 0o700);
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        assert!(private_directory(&inner).unwrap());
        assert_eq!(mode(&inner), 0o700);
        let key = inner.join("a.key");
        write(&key, "key", Mode::Public).unwrap();
        assert!(restrict_key(&key).unwrap());
        assert!(!restrict_key(&key).unwrap());
        assert_eq!(mode(&key), 0o600);
    }
}
