//! What a probe found, in the kubelet's words.
//!
//! Source: `pkg/kubelet/prober/prober.go` (`probe`, `runProbeWithRetries`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use mainstay_cri::{ContainerId, Runtime};
use mainstay_plan::probe::{self, Check, Finding, ProbeKind};
use rustls::ClientConfig;

use super::{dial, exec, get, grpc};

/// How often a probe that fails itself is begun, in all. Source: `maxProbeRetries`.
const ATTEMPTS: usize = 3;

/// How many bytes of an answer count. Source: `maxReadLength`, `maxRespBodyLength`.
pub(super) const MOST: usize = 10 << 10;

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All is well.
    Success,
    /// It is, but for this.
    Warning(String),
    /// It is not.
    Failure(String),
    /// It could not be asked, which says nothing of the container.
    Error {
        /// How the kubelet calls the state.
        state: &'static str,
        message: String,
    },
}

/// What questions are asked with.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) runtime: Arc<dyn Runtime>,
    /// TLS with whomever.
    pub(super) tls: Arc<ClientConfig>,
}

/// Asks until there is an answer.
pub(super) async fn ask(
    means: &Means,
    probe: &Probe,
    container: &Container,
    id: &ContainerId,
    pod_ip: &str,
) -> Answer {
    let mut answer = attempt(means, probe, container, id, pod_ip).await;
    for _ in 1..ATTEMPTS {
        if !matches!(answer, Answer::Error { .. }) {
            break;
        }
        answer = attempt(means, probe, container, id, pod_ip).await;
    }
    answer
}

async fn attempt(
    means: &Means,
    probe: &Probe,
    container: &Container,
    id: &ContainerId,
    pod_ip: &str,
) -> Answer {
    let seconds = probe.timeout_seconds.and_then(|it| u64::try_from(it).ok()).unwrap_or(1);
    let limit = Duration::from_secs(seconds.max(1));
    match probe::check(probe, container, pod_ip) {
        Err(message) => Answer::Error { state: "unknown", message },
        Ok(Check::Exec { command }) => exec::ask(means.runtime.as_ref(), id, command, limit).await,
        Ok(Check::Http(request)) => get::ask(request, limit, &means.tls).await,
        Ok(Check::Tcp { host, port }) => dial::ask(&host, port, limit).await,
        Ok(Check::Grpc { host, port, service }) => grpc::ask(&host, port, &service, limit).await,
    }
}

impl Answer {
    /// What it says of the container.
    pub(super) fn finding(&self) -> Finding {
        match self {
            Self::Success | Self::Warning(_) => Finding::Success,
            Self::Failure(_) => Finding::Failure,
            Self::Error { .. } => Finding::Unknown,
        }
    }

    /// The event about it. Source: `ContainerUnhealthy` and `ContainerProbeWarning` in
    /// `pkg/kubelet/events/event.go`.
    pub(super) fn event(&self, kind: ProbeKind) -> Option<(&'static str, String)> {
        match self {
            Self::Success => None,
            Self::Warning(what) => Some(("ProbeWarning", format!("{kind} probe warning: {what}"))),
            Self::Failure(what) => Some(("Unhealthy", format!("{kind} probe failed: {what}"))),
            Self::Error { state, message } => Some((
                "Unhealthy",
                format!("{kind} probe errored and resulted in {state} state: {message}"),
            )),
        }
    }
}
