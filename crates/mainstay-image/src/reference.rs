//! Image references, as Docker and Kubernetes read and normalise them.
//!
//! The grammar and the rules are those of `distribution/reference` (`reference.go`, `regexp.go`,
//! `normalize.go`), which the kubelet and containerd use:
//!
//! ```text
//! reference      := [domain "/"] path [":" tag] ["@" digest]
//! domain         := (name | IPv4 | "[" IPv6 "]") [":" port]
//! path           := component ("/" component)*
//! component      := [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
//! tag            := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
//! ```
//!
//! A first component is a domain if it is `localhost`, holds a `.` or `:`, or has an upper-case
//! letter; otherwise the domain is `docker.io`, and a single component there belongs to `library`.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// The domain that a reference without one belongs to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Source: `RepositoryNameTotalLengthMax` in `reference.go`.
const PATH_MAX: usize = 255;

/// A normalised reference: domain and path, and a tag, a digest or both.
///
/// `Display` writes the canonical form (`docker.io/library/nginx:latest`), which parses back to an
/// equal value; [`Reference::familiar`] writes the short one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference; the message names the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text is empty.
    #[error("image reference is empty")]
    Empty,
    /// 64 hexadecimal digits name an image by id, not a repository.
    #[error("image reference {0:?} is an image id: a repository cannot be named like one")]
    ImageId(String),
    /// A scheme was put in front.
    #[error("image reference {0:?} must not start with {1:?}: write the registry's name only")]
    Scheme(String, String),
    /// The domain part.
    #[error(
        "registry {domain:?} in image reference {reference:?} is not a host name with an optional port"
    )]
    Domain {
        /// The whole reference.
        reference: String,
        /// The part that is wrong.
        domain: String,
    },
    /// Upper-case letters in the path.
    #[error("repository {path:?} in image reference {reference:?} must be lower-case")]
    Uppercase {
        /// The whole reference.
        reference: String,
        /// The part that is wrong.
        path: String,
    },
    /// The path part.
    #[error(
        "repository {path:?} in image reference {reference:?} is wrong at {component:?}: each part \
         between slashes is letters and digits, joined by one of . _ __ or dashes"
    )]
    Path {
        /// The whole reference.
        reference: String,
        /// The path that is wrong.
        path: String,
        /// The component of the path that is wrong.
        component: String,
    },
    /// The path is longer than 255 bytes.
    #[error("repository in image reference {0:?} is longer than 255 bytes")]
    TooLong(String),
    /// The tag part.
    #[error(
        "tag {tag:?} in image reference {reference:?} is not 1 to 128 letters, digits, _ . or -, \
         the first neither . nor -"
    )]
    Tag {
        /// The whole reference.
        reference: String,
        /// The part that is wrong.
        tag: String,
    },
    /// The digest part.
    #[error("digest in image reference {reference:?} is wrong")]
    Digest {
        /// The whole reference.
        reference: String,
        /// What is wrong with it.
        #[source]
        source: DigestError,
    },
}

// === impl Reference ===

impl Reference {
    /// The registry's name, as written (`docker.io` for Docker Hub), with its port if it has one.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository below the domain, such as `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Domain and path.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag; `latest` if neither a tag nor a digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository at `digest`, without a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            domain: self.domain.clone(),
            path: self.path.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    /// The reference that is looked up and stored: a digest says all, so a tag beside one is
    /// dropped, as `ParseDockerRef` in `normalize.go` does.
    pub fn without_redundant_tag(&self) -> Self {
        match &self.digest {
            Some(digest) => self.with_digest(digest.clone()),
            None => self.clone(),
        }
    }

    /// What a registry calls this image in `/v2/<path>/manifests/<this>`.
    pub fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.into(),
        }
    }

    /// The short form for people: `nginx:latest` for `docker.io/library/nginx:latest`.
    ///
    /// It parses back to an equal value: where leaving something out would mean another image
    /// (`docker.io/localhost/x`), the canonical form stays.
    pub fn familiar(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            let path = match self.path.strip_prefix(OFFICIAL_PREFIX) {
                Some(rest) if !rest.contains('/') => rest,
                _ => &self.path,
            };
            let short = format!("{path}{}", self.suffix());
            if short.parse().as_ref() == Ok(self) {
                return short;
            }
        }
        self.to_string()
    }

    fn suffix(&self) -> String {
        let tag = self.tag.iter().map(|tag| format!(":{tag}"));
        tag.chain(self.digest.iter().map(|digest| format!("@{digest}"))).collect()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let reference = || text.to_owned();
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::ImageId(reference()));
        }
        if let Some(end) = text.find("://") {
            return Err(ReferenceError::Scheme(reference(), text[..end + 3].into()));
        }

        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { reference: reference(), source })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };

        if !is_domain(domain) {
            return Err(ReferenceError::Domain { reference: reference(), domain: domain.into() });
        }
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') && !path.is_empty() {
            format!("{OFFICIAL_PREFIX}{path}")
        } else {
            path.to_owned()
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase { reference: reference(), path });
        }
        if let Some(component) = path.split('/').find(|component| !is_component(component)) {
            let component = component.to_owned();
            return Err(ReferenceError::Path { reference: reference(), path, component });
        }
        if path.len() > PATH_MAX {
            return Err(ReferenceError::TooLong(reference()));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ReferenceError::Tag { reference: reference(), tag: tag.into() });
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { domain: domain.into(), path, tag, digest })
    }
}

/// Splits off the domain, or supplies the default one. Source: `splitDockerDomain`.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

/// Source: `domainAndPort` in `regexp.go`.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) => {
                let hex = |b: u8| b.is_ascii_hexdigit() || b == b':';
                if address.is_empty() || !address.bytes().all(hex) {
                    return false;
                }
                match rest.strip_prefix(':') {
                    Some(port) => ("", Some(port)),
                    None if rest.is_empty() => ("", None),
                    None => return false,
                }
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host = text.starts_with('[') || host.split('.').all(label);
    host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Source: `pathComponent` in `regexp.go`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|b| alphanumeric(**b)).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        let separator = rest.iter().take_while(|b| !alphanumeric(**b)).count();
        match &rest[..separator] {
            [] => return true,
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|b| *b == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

/// Source: `tag` in `regexp.go`.
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests;
