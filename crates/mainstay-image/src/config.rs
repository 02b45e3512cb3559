//! The configuration of an image: what to run and which layers it is made of.
//!
//! Source: OCI image-spec v1.1, `config.md`; Docker's configuration has the same fields.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::manifest::null_as_default;
use crate::platform::Platform;

/// The largest configuration that is read, in bytes.
pub const CONFIG_MAX: u64 = 8 << 20;
/// The most layers that an image may have. Source: `maxLayerDepth` in Docker's layer store, which
/// no image is built beyond; the mount data of overlayfs has to fit into one page.
pub const LAYERS_MAX: usize = 127;

/// What an image says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// What it runs on.
    pub platform: Platform,
    /// When it was built, as RFC 3339 text.
    pub created: Option<String>,
    /// Environment, each `NAME=value`.
    pub env: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments for the entrypoint, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// `user`, `uid`, either with `:group` or `:gid`, or empty for root.
    pub user: String,
    /// The directory to start in, or empty for `/`.
    pub working_dir: String,
    /// The signal that asks it to stop, such as `SIGQUIT` or `3`, or empty for `SIGTERM`.
    pub stop_signal: String,
    /// Ports it listens on, each `port`, `port/tcp` or `port/udp`.
    pub exposed_ports: Vec<String>,
    /// Directories that should be volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The digests of its layers when uncompressed, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// Why some bytes are not an image configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not JSON, or a field has the wrong type.
    #[error("not an image configuration")]
    Json(#[from] serde_json::Error),
    /// Layers in another form than tar archives.
    #[error("image configuration has rootfs type {0:?}: only \"layers\" is supported")]
    RootfsType(String),
    /// More layers than can be mounted.
    #[error("image has {0} layers: at most {LAYERS_MAX} are supported")]
    TooManyLayers(usize),
    /// An environment entry that no process could be given.
    #[error("image configuration has the environment entry {0:?}, which is not NAME=value")]
    Env(String),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default)]
    created: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    config: RawRun,
    rootfs: RawRootfs,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    #[serde(deserialize_with = "null_as_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    user: String,
    #[serde(deserialize_with = "null_as_default")]
    working_dir: String,
    #[serde(deserialize_with = "null_as_default")]
    stop_signal: String,
    #[serde(deserialize_with = "null_as_default")]
    exposed_ports: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "null_as_default")]
    volumes: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "null_as_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, deserialize_with = "null_as_default")]
    diff_ids: Vec<Digest>,
}

// === impl ImageConfig ===

impl ImageConfig {
    /// Reads a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let Raw { platform, created, config, rootfs } = serde_json::from_slice(bytes)?;
        if !matches!(rootfs.kind.as_str(), "" | "layers") {
            return Err(ConfigError::RootfsType(rootfs.kind));
        }
        if rootfs.diff_ids.len() > LAYERS_MAX {
            return Err(ConfigError::TooManyLayers(rootfs.diff_ids.len()));
        }
        let unusable =
            |entry: &&String| entry.contains('\0') || entry.find('=').is_none_or(|i| i == 0);
        if let Some(entry) = config.env.iter().find(unusable) {
            return Err(ConfigError::Env(entry.clone()));
        }
        Ok(Self {
            platform,
            created,
            env: config.env,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            user: config.user,
            working_dir: config.working_dir,
            stop_signal: config.stop_signal,
            exposed_ports: config.exposed_ports.into_keys().collect(),
            volumes: config.volumes.into_keys().collect(),
            labels: config.labels,
            diff_ids: rootfs.diff_ids,
        })
    }
}

#[cfg(test)]
mod tests;
