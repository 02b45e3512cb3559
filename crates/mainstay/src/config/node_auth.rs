//! Who may ask the node's own API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;

use super::raw::Raw;
use super::{said, time};

/// How the node's API finds out who asks, and what he may. Source: `KubeletAuthentication` and
/// `KubeletAuthorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAuthSettings {
    /// The authorities whose certificates clients have, for a node of somebody else's cluster.
    pub(crate) client_ca: Option<PathBuf>,
    /// Whether who shows nothing is asked for at all.
    pub(crate) anonymous: bool,
    /// Whether the API is asked whose a token is.
    pub(crate) tokens: bool,
    /// Whether whoever is known may do everything, without the API being asked.
    pub(crate) always_allows: bool,
    /// For how long its answers hold.
    pub(crate) cached: Cached,
}

/// For how long an answer of the API holds; nothing is not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cached {
    /// Whose a token is.
    pub(crate) token: Duration,
    /// That somebody may do something.
    pub(crate) authorized: Duration,
    /// That he may not.
    pub(crate) unauthorized: Duration,
}

impl Default for NodeAuthSettings {
    /// Source: `SetDefaults_KubeletConfiguration`.
    fn default() -> Self {
        Self {
            client_ca: None,
            anonymous: false,
            tokens: true,
            always_allows: false,
            cached: Cached {
                token: Duration::from_mins(2),
                authorized: Duration::from_mins(5),
                unauthorized: Duration::from_secs(30),
            },
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Authentication {
    x509: X509,
    webhook: Webhook,
    anonymous: Anonymous,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct X509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Webhook {
    enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    cache_ttl: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Anonymous {
    enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Authorization {
    mode: Option<String>,
    webhook: AuthorizationWebhook,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct AuthorizationWebhook {
    #[serde(rename = "cacheAuthorizedTTL")]
    authorized_ttl: Option<String>,
    #[serde(rename = "cacheUnauthorizedTTL")]
    unauthorized_ttl: Option<String>,
}

/// Source: `BuildAuthn` and `BuildAuthz` in `cmd/kubelet/app/auth.go`.
pub(super) fn node_auth(raw: &Raw, directory: &Path) -> anyhow::Result<NodeAuthSettings> {
    let default = NodeAuthSettings::default();
    let (authentication, authorization) = (&raw.authentication, &raw.authorization);
    let always_allows = match said(&authorization.mode) {
        None | Some("Webhook") => false,
        Some("AlwaysAllow") => true,
        Some(other) => bail!("authorization.mode: unknown authorization mode {other}"),
    };
    let token = time("authentication.webhook.cacheTTL", &authentication.webhook.cache_ttl)?;
    let webhook = &authorization.webhook;
    let authorized = time("authorization.webhook.cacheAuthorizedTTL", &webhook.authorized_ttl)?;
    let unauthorized =
        time("authorization.webhook.cacheUnauthorizedTTL", &webhook.unauthorized_ttl)?;
    Ok(NodeAuthSettings {
        client_ca: said(&authentication.x509.client_ca_file).map(|text| directory.join(text)),
        anonymous: authentication.anonymous.enabled.unwrap_or(default.anonymous),
        tokens: authentication.webhook.enabled.unwrap_or(default.tokens),
        always_allows,
        cached: Cached {
            token: token.unwrap_or(default.cached.token),
            authorized: authorized.unwrap_or(default.cached.authorized),
            unauthorized: unauthorized.unwrap_or(default.cached.unauthorized),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::raw;

    fn read(text: &str) -> Result<NodeAuthSettings, String> {
        node_auth(&raw(text), Path::new("/etc/k")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn who_may_ask_is_as_with_a_kubelet() {
        let default = NodeAuthSettings::default();
        assert_eq!(read(""), Ok(default.clone()));
        // As kubeadm writes it.
        let kubeadm = read(
            "authentication:\n  anonymous: {enabled: false}\n  webhook: {cacheTTL: 0s, enabled: true}\n  \
             x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}\nauthorization:\n  mode: Webhook\n  \
             webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}",
        );
        let client_ca = Some(PathBuf::from("/etc/kubernetes/pki/ca.crt"));
        assert_eq!(kubeadm, Ok(NodeAuthSettings { client_ca, ..default }));
        let other = read(
            "authentication:\n  anonymous: {enabled: true}\n  webhook: {cacheTTL: 1s, enabled: false}\n  \
             x509: {clientCAFile: ca.crt}\nauthorization:\n  mode: AlwaysAllow\n  \
             webhook: {cacheAuthorizedTTL: 2s, cacheUnauthorizedTTL: 3s}",
        );
        let cached = Cached {
            token: Duration::from_secs(1),
            authorized: Duration::from_secs(2),
            unauthorized: Duration::from_secs(3),
        };
        let expected = NodeAuthSettings {
            client_ca: Some("/etc/k/ca.crt".into()),
            anonymous: true,
            tokens: false,
            always_allows: true,
            cached,
        };
        assert_eq!(other, Ok(expected));
        assert_eq!(
            read("authorization: {mode: ABAC}").unwrap_err(),
            "authorization.mode: unknown authorization mode ABAC"
        );
    }
}
