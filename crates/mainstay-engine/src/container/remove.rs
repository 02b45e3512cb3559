//! Removing a container.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mainstay_cri::{ContainerEventKind, ContainerId, ErrorKind, Result};
use mainstay_linux::path::remove_all;
use mainstay_shim_protocol::Command;

use crate::record::ContainerRecord;
use crate::sandbox::Container;
use crate::shim::ShimError;
use crate::{Instance, failed, io_failed};

/// Removes a container, killing it if it runs. Idempotent.
pub(crate) async fn remove(engine: &Arc<Instance>, id: &ContainerId) -> Result<()> {
    let sandbox = match engine.sandbox_of(id) {
        Ok(sandbox) => sandbox,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (never_ran, shim) = {
        let state = sandbox.state();
        let known = state.containers.get(id);
        // What a record alone says, without its shim, does not tell whether it ran.
        let told = |it: &Container| it.has_ended() || state.shim.is_some();
        let never_ran = known.is_some_and(|it| it.state.never_ran() && told(it));
        (never_ran, state.shim.clone())
    };
    super::stop::kill(engine, &sandbox, id).await?;
    if let Some(shim) = shim {
        match shim.call(Command::RemoveContainer { id: id.0.clone() }).await {
            Ok(_) | Err(ShimError::Gone | ShimError::NoSuchContainer) => {}
            Err(error) => return Err(failed("cannot remove the container")(error)),
        }
    }
    let record = sandbox.state().containers.get(id).map(|container| container.record.clone());
    if let Some(record) = record {
        // In the host's process namespace the end of the first process was not that of all, and
        // with one left the control group stays.
        engine.kill_cgroup(&record.cgroup).await?;
        let (engine, bundle) = (engine.clone(), sandbox.bundle(id));
        crate::blocking(move || {
            if never_ran && !record.log_path.is_empty() {
                // It would be counted as that of a run.
                remove_log(&record.log_path)?;
            }
            clear(&engine, &record, &bundle)
        })
        .await?;
    }
    sandbox.change(|state| state.containers.remove(id));
    engine.tell(&sandbox, Some(id.clone()), ContainerEventKind::Deleted);
    Ok(())
}

fn remove_log(path: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io_failed(format!("cannot remove {path}"))),
    }
}

/// Removes what a container has on the host: last its record, so that nothing is forgotten that
/// still is there.
pub(crate) fn clear(engine: &Instance, record: &ContainerRecord, bundle: &Path) -> Result<()> {
    let group = engine.hierarchies().at(&record.cgroup);
    group.remove().map_err(failed("cannot remove the container's control group"))?;
    for directory in [engine.writable_directory(&record.id).as_path(), bundle] {
        remove_all(directory)
            .map_err(io_failed(format!("cannot remove {}", directory.display())))?;
    }
    engine.store().release(&record.id.0).map_err(failed("cannot let go of the image"))
}
