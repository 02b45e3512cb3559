//! A map that forgets what was not touched for longest.
//!
//! Of a key it keeps a hash, with a secret of its own: keys have whole messages in them, and are longer than what is
//! remembered. That two of a thousand have the same one has a chance of 1 in 10^13.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

/// How much is remembered. Source: `maxLruCacheEntries`, which is made for larger machines.
const LARGEST: usize = 1024;

#[derive(Debug)]
pub(super) struct Recent<T> {
    entries: HashMap<u64, (u64, T)>,
    hasher: RandomState,
    /// Counts what is done.
    turn: u64,
}

impl<T> Recent<T> {
    pub(super) fn new() -> Self {
        Self { entries: HashMap::new(), hasher: RandomState::new(), turn: 0 }
    }

    /// Tells a text from others, without keeping it.
    pub(super) fn mark(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }

    pub(super) fn get(&self, key: &str) -> Option<&T> {
        self.entries.get(&self.mark(key)).map(|(_, value)| value)
    }

    pub(super) fn put(&mut self, key: &str, value: T) {
        self.turn += 1;
        self.entries.insert(self.mark(key), (self.turn, value));
        self.shrink();
    }

    pub(super) fn get_or_insert(&mut self, key: &str, fresh: impl FnOnce() -> T) -> &mut T {
        self.turn += 1;
        let key = self.mark(key);
        if !self.entries.contains_key(&key) {
            self.entries.insert(key, (self.turn, fresh()));
            self.shrink();
        }
        let turn = self.turn;
        let entry = self.entries.get_mut(&key).expect("it was put there, and is the newest");
        entry.0 = turn;
        &mut entry.1
    }

    pub(super) fn get_or_default(&mut self, key: &str) -> &mut T
    where
        T: Default,
    {
        self.get_or_insert(key, T::default)
    }

    fn shrink(&mut self) {
        if self.entries.len() > LARGEST {
            let oldest = self.entries.iter().min_by_key(|(_, (turn, _))| *turn);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.and_then(|key| self.entries.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_touched_is_forgotten() {
        let mut recent = Recent::new();
        for number in 0..LARGEST {
            recent.put(&number.to_string(), number);
        }
        *recent.get_or_insert("0", || 0) = 7;
        recent.put("new", 9);
        assert_eq!(recent.get("0"), Some(&7));
        assert_eq!(recent.get("1"), None);
        assert_eq!(recent.entries.len(), LARGEST);
    }
}
