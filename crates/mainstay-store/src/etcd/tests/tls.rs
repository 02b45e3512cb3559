//! An etcd over TLS, which wants a certificate shown.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::*;

struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Signed {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { certificate: der, pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, address: Option<IpAddr>) -> Signed {
        let mut params = CertificateParams::default();
        params.subject_alt_names = address.map(SanType::IpAddress).into_iter().collect();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed { certificate, key }
    }

    fn client(&self, shown: Option<&Signed>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match shown {
            None => config.with_no_client_auth(),
            Some(Signed { certificate, key }) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                config.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        })
    }
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let address = mainstay_testkit::etcd::address();
    let (ours, others) = (Authority::new(), Authority::new());
    let Signed { certificate, key } = ours.sign(Some(address.into()));
    let extent = Extent {
        tls: Some([
            write(directory.path(), "crt", &certificate.pem()),
            write(directory.path(), "key", &key.serialize_pem()),
        ]),
        client_authority: Some(write(directory.path(), "ca", &ours.pem)),
        flags: Vec::new(),
    };
    let etcd = Etcd::start_at(address, &directory.path().join("etcd"), 1, extent);
    let options = |tls| Options { tls: Some(tls), ..at(etcd.endpoints()) };
    let known = ours.sign(None);
    // It listens before it has found its leader.
    let store = async {
        loop {
            match EtcdStore::open(&options(ours.client(Some(&known)))).await {
                Ok(store) => return store,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let store = timeout(PATIENCE, store).await.expect("it is opened in the end");
    commit(&store, vec![put("a", "1")]).await;
    let strangers = [
        (others.client(Some(&known)), "no TLS with the etcd at 127."),
        (ours.client(Some(&others.sign(None))), "etcd at 127."),
        (ours.client(None), "etcd at 127."),
    ];
    for (tls, expected) in strangers {
        let refused = EtcdStore::open(&options(tls)).await.err().unwrap().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    // Without TLS it is none.
    assert!(EtcdStore::open(&at(etcd.endpoints())).await.is_err());
}
