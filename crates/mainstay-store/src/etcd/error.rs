//! What etcd's refusals mean: what helps, and what people are told.
//!
//! Source: `api/v3rpc/rpctypes/error.go` of etcd.

use mainstay_grpc::{Code, Status};

use crate::StoreError;

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Another server. Nothing was done.
    Elsewhere,
    /// Another server. It is not known whether it was done.
    ElsewhereIfRepeatable,
    /// To say anew who asks.
    Login,
    /// Another lease.
    Lease,
    /// To ask for less.
    Less,
    /// Another server: this one is of another cluster.
    Member,
    /// To read everything anew: the history is gone.
    Anew,
    /// Nothing that could be done here.
    None,
}

/// What is said of a server that does not belong to the others.
pub(crate) const OTHER_CLUSTER: &str = "it is of another cluster";

/// What helps against a refusal.
pub(crate) fn remedy(status: &Status) -> Remedy {
    let says = |text: &str| status.message.contains(text);
    match status.code {
        Code::Unavailable if says("etcdserver: no leader") => Remedy::Elsewhere,
        Code::Unavailable | Code::DeadlineExceeded | Code::Canceled => {
            Remedy::ElsewhereIfRepeatable
        }
        Code::Unauthenticated => Remedy::Login,
        Code::InvalidArgument if says("user name is empty") || says("auth store is old") => {
            Remedy::Login
        }
        Code::NotFound if says("lease not found") => Remedy::Lease,
        Code::ResourceExhausted if says("received message larger than max") => Remedy::Less,
        Code::FailedPrecondition if says(OTHER_CLUSTER) => Remedy::Member,
        Code::OutOfRange if says("has been compacted") => Remedy::Anew,
        _ => Remedy::None,
    }
}

/// Whether a server has no users, so that nobody need say who asks.
pub(crate) fn has_no_users(status: &Status) -> bool {
    status.code == Code::FailedPrecondition
        && status.message.contains("authentication is not enabled")
}

/// A refusal as the store tells it. `place` is where etcd is.
pub(crate) fn explain(status: &Status, place: &str) -> StoreError {
    let Status { code, message } = status;
    let says = |text: &str| message.contains(text);
    let advice = match code {
        Code::ResourceExhausted if says("database space exceeded") => {
            "it is full: compact and defragment it (etcdctl compact, defrag) or give it a larger \
             --quota-backend-bytes, then etcdctl alarm disarm"
        }
        Code::InvalidArgument if says("request is too large") => {
            let text = format!(
                "etcd at {place} does not take a request as large as this ({message}); make the object \
                 smaller, or give etcd a larger --max-request-bytes"
            );
            return StoreError::TooLarge(text.into());
        }
        Code::ResourceExhausted if says("received message larger than max") => {
            let text = format!(
                "etcd at {place} does not take a request as large as this ({message}); make the object \
                 smaller, or give etcd a larger --max-request-bytes"
            );
            return StoreError::TooLarge(text.into());
        }
        Code::ResourceExhausted => "it has more to do than it can; it is tried again",
        Code::Unauthenticated | Code::PermissionDenied => {
            "grant the user everything below the prefix /registry/"
        }
        Code::InvalidArgument if says("authentication failed") => {
            "put the user's name and password into the file that --etcd-auth-file names"
        }
        Code::InvalidArgument if says("user name is empty") => {
            "it wants to know who asks: name a user with --etcd-auth-file or --etcd-certfile"
        }
        Code::Unavailable | Code::DeadlineExceeded if says("no leader") || says("timed out") => {
            "most of its members have to be up and reach each other"
        }
        Code::DataLoss => "its members disagree; restore it from a backup",
        Code::Unknown | Code::Unimplemented | Code::Internal => {
            "is it etcd that listens there, of version 3.4 or later?"
        }
        _ => return StoreError::Unavailable(format!("etcd at {place}: {message}").into()),
    };
    StoreError::Unavailable(format!("etcd at {place}: {message}; {advice}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_against_what() {
        let cases = [
            (Code::Unavailable, "etcdserver: no leader", Remedy::Elsewhere),
            (Code::Unavailable, "etcdserver: request timed out", Remedy::ElsewhereIfRepeatable),
            (Code::Unavailable, "the etcd broke off", Remedy::ElsewhereIfRepeatable),
            (Code::DeadlineExceeded, "", Remedy::ElsewhereIfRepeatable),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Remedy::Login),
            (Code::InvalidArgument, "etcdserver: user name is empty", Remedy::Login),
            (Code::InvalidArgument, "etcdserver: request is too large", Remedy::None),
            (Code::NotFound, "etcdserver: requested lease not found", Remedy::Lease),
            (Code::ResourceExhausted, "grpc: received message larger than max", Remedy::Less),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Remedy::None),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Remedy::Anew,
            ),
            (Code::PermissionDenied, "etcdserver: permission denied", Remedy::None),
        ];
        for (code, message, expected) in cases {
            assert_eq!(remedy(&Status::new(code, message)), expected, "{code:?} {message}");
        }
    }

    #[test]
    fn people_are_told_the_place_the_cause_and_what_to_do() {
        let cases = [
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                "etcd at a:1: etcdserver: mvcc: database space exceeded; it is full: compact and \
                 defragment it (etcdctl compact, defrag) or give it a larger --quota-backend-bytes, \
                 then etcdctl alarm disarm",
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                "etcd at a:1: etcdserver: permission denied; grant the user everything below the \
                 prefix /registry/",
            ),
            (
                Code::Unavailable,
                "no etcd at a:1: nobody listens there",
                "etcd at a:1: no etcd at a:1: nobody listens there",
            ),
        ];
        for (code, message, expected) in cases {
            let told = explain(&Status::new(code, message), "a:1");
            assert!(
                matches!(&told, StoreError::Unavailable(text) if **text == *expected),
                "{told}"
            );
        }
        let large = Status::new(Code::InvalidArgument, "etcdserver: request is too large");
        assert!(matches!(explain(&large, "a:1"), StoreError::TooLarge(_)));
    }
}
