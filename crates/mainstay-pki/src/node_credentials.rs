//! What a node of an API that is not its own shows itself with.
//!
//! # Files
//!
//! All in one directory; what has a key in it is 0600. Each is written under a temporary name, synced
//! and renamed. One that has joined another machine's API by a token has these, 0700:
//!
//! | file | what |
//! | --- | --- |
//! | `ca.crt` | the authority of the API that was joined |
//! | `kubelet-client.pem`, `kubelet-serving.pem` | a certificate and its key |
//! | `kubelet-client.key`, `kubelet-serving.key` | the key of a request that is not answered yet |
//!
//! A node of any cluster has these, which are a kubelet's; whom to trust is said elsewhere. Source:
//! `staging/src/k8s.io/client-go/util/certificate/certificate_store.go`.
//!
//! | file | what |
//! | --- | --- |
//! | `kubelet-client-<date>.pem`, `kubelet-server-<date>.pem` | a certificate, those after it, and its key |
//! | `kubelet-client-current.pem`, `kubelet-server-current.pem` | symbolic links to the newest of them |
//! | `kubelet-client.key.tmp`, `kubelet-server.key.tmp` | the key of a request that is not answered yet |
//!
//! # Guarantees
//!
//! - A key is on disk before it is asked with, so that whoever starts again asks with the same one.
//! - A certificate that is there and its key are of one file, and so always belong together.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::authority::{made, pem, subject_alt_names};
use crate::certificate::{CertificateFacts, Identity, Leaf};
use crate::files::{self, Mode, PkiError};
use crate::renewal::{Renewal, renewal, rotation};

const AUTHORITY: &str = "ca.crt";

/// Which of a node's certificates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodeCertificate {
    /// How the node shows itself to the API.
    Client,
    /// What the node's own API shows to its clients.
    Serving,
}

/// Whose way of keeping files it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Layout {
    Joined,
    Kubelet,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct NodeCredentials {
    directory: PathBuf,
    layout: Layout,
}

/// A request for a certificate.
#[derive(Clone, Debug)]
pub struct NodeRequest {
    /// The request, in PEM.
    pub pem: String,
    /// The same for requests of the same key and for the same, in hex: their name at the API.
    pub digest: String,
}

impl Layout {
    fn name(self, which: NodeCertificate) -> &'static str {
        match (self, which) {
            (_, NodeCertificate::Client) => "kubelet-client",
            (Self::Joined, NodeCertificate::Serving) => "kubelet-serving",
            (Self::Kubelet, NodeCertificate::Serving) => "kubelet-server",
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
        Ok(Self { directory: directory.to_owned(), layout: Layout::Joined })
    }

    /// A kubelet's directory (`--cert-dir`), made if it is not there. Who may look into it is left as it is.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn of_kubelet(directory: &Path) -> Result<Self, PkiError> {
        fs::create_dir_all(directory).map_err(files::at("making the directory", directory))?;
        let this = Self { directory: directory.to_owned(), layout: Layout::Kubelet };
        for which in [NodeCertificate::Client, NodeCertificate::Serving] {
            this.finish(which)?;
        }
        Ok(this)
    }

    /// Where the newest certificate and its key are.
    pub fn current_path(&self, which: NodeCertificate) -> PathBuf {
        let name = self.layout.name(which);
        self.directory.join(match self.layout {
            Layout::Joined => format!("{name}.pem"),
            Layout::Kubelet => format!("{name}-current.pem"),
        })
    }

    /// The authority of the API that was joined; `None` if none was, if the file is broken, and in a
    /// kubelet's directory.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn authority(&self) -> Result<Option<CertificateDer<'static>>, PkiError> {
        if self.layout == Layout::Kubelet {
            return Ok(None);
        }
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
        let authority = self.authority()?;
        if self.layout == Layout::Joined && authority.is_none() {
            return Ok(None);
        }
        let path = self.current_path(which);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        files::restrict_key(&path)?;
        let read = read(&text, authority.as_ref());
        Ok(read.filter(|(_, facts)| facts.by_authority && facts.key_matches).map(
            |(identity, facts)| {
                let renewal = match self.layout {
                    Layout::Joined => renewal(&facts, wanted, now),
                    Layout::Kubelet => rotation(&facts, wanted, own_number(&identity), now),
                };
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
    pub fn keep(
        &self,
        which: NodeCertificate,
        certificate: &str,
        now: Timestamp,
    ) -> Result<Identity, PkiError> {
        let path = self.current_path(which);
        let broken = |what: &str| PkiError::Broken {
            path: path.clone(),
            what: what.to_owned(),
            remedy: "it is asked for again",
        };
        let key = files::read(&self.key_path(which))?
            .ok_or_else(|| broken("cannot be written: the key of the request is gone"))?;
        let authority = self.authority()?;
        if self.layout == Layout::Joined && authority.is_none() {
            return Err(broken("cannot be judged without an authority"));
        }
        let text = format!("{}\n{key}", certificate.trim_end());
        let read = read(&text, authority.as_ref())
            .filter(|(_, facts)| facts.by_authority && facts.key_matches && !facts.is_authority);
        let Some((identity, _)) = read else {
            return Err(broken("cannot be written: what the API signed is not what was asked for"));
        };
        self.write(which, &text, now)?;
        // The next request has another key.
        let asked = self.key_path(which);
        fs::remove_file(&asked).map_err(files::at("removing", &asked))?;
        Ok(identity)
    }

    fn write(&self, which: NodeCertificate, text: &str, now: Timestamp) -> Result<(), PkiError> {
        let current = self.current_path(which);
        if self.layout == Layout::Joined {
            return files::write(&current, text, Mode::Secret);
        }
        let name = self.layout.name(which);
        let date = now.strftime("%Y-%m-%d-%H-%M-%S");
        let dated = std::path::absolute(self.directory.join(format!("{name}-{date}.pem")));
        let dated = dated.map_err(files::at("naming a file in", &self.directory))?;
        files::write(&dated, text, Mode::Secret)?;
        let updated = self.updated_path(which);
        match fs::remove_file(&updated) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(files::at("removing", &updated)(error));
            }
            _ => {}
        }
        symlink(&dated, &updated).map_err(files::at("making", &updated))?;
        self.finish(which)
    }

    /// Makes the certificate that was written last the one that is used, also if an earlier process came so far.
    fn finish(&self, which: NodeCertificate) -> Result<(), PkiError> {
        let (updated, current) = (self.updated_path(which), self.current_path(which));
        match fs::rename(&updated, &current) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(files::at("renaming a file to", &current)(error)),
            Ok(()) => files::sync(&self.directory),
        }
    }

    fn updated_path(&self, which: NodeCertificate) -> PathBuf {
        self.directory.join(format!("{}-updated.pem", self.layout.name(which)))
    }

    fn key_path(&self, which: NodeCertificate) -> PathBuf {
        let name = self.layout.name(which);
        self.directory.join(match self.layout {
            Layout::Joined => format!("{name}.key"),
            Layout::Kubelet => format!("{name}.key.tmp"),
        })
    }
}

/// A certificate and its key, in whatever order.
fn read(
    text: &str,
    authority: Option<&CertificateDer<'_>>,
) -> Option<(Identity, CertificateFacts)> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let (mut certificates, mut key) = (String::new(), String::new());
    let mut of_key = false;
    for line in text.lines() {
        if line.starts_with(BEGIN) {
            of_key = line.ends_with("PRIVATE KEY-----");
        }
        let part = if of_key { &mut key } else { &mut certificates };
        part.push_str(line);
        part.push('\n');
        if line.starts_with(END) {
            of_key = false;
        }
    }
    Identity::read(&certificates, &key, authority)
}

/// A number that is this certificate's.
fn own_number(identity: &Identity) -> u8 {
    let hash = ring::digest::digest(&ring::digest::SHA256, identity.certificate());
    hash.as_ref().first().copied().unwrap_or_default()
}

fn read_key(pem: &str) -> Option<KeyPair> {
    KeyPair::try_from(&PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests;
