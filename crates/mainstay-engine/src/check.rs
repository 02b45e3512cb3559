//! Looking after the network.

use std::os::fd::AsFd;
use std::sync::Arc;

use mainstay_cri::{Result, SandboxId};
use mainstay_linux::namespace;

use crate::network::Finding;
use crate::{Instance, io_failed, network_failed};

/// How the network is.
#[derive(Debug, Default)]
pub(crate) struct NetworkHealth {
    /// What keeps pods from being reached, in sentences with their remedies.
    pub(crate) failures: Option<String>,
    /// What else there is to say.
    pub(crate) told: String,
}

/// Mends what others broke and says what it found.
pub(crate) fn network(instance: &Arc<Instance>) -> Result<NetworkHealth> {
    // A visitor does not look after it.
    let Ok(network) = instance.network() else { return Ok(NetworkHealth::default()) };
    let (mut failures, mut told) = (Vec::new(), Vec::new());
    for mut finding in network.check() {
        if let Finding::OlderRange { sandboxes, .. } = &mut finding {
            sandboxes.iter_mut().for_each(|id| *id = pod_of(instance, id));
        }
        match &finding {
            Finding::Dropped { .. } | Finding::NotRepaired { .. } => {
                failures.push(finding.to_string());
            }
            Finding::OtherRange { .. }
            | Finding::OlderRange { .. }
            | Finding::RefusedRange { .. }
            | Finding::Unreachable { .. }
            | Finding::PortNotReserved { .. } => {
                told.push(finding.to_string());
            }
            // Told once, by the log.
            Finding::ForwardingSwitchedOn | Finding::Repaired(_) => tracing::info!("{finding}"),
            Finding::Detached { sandbox } => {
                tracing::warn!("{finding}");
                if let Err(error) = reconnect(instance, &SandboxId(sandbox.clone())) {
                    failures.push(error.chain());
                }
            }
        }
    }
    let failures = (!failures.is_empty()).then(|| failures.join("; "));
    Ok(NetworkHealth { failures, told: told.join("; ") })
}

/// What people call the pod of a sandbox.
fn pod_of(instance: &Arc<Instance>, id: &str) -> String {
    let Ok(sandbox) = instance.sandbox(&SandboxId(id.to_owned())) else { return id.to_owned() };
    let metadata = &sandbox.state().record.metadata;
    format!("{}/{}", metadata.namespace, metadata.name)
}

/// Gives a sandbox its link again.
fn reconnect(instance: &Arc<Instance>, id: &SandboxId) -> Result<()> {
    let sandbox = instance.sandbox(id)?;
    let (shim, mappings) = {
        let state = sandbox.state();
        // One that is being ended loses its link with its shim.
        let Some(shim) = state.record.shim.filter(|_| state.ready && state.shim.is_some()) else {
            return Ok(());
        };
        (shim, state.record.port_mappings.clone())
    };
    let namespace = namespace::network_of(shim.pid)
        .map_err(io_failed("cannot open the pod's network namespace"))?;
    let network = instance.network()?.setup(&id.0, namespace.as_fd(), &mappings);
    network.map(drop).map_err(network_failed("cannot set up the pod's network again"))
}
