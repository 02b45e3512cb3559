use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_pod::{Pod, Quantity};
use mainstay_testkit::pods::pod;

use super::*;

const GI: u64 = 1 << 30;
const MI: u64 = 1 << 20;

fn level(available: u64, capacity: u64) -> Option<Level> {
    Some(Level { available, capacity })
}

fn with_memory(available: u64) -> Levels {
    Levels { memory: level(available, GI), ..Levels::default() }
}

fn crossed(thresholds: &Thresholds, levels: &Levels) -> Vec<&'static str> {
    let judgement = Course::default().judge(thresholds, levels, Duration::ZERO);
    judgement.due.iter().map(|it| it.signal.as_str()).collect()
}

#[test]
fn a_level_below_its_threshold_is_short() {
    let thresholds = Thresholds::default();
    let fine = Levels {
        memory: level(100 * MI, GI),
        allocatable_memory: level(0, GI),
        disk: level(150, 1000),
        inodes: level(50, 1000),
        processes: level(0, 1000),
    };
    let none =
        Levels { memory: level(0, GI), disk: level(0, 1000), inodes: level(0, 1000), ..fine };
    for (levels, expected) in [
        (fine, &[][..]),
        (Levels::default(), &[]),
        (Levels { memory: level(100 * MI - 1, GI), ..fine }, &["memory.available"]),
        (Levels { disk: level(149, 1000), ..fine }, &["imagefs.available"]),
        (Levels { disk: level(99, 1000), ..fine }, &["nodefs.available", "imagefs.available"]),
        (Levels { inodes: level(49, 1000), ..fine }, &["nodefs.inodesFree", "imagefs.inodesFree"]),
        (
            none,
            &[
                "memory.available",
                "nodefs.available",
                "nodefs.inodesFree",
                "imagefs.available",
                "imagefs.inodesFree",
            ],
        ),
    ] {
        assert_eq!(crossed(&thresholds, &levels), expected, "{levels:?}");
    }
    assert!(crossed(&Thresholds::none(), &none).is_empty());
    // What pods may have is looked at where they are held to it, and has the threshold of the machine.
    let thresholds = thresholds.with_allocatable();
    assert_eq!(crossed(&thresholds, &fine), ["allocatableMemory.available"]);
    let enough = Levels { allocatable_memory: level(100 * MI, GI), ..fine };
    assert!(crossed(&thresholds, &enough).is_empty());
    assert!(crossed(&Thresholds::none().with_allocatable(), &fine).is_empty());
}

#[test]
fn thresholds_are_quantities_or_percentages() {
    let set = |signal: &str, text: &str| {
        let mut thresholds = Thresholds::none();
        thresholds.set_hard(signal, text).map(|()| thresholds)
    };
    let least = |signal: &str, text: &str| set(signal, text).unwrap().iter().next().copied();
    let bytes = least("memory.available", "1Gi").unwrap();
    assert_eq!(bytes.quantity(Level { available: 0, capacity: 0 }).canonical(), "1Gi");
    let share = least("pid.available", "25%").unwrap();
    assert_eq!((share.signal, share.least), (Signal::PidAvailable, Amount::Share(0.25)));
    assert!(least("memory.available", "0%").is_none());
    assert!(least("memory.available", "100%").is_none());
    for wrong in ["", "%", "-1%", "101%", "NaN%", "0", "-5Mi", "much"] {
        assert!(set("memory.available", wrong).is_err(), "{wrong}");
    }
    assert_eq!(set("disk", "1%").unwrap_err(), "\"disk\" is no eviction signal");

    let mut thresholds = Thresholds::default();
    thresholds.set_hard("memory.available", "100%").unwrap();
    thresholds.set_hard("nodefs.available", "1Gi").unwrap();
    let error = thresholds.set_soft("memory.available", "1Gi", None).unwrap_err();
    assert_eq!(error, "memory.available has no grace period; set evictionSoftGracePeriod too");
    thresholds.set_soft("memory.available", "1Gi", Some(Duration::from_secs(9))).unwrap();
    for (text, is_one) in [("1%", true), ("0", true), ("200%", true), ("0%", false), ("-1", false)]
    {
        assert_eq!(thresholds.set_reclaim("memory.available", text).is_ok(), is_one, "{text}");
    }
    let told: Vec<_> =
        thresholds.iter().map(|it| (it.signal.as_str(), it.grace.as_secs())).collect();
    let expected = [
        ("memory.available", 9),
        ("nodefs.available", 0),
        ("nodefs.inodesFree", 0),
        ("imagefs.available", 0),
        ("imagefs.inodesFree", 0),
    ];
    assert_eq!(told, expected);
}

/// Looks at these moments, in seconds, with this much memory in MiB; what is shown and what is due.
fn looks(thresholds: &Thresholds, looks: &[(u64, u64)]) -> String {
    let mut course = Course::default();
    let word = |(at, available): &(u64, u64)| {
        let levels = with_memory(available * MI);
        let judgement = course.judge(thresholds, &levels, Duration::from_secs(*at));
        let due: Vec<u64> = judgement.due.iter().map(|it| it.grace.as_secs()).collect();
        let calm = if judgement.short == Pressure::default() { " calm" } else { "" };
        let shown = if judgement.pressure.memory { "pressure" } else { "fine" };
        assert!(!judgement.pressure.disk && !judgement.pressure.processes);
        format!("{at}: {shown} {due:?}{calm}")
    };
    looks.iter().map(word).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_short_is_shown_for_a_while_and_due_after_its_grace_period() {
    let mut thresholds = Thresholds::none();
    thresholds.transition = Duration::from_secs(30);
    thresholds.set_hard("memory.available", "100Mi").unwrap();
    thresholds.set_soft("memory.available", "200Mi", Some(Duration::from_secs(15))).unwrap();
    let expected = "0: fine [] calm, 10: pressure [], 20: pressure [], 30: pressure [15], \
                    40: pressure [0, 15], 50: pressure [], 69: pressure [], 70: fine [] calm";
    let seen =
        [(0, 200), (10, 199), (20, 150), (30, 150), (40, 99), (50, 200), (69, 300), (70, 300)];
    assert_eq!(looks(&thresholds, &seen), expected);
    // What was enough in between begins anew.
    let expected = "0: pressure [], 10: pressure [], 20: pressure [], 30: pressure []";
    assert_eq!(looks(&thresholds, &[(0, 150), (10, 250), (20, 150), (30, 150)]), expected);
}

#[test]
fn what_was_due_is_so_until_more_is_there() {
    let mut thresholds = Thresholds::none();
    thresholds.transition = Duration::from_secs(10);
    thresholds.set_hard("memory.available", "100Mi").unwrap();
    thresholds.set_reclaim("memory.available", "50Mi").unwrap();
    let expected = "0: fine [] calm, 10: pressure [0], 20: pressure [0], 30: fine [] calm, \
                    40: fine [] calm";
    let seen = [(0, 120), (10, 99), (20, 149), (30, 150), (40, 120)];
    assert_eq!(looks(&thresholds, &seen), expected);
    let threshold = thresholds.iter().next().unwrap();
    assert!(threshold.is_resolved(&with_memory(150 * MI)));
    assert!(!threshold.is_resolved(&with_memory(149 * MI)));
}

fn candidate(name: &str, priority: i32, requests: &str) -> Arc<Pod> {
    pod(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  priority: {priority}\n  \
         containers:\n  - {{name: main, image: i, resources: {{requests: {requests}}}}}\n"
    ))
}

/// The pods in the order in which they are ended, when each has gone before the next.
fn order(resource: Resource, pods: &[(Arc<Pod>, Option<PodUsage>)]) -> Vec<String> {
    let mut left: Vec<_> = pods.iter().collect();
    let mut names = Vec::new();
    loop {
        let candidates: Vec<Candidate<'_>> =
            left.iter().map(|(pod, usage)| Candidate { pod, usage: usage.as_ref() }).collect();
        let Some(index) = victim(resource, 0, &candidates) else { return names };
        names.push(left.remove(index).0.name().trim_end_matches("-n1").to_owned());
    }
}

#[test]
fn who_is_over_its_requests_goes_first_and_then_who_is_less_important() {
    let memory = |memory: u64| Some(PodUsage { memory: memory * MI, ..PodUsage::default() });
    let asks = "{memory: 100Mi, ephemeral-storage: 100Mi}";
    let pods = [
        (candidate("within", -5, asks), memory(100)),
        (candidate("over-much", 5, asks), memory(300)),
        (candidate("over-little", 5, asks), memory(101)),
        (candidate("over-most-important", 7, "{}"), memory(900)),
        (candidate("unknown", 100, "{}"), None),
        (candidate("critical", 2_000_000_000, "{}"), memory(900)),
        (candidate("within-more-important", 9, asks), memory(90)),
        (candidate("unimportant", -9, "{}"), memory(1)),
    ];
    let expected = [
        // Nobody ends a static pod of which nothing is known.
        "unimportant",
        "over-much",
        "over-little",
        "over-most-important",
        "within",
        "within-more-important",
    ];
    assert_eq!(order(Resource::Memory, &pods), expected);

    let disk =
        |disk: u64, inodes| Some(PodUsage { disk: disk * MI, inodes, ..PodUsage::default() });
    let pods = [
        (candidate("files", 0, asks), disk(99, 1000)),
        (candidate("bytes", 0, asks), disk(101, 10)),
    ];
    // One that is within its request gives nothing back that is not its own.
    assert_eq!(order(Resource::EphemeralStorage, &pods), ["bytes"]);
    assert_eq!(order(Resource::Inodes, &pods), ["files", "bytes"]);

    let pids = |processes| Some(PodUsage { processes, ..PodUsage::default() });
    let pods = [
        (candidate("important", 1, "{}"), pids(900)),
        (candidate("few", 0, "{}"), pids(1)),
        (candidate("many", 0, "{}"), pids(90)),
        (candidate("unknown", 0, "{}"), None),
    ];
    assert_eq!(order(Resource::Pids, &pods), ["many", "few", "important"]);
}

#[test]
fn a_static_pod_is_not_ended_in_vain() {
    let pod = candidate("p", 0, "{ephemeral-storage: 1Mi}");
    let held = serde_json::json!({
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "a", "image": "i"}]},
    });
    let of_api = Pod::from_api(serde_json::from_value(held).unwrap()).unwrap();
    let usage =
        PodUsage { disk: 11 * MI, inodes: 5, memory: 1, processes: 1, ..PodUsage::default() };
    let is_ended = |pod: &Pod, resource, missing, usage| {
        victim(resource, missing, &[Candidate { pod, usage }]).is_some()
    };
    for (resource, missing, expected) in [
        (Resource::EphemeralStorage, 100 * MI, true),
        (Resource::EphemeralStorage, 100 * MI + 10, false),
        (Resource::Inodes, 50, true),
        (Resource::Inodes, 60, false),
        (Resource::Memory, 100 * GI, true),
        (Resource::Pids, 1000, true),
    ] {
        assert_eq!(is_ended(&pod, resource, missing, Some(&usage)), expected, "{resource:?}");
        assert!(is_ended(&of_api, resource, missing, Some(&usage)), "{resource:?}");
    }
    assert!(!is_ended(&pod, Resource::EphemeralStorage, 0, None));
    let nothing = PodUsage::default();
    for resource in [Resource::EphemeralStorage, Resource::Memory, Resource::Pids] {
        assert!(!is_ended(&pod, resource, 0, Some(&nothing)), "{resource:?}");
    }

    let mut thresholds = Thresholds::none();
    thresholds.set_hard("nodefs.available", "10%").unwrap();
    thresholds.set_reclaim("nodefs.available", "1Mi").unwrap();
    let levels = Levels { disk: level(3 * MI, 100 * MI), ..Levels::default() };
    assert_eq!(thresholds.iter().next().unwrap().missing(&levels), 8 * MI);
}

#[test]
fn the_most_important_one_returns_first() {
    let pods = [candidate("a", 1, "{}"), candidate("b", 3, "{}"), candidate("c", 2, "{}")];
    let first = returning(pods.iter().map(|pod| &**pod)).unwrap();
    assert_eq!(first.name(), pods[1].name());
    assert!(returning([]).is_none());
}

#[test]
fn a_pod_is_told_what_was_short_and_who_used_it() {
    let hard = |signal: &str, text: &str| {
        let mut thresholds = Thresholds::none();
        thresholds.set_hard(signal, text).unwrap();
        *thresholds.iter().next().unwrap()
    };
    let levels = Levels {
        memory: level(1_234_944, GI),
        allocatable_memory: None,
        disk: level(3 * MI, 100 * MI),
        inodes: level(2_000, 100_000),
        processes: level(10, 30_000),
    };
    let static_pod =
        pod("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  \
         - {name: a, image: i, resources: {requests: {memory: 1Mi, ephemeral-storage: 1Gi}}}\n  \
         - {name: b, image: i}\n  - {name: c, image: i, resources: {requests: {memory: 1Gi}}}\n");
    let one = |memory, disk| ContainerUsage { memory: Some(memory), disk: Some(disk) };
    let containers = BTreeMap::from([
        ("a".to_owned(), one(2 * MI, 5 * MI)),
        ("b".to_owned(), one(1000, 4096)),
        ("c".to_owned(), one(MI, 0)),
    ]);
    let usage = PodUsage { containers, ..PodUsage::default() };
    let returns = "It is started again when the node has enough again. ";
    for (threshold, expected) in [
        (
            hard("memory.available", "100Mi"),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1206Ki. \
             Container a was using 2Mi, request is 1Mi, has larger consumption of memory. \
             Container b was using 1k, request is 0, has larger consumption of memory. ",
        ),
        (
            hard("nodefs.available", "50%"),
            "The node was low on resource: ephemeral-storage. Threshold quantity: 50Mi, available: \
             3Mi. Container b was using 4Ki, request is 0, has larger consumption of \
             ephemeral-storage. ",
        ),
        (
            hard("imagefs.inodesFree", "5k"),
            "The node was low on resource: inodes. Threshold quantity: 5k, available: 2k. ",
        ),
        (
            hard("pid.available", "100"),
            "The node was low on resource: pids. Threshold quantity: 100, available: 10. ",
        ),
    ] {
        let told = message(&threshold, &levels, &static_pod, Some(&usage));
        assert_eq!(told, format!("{expected}{returns}"));
        let told = message(&threshold, &Levels::default(), &static_pod, None);
        let name = threshold.signal.resource().as_str();
        assert_eq!(told, format!("The node was low on resource: {name}. {returns}"));
    }
}

#[test]
fn a_pod_as_a_whole_is_told_of_beside_its_containers() {
    let whole = pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  resources: {requests: {memory: \
         1Mi}}\n  containers:\n  - {name: a, image: i}\n",
    );
    let mut thresholds = Thresholds::none();
    thresholds.set_hard("memory.available", "1Gi").unwrap();
    let usage = PodUsage { memory: 3 * MI, ..PodUsage::default() };
    let threshold = thresholds.iter().next().unwrap();
    let told = message(threshold, &Levels::default(), &whole, Some(&usage));
    let expected = "Pod p-n1 was using 3Mi, request is 1Mi, has larger consumption of memory. ";
    assert!(told.contains(expected), "{told}");
    assert_eq!(Quantity::from_bytes(3 * MI).canonical(), "3Mi");
}
