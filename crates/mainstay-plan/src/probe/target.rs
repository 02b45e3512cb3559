//! Which containers of a pod are probed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use mainstay_cri::{ContainerId, ContainerState};
use mainstay_pod::{Role, containers};

use super::ProbeKind;
use crate::pod::{Memory, RunGoal, SeenPod};

/// A container that runs and has probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The runtime's name for it.
    pub id: ContainerId,
    /// Its name in the pod.
    pub name: String,
    /// Since when it runs.
    pub started_at: Timestamp,
}

/// The containers that a pod has probes for: its own, and the init containers that go on beside them.
/// Source: `AddPod`, `getRestartableInitContainers`.
pub fn probed(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let goes_on = containers::of(spec).filter(|(role, _)| *role != Role::Init);
    let has_probe = |it: &&Container| ProbeKind::ALL.iter().any(|kind| kind.of(it).is_some());
    goes_on.map(|(_, container)| container).filter(has_probe)
}

/// Those that run. Nothing is asked of other versions of the pod, nor of a sandbox that has ended, nor before
/// what is done after a container's start has ended.
pub fn targets(run: &RunGoal, seen: &SeenPod, memory: &Memory) -> Vec<Target> {
    let own = seen.sandboxes.iter().find(|it| run.is_own(&it.uid, it.incarnation));
    let Some(sandbox) = own.filter(|sandbox| sandbox.ready) else { return Vec::new() };
    let target = |container: &Container| {
        let newest = sandbox.newest(&container.name)?;
        let ContainerState::Running { started_at } = newest.state else { return None };
        if memory.awaits_post_start(container, newest) {
            return None;
        }
        Some(Target { id: newest.id.clone(), name: container.name.clone(), started_at })
    };
    probed(run.pod.spec()).filter_map(target).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mainstay_cri::SandboxId;
    use mainstay_testkit::pods::pod;

    use super::*;
    use crate::pod::{Key, SeenContainer, SeenSandbox};

    #[test]
    fn nothing_is_asked_before_what_is_done_after_a_start_has_ended() {
        let pod =
            pod("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, \
             image: i, lifecycle: {postStart: {sleep: {seconds: 1}}}, \
             livenessProbe: {tcpSocket: {port: 1}}}]}");
        let (id, at) = (ContainerId("a0".into()), Timestamp::UNIX_EPOCH);
        let container = SeenContainer {
            id: id.clone(),
            name: "a".into(),
            restart_count: 0,
            round: 0,
            ephemeral: false,
            state: ContainerState::Running { started_at: at },
            backoff: None,
            image: "i".into(),
            image_ref: "i".into(),
            pre_stop: None,
            termination_message: None,
            user: None,
        };
        let sandbox = SeenSandbox {
            id: SandboxId("s".into()),
            uid: pod.uid().into(),
            incarnation: None,
            attempt: 0,
            ready: true,
            created_at: at,
            ips: vec![],
            grace: Duration::ZERO,
            exclusive: crate::exclusive::Exclusive::default(),
            sidecars: vec![],
            containers: vec![container],
        };
        let (run, seen) =
            (RunGoal { pod, incarnation: None }, SeenPod { sandboxes: vec![sandbox] });
        let mut memory = Memory::default();
        let count = |memory: &Memory| targets(&run, &seen, memory).len();
        memory.in_flight.insert(Key::Container("a".into()));
        assert_eq!(count(&memory), 0);
        memory.in_flight.clear();
        memory.post_start.insert(id);
        assert_eq!(count(&memory), 0);
        memory.post_start.clear();
        assert_eq!(count(&memory), 1);
    }
}
