//! Whether what a service account's token is bound to is still there.
//!
//! Source: `Validate` in `pkg/serviceaccount/claims.go`.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mainstay_pki::{BoundObject, Claims};

use super::user::{CREDENTIAL_ID, NODE_NAME};
use super::{Refusal, User};
use crate::object::Object;
use crate::status::Result;

/// How long something that is being deleted still counts. Source: `DefaultLeeway` of `go-jose/jwt`.
const LEEWAY: SignedDuration = SignedDuration::from_mins(1);

/// A kind of object that a token is bound to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bound {
    ServiceAccount,
    Pod,
    Node,
    Secret,
}

/// What is known of such an object.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) uid: String,
    /// Since when it is being deleted.
    pub(crate) deletion_timestamp: Option<Timestamp>,
}

/// Looks for objects.
#[async_trait]
pub(crate) trait Lookup: Send + Sync {
    /// The object of a name; `namespace` is empty for nodes.
    async fn find(&self, kind: Bound, namespace: &str, name: &str) -> Result<Option<Found>>;

    /// The Secret of this name that may know of a bootstrap token.
    async fn bootstrap_secret(&self, name: &str) -> Result<Option<Object>>;
}

/// The user that a genuine token is of.
pub(super) async fn user(
    claims: &Claims,
    lookup: &dyn Lookup,
    now: Timestamp,
) -> std::result::Result<User, Refusal> {
    let said = &claims.kubernetes;
    let (namespace, account) = (said.namespace.as_str(), &said.serviceaccount);
    check(Bound::ServiceAccount, namespace, account, lookup, now).await?;
    if let Some(secret) = &said.secret {
        check(Bound::Secret, namespace, secret, lookup, now).await?;
    }
    if let Some(pod) = &said.pod {
        check(Bound::Pod, namespace, pod, lookup, now).await?;
    }
    // Of a pod's token, the node is only told.
    if let (Some(node), None) = (&said.node, &said.pod) {
        check(Bound::Node, "", node, lookup, now).await?;
    }
    let mut user = User::from_service_account(namespace, &account.name, &account.uid);
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = said.pod.as_ref().filter(|pod| !pod.name.is_empty() && !pod.uid.is_empty()) {
        tell("authentication.kubernetes.io/pod-name", &pod.name);
        tell("authentication.kubernetes.io/pod-uid", &pod.uid);
    }
    if let Some(node) = said.node.as_ref().filter(|node| !node.name.is_empty()) {
        tell(NODE_NAME, &node.name);
        tell("authentication.kubernetes.io/node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        tell(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    Ok(user)
}

async fn check(
    kind: Bound,
    namespace: &str,
    object: &BoundObject,
    lookup: &dyn Lookup,
    now: Timestamp,
) -> std::result::Result<(), Refusal> {
    let BoundObject { name, uid } = object;
    let found = lookup.find(kind, namespace, name).await.map_err(Refusal::Unknown)?;
    let claimed = match kind {
        Bound::ServiceAccount => "claim",
        Bound::Pod => "service account pod ref claim",
        Bound::Node => "service account node ref claim",
        Bound::Secret => "service account secret ref claim",
    };
    let what = match kind {
        Bound::ServiceAccount => "service account",
        Bound::Pod => "pod",
        Bound::Node => "node",
        Bound::Secret => "secret",
    };
    let invalidated = "service account token has been invalidated".to_owned();
    let Some(found) = found else {
        return Err(Refusal::Token(match kind {
            Bound::ServiceAccount => format!("serviceaccounts {name:?} not found"),
            Bound::Pod | Bound::Node | Bound::Secret => invalidated,
        }));
    };
    if found.uid != *uid {
        let text = format!("{what} UID ({}) does not match {claimed} ({uid})", found.uid);
        return Err(Refusal::Token(text));
    }
    let limit = now.saturating_sub(LEEWAY).unwrap_or(Timestamp::MIN);
    if found.deletion_timestamp.is_some_and(|since| since < limit) {
        return Err(Refusal::Token(match kind {
            Bound::ServiceAccount => format!("service account {namespace}/{name} has been deleted"),
            Bound::Pod | Bound::Node | Bound::Secret => invalidated,
        }));
    }
    Ok(())
}
