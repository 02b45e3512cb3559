//! Who asks for a certificate, who may say that it is made, and who may make it.
//!
//! Source: `plugin/pkg/admission/certificates/{approval,signing,subjectrestriction}`, and
//! `PrepareForCreate` of `pkg/registry/certificates/certificates/strategy.go`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{Attributes, Operation};
use crate::authn::MASTERS;
use crate::authz::{self, Decision};
use crate::object::Object;
use crate::server::Inner;
use crate::status::Result;

const GROUP: &str = "certificates.k8s.io";

/// The signer whose certificates the server takes for anybody's.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn is_request(attributes: &Attributes<'_>) -> bool {
    (attributes.resource.group, attributes.resource.plural) == (GROUP, "certificatesigningrequests")
}

/// Writes into a new request who makes it, whatever it says.
pub(super) fn admit(attributes: &Attributes<'_>, new: &mut Object) {
    if !is_request(attributes) || attributes.operation != Operation::Create {
        return;
    }
    let user = attributes.user;
    let spec = new.field_mut("spec");
    for key in ["username", "uid", "groups", "extra"] {
        spec.remove(key);
    }
    let extra: Map<String, Value> =
        user.extra.iter().map(|(key, values)| (key.clone(), values.clone().into())).collect();
    let fields = [
        ("username", Value::from(user.name.as_str()), user.name.is_empty()),
        ("uid", user.uid.as_str().into(), user.uid.is_empty()),
        ("groups", user.groups.clone().into(), user.groups.is_empty()),
        ("extra", extra.into(), user.extra.is_empty()),
    ];
    for (key, value, _) in fields.into_iter().filter(|(.., empty)| !empty) {
        spec.insert(key.into(), value);
    }
}

/// Judges a request, an approval or a certificate.
pub(super) fn validate(
    server: &Inner,
    attributes: &Attributes<'_>,
    new: Option<&Object>,
    old: Option<&Object>,
) -> Result<()> {
    let Some(new) = new.filter(|_| is_request(attributes)) else { return Ok(()) };
    if attributes.operation == Operation::Create {
        return no_masters(attributes, new);
    }
    let Some(old) = old else { return Ok(()) };
    let verb = match attributes.subresource {
        "approval" => "approve",
        "status" if new.0.get("status") != old.0.get("status") => "sign",
        _ => return Ok(()),
    };
    let signer = old.str_at(&["spec", "signerName"]);
    let domain = signer.split('/').next().unwrap_or_default();
    let allowed = [signer, &format!("{domain}/*")].into_iter().any(|name| {
        let asked = authz::Attributes {
            user: attributes.user,
            verb,
            group: GROUP,
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            path: "",
            is_resource: true,
            fields: &[],
            labels: &[],
        };
        matches!(server.decide(&asked), Decision::Allow(_))
    });
    match allowed {
        true => Ok(()),
        false => Err(attributes.forbidden(format!(
            "user not permitted to {verb} requests with signerName {signer:?}"
        ))),
    }
}

/// Nobody is made one who may do everything by a certificate that others sign without looking.
fn no_masters(attributes: &Attributes<'_>, new: &Object) -> Result<()> {
    if new.str_at(&["spec", "signerName"]) != CLIENT_SIGNER {
        return Ok(());
    }
    let request = STANDARD.decode(new.str_at(&["spec", "request"])).unwrap_or_default();
    let groups = mainstay_pki::request_subject(&request).map(|subject| subject.organizations);
    match groups.unwrap_or_default().iter().any(|group| group == MASTERS) {
        true => Err(attributes.forbidden(format!(
            "use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
        ))),
        false => Ok(()),
    }
}
