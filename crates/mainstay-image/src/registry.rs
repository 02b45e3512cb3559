//! Pulling images from registries.
//!
//! # Why not a ready client
//!
//! oci-client 0.18 was read for this. It can ask for a part of a blob, but everything around that
//! would still be ours: retries, mirrors to fall back to, certificate authorities for one registry
//! (it has one HTTP client for all), platforms with variants, several credentials for one
//! registry. What it does by itself stands in the way: failures to get a token are dropped
//! (`get_auth_token` ends in `.ok()`), so that a token server that does not answer cannot be told
//! from a wrong password, identity tokens are not exchanged, manifests are read without a limit,
//! and it brings reqwest with its URL and IDNA tables. hyper with hyper-rustls, which do the parts
//! that are hard, are needed elsewhere anyway.

mod blob;
mod challenge;
mod credentials;
mod endpoint;
mod error;
mod http;
mod identity;
mod layer;
mod pull;
mod retry;

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_proxy::Proxies;

use crate::platform::Platform;
pub use credentials::{
    CREDENTIALS_MAX, Credentials, Helper, HelperError, Keyring, KeyringError, is_for,
};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{PullError, PullErrorKind, PullProblem, RequestError};
pub use pull::{PullRequest, Puller};
pub use retry::RetryPolicy;

pub(crate) use challenge::parse as parse_challenge;
#[cfg(test)]
pub(crate) use error::chain;

/// How registries are asked.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// What is particular to some hosts, by host and port as they stand in references and
    /// mirrors' addresses; Docker Hub is `docker.io`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// What is chosen where there are images for several platforms.
    pub platform: Platform,
    /// When to try again.
    pub retry: RetryPolicy,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How many layers of one image are downloaded and unpacked at the same time.
    pub parallel_layers: usize,
    /// As what to introduce oneself.
    pub user_agent: String,
    /// The proxies on the way to them.
    pub proxies: Proxies,
}

/// What is particular to a registry or mirror.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// Where to ask for its images first, in order.
    pub mirrors: Vec<Endpoint>,
    /// Whether it is asked without TLS.
    pub plain_http: bool,
    /// Certificate authorities that count for it beside those of the machine, each as PEM text.
    pub authorities: Vec<Vec<u8>>,
}

/// How long to wait for a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TCP connection.
    pub connect: Duration,
    /// For the start of an answer, connecting included.
    pub answer: Duration,
    /// For the next part of a download.
    pub stalled: Duration,
}

// === impl RegistryConfig ===

impl Default for RegistryConfig {
    /// Every registry over TLS, for this machine's platform, three layers at a time.
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            platform: Platform::host(),
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            parallel_layers: 3,
            user_agent: concat!("mainstay/", env!("CARGO_PKG_VERSION")).into(),
            proxies: Proxies::none(),
        }
    }
}

// === impl Timeouts ===

impl Default for Timeouts {
    /// 10 s, 30 s, 30 s.
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { connect: 10 * second, answer: 30 * second, stalled: 30 * second }
    }
}

#[cfg(test)]
mod tests;
