//! Removing a sandbox.

use std::sync::Arc;

use mainstay_cri::{ContainerEventKind, ContainerId, ErrorKind, Result, SandboxId};
use mainstay_linux::path::remove_all;

use crate::{Instance, container, failed, io_failed};

/// Removes a sandbox and its containers, killing what still runs. Idempotent.
pub(crate) async fn remove(engine: &Arc<Instance>, id: &SandboxId) -> Result<()> {
    super::stop::stop(engine, id).await?;
    let sandbox = match engine.sandbox(id) {
        Ok(sandbox) => sandbox,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let containers: Vec<ContainerId> = sandbox.state().containers.keys().cloned().collect();
    for container in containers {
        container::remove::remove(engine, &container).await?;
    }
    let directory = sandbox.directory.clone();
    let parent = sandbox.state().record.cgroup_parent.clone();
    let (instance, own_parent) = (engine.clone(), engine.own_parent(id));
    crate::blocking(move || {
        if parent == own_parent {
            let removed = instance.hierarchies().at(&parent).remove();
            removed.map_err(failed("cannot remove the sandbox's control group"))?;
        }
        remove_all(&directory).map_err(io_failed(format!("cannot remove {}", directory.display())))
    })
    .await?;
    engine.forget(id);
    engine.tell(&sandbox, None, ContainerEventKind::Deleted);
    Ok(())
}
