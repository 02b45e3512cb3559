//! TLS with certificates that are renewed while connections come in.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use mainstay_pki::{Identity, Pki};
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

/// All that shows who this process is.
pub(crate) struct Credentials {
    provider: Arc<rustls::crypto::CryptoProvider>,
    roots: Arc<RootCertStore>,
    api_server: Arc<Current>,
    node: Arc<Current>,
    node_client: Arc<Current>,
}

/// A certificate that may be replaced.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Credentials {
    pub(crate) fn of(pki: &Pki) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in pki.authority().certificates() {
            roots.add(certificate.clone()).context("the authority's certificate is of no use")?;
        }
        let current = |identity| -> anyhow::Result<_> {
            Ok(Arc::new(Current(RwLock::new(certified(&provider, identity)?))))
        };
        Ok(Self {
            api_server: current(pki.api_server())?,
            node: current(pki.node())?,
            node_client: current(pki.node_client())?,
            roots: Arc::new(roots),
            provider: provider.clone(),
        })
    }

    /// Puts renewed certificates in the place of the old ones.
    pub(crate) fn replace(&self, pki: &Pki) -> anyhow::Result<()> {
        let all = [
            (&self.api_server, pki.api_server()),
            (&self.node, pki.node()),
            (&self.node_client, pki.node_client()),
        ];
        for (current, identity) in all {
            let new = certified(&self.provider, identity)?;
            *current.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
        Ok(())
    }

    /// The API's side towards its clients.
    pub(crate) fn api_server(&self) -> Arc<ServerConfig> {
        self.server(self.api_server.clone())
    }

    /// The node API's side towards its clients.
    pub(crate) fn node_server(&self) -> Arc<ServerConfig> {
        self.server(self.node.clone())
    }

    /// The API's side towards nodes.
    pub(crate) fn node_client(&self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has all versions")
            .with_root_certificates(self.roots.clone())
            .with_client_cert_resolver(self.node_client.clone());
        Arc::new(config)
    }

    fn server(&self, current: Arc<Current>) -> Arc<ServerConfig> {
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
            .with_cert_resolver(current);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

fn certified(
    provider: &rustls::crypto::CryptoProvider,
    identity: &Identity,
) -> anyhow::Result<Arc<CertifiedKey>> {
    let key =
        provider.key_provider.load_private_key(identity.key()).context("a key is of no use")?;
    Ok(Arc::new(CertifiedKey::new(vec![identity.certificate().clone()], key)))
}

impl Current {
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
