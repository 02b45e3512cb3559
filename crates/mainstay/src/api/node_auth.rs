//! Who may ask the node's API: the Kubernetes API knows.
//!
//! Source: the kubelet's webhook mode, `pkg/kubelet/server/auth.go`, `cmd/kubelet/app/auth.go`.

mod answers;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use jiff::Timestamp;
use mainstay_apiserver::{MASTERS, User as Known};
use mainstay_client::Calls;
use mainstay_node::node_api::{NodeAuth, Unauthenticated, User};
use mainstay_pki::ClientCertificate;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use self::answers::Answers;
use super::tls::client_ca::Clients;
use crate::config::NodeAuthSettings;

/// Asks the API that the node belongs to.
pub(super) struct ApiAuth {
    calls: Calls,
    node: String,
    settings: NodeAuthSettings,
    held: Held,
    /// Whose a token is, or why it is nobody's.
    tokens: Answers<String, Result<User, Unauthenticated>>,
    /// Whether somebody may do something with a part of the node.
    permissions: Answers<Permission, bool>,
}

/// Who holds the certificates that clients show against an authority.
pub(super) enum Held {
    /// TLS does: who shows another authority's has no connection.
    ByTls,
    /// This does, with each request. Without anything to hold them against, they are nobody's.
    Here(Option<Arc<Clients>>),
}

/// What is asked: a review, as JSON.
type Permission = String;

impl ApiAuth {
    pub(super) fn new(calls: Calls, node: &str, settings: NodeAuthSettings, held: Held) -> Self {
        let (tokens, permissions) = (Answers::default(), Answers::default());
        Self { calls, node: node.to_owned(), settings, held, tokens, permissions }
    }

    /// Whose a certificate is, which came with others.
    fn of_certificate(&self, chain: &[CertificateDer<'static>]) -> Result<User, Unauthenticated> {
        let not = |why: String| Unauthenticated(format!("the certificate is not good: {why}"));
        if let Held::Here(clients) = &self.held {
            let clients =
                clients.as_ref().ok_or_else(|| not("there is no authority".to_owned()))?;
            clients.verify(chain).map_err(|error| not(error.to_string()))?;
        }
        let own = chain.first().ok_or_else(|| not("there is none".to_owned()))?;
        let read = ClientCertificate::read(own).map_err(|error| not(error.to_string()))?;
        let user = Known::of_certificate(&read, Timestamp::now());
        user.map(from_api).ok_or_else(|| not("it names nobody, or its time is over".to_owned()))
    }

    /// Asks a question of a kind that is answered at once.
    async fn review(&self, path: &str, review: &Value) -> Result<Value, String> {
        self.calls.post(path, review).await.map_err(|error| error.message)
    }

    /// Asks whose a token is. An error is that nobody knows.
    async fn review_token(&self, token: &str) -> Result<Result<User, Unauthenticated>, String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token },
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        whose(&self.review(path, &review).await?["status"])
    }
}

/// Whose a token is by the status of its review. An error is that nobody could tell: it may be otherwise with
/// the next question, and nothing is to be remembered. Source: `AuthenticateToken` in
/// `staging/src/k8s.io/apiserver/plugin/pkg/authenticator/token/webhook/webhook.go`, `cacheErrs` in
/// `pkg/authentication/token/cache/cached_token_authenticator.go` beside it.
fn whose(status: &Value) -> Result<Result<User, Unauthenticated>, String> {
    if status["authenticated"] != true {
        return match status["error"].as_str() {
            Some(why) if !why.is_empty() => Err(why.to_owned()),
            _ => Ok(Err(Unauthenticated("the token is not good".to_owned()))),
        };
    }
    let text = |key: &str| status["user"][key].as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|it| it.as_str().map(str::to_owned)).collect()
    };
    let extra = status["user"]["extra"].as_object().into_iter().flatten();
    Ok(Ok(User {
        name: text("username"),
        uid: text("uid"),
        groups: texts(&status["user"]["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    }))
}

#[async_trait]
impl NodeAuth for ApiAuth {
    async fn authenticate(
        &self,
        certificates: Option<&[CertificateDer<'static>]>,
        bearer: Option<&str>,
    ) -> Result<User, Unauthenticated> {
        // Who is nobody by a certificate may be somebody by a token, and is not anonymous else. Source: `New`
        // of `DelegatingAuthenticatorConfig`.
        let shown = certificates.filter(|chain| !chain.is_empty());
        let refused = match shown.map(|chain| self.of_certificate(chain)) {
            Some(Ok(user)) => return Ok(user),
            Some(Err(refused)) => Some(refused),
            None => None,
        };
        let Some(token) = bearer.filter(|_| self.settings.tokens) else {
            return match (refused, bearer) {
                (Some(refused), _) => Err(refused),
                (None, Some(_)) => Err(Unauthenticated("tokens are of no use here".to_owned())),
                (None, None) if self.settings.anonymous => Ok(from_api(Known::anonymous())),
                (None, None) => {
                    Err(Unauthenticated("neither a certificate nor a token was shown".to_owned()))
                }
            };
        };
        if let Some(known) = self.tokens.get(token, Instant::now()) {
            return known;
        }
        let answer = self.review_token(token).await.map_err(Unauthenticated)?;
        let holds = self.settings.cached.token;
        self.tokens.put(token.to_owned(), answer.clone(), holds, Instant::now());
        answer
    }

    async fn authorize(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String> {
        // The last ones also while the API cannot be asked. Source: `privilegedGroups` of
        // `DelegatingAuthorizerConfig`.
        if self.settings.always_allows || user.groups.iter().any(|group| group == MASTERS) {
            return Ok(true);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "uid": user.uid,
                "groups": user.groups,
                "extra": user.extra,
                "resourceAttributes": {
                    "verb": verb,
                    "group": "",
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": subresource,
                    "name": self.node,
                },
            },
        });
        let asked = review.to_string();
        if let Some(known) = self.permissions.get(&asked, Instant::now()) {
            return Ok(known);
        }
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let allowed = self.review(path, &review).await?["status"]["allowed"] == true;
        let cached = self.settings.cached;
        let holds = if allowed { cached.authorized } else { cached.unauthorized };
        self.permissions.put(asked, allowed, holds, Instant::now());
        Ok(allowed)
    }
}

/// As the node knows users, which does not know the API server.
fn from_api(user: Known) -> User {
    let Known { name, uid, groups, extra } = user;
    User { name, uid, groups, extra }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use mainstay_pki::{Pki, Wanted};
    use tokio::sync::watch;

    use super::*;
    use crate::api::remote::late_client;

    #[tokio::test]
    async fn nobody_is_known_by_a_certificate_of_another_authority() {
        let directory = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| {
            let path = directory.path().join(name);
            Pki::open(&path, &Wanted::default(), Timestamp::now()).unwrap().0
        });
        let file = directory.path().join("ca.crt");
        let (_remote, there) = watch::channel(None);
        let calls = Calls::new(late_client(there), "test");
        let authorities = own.authority().certificates_pem().to_owned();
        let settings = NodeAuthSettings { anonymous: true, ..NodeAuthSettings::default() };
        let auth = ApiAuth::new(calls, "n1", settings, Held::Here(Some(Clients::of(&file))));
        // What the API has said of two tokens.
        let user = |name: &str| User { name: name.to_owned(), ..from_api(Known::anonymous()) };
        let (bad, hour) = (Unauthenticated("bad token".to_owned()), Duration::from_hours(1));
        auth.tokens.put("good".to_owned(), Ok(user("somebody")), hour, Instant::now());
        auth.tokens.put("bad".to_owned(), Err(bad), hour, Instant::now());
        let [own, other] = [own, other].map(|pki| vec![pki.admin().certificate().clone()]);
        let ask = async |chain: Option<&Vec<_>>, token| match auth
            .authenticate(chain.map(Vec::as_slice), token)
            .await
        {
            Ok(user) => user.name,
            Err(Unauthenticated(why)) => format!("refused: {why}"),
        };
        let not_good = "refused: the certificate is not good";
        let early = ask(Some(&own), None).await;
        assert!(early.starts_with(not_good), "{early}");
        fs::write(&file, authorities).unwrap();
        let admin = ask(Some(&own), None).await;
        assert_eq!(ask(Some(&own), Some("good")).await, admin);
        for (chain, token, expected) in [
            (Some(&own), None, "kubernetes-admin"),
            (Some(&own), Some("bad"), "kubernetes-admin"),
            (Some(&other), None, not_good),
            (Some(&other), Some("good"), "somebody"),
            (Some(&other), Some("bad"), "refused: bad token"),
            (Some(&Vec::new()), None, "system:anonymous"),
            (None, None, "system:anonymous"),
            (None, Some("good"), "somebody"),
        ] {
            let found = ask(chain, token).await;
            assert!(found.starts_with(expected), "{found}, {expected}");
        }
    }

    #[test]
    fn what_nobody_could_tell_of_a_token_is_no_answer() {
        let user = json!({ "username": "me", "groups": ["a", "b"] });
        for (status, expected) in [
            (json!({ "authenticated": true, "user": user }), "me a b"),
            // What went wrong on the way is of no importance then.
            (json!({ "authenticated": true, "user": user, "error": "slow" }), "me a b"),
            (json!({ "authenticated": false }), "refused: the token is not good"),
            (json!({ "authenticated": false, "error": "" }), "refused: the token is not good"),
            (json!({}), "refused: the token is not good"),
            (Value::Null, "refused: the token is not good"),
            (json!({ "authenticated": false, "error": "no etcd" }), "unknown: no etcd"),
            (json!({ "error": "no etcd" }), "unknown: no etcd"),
        ] {
            let found = match whose(&status) {
                Ok(Ok(user)) => format!("{} {}", user.name, user.groups.join(" ")),
                Ok(Err(Unauthenticated(why))) => format!("refused: {why}"),
                Err(why) => format!("unknown: {why}"),
            };
            assert_eq!(found, expected, "{status}");
        }
    }
}
