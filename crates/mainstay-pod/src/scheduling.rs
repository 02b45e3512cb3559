//! What decides where a pod may run: the parts of that which a node's admission and the scheduler share.
//!
//! Source: `staging/src/k8s.io/component-helpers/scheduling/corev1`.

pub mod host_ports;
pub mod node_affinity;
pub mod selector;
pub mod taints;
