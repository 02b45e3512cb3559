//! Programs that a kubelet has for credentials: exec plugins of a CredentialProviderConfig.
//!
//! Source: `pkg/credentialprovider/plugin/plugin.go`.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mainstay_image::reference::Reference;
use mainstay_image::registry::{Credentials, Keyring, is_for};
use serde::{Deserialize, Serialize};

use super::program;

/// One program, and for what it is asked.
#[derive(Clone, Debug)]
pub struct CredentialProvider {
    /// Its name, which is that of its file.
    pub name: String,
    /// The file; absolute.
    pub program: PathBuf,
    /// The images for which it is asked: `host[:port][/path]`, where parts of the host may have `*`.
    pub match_images: Vec<String>,
    /// For how long what it says is kept if it does not say; zero is not at all.
    pub default_cache_duration: Duration,
    /// In which version it is spoken to: `credentialprovider.kubelet.k8s.io/v1` or an older one.
    pub api_version: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables beside those of the agent.
    pub env: Vec<(String, String)>,
    /// How durations are written, which whoever reads configurations knows.
    pub duration: fn(&str) -> Option<Duration>,
}

/// All programs, and what they said lately.
#[derive(Clone, Default)]
pub struct CredentialProviders {
    all: Arc<Vec<CredentialProvider>>,
    /// By the program's name, and what it is said of.
    kept: Arc<Mutex<HashMap<(String, Scope), Kept>>>,
}

/// Of what something was said. Source: `PluginCacheKeyType`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    Image(String),
    Registry(String),
    Global,
}

struct Kept {
    keyring: Keyring,
    until: Instant,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'a str,
    image: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    kind: String,
    api_version: String,
    cache_key_type: String,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    username: String,
    password: String,
}

/// What a program said, understood.
struct Said {
    keyring: Keyring,
    scope: Scope,
    keep: Duration,
}

// === impl CredentialProviders ===

impl std::fmt::Debug for CredentialProviders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all.iter()).finish()
    }
}

impl CredentialProviders {
    /// These, in their order.
    pub fn new(all: Vec<CredentialProvider>) -> Self {
        Self { all: Arc::new(all), kept: Arc::default() }
    }

    /// What those have for an image that are for it, and why some had nothing to give, by name.
    pub(super) async fn ask(&self, reference: &Reference) -> (Keyring, Vec<(String, String)>) {
        let (mut keyring, mut failed) = (Keyring::anonymous(), Vec::new());
        let (host, path) = (reference.domain(), reference.path());
        let fits = |it: &&CredentialProvider| it.match_images.iter().any(|m| is_for(m, host, path));
        for provider in self.all.iter().filter(fits) {
            // The whole name, without what tells its versions apart, as a kubelet asks.
            let image = format!("{host}/{path}");
            let kept = self.kept(&provider.name, &image, host, Instant::now());
            let found = match kept {
                Some(kept) => Ok(kept),
                None => self.ask_one(provider, &image, host).await,
            };
            match found {
                Ok(found) => keyring = keyring.merged(found),
                Err(reason) => failed.push((provider.name.clone(), reason)),
            }
        }
        (keyring, failed)
    }

    async fn ask_one(
        &self,
        provider: &CredentialProvider,
        image: &str,
        host: &str,
    ) -> Result<Keyring, String> {
        let api_version = &provider.api_version;
        let request = Request { kind: "CredentialProviderRequest", api_version, image };
        let request = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let CredentialProvider { program, args, env, .. } = provider;
        let answer = program::run(program, args, env, &request).await?;
        if !answer.success {
            return Err(format!("it failed: {}", answer.complaint));
        }
        let Said { keyring, scope, keep } = provider.understand(&answer.output, image, host)?;
        if !keep.is_zero() {
            let now = Instant::now();
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|_, kept| kept.until > now);
            let until = now + keep;
            kept.insert((provider.name.clone(), scope), Kept { keyring: keyring.clone(), until });
        }
        Ok(keyring)
    }

    /// What a program said before and still holds: of the image, of its registry, of all.
    fn kept(&self, provider: &str, image: &str, host: &str, now: Instant) -> Option<Keyring> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let scopes = [Scope::Image(image.into()), Scope::Registry(host.into()), Scope::Global];
        scopes.into_iter().find_map(|scope| {
            let found = kept.get(&(provider.to_owned(), scope)).filter(|it| it.until > now)?;
            Some(found.keyring.clone())
        })
    }
}

// === impl CredentialProvider ===

impl CredentialProvider {
    /// Reads an answer. What is in it is not repeated, since it may be a secret.
    fn understand(&self, answer: &[u8], image: &str, host: &str) -> Result<Said, String> {
        let response: Response = serde_json::from_slice(answer)
            .map_err(|_| "error decoding credential provider plugin response from stdout")?;
        if response.kind != "CredentialProviderResponse" {
            return Err("it did not answer with a CredentialProviderResponse".to_owned());
        }
        if response.api_version != self.api_version {
            return Err(format!(
                "apiVersion from credential plugin response did not match expected apiVersion:{}, \
                 actual apiVersion:{}",
                self.api_version, response.api_version
            ));
        }
        let scope = match response.cache_key_type.as_str() {
            "Image" => Scope::Image(image.to_owned()),
            "Registry" => Scope::Registry(host.to_owned()),
            "Global" => Scope::Global,
            other => {
                return Err(format!(
                    "credential provider plugin did not return a valid cacheKeyType: {other}"
                ));
            }
        };
        let keep = match &response.cache_duration {
            None => self.default_cache_duration,
            Some(text) => {
                (self.duration)(text).ok_or_else(|| format!("{text:?} is no cacheDuration"))?
            }
        };
        let mut keyring = Keyring::anonymous();
        for (pattern, Auth { username, password }) in response.auth.into_iter().flatten() {
            let credentials = Credentials::Password { username, password };
            keyring = keyring.merged(Keyring::single(&pattern, credentials));
        }
        Ok(Said { keyring, scope, keep })
    }
}

#[cfg(test)]
mod tests;
