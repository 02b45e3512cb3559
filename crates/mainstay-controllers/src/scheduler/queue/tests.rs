use std::cmp::Reverse;

use serde_json::{Value, json};

use super::super::testing::{merged, node, object, pod, requesting, snapshot};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn of(name: &str, over: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(object(name, over)).unwrap())
}

fn queue(pods: &[Arc<PodInfo>]) -> SchedulingQueue {
    let mut queue = SchedulingQueue::default();
    for (pod, at) in pods.iter().zip(0..) {
        queue.set(pod, &Snapshot::default(), SECOND * at);
    }
    queue
}

fn popped(queue: &mut SchedulingQueue, now: Duration) -> Vec<String> {
    std::iter::from_fn(|| queue.pop(&BTreeSet::new(), now))
        .map(|pod| pod.key.name.clone())
        .collect()
}

fn resources() -> BTreeSet<Plugin> {
    BTreeSet::from([Plugin::NodeResourcesFit])
}

/// What happens when a pod is gone that had a node.
fn gone(queue: &mut SchedulingQueue, now: Duration) {
    let gone = pod("gone", json!({}));
    queue.happened(&Event::Gone(&gone), &Snapshot::default(), now);
}

#[test]
fn the_most_important_come_first_then_who_waits_longest() {
    let with = |name: &str, priority: i32| of(name, json!({"spec": {"priority": priority}}));
    let pods = [with("a", 0), with("b", 5), with("c", 0), with("d", -1), with("e", 5)];
    let mut queue = queue(&pods);
    assert_eq!(popped(&mut queue, SECOND), ["b", "e", "a", "c", "d"]);
    assert_eq!(queue.pop(&BTreeSet::new(), SECOND * 1000).map(|pod| pod.uid.clone()), None);
}

#[test]
fn a_gated_pod_waits_until_its_gates_are_gone() {
    let gated = |gates: Value| of("a", json!({"spec": {"schedulingGates": gates}}));
    let mut queue = queue(&[gated(json!([{"name": "x/y"}]))]);
    assert_eq!(queue.pop(&BTreeSet::new(), SECOND * 1000).map(|pod| pod.uid.clone()), None);
    assert_eq!(queue.due(), None);
    queue.set(&gated(json!([])), &Snapshot::default(), SECOND);
    assert_eq!(popped(&mut queue, SECOND), ["a"]);
}

#[test]
fn what_nothing_helps_is_looked_at_after_five_minutes() {
    let mut queue = queue(&[of("a", json!({}))]);
    queue.pop(&BTreeSet::new(), SECOND);
    queue.unschedulable("a", resources(), SECOND);
    let due = queue.due().unwrap();
    assert_eq!(due, SECOND * 301);
    assert!(popped(&mut queue, due - Duration::from_millis(1)).is_empty());
    assert_eq!(popped(&mut queue, due), ["a"]);
}

#[test]
fn what_may_help_has_it_looked_at_after_a_wait_that_doubles() {
    let waits = |attempts: u32| {
        let mut queue = queue(&[of("a", json!({}))]);
        queue.pop(&BTreeSet::new(), SECOND);
        for _ in 0..attempts {
            queue.unschedulable("a", resources(), SECOND);
            gone(&mut queue, SECOND);
            queue.take(1);
        }
        queue.unschedulable("a", resources(), SECOND);
        gone(&mut queue, SECOND);
        queue.backoff.first().map(|(until, _, _)| (*until - SECOND).as_secs())
    };
    let waited = [0, 1, 2, 3, 4, 9, 40].map(|attempts| waits(attempts).unwrap());
    assert_eq!(waited, [1, 2, 4, 8, 10, 10, 10]);
}

#[test]
fn who_waits_after_help_is_looked_at_earlier_if_there_is_nothing_else() {
    let mut queue = queue(&[of("a", json!({})), of("b", json!({}))]);
    assert_eq!(popped(&mut queue, SECOND), ["a", "b"]);
    queue.unschedulable("a", resources(), SECOND);
    gone(&mut queue, SECOND);
    queue.set(&of("c", json!({})), &Snapshot::default(), SECOND);
    assert_eq!(popped(&mut queue, SECOND), ["c", "a"]);
    // Not so when something went wrong.
    queue.failed("b", SECOND);
    assert!(popped(&mut queue, SECOND).is_empty());
    assert_eq!(queue.due(), Some(SECOND * 2));
    assert_eq!(popped(&mut queue, SECOND * 2), ["b"]);
    queue.failed("b", SECOND * 2);
    assert_eq!(queue.due(), Some(SECOND * 4));
}

#[test]
fn help_that_came_long_after_helps_at_once() {
    let mut queue = queue(&[of("a", json!({}))]);
    queue.pop(&BTreeSet::new(), SECOND);
    queue.unschedulable("a", resources(), SECOND);
    gone(&mut queue, SECOND * 60);
    assert_eq!(queue.active.first(), Some(&(Reverse(0), SECOND, 1)));
}

#[test]
fn a_pod_is_in_one_place_and_can_leave_it() {
    let over = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    let mut queue = queue(&[of("a", json!({})), of("b", json!({}))]);
    queue.set(&of("a", over("x")), &Snapshot::default(), SECOND);
    queue.remove("b");
    queue.remove("b");
    assert_eq!(queue.get("a").unwrap().kind.labels.len(), 1);
    assert!(queue.get("b").is_none());
    assert_eq!(popped(&mut queue, SECOND * 9), ["a"]);
    // It is not put in again while it is out.
    queue.set(&of("a", json!({})), &Snapshot::default(), SECOND);
    assert!(popped(&mut queue, SECOND * 9).is_empty());
    queue.unschedulable("a", resources(), SECOND);
    queue.remove("a");
    assert_eq!((queue.due(), queue.pods.len()), (None, 0));
}

/// Whether something may help a pod with one who said no.
fn helps(plugin: Plugin, event: Event<'_>, pod: &PodInfo) -> bool {
    event.may_help(pod, &BTreeSet::from([plugin]), &Snapshot::default())
}

#[test]
fn nodes_that_may_help() {
    let plain = || json!({});
    let cordoned = || json!({"spec": {"unschedulable": true}});
    let tainted = || json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let disk = |disk: &str| json!({"metadata": {"labels": {"disk": disk}}});
    let cpu = |cpu: &str| json!({"status": {"allocatable": {"cpu": cpu}}});
    let wanted = |more: Value| pod("p", json!({"spec": merged(requesting("2", "1Gi"), more)}));
    let ssd = || wanted(json!({"nodeSelector": {"disk": "ssd"}}));
    let any = || wanted(json!({}));
    use Plugin::{
        NodeAffinity, NodePorts, NodeResourcesFit, NodeUnschedulable, TaintToleration,
        VolumeBinding,
    };
    let rows = [
        (NodeUnschedulable, any(), None, Some(plain()), true),
        (NodeUnschedulable, any(), None, Some(cordoned()), false),
        (NodeUnschedulable, any(), Some(cordoned()), Some(plain()), true),
        (NodeUnschedulable, any(), Some(cordoned()), Some(disk("ssd")), true),
        (NodeUnschedulable, any(), Some(plain()), Some(disk("ssd")), false),
        (TaintToleration, any(), Some(tainted()), Some(plain()), true),
        (TaintToleration, any(), Some(plain()), Some(tainted()), false),
        (TaintToleration, any(), None, Some(tainted()), false),
        (NodeAffinity, ssd(), Some(disk("hdd")), Some(disk("ssd")), true),
        (NodeAffinity, ssd(), Some(disk("ssd")), Some(cpu("9")), false),
        (NodeAffinity, ssd(), None, Some(disk("hdd")), false),
        (NodePorts, any(), None, Some(plain()), true),
        (NodePorts, any(), Some(plain()), Some(disk("ssd")), false),
        (NodeResourcesFit, any(), Some(cpu("1")), Some(cpu("2")), true),
        (NodeResourcesFit, any(), Some(cpu("2")), Some(cpu("2")), false),
        (NodeResourcesFit, any(), Some(cpu("3")), Some(cpu("2")), false),
        (NodeResourcesFit, any(), Some(cpu("1")), Some(cpu("1500m")), false),
        (NodeResourcesFit, any(), None, Some(cpu("1")), false),
        (NodeResourcesFit, any(), None, Some(cpu("2")), true),
        (NodeResourcesFit, any(), Some(plain()), None, false),
        (VolumeBinding, any(), None, Some(plain()), false),
    ];
    for (plugin, pod, old, new, expected) in rows {
        let (old, new) = (old.map(|it| node("n", it)), new.map(|it| node("n", it)));
        let event = Event::Node { old: old.as_deref(), new: new.as_deref() };
        assert_eq!(helps(plugin, event, &pod), expected, "{plugin:?} {old:?} {new:?}");
    }
}

#[test]
fn pods_that_may_help() {
    use Plugin::{InterPodAffinity, NodePorts, NodeResourcesFit, PodTopologySpread};
    let labelled = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    let term = |app: &str| {
        let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "zone"});
        json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]})
    };
    let beside = pod("p", json!({"spec": {"affinity": {"podAffinity": term("x")}}}));
    let apart = pod("p", json!({"spec": {"affinity": {"podAntiAffinity": term("x")}}}));
    let port = |port: u16| {
        let ports = json!([{"containerPort": 1, "hostPort": port}]);
        pod("p", json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": ports}]}}))
    };
    let spread = pod(
        "p",
        json!({"spec": {"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "x"}},
        }]}}),
    );
    let (x, y) = (pod("x", labelled("x")), pod("x", labelled("y")));
    let elsewhere = pod("x", merged(labelled("x"), json!({"metadata": {"namespace": "other"}})));
    let (small, large) = (
        pod("r", json!({"spec": requesting("1", "1Gi")})),
        pod("r", json!({"spec": requesting("2", "1Gi")})),
    );
    let cpu = pod("p", json!({"spec": requesting("4", "0")}));
    let memory = pod("p", json!({"spec": requesting("0", "4Gi")}));
    let changed = |old, new| Event::Changed { old, new };
    let rows = [
        (NodeResourcesFit, Event::Gone(&small), &cpu, true),
        (NodeResourcesFit, Event::Assigned(&small), &cpu, false),
        (NodeResourcesFit, changed(&large, &small), &cpu, true),
        (NodeResourcesFit, changed(&small, &large), &cpu, false),
        (NodeResourcesFit, changed(&large, &small), &memory, false),
        (NodePorts, Event::Gone(&port(80)), &port(80), true),
        (NodePorts, Event::Gone(&port(81)), &port(80), false),
        (InterPodAffinity, Event::Assigned(&x), &beside, true),
        (InterPodAffinity, Event::Assigned(&y), &beside, false),
        (InterPodAffinity, Event::Assigned(&elsewhere), &beside, false),
        (InterPodAffinity, changed(&y, &x), &beside, true),
        (InterPodAffinity, Event::Gone(&x), &beside, false),
        (InterPodAffinity, Event::Gone(&x), &apart, true),
        (InterPodAffinity, changed(&x, &y), &apart, true),
        (InterPodAffinity, Event::Gone(&apart), &x, true),
        (InterPodAffinity, Event::Gone(&apart), &y, false),
        (PodTopologySpread, Event::Assigned(&x), &spread, true),
        (PodTopologySpread, Event::Gone(&x), &spread, true),
        (PodTopologySpread, Event::Gone(&y), &spread, false),
        (PodTopologySpread, Event::Gone(&elsewhere), &spread, false),
        (PodTopologySpread, changed(&x, &y), &spread, true),
    ];
    for (index, (plugin, event, pod, expected)) in rows.into_iter().enumerate() {
        assert_eq!(helps(plugin, event, pod), expected, "{index}: {plugin:?}");
    }
}

#[test]
fn a_pod_that_changes_itself_may_help_itself() {
    let tolerating = |tolerations: Value| {
        let taint = json!({"spec": {"tolerations": tolerations}});
        of("a", taint)
    };
    let mut queue = queue(&[tolerating(json!([]))]);
    queue.pop(&BTreeSet::new(), SECOND);
    queue.unschedulable("a", BTreeSet::from([Plugin::TaintToleration]), SECOND);
    let snapshot = snapshot([], []);
    queue.set(&tolerating(json!([])), &snapshot, SECOND * 9);
    assert!(popped(&mut queue, SECOND * 9).is_empty());
    queue.set(&tolerating(json!([{"operator": "Exists"}])), &snapshot, SECOND * 9);
    assert_eq!(popped(&mut queue, SECOND * 9), ["a"]);
}
