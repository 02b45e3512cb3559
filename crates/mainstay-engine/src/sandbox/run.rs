//! Making a sandbox.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use jiff::Timestamp;
use mainstay_cri::{
    ContainerEventKind, DnsConfig, NamespaceMode, PodSandboxConfig, Result, SandboxId,
};
use mainstay_linux::namespace;
use mainstay_shim_protocol::{Command, SandboxNamespaces, Shm, UserRange};

use super::{Sandbox, keep, reaper_cgroup, stop};
use crate::bundle::{self, SHM};
use crate::record::{SandboxRecord, ShimProcess};
use crate::shim::{Greeting, Line, Shim};
use crate::{Instance, failed, io_failed, network_failed};

/// How much memory containers share by name. The same as containerd's `defaultShmSize`.
const SHM_SIZE: u64 = 64 << 20;

/// Makes a sandbox; one that does not come to be leaves nothing.
pub(crate) async fn run(engine: &Arc<Instance>, config: &PodSandboxConfig) -> Result<SandboxId> {
    let id = SandboxId(engine.new_id()?);
    let record = SandboxRecord::new(id.clone(), config, Timestamp::now());
    let sandbox = Arc::new(Sandbox::new(engine.sandbox_directory(&id), record));
    engine.insert(&id, &sandbox);
    match make(engine, &sandbox, config).await {
        Ok(()) => {
            engine.tell(&sandbox, None, ContainerEventKind::Created);
            Ok(id)
        }
        Err(error) => {
            // The first error counts; what cannot be undone now is undone when the agent comes
            // across it again.
            stop::give_up(engine, &sandbox).await;
            if let Err(second) = super::remove::remove(engine, &id).await {
                tracing::warn!(sandbox = %id, error = second.chain(), "a half-made sandbox remains");
            }
            Err(error)
        }
    }
}

async fn make(
    engine: &Arc<Instance>,
    sandbox: &Arc<Sandbox>,
    config: &PodSandboxConfig,
) -> Result<()> {
    // 1. Its directory, and the shim in it.
    let launched = {
        let (engine, sandbox, config) = (engine.clone(), sandbox.clone(), config.clone());
        crate::blocking(move || {
            write_files(&sandbox, &config)?;
            make_reaper_group(&engine, &sandbox)?;
            let launched = engine.launcher()?.launch(&sandbox.directory);
            launched.map_err(failed("cannot start the pod's shim"))
        })
        .await?
    };
    let pid = launched.pid;
    let process = ShimProcess::of(pid).map_err(io_failed("cannot look at the pod's shim"))?;
    sandbox.change(|state| state.record.shim = Some(process));
    // 2. Out of the agent's control group. The first move after a pause waits for a grace period
    //    of the kernel; whatever follows does not, until a container is started.
    engine.spawn(place(engine.clone(), sandbox.clone(), pid));
    // 3. The namespaces.
    let greeting = Shim::greet(launched.stream).await;
    let Greeting { shim, connection, .. } =
        greeting.map_err(failed("cannot reach the pod's shim"))?;
    sandbox.change(|state| state.shim = Some(shim.clone()));
    engine.spawn(keep(engine.clone(), sandbox.clone(), Line::Driven(connection)));
    shim.call(Command::EnterNamespaces(namespaces(engine, sandbox, config)))
        .await
        .map_err(failed("cannot make the pod's namespaces"))?;
    // 4. The network.
    if config.security_context.namespaces.network == NamespaceMode::Pod {
        let network = namespace::network_of(pid)
            .map_err(io_failed("cannot open the pod's network namespace"))?;
        connect(engine, sandbox, network, config).await?;
    }
    // 5. Known, also to the next agent.
    let sandbox = sandbox.clone();
    crate::blocking(move || {
        let record = sandbox.change(|state| {
            state.ready = !matches!(state.placed, Some(Err(_)));
            state.record.ready = true;
            state.record.clone()
        });
        record.write(&sandbox.directory).map_err(failed("cannot write down the sandbox"))
    })
    .await
}

/// Moves the shim out of the agent's control group. A sandbox with which that cannot be done is
/// not ready.
async fn place(engine: Arc<Instance>, sandbox: Arc<Sandbox>, pid: i32) {
    let moved = {
        let engine = engine.clone();
        crate::blocking(move || engine.place_shim(pid)).await
    };
    let fails = sandbox.change(|state| {
        // A shim that has ended meanwhile needs no place.
        let fails = moved.is_err() && state.shim.is_some();
        state.placed = Some(moved.map_err(|error| error.chain()));
        state.ready &= !fails;
        fails
    });
    if fails {
        engine.tell(&sandbox, None, ContainerEventKind::Stopped);
    }
}

async fn connect(
    engine: &Arc<Instance>,
    sandbox: &Arc<Sandbox>,
    namespace: OwnedFd,
    config: &PodSandboxConfig,
) -> Result<()> {
    let (engine, sandbox) = (engine.clone(), sandbox.clone());
    let mappings = config.port_mappings.clone();
    crate::blocking(move || {
        let id = sandbox.state().record.id.0.clone();
        let network = engine.network()?.setup(&id, namespace.as_fd(), &mappings);
        let network = network.map_err(network_failed("cannot set up the pod's network"))?;
        sandbox.change(|state| state.record.ips = network.addresses);
        // What is left to do for it, such as forgetting where a port led before, can wait.
        engine.settle_network();
        Ok(())
    })
    .await
}

/// Makes the control group of the pod's first process, if it has one.
fn make_reaper_group(engine: &Instance, sandbox: &Sandbox) -> Result<()> {
    let Some(path) = reaper_cgroup(&sandbox.state().record) else { return Ok(()) };
    let made = engine.hierarchies().at(&path).create();
    made.map_err(failed("cannot make the control group of the pod's first process"))
}

fn namespaces(
    engine: &Instance,
    sandbox: &Sandbox,
    config: &PodSandboxConfig,
) -> SandboxNamespaces {
    let options = config.security_context.namespaces;
    let own_network = options.network == NamespaceMode::Pod;
    let own_ipc = options.ipc == NamespaceMode::Pod;
    let shm = sandbox.directory.join(SHM).to_string_lossy().into_owned();
    let shm = Shm { directory: shm, size: SHM_SIZE };
    let reaper = reaper_cgroup(&sandbox.state().record);
    SandboxNamespaces {
        network: own_network,
        ipc: own_ipc,
        processes: reaper.map(|path| bundle::cgroup_directories(engine.hierarchies(), &path)),
        users: options.users.map(|it| UserRange { first: it.host_id, length: it.length }),
        // On the host's network a pod has the host's name.
        hostname: own_network.then(|| config.hostname.clone()),
        shm: own_ipc.then_some(shm),
        sysctls: config.sysctls.clone(),
    }
}

fn write_files(sandbox: &Sandbox, config: &PodSandboxConfig) -> Result<()> {
    let directory = &sandbox.directory;
    let at = |what: &str| format!("cannot {what} in {}", directory.display());
    std::fs::create_dir_all(directory.join(SHM)).map_err(io_failed(at("make directories")))?;
    let write = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).map_err(io_failed(at("write files")))
    };
    write("resolv.conf", resolv_conf(&config.dns))?;
    let record = sandbox.state().record.clone();
    write("hostname", format!("{}\n", hostname_of(&record)?))?;
    std::fs::create_dir_all(&config.log_directory)
        .map_err(io_failed(format!("cannot make the log directory {}", config.log_directory)))?;
    record.write(directory).map_err(failed("cannot write down the sandbox"))
}

/// The name that the pod's processes see: its own, or on the host's network the host's.
pub(crate) fn hostname_of(record: &SandboxRecord) -> Result<String> {
    if record.namespaces.network == NamespaceMode::Pod {
        return Ok(record.hostname.clone());
    }
    let name = rustix::system::uname().nodename().to_owned();
    name.into_string().map_err(failed("the host's name is not UTF-8"))
}

/// Source: resolv.conf(5).
fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}
