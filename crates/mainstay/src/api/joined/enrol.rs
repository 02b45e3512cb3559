//! Asking for a certificate: a CertificateSigningRequest, and the wait for its answer.
//!
//! Source: `staging/src/k8s.io/client-go/util/certificate/csr/csr.go`.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mainstay_client::{CallError, CallErrorKind, Calls};
use mainstay_pki::{JoinToken, Leaf, NodeCertificate, NodeCredentials};
use serde_json::{Value, json};
use tokio::time::Instant;

const COLLECTION: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// How long an answer is waited for, before somebody is told why there is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest wait between two looks.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A request that is or will be at the API.
pub(super) struct Request {
    name: String,
    object: Value,
}

impl Request {
    /// The one that was not answered yet, or a new one. With a token it is the token's own: another one
    /// may be let in where this one was not.
    pub(super) fn new(
        credentials: &NodeCredentials,
        which: NodeCertificate,
        wanted: &Leaf,
        token: Option<&JoinToken>,
    ) -> anyhow::Result<Self> {
        let asked = credentials.request(which, wanted)?;
        let (prefix, signer, usage) = match which {
            NodeCertificate::Client => {
                ("node-csr-", "kubernetes.io/kube-apiserver-client-kubelet", "client auth")
            }
            NodeCertificate::Serving => {
                ("csr-serving-", "kubernetes.io/kubelet-serving", "server auth")
            }
        };
        let suffix = token.map(|token| format!("-{}", token.id())).unwrap_or_default();
        let name = format!("{prefix}{}{suffix}", asked.digest);
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": name },
            "spec": {
                "request": STANDARD.encode(asked.pem),
                "signerName": signer,
                "usages": ["digital signature", usage],
            },
        });
        Ok(Self { name, object })
    }

    /// The certificate, in PEM.
    ///
    /// # Errors
    ///
    /// When it is refused, or not approved yet: then the same can be asked again.
    pub(super) async fn certificate(self, calls: &Calls) -> anyhow::Result<String> {
        let path = format!("{COLLECTION}/{}", self.name);
        let (deadline, mut wait) = (Instant::now() + PATIENCE, FIRST_WAIT);
        loop {
            let found = match calls.get::<Value>(&path).await {
                Err(error) if error.kind == CallErrorKind::NotFound => {
                    calls.post::<Value, _>(COLLECTION, &self.object).await
                }
                other => other,
            };
            let found = found.map_err(explain)?;
            match answer(&found) {
                Answer::Certificate(encoded) => {
                    let bytes = STANDARD.decode(encoded).context("the answer is not base64")?;
                    return String::from_utf8(bytes).context("the answer is not PEM");
                }
                // It stays so until somebody deletes it, an hour later at the latest.
                Answer::Refused(why) => {
                    bail!("the certificate request {} was refused: {why}", self.name);
                }
                Answer::Waiting(why) if Instant::now() >= deadline => {
                    bail!("the certificate request {} waits: {why}", self.name);
                }
                Answer::Waiting(_) => {}
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// What has become of a request.
#[derive(Debug, PartialEq)]
enum Answer<'a> {
    Certificate(&'a str),
    Refused(String),
    /// And why.
    Waiting(String),
}

fn answer(request: &Value) -> Answer<'_> {
    let status = &request["status"];
    let condition = |kind: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().find(|it| it["type"] == kind)
    };
    let message = |it: &Value| {
        let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
        let (reason, message) = (text("reason"), text("message"));
        if message.is_empty() { reason } else { message }
    };
    if let Some(refused) = condition("Denied").or_else(|| condition("Failed")) {
        return Answer::Refused(message(refused));
    }
    match status["certificate"].as_str() {
        Some(encoded) if !encoded.is_empty() => return Answer::Certificate(encoded),
        _ => {}
    }
    Answer::Waiting(match (condition("Approved"), condition("Held")) {
        (Some(_), _) => "it is approved, and nobody has signed it".to_owned(),
        (None, Some(held)) => message(held),
        (None, None) => "nobody has approved it; `kubectl certificate approve` does".to_owned(),
    })
}

/// What the operator can do about a request that failed.
fn explain(error: CallError) -> anyhow::Error {
    match error.answer.as_str() {
        "Unauthorized" => anyhow!(
            "the API does not take the token or certificate that this node has: it may have expired, \
             been revoked, or be another API's; `mainstay token create`, on the machine with the \
             API, makes a new token"
        ),
        _ if error.message.contains("not valid for name") => anyhow!(
            "{}; the API has to be started with --tls-san for this name, or be asked by another one",
            error.message
        ),
        _ => anyhow!(error.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_request() {
        let of = |status: Value| match answer(&json!({ "status": status })) {
            Answer::Certificate(encoded) => format!("certificate {encoded}"),
            Answer::Refused(why) => format!("refused {why}"),
            Answer::Waiting(why) => format!("waiting {why}"),
        };
        let condition = |kind: &str, reason: &str, message: &str| json!({ "type": kind, "reason": reason, "message": message });
        let nobody = "waiting nobody has approved it; `kubectl certificate approve` does";
        assert_eq!(of(Value::Null), nobody);
        let approved = of(json!({ "conditions": [condition("Approved", "", "")] }));
        assert_eq!(approved, "waiting it is approved, and nobody has signed it");
        let held = json!({ "conditions": [condition("Held", "NodeExists", "there is one")] });
        assert_eq!(of(held), "waiting there is one");
        let denied = json!({ "conditions": [condition("Denied", "KubectlDeny", "")] });
        assert_eq!(of(denied), "refused KubectlDeny");
        let failed =
            json!({ "conditions": [condition("Approved", "", ""), condition("Failed", "", "no")] });
        assert_eq!(of(failed), "refused no");
        let issued =
            json!({ "conditions": [condition("Approved", "", "")], "certificate": "AAAA" });
        assert_eq!(of(issued), "certificate AAAA");
    }
}
