//! Clearing away what nobody needs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::job::JobRecord;
use super::layer::LayerName;
use super::record::Records;
use super::{RECORD_MAX, Store, StoreError, names, parse};
use crate::digest::Digest;
use crate::durable::{self, FileError, at};

/// What the names of discarded directories in `work/` start with. That of a layer goes on with the
/// layer's name.
const TRASH: &str = "trash-";

/// What was cleared away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many layers.
    pub layers: usize,
    /// Bytes of the files in them and in abandoned downloads.
    pub bytes: u64,
}

/// What the store takes and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the files in all layers.
    pub layers: u64,
    /// Bytes of layers that no image needs: what [`Store::collect`] would free, unless a
    /// container or a running pull still needs them.
    pub unused: u64,
    /// Bytes that are free on the file system.
    pub free: u64,
    /// Bytes of the file system.
    pub total: u64,
}

/// How long parts of interrupted downloads are kept, to go on with, unless somebody knows better.
pub const KEEP_PARTIAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that is to stay.
#[derive(Default)]
struct Roots {
    layers: BTreeSet<String>,
    blobs: BTreeSet<PathBuf>,
}

// === impl Store ===

impl Store {
    /// Removes layers and blobs that no image, lease or running job needs, and downloads that
    /// nobody has gone on with for `keep_partial` before `now`.
    pub fn collect(
        &self,
        now: SystemTime,
        keep_partial: Duration,
    ) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        {
            let _guard = self.exclusive()?;
            let records = self.records()?;
            let roots = self.roots(&records)?;
            records.stray.iter().try_for_each(|path| durable::remove_file(path))?;
            for name in names(self.layers_dir())? {
                if !roots.layers.contains(&name) {
                    let path = self.layers_dir().join(&name);
                    collected.layers += 1;
                    collected.bytes += stored_size(&path).unwrap_or(0);
                    self.discard(&path, "")?;
                }
            }
            for algorithm in ["sha256", "sha512"] {
                let dir = self.dir().join("blobs").join(algorithm);
                for path in names(&dir)?.into_iter().map(|name| dir.join(name)) {
                    if !roots.blobs.contains(&path) {
                        durable::remove_file(&path)?;
                    }
                }
            }
            collected.bytes += self.abandoned(now, keep_partial)?;
        }
        self.empty_trash()?;
        Ok(collected)
    }

    /// What the store takes.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let _guard = self.shared()?;
        let images = self.records()?.images.into_iter();
        let needed: BTreeSet<String> = images
            .flat_map(|image| image.layers)
            .map(|layer| LayerName::of(&layer.diff_id).to_string())
            .collect();
        let (mut layers, mut unused) = (0, 0);
        for name in names(self.layers_dir())? {
            let size = stored_size(&self.layers_dir().join(&name)).unwrap_or(0);
            layers += size;
            if !needed.contains(&name) {
                unused += size;
            }
        }
        let stat = rustix::fs::statvfs(self.dir());
        let stat =
            stat.map_err(|errno| at("asking for free space of", self.dir())(errno.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Usage { layers, unused, free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }

    /// Clears away what interrupted processes left in `work/` and `jobs/`.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        {
            let _guard = self.exclusive()?;
            for name in names(&self.work())? {
                let path = self.work().join(&name);
                if name.starts_with(TRASH) {
                    continue;
                }
                if let Some(_lock) = abandoned(&path)? {
                    let tree = path.join("tree");
                    if name.starts_with("file-") {
                        durable::remove_file(&path)?;
                    } else if tree.exists() {
                        self.discard(&tree, "")?;
                    }
                }
            }
            let jobs = self.dir().join("jobs");
            for path in names(&jobs)?.into_iter().map(|name| jobs.join(name)) {
                if abandoned(&path)?.is_some() {
                    durable::remove_file(&path)?;
                }
            }
        }
        // A store with rubbish in it can be used. The next collection tries again, and reports it.
        let _ = self.empty_trash();
        Ok(())
    }

    /// Takes a layer out of sight, whatever is in its place. It goes with the next collection.
    pub(super) fn discard_layer(&self, diff_id: &Digest) -> Result<(), StoreError> {
        let _guard = self.exclusive()?;
        let path = self.layer_path(diff_id);
        if path.exists() {
            self.discard(&path, &format!("{}-", LayerName::of(diff_id)))?;
        }
        Ok(())
    }

    /// Moves something to where nobody looks, to be removed with [`Store::empty_trash`]. The caller
    /// holds the lock exclusively.
    fn discard(&self, path: &Path, layer: &str) -> Result<(), FileError> {
        let prefix = format!("{TRASH}{layer}");
        let trash = tempfile::Builder::new().prefix(&prefix).tempdir_in(self.work());
        let trash = trash.map_err(at("making a directory in", self.work()))?.keep();
        fs::rename(path, trash.join("tree")).map_err(at("renaming", path))
    }

    /// Removes what was discarded, by whomever. What cannot be removed does not keep the rest. The
    /// caller does not hold the lock: large trees take time, for which nobody has to wait.
    fn empty_trash(&self) -> Result<(), StoreError> {
        let mut trash;
        {
            let _guard = self.shared()?;
            trash = names(&self.work())?;
            trash.retain(|name| name.starts_with(TRASH));
            // A container that runs does not mind where its layers are, but it needs them.
            for layer in self.leased()? {
                let prefix = format!("{TRASH}{}-", LayerName::of(&layer));
                trash.retain(|name| !name.starts_with(&prefix));
            }
        }
        let removed = trash.iter().map(|name| durable::remove_tree(&self.work().join(name)));
        // All of them are tried; the first failure is told.
        Ok(removed.fold(Ok(()), Result::and)?)
    }

    fn roots(&self, records: &Records) -> Result<Roots, StoreError> {
        let mut roots = Roots::default();
        let mut keep = |layer: &Digest| {
            roots.layers.insert(LayerName::of(layer).to_string());
        };
        let mut blobs = BTreeSet::new();
        for image in &records.images {
            image.layers.iter().for_each(|layer| keep(&layer.diff_id));
            blobs.insert(self.blob_path(&image.id));
            blobs.extend(image.manifests.iter().map(|digest| self.blob_path(digest)));
        }
        self.leased()?.iter().for_each(&mut keep);
        let jobs = self.dir().join("jobs");
        for path in names(&jobs)?.into_iter().map(|name| jobs.join(name)) {
            if abandoned(&path)?.is_some() {
                durable::remove_file(&path)?;
            } else if let Some(bytes) = durable::read(&path, RECORD_MAX)? {
                let job: JobRecord = parse(&path, &bytes)?;
                job.layers.iter().for_each(&mut keep);
                blobs.extend(job.blobs.iter().map(|digest| self.blob_path(digest)));
            }
        }
        roots.blobs = blobs;
        Ok(roots)
    }

    /// Removes downloads that were given up; how many bytes that frees.
    fn abandoned(&self, now: SystemTime, keep: Duration) -> Result<u64, StoreError> {
        let mut freed = 0;
        for name in names(&self.work())? {
            let dir = self.work().join(&name);
            if !dir.is_dir() || name.starts_with(TRASH) {
                continue;
            }
            let Some(_lock) = abandoned(&dir)? else { continue };
            let mut left = 0;
            for path in names(&dir)?.into_iter().map(|name| dir.join(name)) {
                let stat = fs::symlink_metadata(&path).map_err(at("looking at", &path))?;
                let modified = stat.modified().map_err(at("looking at", &path))?;
                // A time in the future says nothing; the clock was wrong then or is now.
                let age = now.duration_since(modified).unwrap_or(Duration::MAX);
                if stat.is_file() && age >= keep {
                    freed += stat.len();
                    durable::remove_file(&path)?;
                } else {
                    left += 1;
                }
            }
            if left == 0 {
                durable::remove_tree(&dir)?;
            }
        }
        Ok(freed)
    }
}

/// The lock of something that its process let go of, or `None` if somebody still works on it.
fn abandoned(path: &Path) -> Result<Option<File>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("opening", path)(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(at("locking", path)(error)),
    }
}

/// The size that a layer's own record has; `None` if the layer is damaged.
fn stored_size(layer: &Path) -> Option<u64> {
    let bytes = durable::read(&layer.join("layer.json"), RECORD_MAX).ok()??;
    let record: super::layer::LayerRecord = serde_json::from_slice(&bytes).ok()?;
    Some(record.size)
}
