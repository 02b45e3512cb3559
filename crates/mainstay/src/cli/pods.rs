//! Finding pods and their containers on this machine, with or without an agent.

use std::sync::Arc;

use anyhow::{Context, bail};
use mainstay_cri::{
    ContainerState, ContainerStatus, ErrorKind, PodSandboxFilter, PodSandboxStatus, Runtime,
};
use mainstay_cri_grpc::REQUEST_TIMEOUT;
use mainstay_engine::Engine;
use mainstay_plan::labels;

use crate::instance::Instance;
use crate::wiring::remote;

/// Looks at an instance beside its agent; `None` where nothing was ever run, which is left so.
pub(super) async fn visit(instance: &Instance) -> anyhow::Result<Option<Arc<dyn Runtime>>> {
    let node = instance.node()?;
    if let Some(socket) = node.runtime_socket {
        return Ok(Some(Arc::new(remote::runtime(instance, socket, REQUEST_TIMEOUT))));
    }
    if !instance.has_run() {
        return Ok(None);
    }
    let config = instance.engine(&node.cgroup_root, &[])?;
    let engine = Engine::visit(config).await.context("cannot look at the pods")?;
    Ok(Some(Arc::new(engine)))
}

/// All sandboxes of an instance, the newest of each pod first.
pub(super) async fn sandboxes(runtime: &dyn Runtime) -> anyhow::Result<Vec<PodSandboxStatus>> {
    let mut all = Vec::new();
    for sandbox in runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await? {
        all.push(runtime.pod_sandbox_status(&sandbox.id).await?);
    }
    let order = |status: &PodSandboxStatus| {
        let metadata = &status.sandbox.metadata;
        let newest = std::cmp::Reverse(status.sandbox.created_at);
        (metadata.namespace.clone(), metadata.name.clone(), newest)
    };
    all.sort_by_key(order);
    Ok(all)
}

/// The newest sandbox of the pod that is meant by `wanted`, if it has one, and what knows it.
pub(super) async fn find(
    instance: &Instance,
    wanted: &str,
) -> anyhow::Result<Option<(Arc<dyn Runtime>, PodSandboxStatus)>> {
    let Some(runtime) = visit(instance).await? else { return Ok(None) };
    let all = sandboxes(&*runtime).await?;
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
    Ok(Some((runtime, first)))
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
    let mut by_age: Vec<&ContainerStatus> = status.containers.iter().collect();
    by_age.sort_by_key(|container| container.created_at);
    // As the manifest has them. Those that were made before this was noted come by their age.
    let noted = status.sandbox.annotations.get(labels::CONTAINERS);
    let mut names: Vec<&str> = noted.iter().flat_map(|names| names.split(',')).collect();
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
    found.copied().with_context(|| match names.contains(&wanted) {
        true => format!("container {wanted:?} has not been started yet"),
        false => format!("container {wanted:?} is not in the pod, which has: {}", names.join(", ")),
    })
}

/// Whether something failed because a runtime of others does not answer.
pub(super) fn is_away(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<mainstay_cri::Error>();
    error.is_some_and(|error| error.kind == ErrorKind::Unavailable)
}

/// Whether a container's process runs.
pub(super) fn is_running(container: &ContainerStatus) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use mainstay_cri::{
        ContainerId, ContainerMetadata, ImageSpec, NamespaceOptions, PodSandbox,
        PodSandboxMetadata, PodSandboxState, SandboxId,
    };

    use super::*;

    #[test]
    fn pods_are_meant_by_their_short_and_their_full_names() {
        let check = |wanted| is_meant(wanted, "default", "web-n1", "n1");
        assert!(["web", "web-n1", "default/web", "default/web-n1"].into_iter().all(check));
        assert!(!["we", "web-n", "kube-system/web", "n1", ""].into_iter().any(check));
    }
    #[test]
    fn the_first_container_is_that_of_the_manifest() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let made = |name: &str, second| ContainerStatus {
            id: ContainerId(format!("{name}-{second}")),
            metadata: ContainerMetadata { name: name.into(), attempt: 0 },
            state: ContainerState::Created,
            created_at: at(second),
            image: ImageSpec("x".into()),
            image_ref: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            log_path: String::new(),
            user: None,
            details: None,
        };
        let check = |noted: Option<&str>, name: Option<&str>, wanted: Result<&str, &str>| {
            let noted = noted.map(|names| (labels::CONTAINERS.to_owned(), names.to_owned()));
            let sandbox = PodSandbox {
                id: SandboxId("1".into()),
                metadata: PodSandboxMetadata {
                    name: "web-n1".into(),
                    uid: "u".into(),
                    namespace: "default".into(),
                    attempt: 0,
                },
                state: PodSandboxState::Ready,
                created_at: at(0),
                labels: BTreeMap::new(),
                annotations: noted.into_iter().collect(),
            };
            // Restarts have left the proxy as the one that was made first.
            let containers = vec![made("proxy", 1), made("app", 2), made("app", 3)];
            let status = PodSandboxStatus {
                sandbox,
                namespaces: NamespaceOptions::default(),
                ips: Vec::new(),
                containers,
            };
            let found = container(&status, name).map(|it| it.id.0.clone());
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found.as_ref().map_or_else(|e| Err(&**e), |id| Ok(&**id)), wanted);
        };
        check(Some("app,proxy"), None, Ok("app-3"));
        check(Some("app,proxy"), Some("proxy"), Ok("proxy-1"));
        check(None, None, Ok("proxy-1"));
        check(Some("late,app,proxy"), None, Err("container \"late\" has not been started yet"));
        let unknown = "container \"x\" is not in the pod, which has: app, proxy";
        check(Some("app,proxy"), Some("x"), Err(unknown));
    }
}
