//! How a call ends.

use http::{HeaderMap, HeaderValue};

/// The kinds of ends, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "doc/statuscodes.md of gRPC says what each means")]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// How a call ended that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Status {
    /// What kind of end it was.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
}

// === impl Code ===

impl Code {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Canceled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// Numbers that nobody has heard of are [`Code::Unknown`].
    fn of(text: &str) -> Self {
        let number: Option<usize> = text.parse().ok();
        number.and_then(|at| Self::ALL.get(at)).copied().unwrap_or(Self::Unknown)
    }
}

// === impl Status ===

impl Status {
    /// An end of such a kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// That a server of these services does not know a method, in the words of grpc-go, by which clients tell
    /// an old server from a new one. Source: `handleStream` in `server.go`.
    pub fn unknown_method(method: &str, services: &[&str]) -> Self {
        let path = method.strip_prefix('/').unwrap_or(method);
        let message = match path.rsplit_once('/') {
            None => format!("malformed method name: {method:?}"),
            Some((service, method)) if services.contains(&service) => {
                format!("unknown method {method} for service {service}")
            }
            Some((service, _)) => format!("unknown service {service}"),
        };
        Self::new(Code::Unimplemented, message)
    }

    /// How a call ended by what the peer said; `None` if it said nothing of it.
    pub(crate) fn said(headers: &HeaderMap) -> Option<Result<(), Self>> {
        let code = headers.get("grpc-status")?.to_str().map_or(Code::Unknown, Code::of);
        if code == Code::Ok {
            return Some(Ok(()));
        }
        let message = headers.get("grpc-message").map(|text| decoded(text.as_bytes()));
        Some(Err(Self { code, message: message.unwrap_or_default() }))
    }

    /// How a call ended that was answered as HTTP does. Source: `HTTPStatusConvTab` of grpc-go.
    pub(crate) fn of_http(status: http::StatusCode) -> Self {
        let code = match status.as_u16() {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        Self::new(code, format!("unexpected HTTP status code received from server: {status}"))
    }
}

/// What a peer is told at the end of a call.
pub(crate) fn trailers(end: &Result<(), Status>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let code = end.as_ref().map_or_else(|status| status.code, |()| Code::Ok);
    headers.insert("grpc-status", HeaderValue::from(code as u32));
    if let Err(status) = end
        && let Ok(message) = HeaderValue::from_str(&encoded(&status.message))
    {
        headers.insert("grpc-message", message);
    }
    headers
}

/// The most bytes of a message that a peer is told: clients read no more than so many headers.
const TOLD_MAX: usize = 4096;

/// Text as `grpc-message` has it: what is not printable ASCII is percent-encoded.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len().min(TOLD_MAX));
    for byte in text.bytes() {
        if encoded.len() >= TOLD_MAX {
            break;
        }
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// What such text says; what is no escape stays.
fn decoded(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let escaped = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        text.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_understood_as_it_was_told() {
        let failed = Status::new(Code::NotFound, "no container \"ä\": 100%\n");
        for end in [Ok(()), Err(failed)] {
            assert_eq!(Status::said(&trailers(&end)), Some(end));
        }
        assert_eq!(Status::said(&HeaderMap::new()), None);
        let mut odd = HeaderMap::new();
        odd.insert("grpc-status", HeaderValue::from_static("77"));
        odd.insert("grpc-message", HeaderValue::from_static("%zz%4"));
        let unknown = Status::new(Code::Unknown, "%zz%4");
        assert_eq!(Status::said(&odd), Some(Err(unknown)));
    }

    #[test]
    fn a_long_message_is_told_in_part() {
        let long = Status::new(Code::Internal, "ä".repeat(100_000));
        let Some(Err(told)) = Status::said(&trailers(&Err(long))) else {
            unreachable!("it failed")
        };
        assert!(told.message.starts_with("ää") && told.message.len() < TOLD_MAX);
    }
}
