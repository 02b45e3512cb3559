//! The certificate authority.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::certificate::{CertificateFacts, Leaf, Usage, facts};
use crate::files::{self, Mode, PkiError};
use crate::names::SubjectName;
use crate::pki::Note;
use crate::renewal::{AUTHORITY_LIFE, Renewal, authority_validity, by_time, leaf_validity};

/// What the authority calls itself. Only one of this name is renewed; another was brought by somebody who
/// has to renew it too.
const NAME: &str = "mainstay-ca";
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

const RESTORE: &str = "restore ca.crt and ca.key from a backup, or remove both: a new authority is made \
                       then, and every kubeconfig and certificate has to be handed out again";

/// The authority: what it signs, its own servers and clients trust.
pub struct Authority {
    bundle: Vec<CertificateDer<'static>>,
    bundle_pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
    until: Timestamp,
}

impl Authority {
    /// Its certificate, and after it those that `ca.crt` names as well.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.bundle
    }

    /// All of `ca.crt`, as kubeconfigs carry it.
    pub fn certificates_pem(&self) -> &str {
        &self.bundle_pem
    }

    /// When its certificate ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// When it has to be looked at again.
    pub(crate) fn until(&self) -> Timestamp {
        self.until
    }

    /// Reads it from `directory`, or makes it, or renews it under the same key.
    pub(crate) fn open(
        directory: &Path,
        now: Timestamp,
        notes: &mut Vec<Note>,
    ) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (directory.join(CERTIFICATE), directory.join(KEY));
        let broken = |path: &Path, what: &str| PkiError::Broken {
            path: path.to_owned(),
            what: what.to_owned(),
            remedy: RESTORE,
        };
        let found = (files::read(&certificate_path)?, files::read(&key_path)?);
        let key = match &found {
            (None, None) => {
                let key = KeyPair::generate().map_err(made("the key of the authority"))?;
                // The key first: without the certificate it is enough to go on from.
                files::write(&key_path, &key.serialize_pem(), Mode::Secret)?;
                key
            }
            (Some(_), None) => {
                return Err(broken(&certificate_path, "is there without ca.key"));
            }
            (_, Some(pem)) => {
                if files::restrict_key(&key_path)? {
                    notes.push(Note::opened_to_others(&key_path));
                }
                read_key(pem).ok_or_else(|| {
                    broken(&key_path, "is not a private key in PKCS#8 form (\"PRIVATE KEY\")")
                })?
            }
        };
        let Some(pem) = found.0 else {
            notes.push(Note::Made { path: certificate_path.clone() });
            return Self::make(&certificate_path, key, &[], now);
        };
        let (bundle, facts) = read_bundle(&pem, &key)
            .ok_or_else(|| broken(&certificate_path, "is not a certificate"))?;
        if !facts.key_matches {
            return Err(broken(&certificate_path, "and ca.key do not belong together"));
        }
        if !facts.is_authority {
            return Err(broken(&certificate_path, "is not the certificate of an authority"));
        }
        let renewal = by_time(&facts, AUTHORITY_LIFE, now);
        let until = match renewal {
            Renewal::Keep { until } => until,
            Renewal::Issue(reason) if facts.common_name == NAME && facts.by_authority => {
                notes.push(Note::Renewed { path: certificate_path.clone(), reason });
                return Self::make(
                    &certificate_path,
                    key,
                    bundle.get(1..).unwrap_or_default(),
                    now,
                );
            }
            Renewal::Issue(reason) => {
                let text =
                    format!("{reason}, and it was not made here; replace it with its owner's");
                notes.push(Note::Warning { path: certificate_path.clone(), text });
                Timestamp::MAX
            }
        };
        let issuer =
            bundle.first().and_then(|own| Issuer::from_ca_cert_der(own, key).ok()).ok_or_else(
                || broken(&certificate_path, "is a certificate that cannot be used here"),
            )?;
        Ok(Self { bundle, bundle_pem: pem, issuer, not_after: facts.not_after, until })
    }

    /// Makes the certificate and writes it, before `others`.
    fn make(
        path: &Path,
        key: KeyPair,
        others: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        let (from, to) = authority_validity(now);
        let mut params = params(NAME, None, from, to)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let made_by = made("the certificate of the authority");
        let certificate = params.self_signed(&key).map_err(made_by)?;
        let mut bundle = vec![certificate.der().clone()];
        let mut bundle_pem = certificate.pem();
        for other in others {
            bundle_pem.push_str(&pem(other));
            bundle.push(other.clone());
        }
        files::write(path, &bundle_pem, Mode::Public)?;
        let until = to.saturating_sub(AUTHORITY_LIFE / 3).unwrap_or(Timestamp::MIN);
        Ok(Self { bundle, bundle_pem, issuer: Issuer::new(params, key), not_after: to, until })
    }

    /// The certificate that the others are held against.
    pub(crate) fn own(&self) -> CertificateDer<'_> {
        self.bundle.first().map_or_else(|| CertificateDer::from(&[][..]), |own| own.as_ref().into())
    }

    /// Makes a certificate with a new key; both as PEM.
    pub(crate) fn issue(&self, leaf: &Leaf, now: Timestamp) -> Result<(String, String), PkiError> {
        let (from, to) = leaf_validity(now);
        let mut params = params(&leaf.common_name, leaf.organization.as_deref(), from, to)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match leaf.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.subject_alt_names = subject_alt_names(&leaf.names)?;
        let key = KeyPair::generate().map_err(made("a key"))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(made("a certificate"))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Says what was being made when it failed.
pub(crate) fn made(what: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Make { what, source }
}

fn read_key(pem: &str) -> Option<KeyPair> {
    KeyPair::try_from(&PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?).ok()
}

/// All certificates of `ca.crt`, and what is in the first.
fn read_bundle(
    pem: &str,
    key: &KeyPair,
) -> Option<(Vec<CertificateDer<'static>>, CertificateFacts)> {
    let bundle: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()?;
    let facts = facts(bundle.first()?, None, &key.subject_public_key_info())?;
    Some((bundle, facts))
}

/// What every certificate has.
fn params(
    common_name: &str,
    organization: Option<&str>,
    from: Timestamp,
    to: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    set_validity(&mut params, from, to)?;
    Ok(params)
}

/// From when to when it is good, and a number of its own.
pub(crate) fn set_validity(
    params: &mut CertificateParams,
    from: Timestamp,
    to: Timestamp,
) -> Result<(), PkiError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(from);
    params.not_after = epoch + since_epoch(to);
    // Two certificates of one key, as an authority's renewal makes them, must not have the same one.
    params.serial_number = Some(serial_number()?);
    Ok(())
}

/// A random positive number of 127 bits.
fn serial_number() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| made("a serial number")(rcgen::Error::RingUnspecified))?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

pub(crate) fn subject_alt_names(names: &BTreeSet<SubjectName>) -> Result<Vec<SanType>, PkiError> {
    let name = |name: &SubjectName| match name {
        SubjectName::Dns(name) => {
            name.as_str().try_into().map(SanType::DnsName).map_err(made("a name of a certificate"))
        }
        SubjectName::Ip(address) => Ok(SanType::IpAddress(*address)),
    };
    names.iter().map(name).collect()
}

/// In whole seconds. Nothing here is before 1970.
fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0))
}

/// As `ca.crt` has it.
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}
