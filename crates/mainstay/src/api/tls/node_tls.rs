//! TLS of the node's own API, as the machine's owner wants it.
//!
//! Source: `InitializeTLS` in `cmd/kubelet/app/server.go`, `pkg/kubelet/certificate/kubelet.go`.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedCipherSuite};

use super::certified_pair;
use crate::config::NodeTls;

/// The server's side, which shows `own` unless there are files.
///
/// # Errors
///
/// When a file cannot be read, or is none of what it should be.
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

/// The server's side, which shows what is in files.
///
/// # Errors
///
/// As above.
pub(in crate::api) fn of_files(
    clients: Arc<dyn ClientCertVerifier>,
    files: &(PathBuf, PathBuf),
    settings: &NodeTls,
) -> anyhow::Result<Arc<ServerConfig>> {
    of(clients, Files::open(files)?, settings)
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

/// A certificate and a key in files, which may be replaced while they are in use.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    shown: Arc<CertifiedKey>,
    /// How the files were when they were looked at last.
    stamps: Option<[Stamp; 2]>,
}

type Stamp = (u64, Option<SystemTime>);

impl Files {
    fn open((certificate, key): &(PathBuf, PathBuf)) -> anyhow::Result<Arc<Self>> {
        let stamps = stamps(certificate, key);
        let shown = Arc::new(read(certificate, key)?);
        Ok(Arc::new(Self {
            certificate: certificate.clone(),
            key: key.clone(),
            read: Mutex::new(Read { shown, stamps }),
        }))
    }
}

impl ResolvesServerCert for Files {
    /// Looks whether they are others now. Two files that do not fit are those of a moment ago.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = stamps(&self.certificate, &self.key);
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_some() && now != last.stamps {
            last.stamps = now;
            match read(&self.certificate, &self.key) {
                Ok(shown) => {
                    tracing::info!(certificate = %self.certificate.display(), "the node API shows another certificate");
                    last.shown = Arc::new(shown);
                }
                Err(error) => {
                    tracing::warn!("the node API shows the certificate before: {error:#}");
                }
            }
        }
        Some(last.shown.clone())
    }
}

fn stamps(certificate: &Path, key: &Path) -> Option<[Stamp; 2]> {
    let stamp = |metadata: Metadata| (metadata.len(), metadata.modified().ok());
    Some([stamp(fs::metadata(certificate).ok()?), stamp(fs::metadata(key).ok()?)])
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read {} (tlsCertFile)", certificate.display()))?;
    ensure!(!chain.is_empty(), "{} (tlsCertFile) has no certificate", certificate.display());
    let named = || format!("cannot use {} (tlsPrivateKeyFile)", key.display());
    let pair = PrivateKeyDer::from_pem_file(key).with_context(named)?;
    let certified = certified_pair(chain, &pair).with_context(named)?;
    certified.keys_match().with_context(named)?;
    Ok(certified)
}

#[cfg(test)]
mod tests;
