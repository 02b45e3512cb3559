//! Who may do what: the questions, of which the answers come from outside.
//!
//! Source: `pkg/kubelet/server/auth.go` and `InstallAuthFilter` in `pkg/kubelet/server/server.go`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::{Method, StatusCode};
use rustls_pki_types::CertificateDer;

/// Tells who asks, and whether they may. Given to the node API by whoever puts it together.
#[async_trait]
pub trait NodeAuth: Send + Sync {
    /// Who is asking, by the certificates of the connection, the client's own first, or by the
    /// token of the request.
    ///
    /// # Errors
    ///
    /// When nobody can be told from either. The request is answered with 401.
    async fn authenticate(
        &self,
        certificates: Option<&[CertificateDer<'static>]>,
        bearer: Option<&str>,
    ) -> Result<User, Unauthenticated>;

    /// Whether `user` may do `verb` on the `subresource` of this node, such as `get` on `metrics`.
    ///
    /// # Errors
    ///
    /// Why it cannot be told. The request is answered with 500.
    async fn authorize(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String>;
}

/// Somebody who asks. Source: `user.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// A name for the name, or nothing.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else is known, such as the pod that a token is of.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Nobody can be told from what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unauthenticated(pub String);

/// A request that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

/// What has to be allowed for a request: the verb, and subresources of the node of which one is
/// enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    verb: &'static str,
    subresources: Vec<&'static str>,
}

/// The verb and subresources that a request stands for.
pub(super) fn attributes(method: &Method, path: &str) -> Attributes {
    let verb = match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    };
    let mut subresources = Vec::new();
    // Of the finer ones either will do, since `proxy` alone was asked for before.
    for (below, subresource) in [
        ("/pods", "pods"),
        ("/healthz", "healthz"),
        ("/configz", "configz"),
        ("/runningpods", "pods"),
    ] {
        if is_below(path, below) {
            subresources.push(subresource);
            break;
        }
    }
    let coarse = [
        ("/stats", "stats"),
        ("/metrics", "metrics"),
        ("/logs", "log"),
        ("/checkpoint", "checkpoint"),
        ("/statusz", "statusz"),
        ("/flagz", "configz"),
    ];
    let found = coarse.iter().find(|(below, _)| is_below(path, below));
    subresources.push(found.map_or("proxy", |(_, subresource)| subresource));
    Attributes { verb, subresources }
}

fn is_below(path: &str, below: &str) -> bool {
    path.strip_prefix(below).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Asks until one of the subresources is allowed.
pub(super) async fn authorize(
    auth: &dyn NodeAuth,
    user: &User,
    wanted: &Attributes,
) -> Result<(), Denial> {
    let Attributes { verb, subresources } = wanted;
    for subresource in subresources {
        match auth.authorize(user, verb, subresource).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(user = user.name, verb, subresource, error, "cannot authorize");
                let message = format!(
                    "Authorization error (user={}, verb={verb}, resource=nodes, \
                     subresource={subresource})",
                    user.name
                );
                return Err(Denial { status: StatusCode::INTERNAL_SERVER_ERROR, message });
            }
        }
    }
    let message = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
        user.name,
        subresources.join(" ")
    );
    Err(Denial { status: StatusCode::FORBIDDEN, message })
}

/// The token of an `Authorization` header.
pub(super) fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_subresources() {
        // Source: `TestGetRequestAttributes` in `pkg/kubelet/server/auth_test.go`.
        let cases: [(&str, &str, &[&str]); 16] = [
            ("GET", "/stats/summary", &["stats"]),
            ("GET", "/metrics", &["metrics"]),
            ("GET", "/metrics/cadvisor", &["metrics"]),
            ("GET", "/metricsx", &["proxy"]),
            ("GET", "/logs/syslog", &["log"]),
            ("POST", "/checkpoint/a/b/c", &["checkpoint"]),
            ("GET", "/pods/", &["pods", "proxy"]),
            ("GET", "/pods", &["pods", "proxy"]),
            ("GET", "/runningpods/", &["pods", "proxy"]),
            ("GET", "/healthz/ping", &["healthz", "proxy"]),
            ("GET", "/configz", &["configz", "proxy"]),
            ("GET", "/flagz", &["configz"]),
            ("GET", "/statusz", &["statusz"]),
            ("GET", "/containerLogs/a/b/c", &["proxy"]),
            ("POST", "/exec/a/b/c", &["proxy"]),
            ("OPTIONS", "/", &["proxy"]),
        ];
        for (method, path, subresources) in cases {
            let got = attributes(&method.parse().unwrap(), path);
            assert_eq!(got.subresources, subresources, "{path}");
            let verb = match method {
                "GET" => "get",
                "POST" => "create",
                _ => "",
            };
            assert_eq!(got.verb, verb, "{path}");
        }
    }

    #[test]
    fn a_bearer_token_is_found() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("Bearer", None),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            assert_eq!(bearer(&headers), token, "{value:?}");
        }
    }
}
