//! Starting a created container.

use std::sync::Arc;

use mainstay_cri::{
    ContainerEventKind, ContainerId, ContainerState, Error, ErrorKind, Result, START_ERROR,
};
use mainstay_shim_protocol::{Command, Success};
use tokio::time::timeout;

use super::stop::ended;
use crate::sandbox::timestamp;
use crate::shim::ShimError;
use crate::{Instance, KILL_PATIENCE, failed};

/// Lets a created container run.
///
/// # Errors
///
/// When the program cannot be executed. The container is then ended, with the code 128 and the
/// reason `StartError`.
pub(crate) async fn start(engine: &Arc<Instance>, id: &ContainerId) -> Result<()> {
    let sandbox = engine.sandbox_of(id)?;
    let shim = sandbox.state().shim.clone();
    let shim =
        shim.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the pod's shim has ended"))?;
    // Whatever a container starts is started with the shim in its place.
    let placed = sandbox.state().placed.clone();
    placed.map_err(|text| Error::new(ErrorKind::Unavailable, text))?;
    match shim.call(Command::StartContainer { id: id.0.clone() }).await {
        Ok(Success::Started { at }) => {
            sandbox.change(|state| {
                // Its end may have been told first.
                if let Some(container) = state.containers.get_mut(id)
                    && matches!(container.state, ContainerState::Created)
                {
                    container.state = ContainerState::Running { started_at: timestamp(at) };
                }
            });
            engine.tell(&sandbox, Some(id.clone()), ContainerEventKind::Started);
            Ok(())
        }
        Ok(other) => Err(Error::new(ErrorKind::Internal, format!("an odd answer: {other:?}"))),
        Err(error) => {
            if let ShimError::CannotExecute(text) | ShimError::Failed(text) = &error {
                let text = text.clone();
                sandbox.change(|state| {
                    if let Some(container) = state.containers.get_mut(id) {
                        if let ContainerState::Exited { reason, message, .. } = &mut container.state
                        {
                            START_ERROR.clone_into(reason);
                            message.clone_from(&text);
                        }
                        container.failure = Some(text);
                    }
                });
                // The shim tells of the end on its own; whoever looks next is to see it.
                if timeout(KILL_PATIENCE, ended(&sandbox, id)).await.is_err() {
                    tracing::warn!(container = %id, "a container that cannot be started does not end");
                }
            }
            Err(failed("cannot start the container")(error))
        }
    }
}
