//! What a pod's status says.
//!
//! Source: `pkg/kubelet/kubelet_pods.go` (`generateAPIPodStatus`, `getPhase`),
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go` and `pkg/kubelet/status/generate.go`.

mod conditions;
mod containers;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_pod::{Pod, RestartPolicy};

pub use containers::{container_id, container_of_id};

use crate::pod::{Memory, SeenPod, SeenSandbox};

/// What is known about the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The host's own, the primary one first.
    pub ips: Vec<IpAddr>,
}

/// Which container states a pod has, and so its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A container has not run yet.
    Pending,
    /// At least one runs, or will again.
    Running,
    /// All have ended for good, with success.
    Succeeded,
    /// All have ended for good, and one without success.
    Failed,
}

impl Phase {
    /// As the API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// Whether a status says that all containers have ended for good.
pub fn is_over(status: &PodStatus) -> bool {
    let over = [Phase::Succeeded, Phase::Failed];
    over.iter().any(|over| status.phase.as_deref() == Some(over.as_str()))
}

/// Computes the status of a pod that should run.
///
/// `before` is the status as it was computed last, whose times are kept where nothing changed.
pub fn compute(
    pod: &Pod,
    seen: &SeenPod,
    memory: &Memory,
    node: &NodeAddresses,
    before: Option<&PodStatus>,
    now: Timestamp,
) -> PodStatus {
    compute_under(pod.restart_policy(), pod, seen, memory, node, before, now)
}

/// The same of a pod that is being ended, whose containers are not started again. `ended` is whether
/// nothing of it runs any more: a pod that never ran has failed then.
///
/// Source: `pkg/kubelet/kubelet_pods.go` (`getPhase` of a terminal pod) and
/// `pkg/kubelet/status/status_manager.go`, `TerminatePod`.
pub fn compute_stopping(
    pod: &Pod,
    seen: &SeenPod,
    memory: &Memory,
    node: &NodeAddresses,
    before: Option<&PodStatus>,
    ended: bool,
    now: Timestamp,
) -> PodStatus {
    let never = RestartPolicy::Never;
    let mut status = compute_under(never, pod, seen, memory, node, before, now);
    if ended && !is_over(&status) {
        status.phase = Some(Phase::Failed.as_str().to_owned());
    }
    status
}

fn compute_under(
    policy: RestartPolicy,
    pod: &Pod,
    seen: &SeenPod,
    memory: &Memory,
    node: &NodeAddresses,
    before: Option<&PodStatus>,
    now: Timestamp,
) -> PodStatus {
    let own = || seen.sandboxes.iter().filter(|sandbox| sandbox.uid == pod.uid());
    let sandbox: Option<&SeenSandbox> = own().next();
    let views = containers::views(pod, policy, own(), memory, now);
    let phase = phase(&views, policy);
    let host_ips: Vec<String> = node.ips.iter().map(ToString::to_string).collect();
    let pod_ips: Vec<String> = if pod.is_host_network() {
        host_ips.clone()
    } else {
        sandbox.iter().flat_map(|sandbox| &sandbox.ips).map(ToString::to_string).collect()
    };
    let ready = sandbox.is_some_and(|sandbox| sandbox.ready);
    // Known from what is there, also to an agent that has just been started.
    let began = own().map(|sandbox| sandbox.created_at).min();
    let start_time = before.and_then(|status| status.start_time.clone()).or(began.map(Time));
    PodStatus {
        phase: Some(phase.as_str().to_owned()),
        conditions: Some(conditions::all(&views, phase, ready, before, now)),
        container_statuses: Some(containers::statuses(&views)),
        host_ip: host_ips.first().cloned(),
        host_ips: some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: some(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some(pod.qos_class().as_str().to_owned()),
        start_time: Some(start_time.unwrap_or(Time(now))),
        ..PodStatus::default()
    }
}

/// The status of a pod that was ended before it could finish, by `mainstay down` or with the
/// machine, of which nothing is left but what the ledger has.
pub fn interrupted(before: &PodStatus) -> PodStatus {
    PodStatus {
        phase: Some(Phase::Failed.as_str().to_owned()),
        reason: Some("Interrupted".to_owned()),
        message: Some(
            "The pod was ended before it could finish, by `mainstay down` or with the machine, and \
             its restartPolicy Never does not let it run twice."
                .to_owned(),
        ),
        ..before.clone()
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Source: `getPhase`.
fn phase(views: &[containers::View<'_>], policy: RestartPolicy) -> Phase {
    use containers::Now;
    let any = |is: fn(&Now<'_>) -> bool| views.iter().any(|view| is(&view.now));
    if any(|now| matches!(now, Now::NeverStarted { .. })) {
        return Phase::Pending;
    }
    if any(|now| matches!(now, Now::Running { .. } | Now::BackingOff { .. })) {
        return Phase::Running;
    }
    let failed = any(|now| matches!(now, Now::Ended(end) if end.exit_code != 0));
    match (policy, failed) {
        (RestartPolicy::Always, _) | (RestartPolicy::OnFailure, true) => Phase::Running,
        (RestartPolicy::OnFailure | RestartPolicy::Never, false) => Phase::Succeeded,
        (RestartPolicy::Never, true) => Phase::Failed,
    }
}

#[cfg(test)]
mod tests;
