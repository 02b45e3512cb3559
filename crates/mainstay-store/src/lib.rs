//! A durable, revisioned, watchable object store: one trait, embedded in a file by default.
//!
//! The model is etcd's: one history of revisions for all keys, values that carry the revision that wrote
//! them, writes on condition, lists as of one revision, watches from any revision that is still known.
//! What the values mean is not known here.
//!
//! [`embedded::EmbeddedStore`] keeps it in one file, [`etcd::EtcdStore`] in an etcd that others use too. Both
//! answer reads out of memory ([`mod@view`]).

pub mod embedded;
pub mod etcd;
mod limits;
mod view;

#[cfg(test)]
mod contract;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;

/// A point in the history of all keys. It grows with every commit, also over crashes and restarts,
/// where it may leave numbers out. A store that nothing has been written to is at 1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision(pub u64);

/// One key as of one revision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The value; cheap to clone.
    pub value: Bytes,
    /// The commit that wrote this value.
    pub revision: Revision,
}

/// When the answer to a commit comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// Once it would survive a power cut.
    Synced,
    /// Once it is seen by readers; it is on disk with the next synced commit, and at the latest after
    /// [`LAZY_INTERVAL`]. Never before a commit that came earlier.
    Lazy,
}

/// How long a [`Durability::Lazy`] commit may be lost by a power cut.
pub const LAZY_INTERVAL: Duration = Duration::from_secs(30);

/// What a write expects to find.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// The value that this commit wrote.
    At(Revision),
    /// Anything, also nothing.
    Any,
}

/// What a write does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// The key has this value from now on.
    Put(Bytes),
    /// The key is gone from now on. Of a key that is not there: nothing, and no revision.
    Delete,
}

/// A write of one key on a condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// The key; at most [`KEY_MAX`].
    pub key: Arc<str>,
    /// What has to be there.
    pub expect: Expect,
    /// What becomes of it; a value has at most [`VALUE_MAX`].
    pub change: Change,
    /// For how long a value is wanted, after which a store may let it go by itself
    /// ([`Store::lets_go`]). The next write of the key says it anew.
    pub ttl: Option<Duration>,
}

/// The longest key, in bytes. A longer one is [`StoreError::Unavailable`].
pub const KEY_MAX: usize = 1 << 10;

/// The longest value, in bytes. A longer one is [`StoreError::Unavailable`].
pub const VALUE_MAX: usize = 16 << 20;

/// How to read a range of keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ListOptions {
    /// As of this revision; by default of now.
    pub at: Option<Revision>,
    /// Keys after this one only.
    pub after: Option<Arc<str>>,
    /// At most so many; by default all.
    pub limit: Option<usize>,
}

/// Entries of one prefix as of one revision, by key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// The revision that this is a picture of.
    pub revision: Revision,
    /// How many more there are after the last of `entries`.
    pub remaining: usize,
}

/// One change that a watch tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// The commit.
    pub revision: Revision,
    /// The key.
    pub key: Arc<str>,
    /// Its value since this commit; `None` if it is gone.
    pub value: Option<Bytes>,
    /// Its value before; `None` if there was none.
    pub previous: Option<Bytes>,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// What a write expected was not there. Nothing of its commit was done.
    #[error("{key} is not as it was expected to be")]
    Conflict {
        /// The first key that differs.
        key: Arc<str>,
        /// What is there instead.
        current: Option<Entry>,
    },
    /// The revision is not known any more (HTTP 410).
    #[error("revision {} has been compacted; the oldest known is {}", asked.0, oldest.0)]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest that can be asked for.
        oldest: Revision,
    },
    /// The revision is not there yet, such as one of another store.
    #[error("revision {} is in the future; the current one is {}", asked.0, current.0)]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest there is.
        current: Revision,
    },
    /// A write is larger than the store takes; the text says what the limit is (HTTP 413).
    #[error("{0}")]
    TooLarge(Arc<str>),
    /// The store does not work; the text names the place, the cause and the remedy.
    #[error("{0}")]
    Unavailable(Arc<str>),
}

/// What a watch ends with.
pub type WatchItem = Result<Arc<[Event]>, StoreError>;

/// The store.
///
/// # Guarantees
///
/// - A commit is done whole or not at all, and is seen by readers and watches before it is answered.
/// - After a crash, at any byte, what was answered as synced is there and what is there is whole.
/// - A watch tells every commit after its revision once, in order, with one item for each commit, or ends
///   with [`StoreError::Compacted`] when its reader is too slow for the history that is kept.
/// - A watch that is pending has told all there is up to the revision that [`Store::known`] ended with
///   before it was polled. That is what a bookmark may say.
/// - A revision that was seen and then lost, by a crash that took commits that were not synced yet, is
///   [`StoreError::Compacted`] from then on: whoever has seen it reads everything anew.
/// - What somebody else has written through another process is seen sooner or later, and in any case after
///   [`Store::catch_up`].
#[async_trait]
pub trait Store: Send + Sync {
    /// One key, and the revision that it is seen at.
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), StoreError>;

    /// Keys that begin with `prefix`.
    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError>;

    /// Writes all of `writes`, which have different keys, or none of them. The revision is that of the
    /// commit, or the current one when nothing changed.
    ///
    /// Once it has been polled, the commit may be done even if the future is dropped. After
    /// [`StoreError::Unavailable`] too, if the process ends before the store works again: whether what was
    /// half written is whole is only known then.
    async fn commit(
        &self,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<Revision, StoreError>;

    /// Changes of keys that begin with `prefix`, in commits after `after`.
    async fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<BoxStream<'static, WatchItem>, StoreError>;

    /// Sees to it that everything is seen that was committed before this was called, through whatever
    /// process, and gives the revision that is now.
    async fn catch_up(&self) -> Result<Revision, StoreError>;

    /// Whether others may write to it through another process.
    fn is_shared(&self) -> bool;

    /// Whether it lets values go whose [`Write::ttl`] is over. Other stores keep them.
    fn lets_go(&self) -> bool;

    /// The revisions that can still be listed at and watched from: from the oldest to the one after the
    /// current one.
    fn known(&self) -> Range<Revision>;
}
