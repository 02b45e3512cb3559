//! Opening a container's log anew after rotation.

use std::sync::Arc;

use mainstay_cri::{ContainerId, Error, ErrorKind, Result};
use mainstay_shim_protocol::Command;

use crate::{Instance, failed};

/// Lets the shim go on in a new file of the same name.
pub(crate) async fn reopen(engine: &Arc<Instance>, id: &ContainerId) -> Result<()> {
    let sandbox = engine.sandbox_of(id)?;
    let shim = sandbox.state().shim.clone();
    let shim =
        shim.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the pod's shim has ended"))?;
    let reopened = shim.call(Command::ReopenLog { id: id.0.clone() }).await;
    reopened.map(drop).map_err(failed("cannot reopen the container's log"))
}
