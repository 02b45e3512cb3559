//! Memory that is kept for those who asked for it, and the point from which on a container is slowed down before
//! it is killed. Of version 2 of control groups only, as the feature gate `MemoryQoS` of a kubelet.
//!
//! Source: `generateLinuxContainerResources` in `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go`,
//! `ResourceConfigForPod` in `pkg/kubelet/cm/helpers_linux.go`, KEP-2570.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use mainstay_pod::{Amounts, Pod, QosClass};

/// Never taken, even if others are killed for it.
pub const MIN: &str = "memory.min";
/// Taken last.
pub const LOW: &str = "memory.low";
const HIGH: &str = "memory.high";

/// How it is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryQos {
    /// Which part of the way from its request to its limit a container goes unhindered, more than 0 and at
    /// most 1. Source: `memoryThrottlingFactor`.
    pub throttling_factor: f64,
    /// Whether what is requested is kept: `memoryReservationPolicy: TieredReservation`.
    pub tiered: bool,
    /// Bytes of a page of the machine.
    pub page_size: u64,
}

impl MemoryQos {
    /// The files of a container's group, and what to write there, on a node where pods can have so many bytes.
    pub fn of_container(
        &self,
        pod: &Pod,
        container: &Container,
        allocatable: Option<u64>,
    ) -> BTreeMap<String, String> {
        let request = Amounts::requested_by(container).memory_bytes.unwrap_or(0);
        let limit = Amounts::limit_of(container).memory_bytes.unwrap_or(0);
        let mut files = match self.kept(pod, request) {
            Some(kept) => BTreeMap::from([kept]),
            None => [MIN, LOW].map(|file| (file.to_owned(), "0".to_owned())).into(),
        };
        let most =
            Some(limit).filter(|limit| *limit != 0).or(allocatable).filter(|most| *most != 0);
        if let Some(most) = most.filter(|_| request != limit) {
            let high = self.high(request, most);
            if high > request {
                files.insert(HIGH.to_owned(), high.to_string());
            }
        }
        files
    }

    /// The file of a pod's group and what to write there, if there is something to keep.
    pub fn of_pod(&self, pod: &Pod) -> Option<(String, String)> {
        self.kept(pod, Amounts::requested_by_pod(pod.spec()).memory_bytes.unwrap_or(0))
    }

    fn kept(&self, pod: &Pod, request: u64) -> Option<(String, String)> {
        let file = match pod.qos_class() {
            QosClass::Guaranteed => MIN,
            QosClass::Burstable | QosClass::BestEffort => LOW,
        };
        (self.tiered && request != 0).then(|| (file.to_owned(), request.to_string()))
    }

    /// In whole pages, rounded down.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as a kubelet counts; it saturates here, and is bytes of a machine's memory"
    )]
    fn high(&self, request: u64, most: u64) -> u64 {
        let (request, most) = (request as f64, most as f64);
        let high = (request + (most - request) * self.throttling_factor).floor().max(0.0);
        let pages = (high / self.page_size.max(1) as f64) as u64;
        pages.saturating_mul(self.page_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(resources: &str, tiered: bool) -> (String, Option<(String, String)>) {
        let pod = mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  \
             - {{name: a, image: i, resources: {resources}}}\n"
        ));
        let qos = MemoryQos { throttling_factor: 0.9, tiered, page_size: 4096 };
        let files = qos.of_container(&pod, &pod.spec().containers[0], Some(1 << 30));
        let files: Vec<_> = files.iter().map(|(file, value)| format!("{file} {value}")).collect();
        (files.join(", "), qos.of_pod(&pod))
    }

    #[test]
    fn numbers_are_a_kubelets() {
        let both = "{limits: {cpu: 1, memory: 64Mi}}";
        let some = "{requests: {memory: 32Mi}, limits: {memory: 64Mi}}";
        let open = "{requests: {memory: 32Mi}}";
        let kept = |file: &str, bytes: u64| Some((file.to_owned(), bytes.to_string()));
        for (resources, tiered, expected, of_pod) in [
            ("{}", true, "memory.low 0, memory.min 0", None),
            (both, false, "memory.low 0, memory.min 0", None),
            (both, true, "memory.min 67108864", kept(MIN, 64 << 20)),
            // 32 MiB and nine tenths of 32 MiB, in whole pages.
            (some, false, "memory.high 63750144, memory.low 0, memory.min 0", None),
            (some, true, "memory.high 63750144, memory.low 33554432", kept(LOW, 32 << 20)),
            (open, true, "memory.high 969719808, memory.low 33554432", kept(LOW, 32 << 20)),
        ] {
            assert_eq!(files(resources, tiered), (expected.to_owned(), of_pod), "{resources}");
        }
    }
}
