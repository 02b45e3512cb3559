//! Finding what runs, from shims and records.
//!
//! # Flow
//!
//! Every sandbox has a directory with its record, made before its shim was started, and a socket
//! that was bound before that too. So a directory without a record never had a shim, and a socket
//! that refuses a connection has no shim any more. What else is found belongs to nobody.
//!
//! # Guarantees
//!
//! - A running container is neither stopped nor started by this.
//! - A sandbox whose shim cannot be spoken with runs on and is told of; see [`crate::foreign`].
//! - With files that cannot be understood it is not known whose sandbox it is, so the owner does not
//!   begin: it would start the same pod a second time.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_cri::{
    Bandwidth, ContainerId, ContainerState, Error, ErrorKind, NamespaceMode, Result, chain,
};
use mainstay_linux::namespace;
use mainstay_linux::path::remove_all;
use mainstay_shim_protocol::{ContainerPhase, ContainerReport};

use crate::foreign::Foreign;
use crate::launch::connect;
use crate::network::{LiveSandbox, Network};
use crate::record::{ContainerRecord, SandboxRecord, ShimProcess, read_exit};
use crate::sandbox::run::servers_of;
use crate::sandbox::{Container, Sandbox, exited, keep, stop, timestamp};
use crate::shim::{Greeting, Line, Shim, ShimError};
use crate::{Instance, Role, cni_failed, failed, io_failed, resolver};

/// The boot that the records are of. Source: proc_sys_kernel(5), `random/boot_id`.
const BOOT: &str = "boot";

/// Takes over an instance.
pub(crate) async fn own(engine: &Arc<Instance>) -> Result<()> {
    let directory = engine.sandboxes_directory();
    forget_earlier_boots(engine, &directory)?;
    fs::create_dir_all(&directory)
        .map_err(io_failed(format!("cannot make {}", directory.display())))?;
    // What a container makes, such as programs that run as their owner, is for nobody else on this
    // machine (CVE-2021-41103).
    let written = engine.containers_directory();
    fs::create_dir_all(&written)
        .and_then(|()| fs::set_permissions(&written, fs::Permissions::from_mode(0o700)))
        .map_err(io_failed(format!("cannot make {} for root only", written.display())))?;
    engine.cni.take_over().map_err(cni_failed("cannot find the pods' networks"))?;
    // 1. What the records say, and what the shims say to it.
    let placed = engine.shims()?;
    let mut dead = Vec::new();
    for path in entries(&directory)? {
        let Some(sandbox) = from_records(engine, &path, Missing::Remove)? else { continue };
        let sandbox = Arc::new(sandbox);
        let id = sandbox.state().record.id.clone();
        engine.insert(&id, &sandbox);
        if !reach(engine, &sandbox, Some(&placed)).await? {
            dead.push(sandbox);
        }
    }
    // 2. The network of those that live.
    let networked = {
        let engine = engine.clone();
        crate::blocking(move || open_network(&engine)).await
    };
    networked?;
    // 3. What the dead left: their processes at once, and what plugins gave them later.
    let mut attached = Vec::new();
    for sandbox in dead {
        let id = sandbox.state().record.id.clone();
        if engine.cni.has(&id.0) {
            stop::end(engine, &sandbox).await;
            attached.push(sandbox);
        } else {
            stop::give_up(engine, &sandbox).await;
        }
    }
    engine.spawn(look_after_attachments(engine.clone(), attached, engine.all()));
    let engine = engine.clone();
    crate::blocking(move || remove_orphans(&engine)).await
}

/// Has plugins take back what is left of sandboxes that are dead or gone, and check those that were taken
/// over. Nobody waits for it: plugins take their time.
async fn look_after_attachments(
    engine: Arc<Instance>,
    dead: Vec<Arc<Sandbox>>,
    taken_over: Vec<Arc<Sandbox>>,
) {
    for sandbox in dead {
        let _clearing = engine.cni.clearing().await;
        let id = sandbox.state().record.id.clone();
        // One that has been removed meanwhile has been given up by that.
        if engine.sandbox(&id).is_ok() {
            stop::give_back(&engine, &sandbox).await;
        }
    }
    for problem in engine.cni.delete_all_but(|| sandboxes(&engine)).await {
        tracing::warn!("{problem}");
    }
    match engine.cni.network().await {
        Ok(Some(network)) => {
            let _alone = engine.cni.alone().await;
            engine.cni.collect(&network, &sandboxes(&engine)).await;
        }
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "plugins are neither told to collect nor to check"
            );
            return;
        }
    }
    for sandbox in taken_over {
        let _turn = sandbox.plugins.lock().await;
        let (id, ready) = {
            let state = sandbox.state();
            (state.record.id.0.clone(), state.ready)
        };
        if ready {
            engine.cni.check(&id).await;
        }
    }
}

fn sandboxes(engine: &Instance) -> BTreeSet<String> {
    engine.all().iter().map(|sandbox| sandbox.state().record.id.0.clone()).collect()
}

/// Has plugins take back all that they gave.
///
/// # Errors
///
/// Names what they do not.
pub(crate) async fn remove_attachments(engine: &Arc<Instance>) -> Result<()> {
    let left = engine.cni.delete_all_but(|| sandboxes(engine)).await;
    match left.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Internal, left.join("; "))),
    }
}

/// Removes what was written down before the machine was started: nothing of it is true any more,
/// and where the run directory survives the machine, nothing of it need be whole.
fn forget_earlier_boots(engine: &Instance, sandboxes: &Path) -> Result<()> {
    let unreadable = || io_failed("cannot tell one boot of the machine from another");
    let now = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(unreadable())?;
    let file = engine.config.run_dir.join(BOOT);
    if fs::read_to_string(&file).is_ok_and(|boot| boot == now) {
        return Ok(());
    }
    remove_all(sandboxes).map_err(io_failed(format!("cannot remove {}", sandboxes.display())))?;
    fs::create_dir_all(&engine.config.run_dir)
        .and_then(|()| fs::write(&file, now))
        .map_err(io_failed(format!("cannot write {}", file.display())))
}

/// Looks at an instance that somebody else may own.
pub(crate) async fn visit(engine: &Arc<Instance>) -> Result<()> {
    for path in entries(&engine.sandboxes_directory())? {
        let Some(sandbox) = from_records(engine, &path, Missing::PassOver)? else { continue };
        let sandbox = Arc::new(sandbox);
        reach(engine, &sandbox, None).await?;
        let id = sandbox.state().record.id.clone();
        engine.insert(&id, &sandbox);
    }
    Ok(())
}

/// What to do with a directory that has no record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is a leftover.
    Remove,
    /// Its owner may be about to write it.
    PassOver,
}

/// Makes a sandbox from its records, as if its shim were gone.
fn from_records(engine: &Instance, path: &Path, missing: Missing) -> Result<Option<Sandbox>> {
    let record = match SandboxRecord::read(path) {
        Ok(record) => record,
        Err(error) if error.is_not_found() => {
            if missing == Missing::Remove {
                remove_leftover(path);
            }
            return Ok(None);
        }
        Err(error) if missing == Missing::Remove => {
            return Err(failed(
                "cannot tell which pod a sandbox is of, and that pod may run; if a newer mainstay \
                 made it, run or end it with that one",
            )(error));
        }
        Err(error) => {
            let error = failed("cannot understand a sandbox")(error).chain();
            tracing::error!(error, "a sandbox is passed over");
            return Ok(None);
        }
    };
    let sandbox = Sandbox::new(path.to_owned(), record);
    for bundle in entries(&path.join("containers"))? {
        let record = match ContainerRecord::read(&bundle) {
            Ok(record) => record,
            Err(error) if error.is_not_found() => {
                if missing == Missing::Remove {
                    remove_leftover(&bundle);
                }
                continue;
            }
            Err(error) => return Err(failed("cannot understand a container")(error)),
        };
        let state = match read_exit(&bundle) {
            Some(status) => exited(&status, engine.oom_killed(&record.cgroup), None),
            None => ContainerState::Created,
        };
        sandbox.change(|sandbox| {
            let id = record.id.clone();
            let container = Container { record, state, failure: None };
            sandbox.containers.insert(id, Box::new(container));
        });
    }
    Ok(Some(sandbox))
}

/// Connects to a sandbox's shim, takes over what it says, and listens to it from now on. Returns
/// whether there is one.
///
/// `placed` are the shims that are where they belong, for the owner, who sees to the others.
async fn reach(
    engine: &Arc<Instance>,
    sandbox: &Arc<Sandbox>,
    placed: Option<&BTreeSet<i32>>,
) -> Result<bool> {
    let Some(stream) = connect(&sandbox.directory)? else { return Ok(false) };
    let (shim, line, containers) = match Shim::greet(stream).await {
        Ok(Greeting { shim, connection, pid, containers }) => {
            // A sandbox that was not made to its end has no record of it. A shim that has ended by now
            // is noticed by its task.
            if let Ok(process) = ShimProcess::of(pid) {
                sandbox.change(|state| state.record.shim = Some(process));
            }
            (shim, Line::Driven(connection), containers)
        }
        Err(ShimError::Gone) => return Ok(false),
        Err(error) => {
            let reason = left_alone(sandbox, error);
            let (shim, requests) = Shim::new();
            let (foreign, containers) = Foreign::look(engine, sandbox, reason.clone(), requests)?;
            if engine.role == Role::Owner {
                tracing::warn!("{reason}");
            }
            sandbox.change(|state| state.foreign = Some(reason));
            (shim, Line::Foreign(foreign), containers)
        }
    };
    // Whoever started it may have ended before that.
    let process = sandbox.state().record.shim;
    let placed = match (placed, process) {
        (Some(placed), Some(shim)) if !placed.contains(&shim.pid) => engine.place_shim(shim.pid),
        _ => Ok(()),
    };
    sandbox.change(|state| {
        state.shim = Some(shim);
        state.placed = placed.map_err(|error| error.chain());
        state.ready = state.record.ready;
        for (id, container) in &mut state.containers {
            // One that the shim does not know it never got to hear of, so it never ran; or it has
            // forgotten it after it had ended, and that is written down.
            if let Some(report) = containers.iter().find(|report| report.id == id.0) {
                container.state = state_of(engine, container, report);
            }
        }
    });
    engine.spawn(keep(engine.clone(), sandbox.clone(), line));
    Ok(true)
}

/// Says what becomes of a pod whose shim cannot be driven.
fn left_alone(sandbox: &Sandbox, error: ShimError) -> String {
    let metadata = sandbox.state().record.metadata.clone();
    let (namespace, name) = (metadata.namespace, metadata.name);
    let error = failed(format!("pod {namespace}/{name} runs on as it is"))(error).chain();
    format!(
        "{error}; until the pod is restarted or changed, its containers are not started again \
         when they end, no command can be run in them, and their logs are not rotated"
    )
}

fn state_of(engine: &Instance, container: &Container, report: &ContainerReport) -> ContainerState {
    match &report.phase {
        ContainerPhase::Creating | ContainerPhase::Created { .. } => ContainerState::Created,
        ContainerPhase::Running { started_at, .. } => {
            ContainerState::Running { started_at: timestamp(*started_at) }
        }
        ContainerPhase::Exited(status) => {
            exited(status, engine.oom_killed(&container.record.cgroup), None)
        }
    }
}

fn open_network(engine: &Instance) -> Result<()> {
    let mut live: Vec<(SandboxRecord, OwnedFd)> = Vec::new();
    let mut servers = Vec::new();
    for sandbox in engine.all() {
        let state = sandbox.state();
        let own = state.record.namespaces.network == NamespaceMode::Pod;
        if state.ready && !own && resolver::may_ask(&state.record) {
            servers.extend(servers_of(&sandbox));
        }
        let by_plugins = engine.cni.has(&state.record.id.0);
        if !state.ready || !own || by_plugins || state.record.ips.is_empty() {
            continue;
        }
        // A shim that ended just now is noticed by its task.
        if let Some(Ok(namespace)) = state.record.shim.map(|it| namespace::network_of(it.pid)) {
            live.push((state.record.clone(), namespace));
        }
    }
    let live: Vec<LiveSandbox<'_>> = live
        .iter()
        .map(|(record, namespace)| LiveSandbox {
            id: record.id.0.clone(),
            namespace: namespace.as_fd(),
            addresses: record.ips.clone(),
            port_mappings: record.port_mappings.clone(),
            // What cannot be read kept the sandbox from being made.
            bandwidth: Bandwidth::of(&record.annotations.to_map()).unwrap_or_default(),
            asks: resolver::may_ask(record),
        })
        .collect();
    let network = Network::open(engine.config.network.clone(), &live, &servers);
    let again = || Error::new(ErrorKind::Internal, "the network was opened twice");
    engine.network.set(network).map_err(|_| again())
}

/// Removes files and image leases of containers that have no record.
fn remove_orphans(engine: &Instance) -> Result<()> {
    let known: BTreeSet<ContainerId> = engine
        .all()
        .iter()
        .flat_map(|sandbox| sandbox.state().containers.keys().cloned().collect::<Vec<_>>())
        .collect();
    for directory in entries(&engine.containers_directory())? {
        let id = directory.file_name().map(|name| ContainerId(name.to_string_lossy().into_owned()));
        if id.is_some_and(|id| !known.contains(&id)) {
            remove_leftover(&directory);
        }
    }
    let leases = engine.store().leases().map_err(failed("cannot list who uses images"))?;
    for lease in leases {
        if !known.contains(&ContainerId(lease.owner.clone())) {
            engine.store().release(&lease.owner).map_err(failed("cannot let go of an image"))?;
        }
    }
    Ok(())
}

/// Removes what nobody needs, so that the owner begins also when it cannot be removed; the next
/// one tries again.
fn remove_leftover(directory: &Path) {
    if let Err(error) = remove_all(directory) {
        tracing::warn!(%error, directory = %directory.display(), "a leftover cannot be removed");
    }
}

/// What is in a directory; one that is absent is empty.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    crate::entries(directory).map_err(io_failed(format!("cannot list {}", directory.display())))
}
