//! What the controllers share that keep an object in each namespace.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use mainstay_client::{CallError, CallErrorKind};

/// Whether things are made in a namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Active")
}

/// What is left to do after an object was written: nothing if somebody else has made it, or the
/// namespace ends, which is heard of.
pub(crate) fn written<T>(answer: Result<T, CallError>) -> Result<Option<Duration>, CallError> {
    match answer {
        Err(error)
            if error.kind != CallErrorKind::AlreadyExists && !error.is_of_ending_namespace() =>
        {
            Err(error)
        }
        _ => Ok(None),
    }
}

/// A namespace `a` in a phase.
#[cfg(test)]
pub(crate) fn in_phase(phase: &str) -> Namespace {
    use k8s_openapi::api::core::v1::NamespaceStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    Namespace {
        metadata: ObjectMeta { name: Some("a".into()), ..ObjectMeta::default() },
        status: Some(NamespaceStatus { phase: Some(phase.into()), ..NamespaceStatus::default() }),
        ..Namespace::default()
    }
}
