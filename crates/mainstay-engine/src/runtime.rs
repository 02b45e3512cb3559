//! The engine's verbs, as the contract has them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use jiff::Timestamp;
use mainstay_cri::{
    AttachRequest, Attached, Container, ContainerConfig, ContainerEvent, ContainerFilter,
    ContainerId, ContainerStatus, EXEC_SYNC_OUTPUT, Error, ErrorKind, Exec, ExecRequest, ExecSync,
    ExecSyncRequest, FilesystemUsage, ImageSpec, LinuxContainerResources, Others, PodSandbox,
    PodSandboxConfig, PodSandboxFilter, PodSandboxStats, PodSandboxStatus, PortForward, Result,
    Runtime, RuntimeCondition, RuntimeStatus, SandboxId, Version,
};
use mainstay_linux::disk_usage::disk_usage;
use tokio::sync::oneshot;
use tokio_stream::wrappers::BroadcastStream;

use crate::container::details;
use crate::record::Maker;
use crate::sandbox::Sandbox;
use crate::{Engine, UPPER, blocking, check, container, failed, io_failed, sandbox};

/// How much is kept of each output of a command that a client waits for: both are in one message, which its
/// other end takes up to 16 MiB long. Source: `ExecSyncResponse`, which has the same for each of them.
const CLIENT_OUTPUT: usize = (8 << 20) - (4 << 10);

impl Engine {
    /// Adds for clients what containers were made with. The agent knows.
    async fn add_details(
        &self,
        sandbox: &Sandbox,
        containers: &mut [ContainerStatus],
    ) -> Result<()> {
        if self.1 == Maker::Agent {
            return Ok(());
        }
        let bundles: Vec<_> = containers.iter().map(|it| sandbox.bundle(&it.id)).collect();
        let read = blocking(move || Ok(bundles.iter().map(|it| details::read(it)).collect()));
        let all: Vec<_> = read.await?;
        for (container, details) in containers.iter_mut().zip(all) {
            container.details = details.map(Box::new);
        }
        Ok(())
    }
}

/// Adapts the engine's verbs to the contract.
#[async_trait]
impl Runtime for Engine {
    async fn version(&self) -> Result<Version> {
        Ok(Version {
            runtime_name: "mainstay".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    /// Also mends what others broke in the network, so it is asked for now and then.
    async fn status(&self) -> Result<RuntimeStatus> {
        let runtime = self.0.launcher().map(drop).err().map(|error| error.chain());
        let instance = self.0.clone();
        let network = blocking(move || check::network(&instance)).await?;
        let condition = |kind: &str, failure: Option<String>, told: String| RuntimeCondition {
            kind: kind.to_owned(),
            status: failure.is_none(),
            reason: if failure.is_none() { "Ready" } else { "Failed" }.to_owned(),
            message: failure.unwrap_or(told),
        };
        let plugins = check::plugins(&self.0).await;
        let foreign =
            self.0.all().iter().filter_map(|it| it.state().foreign.clone()).collect::<Vec<_>>();
        Ok(RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", runtime, foreign.join("; ")),
                plugins.unwrap_or(condition("NetworkReady", network.failures, network.told)),
            ],
        })
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        sandbox::run::run(&self.0, self.1, config).await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        sandbox::stop::stop(&self.0, id).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        sandbox::remove::remove(&self.0, id).await
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus> {
        let sandbox = self.0.sandbox(id)?;
        let (mut status, maker) = sandbox.status(self.1);
        if !self.1.sees(maker) {
            return Err(Error::new(ErrorKind::NotFound, format!("sandbox {id} does not exist")));
        }
        self.add_details(&sandbox, &mut status.containers).await?;
        Ok(status)
    }

    async fn list_pod_sandboxes(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let all = self.0.all().into_iter().filter(|it| self.1.sees(it.state().record.maker));
        let all = all.map(|sandbox| sandbox.summary());
        Ok(all.filter(|sandbox| carries(&sandbox.labels, &filter.labels)).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        _sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerId> {
        container::create::create(&self.0, self.1, sandbox, config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        container::start::start(&self.0, id).await
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        container::stop::stop(&self.0, id, timeout).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        container::remove::remove(&self.0, id).await
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let mut list = Vec::new();
        for sandbox in self.0.all() {
            let state = sandbox.state();
            let id = &state.record.id;
            let is_meant = filter.sandbox.as_ref().is_none_or(|wanted| wanted == id);
            if !is_meant || !self.1.sees(state.record.maker) {
                continue;
            }
            let matching = state.containers.values().filter(|container| {
                let record = &container.record;
                self.1.sees(record.maker) && record.labels.carry(&filter.labels)
            });
            list.extend(matching.map(|container| Container {
                id: container.record.id.clone(),
                sandbox: id.clone(),
                metadata: container.record.metadata.clone(),
                state: container.state.clone(),
                labels: container.record.labels.to_map(),
            }));
        }
        Ok(list)
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        let sandbox = self.0.sandbox_of(id)?;
        let found = sandbox.state().containers.get(id).map(|it| sandbox::container_status(it));
        let mut status = found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("container {id} does not exist"))
        })?;
        self.add_details(&sandbox, std::slice::from_mut(&mut status)).await?;
        Ok(status)
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxContainerResources,
    ) -> Result<()> {
        container::update::update(&self.0, id, resources).await
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        container::log::reopen(&self.0, id).await
    }

    async fn exec(&self, request: &ExecRequest) -> Result<Exec> {
        container::exec::exec(&self.0, request).await
    }

    async fn exec_sync(&self, request: &ExecSyncRequest) -> Result<ExecSync> {
        use container::exec::exec_sync;
        if self.1 == Maker::Agent {
            // A hook goes on when the agent is started anew.
            return exec_sync(&self.0, request, EXEC_SYNC_OUTPUT, std::future::pending()).await;
        }
        // A client may leave at any time, and what has been started for it is to be known by then. Source:
        // `execInContainer` in `internal/cri/server/container_execsync.go` of containerd.
        let (mut answer, answered) = oneshot::channel();
        let (engine, request) = (self.0.clone(), request.clone());
        self.0.spawn(async move {
            let run = exec_sync(&engine, &request, CLIENT_OUTPUT, answer.closed()).await;
            drop(answer.send(run));
        });
        answered.await.map_err(failed("cannot wait for the command"))?
    }

    async fn attach(&self, request: &AttachRequest) -> Result<Attached> {
        container::attach::attach(&self.0, request).await
    }

    async fn port_forward(&self, sandbox: &SandboxId, port: u16) -> Result<PortForward> {
        sandbox::port_forward::port_forward(&self.0, sandbox, port).await
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<FilesystemUsage> {
        let directory = self.0.writable_directory(id).join(UPPER);
        let failed = io_failed(format!("cannot look through {}", directory.display()));
        let counted = blocking(move || disk_usage(&directory).map_err(failed)).await?;
        Ok(FilesystemUsage { used_bytes: counted.bytes, inodes_used: counted.inodes })
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: &PodSandboxFilter,
    ) -> Result<Vec<PodSandboxStats>> {
        sandbox::stats::list(&self.0, self.1, filter).await
    }

    async fn others(&self) -> Result<Others> {
        let mut others = Others::default();
        for sandbox in self.0.all() {
            let state = sandbox.state();
            if !self.1.sees(state.record.maker) {
                others.users.extend(state.record.namespaces.users);
            }
            let records = state.containers.values().map(|container| &container.record);
            let theirs = records.filter(|it| !self.1.sees(it.maker));
            others.images.extend(theirs.map(|it| ImageSpec(it.image_ref.clone())));
        }
        Ok(others)
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        let stream = BroadcastStream::new(self.0.events.subscribe());
        let lagged = || ContainerEvent::lagged(Timestamp::now());
        stream.map(move |event| event.unwrap_or_else(|_| lagged())).boxed()
    }
}

fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}
