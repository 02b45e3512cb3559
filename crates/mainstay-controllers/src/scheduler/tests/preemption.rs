//! Who has to make room.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::*;
use crate::informer::ObjectKey;
use crate::scheduler::testing::merged;

fn victim(name: &str, priority: i32, cpu: &str, over: Value) -> PodInfo {
    let spec = merged(json!({"priority": priority}), requesting(cpu, "1Mi"));
    pod(name, merged(json!({"spec": spec}), over))
}

fn wanting(priority: i32, cpu: &str) -> PodInfo {
    victim("p", priority, cpu, json!({}))
}

#[test]
fn as_few_and_as_unimportant_as_possible() {
    let nodes = || [node("a", json!({})), node("b", json!({}))];
    let rows = [
        // One that is enough is better than two.
        (vec![("a", 1, "4"), ("b", 1, "2"), ("b", 1, "2")], "a without v0"),
        // The least important of a node go.
        (vec![("a", 2, "3"), ("a", 1, "1"), ("b", 9, "4")], "a without v0, v1"),
        (vec![("a", 1, "3"), ("a", 2, "1"), ("b", 3, "4")], "a without v1, v0"),
        // The lowest of the highest priorities.
        (vec![("a", 5, "4"), ("b", 4, "4")], "b without v1"),
        // Those that need not go stay.
        (vec![("a", 1, "1"), ("a", 1, "2"), ("a", 3, "1"), ("b", 5, "4")], "a without v2, v0, v1"),
    ];
    for (pods, expected) in rows {
        let pods = pods.into_iter().enumerate().map(|(index, (node, priority, cpu))| {
            (node, victim(&format!("v{index}"), priority, cpu, json!({})))
        });
        let snapshot = snapshot(nodes(), pods);
        let told = told(&wanting(10, "4"), &snapshot);
        assert_eq!(told.split(" -> ").nth(1), Some(expected), "{told}");
    }
}

#[test]
fn what_need_not_go_is_spared() {
    let on_a = [("big", 1, "2"), ("small", 1, "1"), ("dear", 3, "1")];
    let pods = on_a.map(|(name, priority, cpu)| ("a", victim(name, priority, cpu, json!({}))));
    let snapshot = snapshot([node("a", json!({}))], pods);
    let names = |cpu: &str| told(&wanting(10, cpu), &snapshot);
    assert!(names("1").ends_with("-> a without small"));
    assert!(names("3").ends_with("-> a without big, small"));
    assert!(names("4").ends_with("-> a without dear, big, small"));
}

#[test]
fn who_has_run_longer_stays() {
    let started = |time: &str| json!({"status": {"startTime": time}});
    let old = victim("old", 1, "2", started("2026-01-01T00:00:00Z"));
    let new = victim("new", 1, "2", started("2026-01-02T00:00:00Z"));
    let snapshot = snapshot([node("a", json!({}))], [("a", old), ("a", new)]);
    assert!(told(&wanting(10, "2"), &snapshot).ends_with("-> a without new"));
}

#[test]
fn no_one_goes_who_is_as_important_or_is_a_mirror() {
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h"}}});
    let pods = [("a", victim("m", 0, "4", mirror)), ("b", victim("e", 10, "4", json!({})))];
    let snapshot = snapshot([node("a", json!({})), node("b", json!({}))], pods);
    assert_eq!(
        told(&wanting(10, "1"), &snapshot),
        "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 \
         nodes are available: 2 No preemption victims found for incoming pod."
    );
    assert!(told(&wanting(11, "1"), &snapshot).ends_with("-> b without e"));
}

#[test]
fn what_is_too_much_for_an_empty_node_is_no_reason() {
    let snapshot = snapshot([node("a", json!({}))], [("a", victim("v", 0, "1", json!({})))]);
    assert_eq!(
        told(&wanting(10, "5"), &snapshot),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 \
         nodes are available: 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn budgets_are_respected_where_that_is_possible() {
    let labelled = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    let pods = [
        ("a", victim("kept", 1, "4", labelled("kept"))),
        ("b", victim("free", 5, "4", labelled("free"))),
    ];
    let mut snapshot = snapshot([node("a", json!({})), node("b", json!({}))], pods);
    assert!(told(&wanting(10, "1"), &snapshot).ends_with("-> a without kept"));
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": "x", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "kept"}}},
        "status": {
            "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
        },
    }))
    .unwrap();
    snapshot.budgets.insert(ObjectKey::new("default", "x"), budget.into());
    assert!(told(&wanting(10, "1"), &snapshot).ends_with("-> b without free"));
    snapshot.remove_pod("free");
    snapshot.add_pod(victim("dear", 10, "4", labelled("free")), "b");
    assert!(told(&wanting(10, "1"), &snapshot).ends_with("-> a without kept"));
}

#[test]
fn a_pod_whose_room_is_being_made_waits_for_that() {
    let mut snapshot = snapshot([node("a", json!({}))], [("a", victim("v", 0, "4", json!({})))]);
    let wanted = std::sync::Arc::new(wanting(10, "4"));
    snapshot.nominate(&wanted, Some("a"));
    assert!(told(&wanted, &snapshot).ends_with("-> a without v"));
    snapshot.leaving.insert("v".to_owned());
    assert_eq!(
        told(&wanted, &snapshot),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not \
         eligible due to a terminating pod on the nominated node."
    );
    // Nobody else gets the room, unless it is more important.
    snapshot.remove_pod("v");
    let of = |priority| told(&victim("q", priority, "1", json!({})), &snapshot);
    assert!(of(9).starts_with("0/1 nodes are available: 1 Insufficient cpu."));
    assert_eq!(of(11), "a");
    assert_eq!(told(&wanted, &snapshot), "a");
}
