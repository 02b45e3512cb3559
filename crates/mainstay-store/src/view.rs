//! What is in memory of a store: the entries, the latest history, and the watches of both.
//!
//! Whatever keeps the objects feeds it with commits, in the order of their revisions; lists, watches and
//! reads of one key are answered out of it.

pub(crate) mod commit;
pub(crate) mod history;
pub(crate) mod state;
pub(crate) mod watch;

use std::time::Duration;

/// How much history is kept in memory. What is over any of the bounds goes, oldest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// The most events.
    pub events: usize,
    /// The most bytes: keys, new values and values that were replaced, and what they cost beside that.
    pub bytes: usize,
    /// The age of the oldest. Source of the default: kube-apiserver compacts etcd every five minutes, so
    /// that five to ten of them are known.
    pub age: Duration,
    /// For how long slow readers, and those that come back, are waited for with all of `bytes`. Source of the
    /// default: `eventFreshDuration` in `staging/src/k8s.io/apiserver/pkg/storage/cacher/watch_cache.go`.
    pub fresh: Duration,
    /// The most bytes when the oldest is older than that: what happened at once long ago is not worth the
    /// memory.
    pub aged_bytes: usize,
}

// === impl Window ===

impl Default for Window {
    fn default() -> Self {
        Self {
            events: 10_000,
            bytes: 16 << 20,
            age: Duration::from_secs(600),
            fresh: Duration::from_secs(75),
            aged_bytes: 64 << 10,
        }
    }
}
