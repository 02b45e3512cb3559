use super::*;

fn find(resource: &str, name: &str) -> Object {
    let objects = objects().into_iter();
    let mut found = objects.filter(|(it, object)| *it == resource && object.name() == name);
    let (_, object) = found.next().unwrap();
    assert!(found.next().is_none());
    object
}

#[test]
fn all_are_labelled_and_bound_to_roles_that_exist() {
    let objects = objects();
    for (resource, object) in &objects {
        assert_eq!(object.label("kubernetes.io/bootstrapping"), Some("rbac-defaults"));
        assert_eq!(object.annotation(AUTO_UPDATE), Some("true"));
        match *resource {
            "clusterroles" | "roles" => {
                assert!(!rbac::rules(object).is_empty(), "{}", object.name());
            }
            "clusterrolebindings" => {
                drop(find("clusterroles", object.str_at(&["roleRef", "name"])));
            }
            _ => {
                let role = find("roles", object.str_at(&["roleRef", "name"]));
                assert_eq!(object.str_at(&["roleRef", "kind"]), "Role");
                assert_eq!((role.namespace(), object.namespace()), (SYSTEM, SYSTEM));
            }
        }
    }
    let roles = objects.iter().filter(|(resource, _)| *resource == "clusterroles").count();
    assert_eq!(roles, 32 + CONTROLLERS.len());
    let binding = find("clusterrolebindings", "system:controller:replicaset-controller");
    let account = json!({
        "kind": "ServiceAccount", "name": "replicaset-controller", "namespace": "kube-system",
    });
    assert_eq!(binding.list_at(&["subjects"]), [account]);
}

#[test]
fn roles_contain_what_they_gather() {
    let rules = |name: &str| rbac::rules(&find("clusterroles", name));
    for (whole, parts) in [
        ("view", vec!["system:aggregate-to-view"]),
        ("edit", vec!["system:aggregate-to-edit", "view"]),
        ("admin", vec!["edit", "system:aggregate-to-admin"]),
    ] {
        let expected: Vec<Rule> = parts.iter().flat_map(|part| rules(part).to_vec()).collect();
        assert_eq!(*rules(whole), *expected, "{whole}");
        let label = format!("{AGGREGATE}{whole}");
        for part in parts {
            assert_eq!(find("clusterroles", part).label(&label), Some("true"), "{part}");
        }
    }
}

#[test]
fn rules_are_written_as_clusters_have_them() {
    assert_eq!(
        Value::Object(find("clusterroles", "system:aggregate-to-admin").0)["rules"],
        json!([
            { "apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"] },
            {
                "apiGroups": ["rbac.authorization.k8s.io"],
                "resources": ["rolebindings", "roles"],
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            },
        ])
    );
    let events = node_rules().into_iter().find(|rule| rule.resources == ["events"]).unwrap();
    assert_eq!(events.api_groups, ["", "events.k8s.io"]);
}

#[test]
fn what_is_missing_is_added_and_nothing_taken_away() {
    let expected = find("clusterroles", "system:basic-user");
    assert_eq!(reconcile(&expected, &expected), Reconciled::Keep);
    let mut less = expected.clone();
    less.0.insert(
        "rules".into(),
        json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]),
    );
    less.meta_mut().insert("labels".into(), json!({ "own": "label" }));
    less.meta_mut().insert("uid".into(), "1".into());
    let Reconciled::Update(updated) = reconcile(&less, &expected) else { panic!() };
    assert_eq!(updated.label("own"), Some("label"));
    assert_eq!(updated.label("kubernetes.io/bootstrapping"), Some("rbac-defaults"));
    assert_eq!(updated.uid(), "1");
    let rules = rbac::rules(&updated);
    assert_eq!(rules[0].resources, ["pods"]);
    assert!(uncovered(&rules, &rbac::rules(&expected)).is_empty());
    assert_eq!(reconcile(&updated, &expected), Reconciled::Keep);
    // More than is needed is kept.
    let mut protected = less.clone();
    protected.meta_mut().insert("annotations".into(), json!({ (AUTO_UPDATE): "false" }));
    assert_eq!(reconcile(&protected, &expected), Reconciled::Keep);

    let expected = find("clusterroles", "admin");
    let mut own = expected.clone();
    own.0.insert(
        "aggregationRule".into(),
        json!({ "clusterRoleSelectors": [{ "matchLabels": { "a": "b" } }] }),
    );
    let Reconciled::Update(updated) = reconcile(&own, &expected) else { panic!() };
    assert_eq!(updated.list_at(&["aggregationRule", "clusterRoleSelectors"]).len(), 2);

    let expected = find("clusterrolebindings", "system:public-info-viewer");
    let mut less = expected.clone();
    let other = json!({ "kind": "User", "name": "x", "apiGroup": rbac::GROUP });
    less.0.insert("subjects".into(), json!([other, expected.list_at(&["subjects"])[1]]));
    let Reconciled::Update(updated) = reconcile(&less, &expected) else { panic!() };
    assert_eq!(updated.list_at(&["subjects"]).len(), 3);
    assert_eq!(updated.list_at(&["subjects"])[0], other);
    let mut elsewhere = expected.clone();
    elsewhere.0.insert(
        "roleRef".into(),
        json!({ "apiGroup": rbac::GROUP, "kind": "ClusterRole", "name": "x" }),
    );
    assert_eq!(reconcile(&elsewhere, &expected), Reconciled::Replace);
    let unbound = find("clusterrolebindings", "system:node");
    assert_eq!(reconcile(&unbound, &unbound), Reconciled::Keep);
}
