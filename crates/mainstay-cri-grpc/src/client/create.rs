//! Making sandboxes and containers, and what a server has to know of for that.
//!
//! A server passes over what it does not know. So whatever a pod cannot do without is asked for first, or
//! looked for afterwards.

use std::path::Path;
use std::sync::LazyLock;

use mainstay_cri::{
    ContainerConfig, ContainerId, Error, ErrorKind, LinuxContainerResources, MASKED_PATHS,
    NamespaceMode, PodSandboxConfig, Result, RuntimeCondition, SandboxId, SupplementalGroupsPolicy,
};
use mainstay_linux::cgroup::{Hierarchies, Layout};
use mainstay_linux::machine::thermal_throttles;

use super::{Remote, TTY};
use crate::convert::container_config;
use crate::files::make_log_directory;
use crate::methods::{CREATE_CONTAINER, REMOVE_CONTAINER, RUN_POD_SANDBOX, RUNTIME_CONFIG, STATUS};
use crate::wire;

/// What is hidden from containers, with what of this machine's processors tells of their heat.
static MASKED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let throttles = thermal_throttles().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot look for what tells of the processors' heat; it is not hidden");
        Vec::new()
    });
    MASKED_PATHS.map(str::to_owned).into_iter().chain(throttles).collect()
});

/// Whether control groups of this machine have the files of version 2. Where that cannot be found out they
/// have not.
static UNIFIED: LazyLock<bool> = LazyLock::new(|| {
    Hierarchies::mounted().is_ok_and(|hierarchies| hierarchies.layout() == Layout::V2)
});

/// What a container may use, without the files of version 2 where control groups do not have them.
pub(super) fn resources(wanted: &LinuxContainerResources) -> LinuxContainerResources {
    let mut resources = wanted.clone();
    if !*UNIFIED {
        // runc refuses them. Source: `generateLinuxContainerResources` of the kubelet.
        resources.unified.clear();
    }
    resources
}

impl Remote {
    pub(super) async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        if config.security_context.namespaces.users.is_some() {
            let features = self.features().await?;
            if !features.handler.user_namespaces {
                return Err(self.lacks("user namespaces (hostUsers: false)").await);
            }
        }
        make_log_directory(Path::new(&config.log_directory)).await?;
        let request = wire::RunPodSandboxRequest {
            config: Some(self.sandbox_config(config)),
            runtime_handler: String::new(),
        };
        // Source: `RunPodSandbox` of the kubelet's `remote_runtime.go`, for the network takes its time.
        let limit = self.config.timeout.saturating_mul(2);
        let made: wire::RunPodSandboxResponse =
            self.call_within(RUN_POD_SANDBOX, &request, Some(limit)).await?;
        Ok(SandboxId(made.pod_sandbox_id))
    }

    fn sandbox_config(&self, config: &PodSandboxConfig) -> wire::PodSandboxConfig {
        let mut message = wire::PodSandboxConfig::from(config);
        message.labels = self.marked(message.labels);
        if config.security_context.namespaces.network == NamespaceMode::Node {
            // It is the machine's, which runc refuses to set. Source: `generatePodSandboxConfig`.
            message.hostname.clear();
        }
        message
    }

    pub(super) async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerId> {
        self.can(config).await?;
        let log = Path::new(&sandbox_config.log_directory).join(&config.log_path);
        if let Some(directory) = log.parent().filter(|it| it.is_absolute()) {
            make_log_directory(directory).await?;
        }
        let mounts = self.sub_paths.mount(sandbox, config).await?;
        let mut config = ContainerConfig { mounts, ..config.clone() };
        config.resources = resources(&config.resources);
        self.name_user(&mut config).await?;
        let mut message = container_config(&config, sandbox_config, &MASKED).map_err(|error| {
            Error::with_source(ErrorKind::InvalidArgument, "cannot ask for the container", error)
        })?;
        message.labels = self.marked(message.labels);
        if message.tty {
            message.annotations.insert(TTY.to_owned(), true.to_string());
        }
        let stop_signal = message.stop_signal;
        let of_image = message.mounts.iter().any(|mount| mount.image.is_some());
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(message),
            sandbox_config: Some(self.sandbox_config(sandbox_config)),
        };
        let made = self.call::<wire::CreateContainerResponse>(CREATE_CONTAINER, &request).await;
        let made = match made {
            // One that does not know of them takes them for directories without a name.
            Err(error) if of_image && error.kind == ErrorKind::Internal => {
                let lacks = self.lacks("volumes of images, or cannot use this one").await;
                return Err(Error { source: Some(error.into()), ..lacks });
            }
            other => other.map_err(explained)?,
        };
        let id = made.container_id;
        if stop_signal != 0 && self.look_at(&id).await?.stop_signal != stop_signal {
            let request = wire::RemoveContainerRequest { container_id: id };
            let _: wire::RemoveContainerResponse = self.call(REMOVE_CONTAINER, &request).await?;
            return Err(self.lacks("signals of a pod's own (lifecycle.stopSignal)").await);
        }
        Ok(ContainerId(id))
    }

    /// Names the image's user where a pod names none: servers refuse a group without one, and containerd gives a
    /// user that is not named the groups of root. Source: `determineEffectiveSecurityContext` of the kubelet, and
    /// `containerSpecOpts` in `pkg/cri/server/container_create_linux.go` of containerd 1.6.
    async fn name_user(&self, config: &mut ContainerConfig) -> Result<()> {
        let security = &mut config.security_context;
        if security.run_as_user.is_some() || security.run_as_username.is_some() {
            return Ok(());
        }
        let said = self.ask_for_image(&config.image, true).await?;
        // Without the image the server says that it is missing.
        let Some(image) = said.image else { return Ok(()) };
        if security.run_as_group.is_none()
            && let Some(group) = group_of_user(said.info.get("info").map_or("{}", String::as_str))
        {
            // One with a name can be found by the server alone, with the user as the image has it.
            let Ok(group) = group.parse() else { return Ok(()) };
            security.run_as_group = Some(group);
        }
        match image.uid {
            None if !image.username.is_empty() => security.run_as_username = Some(image.username),
            uid => security.run_as_user = uid.map_or(0, |uid| uid.value).try_into().ok(),
        }
        Ok(())
    }

    /// Whether the server has what a container asks for.
    async fn can(&self, config: &ContainerConfig) -> Result<()> {
        let strict =
            config.security_context.supplemental_groups_policy == SupplementalGroupsPolicy::Strict;
        let recursive = config.mounts.iter().any(|mount| mount.recursive_read_only);
        if !strict && !recursive {
            return Ok(());
        }
        let features = self.features().await?;
        if strict && !features.runtime.supplemental_groups_policy {
            return Err(self.lacks("supplementalGroupsPolicy: Strict").await);
        }
        if recursive && !features.handler.recursive_read_only_mounts {
            return Err(self.lacks("recursive read-only mounts (recursiveReadOnly)").await);
        }
        Ok(())
    }

    /// What the server says it can, which is asked for anew, since it may be another one by now.
    async fn features(&self) -> Result<Features> {
        let status: wire::StatusResponse =
            self.call(STATUS, &wire::StatusRequest { verbose: false }).await?;
        let usual = status.runtime_handlers.into_iter().find(|handler| handler.name.is_empty());
        Ok(Features {
            handler: usual.and_then(|handler| handler.features).unwrap_or_default(),
            runtime: status.features.unwrap_or_default(),
        })
    }

    /// That the server cannot do something, with which one it is.
    async fn lacks(&self, what: &str) -> Error {
        let name = self.version().await.map_or_else(
            |_| "the container runtime".to_owned(),
            |it| format!("{} {}", it.runtime_name, it.runtime_version),
        );
        Error::new(ErrorKind::Unimplemented, format!("{name} has no {what}"))
    }

    /// A server that makes control groups in another way than pods are given theirs runs none. Those that do
    /// not say how they make them are believed until one fails.
    pub(super) async fn cgroup_condition(&self) -> Option<RuntimeCondition> {
        let said = self
            .call::<wire::RuntimeConfigResponse>(RUNTIME_CONFIG, &wire::RuntimeConfigRequest {})
            .await;
        let driver = said.ok()?.linux?.cgroup_driver;
        (driver == i32::from(wire::CgroupDriver::Systemd)).then(|| RuntimeCondition {
            kind: "RuntimeReady".to_owned(),
            status: false,
            reason: "CgroupDriver".to_owned(),
            message: CGROUP_DRIVER.to_owned(),
        })
    }
}

/// The group that an image names with its user, of which the protocol has nothing but what servers tell in detail.
fn group_of_user(info: &str) -> Option<String> {
    let info = serde_json::from_str::<serde_json::Value>(info).unwrap_or_default();
    let user = info.pointer("/imageSpec/config/User")?.as_str()?;
    user.split_once(':').map(|(_, group)| group.to_owned()).filter(|group| !group.is_empty())
}

/// What to do about a server that lets systemd make control groups.
const CGROUP_DRIVER: &str = "the container runtime makes control groups by systemd, and pods here have theirs \
                             by paths: set SystemdCgroup = false in containerd's configuration, or \
                             cgroup_manager = \"cgroupfs\" in CRI-O's, and start it anew";

/// What a server says that it can.
struct Features {
    handler: wire::RuntimeHandlerFeatures,
    runtime: wire::RuntimeFeatures,
}

/// Adds what to do about what servers only say in their own words. Source: `specconv` of runc.
fn explained(error: Error) -> Error {
    if error.message.contains("slice:prefix:name") {
        let kind = error.kind;
        return Error::with_source(kind, CGROUP_DRIVER, error);
    }
    error
}
