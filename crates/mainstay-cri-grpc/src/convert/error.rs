//! Refusals. Source: `google.golang.org/grpc/codes`, and `k8s.io/cri-api/pkg/errors/errors.go` for
//! those that a text begins with.

use mainstay_cri::{Error, ErrorKind};
use mainstay_grpc::{Code, Status};

use super::ConvertError;

/// What a server puts before its text when a registry does not answer.
const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";

/// What a server said, as a client has it.
pub(crate) fn error_of(Status { code, message }: Status) -> Error {
    let kind = match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Unimplemented => ErrorKind::Unimplemented,
        _ if message.starts_with(REGISTRY_UNAVAILABLE) => ErrorKind::RegistryUnavailable,
        Code::Ok
        | Code::Canceled
        | Code::Unknown
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => ErrorKind::Internal,
    };
    Error::new(kind, message)
}

/// What a server says.
pub(crate) fn status_of(error: &Error) -> Status {
    let (code, text) = (error.kind, error.chain());
    let code = match code {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
        ErrorKind::RegistryUnavailable => {
            return Status::new(Code::Unknown, format!("{REGISTRY_UNAVAILABLE}: {text}"));
        }
    };
    Status::new(code, text)
}

/// As a server has it: what came is its client's.
impl From<ConvertError> for Status {
    fn from(error: ConvertError) -> Self {
        let code = match error {
            ConvertError::Unsupported(_) => Code::Unimplemented,
            ConvertError::Missing(_) | ConvertError::Invalid { .. } => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

/// As a client has it: what came is the runtime's.
impl From<ConvertError> for Error {
    fn from(error: ConvertError) -> Self {
        Self::with_source(ErrorKind::Internal, "the runtime's answer cannot be understood", error)
    }
}
