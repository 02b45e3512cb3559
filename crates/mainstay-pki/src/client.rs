//! Who somebody says to be with a certificate, or wants to be with a request for one.

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::oid_registry::Oid;
use x509_parser::parse_x509_certificate;

use crate::certificate::{subject_of, timestamp};
use crate::request::RequestFacts;

/// `1.3.6.1.4.1.57683.2`: a user's UID in the subject of a certificate.
/// Source: `staging/src/k8s.io/apiserver/pkg/authentication/request/x509` (Kubernetes 1.36).
const UID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53, 0x02];

/// What a client's certificate says. Whether it may be believed is for TLS to find out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    /// The user and the groups.
    pub subject: Subject,
    /// The user's UID; mostly empty.
    pub uid: String,
    /// `X509SHA256=` and the hash of the certificate in hex.
    pub credential_id: String,
    /// From when it is good.
    pub not_before: Timestamp,
    /// Until when. A connection may live longer.
    pub not_after: Timestamp,
}

/// Whose a certificate is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Subject {
    /// The user's name; the last one, if there are several.
    pub common_name: String,
    /// The groups.
    pub organizations: Vec<String>,
}

/// The bytes are no certificate, or no request for one, that names somebody.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a certificate or request whose subject can be read")]
pub struct NotACertificate;

impl ClientCertificate {
    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// When it is none, or its subject is not made of text.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, NotACertificate> {
        Self::parse(certificate).ok_or(NotACertificate)
    }

    fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let uid = Oid::new(UID.into());
        let mut uids = parsed.subject().iter_by_oid(&uid);
        let first = uids.next().map(|it| it.as_str().ok().map(str::to_owned));
        let uid = match first {
            Some(first) => first?,
            None => String::new(),
        };
        if uids.next().is_some() {
            return None;
        }
        let mut credential_id = String::from("X509SHA256=");
        for byte in digest(&SHA256, certificate).as_ref() {
            credential_id.push_str(&format!("{byte:02x}"));
        }
        Some(Self {
            subject: subject_of(parsed.subject())?,
            uid,
            credential_id,
            not_before: timestamp(parsed.validity().not_before)?,
            not_after: timestamp(parsed.validity().not_after)?,
        })
    }
}

/// Who a request for a certificate, in PEM, is for.
///
/// # Errors
///
/// When it is none, or is not signed with its own key.
pub fn request_subject(pem: &[u8]) -> Result<Subject, NotACertificate> {
    RequestFacts::read(pem).map(|facts| facts.subject)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "devs");
        params
    }

    #[test]
    fn who_a_certificate_is_for() {
        let key = KeyPair::generate().unwrap();
        let mut with_uid = params();
        let oid = DnType::from_oid(&[1, 3, 6, 1, 4, 1, 57683, 2]);
        with_uid.distinguished_name.push(oid, "42");
        for (params, uid) in [(params(), ""), (with_uid, "42")] {
            let made = params.self_signed(&key).unwrap();
            let read = ClientCertificate::read(made.der()).unwrap();
            assert_eq!(read.subject.common_name, "jane");
            assert_eq!(read.subject.organizations, ["devs"]);
            assert_eq!(read.uid, uid);
            assert_eq!(read.credential_id.len(), "X509SHA256=".len() + 64);
        }
    }

    #[test]
    fn who_a_request_is_for() {
        let key = KeyPair::generate().unwrap();
        let request = params().serialize_request(&key).unwrap();
        let subject = request_subject(request.pem().unwrap().as_bytes()).unwrap();
        assert_eq!(subject.common_name, "jane");
        let mut forged = request.der().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let forged = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(forged)
        );
        assert_eq!(request_subject(forged.as_bytes()), Err(NotACertificate));
        for bad in
            ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
        {
            assert!(request_subject(bad.as_bytes()).is_err());
        }
        let cut = CertificateDer::from(vec![0x30, 0x82, 0x01]);
        assert_eq!(ClientCertificate::read(&cut), Err(NotACertificate));
    }
}
