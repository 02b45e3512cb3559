//! Whether a commit is done, and what it changes.

use crate::limits::check;
use crate::view::commit::{Changed, Held};
use crate::{Change, Expect, StoreError, Write};

/// What `writes` change of what there is: all of them, or nothing and why.
pub(super) fn decide(
    writes: Vec<Write>,
    current: impl Fn(&str) -> Option<Held>,
) -> Result<Vec<Changed>, StoreError> {
    check(&writes)?;
    let mut changes = Vec::with_capacity(writes.len());
    for Write { key, expect, change, ttl: _ } in writes {
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
