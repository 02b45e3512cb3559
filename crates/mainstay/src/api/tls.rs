//! TLS with certificates that are renewed while connections come in.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use mainstay_pki::{Identity, Pki};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

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
            api_server: Current::new(api_server(&trust, pki)?),
            node: Current::new(trust.certified(pki.node(), None)?),
            node_client: Current::new(trust.certified(pki.node_client(), None)?),
            trust,
        })
    }

    /// Puts renewed certificates in the place of the old ones.
    pub(crate) fn replace(&self, pki: &Pki) -> anyhow::Result<()> {
        self.api_server.replace(api_server(&self.trust, pki)?);
        self.node.replace(self.trust.certified(pki.node(), None)?);
        self.node_client.replace(self.trust.certified(pki.node_client(), None)?);
        Ok(())
    }

    /// The API's side towards its clients.
    pub(crate) fn api_server(&self) -> Arc<ServerConfig> {
        self.trust.server(self.api_server.clone())
    }

    /// The node API's side towards its clients.
    pub(crate) fn node_server(&self) -> Arc<ServerConfig> {
        self.trust.server(self.node.clone())
    }

    /// The API's side towards nodes.
    pub(crate) fn node_client(&self) -> Arc<ClientConfig> {
        Arc::new(self.trust.client(self.node_client.clone()))
    }
}

/// What the API shows: with the authority's certificate, so that who joins can hold it against the hash
/// that he knows.
fn api_server(trust: &Trust, pki: &Pki) -> anyhow::Result<CertifiedKey> {
    trust.certified(pki.api_server(), pki.authority().certificates().first())
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

    /// A certificate and its key, ready to be shown, with the one of who has signed it if clients may not
    /// have that.
    pub(crate) fn certified(
        &self,
        identity: &Identity,
        authority: Option<&CertificateDer<'static>>,
    ) -> anyhow::Result<CertifiedKey> {
        let chain = [identity.certificate()].into_iter().chain(authority).cloned().collect();
        self.certified_pair(chain, identity.key())
    }

    /// The same of a chain and a key.
    pub(crate) fn certified_pair(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> anyhow::Result<CertifiedKey> {
        let key = self.provider.key_provider.load_private_key(key).context("a key is of no use")?;
        Ok(CertifiedKey::new(chain, key))
    }

    /// A client's side.
    pub(crate) fn client(&self, shown: Arc<Current>) -> ClientConfig {
        ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has all versions")
            .with_root_certificates(self.roots.clone())
            .with_client_cert_resolver(shown)
    }

    /// A server's side.
    pub(crate) fn server(&self, shown: Arc<Current>) -> Arc<ServerConfig> {
        // Whoever has no certificate may have a token, or ask for what everybody may know.
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
                .allow_unauthenticated()
                .build()
                .expect("there is an authority");
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has all versions")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(shown);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
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
