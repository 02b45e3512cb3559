//! Requests as nodes make them.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use mainstay_pki::{Leaf, NodeCertificate, NodeCredentials, Usage};

use super::*;

pub(super) const NOW: &str = "2027-03-04T05:06:07Z";

/// Who asks for what.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) user: &'static str,
    pub(super) signer: &'static str,
    pub(super) common_name: &'static str,
    pub(super) organization: &'static str,
    pub(super) names: &'static [&'static str],
    pub(super) usages: &'static [&'static str],
    /// The node that the token is for.
    pub(super) token_node: Option<&'static str>,
}

impl Asked {
    /// A client certificate for a node, asked for with a token.
    pub(super) fn of_node(name: &str) -> Self {
        let common_name = match name {
            "n1" => "system:node:n1",
            _ => "system:node:n2",
        };
        Self {
            user: "system:bootstrap:abcdef",
            signer: KUBELET_CLIENT,
            common_name,
            organization: NODES,
            names: &[],
            usages: &["digital signature", "client auth"],
            token_node: None,
        }
    }

    /// A serving certificate, asked for by node `n1`.
    pub(super) fn serving(names: &'static [&'static str]) -> Self {
        Self {
            user: "system:node:n1",
            signer: KUBELET_SERVING,
            names,
            usages: &["digital signature", "server auth"],
            ..Self::of_node("n1")
        }
    }

    /// With a key of its own.
    pub(super) fn request(self) -> CertificateSigningRequest {
        let directory = tempfile::tempdir().unwrap();
        let credentials = NodeCredentials::open(directory.path()).unwrap();
        let leaf = Leaf {
            common_name: self.common_name.to_owned(),
            organization: Some(self.organization.to_owned()),
            usage: Usage::Client,
            names: self.names.iter().map(|name| name.parse().unwrap()).collect(),
        };
        let asked = credentials.request(NodeCertificate::Client, &leaf).unwrap();
        let extra = self.token_node.map(|node| {
            let key = "authentication.kubernetes.io/node-name".to_owned();
            [(key, vec![node.to_owned()])].into()
        });
        CertificateSigningRequest {
            metadata: ObjectMeta {
                name: Some("csr".to_owned()),
                creation_timestamp: Some(Time(NOW.parse().unwrap())),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(asked.pem.into_bytes()),
                signer_name: self.signer.to_owned(),
                usages: Some(self.usages.iter().map(|it| (*it).to_owned()).collect()),
                username: Some(self.user.to_owned()),
                extra,
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }
}

/// With a condition since [`NOW`].
pub(super) fn with(
    mut request: CertificateSigningRequest,
    kind: &str,
) -> CertificateSigningRequest {
    let conditions = request.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        last_update_time: Some(Time(NOW.parse().unwrap())),
        ..CertificateSigningRequestCondition::default()
    });
    request
}

pub(super) fn approved(request: CertificateSigningRequest) -> CertificateSigningRequest {
    with(request, "Approved")
}

#[test]
fn a_condition_takes_the_place_of_the_one_of_its_kind() {
    let mut status = json!({});
    set_condition(&mut status, "Held", "NodeExists", "one");
    set_condition(&mut status, "Other", "Why", "two");
    set_condition(&mut status, "Held", "NodeJoins", "three");
    let expected = json!({ "conditions": [
        { "type": "Other", "status": "True", "reason": "Why", "message": "two" },
        { "type": "Held", "status": "True", "reason": "NodeJoins", "message": "three" },
    ]});
    assert_eq!(status, expected);
}
