//! What can go wrong with a registry, sorted by what to do about it.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::StatusCode;

use crate::config::ConfigError;
use crate::digest::Digest;
use crate::durable::FileError;
use crate::manifest::DocumentError;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::HelperError;
use crate::space::SpaceError;
use crate::store::StoreError;
use crate::unpack::UnpackError;

/// A pull that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull {}{}", reference.familiar(), also(others))]
pub struct PullError {
    /// What was to be pulled.
    pub reference: Reference,
    /// What failed with mirrors that were tried before, each with its causes.
    pub others: Vec<String>,
    /// Why it failed, at last.
    #[source]
    pub problem: Box<PullProblem>,
}

/// What the reason of a failed pull means for whoever wanted the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The registry has no such image, or none for this platform.
    NotFound,
    /// The registry wants other credentials. Several registries, Docker Hub among them, say so too
    /// when there is no such image; `anonymous` tells that nobody's credentials were refused.
    Unauthorized {
        /// Whether it was asked without credentials.
        anonymous: bool,
    },
    /// The registry did not answer, or answered that it cannot at the moment.
    RegistryUnavailable,
    /// The registry's certificate is not trusted, so nothing it says counts.
    Untrusted,
    /// What the registry sent is not what it should be, or is no image that can be run.
    Invalid,
    /// The credentials cannot be used.
    Credentials,
    /// The disk is full.
    DiskFull,
    /// The store cannot be used for another reason.
    Store,
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum PullProblem {
    /// Asking the registry failed.
    #[error("asking {endpoint} failed")]
    Request {
        /// Whom.
        endpoint: String,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// The registry took longer than the caller wanted to wait.
    #[error("{endpoint} did not answer within {} ms", waited.as_millis())]
    NoAnswer {
        /// Who.
        endpoint: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The registry wants credentials, which a program did not give.
    #[error("it wants credentials, and there are none")]
    Helper(#[from] HelperError),
    /// A manifest or index that is none.
    #[error("manifest {digest} cannot be used")]
    Document {
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// Indexes within indexes.
    #[error("manifest {0} is an index within too many others")]
    TooDeep(Digest),
    /// No image for this machine.
    #[error("there is no image for {wanted}{}", only_for(available))]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// A configuration that is none.
    #[error("configuration {digest} cannot be used")]
    Config {
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// Manifest and configuration disagree.
    #[error("manifest {digest} has {layers} layers, but its configuration says {diff_ids}")]
    LayerCount {
        /// The manifest's digest.
        digest: Digest,
        /// How many the manifest has.
        layers: usize,
        /// How many the configuration has.
        diff_ids: usize,
    },
    /// A layer that cannot be unpacked.
    #[error("layer {digest} cannot be unpacked")]
    Layer {
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The store could not take it.
    #[error("the image store could not take it")]
    Store(#[from] StoreError),
}

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection.
    #[error("connecting to {host} failed")]
    Connect {
        /// To whom.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A certificate that does not count.
    #[error("the certificate of {host} is not trusted: {}", trust_hint(*no_roots))]
    Untrusted {
        /// Whose.
        host: String,
        /// Whether this machine has no certificates to trust at all.
        no_roots: bool,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No TLS where it was expected.
    #[error("{host} does not speak TLS: a registry without it has to be configured as plain HTTP")]
    PlainHttp {
        /// Who.
        host: String,
    },
    /// A certificate authority from the configuration that cannot be read.
    #[error("the certificate authority that is configured for {host} is not PEM")]
    Authority {
        /// For whom.
        host: String,
    },
    /// Nothing came for too long.
    #[error("{host} sent nothing for {} s", waited.as_secs())]
    Stalled {
        /// Who.
        host: String,
        /// How long.
        waited: Duration,
    },
    /// The connection broke.
    #[error("the connection to {host} broke")]
    Broken {
        /// With whom.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection ended before everything had come.
    #[error("{host} sent {received} of {expected} bytes only")]
    Short {
        /// Who.
        host: String,
        /// Bytes that came.
        received: u64,
        /// Bytes that should have.
        expected: u64,
    },
    /// More than was announced or is allowed.
    #[error("{host} sent more than {limit} bytes")]
    Long {
        /// Who.
        host: String,
        /// The limit.
        limit: u64,
    },
    /// An answer other than the content.
    #[error("it answered {status}{}", colon(message))]
    Status {
        /// The status.
        status: StatusCode,
        /// What the registry says about it, if anything.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Not with these credentials.
    #[error("{}{}", refused(*anonymous), colon(message))]
    Unauthorized {
        /// Whether it was asked without credentials.
        anonymous: bool,
        /// What the registry says about it, if anything.
        message: String,
    },
    /// A challenge that nothing can be done with.
    #[error("{host} wants an authentication that is not supported")]
    Challenge {
        /// Who.
        host: String,
    },
    /// The token server.
    #[error("getting a token from {realm} failed")]
    Token {
        /// The token server.
        realm: String,
        /// Why.
        #[source]
        source: Box<RequestError>,
    },
    /// A token server's answer without a token.
    #[error("the token server {realm} answered without a token")]
    NoToken {
        /// The token server.
        realm: String,
    },
    /// A redirection that is not followed.
    #[error("{host} redirects to {location:?}, which is not followed")]
    Redirect {
        /// Who.
        host: String,
        /// To where.
        location: String,
    },
    /// An address that is none.
    #[error("{0:?} is not an address that can be asked")]
    Address(String),
    /// Another content than was asked for.
    #[error(
        "{host} sent another content than was asked for: its digest is {found}, not {expected}"
    )]
    Digest {
        /// Who.
        host: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// What came could not be written.
    #[error("writing what was downloaded failed")]
    File(#[from] FileError),
    /// What came could not be written since too little space is left.
    #[error("downloading was stopped")]
    Space(#[from] SpaceError),
}

// === impl PullError ===

impl PullError {
    /// What the reason means for whoever wanted the image.
    pub fn kind(&self) -> PullErrorKind {
        match &*self.problem {
            PullProblem::Request { source, .. } => source.kind(),
            PullProblem::NoAnswer { .. } => PullErrorKind::RegistryUnavailable,
            PullProblem::Helper(_) => PullErrorKind::Credentials,
            PullProblem::Platform { .. } => PullErrorKind::NotFound,
            PullProblem::Document { .. }
            | PullProblem::TooDeep(_)
            | PullProblem::Config { .. }
            | PullProblem::LayerCount { .. } => PullErrorKind::Invalid,
            PullProblem::Layer { source, .. } if source.is_disk_full() => PullErrorKind::DiskFull,
            PullProblem::Layer { .. } => PullErrorKind::Invalid,
            PullProblem::Store(StoreError::File(error)) if error.is_disk_full() => {
                PullErrorKind::DiskFull
            }
            PullProblem::Store(_) => PullErrorKind::Store,
        }
    }
}

// === impl RequestError ===

impl RequestError {
    pub(super) fn kind(&self) -> PullErrorKind {
        match self {
            Self::Connect { .. }
            | Self::Stalled { .. }
            | Self::Broken { .. }
            | Self::Short { .. } => PullErrorKind::RegistryUnavailable,
            Self::Untrusted { .. } | Self::Authority { .. } => PullErrorKind::Untrusted,
            Self::Status { status: StatusCode::NOT_FOUND, .. } => PullErrorKind::NotFound,
            Self::Status { status, .. } if is_transient(*status) => {
                PullErrorKind::RegistryUnavailable
            }
            Self::Unauthorized { anonymous, .. } => {
                PullErrorKind::Unauthorized { anonymous: *anonymous }
            }
            Self::Token { source, .. } => source.kind(),
            Self::PlainHttp { .. }
            | Self::Long { .. }
            | Self::Status { .. }
            | Self::Challenge { .. }
            | Self::NoToken { .. }
            | Self::Redirect { .. }
            | Self::Address(_)
            | Self::Digest { .. } => PullErrorKind::Invalid,
            Self::File(error) if error.is_disk_full() => PullErrorKind::DiskFull,
            Self::Space(SpaceError::Full { .. }) => PullErrorKind::DiskFull,
            Self::File(_) | Self::Space(_) => PullErrorKind::Store,
        }
    }

    /// Whether the same may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        self.kind() == PullErrorKind::RegistryUnavailable
    }

    /// When the registry wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Token { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// What a failed exchange was about: TLS problems lie deep in an error of the connection.
    pub(super) fn of_connection(
        host: String,
        connecting: bool,
        no_roots: bool,
        error: impl Error + Send + Sync + 'static,
    ) -> Self {
        match tls_error(&error) {
            Some(rustls::Error::InvalidCertificate(_)) => {
                Self::Untrusted { host, no_roots, source: error.into() }
            }
            Some(rustls::Error::InvalidMessage(_)) => Self::PlainHttp { host },
            _ if connecting => Self::Connect { host, source: error.into() },
            _ => Self::Broken { host, source: error.into() },
        }
    }
}

/// The error with its causes, as one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// Answers that are about the moment, not about the request.
fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // What an io::Error carries is not its source, but stands in for it.
        let inner: Option<&'a (dyn Error + 'static)> = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as _),
            None => None,
        };
        next = inner.or_else(|| error.source());
    }
    None
}

fn only_for(available: &[String]) -> String {
    match available {
        [] => ": the index is empty".into(),
        available => format!(": only for {}", available.join(", ")),
    }
}

fn also(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => format!(" (nor from its mirrors: {})", others.join("; ")),
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn trust_hint(no_roots: bool) -> &'static str {
    if no_roots {
        "this machine has no certificate authorities, install the package ca-certificates"
    } else {
        "configure its certificate authority for this registry"
    }
}

fn refused(anonymous: bool) -> &'static str {
    if anonymous {
        "it wants credentials, or has no such image"
    } else {
        "it refuses the credentials, or has no such image"
    }
}
