//! Certificates: what is in them, and who holds one.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::client::Subject;
use crate::names::SubjectName;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usage {
    /// To be shown to clients.
    Server,
    /// To be shown to servers.
    Client,
}

/// A certificate that is wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// Whose it is; the user's name where a client shows it.
    pub common_name: String,
    /// The user's group.
    pub organization: Option<String>,
    /// What it is for.
    pub usage: Usage,
    /// What a server can be reached at.
    pub names: BTreeSet<SubjectName>,
}

/// What is known of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFacts {
    /// Whose it is.
    pub common_name: String,
    /// The groups, in the order they stand there.
    pub organizations: Vec<String>,
    /// The DNS names and addresses; other kinds of names are left out.
    pub names: BTreeSet<SubjectName>,
    /// From when it is good.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Whether a server can show it.
    pub server_auth: bool,
    /// Whether a client can show it.
    pub client_auth: bool,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Whether our authority has signed it.
    pub by_authority: bool,
    /// Whether the key that lies beside it is its key.
    pub key_matches: bool,
}

/// A certificate with its key.
pub struct Identity {
    certificate_pem: String,
    key_pem: String,
    certificate: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    not_after: Timestamp,
}

impl Identity {
    /// A certificate, with those after it, and its key, both PEM: those of somebody else's authority, whose
    /// key may be of any kind. `None` if the one or the other is broken, or they do not belong together.
    pub fn of_pem(certificates: &str, key: &str) -> Option<Self> {
        let (identity, facts) = Self::read(certificates, key, None)?;
        facts.key_matches.then_some(identity)
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificates between it and an authority that others have; none where our authority has signed.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// The key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The certificate as it stands in its file.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key as it stands in its file.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Puts together what was read or made, with what is in it. `None` if the one or the other is broken.
    /// Without an authority any will do.
    pub(crate) fn read(
        certificate_pem: &str,
        key_pem: &str,
        authority: Option<&CertificateDer<'_>>,
    ) -> Option<(Self, CertificateFacts)> {
        let all = CertificateDer::pem_slice_iter(certificate_pem.as_bytes());
        let mut all = all.collect::<Result<Vec<_>, _>>().ok()?.into_iter();
        let certificate = all.next()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).ok()?;
        let signing = any_supported_type(&key).ok()?;
        let key_info = signing.public_key()?;
        let mut facts = facts(&certificate, authority, &key_info)?;
        facts.by_authority |= authority.is_none();
        let identity = Self {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            certificate,
            intermediates: all.collect(),
            key,
            not_after: facts.not_after,
        };
        Some((identity, facts))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What is in a certificate, held against the authority (itself, if there is none) and the
/// `SubjectPublicKeyInfo` of a key.
pub(crate) fn facts(
    certificate: &CertificateDer<'_>,
    authority: Option<&CertificateDer<'_>>,
    key_info: &[u8],
) -> Option<CertificateFacts> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let subject = subject_of(parsed.subject())?;
    let usage = parsed.extended_key_usage().ok()?.map(|it| it.value);
    let basic = parsed.basic_constraints().ok()?.map(|it| it.value);
    Some(CertificateFacts {
        common_name: subject.common_name,
        organizations: subject.organizations,
        names: names(&parsed)?,
        not_before: timestamp(parsed.validity().not_before)?,
        not_after: timestamp(parsed.validity().not_after)?,
        server_auth: usage.is_none_or(|it| it.any || it.server_auth),
        client_auth: usage.is_none_or(|it| it.any || it.client_auth),
        is_authority: basic.is_some_and(|it| it.ca),
        by_authority: match authority {
            Some(authority) => is_signed_by(&parsed, authority),
            None => parsed.verify_signature(None).is_ok(),
        },
        key_matches: parsed.public_key().raw == key_info,
    })
}

/// The last common name, as Go's `crypto/x509` takes it, and all organisations.
pub(crate) fn subject_of(name: &X509Name<'_>) -> Option<Subject> {
    let mut subject = Subject::default();
    for attribute in name.iter_common_name() {
        subject.common_name = attribute.as_str().ok()?.to_owned();
    }
    for attribute in name.iter_organization() {
        subject.organizations.push(attribute.as_str().ok()?.to_owned());
    }
    Some(subject)
}

fn names(parsed: &X509Certificate<'_>) -> Option<BTreeSet<SubjectName>> {
    let Some(extension) = parsed.subject_alternative_name().ok()? else {
        return Some(BTreeSet::new());
    };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(SubjectName::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => ip(bytes).map(SubjectName::Ip),
        _ => None,
    });
    Some(names.collect())
}

/// The address that these bytes are; `None` if there are too many or too few.
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn is_signed_by(parsed: &X509Certificate<'_>, authority: &CertificateDer<'_>) -> bool {
    let Ok((_, authority)) = parse_x509_certificate(authority) else { return false };
    parsed.issuer().as_raw() == authority.subject().as_raw()
        && parsed.verify_signature(Some(authority.public_key())).is_ok()
}

pub(crate) fn timestamp(time: ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(time.timestamp()).ok()
}
