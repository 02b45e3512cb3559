//! The authorities of clients' certificates, in a file that may be replaced while it is in use.
//!
//! Source: `clientCAFile` in `cmd/kubelet/app/auth.go`, the feature gate `ReloadKubeletClientCAFile`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::reread::Reread;

/// Whose certificates clients have.
///
/// TLS asks everybody for one, and only sees to it that who shows it has its key: who is nobody by it may be
/// somebody by a token. So nobody may be known by one that [`Clients::verify`] has not found good. Source:
/// `RequestClientCert` in `NewMainKubelet` of `pkg/kubelet/kubelet.go`.
#[derive(Debug)]
pub(in crate::api) struct Clients {
    provider: Arc<CryptoProvider>,
    verifier: Reread<Arc<dyn ClientCertVerifier>>,
}

impl Clients {
    /// Those of the authorities in a file. As long as it cannot be used, nobody is known by a certificate.
    pub(in crate::api) fn of(file: &Path) -> Arc<Self> {
        let verifier = Reread::new(vec![file.to_owned()], read);
        Arc::new(Self { provider: Arc::new(default_provider()), verifier })
    }

    /// Holds a certificate, with those that came after it, against the authorities as they are now.
    ///
    /// # Errors
    ///
    /// When none of them has signed it for a client, or its time is not now.
    pub(in crate::api) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let (own, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let none = || Error::General("there is no authority".to_owned());
        let verifier = self.verifier.now().ok_or_else(none)?;
        verifier.verify_client_cert(own, rest, UnixTime::now()).map(drop)
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

fn read(files: &[PathBuf]) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let [file] = files else { unreachable!("it is one file") };
    let named = || format!("cannot use {} (authentication.x509.clientCAFile)", file.display());
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.with_context(named)?;
    ensure!(!all.is_empty(), "{}: it has no certificate", named());
    let mut roots = RootCertStore::empty();
    for certificate in all {
        roots.add(certificate).with_context(named)?;
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.allow_unauthenticated().build().with_context(named)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let write = |pki: &Pki| {
            let new = directory.path().join("new");
            fs::write(&new, pki.authority().certificates_pem()).unwrap();
            fs::rename(&new, &file).unwrap();
        };
        let clients = Clients::of(&file);
        let takes = |pki: &Pki| clients.verify(&[pki.admin().certificate().clone()]).is_ok();
        assert_eq!((takes(&first), takes(&second)), (false, false));
        let missing = read(std::slice::from_ref(&file)).unwrap_err();
        assert!(format!("{missing:#}").contains("clientCAFile"), "{missing:#}");
        write(&first);
        assert_eq!((takes(&first), takes(&second)), (true, false));
        write(&second);
        assert_eq!((takes(&first), takes(&second)), (false, true));
        // What is no authority takes nothing away.
        fs::write(&file, "nothing").unwrap();
        assert_eq!((takes(&first), takes(&second)), (false, true));
        // Nobody is somebody by what is no client's, or by nothing.
        assert!(clients.verify(&[second.api_server().certificate().clone()]).is_err());
        assert!(clients.verify(&[]).is_err());
    }
}
