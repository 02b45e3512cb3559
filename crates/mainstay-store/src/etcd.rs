//! The store in an etcd, which several processes may share.
//!
//! All entries and the latest history are in memory, as of the embedded store: one watch of etcd tells what
//! anybody commits, and reads are answered out of that ([`mod@crate::view`]). A commit is one transaction,
//! which compares revisions, and is answered when the watch has told it; so whoever has committed reads what
//! it wrote. [`Store::catch_up`] asks etcd for its revision, and waits until the watch has come that far.
//!
//! # Flow
//!
//! [`Follower`] reads everything once, watches from there on, and begins anew where the history is gone. One
//! task asks for revisions, one question at a time: whoever comes while one is under way is answered by the
//! next. Every five minutes one of all processes has the older history forgotten ([`compact`]).
//!
//! # Guarantees
//!
//! - Revisions are etcd's own. A process that is started anew knows none that are older.
//! - What etcd does not answer in time is [`StoreError::Unavailable`], after seconds; reads out of memory and
//!   watches go on meanwhile, and everything goes on by itself when etcd is back.
//! - Whether a write was done that failed with that is not known before the next read.
//!
//! # Assumptions
//!
//! etcd is of version 3.4 or later. What is below the prefix is written by stores of this kind alone. What
//! others write elsewhere costs a write now and then: a watch tells of nothing outside the prefix, so the
//! follower has to be shown by a write of a key of its own how far it has come.

mod client;
mod compact;
mod error;
mod follow;
mod keys;
mod lease;
mod txn;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
pub use mainstay_grpc::Endpoint;
use mainstay_grpc::Status;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::limits;
use crate::view::Window;
use crate::view::state::Shared;
use crate::view::watch as watches;
use crate::{Durability, Entry, ListOptions, Page, Revision, Store, StoreError, WatchItem, Write};
use client::{COMPACT, Client, LEASE_GRANT, PUT, RANGE, TXN};
use compact::Compactor;
use error::{Remedy, remedy};
use follow::Follower;
use keys::Keys;
use lease::Leases;
use txn::Outcome;
use wire::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse, PutRequest,
    PutResponse, RangeResponse, TxnResponse,
};

/// How long the watch may take to tell what etcd has.
const REACH: Duration = Duration::from_secs(5);

/// How long after that it is shown how far it has come: what is under way needs less.
const MARK_AFTER: Duration = Duration::from_millis(100);

/// The key that is written for that.
const MARK: &str = "watch_mark_key";

/// How many questions for the revision may wait.
const QUESTIONS: usize = 1024;

/// Who asks etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its members; at least one. The first is asked until it does not answer.
    pub endpoints: Vec<Endpoint>,
    /// How they are spoken to over TLS; `None` is without.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Who asks, if etcd has users and does not see it by the certificate.
    pub user: Option<User>,
    /// What all keys are below; it ends with a slash.
    pub prefix: String,
    /// How much history is kept in memory.
    pub window: Window,
}

/// The store in an etcd. Watches end with an error when it is dropped.
#[derive(Debug)]
pub struct EtcdStore {
    inner: Arc<Inner>,
    questions: mpsc::Sender<Question>,
    /// Ends with it.
    _tasks: JoinSet<()>,
}

type Question = oneshot::Sender<Result<Revision, StoreError>>;

/// What the tasks share.
#[derive(Debug)]
struct Inner {
    client: Client,
    keys: Keys,
    shared: Arc<Shared>,
    /// How far the watch has come.
    seen: watch::Sender<Revision>,
    /// Counts how often everything has to be read anew.
    anew: watch::Sender<u64>,
    leases: Mutex<Leases>,
    granting: tokio::sync::Mutex<()>,
    marking: tokio::sync::Mutex<()>,
}

// === impl User ===

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl EtcdStore ===

impl EtcdStore {
    /// Reads everything that is below the prefix.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when etcd does not answer, or what is there was not written by such a
    /// store.
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        let client = Client::new(options)
            .ok_or_else(|| StoreError::Unavailable("no member of the etcd is named".into()))?;
        let keys = Keys::new(&options.prefix);
        let (entries, revision) =
            follow::load(&client, &keys).await.map_err(|failure| failure.explain(&client))?;
        let shared = Arc::new(Shared::begin(entries, revision, options.window));
        let (seen, anew) = (watch::Sender::new(revision), watch::Sender::new(0));
        let inner = Arc::new(Inner {
            client,
            keys,
            shared,
            seen,
            anew,
            leases: Mutex::default(),
            granting: tokio::sync::Mutex::default(),
            marking: tokio::sync::Mutex::default(),
        });
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let mut tasks = JoinSet::new();
        tasks.spawn(Follower::new(inner.clone()).run());
        tasks.spawn(inner.clone().answer(asked));
        tasks.spawn(inner.clone().compact());
        Ok(Self { inner, questions, _tasks: tasks })
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.inner.shared.end(StoreError::Unavailable("the store in etcd has been closed".into()));
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), StoreError> {
        Ok(self.inner.shared.read().get(key))
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError> {
        if let Some(at) = options.at {
            self.not_behind(at).await?;
        }
        self.inner.shared.read().list(prefix, options)
    }

    async fn commit(&self, writes: Vec<Write>, _: Durability) -> Result<Revision, StoreError> {
        limits::check(&writes)?;
        if writes.is_empty() {
            return Ok(self.inner.shared.read().revision());
        }
        // Most of what it is made of is on the heap, and so is it.
        match Box::pin(self.inner.transact(&writes)).await? {
            Outcome::Done(revision) => {
                self.inner.reach(revision).await?;
                Ok(revision)
            }
            Outcome::Unchanged(revision) => {
                self.inner.reach(revision).await?;
                Ok(self.inner.shared.read().revision())
            }
            Outcome::Conflict { write, current, seen } => {
                // Whoever tries again does so with what is there now.
                self.inner.reach(seen).await?;
                let key = writes.get(write).map(|it| it.key.clone()).unwrap_or_default();
                Err(StoreError::Conflict { key, current })
            }
            Outcome::Garbled => Err(self.inner.garbled()),
        }
    }

    async fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<BoxStream<'static, WatchItem>, StoreError> {
        self.not_behind(after).await?;
        watches::watch(self.inner.shared.clone(), prefix, after)
    }

    async fn catch_up(&self) -> Result<Revision, StoreError> {
        let closed = || StoreError::Unavailable("the store in etcd has been closed".into());
        let (ask, answer) = oneshot::channel();
        self.questions.send(ask).await.map_err(|_| closed())?;
        let revision = answer.await.map_err(|_| closed())??;
        self.inner.reach(revision).await?;
        Ok(revision)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn lets_go(&self) -> bool {
        true
    }

    fn known(&self) -> Range<Revision> {
        self.inner.shared.read().known()
    }
}

impl EtcdStore {
    /// Whoever has heard of a revision through another process need not have been faster than the watch.
    async fn not_behind(&self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.inner.shared.read().revision() {
            self.catch_up().await?;
        }
        Ok(())
    }
}

// === impl Inner ===

impl Inner {
    /// Does a transaction.
    async fn transact(&self, writes: &[Write]) -> Result<Outcome, StoreError> {
        let ttl = writes.iter().filter_map(|it| it.ttl).max();
        let mut again = true;
        loop {
            let lease = match ttl {
                Some(ttl) => self.lease(ttl).await?,
                None => 0,
            };
            let request = txn::request(&self.keys, writes, lease);
            match self.client.write::<TxnResponse>(TXN, &request).await {
                Ok(answer) => {
                    self.checked(self.client.check(answer.header.as_ref()))?;
                    return Ok(txn::outcome(writes, &answer));
                }
                // Somebody has revoked it.
                Err(status) if remedy(&status) == Remedy::Lease && again => {
                    self.leases().gone(lease);
                    again = false;
                }
                Err(status) => return Err(self.client.explain(&status)),
            }
        }
    }

    /// A lease for a value that is wanted for some time.
    async fn lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        let _one_at_a_time = self.granting.lock().await;
        let now = Instant::now();
        if let Some(lease) = self.leases().lend(ttl, now) {
            return Ok(lease);
        }
        let seconds = i64::try_from(lease::lasting(ttl).as_secs()).unwrap_or(i64::MAX);
        let request = LeaseGrantRequest { ttl: seconds.max(1) };
        // One that nobody knows of ends by itself.
        let granted = self.client.read::<LeaseGrantResponse>(LEASE_GRANT, &request).await;
        let LeaseGrantResponse { id } = self.checked(granted)?;
        self.leases().granted(id, ttl, now);
        Ok(id)
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the watch has told everything up to a revision.
    async fn reach(&self, revision: Revision) -> Result<(), StoreError> {
        if *self.seen.borrow() >= revision {
            return Ok(());
        }
        let mut seen = self.seen.subscribe();
        let reached = async {
            // The other end is in this.
            drop(seen.wait_for(|seen| *seen >= revision).await);
        };
        // Never ends: it is the watch that tells.
        let marked = async {
            loop {
                sleep(MARK_AFTER).await;
                if self.mark(revision).await.is_ok() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let either = async {
            tokio::select! {
                () = reached => {}
                () = marked => {}
            }
        };
        timeout(REACH, Box::pin(either)).await.map_err(|_| {
            self.client.leave_current();
            let text = format!(
                "etcd has come to revision {}, and does not tell this server what happened; what was asked \
                 for may have been done",
                revision.0
            );
            StoreError::Unavailable(text.into())
        })
    }

    /// Writes a key, of which the watch tells, unless somebody else has done so since. What there was before
    /// that may have been written by others, elsewhere.
    async fn mark(&self, revision: Revision) -> Result<(), StoreError> {
        let _one_at_a_time = self.marking.lock().await;
        if *self.seen.borrow() >= revision {
            return Ok(());
        }
        let put = PutRequest { key: self.keys.key(MARK), ..PutRequest::default() };
        let written = self.client.read::<PutResponse>(PUT, &put).await;
        self.checked(written)?;
        Ok(())
    }

    /// Asks for the revision that is now, for ever, for whoever wants to know it.
    async fn answer(self: Arc<Self>, mut questions: mpsc::Receiver<Question>) {
        let mut waiting = Vec::new();
        while questions.recv_many(&mut waiting, QUESTIONS).await > 0 {
            let answer = self.current().await;
            for question in waiting.drain(..) {
                // Who does not want to know any more is not told.
                let _ = question.send(answer.clone());
            }
        }
    }

    async fn current(&self) -> Result<Revision, StoreError> {
        let before = *self.seen.borrow();
        let answer = self.client.read::<RangeResponse>(RANGE, &self.keys.nothing()).await;
        let answer = self.checked(answer)?;
        let header = answer.header.as_ref();
        self.checked(self.client.check(header))?;
        let revision = header.map(|it| revision_of(it.revision)).ok_or_else(|| self.garbled())?;
        if revision < before {
            // It has been put back to what it was once.
            self.anew.send_modify(|times| *times += 1);
            let text = format!(
                "etcd is at revision {}, and was at {} before; everything is read anew",
                revision.0, before.0
            );
            return Err(StoreError::Unavailable(text.into()));
        }
        Ok(revision)
    }

    /// Has the older history forgotten now and then, for ever.
    async fn compact(self: Arc<Self>) {
        let mut compactor = Compactor::default();
        loop {
            sleep(compact::INTERVAL).await;
            if let Err(error) = self.compact_once(&mut compactor).await {
                tracing::warn!(%error, "etcd's older history is not forgotten; it is tried again");
            }
        }
    }

    async fn compact_once(&self, compactor: &mut Compactor) -> Result<(), StoreError> {
        let asked = self.client.read::<TxnResponse>(TXN, &compactor.request(&self.keys)).await;
        let answer = self.checked(asked)?;
        let Some(revision) = compactor.heard(&answer) else { return Ok(()) };
        let request = CompactionRequest { revision: etcd_revision(revision) };
        match self.client.read::<CompactionResponse>(COMPACT, &request).await {
            // Somebody has forgotten more than that.
            Err(status) if remedy(&status) == Remedy::Anew => Ok(()),
            other => self.checked(other).map(drop),
        }
    }

    fn checked<T>(&self, result: Result<T, Status>) -> Result<T, StoreError> {
        result.map_err(|status| self.client.explain(&status))
    }

    fn garbled(&self) -> StoreError {
        StoreError::Unavailable("etcd answers what it was not asked; is it etcd?".into())
    }
}

/// A revision as etcd writes it, where it is never negative.
fn revision_of(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or_default())
}

fn etcd_revision(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
