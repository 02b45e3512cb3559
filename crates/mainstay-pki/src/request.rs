//! Requests for certificates: what is in one, and signing it.
//!
//! What is signed follows from who asks and what was approved, and not from what the request says of
//! usages, lives or authorities. Source: `pkg/controller/certificates/authority/policies.go`.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::authority::{Authority, made, set_validity};
use crate::certificate::{Leaf, ip, subject_of};
use crate::client::{NotACertificate, Subject};
use crate::files::PkiError;
use crate::names::SubjectName;
use crate::renewal::signed_validity;

/// What a request for a certificate says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestFacts {
    /// Whose the certificate shall be.
    pub subject: Subject,
    /// The DNS names and addresses that it shall be for.
    pub names: BTreeSet<SubjectName>,
    /// Whether there are names of another kind, such as mail addresses.
    pub other_names: bool,
    /// The SHA-256 of its public key, in hex: requests with the same one are by the same party.
    pub key: String,
}

impl RequestFacts {
    /// Reads a request, in PEM.
    ///
    /// # Errors
    ///
    /// When it is none, or is not signed with its own key.
    pub fn read(pem: &[u8]) -> Result<Self, NotACertificate> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| NotACertificate)?;
        Self::parse(&der).ok_or(NotACertificate)
    }

    fn parse(der: &[u8]) -> Option<Self> {
        let (_, request) = X509CertificationRequest::from_der(der).ok()?;
        // Whoever asks shows that he has the key.
        request.verify_signature().ok()?;
        let info = &request.certification_request_info;
        let mut facts = Self {
            subject: subject_of(&info.subject)?,
            names: BTreeSet::new(),
            other_names: false,
            key: hex(digest(&SHA256, info.subject_pki.raw).as_ref()),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match subject_name(name) {
                    Some(name) => drop(facts.names.insert(name)),
                    None => facts.other_names = true,
                }
            }
        }
        Some(facts)
    }
}

/// A name in the form in which it is compared; `None` of another kind or form.
fn subject_name(name: &GeneralName<'_>) -> Option<SubjectName> {
    match name {
        // As it is compared: in lower case, and valid.
        GeneralName::DNSName(name) => {
            name.parse().ok().filter(|it| matches!(it, SubjectName::Dns(_)))
        }
        GeneralName::IPAddress(bytes) => ip(bytes).map(SubjectName::Ip),
        _ => None,
    }
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It asks for what is not signed here.
    #[error("{0}")]
    Unfit(&'static str),
    /// Signing failed.
    #[error(transparent)]
    Failed(#[from] PkiError),
}

impl Authority {
    /// Signs a request, in PEM, for at most so long. The usages are Kubernetes' words for them.
    ///
    /// # Errors
    ///
    /// When it is no request, when its names or usages are not ones that are signed here, when the authority
    /// has ended, and when signing fails.
    pub fn sign(
        &self,
        request: &[u8],
        usages: &[String],
        life: SignedDuration,
        now: Timestamp,
    ) -> Result<String, SignError> {
        let facts = RequestFacts::read(request);
        let facts = facts.map_err(|_| SignError::Unfit("the request cannot be read"))?;
        if facts.other_names {
            return Err(SignError::Unfit("only names and addresses can be certified"));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(request)
            .map_err(|_| SignError::Unfit("the request cannot be read"))?;
        one_of_each(&der)?;
        let failed = made("a certificate");
        let mut request = CertificateSigningRequestParams::from_der(&der)
            .map_err(|_| SignError::Unfit("the request asks for what cannot be certified"))?;
        let (from, to) = signed_validity(life, now);
        let to = to.min(self.not_after());
        if to <= now {
            return Err(SignError::Unfit("the authority's certificate has ended"));
        }
        let wanted = std::mem::take(&mut request.params);
        let mut params = CertificateParams::default();
        params.distinguished_name = wanted.distinguished_name;
        params.subject_alt_names = alt_names(wanted.subject_alt_names)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        for usage in usages {
            match usage.as_str() {
                "signing" | "digital signature" => {
                    params.key_usages.push(KeyUsagePurpose::DigitalSignature);
                }
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
                }
                "server auth" => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                }
                _ => return Err(SignError::Unfit("a usage is not one that is signed here")),
            }
        }
        set_validity(&mut params, from, to)?;
        request.params = params;
        let certificate = request.signed_by(self.issuer()).map_err(failed)?;
        Ok(certificate.pem())
    }
}

/// What signs cannot write more than one attribute of a kind, and nothing of a subject may be lost.
fn one_of_each(der: &[u8]) -> Result<(), SignError> {
    let (_, request) = X509CertificationRequest::from_der(der)
        .map_err(|_| SignError::Unfit("the request cannot be read"))?;
    let mut kinds = BTreeSet::new();
    for part in request.certification_request_info.subject.iter() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(SignError::Unfit(
                "the subject has parts of several attributes, or of none",
            ));
        };
        if !kinds.insert(attribute.attr_type().to_id_string()) {
            return Err(SignError::Unfit(
                "the subject has several attributes of a kind, such as several organizations, which \
                 this signer cannot write",
            ));
        }
    }
    Ok(())
}

/// No other kinds than those that [`RequestFacts`] has shown.
fn alt_names(names: Vec<SanType>) -> Result<Vec<SanType>, SignError> {
    let fits = |name: &SanType| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_));
    match names.iter().all(fits) {
        true => Ok(names),
        false => Err(SignError::Unfit("only names and addresses can be certified")),
    }
}

/// The same for requests of the same key and for the same: half of a SHA-256, in hex.
pub(crate) fn digest_of(key: &rcgen::KeyPair, wanted: &Leaf) -> String {
    let mut all = rcgen::PublicKeyData::subject_public_key_info(key);
    let names = wanted.names.iter().map(ToString::to_string);
    let organization = wanted.organization.clone().unwrap_or_default();
    for part in [wanted.common_name.clone(), organization].into_iter().chain(names) {
        all.push(b'\n');
        all.extend(part.into_bytes());
    }
    let mut hex = hex(digest(&SHA256, &all).as_ref());
    hex.truncate(32);
    hex
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
