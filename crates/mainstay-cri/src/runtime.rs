//! The runtime half of the contract.

use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::{
    AttachRequest, Attached, Container, ContainerConfig, ContainerEvent, ContainerFilter,
    ContainerId, ContainerStatus, Exec, ExecRequest, ExecSync, ExecSyncRequest, FilesystemUsage,
    IdMapping, ImageSpec, LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxStats, PodSandboxStatus, PortForward, Result, SandboxId,
};

/// Sandboxes and containers. Source: service `RuntimeService` in `runtime/v1/api.proto`.
///
/// # Guarantees
///
/// - A call that was dropped half-way leaves nothing that a repetition, or the removal of the
///   sandbox, does not deal with.
/// - Stopping or removing what is stopped or gone succeeds.
/// - Calls for different sandboxes do not wait for each other.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// The runtime's name and version.
    async fn version(&self) -> Result<Version>;

    /// Whether the runtime and its network work, and if not, why not.
    async fn status(&self) -> Result<RuntimeStatus>;

    /// Makes a sandbox: the namespaces, the network and the cgroup that a pod's containers share.
    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId>;

    /// Kills what still runs in the sandbox and gives back its network. Idempotent.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()>;

    /// Removes the sandbox and its containers, killing what still runs. Idempotent.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()>;

    /// One sandbox, and all its containers, as of one moment.
    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus>;

    /// All sandboxes that match.
    async fn list_pod_sandboxes(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>>;

    /// Makes a container in a sandbox, ready to be started.
    ///
    /// `sandbox_config` is the one that the sandbox was made with.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerId>;

    /// Starts a created container.
    async fn start_container(&self, id: &ContainerId) -> Result<()>;

    /// Sends the stop signal, waits up to `timeout`, then kills. Returns when the container has
    /// ended. Idempotent; a call with a shorter timeout overtakes an earlier one.
    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()>;

    /// Removes a container, killing it if it runs. Idempotent.
    async fn remove_container(&self, id: &ContainerId) -> Result<()>;

    /// All containers that match.
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>>;

    /// One container.
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus>;

    /// Changes what a container that has not ended may use. What is not set stays as it is, and so does how
    /// soon the kernel kills it.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when it has ended. A part of it may have been changed whatever the error.
    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxContainerResources,
    ) -> Result<()>;

    /// Opens the container's log file anew, after it was renamed for rotation.
    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()>;

    /// Runs one more process in a running container.
    async fn exec(&self, request: &ExecRequest) -> Result<Exec>;

    /// Runs one more process in a running container, without input, and waits for its end. What its
    /// own children write afterwards is not waited for.
    ///
    /// # Errors
    ///
    /// `DeadlineExceeded` when it has not ended in its time; it has been killed then.
    async fn exec_sync(&self, request: &ExecSyncRequest) -> Result<ExecSync>;

    /// Joins the streams of a container that has not ended.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when it has ended, `InvalidArgument` when it has a terminal and the
    /// request says that it has none, or the other way round.
    async fn attach(&self, request: &AttachRequest) -> Result<Attached>;

    /// Connects to a port of `localhost` as the containers of the sandbox see it, by IPv4 and
    /// then by IPv6.
    ///
    /// # Errors
    ///
    /// `Unavailable` when nobody listens there; the message says on which port. A runtime that learns of it
    /// only later says the same in the error of the first read.
    async fn port_forward(&self, sandbox: &SandboxId, port: u16) -> Result<PortForward>;

    /// What the sandboxes that match and are ready use, and their running containers.
    async fn list_pod_sandbox_stats(
        &self,
        filter: &PodSandboxFilter,
    ) -> Result<Vec<PodSandboxStats>>;

    /// What a container has written to its root file system. It is counted when somebody asks, which
    /// may take its time. Source: `writable_layer` of `ContainerStats`.
    async fn writable_layer(&self, id: &ContainerId) -> Result<FilesystemUsage>;

    /// What others have here, who use the same runtime: none of it is ever listed.
    async fn others(&self) -> Result<Others>;

    /// What happens from now on.
    fn events(&self) -> BoxStream<'static, ContainerEvent>;
}

/// What is not to be taken from others, who use the same runtime. Not in the protocol, whose clients list it
/// with all there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// The images that their containers are made from, as far as is known: not to be removed.
    pub images: Vec<ImageSpec>,
    /// The machine's users that their pods have, as far as is known: not to be given to anybody else.
    pub users: Vec<IdMapping>,
}

/// Source: `VersionResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The runtime's name, such as `mainstay` or `containerd`.
    pub runtime_name: String,
    /// The runtime's own version.
    pub runtime_version: String,
    /// The version of the CRI that it speaks, such as `v1`.
    pub runtime_api_version: String,
}

/// Source: `RuntimeStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// At least `RuntimeReady` and `NetworkReady`.
    pub conditions: Vec<RuntimeCondition>,
}

/// How the message of an error begins that is made since `NetworkReady` does not hold. Source:
/// `NetworkNotReadyErrorMsg` in `pkg/kubelet/errors.go`.
pub const NETWORK_NOT_READY: &str = "network is not ready";

/// One thing that has to be so for pods to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// `RuntimeReady` or `NetworkReady`.
    pub kind: String,
    /// Whether it holds.
    pub status: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence for people, with the remedy.
    pub message: String,
}
