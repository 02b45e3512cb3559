//! What requests and limits mean to the kernel.
//!
//! Source: `pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go`
//! and `pkg/kubelet/qos/policy.go`.

use k8s_openapi::api::core::v1::Container;
use mainstay_pod::{Amounts, Pod, QosClass, Role};

/// Microseconds of a scheduling period.
pub const PERIOD: u64 = 100_000;

/// What a container or a pod may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// 2 to 262144; 1024 stands for one CPU.
    pub cpu_shares: u64,
    /// Microseconds in each [`PERIOD`]; `None` is no limit.
    pub cpu_quota: Option<u64>,
    /// Bytes; `None` is no limit.
    pub memory: Option<u64>,
}

impl Limits {
    /// Of one container of a pod, after defaulting has copied limits to requests. One that has no limit
    /// has that of all containers together, if the pod has one. Source: `getCPULimit`,
    /// `getMemoryLimit`.
    pub fn of_container(pod: &Pod, container: &Container) -> Self {
        let (request, own) = (Amounts::requested_by(container), Amounts::limit_of(container));
        let shared = pod.spec().resources.as_ref().map(Amounts::limit_in).unwrap_or_default();
        let some = |own: Option<u64>, shared| own.filter(|it| *it != 0).or(shared);
        let limit = Amounts {
            cpu_milli: some(own.cpu_milli, shared.cpu_milli),
            memory_bytes: some(own.memory_bytes, shared.memory_bytes),
            ..own
        };
        Self::of(request, limit)
    }

    /// Of a whole pod. Where one container has no limit, the pod has none.
    pub fn of_pod(pod: &Pod) -> Self {
        let request = Amounts::requested_by_pod(pod.spec());
        Self::of(request, Amounts::limit_of_pod(pod.spec()))
    }

    fn of(request: Amounts, limit: Amounts) -> Self {
        let cpu_limit = limit.cpu_milli.filter(|milli| *milli != 0);
        Self {
            cpu_shares: shares(request.cpu_milli.or(limit.cpu_milli).unwrap_or(0)),
            cpu_quota: cpu_limit.map(quota),
            memory: limit.memory_bytes.filter(|bytes| *bytes != 0),
        }
    }
}

/// Source: `MilliCPUToShares`.
fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// Source: `MilliCPUToQuota`; the kernel takes no less than a millisecond.
fn quota(milli: u64) -> u64 {
    (milli.saturating_mul(PERIOD) / 1000).max(1000)
}

/// How soon the kernel kills a container's processes when memory is short, -1000 to 1000.
///
/// Source: `GetContainerOOMScoreAdjust`: the fewer of the machine's bytes a burstable container
/// asked for, the sooner; a sidecar not sooner than those that it is there for.
pub fn oom_score_adj(pod: &Pod, container: &Container, machine_memory: u64) -> i32 {
    const GUARANTEED: i32 = -997;
    const BEST_EFFORT: i32 = 1000;
    if pod.spec().priority_class_name.as_deref() == Some("system-node-critical") {
        return GUARANTEED;
    }
    match pod.qos_class() {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let request = |it: &Container| Amounts::requested_by(it).memory_bytes.unwrap_or(0);
            let least = match pod.container(&container.name) {
                Some((Role::Sidecar, _)) => pod.spec().containers.iter().map(request).min(),
                _ => None,
            };
            let request = request(container).max(least.unwrap_or(0));
            let request = request.saturating_add(share_of_rest(pod));
            let used = u128::from(request) * 1000 / u128::from(machine_memory.max(1));
            let score = 1000 - i32::try_from(used).unwrap_or(1000).min(1000);
            // Between those of the other classes, whose edges are theirs alone.
            score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// What of the memory that a pod requests as a whole its containers do not, in equal shares for each of
/// them. Source: `pkg/kubelet/qos/helpers.go`, `remainingPodMemReqPerContainer`.
fn share_of_rest(pod: &Pod) -> u64 {
    let spec = pod.spec();
    let own = spec.resources.as_ref().map(Amounts::request_in).unwrap_or_default();
    let Some(own) = own.memory_bytes else { return 0 };
    let containers = pod.containers().count();
    let rest = own.saturating_sub(Amounts::requested_by_containers(spec).memory_bytes.unwrap_or(0));
    u64::try_from(containers).ok().and_then(|count| rest.checked_div(count)).unwrap_or(0)
}

/// The control group of a version of a pod, right below the instance's own.
///
/// A kubelet has a group for each class between them (`pkg/kubelet/cm/qos_container_manager_linux.go`),
/// and keeps the sum of its pods' requests as its weight. Without such a group the kernel weighs each pod
/// by its own request, which comes to the same shares; with one that had no weight of its own, all
/// best-effort pods together would weigh as much as a whole CPU of requests. Groups for classes are worth
/// their upkeep when the classes have limits of their own.
pub fn cgroup(root: &str, uid: &str) -> String {
    format!("{}/pod{uid}", root.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &str) -> std::sync::Arc<Pod> {
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  \
             - {{name: a, image: i, resources: {resources}}}\n"
        ))
    }

    #[test]
    fn requests_and_limits_become_the_kernels_numbers() {
        let check = |resources, shares, quota, memory| {
            let pod = pod(resources);
            let limits = Limits::of_container(&pod, &pod.spec().containers[0]);
            let expected = Limits { cpu_shares: shares, cpu_quota: quota, memory };
            assert_eq!(limits, expected, "{resources}");
            assert_eq!(Limits::of_pod(&pod), expected, "{resources}");
        };
        check("{}", 2, None, None);
        check("{requests: {cpu: 1500m, memory: 1Mi}}", 1536, None, None);
        // A limit is a request where there is none.
        check("{limits: {cpu: 250m, memory: 64Mi}}", 256, Some(25_000), Some(64 << 20));
        check("{limits: {cpu: 1m}}", 2, Some(1000), None);
        check("{requests: {cpu: '1'}, limits: {cpu: '2'}}", 1024, Some(200_000), None);
        check("{limits: {cpu: '1000'}}", 262_144, Some(100_000_000), None);
    }

    #[test]
    fn what_a_pod_has_as_a_whole_is_for_those_of_its_containers_that_say_nothing() {
        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  overhead: {memory: 8Mi}\n  \
             resources: {requests: {memory: 512Mi}, limits: {cpu: '1', memory: 1Gi}}\n  containers:\n  \
             - {name: a, image: i}\n  \
             - {name: b, image: i, resources: {requests: {cpu: 100m, memory: 256Mi}, \
             limits: {cpu: 500m, memory: 256Mi}}}\n",
        );
        let [a, b] = [0, 1].map(|at| Limits::of_container(&pod, &pod.spec().containers[at]));
        let own = Limits { cpu_shares: 102, cpu_quota: Some(50_000), memory: Some(256 << 20) };
        assert_eq!(b, own);
        let all = Limits { cpu_shares: 1024, cpu_quota: Some(100_000), memory: Some(1 << 30) };
        assert_eq!(a, all);
        let of_pod = Limits { cpu_shares: 102, memory: Some((1 << 30) + (8 << 20)), ..all };
        assert_eq!(Limits::of_pod(&pod), of_pod);
        // Of 256 MiB that nobody has each is given a half.
        let score = |at: usize| oom_score_adj(&pod, &pod.spec().containers[at], 1 << 30);
        assert_eq!([score(0), score(1)], [875, 625]);
    }

    #[test]
    fn the_class_decides_how_soon_a_container_is_killed() {
        let check = |resources, score| {
            let pod = pod(resources);
            let container = &pod.spec().containers[0];
            assert_eq!(oom_score_adj(&pod, container, 1 << 30), score, "{resources}");
        };
        check("{}", 1000);
        check("{limits: {cpu: '1', memory: 256Mi}}", -997);
        check("{requests: {memory: 256Mi}}", 750);
        check("{requests: {cpu: '1'}}", 999);
        check("{requests: {memory: 2Gi}}", 3);
    }

    #[test]
    fn a_sidecar_is_not_killed_before_those_that_it_is_there_for() {
        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  initContainers:\n  \
             - {name: i, image: i}\n  - {name: s, image: i, restartPolicy: Always}\n  containers:\n  \
             - {name: a, image: i, resources: {requests: {memory: 256Mi}}}\n  \
             - {name: b, image: i, resources: {requests: {memory: 512Mi}}}\n",
        );
        let scores = pod.containers().map(|(_, it)| (&*it.name, oom_score_adj(&pod, it, 1 << 30)));
        let scores: Vec<_> = scores.collect();
        assert_eq!(scores, [("i", 999), ("s", 750), ("a", 750), ("b", 500)]);
    }

    /// A group between them would have to be given a weight, or its pods would outweigh others.
    #[test]
    fn pods_of_all_classes_are_side_by_side() {
        assert_eq!(cgroup("/mainstay", "u1"), "/mainstay/podu1");
        assert_eq!(cgroup("/a/b/", "u1"), "/a/b/podu1");
    }
}
