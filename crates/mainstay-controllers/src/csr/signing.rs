//! What is approved is signed, as far as the signer of a request is one of the three that are here.
//!
//! Source: `pkg/controller/certificates/signer/signer.go`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use mainstay_client::CallError;
use mainstay_pki::{RequestFacts, SignError};

use super::{
    CLIENT, KUBELET_CLIENT, KUBELET_SERVING, client_error, is, is_issued, serving_error,
    set_condition, usages, write,
};
use crate::context::Context;
use crate::informer::{Informer, ObjectKey};
use crate::queue::Queue;

/// The shortest life that can be asked for. Source: `duration`.
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);

/// What is to be done about a request.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It is not approved, or is done, or another one's to sign.
    Leave,
    /// It is signed, for so long.
    Sign(SignedDuration),
    /// It is not what this signer signs.
    Fail(String),
}

/// `longest` is for how long certificates are good that nobody asks for shorter.
fn decide(request: &CertificateSigningRequest, longest: SignedDuration) -> Verdict {
    let approved = is(request, "Approved") && !is(request, "Denied") && !is(request, "Failed");
    let signer = request.spec.signer_name.as_str();
    if !approved
        || is_issued(request)
        || ![CLIENT, KUBELET_CLIENT, KUBELET_SERVING].contains(&signer)
    {
        return Verdict::Leave;
    }
    let Ok(facts) = RequestFacts::read(&request.spec.request.0) else {
        return Verdict::Fail("the request cannot be read".to_owned());
    };
    let usages = usages(request);
    let wrong = match signer {
        KUBELET_CLIENT => client_error(&facts, usages),
        KUBELET_SERVING => serving_error(&facts, usages),
        _ => any_client_error(usages),
    };
    if let Some(why) = wrong {
        return Verdict::Fail(why);
    }
    let asked = request.spec.expiration_seconds.map(|it| SignedDuration::from_secs(it.into()));
    Verdict::Sign(asked.map_or(longest, |asked| asked.max(SHORTEST).min(longest)))
}

/// Source: `validAPIServerClientUsages`.
fn any_client_error(usages: &[String]) -> Option<String> {
    const KNOWN: [&str; 3] = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|it| !KNOWN.contains(&it.as_str())) {
        return Some(format!("invalid usage for client certificate: {other}"));
    }
    let client = usages.iter().any(|it| it == "client auth");
    (!client).then(|| "missing required usage for client certificate: client auth".to_owned())
}

pub(crate) async fn run(context: Context) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let queue = Arc::new(Queue::new("csr_signing"));
    let _fed =
        requests.feed(&queue, |change| change.new.map(|it| ObjectKey::of(&it.metadata).name));
    requests.complete().await;
    queue.work(1, |name| sync(&context, &requests, name)).await;
}

async fn sync(
    context: &Context,
    requests: &Informer<CertificateSigningRequest>,
    name: String,
) -> Result<Option<Duration>, CallError> {
    let Some(request) = requests.get(&ObjectKey::new("", &name)) else { return Ok(None) };
    // Without an authority somebody else signs.
    let Some(authority) = &context.facts.authority else { return Ok(None) };
    let failed = match decide(&request, context.facts.signing_duration) {
        Verdict::Leave => return Ok(None),
        Verdict::Fail(why) => why,
        Verdict::Sign(life) => {
            let spec = &request.spec;
            match authority.sign(&spec.request.0, usages(&request), life, Timestamp::now()) {
                Ok(certificate) => {
                    let certificate = STANDARD.encode(certificate);
                    write(context, &request, "status", |status| {
                        status["certificate"] = certificate.into();
                    })
                    .await?;
                    return Ok(None);
                }
                Err(SignError::Unfit(why)) => why.to_owned(),
                Err(SignError::Failed(error)) => {
                    return Err(CallError::refused(format!("signing {name}: {error}")));
                }
            }
        }
    };
    write(context, &request, "status", |status| {
        set_condition(status, "Failed", "SignerValidationFailure", &failed);
    })
    .await
    .map(|()| None)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Asked, approved};
    use super::*;

    const LONGEST: SignedDuration = SignedDuration::from_hours(100);

    #[test]
    fn what_is_signed_and_for_how_long() {
        let node = || Asked::of_node("n1");
        let sign = Verdict::Sign;
        let hours = SignedDuration::from_hours;
        assert_eq!(decide(&node().request(), LONGEST), Verdict::Leave);
        assert_eq!(decide(&approved(node().request()), LONGEST), sign(LONGEST));
        for (seconds, life) in [(3600, hours(1)), (1, SHORTEST), (i32::MAX, LONGEST)] {
            let mut request = approved(node().request());
            request.spec.expiration_seconds = Some(seconds);
            assert_eq!(decide(&request, LONGEST), sign(life), "{seconds}");
        }
        // Shorter than the shortest, if that is all there is.
        let mut request = approved(node().request());
        request.spec.expiration_seconds = Some(600);
        let short = SignedDuration::from_secs(5);
        assert_eq!(decide(&request, short), sign(short));
    }

    #[test]
    fn what_is_not_signed() {
        let fails = |asked: Asked, why: &str| {
            let verdict = decide(&approved(asked.request()), LONGEST);
            assert_eq!(verdict, Verdict::Fail(why.to_owned()));
        };
        let node = || Asked::of_node("n1");
        fails(Asked { organization: "devs", ..node() }, "subject organization is not system:nodes");
        fails(Asked { names: &["n1"], ..node() }, "DNS subjectAltNames are not allowed");
        fails(Asked { names: &["10.0.0.7"], ..node() }, "IP subjectAltNames are not allowed");
        fails(
            Asked { usages: &["server auth", "digital signature"], ..node() },
            "usages did not match [client auth digital signature key encipherment]",
        );
        fails(
            Asked {
                signer: KUBELET_SERVING,
                usages: &["server auth", "digital signature"],
                ..node()
            },
            "DNS or IP subjectAltName is required",
        );
        fails(
            Asked { signer: CLIENT, usages: &["server auth"], ..node() },
            "invalid usage for client certificate: server auth",
        );
        fails(
            Asked { signer: CLIENT, usages: &["digital signature"], ..node() },
            "missing required usage for client certificate: client auth",
        );
        let other = Asked { signer: "example.com/own", ..node() };
        assert_eq!(decide(&approved(other.request()), LONGEST), Verdict::Leave);
    }
}
