//! Unpacking a layer into a directory, in one pass over its bytes.
//!
//! While the entries are made, the digests of the layer as it travels and of its uncompressed
//! content are taken, so nothing is read twice. The caller lets nobody see the directory before
//! they have turned out right.

mod tree;

use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::compression::{CompressionError, decompress};
use crate::digest::{Digest, HashingReader};
use crate::layer::{EntryProblem, Step, step};
use crate::space::{Space, SpaceError, is_disk_full};
use crate::tar::{Entry, Reader, Source, Stream, TarError};
use tree::Tree;
pub use tree::TreeError;
pub(crate) use tree::{OPAQUE, is_whiteout};

/// How much is read and written at a time, in bytes.
const BUFFER: usize = 128 << 10;
/// What an entry without content is counted as, in bytes: about an inode and a directory entry.
const ENTRY_COST: u64 = 512;

/// How much an unpacked layer may take. What is not a bomb never notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that one layer may unpack to.
    pub layer: u64,
    /// How many bytes are to stay free on the file system of the store, or a twentieth of it if
    /// that is less.
    pub keep_free: u64,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is not compressed in a known way.
    #[error("layer cannot be decompressed")]
    Compression(#[from] CompressionError),
    /// It is not a tar archive, is cut off or damaged.
    #[error("layer is not a readable tar archive")]
    Tar(#[from] TarError),
    /// An entry that is not allowed in a layer.
    #[error("layer entry {path:?} is refused")]
    Refused {
        /// The entry's name.
        path: String,
        /// Why.
        #[source]
        problem: EntryProblem,
    },
    /// An entry that could not be made.
    #[error("layer entry {path:?} cannot be unpacked")]
    Entry {
        /// The entry's name.
        path: String,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// The directory itself could not be worked on.
    #[error("directory for the layer cannot be used")]
    Root(#[source] TreeError),
    /// More content than allowed.
    #[error("layer unpacks to more than {limit} bytes, which is the limit (at entry {path:?})")]
    TooLarge {
        /// The entry where it was noticed.
        path: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Hardly any space left.
    #[error("layer entry {path:?} cannot be unpacked")]
    Space {
        /// The entry where it was noticed.
        path: String,
        /// How much is left.
        #[source]
        source: SpaceError,
    },
    /// Another content than the manifest names.
    #[error("layer is damaged: its digest is {found}, not {expected}")]
    BlobDigest {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Another content than the image's configuration names.
    #[error(
        "layer has the uncompressed digest {found}, but the image's configuration says {expected}"
    )]
    DiffId {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// The caller lost interest.
    #[error("unpacking was given up")]
    GivenUp,
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of file content.
    pub(crate) bytes: u64,
    /// Entries in the archive.
    pub(crate) entries: u64,
    /// Directories that have no entry of their own, and so no owner and mode that anybody chose.
    pub(crate) implicit: Vec<Vec<u8>>,
    /// Attributes that the file system does not support and that do not matter.
    pub(crate) skipped_xattrs: Vec<String>,
}

/// The digests that a layer must turn out to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// That of the layer as it travels, unless it was verified before or nobody knows it.
    pub(crate) blob: Option<&'a Digest>,
    /// That of its uncompressed content.
    pub(crate) diff_id: &'a Digest,
}

/// Asked with the number of bytes read so far, as they travel; `false` gives the work up.
pub(crate) type GoOn<'a> = &'a (dyn Fn(u64) -> bool + Sync);

struct Budget {
    limit: u64,
    used: u64,
    space: Space,
}

struct Watched<'a, R> {
    inner: R,
    read: u64,
    go_on: GoOn<'a>,
    stopped: &'a AtomicBool,
}

// === impl Limits ===

impl Default for Limits {
    /// 64 GiB a layer, and 256 MiB free.
    fn default() -> Self {
        Self { layer: 64 << 30, keep_free: 256 << 20 }
    }
}

// === impl Unpacked ===

impl Unpacked {
    /// What somebody may want to know about the layer `name`.
    pub(crate) fn note(&self, name: &str) -> Option<String> {
        let skipped = self.skipped_xattrs.join(", ");
        (!skipped.is_empty()).then(|| {
            format!(
                "layer {name} has attributes that were left out, since the file system of the \
                 store does not support them and nothing depends on them: {skipped}"
            )
        })
    }
}

// === impl UnpackError ===

impl UnpackError {
    /// Whether a full disk or an exhausted quota is the reason, so that freeing space helps.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Space { source: SpaceError::Full { .. }, .. } => true,
            Self::Entry { source: TreeError::Io { source, .. }, .. }
            | Self::Root(TreeError::Io { source, .. }) => is_disk_full(source),
            _ => false,
        }
    }
}

/// Unpacks the layer that `reader` has into the empty directory `into`, and compares its digests.
pub(crate) fn unpack(
    reader: impl Read + Send,
    expected: Expected<'_>,
    into: &Path,
    limits: &Limits,
    go_on: GoOn<'_>,
) -> Result<Unpacked, UnpackError> {
    let stopped = AtomicBool::new(false);
    let watched = Watched { inner: reader, read: 0, go_on, stopped: &stopped };
    let result = unpack_watched(watched, expected, into, limits);
    // Whatever failed then, failed because reading was stopped.
    if stopped.into_inner() { Err(UnpackError::GivenUp) } else { result }
}

fn unpack_watched(
    reader: impl Read + Send,
    expected: Expected<'_>,
    into: &Path,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let mut travelling = HashingReader::new(reader, expected.blob.map(Digest::algorithm));
    let unpacked = unpack_content(&mut travelling, expected.diff_id, into, limits);
    if !matches!(unpacked, Ok(_) | Err(UnpackError::Compression(_) | UnpackError::Tar(_))) {
        return unpacked;
    }
    // What follows the compressed content belongs to the digest too. And if nothing could be made
    // of the content, that it is another one than was expected says more than where it broke.
    let position = travelling.count();
    let drained = io::copy(&mut travelling, &mut io::sink());
    if let (Some(expected), Some(found)) = (expected.blob, travelling.finish())
        && drained.is_ok()
        && found != *expected
    {
        return Err(UnpackError::BlobDigest { expected: expected.clone(), found });
    }
    drained.map_err(|source| TarError::Read { position, source })?;
    unpacked
}

/// Unpacks what `reader` has, compressed or not.
fn unpack_content(
    reader: impl Read + Send,
    expected: &Digest,
    into: &Path,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let mut content = HashingReader::new(decompress(reader)?, Some(expected.algorithm()));
    let mut archive = Reader::new(Stream(BufReader::with_capacity(BUFFER, &mut content)));
    let (bytes, entries, finished) = unpack_entries(&mut archive, into, limits)?;
    archive.finish()?;
    drop(archive);
    if let Some(found) = content.finish()
        && found != *expected
    {
        return Err(UnpackError::DiffId { expected: expected.clone(), found });
    }
    Ok(Unpacked {
        bytes,
        entries,
        implicit: finished.implicit,
        skipped_xattrs: finished.skipped_xattrs,
    })
}

fn unpack_entries<S: Source>(
    archive: &mut Reader<S>,
    into: &Path,
    limits: &Limits,
) -> Result<(u64, u64, tree::Finished), UnpackError> {
    let mut tree = Tree::new(into).map_err(UnpackError::Root)?;
    let mut budget = Budget { limit: limits.layer, used: 0, space: Space::new(limits.keep_free) };
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        let shown = || String::from_utf8_lossy(&entry.path).into_owned();
        let step =
            step(&entry).map_err(|problem| UnpackError::Refused { path: shown(), problem })?;
        let failed = |source| UnpackError::Entry { path: shown(), source };
        entries += 1;
        budget.spend(ENTRY_COST, &tree, &entry)?;
        match step {
            Step::Root => tree.root(&entry).map_err(failed)?,
            Step::Directory(path) => tree.directory(&path, &entry).map_err(failed)?,
            Step::Symlink(path) => tree.symlink(&path, &entry).map_err(failed)?,
            Step::HardLink { path, target } => tree.hard_link(&path, &target).map_err(failed)?,
            Step::Node(path) => tree.node(&path, &entry).map_err(failed)?,
            Step::Whiteout(path) => tree.whiteout(&path).map_err(failed)?,
            Step::Opaque(path) => tree.opaque(&path).map_err(failed)?,
            Step::Nothing => {}
            Step::File(path) => {
                let file = tree.file(&path).map_err(failed)?;
                for segment in &entry.segments {
                    let mut offset = segment.offset;
                    let end = offset.saturating_add(segment.length);
                    while offset < end {
                        let part = (end - offset).min(BUFFER as u64);
                        let part = &mut buffer[..usize::try_from(part).unwrap_or(BUFFER)];
                        archive.read_content(part)?;
                        budget.spend(part.len() as u64, &tree, &entry)?;
                        file.write_all_at(part, offset)
                            .map_err(|source| failed(TreeError::Io { step: "writing", source }))?;
                        offset += part.len() as u64;
                        bytes += part.len() as u64;
                    }
                }
                let written = entry.segments.last().map_or(0, |last| last.offset + last.length);
                if written < entry.size {
                    file.set_len(entry.size).map_err(|source| {
                        failed(TreeError::Io { step: "setting the length", source })
                    })?;
                }
                tree.finish_file(&file, &entry).map_err(failed)?;
            }
        }
    }
    let finished = tree.finish().map_err(UnpackError::Root)?;
    Ok((bytes, entries, finished))
}

// === impl Budget ===

impl Budget {
    fn spend(&mut self, bytes: u64, tree: &Tree, entry: &Entry) -> Result<(), UnpackError> {
        let path = || String::from_utf8_lossy(&entry.path).into_owned();
        self.used += bytes;
        if self.used > self.limit {
            return Err(UnpackError::TooLarge { path: path(), limit: self.limit });
        }
        let spent = self.space.spend(bytes, tree.root_fd());
        spent.map_err(|source| UnpackError::Space { path: path(), source })
    }
}

// === impl Watched ===

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.go_on)(self.read) {
            self.stopped.store(true, Ordering::Relaxed);
            return Err(io::Error::other("given up"));
        }
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
