//! Where an image may be asked for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::reference::{DEFAULT_DOMAIN, Reference};

/// The host that serves `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// The address of a registry or mirror: `http[s]://host[:port][/prefix]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub(super) scheme: Scheme,
    /// Host and port.
    pub(super) authority: String,
    /// What is put before `/v2/`: empty, or a path with a slash in front.
    pub(super) prefix: String,
    /// The registry that a mirror is asked about.
    pub(super) mirror_of: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Https,
    Http,
    /// TLS, or plain HTTP if there is no TLS: for registries on this machine, as Docker does it.
    Either,
}

/// Why a text is not the address of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a mirror: it should look like https://host[:port][/path]")]
pub struct EndpointError(pub String);

// === impl Endpoint ===

impl Endpoint {
    /// The registry that a reference names.
    pub(super) fn of_registry(reference: &Reference, plain_http: bool) -> Self {
        let authority = match reference.domain() {
            DEFAULT_DOMAIN => DOCKER_HUB,
            domain => domain,
        };
        let scheme = match plain_http {
            true => Scheme::Http,
            false if is_loopback(authority) => Scheme::Either,
            false => Scheme::Https,
        };
        Self { scheme, authority: authority.into(), prefix: String::new(), mirror_of: None }
    }

    /// The same, asked as a mirror of `registry`.
    pub(super) fn mirroring(&self, registry: &str) -> Self {
        Self { mirror_of: Some(registry.into()), ..self.clone() }
    }

    /// The address of something below `/v2/`. A mirror is told whose image is meant, as
    /// containerd does it: one mirror may serve several registries.
    pub(super) fn url(&self, scheme: &str, path: &str) -> String {
        let Self { authority, prefix, .. } = self;
        let query = self.mirror_of.iter().map(|registry| format!("?ns={registry}"));
        let query: String = query.collect();
        format!("{scheme}://{authority}{prefix}/v2/{path}{query}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Https | Scheme::Either => "https",
            Scheme::Http => "http",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.into());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(wrong()),
        };
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        // A name in front of the host would be a password in a log, and a query has no place.
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'@' | b'?' | b'#' | b'"' | b'\\');
        if authority.is_empty() || !rest.bytes().all(plain) {
            return Err(wrong());
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        Ok(Self { scheme, authority: authority.into(), prefix, mirror_of: None })
    }
}

/// What a host is called in the configuration.
pub(super) fn configured_as(authority: &str) -> &str {
    if authority == DOCKER_HUB { DEFAULT_DOMAIN } else { authority }
}

/// Whether a host is this machine. Source: `isSecureIndex` in moby `registry/config.go`.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(reference: &str) -> Endpoint {
        Endpoint::of_registry(&reference.parse().unwrap(), false)
    }

    #[test]
    fn registries_are_asked_over_tls_unless_they_are_here() {
        let check = |reference, scheme, url| {
            let endpoint = registry(reference);
            assert_eq!((endpoint.scheme, &*endpoint.url("https", "x")), (scheme, url));
        };
        check("nginx", Scheme::Https, "https://registry-1.docker.io/v2/x");
        check("ghcr.io/a/b", Scheme::Https, "https://ghcr.io/v2/x");
        check("localhost:5000/a", Scheme::Either, "https://localhost:5000/v2/x");
        check("127.0.0.2/a", Scheme::Either, "https://127.0.0.2/v2/x");
        check("[::1]:5000/a", Scheme::Either, "https://[::1]:5000/v2/x");
        check("10.0.0.1:5000/a", Scheme::Https, "https://10.0.0.1:5000/v2/x");
        let plain = Endpoint::of_registry(&"10.0.0.1:5000/a".parse().unwrap(), true);
        assert_eq!(plain.scheme, Scheme::Http);
    }

    #[test]
    fn mirrors_have_addresses() {
        let mirror: Endpoint = "http://mirror:5000/proxy/".parse().unwrap();
        let mirror = mirror.mirroring("docker.io");
        assert_eq!(
            mirror.url("http", "a/manifests/1"),
            "http://mirror:5000/proxy/v2/a/manifests/1?ns=docker.io"
        );
        assert_eq!(mirror.to_string(), "http://mirror:5000/proxy");
        for wrong in [
            "",
            "mirror",
            "mirror:5000",
            "ftp://m",
            "https://",
            "https:///x",
            "https://u:p@m",
            "https://m?x",
            "https://m /",
        ] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
