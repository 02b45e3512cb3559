//! The cases were compared with the answers of Kubernetes' own packages.
#![expect(clippy::needless_pass_by_value, reason = "cases read better without references")]

mod rules;

use serde_json::{Value, json};

use super::{ApplyError, Writer, apply, update};
use crate::decode;
use crate::types::{self, Type};

const DEPLOYMENT: &str = "apps/v1";

fn deployment() -> &'static Type {
    types::of("apps", "v1", "Deployment").unwrap()
}

fn pod() -> &'static Type {
    types::of("", "v1", "Pod").unwrap()
}

fn writer<'a>(manager: &'a str, second: i64) -> Writer<'a> {
    let now = jiff::Timestamp::from_second(second).unwrap();
    Writer { manager, api_version: DEPLOYMENT, subresource: "", resets: &[], only: &[], now }
}

fn pod_writer(manager: &str) -> Writer<'_> {
    Writer { api_version: "v1", ..writer(manager, 0) }
}

/// As the API server has objects: decoded, with a UID.
fn stored(object: Value, of: &'static Type) -> Value {
    let decoded = decode::from_value(object, of, |text| Some(text.to_owned())).unwrap();
    let mut object = decoded.object;
    object["metadata"]["uid"] = json!("u");
    object
}

fn web(spec: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"}, "spec": spec,
    })
}

/// Manager, operation and fields of each entry.
fn held(object: &Value) -> Vec<(String, String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| {
            (text(&entry["manager"]), text(&entry["operation"]), entry["fieldsV1"].clone())
        })
        .collect()
}

fn entry(manager: &str, operation: &str, fields: Value) -> (String, String, Value) {
    (manager.to_owned(), operation.to_owned(), fields)
}

fn created(spec: Value, manager: &str) -> Value {
    let mut object = stored(web(spec), deployment());
    object["metadata"].as_object_mut().unwrap().remove("uid");
    update(None, &mut object, deployment(), &writer(manager, 0));
    object["metadata"]["uid"] = json!("u");
    object
}

#[test]
fn a_create_is_held_by_who_creates() {
    let object = created(json!({"replicas": 1, "paused": true}), "kubectl-create");
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1",
            "time": "1970-01-01T00:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}},
        }])
    );
}

#[test]
fn an_update_takes_what_it_changes_and_no_more() {
    let live = created(json!({"replicas": 1, "paused": true, "minReadySeconds": 3}), "one");
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(2);
    new["spec"].as_object_mut().unwrap().remove("paused");
    update(Some(live.clone()), &mut new, deployment(), &writer("two", 61));
    assert_eq!(
        held(&new),
        [
            entry("one", "Update", json!({"f:spec": {"f:minReadySeconds": {}}})),
            entry("two", "Update", json!({"f:spec": {"f:replicas": {}}})),
        ]
    );
    assert_eq!(new["metadata"]["managedFields"][1]["time"], "1970-01-01T00:01:01Z");

    // Nothing changed, so nothing is written.
    let mut same = new.clone();
    update(Some(new.clone()), &mut same, deployment(), &writer("three", 99));
    assert_eq!(same, new);
}

#[test]
fn items_of_lists_are_held_by_their_keys() {
    let spec = json!({
        "containers": [{"name": "a", "ports": [{"containerPort": 80}], "args": ["x"]}],
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "x"}],
    });
    let mut object = stored(json!({"metadata": {"finalizers": ["f"]}, "spec": spec}), pod());
    update(None, &mut object, pod(), &pod_writer("me"));
    assert_eq!(
        held(&object)[0].2,
        json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"f\"": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"a\"}": {
                    ".": {}, "f:name": {}, "f:args": {}, "f:resources": {},
                    "f:ports": {
                        ".": {},
                        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
                    },
                }},
                "f:nodeSelector": {},
                "f:tolerations": {},
            },
        })
    );
}

#[test]
fn apply_creates_merges_and_removes() {
    let config = web(json!({"replicas": 1, "minReadySeconds": 2}));
    let first = apply(None, &config, deployment(), &writer("me", 0), false).unwrap();
    let fields = json!({"f:spec": {"f:replicas": {}, "f:minReadySeconds": {}}});
    assert_eq!(held(&first), [entry("me", "Apply", fields)]);

    let live = stored(first, deployment());
    let again = apply(Some(live.clone()), &config, deployment(), &writer("me", 9), false).unwrap();
    assert_eq!(again, live);

    let config = web(json!({"replicas": 3}));
    let second = apply(Some(live.clone()), &config, deployment(), &writer("me", 9), false).unwrap();
    assert_eq!(second["spec"]["replicas"], 3);
    assert_eq!(second["spec"].get("minReadySeconds"), None);
    assert_eq!(held(&second), [entry("me", "Apply", json!({"f:spec": {"f:replicas": {}}}))]);
}

#[test]
fn what_another_holds_too_stays() {
    let first = apply(None, &web(json!({"replicas": 1})), deployment(), &writer("a", 0), false);
    let live = stored(first.unwrap(), deployment());
    let second = apply(
        Some(live.clone()),
        &web(json!({"replicas": 1})),
        deployment(),
        &writer("b", 1),
        false,
    );
    let live = stored(second.unwrap(), deployment());
    let fields = json!({"f:spec": {"f:replicas": {}}});
    assert_eq!(
        held(&live),
        [entry("a", "Apply", fields.clone()), entry("b", "Apply", fields.clone())]
    );
    let gone =
        apply(Some(live.clone()), &web(json!({})), deployment(), &writer("a", 2), false).unwrap();
    assert_eq!(gone["spec"]["replicas"], 1);
    // What is empty but mentioned is held.
    let empty = json!({"f:spec": {}});
    assert_eq!(held(&gone), [entry("a", "Apply", empty), entry("b", "Apply", fields)]);
}

#[test]
fn conflicts_name_the_manager_and_the_field() {
    let live = created(json!({"replicas": 1, "minReadySeconds": 1}), "kubectl-client-side-apply");
    let conflict = |spec: Value| {
        apply(Some(live.clone()), &web(spec), deployment(), &writer("me", 1), false).unwrap_err()
    };
    let one = conflict(json!({"replicas": 2, "minReadySeconds": 1}));
    assert_eq!(
        one.to_string(),
        r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas"#
    );
    let ApplyError::Conflicts(conflicts) = &one else { panic!("{one:?}") };
    let causes: Vec<(String, String)> =
        conflicts.iter().map(|conflict| (conflict.message(), conflict.field())).collect();
    assert_eq!(
        causes,
        [(
            r#"conflict with "kubectl-client-side-apply" using apps/v1"#.to_owned(),
            ".spec.replicas".to_owned()
        )]
    );
    let two = conflict(json!({"replicas": 2, "minReadySeconds": 2}));
    assert_eq!(
        two.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n\
         - .spec.minReadySeconds\n- .spec.replicas"
    );

    let forced = apply(
        Some(live.clone()),
        &web(json!({"replicas": 2})),
        deployment(),
        &writer("me", 1),
        true,
    );
    assert_eq!(
        held(&forced.unwrap()),
        [
            entry("me", "Apply", json!({"f:spec": {"f:replicas": {}}})),
            entry(
                "kubectl-client-side-apply",
                "Update",
                json!({"f:spec": {"f:minReadySeconds": {}}})
            ),
        ]
    );
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let mut live = created(json!({"replicas": 1}), "kubectl-client-side-apply");
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let last = web(json!({"replicas": 1})).to_string();
    live["metadata"]["annotations"] = json!({ annotation: last });
    let config = web(json!({"replicas": 2}));
    let error = apply(Some(live.clone()), &config, deployment(), &writer("me", 1), false);
    assert!(matches!(error, Err(ApplyError::Conflicts(_))));
    let applied =
        apply(Some(live.clone()), &config, deployment(), &writer("kubectl", 1), false).unwrap();
    assert_eq!(applied["spec"]["replicas"], 2);
    let renewed = applied["metadata"]["annotations"][annotation].as_str().unwrap();
    assert_eq!(renewed, format!("{config}\n"));
}

#[test]
fn what_does_not_fit_the_type_is_refused() {
    let text = |config: Value| {
        apply(None, &config, deployment(), &writer("me", 0), false).unwrap_err().to_string()
    };
    assert_eq!(
        text(web(json!({"foo": 1}))),
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.foo: field \
         not declared in schema"
    );
    assert_eq!(
        text(web(json!({"replicas": "1", "paused": 2, "template": []}))),
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): errors:\n  \
         .spec.paused: expected boolean, got &{2}\n  \
         .spec.replicas: expected numeric (int or float), got string\n  \
         .spec.template: expected map, got &{[]}"
    );
    let containers =
        |containers: Value| web(json!({"template": {"spec": {"containers": containers}}}));
    assert_eq!(
        text(containers(json!([{"name": "a"}, {"name": "a"}]))),
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): \
         .spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
    assert_eq!(
        text(containers(json!([{"name": "a", "image": 1}]))),
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): \
         .spec.template.spec.containers[name=\"a\"].image: expected string, got \
         &value.valueUnstructured{Value:1}"
    );
    let mut config = web(json!({}));
    config["kind"] = json!("Pod");
    assert_eq!(text(config), "invalid object type: apps/v1, Kind=Pod");
    let mut config = web(json!({}));
    config["metadata"]["managedFields"] = json!([]);
    assert_eq!(text(config), "metadata.managedFields must be nil");
}

#[test]
fn clients_can_send_managed_fields_or_reset_them() {
    let live = created(json!({"replicas": 1}), "one");
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["manager"] = json!("renamed");
    update(Some(live.clone()), &mut new, deployment(), &writer("two", 1));
    assert_eq!(held(&new)[0].0, "renamed");

    for reset in [json!([{}]), json!([])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        let mut new = stored(new, deployment());
        update(Some(live.clone()), &mut new, deployment(), &writer("two", 1));
        assert_eq!(new["metadata"].get("managedFields"), None);
    }

    // Garbage, and through a subresource anything, gives way to what is there.
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Eat"}]);
    update(Some(live.clone()), &mut new, deployment(), &writer("two", 1));
    assert_eq!(new, live);
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["manager"] = json!("renamed");
    let status = Writer { subresource: "status", ..writer("two", 1) };
    update(Some(live.clone()), &mut new, deployment(), &status);
    assert_eq!(new, live);
}

#[test]
fn fields_that_a_write_resets_are_not_held() {
    let live = stored(json!({"spec": {"containers": [{"name": "a"}]}}), pod());
    let live = {
        let mut object = live.clone();
        object["metadata"].as_object_mut().unwrap().remove("uid");
        update(None, &mut object, pod(), &pod_writer("one"));
        object["metadata"]["uid"] = json!("u");
        object
    };
    let mut new = live.clone();
    new["status"]["phase"] = json!("Running");
    new["spec"]["nodeName"] = json!("n");
    new["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
    let track = |resets: &[&str]| {
        let mut new = new.clone();
        let by = Writer { resets, subresource: "x", ..pod_writer("two") };
        update(Some(live.clone()), &mut new, pod(), &by);
        held(&new).into_iter().find(|held| held.0 == "two").unwrap().2
    };
    assert_eq!(track(&["spec", "metadata"]), json!({"f:status": {"f:phase": {}}}));
}

#[test]
fn old_updaters_are_merged() {
    let mut live = created(json!({"replicas": 0}), "creator");
    for number in 0..15 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{number}")] = json!("x");
        let manager = format!("m{number:02}");
        update(Some(live.clone()), &mut new, deployment(), &writer(&manager, 10 + number));
        live = new;
    }
    let names: Vec<String> = held(&live).into_iter().map(|held| held.0).collect();
    assert_eq!(names.len(), 10);
    assert_eq!(names[0], "ancient-changes");
    assert_eq!(names[9], "m14");
}

#[test]
fn an_object_without_managers_gets_one_before_the_first_apply() {
    let live = stored(web(json!({"replicas": 1, "paused": true})), deployment());
    let config = web(json!({"replicas": 1}));
    let applied =
        apply(Some(live.clone()), &config, deployment(), &writer("me", 1), false).unwrap();
    assert_eq!(
        held(&applied),
        [
            entry("me", "Apply", json!({"f:spec": {"f:replicas": {}}})),
            entry(
                "before-first-apply",
                "Update",
                json!({"f:spec": {"f:replicas": {}, "f:paused": {}}})
            ),
        ]
    );
}
