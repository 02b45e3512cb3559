use super::super::testing::pod;
use super::*;

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

#[test]
fn why_a_pod_waits_is_told_once() {
    let new = pod("p", json!({"metadata": {"generation": 1}}));
    let told = status(&new, "Unschedulable", "why", Some(""), now()).unwrap();
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "why",
        "observedGeneration": 1, "lastProbeTime": null,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    assert_eq!(told, json!({"conditions": [condition]}));
    let over = json!({"metadata": {"generation": 1}, "status": told});
    let known = pod("p", over);
    assert_eq!(status(&known, "Unschedulable", "why", Some(""), now()), None);
    // Since when it waits does not change with the reason.
    let other = status(&known, "Unschedulable", "other", None, now()).unwrap();
    assert_eq!(other["conditions"][0].get("lastTransitionTime"), None);
}

#[test]
fn nominations_are_written_where_they_change() {
    let rows = [
        (json!(null), None, json!(null)),
        (json!(null), Some("a"), json!("a")),
        (json!("a"), Some("a"), json!(null)),
        (json!("a"), None, json!(null)),
    ];
    for (before, node, expected) in rows {
        let pod = pod("p", json!({"status": {"nominatedNodeName": before.clone()}}));
        let status = status(&pod, "Unschedulable", "why", node, now()).unwrap();
        assert_eq!(status["nominatedNodeName"], expected, "{before} {node:?}");
    }
    let pod = pod("p", json!({"status": {"nominatedNodeName": "a"}}));
    let status = status(&pod, "Unschedulable", "why", Some(""), now()).unwrap();
    assert_eq!(status.get("nominatedNodeName"), Some(&Value::Null));
}

#[test]
fn long_reasons_are_cut() {
    assert_eq!(note("short"), "short");
    let long = note(&"é".repeat(600));
    assert!(long.len() <= LONGEST_NOTE && long.len() > LONGEST_NOTE - 6 && long.ends_with(" ..."));
}
