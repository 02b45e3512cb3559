//! The store in one file.
//!
//! All current entries and the latest history are in memory, where reads and watches are answered; the
//! file is there for the next start.
//!
//! # Flow
//!
//! One thread writes. It takes all commits that have been asked for since it did so last, decides each in
//! turn on what the ones before it left, and puts them into the file with one sync ([`writer`]). Then
//! they become visible, in one step, and are answered. Lazy commits that come when no synced one is
//! before them become visible at once, and are put into the file with the next sync.
//!
//! The file is a redb database with two parts: the entries as of one revision, and a log of the commits
//! after it ([`mod@file`]). A commit appends to the log; what has left the history in memory is moved from
//! the log to the entries, many commits at a time. So watches and lists go on over a restart.
//!
//! # Guarantees
//!
//! - Revisions are reserved in the file before they are used. A process that finds more reserved than
//!   there is in the log goes on after what was reserved, and takes what lies between for lost.
//! - After a failed write nothing more is read from or written to the file. It is written anew, from what
//!   is in memory, as soon as that works; until then reads go on, and commits are refused.
//! - Memory is bounded: the history by [`Window`], what waits to be written by `queue::ROOM`, lazy
//!   commits by `writer::PENDING_MAX`, a watch by its place in the history.
//!
//! # Assumptions
//!
//! A write that was cut off is told from a whole one by its checksum. Damage to the newest commit of a
//! file that was not closed looks the same; it is taken back like one that was cut off.

mod decide;
mod disk;
mod file;
mod queue;
mod row;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use tokio::sync::oneshot;

pub use crate::view::Window;
use crate::view::state::Shared;
use crate::view::watch;
use crate::{
    Durability, Entry, LAZY_INTERVAL, ListOptions, Page, Revision, Store, StoreError, WatchItem,
    Write,
};
use disk::{Disk, PathDisk};
use file::FileError;
use queue::{Queue, Request};

/// Why a store cannot be opened. The file and the remedy are part of every message.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{place} is in use by another process; stop that one first")]
    InUse {
        /// The file.
        place: String,
    },
    /// It is not whole.
    #[error(
        "{place} is damaged ({cause}); put a copy of it back, or move it away to begin with an empty store"
    )]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong.
        cause: String,
    },
    /// It is something else.
    #[error(
        "{place} is not a store ({cause}); move it away to begin with an empty store, or name another file"
    )]
    Foreign {
        /// The file.
        place: String,
        /// What is wrong.
        cause: String,
    },
    /// It was written by a version that came later.
    #[error(
        "{place} has format {format}, and only format {known} is known; use the version that wrote it, or a later one"
    )]
    Newer {
        /// The file.
        place: String,
        /// Its format.
        format: u64,
        /// The format that this version writes.
        known: u64,
    },
    /// It could not be read or written.
    #[error("cannot open {place} ({cause}); make it readable and writable, with space on its disk")]
    Unusable {
        /// The file.
        place: String,
        /// What is wrong.
        cause: String,
    },
}

/// How a store works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// How much history is kept.
    pub window: Window,
    /// How long a lazy commit may wait until it is in the file.
    pub lazy: Duration,
    /// How long after a failed write the next one is tried.
    pub retry: Duration,
}

/// The store in one file. Dropping it writes what is left to write, and waits for that; watches end with
/// an error.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self { window: Window::default(), lazy: LAZY_INTERVAL, retry: Duration::from_secs(1) }
    }
}

// === impl EmbeddedStore ===

impl EmbeddedStore {
    /// Opens the store in the file `path`, or makes it, for this user alone. Its directory has to be
    /// there. Beside it are `path.lock`, and for moments `path.new`.
    ///
    /// This reads the whole file, and blocks for that.
    ///
    /// # Errors
    ///
    /// When the file is in use, is not a whole store, or cannot be read and written.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let place = path.display().to_string();
        let disk = PathDisk::lock(path).map_err(|error| refusal(&place, error))?;
        Self::start(disk, &place, options)
    }

    /// What dropping it does, for tests that want to know whether it could be done.
    #[cfg(test)]
    fn close(mut self) -> Result<(), StoreError> {
        self.end()
    }

    fn start<D: Disk>(disk: D, place: &str, options: Options) -> Result<Self, OpenError> {
        let (shared, writer) = writer::Writer::open(disk, place, options, Instant::now())
            .map_err(|error| refusal(place, error))?;
        let queue = Arc::new(Queue::new(place));
        let taken = queue.clone();
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&taken))
            .map_err(|error| OpenError::Unusable {
                place: place.into(),
                cause: format!("no thread: {error}"),
            })?;
        Ok(Self { shared, queue, writer: Some(writer) })
    }

    fn end(&mut self) -> Result<(), StoreError> {
        self.queue.close();
        let Some(writer) = self.writer.take() else { return Ok(()) };
        writer.join().unwrap_or_else(|_| Err(self.queue.ended()))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "the last lazy commits are not in the store's file");
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), StoreError> {
        Ok(self.shared.read().get(key))
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError> {
        self.shared.read().list(prefix, options)
    }

    async fn commit(
        &self,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<Revision, StoreError> {
        let room = self.queue.room(&writes).await?;
        let (answer, answered) = oneshot::channel();
        self.queue.push(Request { writes, durability, answer, room })?;
        answered.await.unwrap_or_else(|_| Err(self.queue.ended()))
    }

    async fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<BoxStream<'static, WatchItem>, StoreError> {
        watch::watch(self.shared.clone(), prefix, after)
    }

    async fn catch_up(&self) -> Result<Revision, StoreError> {
        Ok(self.shared.read().revision())
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn lets_go(&self) -> bool {
        false
    }

    fn known(&self) -> Range<Revision> {
        self.shared.read().known()
    }
}

fn refusal(place: &str, error: FileError) -> OpenError {
    let place = place.to_owned();
    match error {
        FileError::InUse => OpenError::InUse { place },
        FileError::Damaged(cause) => OpenError::Damaged { place, cause },
        FileError::Foreign(cause) => OpenError::Foreign { place, cause },
        FileError::Newer(format) => OpenError::Newer { place, format, known: file::FORMAT },
        FileError::Io(cause) => OpenError::Unusable { place, cause },
    }
}
