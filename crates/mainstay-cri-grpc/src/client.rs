//! A runtime behind the socket of another program.
//!
//! # Tasks
//!
//! One that drives the connection (of `mainstay-grpc`), and one that asks what happened ([`events`]), from the first
//! time that somebody wants to hear of it.
//!
//! # Whose pods
//!
//! A server may have pods of others. What is made here is marked ([`RemoteConfig::mark`]), and nothing else is
//! ever listed.

mod channel;
mod create;
mod events;
mod images;
mod outputs;
mod streaming;
mod sub_paths;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use jiff::Timestamp;
use mainstay_cri::{
    AttachRequest, Attached, Container, ContainerConfig, ContainerEvent, ContainerFilter,
    ContainerId, ContainerState, ContainerStatus, EXEC_SYNC_OUTPUT, Error, ErrorKind, Exec,
    ExecRequest, ExecSync, ExecSyncRequest, FilesystemUsage, ImageSpec, LinuxContainerResources,
    Others, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStats, PodSandboxStatus,
    PortForward, Result, Runtime, RuntimeStatus, SandboxId, Version,
};
use prost::Message;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

pub use images::{Credentials, Offer, PullCredentials, RemoteImages};

use crate::convert::seconds;
use crate::methods::*;
use crate::tasks::Tasks;
use crate::wire;
use channel::Channel;
use sub_paths::SubPaths;

/// How long a call may take, unless it is one that takes its time. Source: `runtimeRequestTimeout` of
/// `KubeletConfiguration`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Where a runtime is, and what is done with it.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// The server's socket.
    pub socket: PathBuf,
    /// The label and its value that all has which is made here.
    pub mark: (String, String),
    /// Where parts of volumes are mounted, so that a server finds them; it is made when it is needed.
    pub sub_paths: PathBuf,
    /// How long a call may take: [`REQUEST_TIMEOUT`], unless it is configured.
    pub timeout: Duration,
}

/// A runtime behind a socket. Clones are handles of the same one.
#[derive(Clone)]
pub struct RemoteRuntime(Arc<Remote>);

/// What all handles share.
struct Remote {
    config: RemoteConfig,
    channel: Channel,
    sub_paths: SubPaths,
    events: broadcast::Sender<ContainerEvent>,
    /// The task that asks what happened, once somebody wants to hear of it.
    following: Mutex<Option<AbortHandle>>,
    tasks: Tasks,
    /// Since when containers run, which statistics do not say.
    started: Mutex<HashMap<String, Timestamp>>,
}

/// Notes that a container has a terminal, of which a status says nothing, as an annotation.
const TTY: &str = "mainstay.dev/tty";

/// How many events may wait for a slow listener before it is told that it missed some.
const EVENT_BACKLOG: usize = 256;

impl RemoteRuntime {
    /// A runtime that need not be there yet.
    pub fn new(config: RemoteConfig) -> Self {
        Self(Arc::new(Remote {
            channel: Channel::new(config.socket.clone()),
            sub_paths: SubPaths::new(config.sub_paths.clone()),
            events: broadcast::Sender::new(EVENT_BACKLOG),
            following: Mutex::default(),
            tasks: Tasks::default(),
            started: Mutex::default(),
            config,
        }))
    }

    /// Its images. Credentials are chosen by `credentials`.
    pub fn images(&self, credentials: Arc<dyn PullCredentials>) -> RemoteImages {
        RemoteImages::new(self.0.clone(), credentials)
    }
}

impl Remote {
    /// A call that takes as long as most do.
    async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<A> {
        self.channel.call(method, request, Some(self.config.timeout)).await
    }

    /// A call that may take longer than others.
    async fn call_within<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
        limit: Option<Duration>,
    ) -> Result<A> {
        self.channel.call(method, request, limit).await
    }

    /// Which server it is.
    async fn version(&self) -> Result<wire::VersionResponse> {
        // Source: `kubeRuntimeAPIVersion` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.
        let request = wire::VersionRequest { version: "0.1.0".to_owned() };
        self.call(VERSION, &request).await
    }

    /// Labels, or those to look for, with the mark.
    fn marked(&self, mut labels: Labels) -> Labels {
        let (label, value) = &self.config.mark;
        labels.insert(label.clone(), value.clone());
        labels
    }

    fn is_own(&self, labels: &Labels) -> bool {
        let (label, value) = &self.config.mark;
        labels.get(label) == Some(value)
    }

    fn without_mark(&self, labels: &mut Labels) {
        labels.remove(&self.config.mark.0);
    }

    async fn sandboxes(&self, filter: &PodSandboxFilter) -> Result<Vec<wire::PodSandbox>> {
        let labels = self.marked(filter.labels.clone());
        let filter = Some((&PodSandboxFilter { labels }).into());
        let request = wire::ListPodSandboxRequest { filter };
        let listed: wire::ListPodSandboxResponse = self.call(LIST_POD_SANDBOX, &request).await?;
        Ok(listed.items)
    }

    async fn containers(&self, filter: &ContainerFilter) -> Result<Vec<wire::Container>> {
        let labels = self.marked(filter.labels.clone());
        let filter = Some((&ContainerFilter { labels, ..filter.clone() }).into());
        let request = wire::ListContainersRequest { filter };
        let listed: wire::ListContainersResponse = self.call(LIST_CONTAINERS, &request).await?;
        Ok(listed.containers)
    }

    /// One container. One of which the server has lost count is ended first, so that it does not run beside
    /// its successor. Source: `computePodActions` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.
    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let mut status = self.look_at(id).await?;
        if status.state == i32::from(wire::ContainerState::Unknown) {
            let message = "the runtime does not know what became of a container, which is ended";
            tracing::warn!(container = id, "{message}");
            self.stop(id, Duration::ZERO).await?;
            status = self.look_at(id).await?;
        }
        let mut status: ContainerStatus = status.try_into()?;
        self.without_mark(&mut status.labels);
        status.annotations.remove(TTY);
        if let ContainerState::Running { started_at } = status.state {
            self.remember_start(id, started_at);
        }
        Ok(status)
    }

    async fn look_at(&self, id: &str) -> Result<wire::ContainerStatus> {
        let request = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let response: wire::ContainerStatusResponse = self.call(CONTAINER_STATUS, &request).await?;
        response.status.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("the runtime tells nothing of container {id}"))
        })
    }

    async fn stop(&self, id: &str, timeout: Duration) -> Result<()> {
        let request =
            wire::StopContainerRequest { container_id: id.to_owned(), timeout: seconds(timeout) };
        let limit = self.config.timeout.saturating_add(timeout);
        let stopped = self.call_within(STOP_CONTAINER, &request, Some(limit)).await;
        gone_is_fine(stopped.map(|_: wire::StopContainerResponse| ()))
    }
}

type Labels = std::collections::BTreeMap<String, String>;

#[async_trait]
impl Runtime for RemoteRuntime {
    async fn version(&self) -> Result<Version> {
        Ok(self.0.version().await?.into())
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let mut status: wire::StatusResponse =
            self.0.call(STATUS, &wire::StatusRequest { verbose: false }).await?;
        let mut status: RuntimeStatus = status.status.take().unwrap_or_default().into();
        status.conditions.extend(self.0.cgroup_condition().await);
        Ok(status)
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        self.0.run_pod_sandbox(config).await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        let request = wire::StopPodSandboxRequest { pod_sandbox_id: id.0.clone() };
        let stopped = self.0.call(STOP_POD_SANDBOX, &request).await;
        gone_is_fine(stopped.map(|_: wire::StopPodSandboxResponse| ()))
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        // Servers differ in whether they remove what runs.
        self.stop_pod_sandbox(id).await?;
        let request = wire::RemovePodSandboxRequest { pod_sandbox_id: id.0.clone() };
        let removed = self.0.call(REMOVE_POD_SANDBOX, &request).await;
        gone_is_fine(removed.map(|_: wire::RemovePodSandboxResponse| ()))?;
        self.0.sub_paths.remove(id).await
    }

    /// As of one moment as far as the protocol has it: the sandbox, then its containers one by one. One that
    /// was removed meanwhile is left out.
    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus> {
        let request =
            wire::PodSandboxStatusRequest { pod_sandbox_id: id.0.clone(), verbose: false };
        let mut response: wire::PodSandboxStatusResponse =
            self.0.call(POD_SANDBOX_STATUS, &request).await?;
        // Some servers have them, with what they knew at another time.
        response.containers_statuses.clear();
        let mut status: PodSandboxStatus = response.try_into()?;
        // Servers that tell what happens tell it of everybody's, and somebody may ask for it then.
        if !self.0.is_own(&status.sandbox.labels) {
            let message = format!("sandbox {id} is not this instance's");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        self.0.without_mark(&mut status.sandbox.labels);
        let filter = ContainerFilter { sandbox: Some(id.clone()), ..ContainerFilter::default() };
        for container in self.0.containers(&filter).await? {
            match self.0.container_status(&container.id).await {
                Ok(container) => status.containers.push(container),
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(status)
    }

    async fn list_pod_sandboxes(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let listed = self.0.sandboxes(filter).await?.into_iter().map(|sandbox| {
            let mut sandbox = PodSandbox::try_from(sandbox)?;
            self.0.without_mark(&mut sandbox.labels);
            Ok(sandbox)
        });
        listed.collect()
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerId> {
        self.0.create_container(sandbox, config, sandbox_config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let request = wire::StartContainerRequest { container_id: id.0.clone() };
        let started = self.0.call(START_CONTAINER, &request).await;
        started.map(|_: wire::StartContainerResponse| ())
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        self.0.stop(&id.0, timeout).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let request = wire::RemoveContainerRequest { container_id: id.0.clone() };
        let removed = self.0.call(REMOVE_CONTAINER, &request).await;
        gone_is_fine(removed.map(|_: wire::RemoveContainerResponse| ()))
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let listed = self.0.containers(filter).await?.into_iter().map(|container| {
            let mut container = Container::try_from(container)?;
            self.0.without_mark(&mut container.labels);
            Ok(container)
        });
        listed.collect()
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        self.0.container_status(&id.0).await
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxContainerResources,
    ) -> Result<()> {
        let request = wire::UpdateContainerResourcesRequest {
            container_id: id.0.clone(),
            linux: Some((&create::resources(resources)).into()),
            ..Default::default()
        };
        let updated = self.0.call(UPDATE_CONTAINER_RESOURCES, &request).await;
        updated.map(|_: wire::UpdateContainerResourcesResponse| ())
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        let request = wire::ReopenContainerLogRequest { container_id: id.0.clone() };
        let reopened = self.0.call(REOPEN_CONTAINER_LOG, &request).await;
        reopened.map(|_: wire::ReopenContainerLogResponse| ())
    }

    async fn exec(&self, request: &ExecRequest) -> Result<Exec> {
        streaming::exec(&self.0, request).await
    }

    async fn exec_sync(&self, request: &ExecSyncRequest) -> Result<ExecSync> {
        // What is left after the command's own time is for the server to end it.
        let limit = request.timeout.map(|it| it.saturating_add(self.0.config.timeout));
        let request = wire::ExecSyncRequest::from(request);
        let ended: wire::ExecSyncResponse = self.0.call_within(EXEC_SYNC, &request, limit).await?;
        let mut ended = ExecSync::from(ended);
        // Servers keep more.
        ended.stdout.truncate(EXEC_SYNC_OUTPUT);
        ended.stderr.truncate(EXEC_SYNC_OUTPUT);
        Ok(ended)
    }

    async fn attach(&self, request: &AttachRequest) -> Result<Attached> {
        streaming::attach(&self.0, request).await
    }

    async fn port_forward(&self, sandbox: &SandboxId, port: u16) -> Result<PortForward> {
        streaming::port_forward(&self.0, sandbox, port).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: &PodSandboxFilter,
    ) -> Result<Vec<PodSandboxStats>> {
        self.0.list_pod_sandbox_stats(filter).await
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<FilesystemUsage> {
        self.0.writable_layer(id).await
    }

    /// Of their users servers tell nothing in lists.
    async fn others(&self) -> Result<Others> {
        let request = wire::ListContainersRequest { filter: None };
        let listed: wire::ListContainersResponse = self.0.call(LIST_CONTAINERS, &request).await?;
        let theirs = listed.containers.into_iter().filter(|it| !self.0.is_own(&it.labels));
        let images = theirs.map(|it| it.image_ref).filter(|name| !name.is_empty()).map(ImageSpec);
        Ok(Others { images: images.collect(), users: Vec::new() })
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        events::listen(&self.0)
    }
}

/// What is not there has been stopped and removed.
fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
