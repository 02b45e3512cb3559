//! What follows the end of a container.

use jiff::Timestamp;
use mainstay_cri::ContainerState;
use mainstay_pod::RestartPolicy;

use super::state::{RunGoal, SeenContainer, SeenPod};
use crate::backoff::{Backoff, Verdict, judge};

/// Whether a container of the goal's pod ever ran, as far as can be seen.
pub fn has_started(run: &RunGoal, seen: &SeenPod) -> bool {
    let own = seen.sandboxes.iter().filter(|it| run.is_own(&it.uid, it.incarnation));
    own.flat_map(|sandbox| &sandbox.containers).any(|container| !container.state.never_ran())
}

/// Whether a pod that was started and of which nothing is left may not be started again: what ended
/// it was the machine.
pub fn was_interrupted(policy: RestartPolicy, started: bool, seen: &SeenPod) -> bool {
    policy == RestartPolicy::Never && started && seen.sandboxes.is_empty()
}

/// When the last container of the goal's pod ended, if all have ended for good.
pub(super) fn all_ended(
    run: &RunGoal,
    policy: RestartPolicy,
    seen: &SeenPod,
    now: Timestamp,
) -> Option<Timestamp> {
    let mut last = None;
    for container in &run.pod.spec().containers {
        let own = seen.sandboxes.iter().filter(|it| run.is_own(&it.uid, it.incarnation));
        let of_name = own.flat_map(|it| &it.containers).filter(|it| it.name == container.name);
        let newest = of_name.max_by_key(|it| it.restart_count)?;
        match newest.state {
            ContainerState::Exited { finished_at, .. }
                if after(newest, policy, now) == Afterwards::Done =>
            {
                last = last.max(Some(finished_at));
            }
            _ => return None,
        }
    }
    last
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It runs, or never did.
    Nothing,
    /// It has ended for good.
    Done,
    /// It is started again now.
    Start(Backoff),
    /// It is started again at this moment: `CrashLoopBackOff`.
    Wait(Timestamp),
}

/// Judges the newest container of a name.
///
/// Source: `pkg/kubelet/container/helpers.go`, `ShouldContainerBeRestarted`, and
/// `kuberuntime_manager.go`, `doBackOff`.
pub fn after(container: &SeenContainer, policy: RestartPolicy, now: Timestamp) -> Afterwards {
    let ContainerState::Exited { finished_at, exit_code, .. } = &container.state else {
        return Afterwards::Nothing;
    };
    if container.state.never_ran() {
        return Afterwards::Nothing;
    }
    let again = match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => *exit_code != 0,
        RestartPolicy::Never => false,
    };
    if !again {
        return Afterwards::Done;
    }
    match judge(container.backoff, *finished_at, now) {
        Verdict::Start(backoff) => Afterwards::Start(backoff),
        Verdict::Wait(due) => Afterwards::Wait(due),
    }
}
