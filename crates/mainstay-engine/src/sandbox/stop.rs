//! Ending a sandbox.

use std::sync::Arc;

use jiff::Timestamp;
use mainstay_cri::{ContainerEventKind, ContainerId, ErrorKind, Result, SandboxId};
use mainstay_shim_protocol::Command;

use super::{Sandbox, vanished};
use crate::shim::ShimError;
use crate::{Instance, cni_failed, container, failed, network_failed, resolver};

/// Kills what still runs, gives back the network and ends the shim. Idempotent.
pub(crate) async fn stop(engine: &Arc<Instance>, id: &SandboxId) -> Result<()> {
    let sandbox = match engine.sandbox(id) {
        Ok(sandbox) => sandbox,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Not ready from now on, so that the end of the shim is not taken for an accident.
    if sandbox.change(|state| std::mem::replace(&mut state.ready, false)) {
        resolver::look_after(engine);
    }
    let running: Vec<ContainerId> = sandbox.state().containers.keys().cloned().collect();
    for container in running {
        container::stop::kill(engine, &sandbox, &container).await?;
    }
    let shim = sandbox.state().shim.clone();
    if let Some(shim) = shim {
        match shim.call(Command::Shutdown).await {
            Ok(_) | Err(ShimError::Gone) => {}
            Err(error) => return Err(failed("cannot end the pod's shim")(error)),
        }
        sandbox.wait_for(|state| state.shim.is_none().then_some(())).await;
    }
    end_reaper(engine, &sandbox).await?;
    disconnect(engine, &sandbox).await?;
    engine.tell(&sandbox, None, ContainerEventKind::Stopped);
    Ok(())
}

/// Gives back what a sandbox without a shim still has: processes are killed, the network goes,
/// and its containers are shown as ended. One that cannot be killed is not: it would be started a
/// second time beside itself. It is stopped again by whoever wants it gone.
pub(crate) async fn give_up(engine: &Arc<Instance>, sandbox: &Arc<Sandbox>) {
    let was_ready = end(engine, sandbox).await;
    give_back(engine, sandbox).await;
    if was_ready {
        engine.tell(sandbox, None, ContainerEventKind::Stopped);
    }
}

/// The part of [`give_up`] that is about processes. Returns whether the sandbox was ready until then.
pub(crate) async fn end(engine: &Arc<Instance>, sandbox: &Arc<Sandbox>) -> bool {
    let containers: Vec<_> = {
        let state = sandbox.state();
        let alive = state.containers.values().filter(|container| !container.has_ended());
        alive.map(|container| container.record.clone()).collect()
    };
    for record in containers {
        let id = record.id.clone();
        if let Err(error) = engine.kill_cgroup(&record.cgroup).await {
            tracing::error!(container = %id, error = error.chain(), "cannot kill an orphaned container");
            continue;
        }
        let seen = crate::record::read_exit(&sandbox.bundle(&id));
        let oom = engine.oom_killed(&record.cgroup);
        sandbox.change(|state| {
            if let Some(container) = state.containers.get_mut(&id) {
                container.state = match seen {
                    Some(status) => super::exited(&status, oom, container.failure.clone()),
                    None => vanished(&container.state, Timestamp::now()),
                };
            }
        });
        engine.tell(sandbox, Some(id), ContainerEventKind::Stopped);
    }
    let was_ready = sandbox.change(|state| std::mem::replace(&mut state.ready, false));
    if was_ready {
        resolver::look_after(engine);
    }
    if let Err(error) = end_reaper(engine, sandbox).await {
        let id = sandbox.state().record.id.clone();
        tracing::error!(sandbox = %id, error = error.chain(), "cannot end a sandbox's first process");
    }
    was_ready
}

/// The part of [`give_up`] that is about the network.
pub(crate) async fn give_back(engine: &Arc<Instance>, sandbox: &Arc<Sandbox>) {
    if let Err(error) = disconnect(engine, sandbox).await {
        let id = sandbox.state().record.id.clone();
        tracing::warn!(sandbox = %id, error = error.chain(), "cannot give back a sandbox's network");
    }
}

/// Sees the end of the process that all others of the sandbox were numbered with, which goes with the shim.
async fn end_reaper(engine: &Arc<Instance>, sandbox: &Arc<Sandbox>) -> Result<()> {
    let Some(path) = super::reaper_cgroup(&sandbox.state().record) else { return Ok(()) };
    engine.kill_cgroup(&path).await?;
    let engine = engine.clone();
    crate::blocking(move || {
        let group = engine.hierarchies().at(&path);
        group.remove().map_err(failed("cannot remove the control group of the pod's first process"))
    })
    .await
}

async fn disconnect(engine: &Arc<Instance>, sandbox: &Arc<Sandbox>) -> Result<()> {
    let record = sandbox.change(|state| {
        state.record.ready = false;
        state.record.clone()
    });
    let by_plugins = engine.cni.has(&record.id.0);
    if by_plugins {
        let _turn = sandbox.plugins.lock().await;
        let deleted = engine.cni.del(&record.id.0).await;
        deleted.map_err(cni_failed("cannot give back the pod's network"))?;
    }
    let (engine, sandbox) = (engine.clone(), sandbox.clone());
    crate::blocking(move || {
        if !by_plugins && !record.ips.is_empty() {
            let teardown = engine.network()?.teardown(&record.id.0);
            teardown.map_err(network_failed("cannot give back the pod's network"))?;
            // Deleting the link waits for grace periods of the kernel, and nobody waits for that.
            engine.settle_network();
        }
        // A sandbox whose directory is gone has been removed meanwhile.
        match sandbox.directory.exists() {
            true => {
                record.write(&sandbox.directory).map_err(failed("cannot write down the sandbox"))
            }
            false => Ok(()),
        }
    })
    .await
}
