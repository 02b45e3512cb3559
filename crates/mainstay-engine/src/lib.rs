//! The embedded container runtime: sandboxes, containers, networking, logs, exec.
//!
//! [`Engine`] implements the contract of `mainstay-cri`. It knows sandboxes and containers, and
//! not what a pod manifest is.
//!
//! # Where the truth is
//!
//! A running pod is held by its shim, a process of its own; what it was made from lies in the run
//! directory ([`record`]); what containers write lies in the root directory. The engine keeps a
//! picture of all this in memory, which it makes anew from shims and records when it is opened. So
//! several engines may look at one instance at the same time: one owns it (the agent, or
//! `mainstay down`) and mends what is broken, others visit.
//!
//! # Tasks
//!
//! One for each sandbox, [`sandbox::keep`], which listens to the sandbox's shim.

mod bundle;
mod check;
mod container;
mod foreign;
mod images;
mod launch;
pub mod network;
mod record;
mod recover;
mod sandbox;
mod seccomp;
mod shim;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use jiff::Timestamp;
use mainstay_cri::{
    AttachRequest, Attached, Container, ContainerConfig, ContainerEvent, ContainerEventKind,
    ContainerFilter, ContainerId, ContainerStatus, Error, ErrorKind, Exec, ExecRequest, ExecSync,
    ExecSyncRequest, FilesystemUsage, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxStats, PodSandboxStatus, PortForward, Result, Runtime, RuntimeCondition,
    RuntimeStatus, SandboxId, Version,
};
use mainstay_image::store::Store;
use mainstay_linux::capability::Capabilities;
use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::disk_usage::disk_usage;
use mainstay_linux::process::Pidfd;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_stream::wrappers::BroadcastStream;

pub use images::{
    CredentialProvider, CredentialProviders, EngineImages, ImagesConfig, Keyrings, KeyringsError,
};

use launch::Launcher;
use network::{Cluster, Network, NetworkConfig, NetworkError, Range};
use sandbox::Sandbox;

/// Where an engine keeps things, and what it is made with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What containers write, below here; survives the machine.
    pub root_dir: PathBuf,
    /// Sockets and records, below here; may vanish at boot.
    pub run_dir: PathBuf,
    /// The image store's directory.
    pub image_dir: PathBuf,
    /// The shim's program.
    pub shim: PathBuf,
    /// The control group below which pods and shims are, from the root of each hierarchy.
    pub cgroup_root: String,
    /// The built-in network.
    pub network: NetworkConfig,
}

/// How long after SIGKILL the kernel may take to end processes before we say that it does not. A
/// process that waits for a dead disk or server stays for as long as that.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// The control group of all shims, below that of the instance.
pub const SHIMS: &str = "shims";

/// What a container writes to its root file system, in its own directory.
const UPPER: &str = "upper";

/// How many events may wait for a slow listener before it is told that it missed some.
const EVENT_BACKLOG: usize = 1024;

/// The embedded runtime. Clones are handles of the same one.
#[derive(Clone)]
pub struct Engine(Arc<Instance>);

/// As what an engine looks at an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It mends what is broken.
    Owner,
    /// It leaves everything as it is.
    Visitor,
}

/// What an engine works with.
struct Instance {
    config: EngineConfig,
    role: Role,
    store: Arc<Store>,
    launcher: OnceLock<Launcher>,
    network: OnceLock<Network>,
    hierarchies: Hierarchies,
    capabilities: Capabilities,
    oom_score_adj: i32,
    throttles: Vec<String>,
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<Sandbox>>>,
    events: broadcast::Sender<ContainerEvent>,
    tasks: Mutex<JoinSet<()>>,
}

impl Engine {
    /// Opens the instance to own it: finds the sandboxes that run, and gives up those whose shims
    /// are gone. At most one engine may own an instance at a time; the caller sees to that.
    ///
    /// # Errors
    ///
    /// When a directory cannot be used, or this machine lacks something that no pod can do
    /// without; the message names it.
    pub async fn own(config: EngineConfig) -> Result<Self> {
        let instance = Instance::open(config, Role::Owner).await?;
        recover::own(&instance).await?;
        Ok(Self(instance))
    }

    /// Opens the instance beside its owner: to look, to run commands in containers.
    pub async fn visit(config: EngineConfig) -> Result<Self> {
        let instance = Instance::open(config, Role::Visitor).await?;
        recover::visit(&instance).await?;
        Ok(Self(instance))
    }

    /// The images of this instance.
    pub fn store(&self) -> &Arc<Store> {
        self.0.store()
    }

    /// The range that new pods get addresses of; `None` while there is none, and for a visitor.
    pub fn pod_range(&self) -> Option<Range> {
        self.0.network().ok()?.range()
    }

    /// Takes in which range this machine was given, and which other machines there are; see
    /// [`Network::join`].
    ///
    /// # Errors
    ///
    /// What could not be done is tried again now and then.
    pub async fn join(&self, cluster: Cluster) -> Result<()> {
        let instance = self.0.clone();
        let failed = network_failed("cannot make the ways to other machines' pods");
        blocking(move || instance.network()?.join(cluster).map_err(failed)).await
    }

    /// Removes all that is not a sandbox's: the network, the control groups, the directories of
    /// containers. For an instance that is given up; all sandboxes have been removed.
    pub async fn remove_all(&self) -> Result<()> {
        let instance = self.0.clone();
        blocking(move || {
            let network = instance.network()?.remove_all();
            network.map_err(network_failed("cannot remove the network"))?;
            // A shim's end is told before the kernel has taken it out of its control group.
            let deadline = Instant::now() + KILL_PATIENCE;
            for pid in instance.shims()? {
                if let Ok(shim) = Pidfd::open(pid) {
                    shim.wait_until(deadline).map_err(io_failed("cannot wait for a shim"))?;
                }
            }
            let group = instance.hierarchies.at(&instance.config.cgroup_root);
            group.remove().map_err(failed("cannot remove the instance's control group"))?;
            for directory in [instance.sandboxes_directory(), instance.containers_directory()] {
                mainstay_linux::path::remove_all(&directory)
                    .map_err(io_failed(format!("cannot remove {}", directory.display())))?;
            }
            Ok(())
        })
        .await
    }
}

impl Instance {
    async fn open(config: EngineConfig, role: Role) -> Result<Arc<Self>> {
        blocking(move || {
            let store = Store::open(&config.image_dir).map_err(failed(format!(
                "cannot open the images in {}",
                config.image_dir.display()
            )))?;
            let hierarchies = Hierarchies::mounted()
                .map_err(failed("cannot find this machine's control groups"))?;
            let capabilities = Capabilities::held()
                .map_err(io_failed("cannot read this process's capabilities"))?;
            let oom_score_adj = std::fs::read_to_string("/proc/self/oom_score_adj")
                .map_err(io_failed("cannot read /proc/self/oom_score_adj"))?;
            Ok(Arc::new(Self {
                store: Arc::new(store),
                launcher: OnceLock::new(),
                network: OnceLock::new(),
                hierarchies,
                capabilities,
                oom_score_adj: oom_score_adj
                    .trim()
                    .parse()
                    .map_err(failed("cannot understand /proc/self/oom_score_adj"))?,
                throttles: bundle::throttles()
                    .map_err(io_failed("cannot list the machine's processors"))?,
                sandboxes: Mutex::default(),
                events: broadcast::Sender::new(EVENT_BACKLOG),
                tasks: Mutex::default(),
                config,
                role,
            }))
        })
        .await
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn launcher(&self) -> Result<&Launcher> {
        if let Some(launcher) = self.launcher.get() {
            return Ok(launcher);
        }
        let loaded = Launcher::load(&self.config.shim).map_err(failed("cannot start shims"))?;
        Ok(self.launcher.get_or_init(|| loaded))
    }

    /// The network; only whoever owns the instance has it.
    fn network(&self) -> Result<&Network> {
        let visiting =
            || Error::new(ErrorKind::FailedPrecondition, "this process is only visiting");
        self.network.get().ok_or_else(visiting)
    }

    /// Finishes in the background what taking down a sandbox's network left.
    fn settle_network(self: &Arc<Self>) {
        let engine = self.clone();
        self.spawn(async move {
            let settled = {
                let engine = engine.clone();
                let failed = network_failed("cannot settle the network");
                blocking(move || engine.network()?.settle().map_err(failed)).await
            };
            if let Err(error) = settled {
                tracing::warn!(error = error.chain(), "cannot delete a sandbox's link yet");
            }
        });
    }

    fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn oom_score_adj(&self) -> i32 {
        self.oom_score_adj
    }

    fn throttles(&self) -> &[String] {
        &self.throttles
    }

    /// A name that nobody has: 128 random bits in hex.
    fn new_id(&self) -> Result<String> {
        let mut bytes = [0; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| io_failed("cannot get random bytes")(error.into()))?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn sandboxes_directory(&self) -> PathBuf {
        self.config.run_dir.join("sandboxes")
    }

    fn sandbox_directory(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes_directory().join(&id.0)
    }

    fn containers_directory(&self) -> PathBuf {
        self.config.root_dir.join("containers")
    }

    /// Where a container's own files are: what it writes into its root file system.
    fn writable_directory(&self, id: &ContainerId) -> PathBuf {
        self.containers_directory().join(&id.0)
    }

    fn lock_sandboxes(&self) -> std::sync::MutexGuard<'_, BTreeMap<SandboxId, Arc<Sandbox>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, id: &SandboxId, sandbox: &Arc<Sandbox>) {
        self.lock_sandboxes().insert(id.clone(), sandbox.clone());
    }

    fn forget(&self, id: &SandboxId) {
        self.lock_sandboxes().remove(id);
    }

    fn sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>> {
        let found = self.lock_sandboxes().get(id).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("sandbox {id} does not exist")))
    }

    fn all(&self) -> Vec<Arc<Sandbox>> {
        self.lock_sandboxes().values().cloned().collect()
    }

    fn sandbox_of(&self, id: &ContainerId) -> Result<Arc<Sandbox>> {
        let has = |sandbox: &Arc<Sandbox>| sandbox.state().containers.contains_key(id);
        let found = self.all().into_iter().find(has);
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("container {id} does not exist"))
        })
    }

    fn tell(&self, sandbox: &Sandbox, container: Option<ContainerId>, kind: ContainerEventKind) {
        let sandbox = sandbox.state().record.id.clone();
        // Nobody listening is fine.
        let _ = self.events.send(ContainerEvent { sandbox, container, kind, at: Timestamp::now() });
    }

    /// Runs a task that belongs to the engine, and looks after those that have ended.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a sandbox's task panicked");
            }
        }
        tasks.spawn(task);
    }

    /// Moves a shim out of the agent's control group, so that neither a limit nor the end of the
    /// agent's service touches it.
    fn place_shim(&self, pid: i32) -> Result<()> {
        let path = self.shims_cgroup();
        let group = self.hierarchies.at(&path);
        group
            .create()
            .and_then(|()| group.add(pid))
            .map_err(failed("cannot move the pod's shim to its control group"))
    }

    /// The processes of all shims.
    fn shims(&self) -> Result<BTreeSet<i32>> {
        let processes = self.hierarchies.at(&self.shims_cgroup()).processes();
        processes.map_err(failed("cannot look into the shims' control group"))
    }

    fn shims_cgroup(&self) -> String {
        format!("{}/{SHIMS}", self.config.cgroup_root.trim_end_matches('/'))
    }

    /// Kills everything in a control group and waits for its end. Absent is success.
    ///
    /// # Errors
    ///
    /// `DeadlineExceeded` when something has not ended after [`KILL_PATIENCE`].
    async fn kill_cgroup(self: &Arc<Self>, path: &str) -> Result<()> {
        let (engine, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let failed = || failed("cannot kill the processes of a control group");
            let group = engine.hierarchies.at(&path);
            let deadline = Instant::now() + KILL_PATIENCE;
            // A fork may be under way while its parent is killed; each round finds those of the
            // one before.
            while group.kill().map_err(failed())? > 0 {
                for pid in group.processes().map_err(failed())? {
                    // One that has ended meanwhile is what is wanted.
                    let Ok(process) = Pidfd::open(pid) else { continue };
                    let ended = process.wait_until(deadline);
                    if !ended.map_err(io_failed("cannot wait for the end of a process"))? {
                        return Err(Error::new(
                            ErrorKind::DeadlineExceeded,
                            format!(
                                "process {pid} does not end, although it was killed: it waits for \
                                 something that the kernel cannot interrupt, such as a disk or a \
                                 server that does not answer"
                            ),
                        ));
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Whether the kernel killed something in a control group because its memory ran out.
    fn oom_killed(&self, cgroup: &str) -> bool {
        self.hierarchies.at(cgroup).oom_kills() > 0
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
        let foreign =
            self.0.all().iter().filter_map(|it| it.state().foreign.clone()).collect::<Vec<_>>();
        Ok(RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", runtime, foreign.join("; ")),
                condition("NetworkReady", network.failures, network.told),
            ],
        })
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        sandbox::run::run(&self.0, config).await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        sandbox::stop::stop(&self.0, id).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        sandbox::remove::remove(&self.0, id).await
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus> {
        Ok(self.0.sandbox(id)?.status())
    }

    async fn list_pod_sandboxes(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let all = self.0.all().into_iter().map(|sandbox| sandbox.summary());
        Ok(all.filter(|sandbox| carries(&sandbox.labels, &filter.labels)).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        _sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerId> {
        container::create::create(&self.0, sandbox, config).await
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
            if filter.sandbox.as_ref().is_some_and(|wanted| wanted != id) {
                continue;
            }
            let matching = state
                .containers
                .values()
                .filter(|container| carries(&container.record.labels, &filter.labels));
            list.extend(matching.map(|container| Container {
                id: container.record.id.clone(),
                sandbox: id.clone(),
                metadata: container.record.metadata.clone(),
                state: container.state.clone(),
                labels: container.record.labels.clone(),
            }));
        }
        Ok(list)
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        let sandbox = self.0.sandbox_of(id)?;
        let state = sandbox.state();
        let container = state.containers.get(id).map(sandbox::container_status);
        container.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("container {id} does not exist"))
        })
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        container::log::reopen(&self.0, id).await
    }

    async fn exec(&self, request: &ExecRequest) -> Result<Exec> {
        container::exec::exec(&self.0, request).await
    }

    async fn exec_sync(&self, request: &ExecSyncRequest) -> Result<ExecSync> {
        container::exec::exec_sync(&self.0, request).await
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
        sandbox::stats::list(&self.0, filter).await
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        let lagged = || ContainerEvent {
            sandbox: SandboxId(String::new()),
            container: None,
            kind: ContainerEventKind::Lagged,
            at: Timestamp::now(),
        };
        let stream = BroadcastStream::new(self.0.events.subscribe());
        stream.map(move |event| event.unwrap_or_else(|_| lagged())).boxed()
    }
}

fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// Runs file work where it may take its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => {
                Err(Error::with_source(ErrorKind::Unavailable, "the agent is ending", error))
            }
        },
    }
}

/// Puts an error below a sentence, with the kind of an accident.
fn failed<E: std::error::Error + Send + Sync + 'static>(
    message: impl Into<String>,
) -> impl FnOnce(E) -> Error {
    |source| Error::with_source(ErrorKind::Internal, message, source)
}

/// Puts an error of the network below a sentence.
fn network_failed(message: impl Into<String>) -> impl FnOnce(NetworkError) -> Error {
    |source| Error::with_source(source.kind(), message, source)
}

/// Puts an I/O error below a sentence; a full disk has a kind of its own.
fn io_failed(message: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    |source| {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ErrorKind::ResourceExhausted
            }
            _ => ErrorKind::Internal,
        };
        Error::with_source(kind, message, source)
    }
}
