//! Where keys are in etcd: below a prefix.

use std::sync::Arc;

use bytes::Bytes;

use super::wire::RangeRequest;

/// The keys of one store.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    /// Keys below `prefix`, which ends with a slash.
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// A key of the store as etcd has it.
    pub(crate) fn key(&self, key: &str) -> Bytes {
        [&*self.prefix, key].concat().into()
    }

    /// A key of etcd as the store has it; `None` if it is none of the store's.
    pub(crate) fn of(&self, key: &[u8]) -> Option<Arc<str>> {
        let key = key.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(key).ok().map(Arc::from)
    }

    /// What all keys begin with.
    pub(crate) fn first(&self) -> Bytes {
        Bytes::copy_from_slice(self.prefix.as_bytes())
    }

    /// The first key after all of them.
    pub(crate) fn end(&self) -> Bytes {
        let mut end = self.prefix.as_bytes().to_vec();
        // A slash, after which comes `0`.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        end.into()
    }

    /// A question that has no answer but the revision that is now.
    pub(crate) fn nothing(&self) -> RangeRequest {
        RangeRequest { key: self.first(), count_only: true, ..RangeRequest::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_round() {
        let keys = Keys::new("/registry/");
        assert_eq!(keys.key("pods/a/ä"), "/registry/pods/a/ä");
        assert_eq!(keys.of("/registry/pods/a/ä".as_bytes()).as_deref(), Some("pods/a/ä"));
        assert_eq!(keys.of(b"/registry/\xff"), None);
        assert_eq!(keys.of(b"/registr"), None);
        assert_eq!((&keys.first()[..], &keys.end()[..]), (&b"/registry/"[..], &b"/registry0"[..]));
    }
}
