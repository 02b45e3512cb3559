use super::*;

fn pod(status: &Value) -> Object {
    Object::from_json(json!({
        "metadata": {"name": "p", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "a", "containers": [{"name": "c"}, {"name": "d"}]},
        "status": status,
    }))
}

fn shown(object: &Object) -> [String; 3] {
    let now = "2026-01-01T00:01:00Z".parse().unwrap();
    let cells = table::row(object, now);
    [1, 2, 3].map(|at| cells[at].as_str().unwrap().to_owned())
}

#[test]
fn rows_say_what_the_containers_do() {
    let running = json!({"state": {"running": {}}, "ready": true, "restartCount": 0});
    let crash = json!({
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 2,
        "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:50Z"}},
    });
    let done = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    let cases = [
        (json!({"phase": "Pending"}), ["0/2", "Pending", "0"]),
        (
            json!({"phase": "Running", "containerStatuses": [running, running]}),
            ["2/2", "Running", "0"],
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, crash]}),
            ["1/2", "CrashLoopBackOff", "2 (10s ago)"],
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, done]}),
            ["1/2", "NotReady", "0"],
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [done, done]}),
            ["0/2", "Completed", "0"],
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), ["0/2", "Evicted", "0"]),
    ];
    for (status, expected) in cases {
        assert_eq!(shown(&pod(&status)), expected, "{status}");
    }
    let mut going = pod(&json!({"phase": "Running", "containerStatuses": [running, running]}));
    going.meta_mut().insert("deletionTimestamp".into(), "2026-01-01T00:02:00Z".into());
    assert_eq!(shown(&going), ["2/2", "Terminating", "0"]);
}

#[test]
fn images_may_change_and_little_else() {
    let mut old = Object::from_json(json!({
        "metadata": {"name": "p", "namespace": "n", "resourceVersion": "1"},
        "spec": {"containers": [{"name": "c", "image": "a"}]},
    }));
    Pods.default(&mut old);
    let mut new = old.clone();
    new.0["spec"]["containers"][0]["image"] = "b".into();
    assert_eq!(Pods.validate_update(&new, &old), []);
    new.0["spec"]["hostNetwork"] = true.into();
    let errors = Pods.validate_update(&new, &old);
    let text = errors.last().unwrap().to_string();
    assert!(text.starts_with("spec: Forbidden: pod updates may not change fields other than"));
    assert!(text.ends_with("  spec.hostNetwork: null → true"), "{text}");
    new.0["spec"]["containers"] = json!([]);
    assert!(Pods.validate_update(&new, &old).iter().any(|error| {
        error.to_string()
            == "spec.containers: Forbidden: pod updates may not add or remove containers"
    }));
}
