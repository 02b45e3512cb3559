//! Commits on their way to the thread that writes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Change, Durability, Revision, StoreError, Write};

/// How much may wait, in KiB. Whoever has more waits for others.
const ROOM: u32 = 16 << 10;

/// A commit that waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) writes: Vec<Write>,
    pub(super) durability: Durability,
    pub(super) answer: oneshot::Sender<Result<Revision, StoreError>>,
    pub(super) room: OwnedSemaphorePermit,
}

/// What there is to do.
#[derive(Debug)]
pub(super) enum Task {
    /// These commits, in this order.
    Commit(Vec<Request>),
    /// The time that was waited for has come.
    Due,
    /// Nothing more will come.
    End,
}

/// Those who are likely to ask again, now that they have been answered: it is worth to wait a little for
/// them, since they will share a sync.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crowd {
    pub(super) size: usize,
    /// How long the first of them may be held up.
    pub(super) patience: Duration,
}

/// The commits that wait.
#[derive(Debug)]
pub(super) struct Queue {
    place: String,
    waiting: Mutex<Waiting>,
    filled: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: Vec<Request>,
    closed: bool,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(place: &str) -> Self {
        Self {
            place: place.to_owned(),
            waiting: Mutex::default(),
            filled: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
        }
    }

    /// Waits until there is room for a commit.
    pub(super) async fn room(&self, writes: &[Write]) -> Result<OwnedSemaphorePermit, StoreError> {
        let size = |write: &Write| {
            let value = match &write.change {
                Change::Put(value) => value.len(),
                Change::Delete => 0,
            };
            write.key.len() + value
        };
        let kilobytes = writes.iter().map(size).sum::<usize>() >> 10;
        let permits = u32::try_from(kilobytes + 1).unwrap_or(ROOM).min(ROOM);
        self.room.clone().acquire_many_owned(permits).await.map_err(|_| self.ended())
    }

    pub(super) fn push(&self, request: Request) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(self.ended());
        }
        waiting.requests.push(request);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for something to do. What was asked for before the end comes before it.
    pub(super) fn take(&self, due: Option<Instant>, crowd: Crowd) -> Task {
        let mut waiting = self.lock();
        loop {
            if !waiting.requests.is_empty() {
                let few =
                    |waiting: &mut Waiting| waiting.requests.len() < crowd.size && !waiting.closed;
                let gathered = self.filled.wait_timeout_while(waiting, crowd.patience, few);
                waiting = gathered.unwrap_or_else(PoisonError::into_inner).0;
                return Task::Commit(std::mem::take(&mut waiting.requests));
            }
            if waiting.closed {
                return Task::End;
            }
            waiting = match due {
                None => self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Task::Due;
                    }
                    let waited = self.filled.wait_timeout(waiting, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.filled.notify_one();
    }

    /// Refuses all that waits.
    pub(super) fn clear(&self) {
        self.close();
        self.lock().requests.clear();
    }

    /// What is answered when nothing is done any more.
    pub(super) fn ended(&self) -> StoreError {
        StoreError::Unavailable(format!("the store in {} has been closed", self.place).into())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
