//! Whether a commit is done, and what it changes.

use std::collections::HashSet;

use super::commit::{Changed, Held};
use crate::{Change, Expect, KEY_MAX, StoreError, VALUE_MAX, Write};

/// What `writes` change of what there is: all of them, or nothing and why.
pub(super) fn decide(
    writes: Vec<Write>,
    current: impl Fn(&str) -> Option<Held>,
) -> Result<Vec<Changed>, StoreError> {
    check(&writes)?;
    let mut changes = Vec::with_capacity(writes.len());
    for Write { key, expect, change } in writes {
        let previous = current(&key);
        let met = match expect {
            Expect::Any => true,
            Expect::Absent => previous.is_none(),
            Expect::At(revision) => previous.as_ref().is_some_and(|held| held.revision == revision),
        };
        if !met {
            let current = previous.map(|held| held.entry(&key));
            return Err(StoreError::Conflict { key, current });
        }
        match change {
            Change::Put(value) => changes.push(Changed { key, value: Some(value), previous }),
            Change::Delete if previous.is_some() => {
                changes.push(Changed { key, value: None, previous });
            }
            Change::Delete => {}
        }
    }
    Ok(changes)
}

fn check(writes: &[Write]) -> Result<(), StoreError> {
    let refuse = |text: String| Err(StoreError::Unavailable(text.into()));
    let mut keys = HashSet::with_capacity(writes.len());
    for Write { key, change, .. } in writes {
        if key.len() > KEY_MAX {
            return refuse(format!("a key has {} bytes, and may have {KEY_MAX}", key.len()));
        }
        match change {
            Change::Put(value) if value.len() > VALUE_MAX => {
                let length = value.len();
                return refuse(format!("{key} has {length} bytes, and may have {VALUE_MAX}"));
            }
            Change::Put(_) | Change::Delete => {}
        }
        if !keys.insert(key) {
            return refuse(format!("{key} is twice in one commit, and may be there once"));
        }
    }
    Ok(())
}
