//! Files and directories as they are found.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How old a file's last change has to be for a file that was found by looking to count as
/// finished.
const SETTLED: Duration = Duration::from_millis(200);

/// Larger ones are refused when they are parsed; this much and a byte more is read to tell.
/// Source: `maxConfigLength` of the kubelet, 10 MiB.
const LARGEST: u64 = 10 << 20;

/// What changes when a file does. The time of modification alone is not to be trusted: some
/// systems set it to the same moment for all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A manifest's bytes and the stamp that goes with them.
pub(crate) struct Entry {
    pub(crate) stamp: Stamp,
    pub(crate) bytes: Vec<u8>,
}

/// What is in a directory.
pub(crate) struct Listing {
    /// Device and inode of the directory.
    pub(crate) identity: (u64, u64),
    /// Names of files, and of what looks like files; those in directories below have their
    /// directory in front.
    pub(crate) names: Vec<String>,
    /// Directories below that were looked at too.
    pub(crate) directories: Vec<String>,
}

impl Stamp {
    /// Looks at a file, through links.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|status| Self::from(&status))
    }

    /// Of a file that cannot be looked at; equal to none that can.
    pub(crate) fn unreadable() -> Self {
        Self { device: 0, inode: 0, size: 0, modified: (0, 0), changed: (0, 0) }
    }

    /// Whether the last change is old enough.
    pub(crate) fn is_settled(&self) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        let nanoseconds = u32::try_from(self.changed.1).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::new(changed, nanoseconds);
        // A change in the future is as good as one long ago: no clock will tell more.
        changed.elapsed().map_or(true, |age| age >= SETTLED)
    }
}

impl From<&fs::Metadata> for Stamp {
    fn from(status: &fs::Metadata) -> Self {
        Self {
            device: status.dev(),
            inode: status.ino(),
            size: status.size(),
            modified: (status.mtime(), status.mtime_nsec()),
            changed: (status.ctime(), status.ctime_nsec()),
        }
    }
}

impl Entry {
    /// Reads a regular file, through links.
    ///
    /// It is opened without waiting, since a FIFO would otherwise hold up all others for ever.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        const O_NONBLOCK: i32 = 0o4000;
        let mut file = File::options().read(true).custom_flags(O_NONBLOCK).open(path)?;
        let status = file.metadata()?;
        if !status.is_file() {
            let message = "it is not a regular file, and only those are read";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut bytes = Vec::new();
        (&mut file).take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok(Self { stamp: Stamp::from(&status), bytes })
    }
}

/// Device and inode of a directory.
pub(crate) fn identity(directory: &Path) -> io::Result<(u64, u64)> {
    let status = fs::metadata(directory)?;
    if status.is_dir() {
        Ok((status.dev(), status.ino()))
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

/// Lists a directory, with those below it or without.
///
/// Links to directories are not followed, and directories whose names start with a dot are not
/// looked into: what is in them is reached by other names, or unfinished.
pub(crate) fn list(directory: &Path, recursive: bool) -> io::Result<Listing> {
    let mut listing =
        Listing { identity: identity(directory)?, names: Vec::new(), directories: Vec::new() };
    let mut ahead = vec![String::new()];
    while let Some(within) = ahead.pop() {
        for entry in fs::read_dir(directory.join(&within))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_directory = entry.file_type()?.is_dir();
            let hidden = name.starts_with('.');
            let name = if within.is_empty() { name } else { format!("{within}/{name}") };
            if !is_directory {
                listing.names.push(name);
            } else if recursive && !hidden {
                listing.directories.push(name.clone());
                ahead.push(name);
            }
        }
    }
    Ok(listing)
}

/// Whether a name is one of a manifest: it ends in `.yaml`, `.yml` or `.json`, and is not one
/// that an editor, a package manager or a shell gives to something unfinished or put aside.
pub fn is_manifest_name(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let extension = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
    extension && !name.starts_with(['.', '#']) && !name.ends_with(['~', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_manifests_are_told_from_others() {
        for name in ["web.yaml", "web.yml", "web.json", "a.b.yaml", "2.yaml"] {
            assert!(is_manifest_name(Path::new(name)), "{name}");
        }
        for name in [
            "web",
            "web.yaml.bak",
            "web.yaml~",
            ".web.yaml",
            ".web.yaml.swp",
            "#web.yaml#",
            "4913",
            "web.yaml.orig",
            "web.yaml.rpmsave",
            "web.txt",
            "yaml",
            ".yaml",
            "#web.yaml",
        ] {
            assert!(!is_manifest_name(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn only_regular_files_are_read_and_a_fifo_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo.yaml");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(Entry::read(&fifo).err().unwrap().kind(), io::ErrorKind::InvalidInput);
        let file = directory.path().join("a.yaml");
        fs::write(&file, "x").unwrap();
        let link = directory.path().join("link.yaml");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(Entry::read(&link).unwrap().bytes, b"x");
    }
}
