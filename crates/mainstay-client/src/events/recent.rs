//! A map that forgets what was not touched for longest.

use std::collections::BTreeMap;

/// How much is remembered. Source: `maxLruCacheEntries`, which is made for larger machines.
const LARGEST: usize = 1024;

#[derive(Debug)]
pub(super) struct Recent<T> {
    entries: BTreeMap<String, (u64, T)>,
    /// Counts what is done.
    turn: u64,
}

impl<T> Recent<T> {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new(), turn: 0 }
    }

    pub(super) fn get(&self, key: &str) -> Option<&T> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn put(&mut self, key: String, value: T) {
        self.turn += 1;
        self.entries.insert(key, (self.turn, value));
        self.shrink();
    }

    pub(super) fn get_or_insert(&mut self, key: &str, fresh: impl FnOnce() -> T) -> &mut T {
        self.turn += 1;
        if !self.entries.contains_key(key) {
            self.entries.insert(key.to_owned(), (self.turn, fresh()));
            self.shrink();
        }
        let turn = self.turn;
        let entry = self.entries.get_mut(key).expect("it was put there, and is the newest");
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
            let oldest = oldest.map(|(key, _)| key.clone());
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
            recent.put(number.to_string(), number);
        }
        *recent.get_or_insert("0", || 0) = 7;
        recent.put("new".into(), 9);
        assert_eq!(recent.get("0"), Some(&7));
        assert_eq!(recent.get("1"), None);
        assert_eq!(recent.entries.len(), LARGEST);
    }
}
