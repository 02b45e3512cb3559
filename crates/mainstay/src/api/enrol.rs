//! A node's certificates at an API that is not its own: those that there are, and asking for others with a
//! CertificateSigningRequest.
//!
//! Source: `staging/src/k8s.io/client-go/util/certificate/csr/csr.go`.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mainstay_client::{CallError, CallErrorKind, Calls};
use mainstay_pki::{
    Identity, JoinToken, Leaf, NodeCertificate, NodeCredentials, Reason, Renewal, Usage,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::blocking;

const COLLECTION: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// How long an answer is waited for, before somebody is told why there is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest wait between two looks.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How long a certificate that was just made is left alone, if its life is long enough.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long certificates are left alone at least.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// Who asks for a certificate.
pub(super) struct Asker {
    pub(super) calls: Calls,
    /// The token that it asks with. The request is then the token's own: another one may be let in where this
    /// one was not.
    pub(super) token: Option<JoinToken>,
    /// What to do when the API does not know who asks.
    pub(super) remedy: &'static str,
}

/// Work on the node's files and keys, which is not for those who start pods.
pub(super) async fn on_disk<T: Send + 'static>(
    credentials: &NodeCredentials,
    work: impl FnOnce(&NodeCredentials) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let credentials = credentials.clone();
    blocking(move || work(&credentials)).await
}

/// How a node shows itself to its API.
pub(super) fn client_leaf(node_name: &str) -> Leaf {
    Leaf {
        common_name: format!("system:node:{node_name}"),
        organization: Some("system:nodes".to_owned()),
        usage: Usage::Client,
        names: std::collections::BTreeSet::new(),
    }
}

/// What there is of a certificate.
pub(super) async fn look(
    credentials: &NodeCredentials,
    which: NodeCertificate,
    wanted: Leaf,
) -> anyhow::Result<Option<(Identity, Renewal)>> {
    on_disk(credentials, move |it| Ok(it.identity(which, &wanted, Timestamp::now())?)).await
}

/// Asks for one that the API signs; it is not kept yet.
///
/// # Errors
///
/// When it is refused, or not approved yet: then the same can be asked again.
pub(super) async fn ask(
    credentials: &NodeCredentials,
    which: NodeCertificate,
    wanted: Leaf,
    asker: &Asker,
) -> anyhow::Result<String> {
    let token = asker.token.clone();
    let request = move |it: &NodeCredentials| Request::new(it, which, &wanted, token.as_ref());
    on_disk(credentials, request).await?.certificate(asker).await
}

/// Whether a certificate can still be shown, if only to get the next one.
pub(super) fn is_usable(renewal: &Renewal, now: Timestamp) -> bool {
    match renewal {
        Renewal::Keep { .. } => true,
        Renewal::Issue(reason) => match reason {
            Reason::Ending(when) => *when > now,
            Reason::Names(_) | Reason::UnsetClock | Reason::NotYetValid => true,
            Reason::OtherAuthority
            | Reason::OtherKey
            | Reason::OtherSubject
            | Reason::OtherUsage => false,
        },
    }
}

/// How long a new certificate is left alone that ends then. One that is not good by this machine's clock,
/// since that is not set, or the API's is not, is not asked for without end: the clock has to be mended first.
pub(super) fn pause_before(end: Timestamp, now: Timestamp) -> Duration {
    match Duration::try_from(end.duration_since(now)) {
        Ok(life) if !life.is_zero() => (life / 10).clamp(Duration::from_secs(1), LONGEST_PAUSE),
        Ok(_) | Err(_) => LONGEST_PAUSE,
    }
}

pub(super) fn wait_until(until: Timestamp, longest: Duration) -> Duration {
    let wait = until.duration_since(Timestamp::now());
    Duration::try_from(wait).unwrap_or_default().clamp(SHORTEST_PAUSE, longest)
}

/// A request that is or will be at the API.
struct Request {
    name: String,
    object: Value,
}

impl Request {
    /// The one that was not answered yet, or a new one.
    fn new(
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
    async fn certificate(self, asker: &Asker) -> anyhow::Result<String> {
        let path = format!("{COLLECTION}/{}", self.name);
        let (deadline, mut wait) = (Instant::now() + PATIENCE, FIRST_WAIT);
        loop {
            let found = match asker.calls.get::<Value>(&path).await {
                Err(error) if error.kind == CallErrorKind::NotFound => {
                    asker.calls.post::<Value, _>(COLLECTION, &self.object).await
                }
                other => other,
            };
            let found = found.map_err(|error| explain(error, asker.remedy))?;
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
fn explain(error: CallError, remedy: &str) -> anyhow::Error {
    match error.answer.as_str() {
        "Unauthorized" => anyhow!(
            "the API does not take the token or certificate that this node has: it may have expired, \
             been revoked, or be another API's; {remedy}"
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
    fn a_new_certificate_is_left_alone_for_a_part_of_its_life() {
        let now = Timestamp::UNIX_EPOCH;
        for (life, pause) in [
            (86_400, 60),
            (600, 60),
            (40, 4),
            (5, 1),
            // It has ended by this machine's clock.
            (0, 60),
            (-1, 60),
            (-86_400, 60),
        ] {
            let end = Timestamp::from_second(life).unwrap();
            assert_eq!(pause_before(end, now), Duration::from_secs(pause), "{life}");
        }
    }

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
