//! The lease by which a node shows that it is there.
//!
//! Source: `staging/src/k8s.io/component-helpers/apimachinery/lease/controller.go`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};

/// Where the leases of nodes are.
pub const NAMESPACE: &str = "kube-node-lease";

/// How long a lease holds by default. Source: `nodeLeaseDurationSeconds` of the kubelet's configuration.
pub const DURATION: Duration = Duration::from_secs(40);

/// The lease, renewed now for so long: the one that is held with its resource version, or a new one.
pub fn lease(
    held: Option<&Lease>,
    node_name: &str,
    node_uid: &str,
    duration: Duration,
    now: Timestamp,
) -> Lease {
    let mut lease = held.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(node_name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    lease.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node_uid.to_owned(),
        ..OwnerReference::default()
    }]);
    let spec = lease.spec.take().unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(node_name.to_owned()),
        lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
        renew_time: Some(MicroTime(now)),
        ..spec
    });
    lease
}
