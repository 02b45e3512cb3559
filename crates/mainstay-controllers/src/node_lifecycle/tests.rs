use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// Moments that are known by their seconds.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now() + Duration::from_secs(10_000))
    }

    fn now(&self, second: i64) -> Now {
        let ahead = Duration::from_secs(second.unsigned_abs());
        let instant = if second < 0 { self.0 - ahead } else { self.0 + ahead };
        Now { time: at(second), instant }
    }
}

fn condition(kind: &str, status: &str, beat: i64) -> NodeCondition {
    NodeCondition {
        type_: kind.into(),
        status: status.into(),
        last_heartbeat_time: Some(Time(at(beat))),
        ..NodeCondition::default()
    }
}

/// A node that was made at second 0.
fn node(conditions: &[(&str, &str, i64)]) -> Node {
    let conditions = conditions.iter().map(|(kind, status, beat)| condition(kind, status, *beat));
    Node {
        metadata: ObjectMeta {
            name: Some("n".into()),
            creation_timestamp: Some(Time(at(0))),
            ..ObjectMeta::default()
        },
        status: Some(NodeStatus {
            conditions: Some(conditions.collect()),
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

fn lease(second: i64) -> Lease {
    let renew_time = Some(MicroTime(at(second)));
    let spec = Some(LeaseSpec { renew_time, ..LeaseSpec::default() });
    Lease { spec, ..Lease::default() }
}

#[test]
fn whatever_changes_shows_that_a_node_is_there() {
    let clock = Clock::new();
    let beat = |beat| node(&[("Ready", "True", beat)]);
    let begin = Health::observe(None, &beat(5), Some(&lease(5)), clock.now(10));
    assert_eq!(begin.heard, clock.now(10).instant);
    for (node, lease, heard) in [
        (beat(5), Some(lease(5)), 10),
        (beat(5), None, 10),
        (beat(6), Some(lease(5)), 30),
        // By its own clock, which may be set back.
        (beat(4), Some(lease(5)), 30),
        (beat(5), Some(lease(6)), 30),
        (beat(5), Some(lease(4)), 10),
        (beat(5), Some(Lease::default()), 10),
        (node(&[]), Some(lease(5)), 30),
    ] {
        let health = Health::observe(Some(&begin), &node, lease.as_ref(), clock.now(30));
        assert_eq!(health.heard, clock.now(heard).instant, "{node:?} {lease:?}");
    }
    // What never wrote its status is as old as it is.
    let silent = Health::observe(None, &node(&[]), None, clock.now(40));
    assert_eq!(silent.heard, clock.now(0).instant);
    let leased = Health::observe(None, &node(&[]), Some(&lease(1)), clock.now(40));
    assert_eq!(leased.heard, clock.now(40).instant);
}

#[test]
fn of_a_node_that_is_silent_for_too_long_nothing_is_known() {
    let (clock, times) = (Clock::new(), NodeTimes::default());
    let all = |status: &str| {
        let kinds = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
        node(&kinds.map(|kind| (kind, status, 5)))
    };
    let lost = |node: &Node, since: i64, now: i64| {
        let health = Health::observe(None, node, None, clock.now(since));
        let lost = health.lost(node, &times, clock.now(now));
        let text = lost.iter().map(|it| {
            assert_eq!(
                (it.status.as_str(), &it.last_transition_time),
                ("Unknown", &Some(Time(at(now))))
            );
            let beat = it.last_heartbeat_time.as_ref().unwrap().0.duration_since(at(0)).as_secs();
            let reason = it.reason.as_deref().unwrap();
            format!("{}:{reason}@{beat}", it.type_)
        });
        text.collect::<Vec<_>>().join(" ")
    };
    let stopped = "Ready:NodeStatusUnknown@5 MemoryPressure:NodeStatusUnknown@5 \
                   DiskPressure:NodeStatusUnknown@5 PIDPressure:NodeStatusUnknown@5";
    assert_eq!(lost(&all("True"), 100, 150), "");
    assert_eq!(lost(&all("True"), 100, 151), stopped);
    assert_eq!(lost(&all("False"), 100, 151), stopped);
    assert_eq!(lost(&all("Unknown"), 100, 151), "");
    let some = node(&[
        ("Ready", "True", 5),
        ("NetworkUnavailable", "False", 5),
        ("DiskPressure", "Unknown", 5),
    ]);
    assert_eq!(
        lost(&some, 100, 151),
        "Ready:NodeStatusUnknown@5 MemoryPressure:NodeStatusNeverUpdated@0 PIDPressure:NodeStatusNeverUpdated@0"
    );
    let never = node(&[]);
    assert_eq!(lost(&never, 0, 60), "");
    assert!(lost(&never, 0, 61).starts_with("Ready:NodeStatusNeverUpdated@0 "));
    let health = Health::observe(None, &all("True"), None, clock.now(100));
    let lost = health.lost(&all("True"), &times, clock.now(151));
    assert_eq!(lost[0].message.as_deref(), Some("Kubelet stopped posting node status."));
    let health = Health::observe(None, &never, None, clock.now(0));
    let lost = health.lost(&never, &times, clock.now(61));
    assert_eq!(lost[0].message.as_deref(), Some("Kubelet never posted node status."));
}

fn tainted(mut node: Node, taints: &[(&str, &str)]) -> Node {
    let taints = taints.iter().map(|(key, effect)| Taint {
        key: (*key).into(),
        effect: (*effect).into(),
        ..Taint::default()
    });
    node.spec = Some(NodeSpec { taints: Some(taints.collect()), ..NodeSpec::default() });
    node
}

/// Taints as `key:effect`, with `!` if they are new; without the prefix of their keys.
fn shown(taints: Option<Vec<Taint>>) -> Option<String> {
    let text = |taint: Taint| {
        let key = taint.key.trim_start_matches("node.kubernetes.io/");
        let new = if taint.time_added.is_some() { "!" } else { "" };
        format!("{new}{key}:{}", taint.effect)
    };
    taints.map(|taints| taints.into_iter().map(text).collect::<Vec<_>>().join(" "))
}

#[test]
fn conditions_keep_pods_from_being_scheduled() {
    let unreachable = ("node.kubernetes.io/unreachable", "NoSchedule");
    for (conditions, taints, expected) in [
        (&[][..], &[][..], None),
        (&[("Ready", "True", 0)], &[], None),
        (&[("Ready", "False", 0)], &[], Some("!not-ready:NoSchedule")),
        (&[("Ready", "Unknown", 0)], &[], Some("!unreachable:NoSchedule")),
        (&[("Ready", "Unknown", 0)], &[unreachable], None),
        (&[("Ready", "False", 0)], &[unreachable], Some("!not-ready:NoSchedule")),
        (&[("Ready", "True", 0)], &[unreachable], Some("")),
        (&[], &[unreachable], Some("")),
        (
            &[("MemoryPressure", "True", 0)],
            &[("own", "NoSchedule")],
            Some("own:NoSchedule !memory-pressure:NoSchedule"),
        ),
        (&[("DiskPressure", "True", 0)], &[], Some("!disk-pressure:NoSchedule")),
        (&[("PIDPressure", "True", 0)], &[], Some("!pid-pressure:NoSchedule")),
        (&[("PIDPressure", "Unknown", 0)], &[], None),
        (&[("NetworkUnavailable", "True", 0)], &[], Some("!network-unavailable:NoSchedule")),
        // Another effect is another taint.
        (
            &[("Ready", "False", 0)],
            &[("node.kubernetes.io/not-ready", "NoExecute")],
            Some("not-ready:NoExecute !not-ready:NoSchedule"),
        ),
    ] {
        let node = tainted(node(conditions), taints);
        let found = shown(taints::no_schedule(&node, at(1)));
        assert_eq!(found.as_deref(), expected, "{conditions:?} {taints:?}");
    }
    let mut cordoned = tainted(node(&[("Ready", "True", 0)]), &[]);
    cordoned.spec.as_mut().unwrap().unschedulable = Some(true);
    let found = shown(taints::no_schedule(&cordoned, at(1)));
    assert_eq!(found.as_deref(), Some("!unschedulable:NoSchedule"));
    let uncordoned = tainted(cordoned, &[("node.kubernetes.io/unschedulable", "NoSchedule")]);
    assert_eq!(shown(taints::no_schedule(&uncordoned, at(1))).as_deref(), Some(""));
}

#[test]
fn a_node_that_is_not_ready_keeps_no_pods() {
    let not_ready = ("node.kubernetes.io/not-ready", "NoExecute");
    let unreachable = ("node.kubernetes.io/unreachable", "NoExecute");
    for (ready, taints, expected) in [
        (Ready::True, &[][..], None),
        (Ready::True, &[not_ready, ("own", "NoExecute"), unreachable], Some("own:NoExecute")),
        (Ready::False, &[], Some("!not-ready:NoExecute")),
        (Ready::False, &[not_ready], None),
        (Ready::False, &[unreachable], Some("!not-ready:NoExecute")),
        (
            Ready::Unknown,
            &[not_ready, ("own", "NoSchedule")],
            Some("own:NoSchedule !unreachable:NoExecute"),
        ),
    ] {
        let node = tainted(node(&[]), taints);
        let found = shown(taints::no_execute(&node, taints::unwanted(ready), at(1)));
        assert_eq!(found.as_deref(), expected, "{ready:?} {taints:?}");
    }
}

#[test]
fn older_labels_say_the_same() {
    for (labels, expected) in [
        (&[][..], &[][..]),
        (&[("kubernetes.io/os", "linux")], &[("beta.kubernetes.io/os", "linux")]),
        (
            &[("kubernetes.io/arch", "a"), ("beta.kubernetes.io/arch", "b")],
            &[("beta.kubernetes.io/arch", "a")],
        ),
        (&[("kubernetes.io/arch", "a"), ("beta.kubernetes.io/arch", "a")], &[]),
        (&[("beta.kubernetes.io/arch", "a")], &[]),
    ] {
        let mut node = node(&[]);
        let owned = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        node.metadata.labels = Some(owned.collect());
        let expected: BTreeMap<&str, &str> = expected.iter().copied().collect();
        assert_eq!(taints::labels(&node), expected, "{labels:?}");
    }
}

/// Zones with so many nodes that are ready and that are away.
fn counts(zones: &[(&str, usize, usize)]) -> BTreeMap<String, Count> {
    let count = |(zone, ready, away): &(&str, usize, usize)| {
        ((*zone).to_owned(), Count { ready: *ready, away: *away })
    };
    zones.iter().map(count).collect()
}

#[test]
fn the_more_is_away_the_slower_it_goes() {
    let clock = Clock::new();
    let now = |second| clock.now(second).instant;
    for (ready, away, interval) in [
        (9, 1, Some(10)),
        (0, 0, Some(10)),
        (1, 2, Some(10)),
        (2, 3, None),
        (3, 3, Some(10)),
        (0, 3, Some(10)),
        (20, 30, None),
        (20, 31, Some(100)),
    ] {
        let mut zones = Zones::default();
        // A zone where all is well lets no one think that it is us.
        let turn = zones.turn(&counts(&[("a", ready, away), ("b", 1, 0)]), now(0));
        assert_eq!(turn, None);
        for node in ["x", "y", "z", "x"] {
            zones.wait("a", node, now(0));
        }
        let times: Vec<i64> =
            (0..1000).filter(|second| zones.next(now(*second)).is_some()).collect();
        let expected = interval.map(|interval| vec![0, interval, 2 * interval]);
        assert_eq!(times, expected.unwrap_or_default(), "{ready} {away}");
        assert_eq!(zones.due(), None);
    }
}

#[test]
fn when_all_is_away_nothing_goes() {
    let clock = Clock::new();
    let now = |second| clock.now(second).instant;
    let mut zones = Zones::default();
    assert_eq!(zones.turn(&counts(&[]), now(0)), None);
    let away = counts(&[("a", 0, 2), ("b", 0, 1)]);
    assert_eq!(zones.turn(&away, now(0)), Some(Turn::AllAway));
    assert_eq!(zones.turn(&away, now(5)), None);
    zones.wait("a", "x", now(5));
    assert_eq!((zones.due(), zones.next(now(900))), (None, None));
    let back = counts(&[("a", 1, 1), ("b", 0, 1)]);
    assert_eq!(zones.turn(&back, now(900)), Some(Turn::SomeBack));
    assert_eq!(zones.turn(&back, now(905)), None);
    assert_eq!((zones.due(), zones.next(now(909))), (Some(now(910)), None));
    assert_eq!(zones.next(now(910)).as_deref(), Some("x"));
    zones.wait("b", "y", now(911));
    zones.forget("y");
    assert_eq!(zones.due(), None);
    // A zone that is gone is not one that is away.
    assert_eq!(zones.turn(&counts(&[("c", 0, 1)]), now(920)), Some(Turn::AllAway));
    assert_eq!(zones.turn(&counts(&[]), now(930)), None);
}

#[test]
fn nodes_are_in_zones() {
    for (labels, expected) in [
        (&[][..], ""),
        (&["topology.kubernetes.io/zone"], ":\0:topology.kubernetes.io/zone"),
        (&["topology.kubernetes.io/region"], "topology.kubernetes.io/region:\0:"),
        (
            &["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"],
            ":\0:failure-domain.beta.kubernetes.io/zone",
        ),
    ] {
        let mut node = node(&[]);
        let labels = labels.iter().map(|key| ((*key).to_owned(), (*key).to_owned()));
        node.metadata.labels = Some(labels.collect());
        assert_eq!(zones::key(&node), expected);
        assert!(zones::counts(&node));
        let excluded = ("node.kubernetes.io/exclude-disruption".to_owned(), String::new());
        node.metadata.labels.as_mut().unwrap().extend([excluded]);
        assert!(!zones::counts(&node));
    }
}

#[test]
fn only_what_says_that_it_is_ready_is_marked() {
    for (conditions, expected) in [
        (&[][..], false),
        (&[("Ready", "True")], true),
        (&[("Ready", "Unknown")], true),
        (&[("Ready", "False")], false),
        (&[("ContainersReady", "True")], false),
    ] {
        let conditions = conditions.iter().map(|(kind, status)| PodCondition {
            type_: (*kind).into(),
            status: (*status).into(),
            ..PodCondition::default()
        });
        let conditions = Some(conditions.collect());
        let mut pod = Pod::default();
        pod.status = Some(PodStatus { conditions, ..PodStatus::default() });
        assert_eq!(has_other_than_not_ready(&pod), expected);
    }
}
