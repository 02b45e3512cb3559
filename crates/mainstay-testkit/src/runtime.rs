//! A runtime without processes, which keeps real state and can be told what happens.
//!
//! Every container runs a program that writes back what it reads and ends with its input; a test
//! lets it write more, or end. Commands in containers are the few of [`builtin`].

mod builtin;
mod stats;
mod streams;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use jiff::Timestamp;
use mainstay_cri::{
    AttachRequest, Attached, Container, ContainerConfig, ContainerEvent, ContainerEventKind,
    ContainerFilter, ContainerId, ContainerState, ContainerStatus, Error, ErrorKind, Exec,
    ExecRequest, ExecSync, ExecSyncRequest, FilesystemUsage, LinuxContainerResources,
    NamespaceOptions, Others, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxState,
    PodSandboxStats, PodSandboxStatus, PortForward, Result, Runtime, RuntimeCondition,
    RuntimeStatus, SandboxId, Version,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_stream::wrappers::BroadcastStream;

use streams::Client;

/// Which output a container writes to.
pub use streams::Stream;

/// The runtime. Clones are handles of the same one.
#[derive(Clone)]
pub struct FakeRuntime(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEvent>,
    /// Commands, and clients' inputs.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    made: u32,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    failures: BTreeMap<&'static str, Error>,
}

struct Sandbox {
    summary: PodSandbox,
    namespaces: NamespaceOptions,
    log_directory: String,
    containers: BTreeMap<ContainerId, FakeContainer>,
}

struct FakeContainer {
    status: ContainerStatus,
    config: ContainerConfig,
    clients: Vec<Client>,
    /// Nanoseconds of processor time, and bytes of memory.
    usage: (u64, u64),
}

impl Default for FakeRuntime {
    fn default() -> Self {
        let events = broadcast::Sender::new(64);
        Self(Arc::new(Shared { state: Mutex::default(), events, tasks: Mutex::default() }))
    }
}

impl FakeRuntime {
    /// Lets the next call of this name, such as `exec`, fail.
    pub fn fail_next(&self, call: &'static str, error: Error) {
        self.state().failures.insert(call, error);
    }

    /// Lets a container write.
    ///
    /// # Panics
    ///
    /// When there is no such container, or its log cannot be written.
    pub fn write(&self, id: &ContainerId, stream: Stream, bytes: &[u8]) {
        let mut state = self.state();
        let container = state.container(id).expect("the container exists");
        let mut lines = String::new();
        for line in String::from_utf8_lossy(bytes).split_terminator('\n') {
            lines += &format!("{:.9} {} F {line}\n", Timestamp::now(), stream.name());
        }
        let open = OpenOptions::new().append(true).create(true).open(&container.status.log_path);
        let mut log = open.expect("the log can be opened");
        log.write_all(lines.as_bytes()).expect("the log can be written");
        container.clients.retain_mut(|client| client.hear(stream, bytes));
    }

    /// Lets a container have used so many nanoseconds of processor time, and so many bytes of
    /// memory.
    ///
    /// # Panics
    ///
    /// When there is no such container.
    pub fn set_usage(&self, id: &ContainerId, cpu: u64, memory: u64) {
        self.state().container(id).expect("the container exists").usage = (cpu, memory);
    }

    /// Lets a container end.
    ///
    /// # Panics
    ///
    /// When there is no such container.
    pub fn exit(&self, id: &ContainerId, exit_code: i32) {
        self.end(id, exit_code).expect("the container exists");
    }

    /// What a container may use.
    ///
    /// # Panics
    ///
    /// When there is no such container.
    pub fn resources(&self, id: &ContainerId) -> LinuxContainerResources {
        self.state().container(id).expect("the container exists").config.resources.clone()
    }

    fn end(&self, id: &ContainerId, exit_code: i32) -> Result<()> {
        let sandbox = {
            let mut state = self.state();
            let container = state.container(id)?;
            let started_at = match container.status.state {
                ContainerState::Running { started_at } => Some(started_at),
                ContainerState::Created => None,
                ContainerState::Exited { .. } => return Ok(()),
            };
            container.status.state = ContainerState::Exited {
                started_at,
                finished_at: Timestamp::now(),
                exit_code,
                reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
                message: String::new(),
            };
            for client in std::mem::take(&mut container.clients) {
                client.end(Ok(()));
            }
            state.sandbox_of(id)?
        };
        self.tell(sandbox, Some(id), ContainerEventKind::Stopped);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }

    /// Fails if the call was told to.
    fn enter(&self, call: &'static str) -> Result<()> {
        self.state().failures.remove(call).map_or(Ok(()), Err)
    }

    fn tell(&self, sandbox: SandboxId, container: Option<&ContainerId>, kind: ContainerEventKind) {
        let container = container.cloned();
        // Nobody listening is fine.
        let _ =
            self.0.events.send(ContainerEvent { sandbox, container, kind, at: Timestamp::now() });
    }
}

impl State {
    fn new_id(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{}", self.made)
    }

    fn sandbox(&mut self, id: &SandboxId) -> Result<&mut Sandbox> {
        let missing = || Error::new(ErrorKind::NotFound, format!("sandbox {id} does not exist"));
        self.sandboxes.get_mut(id).ok_or_else(missing)
    }

    fn sandbox_of(&self, id: &ContainerId) -> Result<SandboxId> {
        let has = |(_, sandbox): &(&SandboxId, &Sandbox)| sandbox.containers.contains_key(id);
        let found = self.sandboxes.iter().find(has).map(|(id, _)| id.clone());
        found.ok_or_else(|| no_container(id))
    }

    fn container(&mut self, id: &ContainerId) -> Result<&mut FakeContainer> {
        let mut sandboxes = self.sandboxes.values_mut();
        let found = sandboxes.find_map(|sandbox| sandbox.containers.get_mut(id));
        found.ok_or_else(|| no_container(id))
    }
}

fn no_container(id: &ContainerId) -> Error {
    Error::new(ErrorKind::NotFound, format!("container {id} does not exist"))
}

fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<Version> {
        Ok(Version {
            runtime_name: "fake".to_owned(),
            runtime_version: "0".to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        self.enter("status")?;
        let condition = |kind: &str| RuntimeCondition {
            kind: kind.to_owned(),
            status: true,
            reason: "Ready".to_owned(),
            message: String::new(),
        };
        Ok(RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] })
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        self.enter("run_pod_sandbox")?;
        let id = {
            let mut state = self.state();
            let id = SandboxId(state.new_id("sandbox"));
            let sandbox = Sandbox {
                summary: PodSandbox {
                    id: id.clone(),
                    metadata: config.metadata.clone(),
                    state: PodSandboxState::Ready,
                    created_at: Timestamp::now(),
                    labels: config.labels.clone(),
                    annotations: config.annotations.clone(),
                },
                namespaces: config.security_context.namespaces,
                log_directory: config.log_directory.clone(),
                containers: BTreeMap::new(),
            };
            state.sandboxes.insert(id.clone(), sandbox);
            id
        };
        self.tell(id.clone(), None, ContainerEventKind::Started);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.enter("stop_pod_sandbox")?;
        let containers: Vec<ContainerId> = {
            let mut state = self.state();
            let Ok(sandbox) = state.sandbox(id) else { return Ok(()) };
            sandbox.summary.state = PodSandboxState::NotReady;
            sandbox.containers.keys().cloned().collect()
        };
        for container in containers {
            self.end(&container, 137)?;
        }
        self.tell(id.clone(), None, ContainerEventKind::Stopped);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.stop_pod_sandbox(id).await?;
        self.state().sandboxes.remove(id);
        self.tell(id.clone(), None, ContainerEventKind::Deleted);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus> {
        let mut state = self.state();
        let sandbox = state.sandbox(id)?;
        Ok(PodSandboxStatus {
            sandbox: sandbox.summary.clone(),
            namespaces: sandbox.namespaces,
            ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            containers: sandbox.containers.values().map(|it| it.status.clone()).collect(),
        })
    }

    async fn list_pod_sandboxes(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        self.enter("list_pod_sandboxes")?;
        let state = self.state();
        let all = state.sandboxes.values().map(|sandbox| sandbox.summary.clone());
        Ok(all.filter(|sandbox| carries(&sandbox.labels, &filter.labels)).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        _sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerId> {
        self.enter("create_container")?;
        let id = {
            let mut state = self.state();
            let id = ContainerId(state.new_id("container"));
            let sandbox = state.sandbox(sandbox)?;
            let log_path = format!("{}/{}", sandbox.log_directory, config.log_path);
            let failed = |error| {
                Error::with_source(ErrorKind::Internal, format!("cannot make {log_path}"), error)
            };
            let directory = Path::new(&log_path).parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(directory).map_err(failed)?;
            std::fs::write(&log_path, "").map_err(failed)?;
            let status = ContainerStatus {
                id: id.clone(),
                metadata: config.metadata.clone(),
                state: ContainerState::Created,
                created_at: Timestamp::now(),
                image: config.image.clone(),
                image_ref: config.image.0.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                log_path,
                user: None,
                details: None,
            };
            let config = config.clone();
            let container = FakeContainer { status, config, clients: Vec::new(), usage: (0, 0) };
            sandbox.containers.insert(id.clone(), container);
            id
        };
        self.tell(sandbox.clone(), Some(&id), ContainerEventKind::Created);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.enter("start_container")?;
        let sandbox = {
            let mut state = self.state();
            let container = state.container(id)?;
            container.status.state = ContainerState::Running { started_at: Timestamp::now() };
            state.sandbox_of(id)?
        };
        self.tell(sandbox, Some(id), ContainerEventKind::Started);
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, _timeout: Duration) -> Result<()> {
        self.enter("stop_container")?;
        match self.end(id, 143) {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.stop_container(id, Duration::ZERO).await?;
        let sandbox = {
            let mut state = self.state();
            let Ok(sandbox) = state.sandbox_of(id) else { return Ok(()) };
            state.sandbox(&sandbox)?.containers.remove(id);
            sandbox
        };
        self.tell(sandbox, Some(id), ContainerEventKind::Deleted);
        Ok(())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let state = self.state();
        let mut list = Vec::new();
        for (id, sandbox) in &state.sandboxes {
            if filter.sandbox.as_ref().is_some_and(|wanted| wanted != id) {
                continue;
            }
            let containers = sandbox.containers.values().map(|it| &it.status);
            list.extend(containers.filter(|it| carries(&it.labels, &filter.labels)).map(|it| {
                Container {
                    id: it.id.clone(),
                    sandbox: id.clone(),
                    metadata: it.metadata.clone(),
                    state: it.state.clone(),
                    labels: it.labels.clone(),
                }
            }));
        }
        Ok(list)
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        Ok(self.state().container(id)?.status.clone())
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxContainerResources,
    ) -> Result<()> {
        self.enter("update_container_resources")?;
        let mut state = self.state();
        let container = state.container(id)?;
        if matches!(container.status.state, ContainerState::Exited { .. }) {
            return Err(Error::new(ErrorKind::FailedPrecondition, "it has ended"));
        }
        container.config.resources = resources.clone();
        Ok(())
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        self.state().container(id).map(drop)
    }

    async fn exec(&self, request: &ExecRequest) -> Result<Exec> {
        self.enter("exec")?;
        let state = self.container_status(&request.container).await?.state;
        if !matches!(state, ContainerState::Running { .. }) {
            let message = "failed to exec in container";
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        builtin::run(self, request)
    }

    async fn exec_sync(&self, request: &ExecSyncRequest) -> Result<ExecSync> {
        self.enter("exec_sync")?;
        let ExecSyncRequest { container, command, timeout } = request.clone();
        let asked = ExecRequest { container, command, tty: false, stdin: false };
        let Exec { mut stdout, stderr, exit, .. } = self.exec(&asked).await?;
        let (mut output, mut error) = (Vec::new(), Vec::new());
        let ended = async {
            let _ = stdout.read_to_end(&mut output).await;
            if let Some(mut stderr) = stderr {
                let _ = stderr.read_to_end(&mut error).await;
            }
            exit.await
        };
        let limit = timeout.unwrap_or(Duration::from_secs(600));
        let Ok(code) = tokio::time::timeout(limit, ended).await else {
            return Err(Error::new(ErrorKind::DeadlineExceeded, "the command is late"));
        };
        Ok(ExecSync { stdout: output, stderr: error, exit_code: code? })
    }

    async fn attach(&self, request: &AttachRequest) -> Result<Attached> {
        self.enter("attach")?;
        streams::attach(self, request)
    }

    async fn port_forward(&self, sandbox: &SandboxId, port: u16) -> Result<PortForward> {
        self.enter("port_forward")?;
        self.state().sandbox(sandbox)?;
        // All sandboxes have the host's network.
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => Ok(Box::pin(stream)),
            Err(error) => Err(Error::with_source(
                ErrorKind::Unavailable,
                format!("failed to connect to localhost:{port} inside namespace \"{sandbox}\""),
                error,
            )),
        }
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<FilesystemUsage> {
        self.enter("writable_layer")?;
        // Nothing is written where there is no file system.
        self.state().container(id).map(|_| FilesystemUsage::default())
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: &PodSandboxFilter,
    ) -> Result<Vec<PodSandboxStats>> {
        self.enter("list_pod_sandbox_stats")?;
        let state = self.state();
        let ready = state.sandboxes.values().filter(|sandbox| {
            sandbox.summary.state == PodSandboxState::Ready
                && carries(&sandbox.summary.labels, &filter.labels)
        });
        Ok(ready.map(stats::of).collect())
    }

    async fn others(&self) -> Result<Others> {
        Ok(Others::default())
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        let lagged = || ContainerEvent::lagged(Timestamp::now());
        let stream = BroadcastStream::new(self.0.events.subscribe());
        stream.map(move |event| event.unwrap_or_else(|_| lagged())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::contract::{self, Sample};

    #[tokio::test(flavor = "multi_thread")]
    async fn the_contract_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::default();
        let sample = Sample::new("fake", directory.path());
        contract::streams(&runtime, &sample).await;
        contract::stats(&runtime, &sample).await;
        contract::updates(&runtime, &sample).await;
    }

    /// On one thread, where nothing else can have happened between the two.
    #[tokio::test]
    async fn whoever_has_just_come_is_not_too_slow() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::default();
        let sample = Sample::new("fake", directory.path());
        let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
        let config = sample.container("main");
        let id = runtime.create_container(&sandbox, &config, &sample.sandbox).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        let (stdin, tty, stdout, stderr) = (false, false, true, false);
        let request = AttachRequest { container: id.clone(), stdin, tty, stdout, stderr };
        let mut client = runtime.attach(&request).await.unwrap();
        runtime.write(&id, Stream::Stdout, b"something");
        let mut heard = [0; 9];
        client.stdout.as_mut().unwrap().read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"something");
    }
}
