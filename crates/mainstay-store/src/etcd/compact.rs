//! Who forgets the history of etcd, and how much of it: one of all servers, every five minutes, what is
//! older than the last time.
//!
//! All servers have one key whose version counts the times. Whoever is first to count on has the time; the
//! others learn how far it is.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/storage/etcd3/compact.go`.

use std::time::Duration;

use super::keys::Keys;
use super::revision_of;
use super::wire::{
    Compare, CompareResult, CompareTarget, PutRequest, RangeRequest, Request, RequestOp, Response,
    TargetUnion, TxnRequest, TxnResponse,
};
use crate::Revision;

/// Between two times. Source: the default of `--etcd-compaction-interval`.
pub(crate) const INTERVAL: Duration = Duration::from_secs(300);

/// The key, whose value is the revision of the time before. Source: `compactRevKey`; it is below the prefix
/// here, as all that is of this store.
pub(crate) const KEY: &str = "compact_rev_key";

/// What one server knows of the times.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    /// How many there were.
    times: i64,
    /// The revision when this server asked last; 0 if it never has.
    revision: i64,
}

impl Compactor {
    /// Asks whether it is this server's turn.
    pub(crate) fn request(&self, keys: &Keys) -> TxnRequest {
        let key = keys.key(KEY);
        let put = PutRequest {
            key: key.clone(),
            value: self.revision.to_string().into(),
            ..PutRequest::default()
        };
        let range = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Version.into(),
                key,
                target_union: Some(TargetUnion::Version(self.times)),
            }],
            success: vec![RequestOp { request: Some(Request::Put(put)) }],
            failure: vec![RequestOp { request: Some(Request::Range(range)) }],
        }
    }

    /// Hears the answer. Gives the revision before which all is to be forgotten, if it is its turn.
    pub(crate) fn heard(&mut self, answer: &TxnResponse) -> Option<Revision> {
        let now = answer.header.as_ref()?.revision;
        let before = std::mem::replace(&mut self.revision, now);
        if answer.succeeded {
            self.times += 1;
            // The first time there is none before it.
            return (before > 0).then(|| revision_of(before));
        }
        let response = answer.responses.first().and_then(|it| it.response.as_ref());
        self.times = match response {
            Some(Response::Range(range)) => range.kvs.first().map_or(0, |kv| kv.version),
            _ => 0,
        };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{KeyValue, RangeResponse, ResponseHeader, ResponseOp};
    use super::*;

    /// A key that counts, as etcd has it.
    #[derive(Default)]
    struct Etcd {
        version: i64,
        revision: i64,
    }

    impl Etcd {
        fn answer(&mut self, request: &TxnRequest) -> TxnResponse {
            let expected = request.compare[0].target_union.unwrap();
            let succeeded = expected == TargetUnion::Version(self.version);
            if succeeded {
                self.version += 1;
                self.revision += 1;
            }
            let kv = KeyValue { version: self.version, ..KeyValue::default() };
            let kvs = (self.version > 0).then_some(kv).into_iter().collect();
            let range = Response::Range(RangeResponse { kvs, ..RangeResponse::default() });
            TxnResponse {
                header: Some(ResponseHeader { cluster_id: 1, revision: self.revision }),
                succeeded,
                responses: vec![ResponseOp { response: Some(range) }],
            }
        }
    }

    #[test]
    fn one_of_many_has_each_time_and_another_goes_on_when_it_is_gone() {
        let keys = Keys::new("/registry/");
        let mut etcd = Etcd { revision: 100, ..Etcd::default() };
        let mut servers = [Compactor::default(), Compactor::default(), Compactor::default()];
        let mut round = |etcd: &mut Etcd, which: &[usize]| {
            let mut compacted = Vec::new();
            for at in which {
                let answer = etcd.answer(&servers[*at].request(&keys));
                if let Some(revision) = servers[*at].heard(&answer) {
                    compacted.push((*at, revision.0));
                }
            }
            etcd.revision += 50;
            compacted
        };
        // The first time there is nothing to forget.
        assert_eq!(round(&mut etcd, &[0, 1, 2]), []);
        assert_eq!(round(&mut etcd, &[0, 1, 2]), [(0, 101)]);
        assert_eq!(round(&mut etcd, &[0, 1, 2]), [(0, 152)]);
        // The first one is gone; the next one has heard of the time before.
        assert_eq!(round(&mut etcd, &[1, 2]), [(1, 203)]);
        assert_eq!(round(&mut etcd, &[1, 2]), [(1, 254)]);
    }

    #[test]
    fn an_answer_that_is_none_compacts_nothing() {
        let mut compactor = Compactor { times: 3, revision: 70 };
        assert_eq!(compactor.heard(&TxnResponse::default()), None);
        assert_eq!(compactor.revision, 70);
    }
}
