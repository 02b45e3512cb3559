//! Ending sandboxes that are not wanted any more.

use std::time::Duration;

use jiff::Timestamp;
use mainstay_cri::ContainerState;

use super::state::{Action, Memory, SeenContainer, SeenSandbox, StopReason};

/// The next steps for one sandbox: end its containers all at once, then it, then remove it. One
/// that never ran has nothing to end.
///
/// `keep` leaves the last step out, for a sandbox whose ended containers are still told of.
pub(super) fn steps(
    sandbox: &SeenSandbox,
    grace: Duration,
    memory: &Memory,
    now: Timestamp,
    keep: bool,
) -> Vec<Action> {
    let alive: Vec<_> = sandbox.containers.iter().filter(|c| !c.has_ended()).collect();
    if !alive.is_empty() {
        let grace = remaining(sandbox, grace, memory, now);
        let step = |container: &SeenContainer| match container.state {
            ContainerState::Created => Action::RemoveContainer { id: container.id.clone() },
            ContainerState::Running { .. } | ContainerState::Exited { .. } => {
                Action::StopContainer { id: container.id.clone(), grace, why: StopReason::PodEnds }
            }
        };
        return alive.into_iter().map(step).collect();
    }
    // A sandbox that still is being made, or one of whose containers still is being started, is
    // seen here again when that has come to its end.
    let id = sandbox.id.clone();
    match (sandbox.ready, keep) {
        (true, _) => vec![Action::StopSandbox { id }],
        (false, false) => vec![Action::RemoveSandbox { id }],
        (false, true) => Vec::new(),
    }
}

/// What is left of the grace period, which began when the stop did.
fn remaining(sandbox: &SeenSandbox, grace: Duration, memory: &Memory, now: Timestamp) -> Duration {
    let Some(since) = memory.stopping.get(&sandbox.id) else { return grace };
    let gone = Duration::try_from(now.duration_since(*since)).unwrap_or_default();
    grace.saturating_sub(gone)
}
