//! What probes say of the containers that run, and what follows.
//!
//! Source: `pkg/kubelet/prober/prober_manager.go` (`UpdatePodStatus`, `isContainerStarted`), and
//! `pkg/kubelet/kuberuntime` (`computePodActions`, `computeInitContainerActions`,
//! `setTerminationGracePeriod`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use mainstay_cri::ContainerState;
use mainstay_pod::RestartPolicy;

use super::state::{Key, Memory, RunGoal, SeenContainer, StopReason};
use crate::lifecycle;
use crate::probe::ProbeKind;

/// What is known of one container that runs and has probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its startup probe succeeded, or it has none.
    pub started: bool,
    /// Its readiness probe says so, or it has none. Means nothing before it has started.
    pub ready: bool,
    /// Neither its startup probe nor its liveness probe has given it up.
    pub alive: bool,
}

impl Memory {
    /// Whether a container has started, as the next ones wait for: it runs, and its startup probe has
    /// succeeded, if it has one.
    pub fn has_started(&self, container: &Container, seen: &SeenContainer) -> bool {
        is_running(seen)
            && !self.awaits_post_start(container, seen)
            && (container.startup_probe.is_none()
                || self.health.get(&seen.id).is_some_and(|health| health.started))
    }

    /// Whether what is done after its start has not ended yet, or not well.
    pub(crate) fn awaits_post_start(&self, container: &Container, seen: &SeenContainer) -> bool {
        let is_starting = || self.in_flight.contains(&Key::Container(container.name.clone()));
        self.post_start.contains(&seen.id)
            || (lifecycle::post_start(container).is_some() && is_starting())
    }

    /// Whether a container is ready: it has started, and its readiness probe succeeds, if it has one.
    pub fn is_ready(&self, container: &Container, seen: &SeenContainer) -> bool {
        self.has_started(container, seen)
            && (container.readiness_probe.is_none()
                || self.health.get(&seen.id).is_some_and(|health| health.ready))
    }

    /// Which of its probes has given up a container that still runs.
    fn given_up(&self, container: &Container, seen: &SeenContainer) -> Option<ProbeKind> {
        let health = self.health.get(&seen.id).filter(|it| !it.alive && is_running(seen))?;
        match (health.started, container.startup_probe.is_some()) {
            (false, true) => Some(ProbeKind::Startup),
            _ => container.liveness_probe.as_ref().map(|_| ProbeKind::Liveness),
        }
    }
}

fn is_running(seen: &SeenContainer) -> bool {
    matches!(seen.state, ContainerState::Running { .. })
}

/// Why a container is ended that one of its probes has given up, and how long it has for that; what follows
/// is for the restart policy to say. `init` is whether it is one of the pod's init containers.
pub(super) fn stop_given_up(
    run: &RunGoal,
    container: &Container,
    init: bool,
    seen: &SeenContainer,
    memory: &Memory,
) -> Option<(StopReason, Duration)> {
    let kind = memory.given_up(container, seen)?;
    let name = &container.name;
    let verb = match kind {
        ProbeKind::Startup => "failed startup probe",
        ProbeKind::Liveness | ProbeKind::Readiness => "failed liveness probe",
    };
    let again = match container.restart_policy.as_deref() {
        Some(policy) => policy != "Never",
        None => run.pod.restart_policy() != RestartPolicy::Never,
    };
    let message = match (init, again) {
        (true, _) => format!("Init container {name} {verb}"),
        (false, true) => format!("Container {name} {verb}, will be restarted"),
        (false, false) => format!("Container {name} {verb}"),
    };
    let own = kind.of(container).and_then(|probe: &Probe| probe.termination_grace_period_seconds);
    let own = own.map(|seconds| Duration::from_secs(seconds.try_into().unwrap_or(0)));
    let grace = own.unwrap_or_else(|| run.pod.termination_grace_period());
    Some((StopReason::Unhealthy { message }, grace))
}
