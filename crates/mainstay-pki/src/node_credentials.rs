//! What a node that has joined another machine's API shows itself with.
//!
//! # Files
//!
//! All in one directory, 0700; what has a key in it is 0600. Each is written under a temporary name, synced
//! and renamed.
//!
//! | file | what |
//! | --- | --- |
//! | `ca.crt` | the authority of the API that was joined |
//! | `kubelet-client.pem`, `kubelet-serving.pem` | a certificate and its key |
//! | `kubelet-client.key`, `kubelet-serving.key` | the key of a request that is not answered yet |
//!
//! # Guarantees
//!
//! - A key is on disk before it is asked with, so that whoever starts again asks with the same one.
//! - A certificate that is there and its key are of one file, and so always belong together.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::authority::{made, pem, subject_alt_names};
use crate::certificate::{CertificateFacts, Identity, Leaf};
use crate::files::{self, Mode, PkiError};
use crate::renewal::{Renewal, renewal};

const AUTHORITY: &str = "ca.crt";

/// Which of a node's certificates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodeCertificate {
    /// How the node shows itself to the API.
    Client,
    /// What the node's own API shows to its clients.
    Serving,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct NodeCredentials {
    directory: PathBuf,
}

/// A request for a certificate.
#[derive(Clone, Debug)]
pub struct NodeRequest {
    /// The request, in PEM.
    pub pem: String,
    /// The same for requests of the same key and for the same, in hex: their name at the API.
    pub digest: String,
}

impl NodeCertificate {
    fn file(self) -> &'static str {
        match self {
            Self::Client => "kubelet-client",
            Self::Serving => "kubelet-serving",
        }
    }
}

impl NodeCredentials {
    /// The directory, made if it is not there. Only one process at a time may have it.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        files::private_directory(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The authority of the API that was joined; `None` if none was, or if the file is broken.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn authority(&self) -> Result<Option<CertificateDer<'static>>, PkiError> {
        let text = files::read(&self.directory.join(AUTHORITY))?;
        Ok(text.and_then(|text| CertificateDer::from_pem_slice(text.as_bytes()).ok()))
    }

    /// Trusts an authority from now on. What others have signed is of no use any more.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn trust(&self, authority: &CertificateDer<'_>) -> Result<(), PkiError> {
        files::write(&self.directory.join(AUTHORITY), &pem(authority), Mode::Public)
    }

    /// A certificate that is there, and whether it is what is wanted; `None` if there is none, or none
    /// that the authority has signed.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn identity(
        &self,
        which: NodeCertificate,
        wanted: &Leaf,
        now: Timestamp,
    ) -> Result<Option<(Identity, Renewal)>, PkiError> {
        let Some(authority) = self.authority()? else { return Ok(None) };
        let path = self.directory.join(format!("{}.pem", which.file()));
        let Some(text) = files::read(&path)? else { return Ok(None) };
        files::restrict_key(&path)?;
        let read = read(&text, &authority);
        Ok(read.filter(|(_, facts)| facts.by_authority && facts.key_matches).map(
            |(identity, facts)| {
                let renewal = renewal(&facts, wanted, now);
                (identity, renewal)
            },
        ))
    }

    /// A request for a certificate, with the key of the last one that was not answered, or a new one.
    ///
    /// # Errors
    ///
    /// When the key cannot be made, read or written.
    pub fn request(&self, which: NodeCertificate, wanted: &Leaf) -> Result<NodeRequest, PkiError> {
        let path = self.key_path(which);
        let known = files::read(&path)?.and_then(|text| read_key(&text));
        let key = match known {
            Some(key) => key,
            None => {
                let key = KeyPair::generate().map_err(made("a key"))?;
                files::write(&path, &key.serialize_pem(), Mode::Secret)?;
                key
            }
        };
        let mut name = DistinguishedName::new();
        if let Some(organization) = &wanted.organization {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        name.push(DnType::CommonName, wanted.common_name.as_str());
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.subject_alt_names = subject_alt_names(&wanted.names)?;
        let request = params.serialize_request(&key).map_err(made("a request"))?;
        let pem = request.pem().map_err(made("a request"))?;
        let digest = crate::request::digest_of(&key, wanted);
        Ok(NodeRequest { pem, digest })
    }

    /// Keeps the certificate that a request was answered with, in PEM, and its key.
    ///
    /// # Errors
    ///
    /// When it is not the authority's, or of another key, and when it cannot be written.
    pub fn keep(&self, which: NodeCertificate, certificate: &str) -> Result<Identity, PkiError> {
        let path = self.directory.join(format!("{}.pem", which.file()));
        let broken = |what: &str| PkiError::Broken {
            path: path.clone(),
            what: what.to_owned(),
            remedy: "it is asked for again",
        };
        let key = files::read(&self.key_path(which))?
            .ok_or_else(|| broken("cannot be written: the key of the request is gone"))?;
        let authority = self.authority()?;
        let authority = authority.ok_or_else(|| broken("cannot be judged without an authority"))?;
        let certificate = certificate.trim_end();
        let text = format!("{certificate}\n{key}");
        let read = read(&text, &authority)
            .filter(|(_, facts)| facts.by_authority && facts.key_matches && !facts.is_authority);
        let Some((identity, _)) = read else {
            return Err(broken("cannot be written: what the API signed is not what was asked for"));
        };
        files::write(&path, &text, Mode::Secret)?;
        // The next request has another key.
        let asked = self.key_path(which);
        fs::remove_file(&asked).map_err(files::at("removing", &asked))?;
        Ok(identity)
    }

    fn key_path(&self, which: NodeCertificate) -> PathBuf {
        self.directory.join(format!("{}.key", which.file()))
    }
}

/// A certificate and the key after it.
fn read(text: &str, authority: &CertificateDer<'_>) -> Option<(Identity, CertificateFacts)> {
    let at = text.find("-----BEGIN PRIVATE KEY-----")?;
    let (certificate, key) = text.split_at(at);
    Identity::read(certificate, key, authority)
}

fn read_key(pem: &str) -> Option<KeyPair> {
    KeyPair::try_from(&PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests;
