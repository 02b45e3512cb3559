use serde_json::{Value, json};

use super::*;

fn node() -> Node {
    let labels = json!({"disk": "ssd", "cores": "8"});
    serde_json::from_value(json!({"metadata": {"name": "n1", "labels": labels}})).unwrap()
}

fn spec(node_affinity: &Value) -> PodSpec {
    serde_json::from_value(json!({"containers": [], "affinity": {"nodeAffinity": node_affinity}}))
        .unwrap()
}

fn require(terms: &Value) -> PodSpec {
    spec(&json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}))
}

fn name_is(names: &[&str]) -> Value {
    json!({"key": "metadata.name", "operator": "In", "values": names})
}

#[test]
fn requirements_are_the_selectors() {
    let rows = [
        ("disk", "In", &["ssd", "x"][..], true),
        ("disk", "In", &["hdd"], false),
        ("disk", "NotIn", &["hdd"], true),
        ("none", "NotIn", &["hdd"], true),
        ("disk", "NotIn", &["ssd"], false),
        ("disk", "Exists", &[], true),
        ("none", "Exists", &[], false),
        ("none", "DoesNotExist", &[], true),
        ("cores", "Gt", &["7"], true),
        ("cores", "Gt", &["8"], false),
        ("cores", "Lt", &["9"], true),
        ("cores", "Lt", &["9", "10"], false),
        ("disk", "Lt", &["9"], false),
    ];
    for (key, operator, values, held) in rows {
        let expression = json!({"key": key, "operator": operator, "values": values});
        let spec = require(&json!([{"matchExpressions": [expression]}]));
        assert_eq!(matches(&spec, &node()), held, "{key} {operator} {values:?}");
    }
}

#[test]
fn one_term_is_enough_and_an_empty_one_is_none() {
    let ssd = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]});
    let n1 = json!({"matchFields": [name_is(&["n1"])]});
    let n2 = json!({"matchFields": [name_is(&["n2"])]});
    let both =
        json!({"matchFields": [name_is(&["n2"])], "matchExpressions": ssd["matchExpressions"]});
    let rows = [
        (json!([]), false),
        (json!([{}]), false),
        (json!([{}, ssd]), true),
        (json!([n1]), true),
        (json!([n2]), false),
        (json!([n2, ssd]), true),
        (json!([both]), false),
    ];
    for (terms, held) in rows {
        assert_eq!(matches(&require(&terms), &node()), held, "{terms}");
    }
    let selector = |value: &str| -> PodSpec {
        serde_json::from_value(json!({"containers": [], "nodeSelector": {"disk": value}})).unwrap()
    };
    assert!(matches(&selector("ssd"), &node()));
    assert!(!matches(&selector("hdd"), &node()));
    assert!(matches(&PodSpec::default(), &node()));
}

#[test]
fn names_are_those_of_all_terms() {
    let named = |names: &[&str]| json!({"matchFields": [name_is(names)]});
    let conflict = json!({"matchFields": [name_is(&["a"]), name_is(&["b"])]});
    let rows = [
        (json!([named(&["a", "b"])]), Some(vec!["a", "b"])),
        (json!([named(&["a"]), named(&["b"])]), Some(vec!["a", "b"])),
        (json!([conflict]), Some(vec![])),
        (json!([conflict, named(&["b"])]), Some(vec!["b"])),
        (json!([named(&["a"]), {}]), None),
        (json!([]), None),
    ];
    for (terms, expected) in rows {
        let spec = require(&terms);
        let found = names(&spec).map(|names| names.into_iter().collect::<Vec<_>>());
        assert_eq!(found, expected, "{terms}");
    }
}

#[test]
fn weights_of_what_holds_are_added() {
    let term = |weight: i32, value: &str| {
        let expression = json!({"key": "disk", "operator": "In", "values": [value]});
        json!({"weight": weight, "preference": {"matchExpressions": [expression]}})
    };
    let terms =
        json!([term(2, "ssd"), term(3, "ssd"), term(50, "hdd"), {"weight": 9, "preference": {}}]);
    let spec = spec(&json!({"preferredDuringSchedulingIgnoredDuringExecution": terms}));
    assert!(prefers(&spec) && !prefers(&PodSpec::default()));
    assert_eq!(preferred_weight(&spec, &node()), 5);
}
