//! Which containers of a pod have their turn.
//!
//! Init containers run one after another, each to its end. Of a sidecar among them it is enough that it
//! has started; from then on it is kept running. When all are through, the pod is initialized and the
//! others have their turn. All of it is of one sandbox: the next one is initialized anew.
//!
//! An end of a container after which all are started over begins another round in the same sandbox, when
//! all have ended: as if nothing had been made yet.
//!
//! Source: `computeInitContainerActions` in `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use k8s_openapi::api::core::v1::Container;
use mainstay_cri::ContainerState;
use mainstay_pod::containers::restarts_all;
use mainstay_pod::{Pod, Role};

use super::state::{Key, Memory, SeenContainer, SeenSandbox};

/// The round that a sandbox's containers are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// How often all have been started over.
    pub(crate) number: u32,
    /// Whether it is coming to its end: nothing is started, and what runs is ended.
    pub(crate) ends: bool,
}

impl Round {
    /// Of a sandbox of a pod; without one, the first.
    ///
    /// Source: `ShouldAllContainersRestart` in `pkg/kubelet/container/helpers.go`. There the containers are
    /// removed; here they stay, to be told of.
    pub(crate) fn of(pod: &Pod, sandbox: Option<&SeenSandbox>, memory: &Memory) -> Self {
        let Some(sandbox) = sandbox else { return Self::default() };
        let number = sandbox.containers.iter().map(|it| it.round).max().unwrap_or(0);
        if !pod.containers().any(|(_, it)| begins_another(it, sandbox, number)) {
            return Self { number, ends: false };
        }
        let is_of_pod = |name: &str| pod.containers().any(|(_, it)| it.name == name);
        let starting = |key: &Key| matches!(key, Key::Container(name) if is_of_pod(name));
        // What was added to the pod goes on.
        let alive = |it: &SeenContainer| !it.ephemeral && !it.has_ended();
        if memory.in_flight.iter().any(starting) || sandbox.containers.iter().any(alive) {
            Self { number, ends: true }
        } else {
            Self { number: number + 1, ends: false }
        }
    }

    /// Whether a container means nothing any more and another one comes in its place, which only those of
    /// the sandbox do that the round is of.
    pub(crate) fn voids_in(self, sandbox: Option<&SeenSandbox>, container: &SeenContainer) -> bool {
        self.voids(container) && sandbox.is_some_and(|sandbox| sandbox.has(&container.id))
    }

    fn voids(self, container: &SeenContainer) -> bool {
        !container.ephemeral && (self.ends || container.round < self.number)
    }
}

/// Whether the newest container of a name has ended so that all are started over.
pub(super) fn begins_another(container: &Container, sandbox: &SeenSandbox, round: u32) -> bool {
    let newest = sandbox.newest(&container.name).filter(|it| it.round == round);
    newest.is_some_and(|newest| match newest.state {
        ContainerState::Exited { exit_code, .. } => {
            !newest.state.never_ran() && restarts_all(container, exit_code)
        }
        ContainerState::Created | ContainerState::Running { .. } => false,
    })
}

/// The containers that should run in this sandbox now, in their order: those that had their turn and
/// are kept running, and those that have it. Without a sandbox, those that will be first. `round` is the
/// sandbox's.
pub(crate) fn on_turn<'a>(
    pod: &'a Pod,
    sandbox: Option<&SeenSandbox>,
    round: Round,
    memory: &Memory,
) -> Vec<(Role, &'a Container)> {
    if round.ends {
        return Vec::new();
    }
    let (count, reached) = progress(pod, sandbox, round, memory);
    let all = pod.containers().enumerate();
    let turn = all.filter(|(at, (role, _))| match role {
        Role::Init => *at == reached,
        Role::Sidecar => *at <= reached,
        Role::Main => reached == count,
        // They have a turn of their own.
        Role::Ephemeral => false,
    });
    turn.map(|(_, container)| container).collect()
}

/// How many containers come before the main ones, and how many of them are through.
///
/// Only the last one that was made counts: those before it are through, also if nothing is known of
/// them any more, or a sidecar among them has ended since.
fn progress(
    pod: &Pod,
    sandbox: Option<&SeenSandbox>,
    round: Round,
    memory: &Memory,
) -> (usize, usize) {
    let newest = |container: &Container| {
        sandbox.and_then(|it| it.newest(&container.name)).filter(|it| !round.voids(it))
    };
    let count = pod.containers().filter(|(role, _)| *role != Role::Main).count();
    let made = pod.containers().enumerate().filter_map(|(at, (role, container))| {
        newest(container).map(|seen| (at, role, container, seen))
    });
    let reached = match made.last() {
        None => 0,
        Some((_, Role::Main, ..)) => count,
        Some((at, role, container, seen)) => {
            at + usize::from(is_through(role, container, seen, memory))
        }
    };
    (count, reached)
}

/// Whether the next container has its turn.
fn is_through(role: Role, container: &Container, seen: &SeenContainer, memory: &Memory) -> bool {
    match role {
        Role::Sidecar => memory.has_started(container, seen),
        Role::Init | Role::Main | Role::Ephemeral => {
            matches!(seen.state, ContainerState::Exited { exit_code: 0, .. })
                && !seen.state.never_ran()
        }
    }
}

#[cfg(test)]
mod tests;
