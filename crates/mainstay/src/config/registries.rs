//! The file about registries: mirrors, credentials, certificate authorities.
//!
//! Its form is the one that k3s, RKE2 and k3OS have in `registries.yaml`, so that theirs can be
//! used. Source: <https://docs.k3s.io/installation/private-registry>.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use mainstay_image::registry::{Credentials, HostConfig, Keyring, RegistryConfig};
use serde::Deserialize;

/// Where the file is looked for when none was named.
const DEFAULT_REGISTRIES: &str = "/etc/mainstay/registries.yaml";

/// What the file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registries {
    /// How registries are asked.
    pub(crate) config: RegistryConfig,
    /// With which credentials.
    pub(crate) keyring: Keyring,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    mirrors: BTreeMap<String, RawMirror>,
    configs: BTreeMap<String, RawConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawMirror {
    endpoint: Vec<String>,
    rewrite: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawConfig {
    auth: RawAuth,
    tls: RawTls,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAuth {
    username: String,
    password: String,
    auth: String,
    identity_token: String,
}

impl std::fmt::Debug for RawAuth {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawAuth({:?}, ...)", self.username)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTls {
    ca_file: String,
    cert_file: String,
    key_file: String,
    insecure_skip_verify: bool,
}

impl Registries {
    /// Reads the file that was named, or the usual one if it is there.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or says what cannot be; the message names file and field.
    pub(crate) fn read(named: Option<&Path>) -> anyhow::Result<Self> {
        let path = named.unwrap_or(Path::new(DEFAULT_REGISTRIES));
        let bytes = match fs::read(path) {
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let name = path.display().to_string();
        let value = super::read_value(&name, &bytes)?;
        let raw: Raw = serde_json::from_value(value).with_context(|| name.clone())?;
        resolve(raw).with_context(|| name)
    }
}

fn resolve(raw: Raw) -> anyhow::Result<Registries> {
    let mut hosts: BTreeMap<String, HostConfig> = BTreeMap::new();
    let mut keyring = Keyring::anonymous();
    for (registry, mirror) in raw.mirrors {
        if registry.contains('*') {
            bail!("mirrors.{registry:?}: a mirror for every registry is not supported; name each");
        }
        if !mirror.rewrite.is_empty() {
            bail!("mirrors.{registry:?}.rewrite: not supported");
        }
        let host = hosts.entry(registry.clone()).or_default();
        for endpoint in &mirror.endpoint {
            if *endpoint == format!("http://{registry}") {
                host.plain_http = true;
                continue;
            }
            let endpoint = endpoint.parse().with_context(|| format!("mirrors.{registry:?}"))?;
            host.mirrors.push(endpoint);
        }
    }
    for (registry, config) in raw.configs {
        let tls = config.tls;
        if !tls.cert_file.is_empty() || !tls.key_file.is_empty() {
            bail!("configs.{registry:?}.tls: certificates of clients are not supported");
        }
        if tls.insecure_skip_verify {
            bail!(
                "configs.{registry:?}.tls.insecure_skip_verify: not supported, since anybody \
                 could answer for the registry; name its certificate authority in ca_file"
            );
        }
        if !tls.ca_file.is_empty() {
            let authority = fs::read(&tls.ca_file).with_context(|| {
                format!("configs.{registry:?}.tls.ca_file: cannot read {}", tls.ca_file)
            })?;
            hosts.entry(registry.clone()).or_default().authorities.push(authority);
        }
        let auth = config.auth;
        let place = || format!("configs.{registry:?}.auth");
        let own = if !auth.identity_token.is_empty() {
            Keyring::single(&registry, Credentials::IdentityToken(auth.identity_token))
        } else if !auth.username.is_empty() {
            let (username, password) = (auth.username, auth.password);
            Keyring::single(&registry, Credentials::Password { username, password })
        } else if !auth.auth.is_empty() {
            // The same as in Docker's file, so its reader reads it.
            let docker =
                serde_json::json!({ "auths": { registry.clone(): { "auth": auth.auth } } });
            Keyring::parse(docker.to_string().as_bytes()).with_context(place)?
        } else {
            continue;
        };
        keyring = keyring.merged(own);
    }
    let config = RegistryConfig { hosts, ..RegistryConfig::default() };
    Ok(Registries { config, keyring })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Registries, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.yaml");
        fs::write(&path, text).unwrap();
        Registries::read(Some(&path)).map_err(|error| {
            let error = format!("{error:#}");
            error.split_once("registries.yaml").map_or(error.clone(), |(_, rest)| rest.to_owned())
        })
    }

    #[test]
    fn what_k3s_reads_is_read() {
        let registries = read(
            "mirrors:\n  docker.io:\n    endpoint: [\"https://mirror:5000\", \"http://other\"]\n  \
             10.0.0.1:5000:\n    endpoint: [\"http://10.0.0.1:5000\"]\nconfigs:\n  mirror:5000:\n    \
             auth: {username: u, password: p}\n  a.b:\n    auth: {auth: dTpw}\n",
        )
        .unwrap();
        let hosts = &registries.config.hosts;
        let mirrors: Vec<String> =
            hosts["docker.io"].mirrors.iter().map(ToString::to_string).collect();
        assert_eq!(mirrors, ["https://mirror:5000", "http://other"]);
        assert!(hosts["10.0.0.1:5000"].plain_http);
        assert!(hosts["10.0.0.1:5000"].mirrors.is_empty());
        let keyring = format!("{:?}", registries.keyring);
        assert!(keyring.contains("mirror") && keyring.contains("a.b"), "{keyring}");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let check = |text, wanted| assert_eq!(read(text).unwrap_err(), wanted);
        check(
            "mirrors: {'*': {endpoint: []}}",
            ": mirrors.\"*\": a mirror for every registry is not supported; name each",
        );
        check(
            "configs: {a: {tls: {ca_file: /no/such/file}}}",
            ": configs.\"a\".tls.ca_file: cannot read /no/such/file: No such file or directory \
             (os error 2)",
        );
        check("mirror: {}", ": unknown field `mirror`, expected `mirrors` or `configs`");
    }

    #[test]
    fn without_a_file_there_is_nothing_to_say() {
        assert!(Registries::read(Some(Path::new("/no/such/file"))).is_err());
    }
}
