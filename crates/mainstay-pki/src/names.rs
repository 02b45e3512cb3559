//! The names and addresses that a certificate is good for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Characters of a DNS name.
const MAX_NAME: usize = 253;
/// Characters of one label of it.
const MAX_LABEL: usize = 63;

/// One subject alternative name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SubjectName {
    /// A DNS name in lower case; the first label may be `*`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

/// A text that is neither an address nor a DNS name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{name:?} is neither an IP address nor a DNS name; write a name such as api.example.com or an \
         address such as 192.0.2.10, without a port"
)]
pub struct NameError {
    /// The text.
    pub name: String,
}

impl FromStr for SubjectName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Ip(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let labels = name.strip_prefix("*.").unwrap_or(&name);
        let valid = name.len() <= MAX_NAME
            && labels.split('.').all(is_label)
            // 1.2.3 or 1.2.3.4.5 was meant to be an address.
            && labels.rsplit('.').next().is_some_and(|last| !is_number(last));
        if valid { Ok(Self::Dns(name)) } else { Err(NameError { name: text.to_owned() }) }
    }
}

fn is_label(label: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_number(label: &str) -> bool {
    label.bytes().all(|c| c.is_ascii_digit())
}

impl From<IpAddr> for SubjectName {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        for (text, expected) in [
            ("127.0.0.1", Some("127.0.0.1")),
            ("::1", Some("::1")),
            ("[2001:DB8::1]", Some("2001:db8::1")),
            ("api.example.com", Some("api.example.com")),
            ("API.Example.com.", Some("api.example.com")),
            ("*.example.com", Some("*.example.com")),
            ("node_1", Some("node_1")),
            ("localhost", Some("localhost")),
            ("4x4", Some("4x4")),
            ("", None),
            (".", None),
            ("*", None),
            ("a..b", None),
            ("a.*.b", None),
            ("-a", None),
            ("a-", None),
            ("api.example.com:6443", None),
            ("https://api", None),
            ("192.0.2", None),
            ("192.0.2.300", None),
            ("späti.example", None),
            ("a b", None),
        ] {
            let found = text.parse::<SubjectName>().ok().map(|it| it.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
        assert!("a.".repeat(127).parse::<SubjectName>().is_ok());
        assert!("a.".repeat(128).parse::<SubjectName>().is_err());
        assert!("a".repeat(64).parse::<SubjectName>().is_err());
    }
}
