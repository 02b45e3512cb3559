//! Ending a container.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_cri::{ContainerId, ContainerState, ErrorKind, Result};
use mainstay_shim_protocol::Command;
use rustix::process::Signal;
use tokio::time::timeout;

use crate::sandbox::{Sandbox, vanished};
use crate::shim::ShimError;
use crate::{Instance, KILL_PATIENCE, failed};

/// Sends the stop signal, waits up to `grace`, then kills. Idempotent.
pub(crate) async fn stop(engine: &Arc<Instance>, id: &ContainerId, grace: Duration) -> Result<()> {
    let sandbox = match engine.sandbox_of(id) {
        Ok(sandbox) => sandbox,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // What never ran is not asked to end.
    let running = sandbox.state().containers.get(id).and_then(|container| match container.state {
        ContainerState::Running { .. } => Some(container.record.stop_signal),
        ContainerState::Created | ContainerState::Exited { .. } => None,
    });
    if let Some(stop_signal) = running
        && !grace.is_zero()
    {
        signal(&sandbox, id, stop_signal).await?;
        if timeout(grace, ended(&sandbox, id)).await.is_ok() {
            return Ok(());
        }
    }
    kill(engine, &sandbox, id).await
}

/// Kills a container with all that it started.
pub(crate) async fn kill(
    engine: &Arc<Instance>,
    sandbox: &Arc<Sandbox>,
    id: &ContainerId,
) -> Result<()> {
    if has_ended(sandbox, id) {
        return Ok(());
    }
    let told = signal(sandbox, id, Signal::KILL.as_raw()).await?;
    // The end of the first process ends all in its namespace. One in the host's has to be killed
    // group and all.
    let cgroup = sandbox.state().containers.get(id).map(|it| it.record.cgroup.clone());
    if let Some(cgroup) = cgroup {
        engine.kill_cgroup(&cgroup).await?;
    }
    if told == Told::Unknown {
        return Ok(());
    }
    let alone = sandbox.state().shim.is_none();
    if alone {
        // Nobody is there who would tell of the end that was just made.
        sandbox.change(|state| {
            if let Some(container) = state.containers.get_mut(id) {
                container.state = vanished(&container.state, Timestamp::now());
            }
        });
        return Ok(());
    }
    timeout(KILL_PATIENCE, ended(sandbox, id)).await.map_err(|late| {
        let message = format!(
            "container {id} does not end, although it was killed; a process of it \
                               waits for something that the kernel cannot interrupt"
        );
        mainstay_cri::Error::with_source(ErrorKind::DeadlineExceeded, message, late)
    })
}

/// Whom a signal reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// The container, or the shim has gone, and whoever takes leave of it kills what it left.
    Somebody,
    /// Nobody: the shim never got to hear of the container.
    Unknown,
}

async fn signal(sandbox: &Arc<Sandbox>, id: &ContainerId, signal: i32) -> Result<Told> {
    let shim = sandbox.state().shim.clone();
    let Some(shim) = shim else { return Ok(Told::Somebody) };
    match shim.call(Command::SignalContainer { id: id.0.clone(), signal }).await {
        Ok(_) | Err(ShimError::Gone) => Ok(Told::Somebody),
        Err(ShimError::NoSuchContainer) => Ok(Told::Unknown),
        Err(error) => Err(failed("cannot signal the container")(error)),
    }
}

fn has_ended(sandbox: &Sandbox, id: &ContainerId) -> bool {
    sandbox.state().containers.get(id).is_none_or(|it| it.has_ended())
}

/// Waits for a container's end.
pub(crate) async fn ended(sandbox: &Sandbox, id: &ContainerId) {
    sandbox
        .wait_for(|state| state.containers.get(id).is_none_or(|it| it.has_ended()).then_some(()))
        .await;
}
