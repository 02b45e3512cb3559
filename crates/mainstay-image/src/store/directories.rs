//! Owners and modes of directories that an upper layer has without saying anything about them.
//!
//! A layer may leave out the entries of its parent directories: one with nothing but
//! `home/app/bin/tool` has a directory `home/app`, but nobody chose its owner and mode. Mounted on
//! top, it would hide those of the layer below. Where that makes a difference, the image gets one
//! more layer above all others, with nothing in it but these directories as they should be.
//! containerd copies the attributes while it unpacks (`mkparent` in `pkg/archive/tar.go`), which is
//! not possible for layers that are shared by images with other layers below.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::job::Job;
use super::publish::GoOn;
use super::{Store, StoreError};
use crate::digest::Digest;
use crate::durable::{self, FileError, at};
use crate::layer::OVERLAY_XATTRS;
use crate::merged::{MergedRoot, Walk, components};
use crate::unpack::Unpacked;

/// The most such directories that the layers of an image may have altogether: each is looked for
/// in all of them.
pub(super) const IMPLICIT_MAX: usize = 50_000;
/// The most bytes that their paths may have altogether.
pub(super) const IMPLICIT_BYTES_MAX: u64 = 4 << 20;
/// The most bytes of names of attributes, or of one attribute's value, that a file may have.
/// Source: `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of the kernel.
const XATTR_MAX: usize = 65_536;
/// What somebody chose for a directory.
#[derive(PartialEq, Eq)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    /// By name; none of overlayfs's own.
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The directories of an image that nobody said anything about in the uppermost layer that has
/// them, but somebody did in a layer below.
struct Wrong {
    merged: MergedRoot,
    /// By path, the layer whose word counts. What they lie in is here too, so that parents come
    /// before children.
    chosen: BTreeMap<Vec<u8>, usize>,
}

impl Store {
    /// The additional layer that an image of these layers, lowest first, needs; made if it is not
    /// here yet, and kept until the job ends. The caller holds a job for the others.
    pub(super) fn directories(
        &self,
        diff_ids: &[Digest],
        go_on: GoOn<'_>,
    ) -> Result<Option<(Digest, Job)>, StoreError> {
        let Some(wrong) = self.wrong_directories(diff_ids, go_on)? else { return Ok(None) };
        // It is made of nothing but these layers in this order, so it is named by them.
        let names: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
        let digest = Digest::of(format!("directories of {}", names.join(" ")).as_bytes());
        let keep = self.start_job(vec![digest.clone()], Vec::new())?;
        if self.layer_size(&digest)?.is_none() {
            let job = self.layer_job(&digest)?;
            // Somebody else may have made it since.
            if self.layer_size(&digest)?.is_none() {
                wrong.put_right(&job.empty_root()?)?;
                job.publish(&Unpacked::default())?;
            }
        }
        Ok(Some((digest, keep)))
    }

    fn wrong_directories(
        &self,
        diff_ids: &[Digest],
        go_on: GoOn<'_>,
    ) -> Result<Option<Wrong>, StoreError> {
        let mut implicit: Vec<HashSet<Vec<u8>>> = Vec::new();
        let mut dirs: Vec<PathBuf> = Vec::new();
        let (mut count, mut left) = (0, IMPLICIT_BYTES_MAX);
        for diff_id in diff_ids.iter().rev() {
            let layer = self.layer_path(diff_id);
            // Each path has a NUL at its end; that of the root has nothing else.
            let list = layer.join("implicit");
            let length = fs::metadata(&list).map_or(0, |stat| stat.len());
            left = left.checked_sub(length).ok_or(StoreError::TooManyImplicit)?;
            let paths = durable::read(&list, length)?.unwrap_or_default();
            let paths = paths.split_inclusive(|b| *b == 0);
            let paths = paths.filter_map(|path| path.strip_suffix(b"\0")).map(<[u8]>::to_vec);
            implicit.push(paths.collect());
            count += implicit.last().map_or(0, HashSet::len);
            dirs.push(layer.join("fs"));
        }
        if count > IMPLICIT_MAX {
            return Err(StoreError::TooManyImplicit);
        }
        let merged = MergedRoot::open(dirs)?;
        let mut paths: Vec<&Vec<u8>> = implicit.iter().flatten().collect();
        // As in a walk through the tree, so that each directory is looked for once.
        paths.sort_by(|a, b| components(a).cmp(components(b)));
        paths.dedup();
        let mut chosen = BTreeMap::new();
        let mut walk = Walk::new(&merged);
        for path in paths {
            if !go_on() {
                return Err(StoreError::GivenUp);
            }
            let failed = |errno| failed(path, errno);
            let parts = walk.to(path).map_err(failed)?;
            let said = parts.iter().copied().find(|part| !implicit[*part].contains(path));
            let (Some(top), Some(said)) = (parts.first().copied(), said) else { continue };
            let of = |part| Attributes::of(&merged.open_part(part, path)?);
            if top == said || of(top).map_err(failed)? == of(said).map_err(failed)? {
                continue;
            }
            // A parent that nothing is wrong with is as the uppermost layer has it.
            for (parent, top) in walk.above() {
                if chosen.contains_key(parent) {
                    break;
                }
                chosen.insert(parent.to_vec(), top);
            }
            chosen.insert(path.clone(), said);
            // Few that are left out may lie in many that are not.
            if chosen.len() > IMPLICIT_MAX {
                return Err(StoreError::TooManyImplicit);
            }
        }
        Ok((!chosen.is_empty()).then_some(Wrong { merged, chosen }))
    }
}

// === impl Wrong ===

impl Wrong {
    /// Makes the directories, and those that they are in, in the empty directory `root`.
    fn put_right(&self, root: &Path) -> Result<(), FileError> {
        let to = |path: &[u8]| root.join(OsStr::from_bytes(path));
        for path in self.chosen.keys().filter(|path| !path.is_empty()) {
            fs::create_dir(to(path)).map_err(at("making the directory", to(path)))?;
        }
        // Afterwards, since making a directory changes the time of the one that it is in.
        for (path, layer) in &self.chosen {
            self.copy(*layer, path, &to(path)).map_err(|errno| failed(path, errno))?;
        }
        Ok(())
    }

    fn copy(&self, layer: usize, path: &[u8], to: &Path) -> Result<(), Errno> {
        let from = self.merged.open_part(layer, path)?;
        let to = rustix::fs::open(to, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let Attributes { mode, uid, gid, xattrs } = Attributes::of(&from)?;
        rustix::fs::fchown(&to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(mode))?;
        for (name, value) in &xattrs {
            rustix::fs::fsetxattr(&to, &name[..], value, XattrFlags::empty())?;
        }
        let stat = rustix::fs::fstat(&from)?;
        let time = Timespec {
            tv_sec: stat.st_mtime,
            // Below 1,000,000,000 by definition, so the conversion loses nothing.
            tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or_default(),
        };
        rustix::fs::futimens(&to, &Timestamps { last_access: time, last_modification: time })
    }
}

// === impl Attributes ===

impl Attributes {
    fn of(fd: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        let mut xattrs = BTreeMap::new();
        let mut names = vec![0; XATTR_MAX];
        let length = rustix::fs::flistxattr(&fd, &mut names)?;
        for name in names[..length].split(|b| *b == 0) {
            // The label of the machine is not the image's.
            if name.is_empty() || name.starts_with(OVERLAY_XATTRS) || name == b"security.selinux" {
                continue;
            }
            let mut value = vec![0; XATTR_MAX];
            let length = rustix::fs::fgetxattr(&fd, name, &mut value)?;
            value.truncate(length);
            xattrs.insert(name.to_vec(), value);
        }
        Ok(Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, xattrs })
    }
}

fn failed(path: &[u8], errno: Errno) -> FileError {
    at("looking after the directory", Path::new(OsStr::from_bytes(path)))(errno.into())
}
