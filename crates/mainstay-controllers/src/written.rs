//! What a controller has written has to come back before it decides by what it sees.
//!
//! Source: `staging/src/k8s.io/client-go/util/consistency`, which stands beside upstream's
//! expectations; with versions that go up these are not needed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::informer::{ObjectKey, version_of};

/// How long it takes at most until what was written is heard of, as a rule.
pub(crate) const SOON: Duration = Duration::from_millis(20);

/// The last versions that were written for the sake of each object.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<BTreeMap<ObjectKey, u64>>);

impl Written {
    /// Notes what the API answered to a write.
    pub(crate) fn note(&self, key: &ObjectKey, answer: &ObjectMeta) {
        let Some(version) = version_of(answer) else { return };
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = versions.entry(key.clone()).or_default();
        *last = version.max(*last);
    }

    /// Whether all that was written for an object was heard of by whoever heard of everything up to
    /// a version.
    pub(crate) fn is_seen(&self, key: &ObjectKey, reached: u64) -> bool {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match versions.get(key) {
            Some(version) if *version > reached => false,
            Some(_) => {
                versions.remove(key);
                true
            }
            None => true,
        }
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_write_counts() {
        let (written, key) = (Written::default(), ObjectKey::new("a", "b"));
        let answer = |version: &str| ObjectMeta {
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        assert!(written.is_seen(&key, 0));
        for version in ["7", "5", "no"] {
            written.note(&key, &answer(version));
        }
        assert!(!written.is_seen(&key, 6) && written.is_seen(&ObjectKey::default(), 0));
        assert!(written.is_seen(&key, 7) && written.is_seen(&key, 0));
        written.note(&key, &answer("9"));
        written.forget(&key);
        assert!(written.is_seen(&key, 0));
    }
}
