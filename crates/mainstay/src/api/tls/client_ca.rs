//! The authorities of clients' certificates, in a file that may be replaced while it is in use.
//!
//! Source: `clientCAFile` in `cmd/kubelet/app/auth.go`, the feature gate `ReloadKubeletClientCAFile`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

/// Whose certificates clients have.
///
/// TLS asks everybody for one, and only sees to it that who shows it has its key: who is nobody by it may be
/// somebody by a token. So nobody may be known by one that [`Clients::verify`] has not found good. Source:
/// `RequestClientCert` in `NewMainKubelet` of `pkg/kubelet/kubelet.go`.
#[derive(Debug)]
pub(in crate::api) struct Clients {
    provider: Arc<CryptoProvider>,
    file: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    /// How the file was when it was looked at last.
    stamp: Option<Stamp>,
    verifier: Arc<dyn ClientCertVerifier>,
}

type Stamp = (u64, Option<SystemTime>);

impl Clients {
    /// Those of the authorities in a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has no certificate.
    pub(in crate::api) fn of(file: &Path) -> anyhow::Result<Arc<Self>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (stamp, verifier) = (stamp(file), read(file, &provider)?);
        let read = Mutex::new(Read { stamp, verifier });
        Ok(Arc::new(Self { provider, file: file.to_owned(), read }))
    }

    /// Holds a certificate, with those that came after it, against the authorities as they are now.
    ///
    /// # Errors
    ///
    /// When none of them has signed it for a client, or its time is not now.
    pub(in crate::api) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let (own, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.now().verify_client_cert(own, rest, UnixTime::now()).map(drop)
    }

    /// Looks whether the file is another one now. One that cannot be used is that of a moment ago.
    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        let now = stamp(&self.file);
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_some() && now != last.stamp {
            last.stamp = now;
            match read(&self.file, &self.provider) {
                Ok(verifier) => last.verifier = verifier,
                Err(error) => {
                    tracing::warn!("clients are those of the authorities before: {error:#}");
                }
            }
        }
        last.verifier.clone()
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // They may be others with the next connection; clients show what they have.
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // `verify` is asked for each request.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}

fn read(
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let named = || format!("cannot use {} (authentication.x509.clientCAFile)", file.display());
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.with_context(named)?;
    ensure!(!all.is_empty(), "{}: it has no certificate", named());
    let mut roots = RootCertStore::empty();
    for certificate in all {
        roots.add(certificate).with_context(named)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    verifier.allow_unauthenticated().build().with_context(named)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mainstay_pki::{Pki, Wanted};

    use super::*;

    #[test]
    fn clients_are_those_of_the_file_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| {
            let path = directory.path().join(name);
            Pki::open(&path, &Wanted::default(), Timestamp::now()).unwrap().0
        });
        let file = directory.path().join("ca.crt");
        let write = |pki: &Pki, at: u64| {
            fs::write(&file, pki.authority().certificates_pem()).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at);
            fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
        };
        let missing = Clients::of(&file).unwrap_err();
        assert!(format!("{missing:#}").contains("clientCAFile"), "{missing:#}");
        write(&first, 1_000_000_000);
        let clients = Clients::of(&file).unwrap();
        let takes = |pki: &Pki| clients.verify(&[pki.admin().certificate().clone()]).is_ok();
        assert_eq!((takes(&first), takes(&second)), (true, false));
        write(&second, 1_000_000_001);
        assert_eq!((takes(&first), takes(&second)), (false, true));
        // What is no authority takes nothing away.
        fs::write(&file, "nothing").unwrap();
        assert_eq!((takes(&first), takes(&second)), (false, true));
        // Nobody is somebody by what is no client's, or by nothing.
        assert!(clients.verify(&[second.api_server().certificate().clone()]).is_err());
        assert!(clients.verify(&[]).is_err());
    }
}
