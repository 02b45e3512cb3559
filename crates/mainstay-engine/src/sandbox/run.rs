//! Making a sandbox.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use jiff::Timestamp;
use mainstay_cri::{
    Bandwidth, ContainerEventKind, DnsConfig, Error, ErrorKind, NETWORK_NOT_READY, NamespaceMode,
    PodSandboxConfig, Result, RuntimeCondition, SandboxId,
};
use mainstay_linux::namespace;
use mainstay_shim_protocol::{Command, SandboxNamespaces, Shm, UserRange};

use super::{Sandbox, keep, reaper_cgroup, stop};
use crate::bundle::{self, RESOLV_CONF, SHM};
use crate::cni::{Cni, CniError, CniNetwork};
use crate::launch::Purpose;
use crate::record::{Maker, SandboxRecord, ShimProcess};
use crate::shim::{Greeting, Line, Shim};
use crate::{Instance, check, cni_failed, failed, io_failed, network_failed, resolver};

/// How much memory containers share by name. The same as containerd's `defaultShmSize`.
const SHM_SIZE: u64 = 64 << 20;

/// How much of a sandbox's resolv.conf is read, in bytes.
const LONGEST_RESOLV_CONF: u64 = 64 << 10;

/// Makes a sandbox; one that does not come to be leaves nothing.
pub(crate) async fn run(
    engine: &Arc<Instance>,
    maker: Maker,
    config: &PodSandboxConfig,
) -> Result<SandboxId> {
    if config.cgroup_parent.split('/').any(|name| name == "..") {
        let message = format!("{:?} cannot be a control group", config.cgroup_parent);
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let network = network_of(engine, config).await?;
    let id = SandboxId(engine.new_id()?);
    let mut record = SandboxRecord::new(id.clone(), maker, config, Timestamp::now());
    if record.cgroup_parent.is_empty() {
        record.cgroup_parent = engine.own_parent(&id);
    }
    let sandbox = Arc::new(Sandbox::new(engine.sandbox_directory(&id), record));
    engine.insert(&id, &sandbox);
    match make(engine, &sandbox, config, network).await {
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
    plugins: Option<CniNetwork>,
) -> Result<()> {
    // 1. Its directory, and the shim in it.
    let launched = {
        let (engine, sandbox, config) = (engine.clone(), sandbox.clone(), config.clone());
        crate::blocking(move || {
            write_files(&sandbox, &config)?;
            make_reaper_group(&engine, &sandbox)?;
            // Not in the agent's control group: neither a limit nor the end of its service is for the shim.
            let group = engine.open_shims_group()?;
            let group = group.as_ref().map(AsFd::as_fd);
            let launched = engine.launcher()?.launch(&sandbox.directory, Purpose::Shim, group);
            launched.map_err(failed("cannot start the pod's shim"))
        })
        .await?
    };
    let pid = launched.pid;
    let process = ShimProcess::of(pid).map_err(io_failed("cannot look at the pod's shim"))?;
    sandbox.change(|state| state.record.shim = Some(process));
    // 2. The namespaces, and the control groups of version 1.
    let greeting = Shim::greet(launched.stream).await;
    let Greeting { shim, connection, .. } =
        greeting.map_err(failed("cannot reach the pod's shim"))?;
    sandbox.change(|state| state.shim = Some(shim.clone()));
    engine.spawn(keep(engine.clone(), sandbox.clone(), Line::Driven(connection)));
    shim.call(Command::EnterNamespaces(namespaces(engine, sandbox, config)))
        .await
        .map_err(failed("cannot make the pod's namespaces"))?;
    // 3. The network.
    if config.security_context.namespaces.network == NamespaceMode::Pod {
        let network = namespace::network_of(pid)
            .map_err(io_failed("cannot open the pod's network namespace"))?;
        match plugins {
            Some(plugins) => add(engine, sandbox, plugins, network, config).await?,
            None => connect(engine, sandbox, network, config).await?,
        }
    }
    // 4. Known, also to the next agent.
    let sandbox = sandbox.clone();
    let known = crate::blocking(move || {
        let record = sandbox.change(|state| {
            state.ready = true;
            state.record.ready = true;
            state.record.clone()
        });
        record.write(&sandbox.directory).map_err(failed("cannot write down the sandbox"))
    });
    known.await?;
    // 5. By its names, to the others.
    resolver::look_after(engine);
    Ok(())
}

/// The network that plugins are to give the sandbox; `None` if it is the built-in one, or the host's.
///
/// # Errors
///
/// When there is one and it is not ready, or cannot give the pod what it asks for.
async fn network_of(
    engine: &Arc<Instance>,
    config: &PodSandboxConfig,
) -> Result<Option<CniNetwork>> {
    if config.security_context.namespaces.network != NamespaceMode::Pod {
        return Ok(None);
    }
    let network = engine.cni.network().await.map_err(|error| not_ready(&error))?;
    if let Some(network) = &network {
        engine.cni.ensure_ready(network).await.map_err(|error| not_ready(&error))?;
        Cni::verify(network, config).map_err(cni_failed("cannot set up the pod's network"))?;
    }
    Ok(network)
}

/// As a kubelet says it. Source: `networkErrors` and `NetworkNotReadyErrorMsg` in `pkg/kubelet`.
fn not_ready(error: &CniError) -> Error {
    let RuntimeCondition { kind, reason, message, .. } = check::not_ready(error);
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "{NETWORK_NOT_READY}: container runtime network not ready: {kind}=false \
             reason:{reason} message:{message}"
        ),
    )
}

/// Has plugins give the sandbox its network.
async fn add(
    engine: &Arc<Instance>,
    sandbox: &Arc<Sandbox>,
    network: CniNetwork,
    namespace: OwnedFd,
    config: &PodSandboxConfig,
) -> Result<()> {
    let id = sandbox.state().record.id.0.clone();
    let _turn = sandbox.plugins.lock().await;
    let added = engine.cni.add(network, &id, namespace, config).await;
    let addresses = added.map_err(cni_failed("cannot set up the pod's network"))?;
    sandbox.change(|state| state.record.ips = addresses);
    Ok(())
}

async fn connect(
    engine: &Arc<Instance>,
    sandbox: &Arc<Sandbox>,
    namespace: OwnedFd,
    config: &PodSandboxConfig,
) -> Result<()> {
    let (engine, sandbox) = (engine.clone(), sandbox.clone());
    let mappings = config.port_mappings.clone();
    let bandwidth = Bandwidth::of(&config.annotations)?;
    crate::blocking(move || {
        let id = sandbox.state().record.id.0.clone();
        let network = engine.network()?.setup(&id, namespace.as_fd(), &mappings);
        let network = network.map_err(network_failed("cannot set up the pod's network"))?;
        sandbox.change(|state| state.record.ips = network.addresses);
        let limited = engine.network()?.limit(&id, bandwidth);
        limited.map_err(network_failed("cannot set up the pod's network"))?;
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
        cgroup: bundle::cgroup_directories(engine.hierarchies(), &engine.shims_cgroup()),
        network: own_network,
        ipc: own_ipc,
        processes: reaper.map(|path| bundle::cgroup_directories(engine.hierarchies(), &path)),
        users: options.users.map(|it| UserRange { first: it.host_id, length: it.length }),
        // On the host's network a pod has the host's name.
        hostname: own_network.then(|| config.hostname.clone()),
        shm: own_ipc.then_some(shm),
        sysctls: sysctls(config),
    }
}

/// The kernel settings of a pod: its own, and in a network of its own those with which whoever is not root can bind
/// any port and ping. That is what images are used to, and what a port means is a matter of the pod alone.
///
/// Source: `EnableUnprivilegedPorts` and `EnableUnprivilegedICMP` in `internal/cri/config/config_unix.go` of
/// containerd, which are on by default since its version 2.
fn sysctls(config: &PodSandboxConfig) -> BTreeMap<String, String> {
    let mut all = config.sysctls.clone();
    let namespaces = config.security_context.namespaces;
    if namespaces.network == NamespaceMode::Pod {
        let mut set = |name: &str, value: &str| {
            // A pod may write names with slashes.
            let is_same = |other: &String| other.replace('/', ".") == name;
            if !all.keys().any(is_same) {
                all.insert(name.to_owned(), value.to_owned());
            }
        };
        set("net.ipv4.ip_unprivileged_port_start", "0");
        // Groups beyond a range of the pod's own are not the pod's.
        if namespaces.users.is_none() {
            set("net.ipv4.ping_group_range", "0 2147483647");
        }
    }
    all
}

fn write_files(sandbox: &Sandbox, config: &PodSandboxConfig) -> Result<()> {
    let directory = &sandbox.directory;
    let at = |what: &str| format!("cannot {what} in {}", directory.display());
    std::fs::create_dir_all(directory.join(SHM)).map_err(io_failed(at("make directories")))?;
    let write = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).map_err(io_failed(at("write files")))
    };
    write(RESOLV_CONF, resolv_conf(&config.dns))?;
    let record = sandbox.state().record.clone();
    write("hostname", format!("{}\n", hostname_of(&record)?))?;
    if !config.log_directory.is_empty() {
        let made = std::fs::create_dir_all(&config.log_directory);
        let what = format!("cannot make the log directory {}", config.log_directory);
        made.map_err(io_failed(what))?;
    }
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

/// The servers that a sandbox asks for names.
pub(crate) fn servers_of(sandbox: &Sandbox) -> Vec<IpAddr> {
    let mut text = String::new();
    // Its containers may write to it. One that cannot be read names nobody.
    let read = File::open(sandbox.directory.join(RESOLV_CONF))
        .and_then(|file| file.take(LONGEST_RESOLV_CONF).read_to_string(&mut text));
    drop(read);
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
    servers.filter_map(|server| server.trim().parse().ok()).collect()
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
