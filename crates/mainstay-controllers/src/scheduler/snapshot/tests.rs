use serde_json::{Value, json};

use super::super::testing::{node, pod, requesting};
use super::*;

fn on(snapshot: &Snapshot, name: &str) -> Option<(usize, i64)> {
    let (info, _) = snapshot.at(snapshot.named(name)?)?;
    Some((info.pods().len(), info.requested.cpu))
}

fn wanting(name: &str, cpu: &str) -> PodInfo {
    pod(name, json!({"spec": requesting(cpu, "1Gi")}))
}

#[test]
fn pods_may_come_before_their_node_and_stay_after_it() {
    let mut snapshot = Snapshot::default();
    snapshot.add_pod(wanting("p", "1"), "a");
    assert_eq!(on(&snapshot, "a"), None);
    snapshot.set_node(&node("a", json!({})));
    assert_eq!(on(&snapshot, "a"), Some((1, 1000)));
    snapshot.remove_node("a");
    assert_eq!((on(&snapshot, "a"), snapshot.nodes().count()), (None, 0));
    snapshot.set_node(&node("a", json!({})));
    assert_eq!(on(&snapshot, "a"), Some((1, 1000)));
}

#[test]
fn a_pod_is_on_one_node_as_it_is_now() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b"] {
        snapshot.set_node(&node(name, json!({})));
    }
    snapshot.add_pod(wanting("p", "1"), "a");
    snapshot.add_pod(wanting("p", "2"), "a");
    assert_eq!(on(&snapshot, "a"), Some((1, 2000)));
    snapshot.add_pod(wanting("p", "3"), "b");
    assert_eq!((on(&snapshot, "a"), on(&snapshot, "b")), (Some((0, 0)), Some((1, 3000))));
    assert!(snapshot.remove_pod("p").is_some() && snapshot.remove_pod("p").is_none());
    assert_eq!(on(&snapshot, "b"), Some((0, 0)));
}

#[test]
fn places_of_what_is_gone_are_used_again() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b", "c", "d"] {
        snapshot.set_node(&node(name, json!({})));
        snapshot.add_pod(wanting(name, "1"), name);
        snapshot.remove_node(name);
        snapshot.remove_pod(name);
    }
    assert_eq!((snapshot.slots.len(), snapshot.by_name.len()), (1, 0));
}

#[test]
fn alike_pods_are_of_one_kind() {
    let labelled = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    let mut snapshot = Snapshot::default();
    let ending = json!({"metadata": {
        "labels": {"app": "x"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
    }});
    let rows: [(&str, Value, &str); 4] = [
        ("p", labelled("x"), "a"),
        ("q", labelled("x"), "b"),
        ("r", ending, "a"),
        ("s", labelled("y"), "a"),
    ];
    for (name, over, node) in rows {
        snapshot.add_pod(pod(name, over), node);
    }
    let counts: Vec<Vec<Count>> =
        snapshot.kinds.all().map(|(_, on)| on.values().copied().collect()).collect();
    let count = |all, ending| Count { all, ending };
    assert_eq!(counts, [vec![count(2, 1), count(1, 0)], vec![count(1, 0)]]);
    for name in ["p", "q", "r", "s"] {
        snapshot.remove_pod(name);
    }
    assert_eq!(snapshot.kinds.all().count(), 0);
}

#[test]
fn images_go_with_their_nodes() {
    let with = |names: &[&str]| json!({"status": {"images": [{"names": names, "sizeBytes": 5}]}});
    let mut snapshot = Snapshot::default();
    snapshot.set_node(&node("a", with(&["i", "j"])));
    snapshot.set_node(&node("b", with(&["i"])));
    snapshot.set_node(&node("a", with(&["i"])));
    let count = |snapshot: &Snapshot, name: &str| snapshot.image(name).map(BTreeMap::len);
    assert_eq!((count(&snapshot, "i"), count(&snapshot, "j")), (Some(2), None));
    snapshot.remove_node("a");
    assert_eq!(count(&snapshot, "i"), Some(1));
}
