//! The file systems that are measured on.
//!
//! What was done before decides what a file costs: ext4 gives no inode away whose file was removed in the last five
//! minutes, and to make a file it passes over these one by one (`recently_deleted` in `fs/ext4/ialloc.c`). After a
//! build or a run of the tests that is most of the time that a start of a pod takes. So starts are measured on a fresh
//! file system, whoever starts them. What is measured in syncs stays on the machine's own disk. What may vanish at
//! boot is in memory, as `/run` is on every machine with systemd.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::process;

/// How large the disk may become, in bytes. What is not written takes no room.
const DISK: u64 = 16 << 30;

/// A mounted file system. It is gone with this.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// A fresh ext4, in a file beside `place`.
    pub(crate) fn disk(place: &Path) -> anyhow::Result<Self> {
        let image = place.with_extension("ext4");
        let made = File::create(&image).and_then(|file| file.set_len(DISK));
        made.with_context(|| format!("cannot make {}", image.display()))?;
        process::run(process::command("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        // Its tables are not written meanwhile; a fresh file reads as the zeros that they are.
        Self::at(place, &["-t", "ext4", "-o", "loop,noinit_itable"], &image)
    }

    /// One in memory.
    pub(crate) fn memory(place: &Path, options: &str) -> anyhow::Result<Self> {
        Self::at(place, &["-t", "tmpfs", "-o", options], Path::new("tmpfs"))
    }

    fn at(place: &Path, arguments: &[&str], what: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
        process::run(process::command("mount").args(arguments).arg(what).arg(place))?;
        Ok(Self(place.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0) {
            eprintln!("{} is still mounted: {error:#}", self.0.display());
        }
    }
}

/// Unmounts what a run left below `directory` that was killed.
pub(crate) fn clear(directory: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    // What was mounted last may lie in what was mounted first.
    let left: Vec<&Path> = places.filter(|place| place.starts_with(directory)).collect();
    left.into_iter().rev().try_for_each(unmount)
}

fn unmount(place: &Path) -> anyhow::Result<()> {
    process::run(process::command("umount").arg(place))
}
