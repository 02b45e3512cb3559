//! Who may ask the node's API: the Kubernetes API knows.
//!
//! Source: the kubelet's webhook mode, `pkg/kubelet/server/auth.go`.

use async_trait::async_trait;
use jiff::Timestamp;
use mainstay_apiserver::{MASTERS, User as Known};
use mainstay_client::Calls;
use mainstay_node::node_api::{NodeAuth, Unauthenticated, User};
use mainstay_pki::ClientCertificate;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

/// Asks the API that the node belongs to.
pub(super) struct ApiAuth {
    calls: Calls,
    node: String,
}

impl ApiAuth {
    pub(super) fn new(calls: Calls, node: &str) -> Self {
        Self { calls, node: node.to_owned() }
    }

    /// Asks a question of a kind that is answered at once.
    async fn review(&self, path: &str, review: &Value) -> Result<Value, String> {
        self.calls.post(path, review).await.map_err(|error| error.message)
    }
}

#[async_trait]
impl NodeAuth for ApiAuth {
    async fn authenticate(
        &self,
        certificates: Option<&[CertificateDer<'static>]>,
        bearer: Option<&str>,
    ) -> Result<User, Unauthenticated> {
        if let Some(own) = certificates.and_then(<[_]>::first) {
            // TLS has held it against the authority.
            let read =
                ClientCertificate::read(own).map_err(|error| Unauthenticated(error.to_string()))?;
            let user = Known::of_certificate(&read, Timestamp::now());
            return user.map(from_api).ok_or_else(|| {
                Unauthenticated("the certificate names nobody, or its time is over".to_owned())
            });
        }
        let Some(token) = bearer else { return Ok(from_api(Known::anonymous())) };
        let review = json!({ "spec": { "token": token } });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let answer = self.review(path, &review).await.map_err(Unauthenticated)?;
        let status = &answer["status"];
        if status["authenticated"] != true {
            let why = status["error"].as_str().unwrap_or("the token is not good");
            return Err(Unauthenticated(why.to_owned()));
        }
        let text = |key: &str| status["user"][key].as_str().unwrap_or_default().to_owned();
        let texts = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.filter_map(|it| it.as_str().map(str::to_owned)).collect()
        };
        let extra = status["user"]["extra"].as_object().into_iter().flatten();
        Ok(User {
            name: text("username"),
            uid: text("uid"),
            groups: texts(&status["user"]["groups"]),
            extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
        })
    }

    async fn authorize(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String> {
        // Also while the API cannot be asked.
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(true);
        }
        let review = json!({
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
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = self.review(path, &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }
}

/// As the node knows users, which does not know the API server.
fn from_api(user: Known) -> User {
    let Known { name, uid, groups, extra } = user;
    User { name, uid, groups, extra }
}
