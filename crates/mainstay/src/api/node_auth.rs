//! Who may ask the node's API: the Kubernetes API knows.
//!
//! Source: the kubelet's webhook mode, `pkg/kubelet/server/auth.go`.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use mainstay_apiserver::{MASTERS, User as Known};
use mainstay_node::node_api::{NodeAuth, Unauthenticated, User};
use mainstay_pki::ClientCertificate;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::LateApi;

/// How long the API may take to say who somebody is or what he may do.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Asks the embedded API.
pub(super) struct ApiAuth {
    api: LateApi,
}

impl ApiAuth {
    pub(super) fn new(api: LateApi) -> Self {
        Self { api }
    }

    /// Asks a question of a kind that is answered at once.
    async fn review(&self, path: &str, review: &Value) -> Result<Value, String> {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(review.to_string())))
            .map_err(|error| error.to_string())?;
        let asked = async {
            let response = self.api.send(request).await.map_err(|it| it.to_string())?;
            let status = response.status();
            // Of this process's own making, and so of a size that fits.
            let body = response.into_body().collect().await;
            let bytes = body.map_err(|error| error.to_string())?.to_bytes();
            match status {
                StatusCode::CREATED => {
                    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
                }
                _ => Err(String::from_utf8_lossy(&bytes).into_owned()),
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err("the Kubernetes API does not answer".to_owned()),
        }
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
