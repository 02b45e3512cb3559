//! Docker's own registry, as Debian packages it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use expect_test::expect;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;
use crate::digest::Digest;

/// `user` with the password `secret`, hashed with bcrypt at the lowest cost.
const HTPASSWD: &str = "user:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// A registry that runs until this is dropped.
struct Registry {
    child: Child,
    storage: tempfile::TempDir,
    host: String,
}

impl Registry {
    /// Starts a registry with `settings` from its documentation, `docs/configuration.md`.
    #[expect(clippy::disallowed_methods, reason = "the registry is a program")]
    fn start(settings: &[(&str, &Path)]) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let config = storage.path().join("config.yml");
        let root = storage.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:0}}\n",
            root.display()
        );
        fs::write(&config, text).unwrap();
        // With a parent that ends without tidying up, it ends too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary()).arg("serve").arg(&config);
        command.env("OTEL_TRACES_EXPORTER", "none").envs(settings.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = "listening on ";
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(listening));
        let line = line.expect("the registry says where it listens");
        let address = line.split(listening).nth(1).unwrap();
        let host = address.split(['"', ',']).next().unwrap().to_owned();
        // It must not wait for somebody to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, storage, host }
    }

    fn name(&self, reference: &str) -> String {
        format!("{}/{reference}", self.host)
    }

    /// Puts an image where the registry finds it.
    /// Source: distribution `registry/storage/paths.go`.
    fn put(&self, repository: &str, tag: &str, image: &TestImage) -> Digest {
        let root = self.storage.path().join("storage/docker/registry/v2");
        let repository = root.join("repositories").join(repository);
        let write = |path: PathBuf, content: &[u8]| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let blob = |digest: &Digest, content: &[u8]| {
            let path = root.join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
            write(path.join("data"), content);
        };
        let (manifest, blobs) = image.manifest(crate::testing::gzip);
        for (digest, content) in &blobs {
            blob(digest, content);
            let link = repository.join("_layers/sha256").join(digest.hex()).join("link");
            write(link, digest.to_string().as_bytes());
        }
        let digest = Digest::of(&manifest);
        blob(&digest, &manifest);
        let manifests = repository.join("_manifests");
        let link = digest.to_string().into_bytes();
        write(manifests.join("revisions/sha256").join(digest.hex()).join("link"), &link);
        write(manifests.join("tags").join(tag).join("current/link"), &link);
        digest
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `cargo xtask test-tools` puts it.
fn binary() -> PathBuf {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools");
    let tools = std::env::var_os("MAINSTAY_TEST_TOOLS").unwrap_or_else(|| here.into());
    let path = Path::new(&tools).join("docker-registry");
    assert!(path.exists(), "{} is missing; `cargo xtask test-tools` brings it", path.display());
    path
}

/// A certificate authority, and files with a certificate and key of it for 127.0.0.1.
fn certificates(dir: &Path) -> (String, PathBuf, PathBuf) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap().pem();
    let (certificate_file, key_file) = (dir.join("tls.crt"), dir.join("tls.key"));
    fs::write(&certificate_file, certificate).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    (root, certificate_file, key_file)
}

#[tokio::test]
async fn pulled_over_plain_http_on_loopback() {
    if not_root() {
        return;
    }
    let registry = Registry::start(&[]);
    let digest = registry.put("team/app", "1", &image());
    let fixture = Fixture::new();
    let pulled = fixture.pull(&registry.name("team/app:1")).await.unwrap();
    assert_eq!(pulled.id, image().id());
    assert_eq!(pulled.digests[0].digest(), Some(&digest));
    assert!(fixture.store.verify().unwrap().is_empty());
    assert_eq!(fixture.pull(&registry.name("team/app:1")).await.unwrap(), pulled);

    let newer = TestImage { cmd: "newer", ..image() };
    registry.put("team/app", "1", &newer);
    let pulled = fixture.pull(&registry.name("team/app:1")).await.unwrap();
    assert_eq!(pulled.id, newer.id());

    let other = Fixture::new();
    let by_digest = registry.name(&format!("team/app@{digest}"));
    assert_eq!(other.pull(&by_digest).await.unwrap().id, image().id());
    let text = Fixture::new().failure(&registry.name("team/app:missing")).await;
    expect!["NotFound: cannot pull REGISTRY/team/app:missing: asking https://REGISTRY failed: it answered 404 Not Found: manifest unknown"].assert_eq(&text.replace(&registry.host, "REGISTRY"));
    let text = Fixture::new().failure(&registry.name("nobody/nothing")).await;
    expect!["NotFound: cannot pull REGISTRY/nobody/nothing:latest: asking https://REGISTRY failed: it answered 404 Not Found: manifest unknown"].assert_eq(&text.replace(&registry.host, "REGISTRY"));
}

#[tokio::test]
async fn a_download_from_it_goes_on_where_it_stopped() {
    if not_root() {
        return;
    }
    let registry = Registry::start(&[]);
    registry.put("app", "1", &image());
    let fixture = Fixture::new();
    let job = fixture.store.layer_job(&Digest::of(&image().layers[1])).unwrap();
    let partial = job.partial(&Digest::of(&big_layer()));
    fs::write(partial, &big_layer()[..50_000]).unwrap();
    drop(job);
    fixture.pull(&registry.name("app:1")).await.unwrap();
    // Had the rest not fitted, it would have begun anew.
    assert_eq!(fixture.retries(), 0);
}

#[tokio::test]
async fn pulled_over_tls_with_a_password() {
    if not_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, certificate, key) = certificates(dir.path());
    let htpasswd = dir.path().join("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    let registry = Registry::start(&[
        ("REGISTRY_HTTP_TLS_CERTIFICATE", &certificate),
        ("REGISTRY_HTTP_TLS_KEY", &key),
        ("REGISTRY_AUTH", Path::new("htpasswd")),
        ("REGISTRY_AUTH_HTPASSWD_REALM", Path::new("test")),
        ("REGISTRY_AUTH_HTPASSWD_PATH", &htpasswd),
    ]);
    registry.put("app", "1", &image());
    let name = registry.name("app:1");
    let mut fixture = Fixture::new();
    let text = |text: String| text.replace(&registry.host, "REGISTRY");
    let untrusted = text(fixture.failure(&name).await);
    assert!(untrusted.starts_with("Untrusted: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: the certificate of REGISTRY is not trusted: "), "{untrusted}");

    let authorities = vec![root.into_bytes()];
    let host = HostConfig { authorities, ..HostConfig::default() };
    fixture.config.hosts.insert(registry.host.clone(), host);
    expect!["Unauthorized { anonymous: true }: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it wants credentials, or has no such image: authentication required"].assert_eq(&text(fixture.failure(&name).await));
    let keyring = |password: &str| {
        let (username, password) = ("user".into(), password.into());
        Keyring::single(&registry.host, Credentials::Password { username, password })
    };
    fixture.keyring = keyring("wrong");
    expect!["Unauthorized { anonymous: false }: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it refuses the credentials, or has no such image: authentication required"].assert_eq(&text(fixture.failure(&name).await));
    fixture.keyring = keyring("secret");
    let pulled = fixture.pull(&name).await.unwrap();
    assert_eq!(pulled.id, image().id());
    assert!(fixture.store.verify().unwrap().is_empty());

    // The same as Docker keeps it.
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, registry.host);
    let mut other = Fixture::new();
    other.config = fixture.config.clone();
    other.keyring = Keyring::parse(config.as_bytes()).unwrap();
    other.pull(&name).await.unwrap();
}
