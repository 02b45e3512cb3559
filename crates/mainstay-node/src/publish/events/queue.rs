//! What is on its way to an API.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use mainstay_plan::events::Occurrence;
use tokio::sync::Notify;

/// How many wait, at the most: an API may be away for long. The oldest go first.
const LONGEST: usize = 512;

/// Filled by everybody, emptied by one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Occurrence>>,
    more: Notify,
    is_open: AtomicBool,
}

impl Queue {
    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    pub(super) fn push(&self, occurrence: impl FnOnce() -> Occurrence) {
        if !self.is_open.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == LONGEST {
            waiting.pop_front();
        }
        waiting.push_back(occurrence());
        drop(waiting);
        self.more.notify_one();
    }

    pub(super) async fn next(&self) -> Occurrence {
        loop {
            let first = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match first {
                Some(first) => return first,
                None => self.more.notified().await,
            }
        }
    }
}
