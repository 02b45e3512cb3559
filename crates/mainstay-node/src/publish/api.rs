//! Speaking to a Kubernetes API, as the kubelet of this node.
//!
//! # Guarantees
//!
//! - Every request has an end: an API that is wedged is one that is away.
//! - Nothing on the way from a manifest to a container waits for anything here.

mod pods;
mod watch;

use crate::KUBERNETES;

pub(crate) use mainstay_client::{CallError, CallErrorKind, Calls, Deletion, Trouble};
pub(crate) use pods::{ApiPods, Entry};
pub(crate) use watch::follow;

/// How the agent reaches a Kubernetes API.
#[derive(Clone)]
pub struct ApiAccess {
    /// Acts as `system:node:<name>` of the group `system:nodes`.
    pub client: kube::Client,
    /// The port of the node API; `None` when nothing is served.
    pub node_port: Option<u16>,
}

// === impl ApiAccess ===

impl std::fmt::Debug for ApiAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiAccess").field("node_port", &self.node_port).finish_non_exhaustive()
    }
}

/// Asks as the kubelet, which is also the name under which the API remembers who wrote a field.
pub(crate) fn calls(client: kube::Client) -> Calls {
    let version = env!("CARGO_PKG_VERSION");
    Calls::new(client, &format!("kubelet/{KUBERNETES} (linux) mainstay/{version}"))
}

/// Where a pod is.
pub(crate) fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

#[cfg(test)]
pub(crate) mod fake;
