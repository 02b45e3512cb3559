//! Templates, strategies and revisions.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::super::strategy::Strategy;
use super::super::template::{is_same, new_set};
use super::*;
use crate::template_hash::hash;

fn parsed(value: Value) -> PodTemplateSpec {
    serde_json::from_value(value).unwrap()
}

#[test]
fn hashes_are_for_ever() {
    let template = parsed(template("new"));
    let hashes = [None, Some(0), Some(1)].map(|collisions| hash(&template, collisions));
    assert_eq!(hashes, ["7c699c44d6", "6746f9b574", "7dbfb5d9b7"]);
    assert_ne!(hash(&parsed(super::template("old")), None), hashes[0]);
}

#[test]
fn templates_are_compared_but_for_the_hash() {
    let ours = parsed(template("new"));
    let mut other = template("new");
    other["metadata"]["labels"][super::super::template::HASH] = "x".into();
    other["metadata"]["annotations"] = json!({});
    assert!(is_same(&ours, &parsed(other.clone())));
    other["metadata"]["labels"]["tier"] = "front".into();
    assert!(!is_same(&ours, &parsed(other)));
    assert!(!is_same(&ours, &parsed(template("old"))));
    let bare = json!({ "spec": template("new")["spec"] });
    let mut hashed = bare.clone();
    hashed["metadata"] = json!({ "labels": { super::super::template::HASH: "x" } });
    assert!(is_same(&parsed(bare), &parsed(hashed)));
}

#[test]
fn a_new_replica_set_is_told_from_the_others_by_the_hash() {
    let mut deployment = deployment(&json!({ "minReadySeconds": 7 }));
    deployment.status.get_or_insert_default().collision_count = Some(1);
    let hash = hash(&parsed(template("new")), Some(1));
    let made = new_set(&deployment, 2, [("a".to_owned(), "b".to_owned())].into());
    let labels = json!({ "app": "web", "pod-template-hash": hash });
    let mut template = template("new");
    template["metadata"]["labels"] = labels.clone();
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("web-{hash}"),
            "namespace": "a",
            "labels": labels,
            "annotations": { "a": "b" },
            "ownerReferences": [{
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": "web",
                "uid": "web",
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "replicas": 2,
            "minReadySeconds": 7,
            "selector": { "matchLabels": labels },
            "template": template,
        },
    });
    assert_eq!(json!(made), expected);
    deployment.metadata.name = Some("x".repeat(253));
    assert_eq!(sets::name(&new_set(&deployment, 0, Default::default())).len(), 253);
}

#[test]
fn strategies_are_numbers_of_pods() {
    // What is wanted, the surge and what may be unavailable as they are written, and in pods.
    let rows = [
        (10, json!("25%"), json!("25%"), 3, 2),
        (3, json!("25%"), json!("25%"), 1, 0),
        (2, json!(0), json!("1%"), 0, 1),
        (2, json!("1%"), json!("25%"), 1, 0),
        (1, json!("1%"), json!(0), 1, 0),
        (5, json!(2), json!(9), 2, 5),
        (0, json!("25%"), json!("25%"), 0, 0),
        (0, json!(1), json!(1), 1, 0),
        (10, json!("200%"), json!("100%"), 20, 10),
        (4, json!(0), json!(0), 0, 1),
    ];
    for (wanted, surge, unavailable, surge_pods, unavailable_pods) in rows {
        let strategy = Strategy::of(&rolling(wanted, &surge, &unavailable));
        let numbers = (strategy.surge, strategy.unavailable);
        assert_eq!(numbers, (surge_pods, unavailable_pods), "{wanted} {surge} {unavailable}");
    }
    let strategy = Strategy::of(&recreate());
    assert_eq!((strategy.recreate, strategy.most(), strategy.fewest_available()), (true, 3, 3));
}

#[test]
fn revisions_count_up_and_are_remembered() {
    let mut deployment = deployment(&json!({}));
    let annotations = [("note", "x"), (annotations::REVISION, "1"), (annotations::DESIRED, "9")];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    deployment.metadata.annotations = Some(annotations.into());
    let long = vec!["9"; 1000].join(",");
    // The revision and the history that there are, the revision that is due, and both after that.
    let rows = [
        (None, None, 1, Some("1"), None),
        (Some("1"), None, 1, None, None),
        (Some("5"), None, 3, None, None),
        (Some("1"), None, 3, Some("3"), Some("1".to_owned())),
        (Some("3"), Some("1"), 4, Some("4"), Some("1,3".to_owned())),
        (Some("12"), Some(&*long), 13, Some("13"), Some(format!("{},12", &long[2..]))),
        (Some("none"), None, 3, None, None),
    ];
    for (before, history, revision, expected, expected_history) in rows {
        let mut there = set("new", 1, [0; 3]).metadata;
        let own = [(annotations::REVISION, before), (annotations::HISTORY, history)];
        let own = own.iter().filter_map(|(key, value)| Some(((*key).into(), (*value)?.into())));
        there.annotations = Some(own.collect());
        let mut lacking = annotations::of_new(&deployment, &there, revision);
        assert_eq!(lacking.remove("note").as_deref(), Some("x"));
        assert_eq!(lacking.remove(annotations::REVISION).as_deref(), expected, "{before:?}");
        assert_eq!(lacking.remove(annotations::HISTORY), expected_history);
        assert!(lacking.is_empty(), "{lacking:?}");
    }
}
