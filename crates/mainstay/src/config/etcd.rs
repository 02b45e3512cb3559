//! Where the API's objects are, if not in a file of the instance.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use mainstay_store::etcd::Endpoint;

/// The port that etcd has unless it is told otherwise.
const PORT: u16 = 2379;

/// The members of an etcd, as `--store` names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EtcdAddress {
    /// At least one.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Whether they speak TLS: `etcds`.
    pub(crate) tls: bool,
}

/// Why a text names none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EtcdAddressError {
    #[error(
        "{0:?} is no address of a store, such as etcd://192.0.2.10:2379,192.0.2.11:2379, or etcds://... for \
         TLS"
    )]
    Form(String),
    #[error(
        "{0:?} names a user; put NAME:PASSWORD into a file, and name that with --etcd-auth-file"
    )]
    User(String),
    #[error("{0:?} has a path; all keys are below /registry/, and an etcd is for one cluster")]
    Path(String),
}

/// How an etcd is reached. The names are kube-apiserver's, where it has one.
#[derive(Clone, Debug, Args)]
pub(crate) struct EtcdFlags {
    /// Keep the API's objects in an etcd, such as etcd://192.0.2.10:2379,192.0.2.11:2379, so that
    /// several mainstay serve one cluster; etcds://... is with TLS. Default: a file in ROOT-DIR.
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<EtcdAddress>,
    /// What the certificates of etcd are signed with.
    #[arg(long, value_name = "FILE", requires = "store")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// The certificate that is shown to etcd.
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile", requires = "store")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile", requires = "store")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
    /// A file with NAME:PASSWORD of the user that etcd has for this.
    #[arg(long, value_name = "FILE", requires = "store")]
    pub(crate) etcd_auth_file: Option<PathBuf>,
}

impl FromStr for EtcdAddress {
    type Err = EtcdAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || EtcdAddressError::Form(text.to_owned());
        let (tls, members) = match text.split_once("://") {
            Some(("etcd", members)) => (false, members),
            Some(("etcds", members)) => (true, members),
            _ => return Err(form()),
        };
        if members.contains('@') {
            // Not the password, which would be in every log.
            let shown = members.rsplit('@').next().unwrap_or_default();
            return Err(EtcdAddressError::User(format!("etcd://...@{shown}")));
        }
        let members = members.strip_suffix('/').unwrap_or(members);
        if members.contains('/') {
            return Err(EtcdAddressError::Path(text.to_owned()));
        }
        let endpoints =
            members.split(',').map(|it| member(it).ok_or_else(form)).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, tls })
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn member(text: &str) -> Option<Endpoint> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_name) {
        return None;
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => PORT,
    };
    Some(Endpoint::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_have_members() {
        type Members = &'static [(&'static str, u16)];
        let cases: [(&str, bool, Members); 5] = [
            ("etcd://127.0.0.1:2379", false, &[("127.0.0.1", 2379)]),
            ("etcd://a,b.example:12379/", false, &[("a", 2379), ("b.example", 12379)]),
            ("etcds://etcd-1.example:2379", true, &[("etcd-1.example", 2379)]),
            ("etcd://[::1]", false, &[("::1", 2379)]),
            ("etcd://[2001:db8::1]:1,h:2", false, &[("2001:db8::1", 1), ("h", 2)]),
        ];
        for (text, tls, members) in cases {
            let endpoints = members
                .iter()
                .map(|(host, port)| Endpoint::Tcp { host: (*host).to_owned(), port: *port });
            let expected = EtcdAddress { endpoints: endpoints.collect(), tls };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_names_none_is_told_what_would() {
        let cases = [
            ("", "such as etcd://"),
            ("127.0.0.1:2379", "such as etcd://"),
            ("http://127.0.0.1:2379", "such as etcd://"),
            ("etcd://", "such as etcd://"),
            ("etcd://a,", "such as etcd://"),
            ("etcd://a:0", "such as etcd://"),
            ("etcd://a:b", "such as etcd://"),
            ("etcd://::1", "such as etcd://"),
            ("etcd://[a]:1", "such as etcd://"),
            ("etcd://a b", "such as etcd://"),
            ("etcd://a:1/registry", "an etcd is for one cluster"),
            ("etcd://root:secret@a:1", "--etcd-auth-file"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<EtcdAddress>().unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
