//! Changing what a container may use.

use std::sync::Arc;

use mainstay_cri::{ContainerId, Error, ErrorKind, LinuxContainerResources, Result};

use crate::{Instance, failed};

/// Changes what a container may use, while it goes on.
pub(crate) async fn update(
    engine: &Arc<Instance>,
    id: &ContainerId,
    resources: &LinuxContainerResources,
) -> Result<()> {
    let sandbox = engine.sandbox_of(id)?;
    let bundle = sandbox.bundle(id);
    let alive = {
        let state = sandbox.state();
        let container = state.containers.get(id).filter(|container| !container.has_ended());
        container.map(|container| container.record.cgroup.clone())
    };
    let Some(cgroup) = alive else {
        let message = format!("container {id} has ended, so there is nothing to be resized");
        return Err(Error::new(ErrorKind::FailedPrecondition, message));
    };
    let (engine, resources) = (engine.clone(), resources.clone());
    crate::blocking(move || {
        let changed = engine.hierarchies().at(&cgroup).limit(&super::limits(&resources));
        changed.map_err(failed("cannot change the container's control group"))?;
        super::details::update(&bundle, &resources)
    })
    .await
}
