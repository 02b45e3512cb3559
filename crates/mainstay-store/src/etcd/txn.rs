//! Commits as etcd's transactions: what is asked, and what the answer means.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/storage/etcd3/store.go` (`GuaranteedUpdate`, `Create`).

use bytes::Bytes;

use super::keys::Keys;
use super::wire::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest, Request,
    RequestOp, Response, TargetUnion, TxnRequest, TxnResponse,
};
use super::{etcd_revision, revision_of};
use crate::{Change, Entry, Expect, Revision, Write};

/// What came of a transaction.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It was done, by this commit.
    Done(Revision),
    /// It was done, and there was nothing to change.
    Unchanged(Revision),
    /// The first write whose condition was not met, what is there instead, and as of when.
    Conflict { write: usize, current: Option<Entry>, seen: Revision },
    /// The answer is none to this question.
    Garbled,
}

/// The transaction that does all of `writes` or none of them. What is put is bound to `lease`; 0 is none.
pub(crate) fn request(keys: &Keys, writes: &[Write], lease: i64) -> TxnRequest {
    let mut txn = TxnRequest::default();
    for Write { key, expect, change, ttl } in writes {
        let key = keys.key(key);
        let expected = match expect {
            Expect::Any => None,
            // A key that is not there has been changed by revision 0.
            Expect::Absent => Some(0),
            // So no value has been written by it.
            Expect::At(Revision(0)) => Some(-1),
            Expect::At(revision) => Some(etcd_revision(*revision)),
        };
        if let Some(revision) = expected {
            txn.compare.push(Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: key.clone(),
                target_union: Some(TargetUnion::ModRevision(revision)),
            });
        }
        let there = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        txn.failure.push(op(Request::Range(there)));
        txn.success.push(op(match change {
            Change::Put(value) => Request::Put(PutRequest {
                key,
                value: value.clone(),
                lease: if ttl.is_some() { lease } else { 0 },
            }),
            Change::Delete => Request::DeleteRange(DeleteRangeRequest { key }),
        }));
    }
    txn
}

/// What an answer to that says.
pub(crate) fn outcome(writes: &[Write], answer: &TxnResponse) -> Outcome {
    let Some(header) = &answer.header else { return Outcome::Garbled };
    let seen = revision_of(header.revision);
    if answer.responses.len() != writes.len() {
        return Outcome::Garbled;
    }
    let responses = answer.responses.iter().map(|it| it.response.as_ref());
    if answer.succeeded {
        let changed = responses.clone().any(|response| match response {
            Some(Response::Put(_)) => true,
            Some(Response::DeleteRange(deleted)) => deleted.deleted > 0,
            Some(Response::Range(_)) | None => false,
        });
        return if changed { Outcome::Done(seen) } else { Outcome::Unchanged(seen) };
    }
    for (at, (write, response)) in writes.iter().zip(responses).enumerate() {
        let Some(Response::Range(range)) = response else { return Outcome::Garbled };
        let current = range.kvs.first().map(|kv| Entry {
            key: write.key.clone(),
            value: Bytes::copy_from_slice(&kv.value),
            revision: revision_of(kv.mod_revision),
        });
        let met = match write.expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::At(revision) => current.as_ref().is_some_and(|it| it.revision == revision),
        };
        if !met {
            return Outcome::Conflict { write: at, current, seen };
        }
    }
    Outcome::Garbled
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{
        DeleteRangeResponse, KeyValue, PutResponse, RangeResponse, ResponseHeader, ResponseOp,
    };
    use super::*;
    use crate::contract::{delete, expecting, put};

    fn answer(succeeded: bool, responses: Vec<Response>) -> TxnResponse {
        let responses = responses.into_iter().map(|it| ResponseOp { response: Some(it) });
        let header = Some(ResponseHeader { cluster_id: 1, revision: 9 });
        TxnResponse { header, succeeded, responses: responses.collect() }
    }

    fn there(revision: Option<i64>) -> Response {
        let kvs = revision.map(|mod_revision| KeyValue {
            value: Bytes::from_static(b"is"),
            mod_revision,
            ..KeyValue::default()
        });
        Response::Range(RangeResponse {
            kvs: kvs.into_iter().collect(),
            ..RangeResponse::default()
        })
    }

    #[test]
    fn what_is_asked() {
        let keys = Keys::new("/registry/");
        let mut kept = put("c", "3");
        kept.ttl = Some(std::time::Duration::from_secs(60));
        let writes = [
            expecting(Expect::Absent, put("a", "1")),
            expecting(Expect::At(Revision(7)), delete("b")),
            kept,
        ];
        let txn = request(&keys, &writes, 5);
        let compared: Vec<_> =
            txn.compare.iter().map(|it| (&it.key[..], it.target_union)).collect();
        let expected: [(&[u8], _); 2] = [
            (b"/registry/a", Some(TargetUnion::ModRevision(0))),
            (b"/registry/b", Some(TargetUnion::ModRevision(7))),
        ];
        assert_eq!(compared, expected);
        let leases: Vec<_> = txn
            .success
            .iter()
            .map(|op| match op.request.as_ref().unwrap() {
                Request::Put(put) => Some(put.lease),
                _ => None,
            })
            .collect();
        assert_eq!(leases, [Some(0), None, Some(5)]);
        assert_eq!(txn.failure.len(), 3);
    }

    #[test]
    fn what_an_answer_means() {
        let deleted = |deleted| Response::DeleteRange(DeleteRangeResponse { deleted });
        let done = Response::Put(PutResponse {});
        let writes = [
            expecting(Expect::Absent, put("a", "1")),
            put("b", "1"),
            expecting(Expect::At(Revision(7)), delete("c")),
        ];
        let current = |key: &str, revision| {
            let value = Bytes::from_static(b"is");
            Some(Entry { key: key.into(), value, revision: Revision(revision) })
        };
        let conflict = |write, current| Outcome::Conflict { write, current, seen: Revision(9) };
        let cases = [
            (
                answer(true, vec![done.clone(), done.clone(), deleted(1)]),
                Outcome::Done(Revision(9)),
            ),
            (
                answer(true, vec![deleted(0), deleted(0), deleted(0)]),
                Outcome::Unchanged(Revision(9)),
            ),
            (
                answer(false, vec![there(Some(3)), there(None), there(None)]),
                conflict(0, current("a", 3)),
            ),
            (answer(false, vec![there(None), there(None), there(None)]), conflict(2, None)),
            (
                answer(false, vec![there(None), there(Some(4)), there(Some(8))]),
                conflict(2, current("c", 8)),
            ),
            // All is as it was expected, and yet it was not done.
            (answer(false, vec![there(None), there(None), there(Some(7))]), Outcome::Garbled),
            (answer(false, vec![done.clone(), done.clone(), done]), Outcome::Garbled),
            (answer(true, vec![]), Outcome::Garbled),
            (TxnResponse::default(), Outcome::Garbled),
        ];
        for (answer, expected) in cases {
            assert_eq!(outcome(&writes, &answer), expected, "{answer:?}");
        }
    }
}
