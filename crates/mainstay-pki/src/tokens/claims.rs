//! What a token says.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use super::TokenError;

/// How far apart the clocks of those who write and check a token may be.
/// Source: `DefaultLeeway` of `go-jose/jwt`.
const LEEWAY: SignedDuration = SignedDuration::from_mins(1);

/// An audience: the URL or name of a server that a token is for.
pub type Audience = String;

/// What a token says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Claims {
    /// Whom it is for.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<Audience>,
    /// When it ends, in seconds since 1970.
    #[serde(default, deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// When it was made.
    #[serde(default, deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub iss: String,
    /// Which one it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What Kubernetes says.
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// When it begins.
    #[serde(default, deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Who may use it: `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sub: String,
}

/// What Kubernetes says in a token.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct KubernetesClaims {
    /// Of the service account, and of the pod or the secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The node of the pod; or the node that the token is bound to, if there is no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// The pod that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// The secret that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    /// The service account.
    #[serde(default)]
    pub serviceaccount: BoundObject,
    /// When to complain that the token has not been renewed.
    #[serde(default, deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object that has to be there while the token counts.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct BoundObject {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// A token that is wanted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenRequest {
    /// Who makes it.
    pub issuer: String,
    /// Whom it is for. Give the API server's own audience if nobody asked for another.
    pub audiences: Vec<Audience>,
    /// How long it counts.
    pub seconds: u64,
    /// Of the service account.
    pub namespace: String,
    /// Name and UID of the service account.
    pub service_account: BoundObject,
    /// The pod that it is bound to.
    pub pod: Option<BoundObject>,
    /// The pod's node; or the node that it is bound to, without a pod.
    pub node: Option<BoundObject>,
    /// The secret that it is bound to; without a pod or a node.
    pub secret: Option<BoundObject>,
}

/// What an API server accepts.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// Who may have made a token. The first one makes new ones.
    pub issuers: &'a [String],
    /// Whom it may be for: the server itself, or what a TokenReview asks for.
    pub audiences: &'a [Audience],
    /// The server's own audiences: whom a token without any is for.
    pub own_audiences: &'a [Audience],
}

/// A token that is genuine and counts now. That its objects are still there is for others to find out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// Those of the accepted audiences that it is for.
    pub audiences: Vec<Audience>,
}

impl TokenRequest {
    /// What the token says that is made at `now` with the random `id`.
    pub(super) fn claims(&self, id: String, now: Timestamp) -> Claims {
        let now = now.as_second();
        let seconds = i64::try_from(self.seconds).unwrap_or(i64::MAX);
        let (namespace, name) = (&self.namespace, &self.service_account.name);
        Claims {
            aud: self.audiences.clone(),
            exp: Some(now.saturating_add(seconds)),
            iat: Some(now),
            iss: self.issuer.clone(),
            jti: id,
            kubernetes: KubernetesClaims {
                namespace: namespace.clone(),
                node: self.node.clone(),
                pod: self.pod.clone(),
                secret: self.secret.clone(),
                serviceaccount: self.service_account.clone(),
                warnafter: None,
            },
            nbf: Some(now),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
        }
    }
}

impl Claims {
    /// Whether it counts at `now`, in the order and words of Kubernetes.
    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), TokenError> {
        let now = now.as_second();
        let leeway = LEEWAY.as_secs();
        if self.nbf.is_some_and(|from| from > now.saturating_add(leeway)) {
            return Err(TokenError::NotYetValid);
        }
        // A token that never ends is none that is made here.
        if self.exp.is_none_or(|end| end < now.saturating_sub(leeway)) {
            return Err(TokenError::Expired);
        }
        if self.iat.is_some_and(|made| made > now.saturating_add(leeway)) {
            return Err(TokenError::IssuedInTheFuture);
        }
        Ok(())
    }

    /// Those of the accepted audiences that it is for.
    pub(super) fn audiences(&self, accepted: &Accepted<'_>) -> Result<Vec<Audience>, TokenError> {
        let own = if self.aud.is_empty() { accepted.own_audiences } else { &self.aud };
        let both: Vec<_> =
            own.iter().filter(|it| accepted.audiences.contains(it)).cloned().collect();
        if both.is_empty() {
            return Err(TokenError::Audience {
                found: own.to_vec(),
                accepted: accepted.audiences.to_vec(),
            });
        }
        Ok(both)
    }
}

/// `"a"` is as good as `["a"]`.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    })
}

/// Whole seconds; a number with a fraction is none.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}
