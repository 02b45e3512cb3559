use serde_json::{Value, json};

use super::super::testing::{object, pod, requesting};
use super::*;

#[test]
fn stages() {
    let rows: [(Value, Stage); 8] = [
        (json!({}), Stage::Pending),
        (json!({"spec": {"nodeName": ""}}), Stage::Pending),
        (json!({"spec": {"nodeName": "n"}}), Stage::Assigned),
        (json!({"spec": {"nodeName": "n", "schedulerName": "x"}}), Stage::Assigned),
        (json!({"spec": {"schedulerName": "x"}}), Stage::Foreign),
        (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), Stage::Foreign),
        (json!({"spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}}), Stage::Ended),
        (json!({"status": {"phase": "Failed"}}), Stage::Ended),
    ];
    for (over, expected) in rows {
        assert_eq!(stage(&object("p", over.clone())), expected, "{over}");
    }
}

#[test]
fn what_requests_nothing_counts_all_the_same_where_nodes_are_compared() {
    let rows = [
        (json!({}), [100, 200 << 20]),
        (requesting("2", "1Gi"), [2000, 1 << 30]),
        (json!({"containers": [{"name": "a"}, {"name": "b"}]}), [200, 400 << 20]),
        (
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}),
            [1000, 200 << 20],
        ),
    ];
    for (spec, expected) in rows {
        assert_eq!(pod("p", json!({"spec": spec.clone()})).scored, expected, "{spec}");
    }
    assert!(pod("p", json!({})).requests.is_nothing());
}
