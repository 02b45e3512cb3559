//! What can go wrong on the other side of the contract, sorted by what to do about it.

/// The result of every call of the contract.
pub type Result<T> = std::result::Result<T, Error>;

/// A call that failed, with the kind that decides what happens next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the caller may do about it.
    pub kind: ErrorKind,
    /// The thing, the place and the remedy, without the cause.
    pub message: String,
    /// What lies below.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The gRPC status codes that a CRI server uses, under their own names, and the three reasons
/// that the CRI puts into the text of an image error.
///
/// Source: `google.golang.org/grpc/codes`, and `k8s.io/cri-api/pkg/errors/errors.go` for
/// `ErrRegistryUnavailable` and `ErrSignatureValidationFailed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named sandbox, container or image does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The request can never succeed as it stands; only another request can.
    InvalidArgument,
    /// Something that the request needs is held by somebody else at present, such as a host port.
    FailedPrecondition,
    /// The disk, the memory or another quota is used up.
    ResourceExhausted,
    /// The credentials do not suffice.
    PermissionDenied,
    /// The runtime does not answer.
    Unavailable,
    /// The image's registry does not answer.
    RegistryUnavailable,
    /// The call took longer than it was allowed to.
    DeadlineExceeded,
    /// The runtime cannot do this, now or later.
    Unimplemented,
    /// Anything else.
    Internal,
}

impl Error {
    /// An error without a cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error on top of `source`.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// The message followed by those of its causes, as one line for people.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes, as one line for people.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
