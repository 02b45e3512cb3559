//! What is on its way to an API.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Occurrence;

/// How many wait, at the most: an API may be away for long. The oldest go first.
const LONGEST: usize = 512;

/// How long what comes first waits for more. What begins, as a pod, is over it then, and needs the processors more.
const GATHERING: Duration = Duration::from_millis(30);

/// Filled by everybody, emptied by one.
#[derive(Debug)]
pub struct EventQueue<A> {
    waiting: Mutex<VecDeque<Occurrence<A>>>,
    more: Notify,
    is_open: AtomicBool,
}

impl<A> Default for EventQueue<A> {
    fn default() -> Self {
        let (waiting, more) = (Mutex::default(), Notify::new());
        Self { waiting, more, is_open: AtomicBool::new(false) }
    }
}

impl<A> EventQueue<A> {
    /// From now on there is somebody who takes what is pushed; what was before is lost.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Puts one in, unless nobody would take it.
    pub fn push(&self, occurrence: impl FnOnce() -> Occurrence<A>) {
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

    /// The next one, soon after there is one.
    pub async fn next(&self) -> Occurrence<A> {
        loop {
            let first = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match first {
                Some(first) => return first,
                None => {
                    self.more.notified().await;
                    tokio::time::sleep(GATHERING).await;
                }
            }
        }
    }
}
