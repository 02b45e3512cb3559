//! Requests that failed.

use std::time::Duration;

use crate::{LONGEST_AWAY, LONGEST_REFUSED, PATIENCE};

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// What it means.
    pub kind: CallErrorKind,
    /// What was asked, and the answer.
    pub message: String,
    /// The answer alone.
    pub answer: String,
    /// Whether the object is not valid as it would be.
    invalid: bool,
    /// The causes that the answer names, such as `NamespaceTerminating`.
    pub causes: Vec<String>,
}

/// What an error means for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallErrorKind {
    /// There is no such object, or no such namespace.
    NotFound,
    /// There is such an object already.
    AlreadyExists,
    /// The object is not, or not any more, the one that was meant.
    Conflict,
    /// The version to go on from is too old.
    Gone,
    /// The API refuses it as it stands.
    Refused,
    /// No answer, or none that says anything: the API may be back in a moment.
    Away,
}

impl CallError {
    fn new(kind: CallErrorKind, asked: &str, answer: String) -> Self {
        let message = match asked {
            "" => answer.clone(),
            asked => format!("{asked}: {answer}"),
        };
        Self { kind, message, answer, invalid: false, causes: Vec::new() }
    }

    /// A request that was not sent, or whose answer is not what it should be.
    pub fn refused(message: String) -> Self {
        Self::new(CallErrorKind::Refused, "", message)
    }

    /// The object is not the one that was meant.
    pub fn conflict(message: String) -> Self {
        Self::new(CallErrorKind::Conflict, "", message)
    }

    pub(crate) fn late(asked: &str) -> Self {
        let answer = format!("no answer within {} seconds", PATIENCE.as_secs());
        Self::new(CallErrorKind::Away, asked, answer)
    }

    pub(crate) fn of(asked: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(asked, status),
            error => Self::new(CallErrorKind::Away, asked, chain(error)),
        }
    }

    pub(crate) fn of_status(asked: &str, status: &kube::core::Status) -> Self {
        let kind = match (status.code, status.reason.as_str()) {
            (404, _) => CallErrorKind::NotFound,
            (409, "AlreadyExists") => CallErrorKind::AlreadyExists,
            (409, _) => CallErrorKind::Conflict,
            (410, _) => CallErrorKind::Gone,
            (408 | 429 | 500.., _) => CallErrorKind::Away,
            _ => CallErrorKind::Refused,
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let causes = causes.map(|cause| cause.reason.clone()).collect();
        let invalid = status.reason == "Invalid";
        Self { causes, invalid, ..Self::new(kind, asked, status.message.clone()) }
    }

    /// The longest wait before it is tried again.
    pub fn longest(&self) -> Duration {
        match self.kind {
            CallErrorKind::Away => LONGEST_AWAY,
            CallErrorKind::NotFound
            | CallErrorKind::AlreadyExists
            | CallErrorKind::Conflict
            | CallErrorKind::Gone
            | CallErrorKind::Refused => LONGEST_REFUSED,
        }
    }

    /// Whether the object would not be valid.
    pub fn is_invalid(&self) -> bool {
        self.invalid
    }

    /// Whether what was meant is not there any more, or is another one by now.
    pub fn is_of_another(&self) -> bool {
        matches!(self.kind, CallErrorKind::NotFound | CallErrorKind::Conflict)
    }

    /// Whether the namespace is being deleted, in which nothing can be made any more. Source:
    /// `NamespaceTerminatingCause` in `staging/src/k8s.io/api/core/v1/types.go`.
    pub fn is_of_ending_namespace(&self) -> bool {
        self.causes.iter().any(|cause| cause == "NamespaceTerminating")
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallError {}

/// An error and its causes, as one line for people.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
