//! Unpacked layers, and making them.

use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{RECORD_MAX, Store, StoreError, VERSION, to_json};
use crate::digest::Digest;
use crate::durable::{self, FileError, at};
use crate::unpack::{Expected, GoOn, UnpackError, Unpacked, unpack};

/// How many digits of the digest name the directory of a layer. Chance makes no two alike; who
/// makes them alike on purpose is told so, since `layer.json` has the whole digest.
const NAME_DIGITS: usize = 16;

/// The name of a layer's directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LayerName(String);

/// What `layer.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) version: u32,
    pub(super) diff_id: Digest,
    /// Bytes of its files.
    pub(super) size: u64,
    /// Entries of its archive.
    pub(super) entries: u64,
}

/// The right to make one layer: nobody else makes it meanwhile, in this process or another.
#[derive(Debug)]
pub(crate) struct LayerJob {
    store: Store,
    diff_id: Digest,
    dir: PathBuf,
    /// Open and locked.
    _lock: File,
}

// === impl LayerName ===

impl LayerName {
    pub(super) fn of(diff_id: &Digest) -> Self {
        Self(diff_id.hex().chars().take(NAME_DIGITS).collect())
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Store ===

impl Store {
    pub(super) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.layers.join(LayerName::of(diff_id).0)
    }

    /// The size of a layer that is here, or `None` if it is not. One whose record is damaged counts
    /// as missing, so that it is made again.
    pub(crate) fn layer_size(&self, diff_id: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.layer_path(diff_id).join("layer.json");
        let Some(bytes) = durable::read(&path, RECORD_MAX)? else { return Ok(None) };
        let Ok(record) = serde_json::from_slice::<LayerRecord>(&bytes) else { return Ok(None) };
        if record.diff_id != *diff_id {
            return Err(StoreError::LayerCollision {
                layer: diff_id.clone(),
                other: record.diff_id,
            });
        }
        Ok(Some(record.size))
    }

    /// Waits for the right to make a layer.
    pub(crate) fn layer_job(&self, diff_id: &Digest) -> Result<LayerJob, StoreError> {
        loop {
            let (dir, lock) = self.layer_job_file(diff_id)?;
            lock.lock().map_err(at("locking", &dir))?;
            if let Some(job) = self.confirm(diff_id, dir, lock)? {
                return Ok(job);
            }
        }
    }

    /// The right to make a layer, or `None` if somebody else has it.
    pub(crate) fn try_layer_job(&self, diff_id: &Digest) -> Result<Option<LayerJob>, StoreError> {
        loop {
            let (dir, lock) = self.layer_job_file(diff_id)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(at("locking", dir)(error).into()),
            }
            if let Some(job) = self.confirm(diff_id, dir, lock)? {
                return Ok(Some(job));
            }
        }
    }

    fn layer_job_file(&self, diff_id: &Digest) -> Result<(PathBuf, File), FileError> {
        let dir = self.work().join(LayerName::of(diff_id).0);
        let _guard = self.shared()?;
        make_dir(&dir, 0o700)?;
        let file = File::open(&dir).map_err(at("opening", &dir))?;
        Ok((dir, file))
    }

    /// Whoever had the right before may have removed the directory when the work was done; then
    /// the lock is on something that nobody finds any more.
    fn confirm(
        &self,
        diff_id: &Digest,
        dir: PathBuf,
        lock: File,
    ) -> Result<Option<LayerJob>, StoreError> {
        let locked = lock.metadata().map_err(at("looking at", &dir))?;
        let there = fs::symlink_metadata(&dir);
        if there.is_ok_and(|stat| (stat.dev(), stat.ino()) == (locked.dev(), locked.ino())) {
            let (store, diff_id) = (self.clone(), diff_id.clone());
            Ok(Some(LayerJob { store, diff_id, dir, _lock: lock }))
        } else {
            Ok(None)
        }
    }
}

// === impl LayerJob ===

impl LayerJob {
    /// The file that the layer's compressed form, named by `blob`, is downloaded to.
    pub(crate) fn partial(&self, blob: &Digest) -> PathBuf {
        self.dir.join(format!("{}-{}.part", blob.algorithm().name(), blob.hex()))
    }

    /// Unpacks `reader` out of sight. What fails with the layer is removed again; what was
    /// downloaded of it stays, for the next attempt.
    pub(crate) fn unpack(
        &self,
        reader: impl Read + Send,
        expected: Expected<'_>,
        go_on: GoOn<'_>,
    ) -> Result<Result<Unpacked, UnpackError>, StoreError> {
        let root = self.empty_root()?;
        let unpacked = unpack(reader, expected, &root, self.store.limits(), go_on);
        if unpacked.is_err() {
            durable::remove_tree(&self.tree())?;
        }
        Ok(unpacked)
    }

    /// A new root directory for the layer, out of sight.
    pub(super) fn empty_root(&self) -> Result<PathBuf, FileError> {
        durable::remove_tree(&self.tree())?;
        make_dir(&self.tree(), 0o700)?;
        let root = self.tree().join("fs");
        // What a layer without an entry for its root gets.
        make_dir(&root, 0o755)?;
        Ok(root)
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// Makes what [`LayerJob::unpack`] unpacked, or what was put into [`LayerJob::empty_root`],
    /// durable, and shows it.
    pub(crate) fn publish(self, unpacked: &Unpacked) -> Result<(), StoreError> {
        let tree = self.tree();
        let record = LayerRecord {
            version: VERSION,
            diff_id: self.diff_id.clone(),
            size: unpacked.bytes,
            entries: unpacked.entries,
        };
        write(&tree.join("layer.json"), &to_json(&record))?;
        let implicit = unpacked.implicit.iter().flat_map(|path| [path, &b"\0"[..]].concat());
        write(&tree.join("implicit"), &implicit.collect::<Vec<u8>>())?;
        durable::sync_tree(&tree)?;
        let target = self.store.layer_path(&self.diff_id);
        match fs::rename(&tree, &target) {
            Ok(()) => {}
            // Whatever is there without being this layer: a leftover of a damaged disk, or a
            // layer whose digest begins alike.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                match self.store.layer_size(&self.diff_id) {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        self.store.discard_layer(&self.diff_id)?;
                        fs::rename(&tree, &target).map_err(at("renaming a layer to", &target))?;
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(at("renaming a layer to", &target)(error).into()),
        }
        durable::sync_dir(self.store.layers_dir())?;
        Ok(durable::remove_tree(&self.dir)?)
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    fs::write(path, content).map_err(at("writing", path))
}

fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(at("making the directory", path)),
    }
}
