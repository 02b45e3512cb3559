//! Ending sandboxes that are not wanted any more.

use std::time::Duration;

use jiff::Timestamp;
use mainstay_cri::ContainerState;

use super::state::{Action, Memory, SeenContainer, SeenSandbox, StopReason};

/// What a container has at least of its pod's grace period, however late its turn comes. Source:
/// `minimumGracePeriodInSeconds` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);

/// The next steps for one sandbox.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) actions: Vec<Action>,
    /// When waiting alone leads to more.
    pub(super) wake_at: Option<Timestamp>,
}

/// The next steps for one sandbox: end its containers all at once and then its sidecars, the last one
/// first; end it, then remove it. One that never ran has nothing to end.
///
/// `keep` leaves the last step out, for a sandbox whose ended containers are still told of.
pub(super) fn steps(
    sandbox: &SeenSandbox,
    grace: Duration,
    memory: &Memory,
    now: Timestamp,
    keep: bool,
) -> Steps {
    if sandbox.containers.iter().any(|it| !it.has_ended()) {
        return end_containers(sandbox, grace, memory, now);
    }
    // A sandbox that still is being made, or one of whose containers still is being started, is
    // seen here again when that has come to its end.
    let id = sandbox.id.clone();
    let actions = match (sandbox.ready, keep) {
        (true, _) => vec![Action::StopSandbox { id }],
        (false, false) => vec![Action::RemoveSandbox { id }],
        (false, true) => Vec::new(),
    };
    Steps { actions, wake_at: None }
}

/// Source: `killContainer` in `pkg/kubelet/kuberuntime/kuberuntime_container.go`.
fn end_containers(
    sandbox: &SeenSandbox,
    grace: Duration,
    memory: &Memory,
    now: Timestamp,
) -> Steps {
    let since = memory.stopping.get(&sandbox.id).copied().unwrap_or(now);
    let mut steps = Steps::default();
    for container in sandbox.containers.iter().filter(|it| !it.has_ended()) {
        if container.state == ContainerState::Created {
            steps.actions.push(Action::RemoveContainer { id: container.id.clone() });
            continue;
        }
        let step = end_since(container, since, grace, StopReason::PodEnds, memory, now);
        // What is done before the end is done at once, also in those that end later.
        let waits = matches!(step, Action::StopContainer { .. })
            && !remaining(since, grace, now).is_zero()
            && !has_turn(sandbox, container);
        if waits {
            steps.wake_at = since.checked_add(grace).ok();
        } else {
            steps.actions.push(step);
        }
    }
    steps
}

/// Ends what still runs of a round: all containers are started over. There is no time for more than that.
///
/// Source: `ContainersToReset` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.
pub(super) fn end_round(sandbox: &SeenSandbox) -> Vec<Action> {
    // What was added to the pod goes on, as `getContainersToReset` has it.
    let alive = sandbox.containers.iter().filter(|it| !it.ephemeral && !it.has_ended());
    let step = |container: &SeenContainer| {
        let id = container.id.clone();
        match container.state {
            ContainerState::Created => Action::RemoveContainer { id },
            ContainerState::Running { .. } | ContainerState::Exited { .. } => {
                let why = Some(StopReason::RestartAll);
                Action::StopContainer { id, grace: SHORTEST_GRACE, why }
            }
        }
    };
    alive.filter(|container| has_turn(sandbox, container)).map(step).collect()
}

/// The next step to the end of one container, of a pod that goes on.
pub(super) fn end(
    container: &SeenContainer,
    grace: Duration,
    why: StopReason,
    memory: &Memory,
    now: Timestamp,
) -> Action {
    let since = memory.ending.get(&container.id).map_or(now, |ending| ending.since);
    end_since(container, since, grace, why, memory, now)
}

/// The next step to the end of one container: what is done before, if there is time for it; then its stop.
fn end_since(
    container: &SeenContainer,
    since: Timestamp,
    grace: Duration,
    why: StopReason,
    memory: &Memory,
    now: Timestamp,
) -> Action {
    let id = container.id.clone();
    let left = remaining(since, grace, now);
    let pre_stopped = memory.ending.get(&id).is_some_and(|ending| ending.pre_stopped);
    match &container.pre_stop {
        Some(hook) if !pre_stopped && !left.is_zero() => {
            Action::PreStop { id, hook: hook.clone(), grace: left, why }
        }
        _ => Action::StopContainer {
            id,
            grace: left.max(SHORTEST_GRACE.min(grace)),
            why: (!pre_stopped).then_some(why),
        },
    }
}

/// What is left of a grace period.
fn remaining(since: Timestamp, grace: Duration, now: Timestamp) -> Duration {
    let gone = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    grace.saturating_sub(gone)
}

/// Whether nothing runs any more that a container outlives.
///
/// Source: `pkg/kubelet/kuberuntime/kuberuntime_termination_order.go`.
fn has_turn(sandbox: &SeenSandbox, container: &SeenContainer) -> bool {
    let rank = |it: &SeenContainer| sandbox.sidecars.iter().position(|name| *name == it.name);
    let Some(own) = rank(container) else { return true };
    let outlived = |it: &&SeenContainer| !it.ephemeral && rank(it).is_none_or(|rank| rank > own);
    !sandbox.containers.iter().filter(outlived).any(|it| !it.has_ended())
}
