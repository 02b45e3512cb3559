use serde_json::{Value, json};

use super::preempt::{Preemption, preempt};
use super::testing::{node, pod, requesting, snapshot};
use super::*;

/// The node, or all that is told of why there is none.
fn told(pod: &PodInfo, snapshot: &Snapshot) -> String {
    let error = match schedule(pod, snapshot, 0) {
        Outcome::Node(name) => return name,
        Outcome::NoNodes => return "no nodes".to_owned(),
        Outcome::Unschedulable(error) => error,
    };
    let all = snapshot.nodes().count();
    match preempt(pod, snapshot, &error, 0) {
        Preemption::Node { name, victims } => {
            let names: Vec<&str> = victims.iter().map(|victim| &*victim.key.name).collect();
            format!("{} -> {name} without {}", error.message(all, ""), names.join(", "))
        }
        Preemption::Useless(why) => error.message(all, &why),
        Preemption::Not(why) => error.message(all, why),
    }
}

fn three() -> [std::sync::Arc<k8s_openapi::api::core::v1::Node>; 3] {
    let taint = |value: Value| json!({"spec": {"taints": [value]}});
    [
        node("a", taint(json!({"key": "k", "value": "v", "effect": "NoSchedule"}))),
        node("b", json!({"spec": {"unschedulable": true}})),
        node("c", json!({"spec": {"unschedulable": true}})),
    ]
}

#[test]
fn people_are_told_what_they_know() {
    let claim = json!({"name": "v", "persistentVolumeClaim": {"claimName": "x"}});
    let ephemeral = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
    let named = |names: Value| {
        let field = json!({"key": "metadata.name", "operator": "In", "values": names});
        let terms = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        json!({"spec": {"affinity": {"nodeAffinity": {required: terms}}}})
    };
    let rows = [
        pod("p", json!({})),
        pod("p", named(json!(["b"]))),
        pod("p", named(json!(["z"]))),
        pod("p", named(json!([]))),
        pod("p", json!({"spec": {"volumes": [claim]}})),
        pod("p", json!({"spec": {"volumes": [ephemeral]}})),
        pod("p", json!({"spec": {"preemptionPolicy": "Never"}})),
    ];
    let snapshot = snapshot(three(), []);
    let texts: Vec<String> = rows.iter().map(|row| told(row, &snapshot)).collect();
    let useless = "no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption \
                   is not helpful for scheduling.";
    let expected = [
        format!(
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) were \
             unschedulable. {useless}"
        ),
        format!(
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't satisfy \
             plugin(s) [NodeAffinity]. {useless}"
        ),
        format!(
            "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity]. {useless}"
        ),
        format!("0/3 nodes are available: pod affinity terms conflict. {useless}"),
        format!("0/3 nodes are available: persistentvolumeclaim \"x\" not found. {useless}"),
        format!(
            "0/3 nodes are available: waiting for ephemeral volume controller to create the \
             persistentvolumeclaim \"p-v\". {useless}"
        ),
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) were unschedulable. \
         no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."
            .to_owned(),
    ];
    assert_eq!(texts, expected);
    assert_eq!(told(&pod("p", json!({})), &Snapshot::default()), "no nodes");
}

#[test]
fn what_lacks_is_told_for_each_resource_and_counted_by_nodes() {
    let two = [node("a", json!({})), node("b", json!({"status": {"allocatable": {"cpu": "1"}}}))];
    let other = pod("o", json!({"spec": requesting("3", "7Gi")}));
    let snapshot = snapshot(two, [("a", other)]);
    let wanted = pod("p", json!({"spec": requesting("2", "2Gi")}));
    assert_eq!(
        told(&wanted, &snapshot),
        "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient cpu. no new claims to \
         deallocate, preemption: 0/2 nodes are available: 1 No preemption victims found for \
         incoming pod, 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn ties_are_broken_by_the_seed_and_nothing_else() {
    let nodes = ["a", "b", "c"].map(|name| node(name, json!({})));
    let snapshot = snapshot(nodes, []);
    let wanted = pod("p", json!({}));
    let picked = |seed: u64| match schedule(&wanted, &snapshot, seed) {
        Outcome::Node(name) => name,
        Outcome::NoNodes | Outcome::Unschedulable(_) => panic!("a node is free"),
    };
    let all: std::collections::BTreeSet<String> = (0..9).map(|it| picked(mix(it))).collect();
    assert_eq!(all.len(), 3);
    assert_eq!(picked(7), picked(7));
}

#[test]
fn of_many_nodes_a_part_is_compared() {
    let rows = [1, 100, 200, 1000, 5000, 10_000].map(enough);
    assert_eq!(rows, [100, 100, 100, 420, 500, 500]);
}

mod preemption;
mod properties;
