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
//! - A sandbox whose files or shim cannot be understood is left alone, running, and told of.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_cri::{ContainerId, ContainerState, Error, ErrorKind, NamespaceMode, Result};
use mainstay_linux::path::remove_all;
use mainstay_linux::{namespace, socket};
use mainstay_shim_protocol::{ContainerPhase, ContainerReport};

use crate::launch::SOCKET;
use crate::network::{LiveSandbox, Network};
use crate::record::{ContainerRecord, SandboxRecord, read_exit};
use crate::sandbox::{Container, Sandbox, exited, keep, stop, timestamp};
use crate::shim::{Connection, Greeting, Shim, ShimError};
use crate::{Instance, failed, io_failed};

/// Takes over an instance.
pub(crate) async fn own(engine: &Arc<Instance>) -> Result<()> {
    let directory = engine.sandboxes_directory();
    fs::create_dir_all(&directory)
        .map_err(io_failed(format!("cannot make {}", directory.display())))?;
    // 1. What the records say, and what the shims say to it.
    let mut dead = Vec::new();
    for path in entries(&directory)? {
        let Some(sandbox) = from_records(&path, Missing::Remove)? else { continue };
        let sandbox = Arc::new(sandbox);
        let id = sandbox.state().record.id.clone();
        engine.insert(&id, &sandbox);
        match reach(&sandbox).await {
            Ok((shim, connection)) => {
                sandbox.change(|state| state.shim = Some(shim));
                engine.spawn(keep(engine.clone(), sandbox.clone(), connection));
            }
            Err(ShimError::Gone) => dead.push(sandbox),
            Err(error) => {
                let error = failed("cannot drive a running pod")(error).chain();
                tracing::error!(sandbox = %id, error, "a pod is left running as it is");
                sandbox.change(|state| state.foreign = Some(error));
            }
        }
    }
    // 2. The network of those that live.
    let networked = {
        let engine = engine.clone();
        crate::blocking(move || open_network(&engine)).await
    };
    networked?;
    // 3. What the dead left.
    for sandbox in dead {
        stop::give_up(engine, &sandbox).await;
    }
    let engine = engine.clone();
    crate::blocking(move || remove_orphans(&engine)).await
}

/// Looks at an instance that somebody else may own.
pub(crate) async fn visit(engine: &Arc<Instance>) -> Result<()> {
    for path in entries(&engine.sandboxes_directory())? {
        let Some(sandbox) = from_records(&path, Missing::PassOver)? else { continue };
        let sandbox = Arc::new(sandbox);
        match reach(&sandbox).await {
            Ok((shim, connection)) => {
                sandbox.change(|state| state.shim = Some(shim));
                engine.spawn(keep(engine.clone(), sandbox.clone(), connection));
            }
            Err(ShimError::Gone) => {}
            Err(error) => {
                let error = failed("cannot drive a running pod")(error).chain();
                sandbox.change(|state| state.foreign = Some(error));
            }
        }
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
fn from_records(path: &Path, missing: Missing) -> Result<Option<Sandbox>> {
    let record = match SandboxRecord::read(path) {
        Ok(record) => record,
        Err(error) if error.is_not_found() => {
            if missing == Missing::Remove {
                remove_all(path).map_err(io_failed(format!("cannot remove {}", path.display())))?;
            }
            return Ok(None);
        }
        Err(error) => {
            let error = failed("cannot understand a sandbox")(error).chain();
            tracing::error!(error, "a sandbox is left as it is");
            return Ok(None);
        }
    };
    let sandbox = Sandbox::new(path.to_owned(), record);
    for bundle in entries(&path.join("containers"))? {
        let record = match ContainerRecord::read(&bundle) {
            Ok(record) => record,
            Err(error) if error.is_not_found() => {
                if missing == Missing::Remove {
                    remove_all(&bundle)
                        .map_err(io_failed(format!("cannot remove {}", bundle.display())))?;
                }
                continue;
            }
            Err(error) => return Err(failed("cannot understand a container")(error)),
        };
        let state = match read_exit(&bundle) {
            Some(status) => exited(&status, false, None),
            None => ContainerState::Created,
        };
        sandbox.change(|sandbox| {
            let container = Container { record: record.clone(), state, failure: None };
            sandbox.containers.insert(record.id, container);
        });
    }
    Ok(Some(sandbox))
}

/// Connects to a sandbox's shim and takes over what it says.
async fn reach(sandbox: &Sandbox) -> std::result::Result<(Shim, Connection), ShimError> {
    let path = sandbox.directory.join(SOCKET);
    let stream = socket::connect(&path).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ShimError::Gone,
        _ => ShimError::Connection(error),
    })?;
    let Greeting { shim, connection, pid, containers } = Shim::greet(stream).await?;
    sandbox.change(|state| {
        state.shim_pid = pid;
        state.ready = state.record.ready;
        for (id, container) in &mut state.containers {
            // One that the shim does not know it never got to hear of, so it never ran; or it has
            // forgotten it after it had ended, and that is written down.
            if let Some(report) = containers.iter().find(|report| report.id == id.0) {
                container.state = state_of(report);
            }
        }
    });
    Ok((shim, connection))
}

fn state_of(report: &ContainerReport) -> ContainerState {
    match &report.phase {
        ContainerPhase::Creating | ContainerPhase::Created { .. } => ContainerState::Created,
        ContainerPhase::Running { started_at, .. } => {
            ContainerState::Running { started_at: timestamp(*started_at) }
        }
        ContainerPhase::Exited(status) => exited(status, false, None),
    }
}

fn open_network(engine: &Instance) -> Result<()> {
    let mut live: Vec<(SandboxRecord, OwnedFd)> = Vec::new();
    for sandbox in engine.all() {
        let state = sandbox.state();
        let own = state.record.namespaces.network == NamespaceMode::Pod;
        if !state.ready || !own || state.record.ips.is_empty() {
            continue;
        }
        // A shim that ended just now is noticed by its task.
        if let Ok(namespace) = namespace::network_of(state.shim_pid) {
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
        })
        .collect();
    let network = Network::open(engine.config.network.clone(), &live);
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
            remove_all(&directory)
                .map_err(io_failed(format!("cannot remove {}", directory.display())))?;
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

/// What is in a directory; one that is absent is empty.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error| io_failed(format!("cannot list {}", directory.display()))(error);
    let list = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(unreadable)?,
    };
    list.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable)).collect()
}
