//! TLS of the node's own API, as the machine's owner wants it.
//!
//! Source: `InitializeTLS` in `cmd/kubelet/app/server.go`, `pkg/kubelet/certificate/kubelet.go`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedCipherSuite};

use super::certified_pair;
use super::reread::Reread;
use crate::config::NodeTls;

/// The server's side, which shows `own` unless there are files.
///
/// # Errors
///
/// When what is set cannot be together.
pub(in crate::api) fn server(
    clients: Arc<dyn ClientCertVerifier>,
    own: Arc<dyn ResolvesServerCert>,
    settings: &NodeTls,
) -> anyhow::Result<Arc<ServerConfig>> {
    match &settings.files {
        Some(files) => of_files(clients, files, settings),
        None => of(clients, own, settings),
    }
}

/// The server's side, which shows what is in files. As long as these cannot be used, who connects is told that
/// there is no certificate.
///
/// # Errors
///
/// As above.
pub(in crate::api) fn of_files(
    clients: Arc<dyn ClientCertVerifier>,
    files: &(PathBuf, PathBuf),
    settings: &NodeTls,
) -> anyhow::Result<Arc<ServerConfig>> {
    let (certificate, key) = files.clone();
    of(clients, Arc::new(Files(Reread::new(vec![certificate, key], read))), settings)
}

/// The server's side, which shows this, whatever files there are.
///
/// # Errors
///
/// When what is set cannot be together.
pub(in crate::api) fn of(
    clients: Arc<dyn ClientCertVerifier>,
    shown: Arc<dyn ResolvesServerCert>,
    settings: &NodeTls,
) -> anyhow::Result<Arc<ServerConfig>> {
    let mut provider = rustls::crypto::ring::default_provider();
    let is_chosen = |suite: &SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls13(_) => true,
        SupportedCipherSuite::Tls12(_) => {
            let name = format!("{:?}", suite.suite());
            settings.cipher_suites.iter().any(|it| name == *it || name == format!("{it}_SHA256"))
        }
    };
    if !settings.cipher_suites.is_empty() {
        provider.cipher_suites.retain(is_chosen);
    }
    let old = provider.cipher_suites.iter().any(|it| matches!(it, SupportedCipherSuite::Tls12(_)));
    let versions = [&TLS13, &TLS12];
    let versions = if old && !settings.only_1_3 { &versions[..] } else { &versions[..1] };
    super::server(&Arc::new(provider), versions, clients, shown).context("cannot set up TLS")
}

/// A certificate and a key in files. Two that do not fit are those of a moment ago.
#[derive(Debug)]
struct Files(Reread<Arc<CertifiedKey>>);

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.now()
    }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Arc<CertifiedKey>> {
    let [certificate, key] = files else { unreachable!("they are two files") };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read {} (tlsCertFile)", certificate.display()))?;
    ensure!(!chain.is_empty(), "{} (tlsCertFile) has no certificate", certificate.display());
    let named = || format!("cannot use {} (tlsPrivateKeyFile)", key.display());
    let pair = PrivateKeyDer::from_pem_file(key).with_context(named)?;
    let certified = certified_pair(chain, &pair).with_context(named)?;
    certified.keys_match().with_context(named)?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests;
