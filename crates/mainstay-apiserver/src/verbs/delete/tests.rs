use super::*;
use crate::kinds;

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn time(offset: i64) -> String {
    object::time(Timestamp::from_second(NOW + offset).unwrap())
}

fn pod(meta: &Value) -> Object {
    let mut pod = Object::from_json(json!({
        "metadata": {"name": "p", "namespace": "n", "generation": 1},
        "spec": {"nodeName": "a", "terminationGracePeriodSeconds": 20},
        "status": {"phase": "Running"},
    }));
    for (key, value) in meta.as_object().unwrap() {
        pod.meta_mut().insert(key.clone(), value.clone());
    }
    pod
}

fn options(grace: Option<i64>) -> DeleteOptions {
    DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() }
}

fn decided(object: &Object, options: &DeleteOptions) -> Decision {
    decide(kinds::find("", "v1", "pods").unwrap(), object, options, now())
}

/// Grace and end of what is marked.
fn marked(decision: Decision) -> (i64, String, i64) {
    let Decision::Mark(object) = decision else { panic!("{decision:?}") };
    let grace = object.meta().unwrap()["deletionGracePeriodSeconds"].as_i64().unwrap();
    (grace, object.meta_str("deletionTimestamp").to_owned(), object.generation())
}

/// The same of what is told that its time is over, and taken out.
fn ended(decision: Decision) -> (i64, String, i64) {
    let Decision::End(object) = decision else { panic!("{decision:?}") };
    marked(Decision::Mark(object))
}

#[test]
fn a_pod_has_its_grace_period() {
    assert_eq!(marked(decided(&pod(&json!({})), &options(None))), (20, time(20), 2));
    assert_eq!(marked(decided(&pod(&json!({})), &options(Some(5)))), (5, time(5), 2));
    assert_eq!(marked(decided(&pod(&json!({})), &options(Some(-3)))), (1, time(1), 2));
    assert_eq!(ended(decided(&pod(&json!({})), &options(Some(0)))), (0, time(0), 2));
}

#[test]
fn what_does_not_run_is_gone_at_once() {
    let mut pending = pod(&json!({}));
    pending.field_mut("spec").remove("nodeName");
    assert_eq!(ended(decided(&pending, &options(None))), (0, time(0), 2));
    let mut done = pod(&json!({}));
    done.field_mut("status").insert("phase".into(), "Failed".into());
    assert_eq!(ended(decided(&done, &options(None))), (0, time(0), 2));
}

#[test]
fn a_grace_period_only_gets_shorter() {
    let going = pod(&json!({"deletionTimestamp": time(15), "deletionGracePeriodSeconds": 20}));
    assert_eq!(decided(&going, &options(None)), Decision::Wait);
    assert_eq!(decided(&going, &options(Some(30))), Decision::Wait);
    // It began five seconds ago.
    assert_eq!(marked(decided(&going, &options(Some(10)))), (10, time(5), 1));
    assert_eq!(marked(decided(&going, &options(Some(2)))), (1, time(0), 1));
    assert_eq!(ended(decided(&going, &options(Some(0)))), (0, time(0), 1));
    let over = pod(&json!({"deletionTimestamp": time(0), "deletionGracePeriodSeconds": 0}));
    assert_eq!(decided(&over, &options(Some(0))), Decision::Remove);
}

#[test]
fn finalizers_keep_an_object() {
    let held = pod(&json!({"finalizers": ["example.com/x"]}));
    assert_eq!(marked(decided(&held, &options(Some(0)))), (0, time(0), 2));
    let going = pod(&json!({
        "finalizers": ["example.com/x"], "deletionTimestamp": time(0),
        "deletionGracePeriodSeconds": 0,
    }));
    assert_eq!(decided(&going, &options(Some(0))), Decision::Wait);
    let hurried = pod(&json!({
        "finalizers": ["example.com/x"], "deletionTimestamp": time(20),
        "deletionGracePeriodSeconds": 20,
    }));
    assert_eq!(marked(decided(&hurried, &options(Some(0)))), (0, time(0), 1));
    let foreground =
        DeleteOptions { propagation_policy: Some("Foreground".into()), ..options(Some(0)) };
    let Decision::Mark(object) = decided(&pod(&json!({})), &foreground) else { panic!() };
    assert_eq!(object.meta().unwrap()["finalizers"], json!(["foregroundDeletion"]));
}
