//! The cases were compared with the answers of Kubernetes' own package.

#![expect(clippy::needless_pass_by_value, reason = "cases read better without references")]

mod diff;

use serde_json::{Value, json};

use super::{PatchError, Verdict, merge};
use crate::types;

fn patched(kind: &str, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let group = if matches!(kind, "Deployment" | "ControllerRevision") { "apps" } else { "" };
    let of = types::of(group, "v1", kind).unwrap();
    merge(object.clone(), &mut patch.clone(), of)
}

#[track_caller]
fn check(kind: &str, object: Value, patch: Value, expected: Value) {
    assert_eq!(patched(kind, &object, &patch), Ok(expected));
}

#[track_caller]
fn fails(kind: &str, object: Value, patch: Value, verdict: Verdict, text: &str) {
    let error = patched(kind, &object, &patch).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.verdict()), (text, verdict));
}

fn pod(spec: Value) -> Value {
    Value::Object([("spec".to_owned(), spec)].into_iter().collect())
}

#[test]
fn maps_merge_and_null_removes() {
    check(
        "Pod",
        json!({"metadata": {"labels": {"a": "1", "b": "2"}, "name": "x"}}),
        json!({"metadata": {"labels": {"a": null, "c": "3", "d": null}}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}, "name": "x"}}),
    );
    // What is not there yet is taken without its nulls and without what it would delete.
    check(
        "Pod",
        json!({}),
        pod(
            json!({"hostname": null, "containers": [{"name": "a", "image": null}, {"name": "b", "$patch": "delete"}]}),
        ),
        pod(json!({"containers": [{"name": "a"}]})),
    );
}

#[test]
fn lists_of_objects_merge_by_their_key() {
    let two = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]);
    check(
        "Pod",
        pod(json!({ "containers": two })),
        pod(json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]})),
        pod(json!({"containers": [
            {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"},
        ]})),
    );
    check(
        "Pod",
        pod(json!({ "containers": two })),
        pod(json!({"containers": [{"name": "a", "$patch": "delete"}]})),
        pod(json!({"containers": [{"name": "b", "image": "1"}]})),
    );
    check(
        "Pod",
        pod(json!({ "containers": two })),
        pod(json!({"containers": [{"$patch": "replace"}, {"name": "z"}]})),
        pod(json!({"containers": [{"name": "z"}]})),
    );
}

#[test]
fn the_order_is_the_patchs_then_the_servers() {
    let names =
        |names: &[&str]| -> Value { names.iter().map(|name| json!({ "name": name })).collect() };
    check(
        "Pod",
        pod(json!({"containers": names(&["a", "b", "c", "d"])})),
        pod(json!({
            "$setElementOrder/containers": names(&["d", "new", "b"]),
            "containers": names(&["new"]),
        })),
        pod(json!({"containers": names(&["a", "c", "d", "new", "b"])})),
    );
    check(
        "Pod",
        json!({"metadata": {"finalizers": ["x", "y", "z"]}}),
        json!({"metadata": {
            "$setElementOrder/finalizers": ["z", "w"],
            "$deleteFromPrimitiveList/finalizers": ["x"],
            "finalizers": ["w"],
        }}),
        json!({"metadata": {"finalizers": ["y", "z", "w"]}}),
    );
}

#[test]
fn other_lists_are_replaced() {
    check(
        "Pod",
        pod(
            json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}),
        ),
        pod(json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]})),
        pod(json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]})),
    );
}

#[test]
fn directives_in_objects() {
    let deployment =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    check(
        "Deployment",
        deployment.clone(),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check(
        "Deployment",
        deployment.clone(),
        json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check(
        "Deployment",
        deployment.clone(),
        json!({"spec": {"strategy": {"$patch": "delete"}}}),
        json!({"spec": {"strategy": {}}}),
    );
    fails(
        "Deployment",
        deployment.clone(),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
        Verdict::BadRequest,
        "invalid patch format of retainKeys",
    );
    fails(
        "Deployment",
        deployment,
        json!({"spec": {"strategy": {"$patch": "merge", "type": "x"}}}),
        Verdict::Internal,
        "unknown patch type: merge in map: map[$patch:merge type:x]",
    );
}

#[test]
fn what_is_malformed_is_named() {
    let two = json!([{"name": "a"}, {"name": "b"}]);
    fails(
        "Pod",
        pod(json!({ "containers": two })),
        pod(json!({"containers": [{"image": "x"}]})),
        Verdict::Internal,
        "map: map[image:x] does not contain declared merge key: name",
    );
    fails(
        "Pod",
        pod(json!({ "containers": two })),
        pod(json!({"containers": [{"$patch": "delete"}]})),
        Verdict::Internal,
        "map: map[$patch:delete] does not contain declared merge key: name",
    );
    fails(
        "Pod",
        pod(json!({ "containers": two })),
        pod(json!({"containers": [{"name": "a", "$patch": "merge"}]})),
        Verdict::Internal,
        "merging lists cannot yet be specified in the patch",
    );
    fails(
        "Pod",
        pod(json!({ "containers": two })),
        pod(
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a"}, {"name": "b"}]}),
        ),
        Verdict::Internal,
        "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:b] map[name:a]]\n",
    );
    fails(
        "Pod",
        pod(json!({ "containers": two })),
        pod(json!({"$setElementOrder/containers": "a"})),
        Verdict::Internal,
        "expected a []interface {}, but received a string",
    );
    fails(
        "Pod",
        pod(json!({ "containers": two })),
        pod(json!({"containers": ["a"]})),
        Verdict::Internal,
        "list element types are not identical: [[map[name:a] map[name:b]] [a]]",
    );
    fails(
        "Pod",
        json!({"metadata": {"finalizers": ["a"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList": ["a"]}}),
        Verdict::BadRequest,
        "invalid patch format of primitive list",
    );
    fails(
        "Pod",
        json!({"metadata": {"finalizers": [["a"]]}}),
        json!({"metadata": {"finalizers": ["a"]}}),
        Verdict::Unprocessable,
        "lists of lists are not supported",
    );
    fails(
        "ControllerRevision",
        json!({"data": {"spec": {}}}),
        json!({"data": {"spec": {}}}),
        Verdict::Internal,
        "unable to find api field in struct RawExtension for the json field \"spec\"",
    );
    fails(
        "Pod",
        json!({"foo": {}}),
        json!({"foo": {}}),
        Verdict::Internal,
        "unable to find api field in struct Pod for the json field \"foo\"",
    );
}

#[test]
fn a_long_list_takes_no_quadratic_time() {
    let names = |from: u32, to: u32| -> Vec<String> {
        (from..to).map(|number| format!("example.org/{number}")).collect()
    };
    let merged = patched(
        "Pod",
        &json!({"metadata": {"finalizers": names(0, 40_000)}}),
        &json!({"metadata": {"finalizers": names(20_000, 60_000)}}),
    );
    let merged = merged.unwrap();
    assert_eq!(merged["metadata"]["finalizers"], json!(names(0, 60_000)));
}
