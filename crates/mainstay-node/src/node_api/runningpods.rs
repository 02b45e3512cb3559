//! `/runningpods/`: what the runtime has, whatever should be.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_cri::{
    ContainerFilter, ContainerState, PodSandboxFilter, PodSandboxState, Result, Runtime,
};

/// The pods of which something runs, with no more than their names, as the kubelet tells it.
/// Source: `Pod.ToAPIPod` in `pkg/kubelet/container/runtime.go`.
pub(super) async fn list(runtime: &dyn Runtime) -> Result<Vec<Pod>> {
    let sandboxes = runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await?;
    let containers = runtime.list_containers(&ContainerFilter::default()).await?;
    let mut running = BTreeMap::new();
    for container in containers {
        if matches!(container.state, ContainerState::Running { .. }) {
            let list: &mut Vec<Container> = running.entry(container.sandbox).or_default();
            list.push(Container { name: container.metadata.name, ..Container::default() });
        }
    }
    let of = |sandbox: mainstay_cri::PodSandbox| {
        let containers = running.remove(&sandbox.id).unwrap_or_default();
        if containers.is_empty() && sandbox.state == PodSandboxState::NotReady {
            return None;
        }
        let metadata = ObjectMeta {
            name: Some(sandbox.metadata.name),
            namespace: Some(sandbox.metadata.namespace),
            uid: Some(sandbox.metadata.uid),
            ..ObjectMeta::default()
        };
        let spec = Some(PodSpec { containers, ..PodSpec::default() });
        Some(Pod { metadata, spec, status: None })
    };
    Ok(sandboxes.into_iter().filter_map(of).collect())
}
