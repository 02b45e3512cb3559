//! TLS with certificates that are renewed while connections come in.

pub(super) mod client;
pub(super) mod client_ca;
pub(super) mod node_tls;
mod reread;

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use mainstay_pki::{Identity, Pki};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};

use crate::config::NodeTls;

/// Whom to trust, and what does the cryptography.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
}

/// A certificate that may be replaced.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<CertifiedKey>>);

/// All that shows who the parts of an embedded API are.
pub(crate) struct Credentials {
    trust: Trust,
    api_server: Arc<Current>,
    node: Arc<Current>,
    node_client: Arc<Current>,
}

impl Credentials {
    pub(crate) fn of(pki: &Pki) -> anyhow::Result<Self> {
        let trust = Trust::new(pki.authority().certificates())?;
        Ok(Self {
            api_server: Current::new(api_server(pki)?),
            node: Current::new(certified(pki.node(), None)?),
            node_client: Current::new(certified(pki.node_client(), None)?),
            trust,
        })
    }

    /// Puts renewed certificates in the place of the old ones.
    pub(crate) fn replace(&self, pki: &Pki) -> anyhow::Result<()> {
        self.api_server.replace(api_server(pki)?);
        self.node.replace(certified(pki.node(), None)?);
        self.node_client.replace(certified(pki.node_client(), None)?);
        Ok(())
    }

    /// The API's side towards its clients.
    pub(crate) fn api_server(&self) -> Arc<ServerConfig> {
        self.trust.server(self.api_server.clone())
    }

    /// The node API's side towards its clients.
    pub(crate) fn node_server(&self, settings: &NodeTls) -> anyhow::Result<Arc<ServerConfig>> {
        node_tls::server(self.trust.clients(), self.node.clone(), settings)
    }

    /// The API's side towards nodes.
    pub(crate) fn node_client(&self) -> Arc<ClientConfig> {
        Arc::new(self.trust.client(self.node_client.clone()))
    }
}

/// What the API shows: with the authority's certificate, so that who joins can hold it against the hash
/// that he knows.
fn api_server(pki: &Pki) -> anyhow::Result<CertifiedKey> {
    certified(pki.api_server(), pki.authority().certificates().first())
}

/// A certificate and its key, ready to be shown, with the one of who has signed it if others may not
/// have that.
pub(crate) fn certified(
    identity: &Identity,
    authority: Option<&CertificateDer<'static>>,
) -> anyhow::Result<CertifiedKey> {
    let chain = [identity.certificate()].into_iter().chain(identity.intermediates());
    certified_pair(chain.chain(authority).cloned().collect(), &identity.key())
}

/// The same of a chain and a key.
pub(crate) fn certified_pair(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> anyhow::Result<CertifiedKey> {
    Ok(CertifiedKey::new(chain, any_supported_type(key).context("a key is of no use")?))
}

impl Trust {
    /// In whom these certificates are of.
    pub(crate) fn new(authorities: &[CertificateDer<'static>]) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in authorities {
            roots.add(certificate.clone()).context("the authority's certificate is of no use")?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Self { provider, roots: Arc::new(roots) })
    }

    /// A client's side.
    pub(crate) fn client(&self, shown: Arc<Current>) -> ClientConfig {
        ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has all versions")
            .with_root_certificates(self.roots.clone())
            .with_client_cert_resolver(shown)
    }

    /// Who clients may be: whoever has no certificate may have a token, or ask for what everybody may know.
    pub(crate) fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .allow_unauthenticated()
            .build()
            .expect("there is an authority")
    }

    /// A server's side.
    pub(crate) fn server(&self, shown: Arc<Current>) -> Arc<ServerConfig> {
        let (clients, versions) = (self.clients(), rustls::DEFAULT_VERSIONS);
        server(&self.provider, versions, clients, shown).expect("ring has all versions")
    }
}

/// A server's side, with other cryptography.
fn server(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    clients: Arc<dyn ClientCertVerifier>,
    shown: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Current {
    pub(crate) fn new(first: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(first))))
    }

    /// What comes in from now on is shown this one.
    pub(crate) fn replace(&self, new: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
