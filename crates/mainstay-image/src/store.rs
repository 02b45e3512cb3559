//! The images on this machine: unpacked layers, the documents that describe them, and their names.
//!
//! # Layout
//!
//! ```text
//! <dir>/
//!   version.json        the version of this layout
//!   lock                see "Several processes"
//!   blobs/sha256/<hex>  manifests and configurations, as they travel
//!   layers/<name>/      one unpacked layer: fs/ is the lower directory for overlayfs, layer.json
//!                       says which one it is, implicit which of its directories have no entry of
//!                       their own; <name> is the start of its diff_id
//!   records/            image-<hex>.json for each image, reference-<hash>.json for each name
//!   leases/<owner>.json layers that a container uses
//!   jobs/               layers and blobs that an import or pull needs, locked while it runs
//!   work/               everything half done
//! ```
//!
//! Compressed layers are not kept: each is read once, and keeping it would take the space of the
//! image a second time. What has been downloaded of one survives in `work/` until it is unpacked,
//! so that an interrupted pull goes on where it stopped, also after a restart.
//!
//! # Guarantees
//!
//! - Whatever is visible is whole. Layers and blobs are made under another name, synced and
//!   renamed; an image gets its record after everything it consists of is durable, and its names
//!   after that. A process that is killed, a power cut and a full disk leave only things in `work/`
//!   and `jobs/`, which the next [`Store::open`] clears away, or an image that lacks a name.
//! - A layer that an image, a lease or a running job needs is never removed.
//!
//! # Several processes
//!
//! `lock` is held shared by whoever looks and exclusively by whoever gives or takes names, always
//! only for a few renames: nothing is downloaded, unpacked or synced meanwhile. Long work holds a
//! lock of its own: on `work/<layer>` whoever makes that layer, and others that want the same one
//! wait for it; on its file in `jobs/` whoever imports or pulls. All are `flock`s, which end with
//! the process that holds them.

mod collect;
mod directories;
mod image;
mod job;
mod layer;
mod lease;
mod publish;
mod record;
mod verify;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::digest::Digest;
use crate::durable::{self, FileError, at};
use crate::reference::ReferenceError;
use crate::unpack::Limits;
pub use collect::{Collected, KEEP_PARTIAL, Usage};
pub use image::Image;
pub(crate) use layer::LayerJob;
pub use lease::Lease;
pub(crate) use publish::NewImage;
pub use publish::Removed;
pub use verify::{Damage, Problem};

/// The version of the layout. A store of a later version is refused.
const VERSION: u32 = 1;
/// The longest record that is read, in bytes.
const RECORD_MAX: u64 = 1 << 20;

/// A store of images. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    layers: PathBuf,
    records: PathBuf,
    limits: Limits,
}

/// Why something could not be done with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system did not do as told.
    #[error("image store cannot be used")]
    File(#[from] FileError),
    /// A later mainstay has been here.
    #[error("image store {} has the format {found}, and this version knows {VERSION}: use a newer one, or another directory", dir.display())]
    Version {
        /// The store.
        dir: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file of the store's own is not what it should be.
    #[error("{} is damaged: remove it, and import or pull the image again", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An image whose configuration is missing or damaged.
    #[error("image {image} is damaged: its configuration cannot be read; import or pull it again")]
    Config {
        /// The image's id.
        image: Digest,
        /// What is wrong, if the file is there.
        #[source]
        source: Option<ConfigError>,
    },
    /// An image without one of its layers.
    #[error("image {image} is damaged: its layer {layer} is missing; import or pull it again")]
    LayerMissing {
        /// The image's id.
        image: Digest,
        /// The layer's diff_id.
        layer: Digest,
    },
    /// Directories without end that no layer says anything about.
    #[error(
        "layers leave out the entries of more than {} directories, or of {} bytes of names of them",
        directories::IMPLICIT_MAX,
        directories::IMPLICIT_BYTES_MAX
    )]
    TooManyImplicit,
    /// The caller lost interest.
    #[error("it was given up")]
    GivenUp,
    /// Two layers whose digests begin alike, which does not happen by chance.
    #[error("layer {layer} cannot be kept beside layer {other}, whose digest begins alike")]
    LayerCollision {
        /// The layer that is to be added.
        layer: Digest,
        /// The layer that is there.
        other: Digest,
    },
    /// The start of several ids.
    #[error("{prefix:?} is the start of {count} image ids: write more of the one that is meant")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many ids start with it.
        count: usize,
    },
    /// Neither a reference nor an id.
    #[error("{name:?} is not the name of an image")]
    Name {
        /// What was asked for.
        name: String,
        /// Why it is no reference.
        #[source]
        source: ReferenceError,
    },
    /// No such image.
    #[error("image {0} is not here: import or pull it")]
    NotFound(String),
    /// Somebody needs the image that was to be removed.
    #[error("image {image} is in use by {}: stop it first", owners.join(", "))]
    InUse {
        /// The image's id.
        image: Digest,
        /// Who holds leases on it.
        owners: Vec<String>,
    },
    /// An owner of a lease whose name cannot be a file name.
    #[error("{0:?} cannot hold a lease: its name is to be 1 to 200 letters, digits, . _ or -")]
    Owner(String),
}

#[derive(Serialize, Deserialize)]
struct VersionRecord {
    version: u32,
}

/// A lock on the whole store, held as long as this lives.
struct Guard {
    _file: File,
}

// === impl Store ===

impl Store {
    /// Opens the store in `dir`, with [`Limits::default`]; makes it if there is none, and clears
    /// away what interrupted processes left.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(dir, Limits::default())
    }

    /// As [`Store::open`], with other limits on what layers may take.
    pub fn open_with(dir: impl Into<PathBuf>, limits: Limits) -> Result<Self, StoreError> {
        let dir = dir.into();
        // Device nodes and set-id programs of images lie in there, which are nobody's business.
        let private = |path: &Path| {
            DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(path)
                .map_err(at("making the directory", path))
        };
        private(&dir)?;
        for name in ["blobs/sha256", "blobs/sha512", "layers", "records", "leases", "jobs", "work"]
        {
            private(&dir.join(name))?;
        }
        let (layers, records) = (dir.join("layers"), dir.join("records"));
        let store = Self { inner: Arc::new(Inner { dir, layers, records, limits }) };
        {
            let _guard = store.exclusive()?;
            store.check_version()?;
        }
        store.sweep()?;
        Ok(store)
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The directory that [`Image::lower_dirs`] are relative to.
    pub fn layers_dir(&self) -> &Path {
        &self.inner.layers
    }

    /// A directory to watch for `IN_MOVED_TO` and `IN_DELETE`: whenever an image or a name of one
    /// comes, changes or goes, so does a file in here.
    pub fn watch_dir(&self) -> &Path {
        &self.inner.records
    }

    /// The limits that the store was opened with.
    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn check_version(&self) -> Result<(), StoreError> {
        let path = self.dir().join("version.json");
        match durable::read(&path, RECORD_MAX)? {
            Some(bytes) => {
                let record: VersionRecord = parse(&path, &bytes)?;
                if record.version > VERSION {
                    return Err(StoreError::Version {
                        dir: self.dir().to_path_buf(),
                        found: record.version,
                    });
                }
                Ok(())
            }
            None => {
                let scratch = durable::scratch(&self.work())?;
                let content = to_json(&VersionRecord { version: VERSION });
                durable::prepare(scratch, path, &content)?.publish()?;
                // Makes the directories of the store durable too.
                Ok(durable::sync_dir(self.dir())?)
            }
        }
    }

    fn work(&self) -> PathBuf {
        self.dir().join("work")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.dir().join("blobs");
        path.extend([digest.algorithm().name(), digest.hex()]);
        path
    }

    /// For whoever looks, or starts something that tidying up must not mistake for a leftover.
    fn shared(&self) -> Result<Guard, FileError> {
        let (path, file) = self.lock_file()?;
        file.lock_shared().map_err(at("locking", path))?;
        Ok(Guard { _file: file })
    }

    /// For whoever gives or takes names.
    fn exclusive(&self) -> Result<Guard, FileError> {
        let (path, file) = self.lock_file()?;
        file.lock().map_err(at("locking", path))?;
        Ok(Guard { _file: file })
    }

    fn lock_file(&self) -> Result<(PathBuf, File), FileError> {
        let path = self.dir().join("lock");
        // Opened anew each time: a lock belongs to the open file, so threads exclude each other
        // as processes do.
        let file = File::options().read(true).append(true).create(true).open(&path);
        let file = file.map_err(at("opening", &path))?;
        Ok((path, file))
    }

    /// An empty file in `work/` that nobody tidies away.
    fn scratch(&self) -> Result<tempfile::NamedTempFile, FileError> {
        let _guard = self.shared()?;
        durable::scratch(&self.work())
    }

    /// A file without a name, in the file system of the store, for what is needed only shortly.
    pub(crate) fn spool(&self) -> Result<File, FileError> {
        tempfile::tempfile_in(self.work()).map_err(at("making a file in", self.work()))
    }

    /// A small blob, if it is here and whole.
    pub(crate) fn blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
        let content = durable::read(&self.blob_path(digest), limit)?;
        Ok(content.filter(|content| digest.matches(content)))
    }

    /// Makes a small blob durable.
    pub(crate) fn put_blob(&self, digest: &Digest, content: &[u8]) -> Result<(), FileError> {
        let path = self.blob_path(digest);
        // What is there is compared, so that a damaged one is mended.
        if let Ok(Some(there)) = durable::read(&path, content.len() as u64)
            && there == content
        {
            return Ok(());
        }
        durable::prepare(self.scratch()?, path.clone(), content)?.publish()?;
        durable::sync_dir(path.parent().unwrap_or(self.dir()))
    }
}

/// The names in a directory.
fn names(directory: &Path) -> Result<Vec<String>, FileError> {
    let entries = fs::read_dir(directory).map_err(at("reading", directory))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let names: io::Result<Vec<_>> = names.collect();
    let names = names.map_err(at("reading", directory))?;
    // The store gives no other names than such.
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|source| StoreError::Record { path: path.to_path_buf(), source })
}

fn to_json(record: &impl Serialize) -> Vec<u8> {
    // Records are structs of strings and numbers.
    serde_json::to_vec(record).expect("a record has no map whose keys are not strings")
}

#[cfg(test)]
mod tests;
