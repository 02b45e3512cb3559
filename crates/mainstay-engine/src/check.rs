//! Looking after the network.

use std::os::fd::AsFd;
use std::sync::Arc;

use mainstay_cri::{Bandwidth, Result, RuntimeCondition, SandboxId, chain};
use mainstay_linux::namespace;

use crate::cni::CniError;
use crate::network::Finding;
use crate::resolver::{self, Occasion};
use crate::{Instance, Role, io_failed, network_failed};

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
            | Finding::NoRange(_)
            | Finding::OlderRange { .. }
            | Finding::RefusedRange { .. }
            | Finding::Unreachable { .. }
            | Finding::PortNotReserved { .. } => {
                told.push(finding.to_string());
            }
            // Told once, by the log.
            Finding::ForwardingSwitchedOn(_) | Finding::NoIpv6 | Finding::Repaired(_) => {
                tracing::info!("{finding}");
            }
            Finding::Detached { sandbox } => {
                tracing::warn!("{finding}");
                if let Err(error) = reconnect(instance, &SandboxId(sandbox.clone())) {
                    failures.push(error.chain());
                }
            }
        }
    }
    // What it needs may be there now, or no more.
    if let Err(error) = resolver::see_to(instance, Occasion::Looked) {
        told.push(format!("pods do not find each other by their names: {}", error.chain()));
    }
    for (id, error) in instance.cni.broken() {
        let pod = pod_of(instance, &id);
        told.push(format!("the network of pod {pod} may not be as it was made: {error}"));
    }
    let failures = (!failures.is_empty()).then(|| failures.join("; "));
    Ok(NetworkHealth { failures, told: told.join("; ") })
}

/// What keeps plugins from giving pods their network. Source: `Status` in
/// `internal/cri/server/status.go` of containerd.
pub(crate) async fn plugins(instance: &Arc<Instance>) -> Option<RuntimeCondition> {
    // A visitor gives pods nothing.
    if instance.role == Role::Visitor {
        return None;
    }
    instance.cni.failure().await.as_ref().map(not_ready)
}

/// The condition that says it.
pub(crate) fn not_ready(error: &CniError) -> RuntimeCondition {
    RuntimeCondition {
        kind: "NetworkReady".to_owned(),
        status: false,
        reason: "NetworkPluginNotReady".to_owned(),
        message: format!("Network plugin returns error: {}", chain(error)),
    }
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
    let (shim, mappings, bandwidth) = {
        let state = sandbox.state();
        // One that is being ended loses its link with its shim.
        let Some(shim) = state.record.shim.filter(|_| state.ready && state.shim.is_some()) else {
            return Ok(());
        };
        let bandwidth = Bandwidth::of(&state.record.annotations.to_map())?;
        (shim, state.record.port_mappings.clone(), bandwidth)
    };
    let namespace = namespace::network_of(shim.pid)
        .map_err(io_failed("cannot open the pod's network namespace"))?;
    let network = instance.network()?;
    let again = network
        .setup(&id.0, namespace.as_fd(), &mappings)
        .and_then(|_| network.limit(&id.0, bandwidth));
    again.map_err(network_failed("cannot set up the pod's network again"))
}
