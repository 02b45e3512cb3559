use super::*;

const QUOTAS: CpuQuotas = CpuQuotas { enforced: true, period: 100_000 };

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
        let limits = Limits::of_container(&pod, &pod.spec().containers[0], QUOTAS);
        let expected = Limits { cpu_shares: shares, cpu_quota: quota, memory };
        assert_eq!(limits, expected, "{resources}");
        assert_eq!(Limits::of_pod(&pod, QUOTAS), expected, "{resources}");
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
    let [a, b] = [0, 1].map(|at| Limits::of_container(&pod, &pod.spec().containers[at], QUOTAS));
    let own = Limits { cpu_shares: 102, cpu_quota: Some(50_000), memory: Some(256 << 20) };
    assert_eq!(b, own);
    let all = Limits { cpu_shares: 1024, cpu_quota: Some(100_000), memory: Some(1 << 30) };
    assert_eq!(a, all);
    let of_pod = Limits { cpu_shares: 102, memory: Some((1 << 30) + (8 << 20)), ..all };
    assert_eq!(Limits::of_pod(&pod, QUOTAS), of_pod);
    // Of 256 MiB that nobody has each is given a half.
    let score = |at: usize| oom_score_adj(&pod, &pod.spec().containers[at], 1 << 30);
    assert_eq!([score(0), score(1)], [875, 625]);
}

#[test]
fn limits_of_processor_time_are_kept_as_the_machines_owner_says() {
    let pod = pod("{limits: {cpu: 250m, memory: 64Mi}}");
    for (enforced, period, quota) in [
        (true, 5000, Some(1250)),
        // The kernel takes no less.
        (true, 1000, Some(1000)),
        (true, 1_000_000, Some(250_000)),
        (false, 100_000, None),
    ] {
        let limits = Limits::of_pod(&pod, CpuQuotas { enforced, period });
        let expected = Limits { cpu_shares: 256, cpu_quota: quota, memory: Some(64 << 20) };
        assert_eq!(limits, expected, "{enforced} {period}");
    }
}

#[test]
fn swap_is_for_those_that_may_use_more_memory_than_they_ask_for() {
    let check = |resources: &str, bytes| {
        let pod = pod(resources);
        let swap = limited_swap(&pod, &pod.spec().containers[0], 4 << 30, 1 << 30);
        assert_eq!(swap, bytes, "{resources}");
    };
    check("{}", 0);
    check("{limits: {cpu: '1', memory: 256Mi}}", 0);
    check("{requests: {cpu: '1'}}", 0);
    check("{requests: {cpu: '1'}, limits: {memory: 256Mi}}", 0);
    check("{requests: {memory: 256Mi}}", 64 << 20);
    check("{requests: {memory: 256Mi}, limits: {memory: 1Gi}}", 64 << 20);
    check("{requests: {memory: 4Gi}}", 1 << 30);
    check("{requests: {memory: 8Gi}}", 0);
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

#[test]
fn huge_pages_are_limited_to_what_was_asked_for() {
    let pod = mainstay_testkit::pods::pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  \
         resources: {limits: {cpu: '1', hugepages-2Mi: 8Mi}}\n  containers:\n  \
         - {name: a, image: i}\n  \
         - {name: b, image: i, resources: {limits: {cpu: 100m, hugepages-2Mi: 4Mi}}}\n",
    );
    let sizes = [64 << 10, 2 << 20, 1 << 30];
    let texts = |limits: Vec<HugepageLimit>| {
        let texts: Vec<_> =
            limits.iter().map(|it| format!("{} {}", it.page_size, it.limit)).collect();
        texts.join(", ")
    };
    let of = |at: usize| texts(huge_pages_of_container(&pod, &pod.spec().containers[at], &sizes));
    assert_eq!(of(0), "64KB 0, 2MB 8388608, 1GB 0");
    assert_eq!(of(1), "64KB 0, 2MB 4194304, 1GB 0");
    assert_eq!(texts(huge_pages_of_pod(&pod, &sizes)), "64KB 0, 2MB 8388608, 1GB 0");
}
