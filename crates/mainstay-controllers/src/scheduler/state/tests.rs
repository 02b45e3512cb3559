use serde_json::{Value, json};

use super::super::testing::{merged, node, object, requesting};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn state(nodes: &[&str]) -> State {
    let mut state = State::new(1);
    for name in nodes {
        state.node_changed(None, Some(&node(name, json!({}))), SECOND);
    }
    state
}

fn wanting(name: &str, cpu: &str, over: Value) -> Arc<Pod> {
    object(name, merged(json!({"spec": requesting(cpu, "1Mi")}), over))
}

fn on(node: &str) -> Value {
    json!({"spec": {"nodeName": node}})
}

/// What is to be done, in words; what is to be told is told at once.
fn next(state: &mut State, now: Duration) -> String {
    match state.next(now) {
        None => "nothing".to_owned(),
        Some(Step::Bind { pod, node }) => format!("{} to {node}", pod.key.name),
        Some(Step::Wait(wait)) => {
            state.told(&wait.pod);
            let names = |pods: &[Arc<PodInfo>]| {
                pods.iter().map(|pod| pod.key.name.clone()).collect::<Vec<_>>().join(",")
            };
            let Wait { pod, nominated_node, victims, outdone, .. } = &wait;
            format!(
                "{} waits, nominated {nominated_node:?}, without {}, outdone {}",
                pod.key.name,
                names(victims),
                names(outdone)
            )
        }
    }
}

fn step(state: &mut State, now: Duration) -> Step {
    state.next(now).unwrap()
}

#[test]
fn a_pod_counts_from_when_it_is_decided() {
    let mut state = state(&["a"]);
    for name in ["p", "q"] {
        state.pod_changed(None, Some(&wanting(name, "3", json!({}))), SECOND);
    }
    assert_eq!(next(&mut state, SECOND), "p to a");
    assert_eq!(next(&mut state, SECOND), "q waits, nominated Some(\"\"), without , outdone ");
    assert_eq!(next(&mut state, SECOND), "nothing");
    // Hearing of it changes nothing, its end does.
    let bound = wanting("p", "3", on("a"));
    state.pod_changed(Some(&wanting("p", "3", json!({}))), Some(&bound), SECOND * 2);
    assert_eq!(next(&mut state, SECOND * 2), "nothing");
    state.pod_changed(Some(&bound), None, SECOND * 3);
    assert_eq!(next(&mut state, SECOND * 3), "q to a");
}

#[test]
fn only_pods_that_wait_for_this_scheduler_are_looked_at() {
    let mut state = state(&["a"]);
    let rows = [
        on("a"),
        json!({"spec": {"schedulerName": "another"}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        json!({"status": {"phase": "Failed"}}),
        json!({"spec": {"schedulingGates": [{"name": "x"}]}}),
    ];
    for (index, over) in rows.into_iter().enumerate() {
        state.pod_changed(None, Some(&object(&format!("p{index}"), over)), SECOND);
        assert_eq!(next(&mut state, SECOND), "nothing", "row {index}");
    }
    state.pod_changed(None, Some(&object("p", json!({"spec": {"schedulerName": null}}))), SECOND);
    assert_eq!(next(&mut state, SECOND), "p to a");
}

#[test]
fn ended_pods_take_up_nothing_and_mirrors_do() {
    let mut state = state(&["a"]);
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h"}}});
    state.pod_changed(None, Some(&wanting("m", "2", merged(on("a"), mirror))), SECOND);
    let done = wanting("d", "2", merged(on("a"), json!({"status": {"phase": "Succeeded"}})));
    state.pod_changed(None, Some(&done), SECOND);
    state.pod_changed(None, Some(&wanting("p", "2", json!({}))), SECOND);
    state.pod_changed(None, Some(&wanting("q", "1", json!({}))), SECOND);
    assert_eq!(next(&mut state, SECOND), "p to a");
    assert!(next(&mut state, SECOND).starts_with("q waits"));
}

#[test]
fn what_was_not_bound_is_tried_again_unless_it_was() {
    let mut state = state(&["a"]);
    let pod = wanting("p", "3", json!({}));
    state.pod_changed(None, Some(&pod), SECOND);
    let Step::Bind { pod: decided, .. } = step(&mut state, SECOND) else {
        panic!("a node is free")
    };
    state.not_bound(&decided, SECOND);
    state.told(&decided);
    assert!(state.snapshot.pod("p").is_none());
    assert_eq!((next(&mut state, SECOND), state.due()), ("nothing".to_owned(), Some(SECOND * 2)));
    assert_eq!(next(&mut state, SECOND * 2), "p to a");
    // The answer was lost, but it was bound.
    state.pod_changed(Some(&pod), Some(&wanting("p", "3", on("a"))), SECOND * 2);
    state.not_bound(&decided, SECOND * 2);
    assert!(state.snapshot.pod("p").is_some());
    assert_eq!((next(&mut state, SECOND * 9), state.due()), ("nothing".to_owned(), None));
}

/// Otherwise the API might keep the older one of two words, however long nothing happens then.
#[test]
fn a_pod_is_looked_at_again_when_it_has_been_told_why_it_waits() {
    let mut state = State::new(1);
    let taint = json!({"key": "k", "effect": "NoSchedule"});
    let tainted = node("a", json!({"spec": {"taints": [taint]}}));
    state.node_changed(None, Some(&tainted), SECOND);
    state.pod_changed(None, Some(&wanting("p", "9", json!({}))), SECOND);
    let Step::Wait(first) = step(&mut state, SECOND) else { panic!("the node is tainted") };
    assert!(first.message.contains("untolerated taint"), "{}", first.message);
    // What helps it meanwhile is remembered, and others are looked at.
    state.node_changed(Some(&tainted), Some(&node("a", json!({}))), SECOND * 9);
    assert_eq!(next(&mut state, SECOND * 9), "nothing");
    let other = wanting("q", "1", json!({}));
    state.pod_changed(None, Some(&other), SECOND * 9);
    let Some(Step::Bind { pod, .. }) = state.next(SECOND * 9) else { panic!("there is room") };
    state.told(&first.pod);
    let Step::Wait(second) = step(&mut state, SECOND * 9) else { panic!("there is too little") };
    assert!(second.message.contains("Insufficient cpu"), "{}", second.message);
    // Nor is one tried again while it is told that it was not bound.
    state.not_bound(&pod, SECOND * 9);
    assert_eq!(next(&mut state, SECOND * 99), "nothing");
    state.told(&pod);
    assert_eq!(next(&mut state, SECOND * 99), "q to a");
}

#[test]
fn a_pod_that_goes_while_it_is_bound_takes_up_nothing() {
    let mut state = state(&["a"]);
    let pod = wanting("p", "3", json!({}));
    state.pod_changed(None, Some(&pod), SECOND);
    let Step::Bind { pod: decided, .. } = step(&mut state, SECOND) else {
        panic!("a node is free")
    };
    let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    state.pod_changed(Some(&pod), Some(&wanting("p", "3", ending)), SECOND);
    state.not_bound(&decided, SECOND);
    assert!(state.snapshot.pod("p").is_none());
    assert_eq!((next(&mut state, SECOND * 9), state.due()), ("nothing".to_owned(), None));
}

#[test]
fn without_nodes_pods_wait_for_the_first_one() {
    let mut state = state(&[]);
    state.pod_changed(None, Some(&object("p", json!({}))), SECOND);
    let Step::Wait(wait) = step(&mut state, SECOND) else { panic!("there is no node") };
    assert_eq!(wait.message, "no nodes available to schedule pods");
    state.told(&wait.pod);
    assert_eq!(next(&mut state, SECOND * 2), "nothing");
    state.node_changed(None, Some(&node("a", json!({}))), SECOND * 2);
    assert_eq!(next(&mut state, SECOND * 2), "p to a");
}

#[test]
fn heartbeats_help_nobody_and_uncordoning_does() {
    let mut state = State::new(1);
    let cordoned = node("a", json!({"spec": {"unschedulable": true}}));
    let beating = node("a", json!({"spec": {"unschedulable": true}, "status": {"phase": "x"}}));
    state.node_changed(None, Some(&cordoned), SECOND);
    state.pod_changed(None, Some(&object("p", json!({}))), SECOND);
    assert!(next(&mut state, SECOND).starts_with("p waits"));
    state.node_changed(Some(&cordoned), Some(&beating), SECOND * 9);
    assert_eq!(next(&mut state, SECOND * 9), "nothing");
    state.node_changed(Some(&beating), Some(&node("a", json!({}))), SECOND * 9);
    assert_eq!(next(&mut state, SECOND * 9), "p to a");
}

#[test]
fn room_is_made_for_a_more_important_pod_and_kept_for_it() {
    let mut state = state(&["a"]);
    let priority = |priority: i32| json!({"spec": {"priority": priority}});
    let low = wanting("low", "4", merged(on("a"), priority(1)));
    state.pod_changed(None, Some(&low), SECOND);
    let high = wanting("high", "4", priority(9));
    state.pod_changed(None, Some(&high), SECOND);
    assert_eq!(
        next(&mut state, SECOND),
        "high waits, nominated Some(\"a\"), without low, outdone "
    );
    // It is nominated here before the API tells it, and still is when the API does.
    let nominated = json!({"status": {"nominatedNodeName": "a"}});
    let told = wanting("high", "4", merged(priority(9), nominated));
    state.pod_changed(Some(&high), Some(&told), SECOND);
    // Its room is not taken by a lesser one.
    state.pod_changed(None, Some(&wanting("mid", "1", priority(5))), SECOND * 2);
    state.pod_changed(Some(&low), None, SECOND * 2);
    let steps = [next(&mut state, SECOND * 2), next(&mut state, SECOND * 2)];
    assert_eq!(steps[0], "high to a");
    assert!(steps[1].starts_with("mid waits"), "{steps:?}");
    assert!(state.snapshot.leaving.is_empty());
    assert_eq!(state.snapshot.nomination("high"), None);
}

#[test]
fn a_still_more_important_pod_takes_the_room() {
    let mut state = state(&["a"]);
    let priority = |priority: i32| json!({"spec": {"priority": priority}});
    let low = wanting("low", "4", merged(on("a"), priority(1)));
    state.pod_changed(None, Some(&low), SECOND);
    for (name, of) in [("high", 5), ("top", 9)] {
        state.pod_changed(None, Some(&wanting(name, "4", priority(of))), SECOND);
        next(&mut state, SECOND);
    }
    assert_eq!(state.snapshot.nomination("top"), Some("a"));
    assert_eq!(state.snapshot.nomination("high"), None);
}

#[test]
fn victims_that_could_not_be_deleted_are_chosen_again() {
    let mut state = state(&["a"]);
    let low = wanting("low", "4", on("a"));
    state.pod_changed(None, Some(&low), SECOND);
    let high = wanting("high", "4", json!({"spec": {"priority": 9}}));
    state.pod_changed(None, Some(&high), SECOND);
    let Step::Wait(wait) = step(&mut state, SECOND) else { panic!("there is no room") };
    assert_eq!(wait.victims.len(), 1);
    state.no_room(&wait, SECOND);
    state.told(&wait.pod);
    let again = next(&mut state, SECOND * 2);
    assert_eq!(again, "high waits, nominated Some(\"a\"), without low, outdone ");
}
