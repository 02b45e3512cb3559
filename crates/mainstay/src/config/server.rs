//! The node's own API, and who hears how the node is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::node_auth::{NodeAuthSettings, node_auth};
use super::raw::Raw;
use super::{said, time};

/// Where a kubelet is. Source: `pkg/cluster/ports/ports.go`.
const PORT: u16 = 10250;
const HEALTHZ_PORT: u16 = 10248;

/// Where the node's API is, and how it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeServer {
    /// Where it listens; `None` is nowhere. Port 0 is a free one.
    pub(crate) address: Option<SocketAddr>,
    /// Where everybody may read.
    pub(crate) read_only: Option<SocketAddr>,
    /// Where `/healthz` is; `None` is nowhere. Port 0 is a free one.
    pub(crate) healthz: Option<SocketAddr>,
    /// Whether it lets people into pods and at their logs.
    pub(crate) debugging: bool,
    /// How long a stream may be silent.
    pub(crate) idle_timeout: Duration,
    /// How it is encrypted.
    pub(crate) tls: NodeTls,
    /// Who may ask.
    pub(crate) auth: NodeAuthSettings,
}

/// How the node's API is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeTls {
    /// Certificate and key; with none it is one that the API's authority has signed.
    pub(crate) files: Option<(PathBuf, PathBuf)>,
    /// Whether TLS 1.2 is not spoken.
    pub(crate) only_1_3: bool,
    /// What may be used in TLS 1.2, by Go's names; with none, all that is good.
    pub(crate) cipher_suites: Vec<String>,
}

impl Default for NodeServer {
    fn default() -> Self {
        Self {
            address: Some((Ipv4Addr::UNSPECIFIED, PORT).into()),
            read_only: None,
            healthz: Some((Ipv4Addr::LOCALHOST, HEALTHZ_PORT).into()),
            debugging: true,
            idle_timeout: Duration::from_hours(4),
            tls: NodeTls::default(),
            auth: NodeAuthSettings::default(),
        }
    }
}

/// Source: `ValidateKubeletConfiguration`, `InitializeTLS` in `cmd/kubelet/app/server.go`.
pub(super) fn server(raw: &Raw, directory: &Path) -> anyhow::Result<NodeServer> {
    let default = NodeServer::default();
    let ip = |field: &'static str, text: &Option<String>, default: Ipv4Addr| match said(text) {
        None => Ok(IpAddr::V4(default)),
        Some(text) => {
            text.parse::<IpAddr>().with_context(|| format!("{field}: {text:?} is no IP address"))
        }
    };
    let port = |field: &'static str, said: Option<i32>| match u16::try_from(said.unwrap_or(0)) {
        Ok(port) => Ok(port),
        Err(_) => bail!("{field} must be between 1 and 65535, inclusive"),
    };
    let address = ip("address", &raw.address, Ipv4Addr::UNSPECIFIED)?;
    let node = match port("port", raw.port)? {
        // How the kubelet's file says "the default".
        0 => PORT,
        port => port,
    };
    let read_only = port("readOnlyPort", raw.read_only_port)?;
    let healthz = match raw.healthz_port {
        None => HEALTHZ_PORT,
        said => port("healthzPort", said)?,
    };
    let health_address = ip("healthzBindAddress", &raw.healthz_bind_address, Ipv4Addr::LOCALHOST)?;
    let is_enabled = raw.enable_server.unwrap_or(true);
    let idle_timeout =
        time("streamingConnectionIdleTimeout", &raw.streaming_connection_idle_timeout)?;
    Ok(NodeServer {
        address: is_enabled.then_some((address, node).into()),
        read_only: (is_enabled && read_only != 0).then_some((address, read_only).into()),
        healthz: (healthz != 0).then_some((health_address, healthz).into()),
        debugging: raw.enable_debugging_handlers.unwrap_or(default.debugging),
        idle_timeout: idle_timeout.unwrap_or(default.idle_timeout),
        tls: tls(raw, directory)?,
        auth: node_auth(raw, directory)?,
    })
}

fn tls(raw: &Raw, directory: &Path) -> anyhow::Result<NodeTls> {
    let file = |text| said(text).map(|text| directory.join(text));
    let files = match (file(&raw.tls_cert_file), file(&raw.tls_private_key_file)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => bail!("tlsCertFile: needs tlsPrivateKeyFile"),
        (None, Some(_)) => bail!("tlsPrivateKeyFile: needs tlsCertFile"),
    };
    let only_1_3 = match said(&raw.tls_min_version) {
        None | Some("VersionTLS10" | "VersionTLS11" | "VersionTLS12") => false,
        Some("VersionTLS13") => true,
        Some(other) => bail!("tlsMinVersion: unknown tls version {other:?}"),
    };
    let mut known = Vec::new();
    for name in &raw.tls_cipher_suites {
        let is = |list: &[&str]| list.contains(&name.as_str());
        ensure!(
            is(&SUITES) || is(&OTHER_SUITES),
            "tlsCipherSuites: Cipher suite {name} not supported or doesn't exist"
        );
        known.extend(is(&SUITES).then(|| name.clone()));
    }
    let is_impossible = !raw.tls_cipher_suites.is_empty() && known.is_empty() && !only_1_3;
    ensure!(!is_impossible, "tlsCipherSuites: none of them is one that this program has");
    Ok(NodeTls { files, only_1_3, cipher_suites: known })
}

/// Suites, and versions of TLS, that this program does not have.
pub(super) fn in_vain(raw: &Raw) -> impl Iterator<Item = String> {
    let old = said(&raw.tls_min_version).filter(|it| ["VersionTLS10", "VersionTLS11"].contains(it));
    let suites = raw.tls_cipher_suites.iter().filter(|name| !SUITES.contains(&name.as_str()));
    let suites = suites.map(|name| format!("tlsCipherSuites[{name}]"));
    old.map(|it| format!("tlsMinVersion[{it}]")).into_iter().chain(suites)
}

/// Go's names of the suites that there are, also of those of TLS 1.3, which cannot be chosen.
const SUITES: [&str; 13] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    // As in Go, without effect; there is nothing to choose.
    "TLS_FALLBACK_SCSV",
    "TLS_EMPTY_RENEGOTIATION_INFO_SCSV",
];

/// Those that Go has beside them, and that are broken or have no forward secrecy. Source: `crypto/tls`,
/// `CipherSuites` and `InsecureCipherSuites`.
const OTHER_SUITES: [&str; 15] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::raw;

    fn read(text: &str) -> Result<NodeServer, String> {
        server(&raw(text), Path::new("/etc/k")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_node_api_is_where_it_is_said_to_be() {
        assert_eq!(read(""), Ok(NodeServer::default()));
        let kubeadm = "port: 0\nhealthzBindAddress: 127.0.0.1\nhealthzPort: 10248\n\
                       streamingConnectionIdleTimeout: 0s";
        assert_eq!(read(kubeadm), Ok(NodeServer::default()));
        let other = read(
            "address: '::'\nport: 1\nreadOnlyPort: 2\nhealthzPort: 0\n\
             enableDebuggingHandlers: false\nstreamingConnectionIdleTimeout: 5m\n\
             tlsCertFile: a.crt\ntlsPrivateKeyFile: /b.key\ntlsMinVersion: VersionTLS13",
        );
        let at = |port| Some(SocketAddr::new("::".parse().unwrap(), port));
        let expected = NodeServer {
            address: at(1),
            read_only: at(2),
            healthz: None,
            debugging: false,
            idle_timeout: Duration::from_secs(300),
            tls: NodeTls {
                files: Some(("/etc/k/a.crt".into(), "/b.key".into())),
                only_1_3: true,
                cipher_suites: Vec::new(),
            },
            auth: NodeAuthSettings::default(),
        };
        assert_eq!(other, Ok(expected));
        let none = NodeServer { address: None, ..NodeServer::default() };
        assert_eq!(read("enableServer: false\nreadOnlyPort: 2"), Ok(none));
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        for (text, expected) in [
            ("address: here", "address: \"here\" is no IP address: invalid IP address syntax"),
            ("port: 65536", "port must be between 1 and 65535, inclusive"),
            ("tlsCertFile: a", "tlsCertFile: needs tlsPrivateKeyFile"),
            ("tlsMinVersion: TLS1", "tlsMinVersion: unknown tls version \"TLS1\""),
            (
                "tlsCipherSuites: [ROT13]",
                "tlsCipherSuites: Cipher suite ROT13 not supported or doesn't exist",
            ),
            (
                "tlsCipherSuites: [TLS_RSA_WITH_AES_128_CBC_SHA]",
                "tlsCipherSuites: none of them is one that this program has",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), expected, "{text}");
        }
        let raw =
            raw("tlsMinVersion: VersionTLS10\ntlsCipherSuites: [TLS_RSA_WITH_AES_128_CBC_SHA, \
             TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]");
        let named: Vec<_> = in_vain(&raw).collect();
        let suite = "tlsCipherSuites[TLS_RSA_WITH_AES_128_CBC_SHA]";
        assert_eq!(named, ["tlsMinVersion[VersionTLS10]", suite]);
    }
}
