//! What a pod's status says.
//!
//! Source: `pkg/kubelet/kubelet_pods.go` (`generateAPIPodStatus`, `getPhase`),
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go` and `pkg/kubelet/status/generate.go`.

mod conditions;
mod containers;
pub(crate) mod gates;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_pod::containers::could_restart_all;
use mainstay_pod::{PodTotals, Role, SourceKind};

pub(crate) use conditions::ALL_CONTAINERS_RESTARTING;
pub(crate) use containers::keep_ends;
pub use containers::{container_id, container_of_id};

use crate::pod::{
    DEADLINE_EXCEEDED, DEADLINE_MESSAGE, Memory, Restarts, Round, RunGoal, SeenPod, SeenSandbox,
    is_exceeded,
};
use crate::resize;

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

/// What a status is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The pod.
    pub run: &'a RunGoal,
    /// What there is of it.
    pub seen: &'a SeenPod,
    /// What is known of it beside that.
    pub memory: &'a Memory,
    /// The node that it is on.
    pub node: &'a NodeAddresses,
    /// The status as it was computed last, whose times are kept where nothing changed.
    pub before: Option<&'a PodStatus>,
    /// The name of the runtime that has its containers, such as `mainstay`.
    pub runtime: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// Computes the status of a pod that should run.
pub fn compute(facts: &Facts<'_>) -> PodStatus {
    compute_under(Restarts::AsSaid(&facts.run.pod, &facts.memory.resized), facts)
}

/// The same of a pod that is being ended, whose containers are not started again. `ended` is whether
/// nothing of it runs any more: a pod that never ran has failed then.
///
/// Source: `pkg/kubelet/kubelet_pods.go` (`getPhase` of a terminal pod) and
/// `pkg/kubelet/status/status_manager.go`, `TerminatePod`.
pub fn compute_stopping(facts: &Facts<'_>, ended: bool) -> PodStatus {
    let mut status = compute_under(Restarts::Never, facts);
    if ended && !is_over(&status) {
        status.phase = Some(Phase::Failed.as_str().to_owned());
    }
    status
}

fn compute_under(restarts: Restarts<'_>, facts: &Facts<'_>) -> PodStatus {
    let Facts { run, seen, memory, node, before, runtime, now } = *facts;
    let pod = &run.pod;
    let own = || seen.sandboxes.iter().filter(|sandbox| sandbox.uid == pod.uid());
    let sandbox: Option<&SeenSandbox> = own().next();
    let early = match memory.eviction(run) {
        Some(eviction) => Some((eviction.cause.reason(), eviction.message.as_str())),
        None => is_exceeded(run, restarts, seen, memory, now)
            .then_some((DEADLINE_EXCEEDED, DEADLINE_MESSAGE)),
    };
    // What has had its time, or too much, is not started again.
    let restarts = if early.is_some() { Restarts::Never } else { restarts };
    let round = Round::of(pod, sandbox, memory);
    let views = containers::views(pod, restarts, own(), round, memory, now);
    let phase = if early.is_some() { Phase::Failed } else { phase(&views, sandbox) };
    let ready = sandbox.is_some_and(|sandbox| sandbox.ready);
    let resizing = memory.resizing.as_deref();
    let mut conditions = match phase {
        Phase::Pending | Phase::Running => resize::conditions(memory.pending.as_deref(), resizing),
        Phase::Succeeded | Phase::Failed => Vec::new(),
    };
    conditions.extend(conditions::all(&views, phase, ready, before, now));
    if could_restart_all(pod.spec()) {
        conditions.push(conditions::restarting(phase, round.ends, before, now));
    }
    if let Some(eviction) = memory.eviction(run)
        && eviction.cause.is_of_node()
        && !pod.source().is_static()
    {
        conditions.push(conditions::disrupted(&eviction.message, before, now));
    }
    let host_ips: Vec<String> = node.ips.iter().map(ToString::to_string).collect();
    let pod_ips: Vec<String> = match sandbox {
        _ if pod.is_host_network() => host_ips.clone(),
        // One that has ended may have none any more, and the pod is known by what it had. Source: `getPodIPs` in
        // `pkg/kubelet/pleg/generic.go`.
        Some(sandbox) if !sandbox.ready && sandbox.ips.is_empty() => {
            let before = before.and_then(|before| before.pod_ips.as_ref());
            before.into_iter().flatten().map(|it| it.ip.clone()).collect()
        }
        sandbox => sandbox.iter().flat_map(|it| &it.ips).map(ToString::to_string).collect(),
    };
    // Known from what is there, also to an agent that has just been started.
    let began = memory.began(run).or(own().map(|sandbox| sandbox.created_at).min());
    let said = PodTotals::said(pod.spec());
    let allocated = said.requests.clone();
    // A kubelet reads what holds from the control group, and for a static pod never comes to that.
    let totals = match (phase, pod.source()) {
        (Phase::Running, SourceKind::Api) => PodTotals::enforced(pod.spec()),
        _ => said,
    };
    let mut resources = ResourceRequirements {
        requests: (!totals.requests.is_empty()).then_some(totals.requests),
        limits: (!totals.limits.is_empty()).then_some(totals.limits),
        claims: None,
    };
    if let Some(resizing) = resizing.filter(|_| phase == Phase::Running) {
        resize::in_force(&mut resources, &resizing.pod);
    }
    let most = containers::most_of_message(views.len() + pod.ephemeral_containers().len());
    let telling = containers::Telling { runtime, most };
    // Source: `SortedContainerStatuses`.
    let mut in_order = containers::statuses(&views, telling, |it| it == Role::Main);
    in_order.sort_by(|one, other| one.name.cmp(&other.name));
    let mut status = PodStatus {
        phase: Some(phase.as_str().to_owned()),
        reason: early.map(|(reason, _)| reason.to_owned()),
        message: early.map(|(_, message)| message.to_owned()),
        conditions: Some(conditions),
        init_container_statuses: some(containers::statuses(&views, telling, |it| it != Role::Main)),
        container_statuses: Some(in_order),
        ephemeral_container_statuses: some(containers::ephemeral(
            pod,
            &own(),
            memory,
            before,
            telling,
            now,
        )),
        host_ip: host_ips.first().cloned(),
        host_ips: some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: some(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some(pod.qos_class().as_str().to_owned()),
        start_time: Some(Time(began.unwrap_or(now))),
        allocated_resources: (!allocated.is_empty()).then_some(allocated),
        resources: Some(resources),
        ..PodStatus::default()
    };
    gates::judge(pod.spec(), &mut status, before.unwrap_or(&PodStatus::default()));
    status.conditions.iter_mut().for_each(Vec::shrink_to_fit);
    status
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

/// Source: `getPhase`. `sandbox` is the newest one.
fn phase(views: &[containers::View<'_>], sandbox: Option<&SeenSandbox>) -> Phase {
    use containers::Now;
    let of = |role| views.iter().filter(move |view| view.role == role);
    // Nothing that is started again has failed.
    if of(Role::Init).any(|view| view.is_over && view.has_failed()) {
        return Phase::Failed;
    }
    let made = |view: &containers::View<'_>| {
        sandbox.is_some_and(|it| it.newest(&view.container.name).is_some())
    };
    let is_initialized = of(Role::Main).any(made);
    let pending = views.iter().any(|view| match (view.role, &view.now) {
        (_, Now::NeverStarted { .. }) => !view.ran_before(),
        (Role::Init, Now::Running { .. }) => true,
        (Role::Sidecar, Now::Running { .. }) => !view.started && !is_initialized,
        (_, Now::Running { .. } | Now::BackingOff { .. } | Now::Ended(_)) => false,
    });
    if pending {
        return Phase::Pending;
    }
    let runs = |view: &containers::View<'_>| matches!(view.now, Now::Running { .. });
    if views.iter().any(runs) || !of(Role::Main).all(|view| view.is_over) {
        return Phase::Running;
    }
    let failed = of(Role::Main).any(containers::View::has_failed);
    if failed { Phase::Failed } else { Phase::Succeeded }
}

#[cfg(test)]
mod tests;
