//! The conditions of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_pod::Role;

use super::Phase;
use super::containers::{Now, View};

/// All five that the kubelet owns, in its order. A condition keeps the time of its last change.
pub(super) fn all(
    views: &[View<'_>],
    phase: Phase,
    sandbox_ready: bool,
    before: Option<&PodStatus>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let names = |which: &dyn Fn(&View<'_>) -> bool| {
        let those = views.iter().filter(|view| which(view));
        those.map(|view| view.container.name.as_str()).collect::<Vec<_>>()
    };
    let unready = names(&|view| view.role != Role::Init && !view.ready);
    let readiness = match phase {
        // Source: `GenerateContainersReadyCondition`.
        Phase::Succeeded => Some(("PodCompleted", None)),
        Phase::Failed => Some(("PodFailed", None)),
        Phase::Pending | Phase::Running if unready.is_empty() => None,
        Phase::Pending | Phase::Running => {
            let names = unready.join(" ");
            Some(("ContainersNotReady", Some(format!("containers with unready status: [{names}]"))))
        }
    };
    let incomplete = names(&|view| match view.role {
        Role::Init => !view.ready,
        Role::Sidecar => !view.started,
        Role::Main | Role::Ephemeral => false,
    });
    let initialized = if incomplete.is_empty() || views.iter().any(has_run) {
        None
    } else {
        let names = incomplete.join(" ");
        let message = format!("containers with incomplete status: [{names}]");
        Some(("ContainersNotInitialized", Some(message)))
    };
    let started = ("PodReadyToStartContainers", (!sandbox_ready).then_some(("", None)));
    let list = [
        started,
        ("Initialized", initialized.filter(|_| phase != Phase::Succeeded)),
        ("Ready", readiness.clone()),
        ("ContainersReady", readiness),
        ("PodScheduled", None),
    ];
    let mut conditions: Vec<PodCondition> =
        list.into_iter().map(|(kind, refusal)| condition(kind, refusal, before, now)).collect();
    // The one condition that says so of a pod although it holds.
    let initialized =
        conditions.iter_mut().filter(|it| phase == Phase::Succeeded && it.type_ == "Initialized");
    initialized.for_each(|it| it.reason = Some("PodCompleted".to_owned()));
    conditions
}

/// The condition of pods all of whose containers may be started over. Source: `AllContainersRestarting` in
/// `pkg/apis/core/types.go`.
pub(crate) const ALL_CONTAINERS_RESTARTING: &str = "AllContainersRestarting";

/// Whether all containers are being started over, of a pod of which that may be. Source:
/// `GenerateAllContainersRestartingCondition`.
pub(super) fn restarting(
    phase: Phase,
    restarting: bool,
    before: Option<&PodStatus>,
    now: Timestamp,
) -> PodCondition {
    let refusal = match phase {
        Phase::Succeeded => Some(("PodCompleted", None)),
        Phase::Failed => Some(("PodFailed", None)),
        Phase::Pending | Phase::Running if restarting => None,
        Phase::Pending | Phase::Running => Some(("", None)),
    };
    let mut condition = condition(ALL_CONTAINERS_RESTARTING, refusal, before, now);
    if condition.status == "True" {
        condition.reason = Some("RestartAllContainersStarted".to_owned());
        condition.message = Some("container exited with restart policy rule".to_owned());
    }
    condition
}

/// The condition of a pod of an API that is ended because its node has too little of something, by which
/// Jobs tell it from one that failed. Source: `synchronize` in `pkg/kubelet/eviction/eviction_manager.go`.
pub(super) fn disrupted(message: &str, before: Option<&PodStatus>, now: Timestamp) -> PodCondition {
    PodCondition {
        reason: Some("TerminationByKubelet".to_owned()),
        message: Some(message.to_owned()),
        ..condition("DisruptionTarget", None, before, now)
    }
}

/// Whether it is a main container that has run: its pod was initialized, and a sidecar that is started
/// again leaves it so. Source: `GeneratePodInitializedCondition`.
fn has_run(view: &View<'_>) -> bool {
    view.role == Role::Main && !matches!(view.now, Now::NeverStarted { .. })
}

fn condition(
    kind: &str,
    refusal: Option<(&str, Option<String>)>,
    before: Option<&PodStatus>,
    now: Timestamp,
) -> PodCondition {
    let status = if refusal.is_none() { "True" } else { "False" };
    let known = before.and_then(|before| before.conditions.as_ref()).into_iter().flatten();
    let same = known.into_iter().find(|known| known.type_ == kind && known.status == status);
    let since = same.and_then(|same| same.last_transition_time.clone());
    let (reason, message) = refusal.map_or((None, None), |(reason, message)| {
        ((!reason.is_empty()).then(|| reason.to_owned()), message)
    });
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        reason,
        message,
        ..PodCondition::default()
    }
}
