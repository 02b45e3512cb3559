//! Containers.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_cri::{
    ContainerConfig, ContainerId, ContainerStatus, ErrorKind, ExecSyncRequest,
    LinuxContainerResources, Mount, NamespaceMode, PodSandboxConfig, PodSandboxFilter,
    PodSandboxStatus, SandboxId,
};
use mainstay_grpc::{Code, Status};

use super::{Answer, Server, carries, failed, invalid, is_meant, needed};
use crate::convert::nanoseconds;
use crate::files::{self, blocking};
use crate::wire;

impl Server {
    pub(super) async fn create_container(
        self: Arc<Self>,
        request: wire::CreateContainerRequest,
    ) -> Answer<wire::CreateContainerResponse> {
        let message = needed("config", request.config)?;
        check(&message)?;
        let processes = processes_of(&message);
        let config = ContainerConfig::try_from(message)?;
        let sandbox_config = needed("sandbox_config", request.sandbox_config)?;
        let sandbox_config = PodSandboxConfig::try_from(sandbox_config)?;
        let sandbox = SandboxId(request.pod_sandbox_id);
        let seen = self.runtime.pod_sandbox_status(&sandbox).await.map_err(failed)?;
        check_processes(seen.namespaces.pid, processes)?;
        make_host_paths(&config.mounts).await?;
        let made = self.runtime.create_container(&sandbox, &config, &sandbox_config).await;
        Ok(wire::CreateContainerResponse { container_id: made.map_err(failed)?.0 })
    }

    pub(super) async fn start_container(
        self: Arc<Self>,
        request: wire::StartContainerRequest,
    ) -> Answer<wire::StartContainerResponse> {
        let id = ContainerId(request.container_id);
        self.runtime.start_container(&id).await.map_err(failed)?;
        Ok(wire::StartContainerResponse {})
    }

    pub(super) async fn stop_container(
        self: Arc<Self>,
        request: wire::StopContainerRequest,
    ) -> Answer<wire::StopContainerResponse> {
        let id = ContainerId(request.container_id);
        // Less than nothing is nothing.
        let timeout = Duration::from_secs(request.timeout.try_into().unwrap_or(0));
        self.runtime.stop_container(&id, timeout).await.map_err(failed)?;
        Ok(wire::StopContainerResponse {})
    }

    pub(super) async fn remove_container(
        self: Arc<Self>,
        request: wire::RemoveContainerRequest,
    ) -> Answer<wire::RemoveContainerResponse> {
        let id = ContainerId(request.container_id);
        self.runtime.remove_container(&id).await.map_err(failed)?;
        Ok(wire::RemoveContainerResponse {})
    }

    pub(super) async fn list_containers(
        self: Arc<Self>,
        request: wire::ListContainersRequest,
    ) -> Answer<wire::ListContainersResponse> {
        let filter = request.filter.unwrap_or_default();
        let mut containers = Vec::new();
        for sandbox in self.sandboxes(&filter.pod_sandbox_id).await? {
            let of_sandbox = sandbox.containers.iter().map(|it| listed(&sandbox, it));
            containers.extend(of_sandbox.filter(|it| {
                let state = filter.state.as_ref();
                is_meant(&it.id, &filter.id)
                    && state.is_none_or(|wanted| wanted.state == it.state)
                    && carries(&it.labels, &filter.label_selector)
            }));
        }
        Ok(wire::ListContainersResponse { containers })
    }

    pub(super) async fn container_status(
        self: Arc<Self>,
        request: wire::ContainerStatusRequest,
    ) -> Answer<wire::ContainerStatusResponse> {
        let id = ContainerId(request.container_id);
        let status = self.runtime.container_status(&id).await.map_err(failed)?;
        let status = Some((&status).into());
        Ok(wire::ContainerStatusResponse { status, ..Default::default() })
    }

    pub(super) async fn update_container_resources(
        self: Arc<Self>,
        request: wire::UpdateContainerResourcesRequest,
    ) -> Answer<wire::UpdateContainerResourcesResponse> {
        let id = ContainerId(request.container_id);
        let resources = LinuxContainerResources::try_from(needed("linux", request.linux)?)?;
        self.runtime.update_container_resources(&id, &resources).await.map_err(failed)?;
        Ok(wire::UpdateContainerResourcesResponse {})
    }

    pub(super) async fn reopen_container_log(
        self: Arc<Self>,
        request: wire::ReopenContainerLogRequest,
    ) -> Answer<wire::ReopenContainerLogResponse> {
        let id = ContainerId(request.container_id);
        self.runtime.reopen_container_log(&id).await.map_err(failed)?;
        Ok(wire::ReopenContainerLogResponse {})
    }

    pub(super) async fn exec_sync(
        self: Arc<Self>,
        request: wire::ExecSyncRequest,
    ) -> Answer<wire::ExecSyncResponse> {
        let request = ExecSyncRequest::from(request);
        if request.command.is_empty() {
            return Err(invalid("cmd is empty"));
        }
        Ok(self.runtime.exec_sync(&request).await.map_err(failed)?.into())
    }

    /// The sandbox of this id, which need not be there, or all there are, each with its containers.
    pub(super) async fn sandboxes(&self, id: &str) -> Answer<Vec<PodSandboxStatus>> {
        let all = self.runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await;
        let mut found = Vec::new();
        for sandbox in all.map_err(failed)?.into_iter().filter(|it| is_meant(&it.id.0, id)) {
            match self.runtime.pod_sandbox_status(&sandbox.id).await {
                Ok(status) => found.push(status),
                // It has been removed meanwhile.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(found)
    }
}

/// A container as lists have it.
fn listed(sandbox: &PodSandboxStatus, container: &ContainerStatus) -> wire::Container {
    let id = container.details.as_ref().map(|details| details.image_id.clone());
    wire::Container {
        id: container.id.0.clone(),
        pod_sandbox_id: sandbox.sandbox.id.0.clone(),
        metadata: Some((&container.metadata).into()),
        image: Some((&container.image).into()),
        // Source: `toCRIContainer` of containerd, whose reference here is the id.
        image_ref: id.clone().unwrap_or_else(|| container.image_ref.clone()),
        state: wire::ContainerState::from(&container.state).into(),
        created_at: nanoseconds(container.created_at),
        labels: container.labels.clone(),
        annotations: container.annotations.clone(),
        image_id: id.unwrap_or_default(),
    }
}

/// Whether a container may be asked for. Source: the comments on `recursive_read_only` and `run_as_group`, and
/// `WithMounts` and `generateUserString` of containerd for the words.
fn check(config: &wire::ContainerConfig) -> Answer<()> {
    for mount in config.mounts.iter().filter(|mount| mount.recursive_read_only) {
        let path = &mount.container_path;
        if !mount.readonly {
            return Err(invalid(format!(
                "recursive read-only mount conflicts with RW mount at {path:?}"
            )));
        }
        if mount.propagation != i32::from(wire::MountPropagation::Private) {
            return Err(invalid(format!(
                "recursive read-only mount at {path:?} is incompatible with non-private propagation"
            )));
        }
    }
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    if let Some(security) = security
        && let Some(group) = &security.run_as_group
        && security.run_as_user.is_none()
        && security.run_as_username.is_empty()
    {
        return Err(invalid(format!("user group \"{}\" is specified without user", group.value)));
    }
    Ok(())
}

/// Whose process numbers a container asks for, if it says.
fn processes_of(config: &wire::ContainerConfig) -> Option<i32> {
    let security = config.linux.as_ref()?.security_context.as_ref()?;
    Some(security.namespace_options.as_ref()?.pid)
}

/// Process numbers are a matter of the sandbox, or those of another container.
fn check_processes(of_sandbox: NamespaceMode, asked: Option<i32>) -> Answer<()> {
    let Some(asked) = asked else { return Ok(()) };
    let mode = wire::NamespaceMode::try_from(asked)
        .map_err(|_| invalid(format!("namespace_options.pid cannot be {asked}")))?;
    let same = match mode {
        wire::NamespaceMode::Target => true,
        wire::NamespaceMode::Pod => of_sandbox == NamespaceMode::Pod,
        wire::NamespaceMode::Container => of_sandbox == NamespaceMode::Container,
        wire::NamespaceMode::Node => of_sandbox == NamespaceMode::Node,
    };
    if same {
        return Ok(());
    }
    let message = format!(
        "the container's namespace_options.pid is {mode:?}, and that of its sandbox {of_sandbox:?}; they have to \
         be the same"
    );
    Err(Status::new(Code::Unimplemented, message))
}

/// Makes directories of what is to be mounted and is not there. Source: `WithMounts` of containerd,
/// `internal/cri/opts/spec_linux_opts.go`.
async fn make_host_paths(mounts: &[Mount]) -> Answer<()> {
    let mut paths = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.image.is_none()) {
        let path = PathBuf::from(&mount.host_path);
        if !path.is_absolute() {
            return Err(invalid(format!("the host path {:?} is not absolute", mount.host_path)));
        }
        paths.push(path);
    }
    let made = blocking(move || {
        for path in &paths {
            let failed = files::failed(path, "make the directory that is to be mounted");
            match fs::metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(path).map_err(failed)?;
                }
                other => {
                    other.map_err(failed)?;
                }
            }
        }
        Ok(())
    });
    made.await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused() {
        let mount = |readonly, propagation: wire::MountPropagation| wire::Mount {
            readonly,
            recursive_read_only: true,
            propagation: propagation.into(),
            ..Default::default()
        };
        let with = |mount| wire::ContainerConfig { mounts: vec![mount], ..Default::default() };
        use wire::MountPropagation::{Bidirectional, HostToContainer, Private};
        assert_eq!(check(&with(mount(true, Private))), Ok(()));
        for odd in [mount(false, Private), mount(true, HostToContainer), mount(true, Bidirectional)]
        {
            assert_eq!(check(&with(odd)).unwrap_err().code, Code::InvalidArgument);
        }
        let run_as = |user: Option<i64>, name: &str| {
            let security = wire::LinuxContainerSecurityContext {
                run_as_user: user.map(|value| wire::Int64Value { value }),
                run_as_username: name.into(),
                run_as_group: Some(wire::Int64Value { value: 1 }),
                ..Default::default()
            };
            let linux =
                wire::LinuxContainerConfig { security_context: Some(security), resources: None };
            check(&wire::ContainerConfig { linux: Some(linux), ..Default::default() })
        };
        assert_eq!(run_as(Some(0), ""), Ok(()));
        assert_eq!(run_as(None, "web"), Ok(()));
        let refused = run_as(None, "").unwrap_err().message;
        assert_eq!(refused, "user group \"1\" is specified without user");
    }

    #[test]
    fn process_numbers_are_those_of_the_sandbox() {
        let check = |of_sandbox, asked: Option<wire::NamespaceMode>| {
            check_processes(of_sandbox, asked.map(Into::into)).map_err(|status| status.code)
        };
        use NamespaceMode::{Container, Node, Pod};
        use wire::NamespaceMode as Asked;
        for (of_sandbox, asked) in
            [(Pod, Asked::Pod), (Container, Asked::Container), (Node, Asked::Node)]
        {
            assert_eq!(check(of_sandbox, None), Ok(()));
            assert_eq!(check(of_sandbox, Some(asked)), Ok(()));
            // The runtime says whose it may be.
            assert_eq!(check(of_sandbox, Some(Asked::Target)), Ok(()));
        }
        assert_eq!(check(Pod, Some(Asked::Container)), Err(Code::Unimplemented));
        assert_eq!(check(Container, Some(Asked::Node)), Err(Code::Unimplemented));
        let odd = check_processes(Pod, Some(7)).map_err(|status| status.code);
        assert_eq!(odd, Err(Code::InvalidArgument));
    }
}
