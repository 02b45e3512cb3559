//! Who to be for which registry: Docker's `config.json`, and credentials given for one image.
//!
//! Sources: docker/cli `cli/config/types/authconfig.go`; Kubernetes
//! `pkg/credentialprovider/keyring.go` for which entry is for which image.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::manifest::null_as_default;

/// The largest `config.json` that is read, in bytes.
pub const CREDENTIALS_MAX: u64 = 1 << 20;

/// What to show a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that the registry's token server exchanges for others: `identitytoken`.
    IdentityToken(String),
    /// A token to be shown to the registry itself: `registrytoken`.
    RegistryToken(String),
}

/// Credentials by registry, or by part of a registry.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Most specific first.
    keys: Vec<Key>,
    helpers: BTreeMap<String, String>,
    default_helper: Option<String>,
    /// Programs that were asked for credentials for a registry and had none to give, by registry.
    failed: BTreeMap<String, HelperError>,
}

#[derive(Clone, Debug)]
struct Key {
    pattern: Pattern,
    credentials: Credentials,
}

/// What an entry is for: `host[:port][/path]`, where parts of the host between dots may have `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    host: String,
    port: Option<String>,
    path: String,
}

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It is not JSON, or a field has the wrong type. What the reader says of that may have a secret in it.
    #[error("not a config.json with credentials: wrong at line {line} column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1; 0 at the beginning of a line.
        column: usize,
    },
    /// An `auth` that is not base64 of `user:password`.
    #[error("the field \"auth\" of the entry {0:?} is not base64 of user:password")]
    Auth(String),
}

/// A program that keeps credentials. Source: <https://github.com/docker/docker-credential-helpers>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// What its program's name has after `docker-credential-`.
    pub name: String,
    /// What it is asked for: a registry, as Docker calls it.
    pub server: String,
}

/// Credentials that a program may have, and did not give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{program} gave no credentials for {registry}: {reason}")]
pub struct HelperError {
    /// The registry.
    pub registry: String,
    /// The program's name.
    pub program: String,
    /// What went wrong.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConfig {
    #[serde(default, deserialize_with = "null_as_default")]
    auths: BTreeMap<String, RawAuth>,
    #[serde(default, deserialize_with = "null_as_default")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAuth {
    #[serde(deserialize_with = "null_as_default")]
    auth: String,
    #[serde(deserialize_with = "null_as_default")]
    username: String,
    #[serde(deserialize_with = "null_as_default")]
    password: String,
    #[serde(deserialize_with = "null_as_default")]
    identitytoken: String,
    #[serde(deserialize_with = "null_as_default")]
    registrytoken: String,
}

// === impl Credentials ===

impl fmt::Debug for Credentials {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username:?}, ...)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(...)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(...)"),
        }
    }
}

// === impl Keyring ===

impl Keyring {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Credentials for one registry, named as in references.
    pub fn single(registry: &str, credentials: Credentials) -> Self {
        let keys = vec![Key { pattern: Pattern::parse(registry), credentials }];
        Self { keys, ..Self::default() }
    }

    /// Reads a `config.json` of which only `auths` counts: who wrote it may not have programs run.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_auths(bytes: &[u8]) -> Result<Self, KeyringError> {
        let Self { keys, .. } = Self::parse(bytes)?;
        Ok(Self { keys, ..Self::default() })
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        let read = serde_json::from_slice(bytes);
        let RawConfig { auths, cred_helpers, creds_store } = read
            .map_err(|error| KeyringError::Json { line: error.line(), column: error.column() })?;
        let mut keys = Vec::new();
        for (name, auth) in auths {
            if let Some(credentials) = auth.credentials(&name)? {
                keys.push(Key { pattern: Pattern::parse(&name), credentials });
            }
        }
        let default_helper = creds_store.filter(|helper| !helper.is_empty());
        let mut keyring = Self { keys, helpers: cred_helpers, default_helper, ..Self::default() };
        keyring.sort();
        Ok(keyring)
    }

    /// Both; where both have something for an image, that of `self` is tried first.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let mut both = self.before(other);
        both.sort();
        both
    }

    /// Both; all that `self` has for an image is tried before the first of what `other` has. Source:
    /// `UnionDockerKeyring`.
    #[must_use]
    pub fn before(mut self, other: Self) -> Self {
        self.keys.extend(other.keys);
        self.helpers.extend(other.helpers);
        self.default_helper = self.default_helper.or(other.default_helper);
        self.failed.extend(other.failed);
        self
    }

    /// What to try for `repository` at `host`, in order; nothing means to ask as nobody.
    pub fn find(&self, host: &str, repository: &str) -> Vec<Credentials> {
        let found = self.keys.iter().filter(|key| key.pattern.matches(host, repository));
        found.map(|key| key.credentials.clone()).collect()
    }

    /// The program that may have credentials for `repository` at `host`, if there is one. The one for a
    /// registry stands above the one for all, which is for those that nothing else is known of.
    pub fn helper(&self, host: &str, repository: &str) -> Option<Helper> {
        let mut of_host = self.helpers.iter();
        let of_host = of_host.find(|(key, _)| Pattern::parse(key).matches(host, repository));
        let for_all =
            || self.default_helper.as_ref().filter(|_| self.find(host, repository).is_empty());
        let name = of_host.map(|(_, helper)| helper).or_else(for_all)?.clone();
        // Source: docker/cli `cli/config/configfile`, `registry.IndexServer`.
        let server = match host {
            "docker.io" => "https://index.docker.io/v1/",
            host => host,
        };
        Some(Helper { name, server: server.to_owned() })
    }

    /// Takes in what a program said about a registry. Its credentials are tried first.
    pub fn take_in(&mut self, host: &str, answer: Result<Option<Credentials>, HelperError>) {
        match answer {
            Ok(Some(credentials)) => {
                self.keys.insert(0, Key { pattern: Pattern::parse(host), credentials });
            }
            Ok(None) => {}
            Err(error) => drop(self.failed.insert(host.to_owned(), error)),
        }
    }

    /// Why a program gave no credentials for `host`, which is said when the registry does want some.
    pub fn failure(&self, host: &str) -> Option<HelperError> {
        self.failed.get(host).cloned()
    }

    /// The longer path and the longer host first; of equals the one that was there first.
    fn sort(&mut self) {
        self.keys.sort_by(|a, b| {
            let specific = |key: &Key| (key.pattern.path.len(), !key.pattern.host.contains('*'));
            specific(b).cmp(&specific(a))
        });
    }
}

/// Whether an entry that is written so is for `repository` at `host`.
pub fn is_for(pattern: &str, host: &str, repository: &str) -> bool {
    Pattern::parse(pattern).matches(host, repository)
}

// === impl Helper ===

impl Helper {
    /// Its program, to be looked for in `PATH`; `None` for a name that would lead elsewhere.
    pub fn program(&self) -> Option<String> {
        let plain = !self.name.contains('/');
        plain.then(|| format!("docker-credential-{}", self.name))
    }

    /// Reads what it answered to `get`; `None` if it knows nothing of the registry.
    ///
    /// # Errors
    ///
    /// When that is no answer. What it is is not repeated, since it may be a secret.
    pub fn answer(success: bool, answer: &[u8]) -> Result<Option<Credentials>, &'static str> {
        /// Source: `errCredentialsNotFoundMessage` in `credentials/error.go`.
        const NOT_FOUND: &[u8] = b"credentials not found in native keychain";
        if !success {
            let unknown = answer.trim_ascii() == NOT_FOUND;
            return if unknown { Ok(None) } else { Err("it failed") };
        }
        let answer: Answer = serde_json::from_slice(answer)
            .map_err(|_| "its answer is not JSON with Username and Secret")?;
        Ok(Some(match answer.username.as_str() {
            // Source: `tokenUsername` in docker/cli `cli/config/credentials/native_store.go`.
            "<token>" => Credentials::IdentityToken(answer.secret),
            _ => Credentials::Password { username: answer.username, password: answer.secret },
        }))
    }
}

// === impl Pattern ===

impl Pattern {
    /// Reads a key as `docker login` and people write it: with or without scheme and version.
    fn parse(key: &str) -> Self {
        let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
        let (authority, path) = key.split_once('/').unwrap_or((key, ""));
        let path = path.trim_matches('/');
        let path = match path {
            "v1" | "v2" => "",
            path => path,
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.to_owned())),
            _ => (authority, None),
        };
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            host => host,
        };
        Self { host: host.to_ascii_lowercase(), port, path: path.into() }
    }

    fn matches(&self, host: &str, repository: &str) -> bool {
        let Self { host, port, .. } = Self::parse(host);
        let parts = |host: &str| host.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (mine, its) = (parts(&self.host), parts(&host));
        let path = repository.strip_prefix(&self.path);
        let whole = |rest: &str| self.path.is_empty() || rest.is_empty() || rest.starts_with('/');
        port == self.port
            && mine.len() == its.len()
            && mine
                .iter()
                .zip(&its)
                .all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes()))
            && path.is_some_and(whole)
    }
}

// === impl RawAuth ===

impl RawAuth {
    /// `None` for an empty entry, as `docker login` leaves it where a helper has the secret.
    fn credentials(self, name: &str) -> Result<Option<Credentials>, KeyringError> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credentials::RegistryToken(self.registrytoken)));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identitytoken)));
        }
        if !self.username.is_empty() {
            let Self { username, password, .. } = self;
            return Ok(Some(Credentials::Password { username, password }));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        decode(&self.auth).map(Some).ok_or_else(|| KeyringError::Auth(name.into()))
    }
}

fn decode(auth: &str) -> Option<Credentials> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, config).decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker once encoded its buffer with what was unused of it.
    let password = password.trim_end_matches('\0');
    Some(Credentials::Password { username: username.into(), password: password.into() })
}

/// Whether `text` is `pattern`, in which `*` stands for any number of characters.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last `*` does not fit: it takes one character more.
    let mut retry = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t + 1));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, next)) = retry {
            (p, t) = (after, next);
            retry = Some((after, next + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests;
