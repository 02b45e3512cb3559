//! What follows the end of a container.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use mainstay_cri::{ContainerId, ContainerState};
use mainstay_pod::{Pod, RestartPolicy, Role};

use super::order::Round;
use super::state::{Memory, RunGoal, SeenContainer, SeenPod};
use crate::backoff::{Backoff, Verdict, judge};

/// Whether a container of the goal's pod ever ran, as far as can be seen.
pub fn has_started(run: &RunGoal, seen: &SeenPod) -> bool {
    let own = seen.sandboxes.iter().filter(|it| run.is_own(&it.uid, it.incarnation));
    own.flat_map(|sandbox| &sandbox.containers).any(|container| !container.state.never_ran())
}

/// The ephemeral containers of the goal's pod that ran, as far as can be seen, by name.
pub fn spent(run: &RunGoal, seen: &SeenPod) -> BTreeSet<String> {
    let added = run.pod.ephemeral_containers().iter().map(|it| &it.name);
    let own = || seen.sandboxes.iter().filter(|it| run.is_own(&it.uid, it.incarnation));
    let ran = |name: &&String| {
        let mut all = own().flat_map(|sandbox| &sandbox.containers);
        all.any(|it| it.ephemeral && it.name == **name && !it.state.never_ran())
    };
    added.filter(ran).cloned().collect()
}

/// Whether a pod that was started and of which nothing is left may not be started again: what ended
/// it was the machine.
pub fn was_interrupted(policy: RestartPolicy, started: bool, seen: &SeenPod) -> bool {
    policy == RestartPolicy::Never && started && seen.sandboxes.is_empty()
}

/// Which ends of a pod's containers are followed by a new start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Restarts<'a> {
    /// Those that the pod's and the container's restart policies say, and of containers that were ended for a
    /// resize.
    AsSaid(&'a Pod, &'a BTreeSet<ContainerId>),
    /// None: the pod is being ended.
    Never,
}

impl Restarts<'_> {
    /// Whether a container is started again of which the newest ended with this exit code.
    pub(crate) fn again(
        self,
        role: Role,
        container: &Container,
        newest: &SeenContainer,
        exit_code: i32,
    ) -> bool {
        match self {
            Self::AsSaid(_, resized) if resized.contains(&newest.id) => true,
            Self::AsSaid(pod, _) => pod.restarts(role, container, exit_code),
            Self::Never => false,
        }
    }

    /// Judges the newest container of a name.
    ///
    /// Source: `pkg/kubelet/container/helpers.go`, `ShouldContainerBeRestarted`, and
    /// `kuberuntime_manager.go`, `doBackOff`.
    pub(crate) fn after(
        self,
        role: Role,
        container: &Container,
        newest: &SeenContainer,
        now: Timestamp,
    ) -> Afterwards {
        let ContainerState::Exited { finished_at, exit_code, .. } = &newest.state else {
            return Afterwards::Nothing;
        };
        if newest.state.never_ran() {
            return Afterwards::Nothing;
        }
        if !self.again(role, container, newest, *exit_code) {
            return Afterwards::Done;
        }
        if matches!(self, Self::AsSaid(_, resized) if resized.contains(&newest.id)) {
            // Nothing was wrong with it.
            return Afterwards::Start(newest.backoff);
        }
        match judge(newest.backoff, *finished_at, now) {
            Verdict::Start(backoff) => Afterwards::Start(Some(backoff)),
            Verdict::Wait(due) => Afterwards::Wait(due),
        }
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It runs, or never did.
    Nothing,
    /// It has ended for good.
    Done,
    /// It is started again now, with this back-off in force.
    Start(Option<Backoff>),
    /// It is started again at this moment: `CrashLoopBackOff`.
    Wait(Timestamp),
}

/// When the goal's pod came to its end, if it has: with the last of its main containers, if all have ended
/// for good, or with one that was to prepare it and failed for good. Sidecars may still run.
pub(super) fn all_ended(
    run: &RunGoal,
    restarts: Restarts<'_>,
    seen: &SeenPod,
    memory: &Memory,
    now: Timestamp,
) -> Option<Timestamp> {
    let own = || seen.sandboxes.iter().filter(|it| run.is_own(&it.uid, it.incarnation));
    let last_sandbox = own().next();
    let round = Round::of(&run.pod, last_sandbox, memory);
    let mut last = None;
    for (role, container) in run.pod.containers() {
        let newest = own().filter_map(|sandbox| sandbox.newest(&container.name));
        let newest = newest.max_by_key(|it| it.restart_count);
        // All that is started over is not over.
        let newest = newest.filter(|it| !round.voids_in(last_sandbox, it));
        let end = newest.and_then(|newest| match newest.state {
            ContainerState::Exited { finished_at, exit_code, .. }
                if restarts.after(role, container, newest, now) == Afterwards::Done =>
            {
                Some((finished_at, exit_code))
            }
            _ => None,
        });
        match (role, end) {
            (Role::Init, Some((finished_at, exit_code))) if exit_code != 0 => {
                return Some(finished_at);
            }
            (Role::Init | Role::Sidecar | Role::Ephemeral, _) => {}
            (Role::Main, Some((finished_at, _))) => last = last.max(Some(finished_at)),
            (Role::Main, None) => return None,
        }
    }
    last
}
