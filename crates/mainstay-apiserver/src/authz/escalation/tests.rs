//! After `policy_comparator_test.go` and the tests of `pkg/registry/rbac` in Kubernetes.

use serde_json::json;

use super::*;

/// `VERBS on GROUPS RESOURCES [NAMES]` or `VERBS on /PATHS`, each a list with commas.
fn rule(text: &str) -> Rule {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let (verbs, what) = text.split_once(" on ").unwrap();
    let mut parts = what.split(' ');
    let first = parts.next().unwrap();
    if first.starts_with('/') || (first == "*" && what == "*") {
        return Rule { verbs: list(verbs), non_resource_urls: list(first), ..Rule::default() };
    }
    Rule {
        verbs: list(verbs),
        api_groups: list(if first == "core" { "" } else { first }),
        resources: list(parts.next().unwrap()),
        resource_names: parts.next().map(list).unwrap_or_default(),
        ..Rule::default()
    }
}

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| rule(text)).collect()
}

#[test]
fn what_covers_what() {
    for (held, wanted, missing) in [
        (vec!["get on v1 builds"], vec!["get on v1 builds"], vec![]),
        (vec!["get on v1 */scale"], vec!["get on v1 foo/scale"], vec![]),
        (vec!["get on v1 */scale"], vec!["get on v1 scale"], vec!["get on v1 scale"]),
        (
            vec![
                "delete on v1 deployments",
                "delete on v1 builds",
                "update on v1 builds,deployments",
            ],
            vec!["delete,update on v1 builds,deployments"],
            vec![],
        ),
        (
            vec!["delete,update on a,b builds,deployments"],
            vec!["delete on a deployments", "update on b builds,deployments"],
            vec![],
        ),
        (
            vec!["delete,update on v1 builds,deployments", "delete on v1 pods"],
            vec!["delete,update on v1 builds,deployments,pods"],
            vec!["update on v1 pods"],
        ),
        (vec!["get on * roles"], vec!["get on a,b roles"], vec![]),
        (vec!["get on a roles"], vec!["get on * roles"], vec!["get on * roles"]),
        (vec!["get on * roles"], vec!["get on * roles"], vec![]),
        (vec!["* on v1 roles"], vec!["watch,list on v1 roles"], vec![]),
        (vec!["get,list,watch on v1 roles"], vec!["* on v1 roles"], vec!["* on v1 roles"]),
        (vec!["* on v1 roles"], vec!["* on v1 roles"], vec![]),
        (vec!["get on v1 *"], vec!["get on v1 pods,pods/log"], vec![]),
        (vec!["get on v1 pods"], vec!["get on v1 *"], vec!["get on v1 *"]),
        (vec!["get on v1 pods"], vec!["get on v1 pods/log"], vec!["get on v1 pods/log"]),
        (vec!["get on v1 pods"], vec!["get on v1 pods foo,bar"], vec![]),
        (vec!["get on v1 pods foo"], vec!["get on v1 pods foo,bar"], vec!["get on v1 pods bar"]),
        (vec!["get on v1 pods foo,bar"], vec!["get on v1 pods"], vec!["get on v1 pods"]),
        (vec!["* on /apis"], vec!["* on /apis"], vec![]),
        (vec!["* on *"], vec!["* on /apis,/apis/v1,/"], vec![]),
        (vec!["* on /apis/*"], vec!["* on /apis/v1"], vec![]),
        (vec!["* on /apis/*"], vec!["* on /apis"], vec!["* on /apis"]),
        (vec!["* on /apis/*"], vec!["get on /apis/*"], vec![]),
        (vec!["* on /apis/v1/*"], vec!["get on /apis/*"], vec!["get on /apis/*"]),
        (vec!["* on * *"], vec!["get on /apis"], vec!["get on /apis"]),
        (vec!["* on *"], vec!["get on core pods"], vec!["get on core pods"]),
        (vec![], vec![], vec![]),
    ] {
        let found = uncovered(&rules(&held), &rules(&wanted));
        assert_eq!(found, rules(&missing), "{held:?} {wanted:?}");
    }
}

fn object(
    resource: &str,
    name: &str,
    namespace: &str,
    fields: serde_json::Value,
) -> (String, Object) {
    let mut object = Object::from_json(fields);
    object.meta_mut().insert("name".into(), name.into());
    if !namespace.is_empty() {
        object.meta_mut().insert("namespace".into(), namespace.into());
    }
    (resource.to_owned(), object)
}

/// jane may write roles and bindings in `web`, and see pods there; ops may give away anything.
fn world() -> Authorizer {
    let bind = |role: &str, user: &str| {
        json!({
            "roleRef": { "kind": "ClusterRole", "name": role, "apiGroup": rbac::GROUP },
            "subjects": [{ "kind": "User", "name": user, "apiGroup": rbac::GROUP }],
        })
    };
    let role = |texts: &[&str]| json!({ "rules": rules(texts) });
    let mut authorizer = Authorizer::default();
    for (resource, object) in [
        object("clusterroles", "see", "", role(&["get,list on core pods"])),
        object("clusterroles", "everything", "", role(&["* on * *", "* on *"])),
        object(
            "clusterroles",
            "give",
            "",
            role(&["escalate,bind on rbac.authorization.k8s.io roles,clusterroles"]),
        ),
        object(
            "clusterroles",
            "give-see",
            "",
            role(&["bind on rbac.authorization.k8s.io clusterroles everything"]),
        ),
        object("rolebindings", "a", "web", bind("see", "jane")),
        object("clusterrolebindings", "b", "", bind("give", "ops")),
        object("rolebindings", "c", "web", bind("give-see", "lead")),
        object("clusterrolebindings", "d", "", bind("everything", "root")),
    ] {
        authorizer.observe(rbac::GROUP, &resource, &object);
    }
    authorizer
}

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|it| (*it).to_owned()).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

fn write(
    user: &User,
    resource: &str,
    namespace: &str,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), Refusal> {
    check(&world(), &Write { user, resource, namespace, new, old })
}

#[test]
fn roles() {
    let jane = user("jane", &["devs", "system:authenticated"]);
    let (_, less) = object("roles", "r", "web", json!({ "rules": rules(&["get on core pods a"]) }));
    let (_, more) = object(
        "roles",
        "r",
        "web",
        json!({ "rules": rules(&["get,delete,create on core pods", "get on core secrets", "get on /metrics"]) }),
    );
    assert_eq!(write(&jane, "roles", "web", &less, None), Ok(()));
    assert_eq!(
        write(&jane, "roles", "web", &more, None),
        Err(Refusal::Forbidden(
            "user \"jane\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC \
             permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"create\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}\n\
             {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
                .to_owned()
        ))
    );
    // What he has in one namespace he cannot give in another, or in all.
    assert!(write(&jane, "roles", "other", &less, None).is_err());
    assert!(write(&jane, "clusterroles", "", &less, None).is_err());
    for (name, groups) in [("ops", vec![]), ("root", vec![]), ("anybody", vec!["system:masters"])] {
        assert_eq!(write(&user(name, &groups), "roles", "web", &more, None), Ok(()), "{name}");
    }
    // What is there already is no excuse, unless nothing changes.
    let mut relabelled = more.clone();
    relabelled.meta_mut().insert("labels".into(), json!({ "a": "b" }));
    assert!(write(&jane, "roles", "web", &relabelled, Some(&more)).is_err());
    let mut finalized = more.clone();
    finalized.meta_mut().insert("finalizers".into(), json!([]));
    finalized.meta_mut().insert("ownerReferences".into(), json!([{ "name": "x" }]));
    assert_eq!(write(&jane, "roles", "web", &finalized, Some(&more)), Ok(()));
    // Less is always possible.
    assert_eq!(write(&jane, "roles", "web", &less, Some(&more)), Ok(()));
    assert_eq!(write(&jane, "pods", "web", &more, None), Ok(()));
}

#[test]
fn aggregation_needs_everything() {
    let aggregation = json!({ "clusterRoleSelectors": [{ "matchLabels": { "a": "b" } }] });
    let (_, role) = object("clusterroles", "r", "", json!({ "aggregationRule": aggregation }));
    let (_, plain) = object("clusterroles", "r", "", json!({}));
    let refused = Err(Refusal::Forbidden(
        "must have cluster-admin privileges to use the aggregationRule".to_owned(),
    ));
    let jane = user("jane", &[]);
    assert_eq!(write(&jane, "clusterroles", "", &role, None), refused);
    assert_eq!(write(&jane, "clusterroles", "", &plain, Some(&role)), refused);
    assert_eq!(write(&jane, "clusterroles", "", &plain, None), Ok(()));
    assert_eq!(write(&user("root", &[]), "clusterroles", "", &role, None), Ok(()));
}

#[test]
fn bindings() {
    let bind = |kind: &str, role: &str| {
        let reference = json!({ "kind": kind, "name": role, "apiGroup": rbac::GROUP });
        object("rolebindings", "b", "web", json!({ "roleRef": reference })).1
    };
    let jane = user("jane", &[]);
    let lead = user("lead", &[]);
    for (user, namespace, role, expected) in [
        (&jane, "web", "see", true),
        (&jane, "other", "see", false),
        (&jane, "", "see", false),
        (&jane, "web", "everything", false),
        (&lead, "web", "everything", true),
        (&lead, "other", "everything", false),
        (&lead, "web", "see", false),
        (&user("ops", &[]), "", "everything", true),
        (&user("x", &["system:masters"]), "", "everything", true),
    ] {
        let resource = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
        let found = write(user, resource, namespace, &bind("ClusterRole", role), None);
        assert_eq!(found.is_ok(), expected, "{} {namespace} {role}: {found:?}", user.name);
    }
    assert_eq!(
        write(&jane, "rolebindings", "web", &bind("Role", "none"), None),
        Err(Refusal::NotFound("role.rbac.authorization.k8s.io \"none\" not found".to_owned()))
    );
    assert!(write(&jane, "rolebindings", "web", &bind("Thing", "see"), None).is_err());
}
