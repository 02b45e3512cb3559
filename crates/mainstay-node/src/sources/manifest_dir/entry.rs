//! Files and directories as they are found.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, fstatvfs, open, statat};
use rustix::io::Errno;

use super::settle::QUIET;

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
    /// Whether everybody on the machine may read it, as far as its own rights go.
    pub(crate) exposed: bool,
    pub(crate) bytes: Vec<u8>,
}

/// Which directory one is: its file system and its inode.
///
/// Holds over reboots where a file system has a name of its own, as ext4 and btrfs take it from
/// their UUID; the number of a device need not. Source: statfs(2), `f_fsid`.
pub(crate) type Identity = (u64, u64);

/// The directory that a manifest lies in and those above it, up to the one that is looked at.
pub(crate) type Place = Vec<Identity>;

/// What is in a directory.
#[derive(Default)]
pub(crate) struct Listing {
    /// Names of files, and of what looks like files; those in directories below have their
    /// directory in front.
    pub(crate) names: Vec<String>,
    /// The directories that were looked at, by their names; that of the first one is empty.
    pub(crate) directories: BTreeMap<String, Identity>,
}

/// A directory that is open, so that all answers are about the same one, whatever is mounted over
/// its name meanwhile.
pub(crate) struct Directory(OwnedFd);

impl Stamp {
    /// Looks at a file, through links.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|status| Self::from(&status))
    }

    /// Of a file that cannot be looked at; equal to none that can.
    pub(crate) fn unreadable() -> Self {
        Self { device: 0, inode: 0, size: 0, modified: (0, 0), changed: (0, 0) }
    }

    /// Whether the last change is old enough for a file that was found by looking to count as
    /// finished.
    pub(crate) fn is_settled(&self) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        let nanoseconds = u32::try_from(self.changed.1).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::new(changed, nanoseconds);
        // A change in the future is as good as one long ago: no clock will tell more.
        changed.elapsed().map_or(true, |age| age >= QUIET)
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
        let exposed = status.mode() & 0o004 != 0;
        Ok(Self { stamp: Stamp::from(&status), exposed, bytes })
    }
}

impl Directory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    pub(crate) fn identity(&self) -> io::Result<Identity> {
        let status = fstat(&self.0)?;
        // A file system without a name of its own is told by its device.
        let named = Some(fstatvfs(&self.0)?.f_fsid).filter(|id| *id != 0);
        Ok((named.unwrap_or(status.st_dev), status.st_ino))
    }

    /// Whether there is something of this name, be it a link to nowhere.
    pub(crate) fn has(&self, name: &Path) -> io::Result<bool> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Which directory has this name now.
pub(crate) fn identity(directory: &Path) -> io::Result<Identity> {
    Directory::open(directory)?.identity()
}

/// The directories that a name within a directory lies in, from its own to the outermost one,
/// whose name is empty.
pub(crate) fn above(name: &str) -> impl Iterator<Item = &str> {
    Path::new(name).ancestors().skip(1).filter_map(Path::to_str)
}

/// Lists a directory, with those below it or without.
///
/// Links to directories are not followed, and directories whose names start with a dot are not
/// looked into: what is in them is reached by other names, or unfinished.
pub(crate) fn list(directory: &Path, recursive: bool) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut ahead = vec![String::new()];
    while let Some(within) = ahead.pop() {
        let open = match Directory::open(&directory.join(&within)) {
            // It went after its name had been read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !within.is_empty() => continue,
            other => other?,
        };
        for entry in Dir::read_from(&open.0)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if matches!(&*name, "." | "..") {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Unknown => {
                    let status = statat(&open.0, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(status.st_mode) == FileType::Directory
                }
                known => known == FileType::Directory,
            };
            let hidden = name.starts_with('.');
            let name =
                if within.is_empty() { name.into_owned() } else { format!("{within}/{name}") };
            if !is_directory {
                listing.names.push(name);
            } else if recursive && !hidden {
                ahead.push(name);
            }
        }
        listing.directories.insert(within, open.identity()?);
    }
    Ok(listing)
}

/// The manifests in a directory, with those in the directories below it or without, in the order in
/// which they count at a first start.
///
/// # Errors
///
/// When a directory cannot be listed.
pub fn manifests_in(directory: &Path, recursive: bool) -> io::Result<Vec<PathBuf>> {
    let names = list(directory, recursive)?.names.into_iter();
    let mut paths: Vec<PathBuf> = names
        .filter(|name| is_manifest_name(Path::new(name)))
        .map(|it| directory.join(it))
        .collect();
    paths.sort();
    Ok(paths)
}

/// Whether a name is one of a manifest: it ends in `.yaml`, `.yml` or `.json`, and is not one
/// that an editor, a package manager or a shell gives to something unfinished or put aside.
pub(super) fn is_manifest_name(path: &Path) -> bool {
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
