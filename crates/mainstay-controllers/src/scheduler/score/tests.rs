use std::sync::Arc;

use serde_json::{Value, json};

use super::super::testing::{merged, node, pod, requesting, snapshot};
use super::*;

type Scorer = fn(&PodInfo, &Snapshot, &[Feasible<'_>]) -> Vec<i64>;

/// What a plugin gives each node, by their names.
fn scored(scorer: Scorer, over: Value, snapshot: &Snapshot) -> Vec<i64> {
    let nodes: Vec<Feasible<'_>> =
        snapshot.nodes().map(|(slot, info, node)| Feasible { slot, info, node }).collect();
    scorer(&pod("p", over), snapshot, &nodes)
}

fn nodes(over: [Value; 3]) -> Vec<Arc<Node>> {
    ["a", "b", "c"].into_iter().zip(over).map(|(name, over)| node(name, over)).collect()
}

#[test]
fn taints_that_are_preferred_to_be_respected() {
    let soft = |keys: &[&str]| {
        let taints = keys.iter().map(|key| json!({"key": key, "effect": "PreferNoSchedule"}));
        json!({"spec": {"taints": taints.collect::<Vec<_>>()}})
    };
    let snapshot = snapshot(nodes([soft(&[]), soft(&["k"]), soft(&["k", "j"])]), []);
    let scorer: Scorer = |pod, _, nodes| node::taints(pod, nodes);
    let tolerating =
        |key: &str| json!({"spec": {"tolerations": [{"key": key, "operator": "Exists"}]}});
    assert_eq!(scored(scorer, json!({}), &snapshot), [100, 50, 0]);
    assert_eq!(scored(scorer, tolerating("k"), &snapshot), [100, 100, 0]);
    let hard = json!([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}]);
    let hard = json!({"spec": {"tolerations": hard}});
    assert_eq!(scored(scorer, hard, &snapshot), [100, 50, 0]);
}

#[test]
fn affinity_to_nodes() {
    let disk = |disk: &str| json!({"metadata": {"labels": {"disk": disk}}});
    let snapshot = snapshot(nodes([disk("ssd"), disk("hdd"), json!({})]), []);
    let term = |weight: i32, value: &str| {
        let expression = json!({"key": "disk", "operator": "In", "values": [value]});
        json!({"weight": weight, "preference": {"matchExpressions": [expression]}})
    };
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let over = json!({"spec": {"affinity": {"nodeAffinity": {
        preferred: [term(40, "ssd"), term(10, "hdd")],
    }}}});
    let scorer: Scorer = |pod, _, nodes| node::affinity(pod, nodes);
    assert_eq!(scored(scorer, over, &snapshot), [100, 25, 0]);
    assert!(scored(scorer, json!({}), &snapshot).is_empty());
}

#[test]
fn what_is_left_and_how_evenly() {
    let on =
        |name: &str, cpu: &str, memory: &str| pod(name, json!({"spec": requesting(cpu, memory)}));
    let pods = [("a", on("x", "2", "4Gi")), ("b", on("y", "1", "6Gi"))];
    let snapshot = snapshot(nodes([json!({}), json!({}), json!({})]), pods);
    let least: Scorer = |pod, _, nodes| resources::least_allocated(pod, nodes);
    let balanced: Scorer = |pod, _, nodes| resources::balanced(pod, nodes);
    let wanted = || json!({"spec": requesting("1", "2Gi")});
    // (4 - 3) / 4 and (8 - 6) / 8; (4 - 2) / 4 and none; three quarters of each.
    assert_eq!(scored(least, wanted(), &snapshot), [25, 25, 75]);
    // Each of them stays as even as it was.
    assert_eq!(scored(balanced, wanted(), &snapshot), [75, 75, 75]);
    let cpu_only = json!({"spec": requesting("3", "0")});
    assert_eq!(scored(balanced, cpu_only, &snapshot), [62, 81, 56]);
    // One that requests nothing counts as 100m and 200Mi, and does not change the balance.
    assert_eq!(scored(least, json!({}), &snapshot), [47, 47, 97]);
    assert!(scored(balanced, json!({}), &snapshot).is_empty());
}

#[test]
fn spread_of_what_belongs_together() {
    let service = serde_json::from_value(json!({"spec": {"selector": {"app": "x"}}})).unwrap();
    let labelled = |name: &str| pod(name, json!({"metadata": {"labels": {"app": "x"}}}));
    let pods = [("a", labelled("o")), ("a", labelled("q")), ("b", labelled("r"))];
    let mut snapshot = snapshot(nodes([json!({}), json!({}), json!({})]), pods);
    let over = || json!({"metadata": {"labels": {"app": "x"}}});
    assert!(scored(spread::scores, over(), &snapshot).is_empty());
    let key = crate::informer::ObjectKey::new("default", "s");
    snapshot.workloads.set_service(key.clone(), Some(&service));
    // 2 ln 5 + 2, ln 5 + 2 and 2.
    assert_eq!(scored(spread::scores, over(), &snapshot), [40, 60, 100]);
    assert!(scored(spread::scores, json!({}), &snapshot).is_empty());
    snapshot.workloads.set_service(key, None);
    assert!(scored(spread::scores, over(), &snapshot).is_empty());
}

#[test]
fn spread_of_a_replica_set() {
    let labelled = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    let owned = json!({"metadata": {"ownerReferences": [{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true,
    }]}});
    let pods = [("a", pod("o", labelled("x"))), ("b", pod("q", labelled("y")))];
    let mut snapshot = snapshot(nodes([json!({}), json!({}), json!({})]), pods);
    let selector = serde_json::from_value(json!({"matchLabels": {"app": "x"}})).unwrap();
    let selector = mainstay_pod::scheduling::selector::Selector::of(Some(&selector));
    let key = crate::informer::ObjectKey::new("default", "r");
    snapshot.workloads.set_replica_set(key, Some(selector));
    assert_eq!(scored(spread::scores, merged(labelled("x"), owned), &snapshot), [50, 100, 100]);
}

#[test]
fn spread_that_a_pod_would_rather_have() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    let labelled = json!({"metadata": {"labels": {"app": "x"}}});
    let pods = [("a", pod("o", labelled.clone()))];
    let snapshot = snapshot(nodes([zone("1"), zone("2"), json!({})]), pods);
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "x"}},
    });
    let over = merged(labelled, json!({"spec": {"topologySpreadConstraints": [constraint]}}));
    // One that lacks the label comes last.
    assert_eq!(scored(spread::scores, over, &snapshot), [0, 100, 0]);
}

#[test]
fn pods_that_would_rather_be_beside_each_other_or_not() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    let labelled = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    let term =
        |app: &str| json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "zone"});
    let weighted = |kind: &str, app: &str| {
        let term = json!([{"weight": 10, "podAffinityTerm": term(app)}]);
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        json!({"spec": {"affinity": {kind: {preferred: term}}}})
    };
    let required = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term("x")],
    }}}});
    let rows = [
        (labelled("db"), weighted("podAffinity", "db"), vec![100, 100, 0]),
        (labelled("db"), weighted("podAntiAffinity", "db"), vec![0, 0, 100]),
        (labelled("db"), weighted("podAffinity", "x"), vec![]),
        (weighted("podAffinity", "x"), labelled("x"), vec![100, 100, 0]),
        (weighted("podAntiAffinity", "x"), labelled("x"), vec![0, 0, 100]),
        (required, labelled("x"), vec![100, 100, 0]),
    ];
    for (there, over, expected) in rows {
        let nodes = nodes([zone("1"), zone("1"), zone("2")]);
        let snapshot = snapshot(nodes, [("a", pod("o", there.clone()))]);
        assert_eq!(scored(affinity::scores, over, &snapshot), expected, "{there}");
    }
}

#[test]
fn images_that_are_there() {
    let with = |mebibytes: i64| {
        let image = json!({"names": ["r.io/i:latest"], "sizeBytes": mebibytes << 20});
        json!({"status": {"images": [image]}})
    };
    let over = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
    let snapshot = snapshot(nodes([with(600), with(60), json!({})]), []);
    // Two thirds of the nodes have it: 400 and 40 MiB, of which 23 do not count, of 977.
    assert_eq!(scored(images::scores, over("r.io/i"), &snapshot), [38, 1, 0]);
    assert_eq!(scored(images::scores, over("r.io/i:latest"), &snapshot), [38, 1, 0]);
    assert!(scored(images::scores, over("r.io/i:1"), &snapshot).is_empty());
}

#[test]
fn weights_are_upstreams() {
    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    let snapshot = snapshot(nodes([soft, json!({}), json!({})]), []);
    // 3 × 100 less; what is left is 97 everywhere.
    assert_eq!(scored(scores, json!({}), &snapshot), [97, 397, 397]);
}
