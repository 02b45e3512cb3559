//! Labels that Kubernetes keeps for itself, and those of them that a node may give itself.
//!
//! Source: `staging/src/k8s.io/kubelet/pkg/apis/well_known_labels.go`, and `isKubernetesLabel` in
//! `cmd/kubelet/app/options/options.go`.

/// Labels in the namespaces of Kubernetes that a node may give itself one by one. Source: `kubeletLabels`.
pub const KUBELET_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Namespaces of which it may give itself any. Source: `kubeletLabelNamespaces`.
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether a label is in a namespace of Kubernetes' own. Source: `isKubernetesLabel`.
pub fn is_of_kubernetes(key: &str) -> bool {
    ["kubernetes.io", "k8s.io"].iter().any(|domain| is_in(key, domain))
}

/// Whether a label is one that a node may give itself. Source: `IsKubeletLabel`.
pub fn is_of_kubelet(key: &str) -> bool {
    KUBELET_LABELS.contains(&key) || KUBELET_NAMESPACES.iter().any(|domain| is_in(key, domain))
}

/// Whether the namespace of a label is a domain or lies in it.
fn is_in(key: &str, domain: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    namespace.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}
