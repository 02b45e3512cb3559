//! Finding pods and their containers on this machine, with or without an agent.

use anyhow::{Context, bail};
use mainstay_cri::{ContainerState, ContainerStatus, PodSandboxFilter, PodSandboxStatus, Runtime};
use mainstay_engine::Engine;
use mainstay_plan::labels;

use crate::instance::Instance;

/// Looks at an instance beside its agent.
pub(super) async fn visit(instance: &Instance) -> anyhow::Result<Engine> {
    let config = instance.engine(&instance.cgroup_root(), None)?;
    Engine::visit(config).await.context("cannot look at the pods")
}

/// All sandboxes of an instance, the newest of each pod first.
pub(super) async fn sandboxes(engine: &Engine) -> anyhow::Result<Vec<PodSandboxStatus>> {
    let mut all = Vec::new();
    for sandbox in engine.list_pod_sandboxes(&PodSandboxFilter::default()).await? {
        all.push(engine.pod_sandbox_status(&sandbox.id).await?);
    }
    let order = |status: &PodSandboxStatus| {
        let metadata = &status.sandbox.metadata;
        let newest = std::cmp::Reverse(status.sandbox.created_at);
        (metadata.namespace.clone(), metadata.name.clone(), newest)
    };
    all.sort_by_key(order);
    Ok(all)
}

/// The newest sandbox of the pod that is meant by `wanted`, if it has one.
pub(super) async fn find(
    engine: &Engine,
    wanted: &str,
) -> anyhow::Result<Option<PodSandboxStatus>> {
    let all = sandboxes(engine).await?;
    let mut matching = all.into_iter().filter(|status| {
        let metadata = &status.sandbox.metadata;
        let node = status.sandbox.annotations.get(labels::NODE_NAME);
        is_meant(wanted, &metadata.namespace, &metadata.name, node.map_or("", String::as_str))
    });
    let Some(first) = matching.next() else { return Ok(None) };
    let key = |status: &PodSandboxStatus| {
        let metadata = &status.sandbox.metadata;
        (metadata.namespace.clone(), metadata.name.clone())
    };
    if let Some(other) = matching.find(|other| key(other) != key(&first)) {
        let ((namespace, name), (second, third)) = (key(&first), key(&other));
        bail!("{wanted:?} may be {namespace}/{name} or {second}/{third}; name one of them");
    }
    Ok(Some(first))
}

/// Whether a pod is meant by a name: with or without namespace, with or without the node's name.
pub(super) fn is_meant(wanted: &str, namespace: &str, name: &str, node: &str) -> bool {
    let (in_namespace, wanted) = match wanted.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, wanted),
    };
    let short = name.strip_suffix(&format!("-{node}")).unwrap_or(name);
    in_namespace.is_none_or(|it| it == namespace) && (wanted == name || wanted == short)
}

/// The container of a sandbox that is meant: the named one, else the pod's first. Of several
/// attempts the newest counts.
pub(super) fn container<'a>(
    status: &'a PodSandboxStatus,
    name: Option<&str>,
) -> anyhow::Result<&'a ContainerStatus> {
    let mut names: Vec<&str> = Vec::new();
    let mut by_age: Vec<&ContainerStatus> = status.containers.iter().collect();
    by_age.sort_by_key(|container| container.created_at);
    for container in &by_age {
        if !names.contains(&container.metadata.name.as_str()) {
            names.push(&container.metadata.name);
        }
    }
    // Source: `AnnotationDefaultContainer` of k8s.io/kubectl.
    let usual = status.sandbox.annotations.get("kubectl.kubernetes.io/default-container");
    let usual = usual.map(String::as_str).filter(|usual| names.contains(usual));
    let wanted = match name.or(usual) {
        Some(name) => name,
        None => {
            let first = names.first().context("the pod has no containers yet")?;
            if names.len() > 1 {
                eprintln!("Defaulted container {first:?} out of: {}", names.join(", "));
            }
            first
        }
    };
    let found = by_age.iter().rev().find(|container| container.metadata.name == wanted);
    found.copied().with_context(|| {
        format!("container {wanted:?} is not in the pod, which has: {}", names.join(", "))
    })
}

/// Whether a container's process runs.
pub(super) fn is_running(container: &ContainerStatus) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_meant_by_their_short_and_their_full_names() {
        let check = |wanted| is_meant(wanted, "default", "web-n1", "n1");
        assert!(["web", "web-n1", "default/web", "default/web-n1"].into_iter().all(check));
        assert!(!["we", "web-n", "kube-system/web", "n1", ""].into_iter().any(check));
    }
}
