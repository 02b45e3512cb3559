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
//! One for each sandbox, [`sandbox::keep`], which listens to the sandbox's shim, and one that listens for the end
//! of the resolver ([`resolver`]).

mod apparmor;
mod bundle;
mod check;
mod cni;
mod container;
mod foreign;
mod images;
mod launch;
pub mod network;
mod record;
mod recover;
mod resolver;
mod runtime;
mod sandbox;
mod seccomp;
mod shim;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mainstay_cri::{
    ContainerEvent, ContainerEventKind, ContainerId, Error, ErrorKind, Result, SandboxId,
};
use mainstay_image::store::Store;
use mainstay_linux::capability::Capabilities;
use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::machine::thermal_throttles;
use mainstay_linux::process::Pidfd;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub use cni::CniConfig;
pub use images::{
    CredentialProvider, CredentialProviders, EngineImages, ImagesConfig, Keyrings, KeyringsError,
    program,
};
pub use resolver::NamesConfig;

use apparmor::AppArmor;
use cni::{Cni, CniError};
use launch::Launcher;
use network::{Cluster, Network, NetworkConfig, NetworkError, Range};
use record::Maker;
use resolver::{Occasion, Resolver};
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
    /// Networks of plugins, which pods get instead where there is a configuration.
    pub cni: CniConfig,
    /// What sandboxes are called by each other; with none they have no names.
    pub names: Option<NamesConfig>,
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
///
/// What it lists and makes is the agent's, unless it is a handle [for clients](Self::for_clients).
#[derive(Clone)]
pub struct Engine(Arc<Instance>, Maker);

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
    resolver: Resolver,
    cni: Cni,
    hierarchies: Hierarchies,
    capabilities: Capabilities,
    oom_score_adj: i32,
    throttles: Vec<String>,
    apparmor: AppArmor,
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
        resolver::look_after(&instance);
        Ok(Self(instance, Maker::Agent))
    }

    /// Opens the instance beside its owner: to look, to run commands in containers.
    pub async fn visit(config: EngineConfig) -> Result<Self> {
        let instance = Instance::open(config, Role::Visitor).await?;
        recover::visit(&instance).await?;
        Ok(Self(instance, Maker::Agent))
    }

    /// The same engine for clients of the CRI: they see everything, and what they make the agent does not see.
    pub fn for_clients(&self) -> Self {
        Self(self.0.clone(), Maker::Client)
    }

    /// The images of this instance.
    pub fn store(&self) -> &Arc<Store> {
        self.0.store()
    }

    /// The ranges that new pods get addresses of, the primary one first; none while there are none, and
    /// for a visitor.
    pub fn pod_ranges(&self) -> Vec<Range> {
        self.0.network().map(Network::ranges).unwrap_or_default()
    }

    /// Where new sandboxes of the built-in network ask for names, their own and all others; none where sandboxes
    /// have no names.
    ///
    /// # Errors
    ///
    /// Why nobody can be asked although sandboxes should have names.
    pub async fn resolvers(&self) -> Result<Vec<IpAddr>> {
        let names = self.0.config.names.as_ref();
        // On networks of plugins, it is theirs to say.
        if !names.is_some_and(|names| names.offered)
            || !matches!(self.0.cni.network().await, Ok(None))
        {
            return Ok(Vec::new());
        }
        let instance = self.0.clone();
        blocking(move || resolver::see_to(&instance, Occasion::Asked)).await
    }

    /// Who else listens at port 53 of `server` and is not reached by pods there, since the resolver that they are told
    /// of is; in words. `None` if nobody does, or it is none of the resolver's addresses.
    pub async fn shadowed(&self, server: IpAddr) -> Option<String> {
        if !self.0.config.names.as_ref().is_some_and(|names| names.offered) {
            return None;
        }
        let instance = self.0.clone();
        let holder = blocking(move || Ok(instance.network()?.shadowed(server)));
        // Nobody looks who is only visiting.
        holder.await.ok().flatten().map(|holder| holder.to_string())
    }

    /// Takes in which addresses the machine has, at which sandboxes on its network are found.
    pub fn machine_has(&self, addresses: Vec<IpAddr>) {
        if self.0.resolver.machine_has(addresses) {
            resolver::look_after(&self.0);
        }
    }

    /// Takes in which ranges this machine was given, and which other machines there are; see
    /// [`Network::join`].
    ///
    /// # Errors
    ///
    /// What could not be done is tried again now and then.
    pub async fn join(&self, cluster: Cluster) -> Result<()> {
        let instance = self.0.clone();
        let failed = network_failed("cannot make the ways to other machines' pods");
        let joined = blocking(move || instance.network()?.join(cluster).map_err(failed)).await;
        // The bridge may have other addresses.
        resolver::look_after(&self.0);
        joined
    }

    /// Removes everything: the sandboxes that clients have left, the network, the control groups, the
    /// directories of containers. For an instance that is given up, and whose agent has removed its own.
    ///
    /// # Errors
    ///
    /// What cannot be removed, such as an attachment that plugins do not take back; the rest is removed all the same.
    pub async fn remove_all(&self) -> Result<()> {
        let ended = self.remove_sandboxes().await;
        let instance = self.0.clone();
        let removed = blocking(move || {
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
        });
        // What was first in the way may be why the rest was.
        ended.and(removed.await)
    }

    /// Removes all sandboxes, whoever made them, and ends what serves them: none of its processes is left.
    ///
    /// # Errors
    ///
    /// What cannot be removed; the rest is removed all the same.
    pub async fn remove_sandboxes(&self) -> Result<()> {
        let instance = &self.0;
        let mut left = Ok(());
        for sandbox in instance.all() {
            let id = sandbox.state().record.id.clone();
            left = left.and(sandbox::remove::remove(instance, &id).await);
        }
        let taken_back = recover::remove_attachments(instance).await;
        let engine = instance.clone();
        let ended = blocking(move || engine.resolver.end(&engine)).await;
        left.and(ended).and(taken_back)
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
                resolver: Resolver::default(),
                cni: Cni::new(config.cni.clone(), &config.root_dir, &config.run_dir),
                hierarchies,
                capabilities,
                oom_score_adj: oom_score_adj
                    .trim()
                    .parse()
                    .map_err(failed("cannot understand /proc/self/oom_score_adj"))?,
                throttles: thermal_throttles()
                    .map_err(io_failed("cannot list the machine's processors"))?,
                apparmor: AppArmor::of_machine(),
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

    fn apparmor(&self) -> &AppArmor {
        &self.apparmor
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

    /// The version 2 control group of the shims, if there is one; and there are those of version 1 then, too.
    fn open_shims_group(&self) -> Result<Option<File>> {
        let path = self.shims_cgroup();
        let group = self.hierarchies.at(&path);
        group.create().map_err(failed("cannot make the shims' control group"))?;
        let directory = bundle::cgroup_directories(&self.hierarchies, &path).unified;
        let open = |directory: String| {
            File::open(&directory).map_err(io_failed(format!("cannot open {directory}")))
        };
        directory.map(open).transpose()
    }

    /// Moves a shim whose agent did not get to it into its control group. That waits for a grace period of the
    /// kernel.
    fn place_shim(&self, pid: i32) -> Result<()> {
        let placed = self.place(pid, &self.shims_cgroup());
        placed.map_err(failed("cannot move the pod's shim to its control group"))
    }

    fn place(&self, pid: i32, path: &str) -> mainstay_linux::cgroup::Result<()> {
        let group = self.hierarchies.at(path);
        group.create().and_then(|()| group.add(pid))
    }

    /// The processes of all shims.
    fn shims(&self) -> Result<BTreeSet<i32>> {
        let processes = self.hierarchies.at(&self.shims_cgroup()).processes();
        processes.map_err(failed("cannot look into the shims' control group"))
    }

    /// The control group of a sandbox whose maker leaves it to us.
    fn own_parent(&self, id: &SandboxId) -> String {
        self.cgroup(&format!("sandboxes/{id}"))
    }

    fn shims_cgroup(&self) -> String {
        self.cgroup(SHIMS)
    }

    /// A control group below the instance's.
    fn cgroup(&self, name: &str) -> String {
        format!("{}/{name}", self.config.cgroup_root.trim_end_matches('/'))
    }

    /// Kills everything in a control group and waits for its end. Absent is success.
    ///
    /// # Errors
    ///
    /// `DeadlineExceeded` when something has not ended after [`KILL_PATIENCE`].
    async fn kill_cgroup(self: &Arc<Self>, path: &str) -> Result<()> {
        let (engine, path) = (self.clone(), path.to_owned());
        blocking(move || engine.kill_group(&path)).await
    }

    /// [`Self::kill_cgroup`], where it may take its time.
    fn kill_group(&self, path: &str) -> Result<()> {
        let failed = || failed("cannot kill the processes of a control group");
        let group = self.hierarchies.at(path);
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
    }

    /// Whether the kernel killed something in a control group because its memory ran out.
    fn oom_killed(&self, cgroup: &str) -> bool {
        self.hierarchies.at(cgroup).oom_kills() > 0
    }
}

/// What is in a directory; one that is absent is empty.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
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

/// Puts an error of plugins below a sentence.
fn cni_failed(message: impl Into<String>) -> impl FnOnce(CniError) -> Error {
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
