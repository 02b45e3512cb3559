//! Which containers of a pod are probed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use mainstay_cri::{ContainerId, ContainerState};

use super::ProbeKind;
use crate::pod::{RunGoal, SeenContainer, SeenPod};

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
    let goes_on = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let init = spec.init_containers.iter().flatten().filter(goes_on);
    let has_probe = |it: &&Container| ProbeKind::ALL.iter().any(|kind| kind.of(it).is_some());
    spec.containers.iter().chain(init).filter(has_probe)
}

/// Those that run. Nothing is asked of other versions of the pod, nor of a sandbox that has ended.
pub fn targets(run: &RunGoal, seen: &SeenPod) -> Vec<Target> {
    let own = seen.sandboxes.iter().find(|it| run.is_own(&it.uid, it.incarnation));
    let Some(sandbox) = own.filter(|sandbox| sandbox.ready) else { return Vec::new() };
    let target = |container: &Container| {
        let of_name = sandbox.containers.iter().filter(|it| it.name == container.name);
        let newest: &SeenContainer = of_name.max_by_key(|it| it.restart_count)?;
        let ContainerState::Running { started_at } = newest.state else { return None };
        Some(Target { id: newest.id.clone(), name: container.name.clone(), started_at })
    };
    probed(run.pod.spec()).filter_map(target).collect()
}
