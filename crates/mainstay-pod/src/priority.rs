//! How important a pod is beside others.
//!
//! Source: `pkg/apis/scheduling/types.go`, and `IsCriticalPodBasedOnPriority` in
//! `pkg/kubelet/types/pod_update.go`. A kubelet goes by the number alone, which in a static pod nobody fills
//! in; here the classes that every cluster has are known by their names too.

use k8s_openapi::api::core::v1::PodSpec;

/// From this priority on the node itself needs a pod. Source: `SystemCriticalPriority`.
pub const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// The classes that every cluster has. Source: `SystemPriorityClasses`.
const SYSTEM_CLASSES: [(&str, i32); 2] = [
    ("system-node-critical", SYSTEM_CRITICAL + 1000),
    ("system-cluster-critical", SYSTEM_CRITICAL),
];

/// The number that a pod is written with, or that follows from its class; 0 without either, and of a class
/// that only an API could know.
pub fn of(spec: &PodSpec) -> i32 {
    spec.priority.or_else(|| of_class(spec.priority_class_name.as_deref()?)).unwrap_or(0)
}

/// The number of a class that every cluster has.
pub fn of_class(name: &str) -> Option<i32> {
    SYSTEM_CLASSES.into_iter().find_map(|(known, value)| (known == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_counts_and_then_the_class() {
        for (priority, class, expected) in [
            (None, None, 0),
            (Some(7), None, 7),
            (None, Some("system-node-critical"), 2_000_001_000),
            (None, Some("system-cluster-critical"), 2_000_000_000),
            (Some(-3), Some("system-node-critical"), -3),
            (None, Some("ours"), 0),
        ] {
            let priority_class_name = class.map(str::to_owned);
            let spec = PodSpec { priority, priority_class_name, ..PodSpec::default() };
            assert_eq!(of(&spec), expected, "{priority:?} {class:?}");
        }
    }
}
