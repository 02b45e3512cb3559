//! What no store takes.

use std::collections::HashSet;

use crate::{Change, KEY_MAX, StoreError, VALUE_MAX, Write};

/// # Errors
///
/// When a key or a value is too long, or a key is there twice.
pub(crate) fn check(writes: &[Write]) -> Result<(), StoreError> {
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
