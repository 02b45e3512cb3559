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
    let gone = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let left = grace.saturating_sub(gone);
    let mut steps = Steps::default();
    for container in sandbox.containers.iter().filter(|it| !it.has_ended()) {
        let id = container.id.clone();
        if container.state == ContainerState::Created {
            steps.actions.push(Action::RemoveContainer { id });
        } else if left.is_zero() || has_turn(sandbox, container) {
            let grace = left.max(SHORTEST_GRACE.min(grace));
            let why = StopReason::PodEnds;
            steps.actions.push(Action::StopContainer { id, grace, why });
        } else {
            steps.wake_at = since.checked_add(grace).ok();
        }
    }
    steps
}

/// Whether nothing runs any more that a container outlives.
///
/// Source: `pkg/kubelet/kuberuntime/kuberuntime_termination_order.go`.
fn has_turn(sandbox: &SeenSandbox, container: &SeenContainer) -> bool {
    let rank = |it: &SeenContainer| sandbox.sidecars.iter().position(|name| *name == it.name);
    let Some(own) = rank(container) else { return true };
    let outlived = |it: &&SeenContainer| rank(it).is_none_or(|rank| rank > own);
    !sandbox.containers.iter().filter(outlived).any(|it| !it.has_ended())
}
