//! How much room files take on a disk.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

/// How many directories, one in the other, are looked into: each is open while those in it are.
const DEPTH_MAX: usize = 256;

/// What files take of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes.
    pub bytes: u64,
    /// Files, directories among them.
    pub inodes: u64,
}

/// What a file or directory takes of a disk, with all that is in it on the same file system. A file with
/// several names counts once. Links are not followed, and what is not there takes nothing.
///
/// # Errors
///
/// When a directory cannot be read, or they are nested deeper than 256.
pub fn disk_usage(path: &Path) -> io::Result<DiskUsage> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(DiskUsage::default()),
        other => other?,
    };
    let status = fstat(&top)?;
    let mut walk = Walk { device: status.st_dev, seen: BTreeSet::new(), blocks: 0, inodes: 1 };
    walk.blocks += blocks(status.st_blocks);
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        walk.directory(&open(&top, c".")?, 0)?;
    }
    // Whatever the block size of the file system is. Source: stat(2).
    Ok(DiskUsage { bytes: walk.blocks.saturating_mul(512), inodes: walk.inodes })
}

struct Walk {
    device: u64,
    /// Files with several names.
    seen: BTreeSet<u64>,
    blocks: u64,
    inodes: u64,
}

impl Walk {
    fn directory(&mut self, directory: &OwnedFd, depth: usize) -> io::Result<()> {
        if depth >= DEPTH_MAX {
            return Err(io::Error::other(format!(
                "directories are nested deeper than {DEPTH_MAX}, where nothing is counted any more"
            )));
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            // What goes while it is counted takes nothing.
            let status = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if status.st_dev != self.device {
                continue;
            }
            let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
            if !is_directory && status.st_nlink > 1 && !self.seen.insert(status.st_ino) {
                continue;
            }
            self.blocks = self.blocks.saturating_add(blocks(status.st_blocks));
            self.inodes += 1;
            if is_directory {
                match open(directory, name) {
                    Ok(inner) => self.directory(&inner, depth + 1)?,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

fn open(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn blocks(of_kernel: i64) -> u64 {
    u64::try_from(of_kernel).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_takes_room_is_counted_once_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let used = || disk_usage(&at("top")).unwrap().bytes;
        assert_eq!(disk_usage(&at("top")).unwrap(), DiskUsage::default());
        fs::create_dir_all(at("top/a/b")).unwrap();
        fs::write(at("outside"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(at("outside"), at("top/link")).unwrap();
        std::os::unix::fs::symlink(directory.path(), at("top/a/up")).unwrap();
        let empty = used();
        assert!(empty < 1 << 16, "{empty}");
        fs::write(at("top/a/b/file"), vec![1; 1 << 20]).unwrap();
        let one = used();
        assert!((1 << 20..(1 << 20) + (1 << 16)).contains(&(one - empty)), "{empty} {one}");
        fs::hard_link(at("top/a/b/file"), at("top/again")).unwrap();
        assert_eq!(used(), one);
        // A hole takes no room.
        fs::File::create(at("top/hole")).unwrap().set_len(1 << 30).unwrap();
        assert!(used() < one + (1 << 16));
        let outside = disk_usage(&at("outside")).unwrap();
        assert!(outside.bytes >= 1 << 20 && outside.inodes == 1, "{outside:?}");
        // top, a, b, file, up, link, hole.
        assert_eq!(disk_usage(&at("top")).unwrap().inodes, 7);
    }

    #[test]
    fn depth_has_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut path = directory.path().to_owned();
        for _ in 0..DEPTH_MAX {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        assert!(disk_usage(directory.path()).is_err());
        fs::remove_dir(&path).unwrap();
        disk_usage(directory.path()).unwrap();
    }
}
