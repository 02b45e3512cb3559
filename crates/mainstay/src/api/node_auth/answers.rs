//! Answers that hold for a while.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many there are at most: whoever asks with ever other tokens fills no memory.
const MOST: usize = 1024;

/// By what was asked.
#[derive(Debug)]
pub(super) struct Answers<Q, A>(Mutex<HashMap<Q, (A, Instant)>>);

impl<Q, A> Default for Answers<Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Q: Eq + Hash, A: Clone> Answers<Q, A> {
    /// What was answered, if that still holds.
    pub(super) fn get<K: Eq + Hash + ?Sized>(&self, asked: &K, now: Instant) -> Option<A>
    where
        Q: Borrow<K>,
    {
        self.lock().get(asked).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    /// Remembers an answer for so long.
    pub(super) fn put(&self, asked: Q, answer: A, holds: Duration, now: Instant) {
        if holds.is_zero() {
            return;
        }
        let mut all = self.lock();
        if all.len() >= MOST {
            all.retain(|_, (_, until)| now < *until);
        }
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(asked, (answer, now + holds));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Q, (A, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_their_time_and_are_not_too_many() {
        let answers = Answers::<String, u8>::default();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        answers.put("a".to_owned(), 1, second * 2, start);
        answers.put("b".to_owned(), 2, second, start);
        answers.put("c".to_owned(), 3, Duration::ZERO, start);
        let known = |now| ["a", "b", "c"].map(|it| answers.get(it, now));
        assert_eq!(known(start), [Some(1), Some(2), None]);
        assert_eq!(known(start + second), [Some(1), None, None]);
        for number in 0..MOST {
            answers.put(number.to_string(), 4, second * 60, start + second);
            assert!(answers.lock().len() <= MOST);
        }
        let last = (MOST - 1).to_string();
        assert_eq!(answers.get(last.as_str(), start + second), Some(4));
    }
}
