//! Docker's own registry, as Debian packages it.

#![expect(clippy::unwrap_used, reason = "for tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::tools;

/// `user` with the password `secret`, hashed with bcrypt at the lowest cost.
const HTPASSWD: &str = "user:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// A registry on the loopback address that runs until this is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    directory: tempfile::TempDir,
    host: String,
    authority: Option<String>,
}

/// Something in a registry, and the digest by which it is called: `sha256:` and 64 hexadecimal
/// digits.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

impl Registry {
    /// Starts a registry that everybody may read over plain HTTP.
    pub fn open() -> Self {
        Self::start(tempfile::tempdir().unwrap(), &[])
    }

    /// Starts a registry that speaks TLS, with a certificate of [`Self::authority`], to `user` with
    /// the password `secret`.
    pub fn guarded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (authority, certificate, key) = certificates(directory.path());
        let htpasswd = directory.path().join("htpasswd");
        fs::write(&htpasswd, HTPASSWD).unwrap();
        let mut registry = Self::start(
            directory,
            &[
                ("REGISTRY_HTTP_TLS_CERTIFICATE", &certificate),
                ("REGISTRY_HTTP_TLS_KEY", &key),
                ("REGISTRY_AUTH", Path::new("htpasswd")),
                ("REGISTRY_AUTH_HTPASSWD_REALM", Path::new("test")),
                ("REGISTRY_AUTH_HTPASSWD_PATH", &htpasswd),
            ],
        );
        registry.authority = Some(authority);
        registry
    }

    /// Starts a registry with settings from its documentation, `docs/configuration.md`.
    #[expect(clippy::disallowed_methods, reason = "the registry is a program")]
    fn start(directory: tempfile::TempDir, settings: &[(&str, &Path)]) -> Self {
        let config = directory.path().join("config.yml");
        let root = directory.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:0}}\n",
            root.display()
        );
        fs::write(&config, text).unwrap();
        // With a parent that ends without tidying up, it ends too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(tools::program("docker-registry"));
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        command.envs(settings.iter().copied()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = "listening on ";
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(listening));
        let line = line.expect("the registry says where it listens");
        let address = line.split(listening).nth(1).unwrap();
        let host = address.split(['"', ',']).next().unwrap().to_owned();
        // It must not wait for somebody to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, directory, host, authority: None }
    }

    /// Its host and port, as names of images begin.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name of an image in it.
    pub fn name(&self, reference: &str) -> String {
        format!("{}/{reference}", self.host)
    }

    /// The certificate, in PEM, of whoever signed that of [`Self::guarded`].
    ///
    /// # Panics
    ///
    /// When the registry speaks plain HTTP.
    pub fn authority(&self) -> &str {
        self.authority.as_deref().expect("the registry is guarded")
    }

    /// Puts an image where the registry finds it: its manifest, and the blobs that this names.
    ///
    /// Source: distribution `registry/storage/paths.go`.
    pub fn put(&self, repository: &str, tag: &str, manifest: &Blob, blobs: &[Blob]) {
        let root = self.directory.path().join("storage/docker/registry/v2");
        let repository = root.join("repositories").join(repository);
        let write = |path: PathBuf, content: &[u8]| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let hex = |blob: &Blob| blob.digest.split_once(':').unwrap().1.to_owned();
        for blob in blobs.iter().chain([manifest]) {
            let hex = hex(blob);
            let path = root.join("blobs/sha256").join(&hex[..2]).join(hex);
            write(path.join("data"), &blob.content);
        }
        for blob in blobs {
            let link = repository.join("_layers/sha256").join(hex(blob)).join("link");
            write(link, blob.digest.as_bytes());
        }
        let manifests = repository.join("_manifests");
        let link = manifest.digest.as_bytes();
        write(manifests.join("revisions/sha256").join(hex(manifest)).join("link"), link);
        write(manifests.join("tags").join(tag).join("current/link"), link);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate authority, and files with a certificate and key of it for 127.0.0.1.
fn certificates(directory: &Path) -> (String, PathBuf, PathBuf) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap().pem();
    let (certificate_file, key_file) = (directory.join("tls.crt"), directory.join("tls.key"));
    fs::write(&certificate_file, certificate).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    (root, certificate_file, key_file)
}
