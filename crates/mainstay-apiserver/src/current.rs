//! Answers out of what is there now, whichever server wrote it.
//!
//! A store that others write to as well is seen a moment late. Reads ask it first how far it is, and wait
//! until that is seen. Writes do not: each compares what it was decided on with what is there. One that is
//! refused may have been refused for what is not so any more; it is decided once more if there was something
//! to catch up with.
//!
//! Source: `GetList` in `staging/src/k8s.io/apiserver/pkg/storage/cacher/cacher.go` (consistent reads from
//! the cache), `GuaranteedUpdate` in `storage/etcd3/store.go` (`origStateIsCurrent`).

use crate::call::{Answer, Call};
use crate::server::dispatch;
use crate::status::Result;

/// What a request needs of the store before it is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Needs {
    /// What has been seen is enough.
    Nothing,
    /// All that was written before.
    Current,
    /// That, if it is refused.
    CurrentIfRefused,
}

/// Answers a request about objects.
pub(crate) async fn answer(call: &Call<'_>) -> Result<Answer> {
    let store = &call.server.storage.store;
    if !store.is_shared() {
        return dispatch(call).await;
    }
    let query = &call.info.query;
    let dated = !query.get("resourceVersion").is_empty() || !query.get("continue").is_empty();
    match needs(call.info.verb, &call.info.subresource, dated) {
        Needs::Nothing => dispatch(call).await,
        Needs::Current => {
            store.catch_up().await?;
            dispatch(call).await
        }
        Needs::CurrentIfRefused => {
            let seen = store.known().end;
            match dispatch(call).await {
                Err(refusal) if refusal.code.is_client_error() => {
                    store.catch_up().await?;
                    if store.known().end == seen { Err(refusal) } else { dispatch(call).await }
                }
                answered => answered,
            }
        }
    }
}

/// `dated` is what says itself how old it may be.
fn needs(verb: &str, subresource: &str, dated: bool) -> Needs {
    match (verb, subresource) {
        ("get" | "list" | "watch", _) if dated => Needs::Nothing,
        // What is spent of a budget is spent when the eviction is refused after that.
        ("create", "eviction") => Needs::Current,
        ("create" | "update" | "patch" | "delete", _) => Needs::CurrentIfRefused,
        _ => Needs::Current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_need() {
        let cases = [
            ("get", "", false, Needs::Current),
            ("get", "scale", false, Needs::Current),
            ("list", "", false, Needs::Current),
            ("list", "", true, Needs::Nothing),
            ("watch", "", false, Needs::Current),
            ("watch", "", true, Needs::Nothing),
            ("create", "", false, Needs::CurrentIfRefused),
            ("create", "eviction", false, Needs::Current),
            ("update", "status", true, Needs::CurrentIfRefused),
            ("delete", "", false, Needs::CurrentIfRefused),
            ("deletecollection", "", false, Needs::Current),
        ];
        for (verb, subresource, dated, expected) in cases {
            assert_eq!(needs(verb, subresource, dated), expected, "{verb} {subresource} {dated}");
        }
    }
}
