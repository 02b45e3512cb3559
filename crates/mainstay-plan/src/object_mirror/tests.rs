use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::*;

const NODE: (&str, Option<&str>) = ("n1", Some("node-uid"));

fn map(json: Value) -> Object {
    Object::from(serde_json::from_value::<ConfigMap>(json).unwrap())
}

fn secret(json: Value) -> Object {
    Object::from(serde_json::from_value::<Secret>(json).unwrap())
}

fn named(kind: ObjectKind, name: &str) -> ObjectName {
    ObjectName { kind, namespace: "shop".to_owned(), name: name.to_owned() }
}

fn mirror(text: &str) -> Mirror {
    let map = map(json!({"metadata": {"labels": {"app": "web"}}, "data": {"a": text}}));
    Mirror::new(&named(ObjectKind::ConfigMap, "web"), &map, "/m/web.yaml", "n1").unwrap()
}

fn held(object: &Value, change: impl FnOnce(&mut Value)) -> Held {
    let mut metadata = object["metadata"].clone();
    metadata["uid"] = "u1".into();
    change(&mut metadata);
    Held::of(&serde_json::from_value(metadata).unwrap(), "n1")
}

#[test]
fn it_is_what_was_written_with_where_it_lies_and_whose_it_is() {
    let Some(Action::Create(created)) = next(Some(&mirror("x")), None, NODE) else {
        panic!("nothing is there")
    };
    let hash = created["metadata"]["annotations"]["kubernetes.io/config.hash"].clone();
    let expected = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "web.mainstay-n1",
            "namespace": "shop",
            "labels": {"app": "web", "mainstay.dev/config.node": "n1"},
            "annotations": {
                "mainstay.dev/config.path": "/m/web.yaml",
                "kubernetes.io/config.hash": hash,
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid",
                "controller": true,
            }],
        },
        "data": {"a": "x"},
    });
    assert_eq!(created, expected);
}

#[test]
fn bytes_are_where_each_kind_has_them() {
    let binary = map(json!({"metadata": {}, "binaryData": {"b": "/w=="}}));
    let name = named(ObjectKind::ConfigMap, "web");
    let shown = Mirror::new(&name, &binary, "f", "n1").unwrap().object;
    assert_eq!(shown["binaryData"], json!({"b": "/w=="}));
    let written = json!({"metadata": {}, "type": "Opaque", "stringData": {"s": "a"}});
    let name = named(ObjectKind::Secret, "db");
    let shown = Mirror::new(&name, &secret(written), "f", "n1").unwrap().object;
    assert_eq!((&shown["data"], &shown["type"]), (&json!({"s": "YQ=="}), &json!("Opaque")));
    // What is a credential of the service is nowhere in plain, not even as a hash.
    let written = json!({"metadata": {}, "stringData": {"s": "a"}});
    let mut kept = secret(written.clone());
    kept.values.insert("k".to_owned(), ObjectValue::Bytes((*b"kept").into()));
    let credential = ("k".to_owned(), "c".to_owned());
    kept.written.as_mut().unwrap().credentials = [credential].into();
    let of_all = Mirror::new(&name, &kept, "f", "n1").unwrap();
    let of_rest = Mirror::new(&name, &secret(written), "f", "n1").unwrap();
    assert_eq!((of_all.object, of_all.hash), (of_rest.object, of_rest.hash));
}

#[test]
fn what_cannot_be_shown_says_why() {
    let long = named(ObjectKind::ConfigMap, &"a".repeat(251));
    let map = map(json!({"metadata": {}}));
    let why = Mirror::new(&long, &map, "f", "n1").unwrap_err();
    assert!(why.ends_with("have more than 253 characters"), "{why}");
    let node = "n".repeat(64);
    let name = named(ObjectKind::ConfigMap, "web");
    let why = Mirror::new(&name, &map, "f", &node).unwrap_err();
    assert!(why.ends_with("the node's name has more than 63 characters"), "{why}");
    for never in IDENTITY_SECRETS {
        let secret = secret(json!({"metadata": {}, "type": never}));
        let name = named(ObjectKind::Secret, "db");
        let why = Mirror::new(&name, &secret, "f", "n1").unwrap_err();
        assert!(why.starts_with("Secret shop/db of f is not shown: "), "{why}");
    }
}

#[test]
fn one_that_shows_something_else_goes() {
    let mirror = mirror("x");
    let object = mirror.owned("n1", "node-uid");
    let other = self::mirror("y").owned("n1", "node-uid");
    let as_it_is = |_: &mut Value| {};
    let deleted = Some(Action::Delete { uid: "u1".to_owned() });
    let of_other_node = |it: &mut Value| it["ownerReferences"][0]["uid"] = "old".into();
    let deleting = |it: &mut Value| it["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let foreign = |it: &mut Value| it["name"] = "copy".into();
    let orphan = |it: &mut Value| it["ownerReferences"] = json!([]);
    for (mirror, held, expected) in [
        (Some(&mirror), held(&object, as_it_is), None),
        (Some(&mirror), held(&other, as_it_is), deleted.clone()),
        (Some(&mirror), held(&object, of_other_node), deleted.clone()),
        (Some(&mirror), held(&other, deleting), None),
        (Some(&mirror), held(&other, foreign), None),
        (Some(&mirror), held(&object, orphan), deleted.clone()),
        (None, held(&object, as_it_is), deleted),
        (None, held(&object, foreign), None),
    ] {
        assert_eq!(next(mirror, Some(&held), NODE), expected, "{mirror:?} {held:?}");
    }
    // Without a Node nothing is made, and what is right stays.
    assert_eq!(next(Some(&mirror), None, ("n1", None)), None);
    assert_eq!(next(Some(&mirror), Some(&held(&object, as_it_is)), ("n1", None)), None);
    assert_eq!(next(None, None, NODE), None);
}
