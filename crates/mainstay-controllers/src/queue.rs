//! What is to be looked at: keys, each once, with a wait after a failure that doubles.
//!
//! # Guarantees
//!
//! - A key is handed out to one at a time; what is added meanwhile is handed out again after that.
//! - However often a key is added, it waits once.
//!
//! Source: `staging/src/k8s.io/client-go/util/workqueue`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mainstay_client::{CallError, CallErrorKind, Trouble};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The wait after the first failure, and the longest. Source: `DefaultTypedControllerRateLimiter`.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1000);
/// The longest while the API does not answer: what it has then to do is done soon after it is back.
const LONGEST_AWAY: Duration = Duration::from_secs(5);

/// Keys to be looked at.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    /// Whose it is, for the log.
    name: &'static str,
    state: Mutex<State<K>>,
    more: Notify,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    /// Those in `ready`, and those that are to be ready again once they are not worked on.
    wanted: BTreeSet<K>,
    in_work: BTreeSet<K>,
    later: BTreeMap<K, Instant>,
    failures: BTreeMap<K, u32>,
    trouble: Trouble,
}

impl<K: Ord + Clone> Queue<K> {
    pub(crate) fn new(name: &'static str) -> Self {
        let state = State {
            ready: VecDeque::new(),
            wanted: BTreeSet::new(),
            in_work: BTreeSet::new(),
            later: BTreeMap::new(),
            failures: BTreeMap::new(),
            trouble: Trouble::default(),
        };
        Self { name, state: Mutex::new(state), more: Notify::new() }
    }

    /// Has a key looked at as soon as somebody is free.
    pub(crate) fn add(&self, key: K) {
        self.lock().want(key);
        self.more.notify_one();
    }

    /// Works on keys for ever, on so many at a time. `sync` answers after what time it wants to be
    /// asked again, if nothing happens before.
    pub(crate) async fn work<F>(&self, at_once: usize, sync: impl Fn(K) -> F)
    where
        F: Future<Output = Result<Option<Duration>, CallError>>,
    {
        let sync = &sync;
        let work = |key: K| async move {
            let result = sync(key.clone()).await;
            self.done(key, result);
        };
        // One for each key that is worked on, and none at rest: they are large.
        let mut in_work = FuturesUnordered::new();
        loop {
            tokio::select! {
                // What was taken begins before the next one is taken.
                biased;
                // Cancel-safe: what it answers is nothing.
                Some(()) = in_work.next(), if !in_work.is_empty() => {}
                // Cancelled before it has taken a key, or not at all.
                key = self.next(), if in_work.len() < at_once => in_work.push(work(key)),
            }
        }
    }

    async fn next(&self) -> K {
        loop {
            let due = {
                let mut state = self.lock();
                if let Some(key) = state.take(Instant::now()) {
                    // For whoever else waits: one that is told of two keys tells of the second.
                    if !state.ready.is_empty() {
                        self.more.notify_one();
                    }
                    return key;
                }
                state.later.values().min().copied()
            };
            match due {
                Some(due) => {
                    // A timeout is what was waited for.
                    let _ = tokio::time::timeout_at(due, self.more.notified()).await;
                }
                None => self.more.notified().await,
            }
        }
    }

    fn done(&self, key: K, result: Result<Option<Duration>, CallError>) {
        let mut state = self.lock();
        state.in_work.remove(&key);
        match result {
            Ok(again) => {
                state.failures.remove(&key);
                if state.trouble.end() {
                    tracing::info!(controller = self.name, "all is well again");
                }
                if let Some(wait) = again {
                    state.put_off(key.clone(), Instant::now() + wait);
                }
            }
            Err(error) => {
                let failures = state.failures.entry(key.clone()).or_default();
                *failures += 1;
                let wait = wait_after(*failures, error.kind);
                // That others were faster is how it is meant to be.
                if error.kind != CallErrorKind::Conflict && state.trouble.is_news(&error) {
                    tracing::warn!(controller = self.name, error = error.message, "cannot go on");
                }
                state.put_off(key.clone(), Instant::now() + wait);
            }
        }
        if state.wanted.contains(&key) {
            state.ready.push_back(key);
        }
        drop(state);
        self.more.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone> State<K> {
    fn want(&mut self, key: K) {
        if self.wanted.insert(key.clone()) && !self.in_work.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn put_off(&mut self, key: K, until: Instant) {
        let due = self.later.entry(key).or_insert(until);
        *due = until.min(*due);
    }

    /// The next key to work on.
    fn take(&mut self, now: Instant) -> Option<K> {
        let due: Vec<K> = self.later.iter().filter(|(_, at)| **at <= now).map(first).collect();
        for key in due {
            self.later.remove(&key);
            self.want(key);
        }
        let key = self.ready.pop_front()?;
        self.wanted.remove(&key);
        self.in_work.insert(key.clone());
        Some(key)
    }
}

fn first<K: Clone, V>((key, _): (&K, V)) -> K {
    key.clone()
}

fn wait_after(failures: u32, kind: CallErrorKind) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(20));
    wait.min(match kind {
        CallErrorKind::Away => LONGEST_AWAY,
        CallErrorKind::NotFound
        | CallErrorKind::AlreadyExists
        | CallErrorKind::Conflict
        | CallErrorKind::Gone
        | CallErrorKind::Refused => LONGEST_WAIT,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn failed(kind: CallErrorKind) -> CallError {
        let mut error = CallError::refused("no".into());
        error.kind = kind;
        error
    }

    /// What is begun, and when, in milliseconds.
    async fn work(
        queue: &Queue<&'static str>,
        patience: Duration,
        answer: impl Fn(&str, usize) -> Result<Option<Duration>, CallError>,
    ) -> Vec<(&'static str, u128)> {
        let (began, done) = (Instant::now(), RefCell::new(Vec::new()));
        let sync = async |key| {
            let count = {
                let mut done = done.borrow_mut();
                done.push((key, began.elapsed().as_millis()));
                done.len()
            };
            tokio::task::yield_now().await;
            answer(key, count)
        };
        tokio::time::timeout(patience, queue.work(2, sync)).await.unwrap_err();
        done.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_worked_on_by_one() {
        let queue = Queue::new("test");
        for key in ["a", "b", "a", "b"] {
            queue.add(key);
        }
        let second = Duration::from_secs(1);
        assert_eq!(work(&queue, second, |_, _| Ok(None)).await, [("a", 0), ("b", 0)]);
        queue.add("a");
        let again = |_: &str, count| {
            if count == 1 {
                queue.add("a");
                queue.add("a");
            }
            Ok(None)
        };
        assert_eq!(work(&queue, second, again).await, [("a", 0), ("a", 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_until_it_goes_well() {
        let queue = Queue::new("test");
        queue.add("a");
        let answer = |_: &str, count| match count {
            ..5 => Err(failed(CallErrorKind::Refused)),
            5 => Ok(Some(Duration::from_millis(3))),
            6 => Err(failed(CallErrorKind::Conflict)),
            _ => Ok(None),
        };
        let times = work(&queue, Duration::from_secs(10), answer).await;
        let times: Vec<u128> = times.into_iter().map(|(_, at)| at).collect();
        assert_eq!(times, [0, 5, 15, 35, 75, 78, 83]);
        let longest = |kind| wait_after(u32::MAX, kind).as_secs();
        assert_eq!(longest(CallErrorKind::Refused), 1000);
        assert_eq!(longest(CallErrorKind::Away), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_two_moments_counts() {
        let queue = Queue::new("test");
        let second = Duration::from_secs(1);
        for wait in [2, 1, 3] {
            queue.lock().put_off("a", Instant::now() + second * wait);
        }
        let times = work(&queue, second * 10, |_, _| Ok(None)).await;
        assert_eq!(times, [("a", 1000)]);
    }
}
