use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{fs, io};

use jiff::Timestamp;
use mainstay_pki::{Pki, Wanted};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, ServerConnection,
    SupportedProtocolVersion,
};

use super::*;
use crate::api::serving::Shown;
use crate::api::tls::Credentials;

struct World {
    directory: tempfile::TempDir,
    pki: Pki,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let wanted = Wanted {
            node_name: "n1".into(),
            host_name: "n1".into(),
            addresses: BTreeSet::new(),
            extra: BTreeSet::new(),
        };
        let (pki, _) = Pki::open(&directory.path().join("pki"), &wanted, Timestamp::now()).unwrap();
        Self { directory, pki }
    }

    fn server(&self, settings: &NodeTls) -> anyhow::Result<Arc<ServerConfig>> {
        Credentials::of(&self.pki).unwrap().node_server(settings)
    }

    /// Which certificate a client is shown that speaks this version.
    fn shown(
        &self,
        server: &Arc<ServerConfig>,
        version: &'static SupportedProtocolVersion,
    ) -> Result<CertificateDer<'static>, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in self.pki.authority().certificates() {
            roots.add(certificate.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("n1").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        while client.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut io::Cursor::new(bytes)).unwrap();
            let heard = server.process_new_packets();
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut io::Cursor::new(bytes)).unwrap();
            client.process_new_packets()?;
            heard?;
        }
        Ok(client.peer_certificates().unwrap()[0].clone())
    }
}

#[test]
fn versions_and_suites_are_those_that_are_wanted() {
    let world = World::new();
    let suites = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    // The key of the node is one of an elliptic curve.
    let fits = suites(&["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"]);
    let rsa = suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    let only_new = suites(&["TLS_AES_128_GCM_SHA256"]);
    for (only_1_3, cipher_suites, old) in [
        (false, Vec::new(), true),
        (true, Vec::new(), false),
        (false, fits, true),
        (false, rsa, false),
        (false, only_new, false),
    ] {
        let settings = NodeTls { files: None, only_1_3, cipher_suites };
        let server = world.server(&settings).unwrap();
        assert!(world.shown(&server, &TLS13).is_ok(), "{settings:?}");
        assert_eq!(world.shown(&server, &TLS12).is_ok(), old, "{settings:?}");
    }
}

#[test]
fn who_comes_before_there_is_a_certificate_is_told_so_at_once() {
    let world = World::new();
    let shown = Arc::new(Shown::default());
    let clients = Credentials::of(&world.pki).unwrap().trust.clients();
    // Files are not what is shown here.
    let files = Some((PathBuf::from("/nonexistent/crt"), PathBuf::from("/nonexistent/key")));
    let settings = NodeTls { files, ..NodeTls::default() };
    let server = of(clients, shown.clone(), &settings).unwrap();
    for version in [&TLS13, &TLS12] {
        let error = world.shown(&server, version).unwrap_err();
        assert!(matches!(error, Error::AlertReceived(_)), "{error}");
    }
    for identity in [world.pki.node(), world.pki.api_server()] {
        shown.show(identity).unwrap();
        assert_eq!(world.shown(&server, &TLS13).unwrap(), *identity.certificate());
    }
}

#[test]
fn files_are_shown_also_when_they_change() {
    let world = World::new();
    let path = |name: &str| world.directory.path().join(name);
    let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
    let files = Some((path("tls.crt"), path("tls.key")));
    let settings = NodeTls { files, ..NodeTls::default() };
    let server = world.server(&settings).unwrap();
    let shown = || world.shown(&server, &TLS13);
    let (node, api) = (world.pki.node(), world.pki.api_server());
    // Whoever comes before there are any is told so at once.
    assert!(matches!(shown(), Err(Error::AlertReceived(_))));
    let wrong = || format!("{:#}", read(&[path("tls.crt"), path("tls.key")]).unwrap_err());
    assert!(wrong().contains("tls.crt (tlsCertFile)"), "{}", wrong());
    write("tls.crt", node.certificate_pem());
    write("tls.key", api.key_pem());
    assert!(matches!(shown(), Err(Error::AlertReceived(_))));
    assert!(wrong().contains("tls.key (tlsPrivateKeyFile)"), "{}", wrong());
    write("tls.key", node.key_pem());
    assert_eq!(shown().unwrap(), *node.certificate());
    // One of two is written: the pair before is shown.
    write("tls.crt", &format!("{}\n", api.certificate_pem()));
    assert_eq!(shown().unwrap(), *node.certificate());
    write("tls.key", &format!("{}\n\n", api.key_pem()));
    assert_eq!(shown().unwrap(), *api.certificate());
}
