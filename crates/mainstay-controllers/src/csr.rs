//! Requests for certificates: which are approved, who signs them, and when they go.
//!
//! Source: `pkg/controller/certificates`.

pub(crate) mod approving;
pub(crate) mod cleaning;
pub(crate) mod signing;

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use mainstay_client::{CallError, CallErrorKind};
use mainstay_pki::RequestFacts;
use serde_json::{Value, json};

use crate::context::Context;
use crate::informers::path;

/// Who signs what the API takes for anybody's, for a node's, and what a node's API shows.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// The organization of nodes, and what their names as users begin with.
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Whether a request has a condition.
fn is(request: &CertificateSigningRequest, kind: &str) -> bool {
    condition(request, kind).is_some()
}

fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition> {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|it| it.type_ == kind)
}

/// Whether it was approved or denied, or the signer has failed.
fn is_decided(request: &CertificateSigningRequest) -> bool {
    ["Approved", "Denied", "Failed"].iter().any(|kind| is(request, kind))
}

/// What the certificate shall be good for.
fn usages(request: &CertificateSigningRequest) -> &[String] {
    request.spec.usages.as_deref().unwrap_or_default()
}

/// Whether there is a certificate.
fn is_issued(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    status.and_then(|status| status.certificate.as_ref()).is_some_and(|it| !it.0.is_empty())
}

/// Why a request is none for a node's certificate of its client side. Source:
/// `ValidateKubeletClientCSR` in `pkg/apis/certificates/helpers.go`.
fn client_error(facts: &RequestFacts, usages: &[String]) -> Option<String> {
    if facts.subject.organizations != [NODES] {
        return Some("subject organization is not system:nodes".to_owned());
    }
    if facts.names.iter().any(|it| matches!(it, mainstay_pki::SubjectName::Dns(_))) {
        return Some("DNS subjectAltNames are not allowed".to_owned());
    }
    if !facts.names.is_empty() {
        return Some("IP subjectAltNames are not allowed".to_owned());
    }
    if facts.other_names {
        return Some("Email and URI subjectAltNames are not allowed".to_owned());
    }
    if !facts.subject.common_name.starts_with(NODE_PREFIX) {
        return Some("subject common name does not begin with system:node:".to_owned());
    }
    usages_error(usages, "client auth")
}

/// The same of its serving side. Source: `ValidateKubeletServingCSR`.
fn serving_error(facts: &RequestFacts, usages: &[String]) -> Option<String> {
    if facts.subject.organizations != [NODES] {
        return Some("subject organization is not system:nodes".to_owned());
    }
    if facts.names.is_empty() {
        return Some("DNS or IP subjectAltName is required".to_owned());
    }
    if facts.other_names {
        return Some("Email and URI subjectAltNames are not allowed".to_owned());
    }
    if let Some(why) = usages_error(usages, "server auth") {
        return Some(why);
    }
    let named = facts.subject.common_name.starts_with(NODE_PREFIX);
    (!named).then(|| "subject common name does not begin with system:node:".to_owned())
}

/// Keys that only sign need no encipherment.
fn usages_error(usages: &[String], auth: &str) -> Option<String> {
    let found: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let least = BTreeSet::from(["digital signature", auth]);
    let most = BTreeSet::from(["digital signature", "key encipherment", auth]);
    let fits = found == least || found == most;
    (!fits).then(|| format!("usages did not match [{auth} digital signature key encipherment]"))
}

/// Writes into a request, as it is now, what `change` makes of its status; `part` is the subresource.
/// Nothing if it is another one by now, or has a certificate.
async fn write(
    context: &Context,
    request: &CertificateSigningRequest,
    part: &str,
    change: impl FnOnce(&mut Value),
) -> Result<(), CallError> {
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let path = path::<CertificateSigningRequest>("", name);
    // As JSON: what this program does not know of is not lost.
    let mut object: Value = match context.calls.get(&path).await {
        Err(error) if error.kind == CallErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let same = request.metadata.uid.as_deref() == object["metadata"]["uid"].as_str();
    if !same || object["status"]["certificate"].is_string() {
        return Ok(());
    }
    change(&mut object["status"]);
    match context.calls.put::<Value, _>(&format!("{path}/{part}"), &object).await {
        Err(error) if error.kind != CallErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts a condition in the place of the one of its kind.
fn set_condition(status: &mut Value, kind: &str, reason: &str, message: &str) {
    let condition = json!({ "type": kind, "status": "True", "reason": reason, "message": message });
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    conditions.retain(|it| it["type"] != kind);
    conditions.push(condition);
}

#[cfg(test)]
mod tests;
