use std::sync::Arc;

use serde_json::{Value, json};

use super::super::testing::{merged, node, object, pod, requesting, snapshot};
use super::*;

/// The reasons of each node, in the order of their names; nothing of one that could have the pod.
fn reasons(pod: &PodInfo, snapshot: &Snapshot) -> Vec<String> {
    let filters = Filters::new(pod, snapshot);
    let checked = snapshot.nodes().map(|(slot, info, node)| {
        match filters.check_with_nominated(snapshot, slot, info, node) {
            Ok(()) => String::new(),
            Err(rejection) => rejection.reasons.join(", "),
        }
    });
    checked.collect()
}

fn reason(spec: &Value, over: Value, others: &[PodInfo]) -> String {
    let others = others.iter().map(|other| ("n", other.clone()));
    let snapshot = snapshot([node("n", over)], others);
    reasons(&pod("p", json!({"spec": spec})), &snapshot).join("; ")
}

#[test]
fn what_a_node_is_like() {
    let tainted = |effect: &str| json!({"spec": {"taints": [{"key": "k", "effect": effect}]}});
    let tolerating = |key: &str| json!({"tolerations": [{"key": key, "operator": "Exists"}]});
    let cordoned = || json!({"spec": {"unschedulable": true}});
    let untolerated = "node(s) had untolerated taint(s)";
    let rows = [
        (json!({}), json!({}), ""),
        (json!({}), cordoned(), "node(s) were unschedulable"),
        (tolerating("node.kubernetes.io/unschedulable"), cordoned(), ""),
        (json!({}), tainted("NoSchedule"), untolerated),
        (json!({}), tainted("NoExecute"), untolerated),
        (json!({}), tainted("PreferNoSchedule"), ""),
        (tolerating("k"), tainted("NoSchedule"), ""),
        (tolerating("j"), tainted("NoSchedule"), untolerated),
        (
            json!({"nodeSelector": {"disk": "ssd"}}),
            json!({}),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (
            json!({"nodeSelector": {"disk": "ssd"}}),
            json!({"metadata": {"labels": {"disk": "ssd"}}}),
            "",
        ),
    ];
    for (spec, node, expected) in rows {
        assert_eq!(reason(&spec, node.clone(), &[]), expected, "{spec} on {node}");
    }
}

#[test]
fn ports_of_the_host() {
    let with = |ip: &str, port: u16| {
        let ports =
            json!([{"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": "TCP"}]);
        json!({"containers": [{"name": "c", "image": "i", "ports": ports}]})
    };
    let other = pod("o", json!({"spec": with("10.0.0.1", 80)}));
    let taken = "node(s) didn't have free ports for the requested pod ports";
    let rows = [(with("", 80), taken), (with("10.0.0.2", 80), ""), (with("", 81), "")];
    for (spec, expected) in rows {
        assert_eq!(reason(&spec, json!({}), std::slice::from_ref(&other)), expected, "{spec}");
    }
}

#[test]
fn resources() {
    let gpu = |count: u8| {
        let requests = json!({"example.com/gpu": count.to_string(), "ephemeral-storage": "1Gi"});
        json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]})
    };
    let with_gpu =
        || json!({"status": {"allocatable": {"example.com/gpu": "2", "ephemeral-storage": "2Gi"}}});
    let full = || json!({"status": {"allocatable": {"pods": "1"}}});
    let cpu = |cpu: &str| pod("o", json!({"spec": requesting(cpu, "1Gi")}));
    let with_init = json!({
        "initContainers": requesting("3", "1Gi")["containers"],
        "containers": requesting("1", "1Gi")["containers"],
    });
    let rows = [
        (requesting("3", "7Gi"), json!({}), vec![cpu("1")], ""),
        (requesting("3100m", "7Gi"), json!({}), vec![cpu("1")], "Insufficient cpu"),
        (
            requesting("4", "8Gi"),
            json!({}),
            vec![cpu("1")],
            "Insufficient cpu, Insufficient memory",
        ),
        (json!({}), full(), vec![cpu("1")], "Too many pods"),
        (requesting("4", "1"), full(), vec![cpu("1")], "Too many pods, Insufficient cpu"),
        (json!({}), json!({}), vec![cpu("9")], ""),
        (with_init.clone(), json!({}), vec![cpu("1")], ""),
        (with_init, json!({}), vec![cpu("2")], "Insufficient cpu"),
        (gpu(2), with_gpu(), vec![], ""),
        (
            gpu(1),
            with_gpu(),
            vec![pod("o", json!({"spec": gpu(2)}))],
            "Insufficient example.com/gpu",
        ),
        (gpu(3), json!({}), vec![], "Insufficient ephemeral-storage, Insufficient example.com/gpu"),
    ];
    for (spec, over, others, expected) in rows {
        assert_eq!(reason(&spec, over, &others), expected, "{spec}");
    }
}

// === pods and pods ===

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn labelled(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}})
}

fn term(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn beside(terms: &[Value]) -> Value {
    json!({"spec": {"affinity": {"podAffinity": {REQUIRED: terms}}}})
}

fn apart(terms: &[Value]) -> Value {
    json!({"spec": {"affinity": {"podAntiAffinity": {REQUIRED: terms}}}})
}

/// Two nodes in zone 1, one in zone 2, one in none.
fn zones() -> [Arc<k8s_openapi::api::core::v1::Node>; 4] {
    let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    [("a", zone("1")), ("b", zone("1")), ("c", zone("2")), ("d", json!({}))]
        .map(|(name, over)| node(name, over))
}

#[test]
fn beside_and_apart() {
    let no_affinity = "node(s) didn't match pod affinity rules";
    let no_anti = "node(s) didn't match pod anti-affinity rules";
    let unwilling = "node(s) didn't satisfy existing pods anti-affinity rules";
    let host = "kubernetes.io/hostname";
    let other_namespace = |mut term: Value, more: Value| {
        term = merged(term, more);
        beside(&[term])
    };
    let rows = [
        (labelled("x"), beside(&[term("db", "zone")]), [no_affinity; 4]),
        (labelled("db"), beside(&[term("db", "zone")]), ["", "", no_affinity, no_affinity]),
        (labelled("db"), beside(&[term("db", host)]), ["", no_affinity, no_affinity, no_affinity]),
        (labelled("db"), beside(&[term("db", "zone"), term("x", "zone")]), [no_affinity; 4]),
        // The first of its kind, where there is a zone.
        (
            labelled("x"),
            merged(beside(&[term("db", "zone")]), labelled("db")),
            ["", "", "", no_affinity],
        ),
        (labelled("db"), apart(&[term("db", "zone")]), [no_anti, no_anti, "", ""]),
        (labelled("db"), apart(&[term("db", host)]), [no_anti, "", "", ""]),
        (labelled("db"), apart(&[term("x", "zone"), term("db", host)]), [no_anti, "", "", ""]),
        (apart(&[term("db", "zone")]), labelled("db"), [unwilling, unwilling, "", ""]),
        (apart(&[term("db", "zone")]), labelled("x"), [""; 4]),
        // In another namespace only if it says so.
        (
            merged(labelled("db"), json!({"metadata": {"namespace": "other"}})),
            beside(&[term("db", "zone")]),
            [no_affinity; 4],
        ),
        (
            merged(labelled("db"), json!({"metadata": {"namespace": "other"}})),
            other_namespace(term("db", "zone"), json!({"namespaces": ["other"]})),
            ["", "", no_affinity, no_affinity],
        ),
        (
            merged(labelled("db"), json!({"metadata": {"namespace": "other"}})),
            other_namespace(
                term("db", "zone"),
                json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}),
            ),
            ["", "", no_affinity, no_affinity],
        ),
        (
            merged(labelled("db"), json!({"metadata": {"namespace": "other"}})),
            other_namespace(
                term("db", "zone"),
                json!({"namespaceSelector": {"matchLabels": {"team": "c"}}}),
            ),
            [no_affinity; 4],
        ),
    ];
    for (there, wanted, expected) in rows {
        let mut snapshot = snapshot(zones(), [("a", pod("o", there.clone()))]);
        let team = [("team".to_owned(), "b".to_owned())].into();
        snapshot.namespaces.insert("other".to_owned(), team);
        let wanted = pod("p", wanted);
        assert_eq!(reasons(&wanted, &snapshot), expected, "{there} {:?}", wanted.kind);
    }
}

#[test]
fn match_label_keys_narrow_terms() {
    let with_keys = |keys: Value| {
        let own = json!({"metadata": {"labels": {"app": "db", "v": "1"}}});
        merged(apart(&[merged(term("db", "zone"), keys)]), own)
    };
    let there = json!({"metadata": {"labels": {"app": "db", "v": "2"}}});
    let snapshot = snapshot(zones(), [("a", pod("o", there))]);
    let hits = |keys: Value| {
        let found = reasons(&pod("p", with_keys(keys)), &snapshot);
        found.iter().filter(|reason| !reason.is_empty()).count()
    };
    assert_eq!(hits(json!({})), 2);
    assert_eq!(hits(json!({"matchLabelKeys": ["v"]})), 0);
    assert_eq!(hits(json!({"mismatchLabelKeys": ["v"]})), 2);
}

#[test]
fn spread_evenly() {
    let over = |more: Value| {
        let base = json!({
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "x"}},
        });
        merged(labelled("x"), json!({"spec": {"topologySpreadConstraints": [merged(base, more)]}}))
    };
    let missing = "node(s) didn't match pod topology spread constraints (missing required label)";
    let uneven = "node(s) didn't match pod topology spread constraints";
    let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let rows = [
        (vec![], json!({}), ["", "", "", missing]),
        (vec![labelled("x")], json!({}), [uneven, uneven, "", missing]),
        (vec![labelled("y")], json!({}), ["", "", "", missing]),
        (vec![labelled("x")], json!({"maxSkew": 2}), ["", "", "", missing]),
        (vec![labelled("x"), labelled("x")], json!({"maxSkew": 2}), [uneven, uneven, "", missing]),
        (vec![merged(labelled("x"), ending)], json!({}), ["", "", "", missing]),
        (vec![], json!({"minDomains": 3}), ["", "", "", missing]),
        (vec![labelled("x")], json!({"minDomains": 3}), [uneven, uneven, "", missing]),
        (vec![labelled("x")], json!({"whenUnsatisfiable": "ScheduleAnyway"}), [""; 4]),
        (
            vec![labelled("x")],
            json!({"topologyKey": "kubernetes.io/hostname"}),
            [uneven, "", "", ""],
        ),
    ];
    for (there, more, expected) in rows {
        let pods = there
            .iter()
            .enumerate()
            .map(|(index, over)| ("a", pod(if index == 0 { "o" } else { "q" }, over.clone())));
        let snapshot = snapshot(zones(), pods);
        assert_eq!(reasons(&pod("p", over(more.clone())), &snapshot), expected, "{there:?} {more}");
    }
}

#[test]
fn only_nodes_that_the_pod_may_have_count_for_its_spread() {
    let base = json!({
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}},
    });
    let over = |more: Value| {
        let constraint = merged(base.clone(), more);
        let spec =
            json!({"topologySpreadConstraints": [constraint], "nodeSelector": {"zone": "1"}});
        merged(labelled("x"), json!({"spec": spec}))
    };
    let snapshot = snapshot(zones(), [("a", pod("o", labelled("x")))]);
    let first = |more: Value| reasons(&pod("p", over(more)), &snapshot).swap_remove(0);
    assert_eq!(first(json!({})), "");
    let uneven = "node(s) didn't match pod topology spread constraints";
    assert_eq!(first(json!({"nodeAffinityPolicy": "Ignore"})), uneven);
}

#[test]
fn counts_follow_pods_that_are_thought_away() {
    let one = || [("a", pod("o", merged(apart(&[term("x", "zone")]), labelled("x"))))];
    let snapshot = snapshot(zones(), one());
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}},
    }]);
    let wanted = merged(
        merged(apart(&[term("x", "zone")]), labelled("x")),
        json!({"spec": {"topologySpreadConstraints": spread}}),
    );
    let wanted = PodInfo::new(object("p", wanted)).unwrap();
    let slot = snapshot.named("a").unwrap();
    let (info, node) = snapshot.at(slot).unwrap();
    let mut filters = Filters::new(&wanted, &snapshot);
    let there = snapshot.pod("o").unwrap();
    assert!(filters.check(info, node).is_err());
    filters.change(&snapshot, there, slot, -1);
    assert_eq!(filters.check(info, node), Ok(()));
    filters.change(&snapshot, there, slot, 1);
    assert!(filters.check(info, node).is_err());
}
