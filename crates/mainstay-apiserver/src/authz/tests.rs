use serde_json::json;

use super::*;

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|it| (*it).to_owned()).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

/// A cluster as it is at first.
fn first() -> Authorizer {
    let mut authorizer = Authorizer::default();
    for (resource, object) in bootstrap::objects() {
        authorizer.observe(rbac::GROUP, resource, &object);
    }
    authorizer
}

/// `VERB RESOURCE[.GROUP][/SUBRESOURCE][@NAMESPACE][ NAME]` or `VERB /PATH`.
fn attributes<'a>(user: &'a User, text: &'a str) -> Attributes<'a> {
    let (verb, rest) = text.split_once(' ').unwrap();
    let mut found = Attributes {
        user,
        verb,
        group: "",
        resource: "",
        subresource: "",
        namespace: "",
        name: "",
        path: "",
        is_resource: !rest.starts_with('/'),
        fields: &[],
        labels: &[],
    };
    if !found.is_resource {
        found.path = rest;
        return found;
    }
    let (what, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let (what, namespace) = what.split_once('@').unwrap_or((what, ""));
    let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    Attributes { group, resource, subresource, namespace, name, ..found }
}

#[test]
fn what_users_may_do_at_first() {
    let authorizer = first();
    let anonymous = User::anonymous();
    let jane = user("jane", &["system:authenticated"]);
    let master = user("root", &["system:masters", "system:authenticated"]);
    let node = User::node("n1");
    let scheduler = user("system:kube-scheduler", &["system:authenticated"]);
    let monitor = user("prometheus", &["system:monitoring", "system:authenticated"]);
    for (user, may, may_not) in [
        (
            &anonymous,
            vec!["get /healthz", "get /livez", "get /readyz", "get /version", "get /version/"],
            vec![
                "get /",
                "get /api",
                "get /apis",
                "get /openapi/v2",
                "get /metrics",
                "get /healthz/ping",
                "post /version",
                "list pods",
                "get pods@default a",
                "create selfsubjectreviews.authentication.k8s.io",
            ],
        ),
        (
            &jane,
            vec![
                "get /api",
                "get /api/v1",
                "get /apis/apps/v1",
                "get /openapi/v3",
                "get /version",
                "create selfsubjectreviews.authentication.k8s.io",
                "create selfsubjectaccessreviews.authorization.k8s.io",
                "create selfsubjectrulesreviews.authorization.k8s.io",
            ],
            vec![
                "get /metrics",
                "get /",
                "post /api",
                "list pods",
                "list pods@default",
                "get nodes n1",
                "create subjectaccessreviews.authorization.k8s.io",
                "create tokenreviews.authentication.k8s.io",
            ],
        ),
        (
            &master,
            vec![
                "get /",
                "delete nodes n1",
                "create pods/exec@default a",
                "escalate clusterroles.rbac.authorization.k8s.io",
                "impersonate users jane",
                "anything made.up",
            ],
            vec![],
        ),
        (
            &node,
            vec![
                "get nodes n1",
                "update nodes/status n1",
                "create pods@default",
                "create events@default",
                "patch events.events.k8s.io@default a",
                "create tokenreviews.authentication.k8s.io",
                "create subjectaccessreviews.authorization.k8s.io",
                "list runtimeclasses.node.k8s.io",
                "list services",
                "list nodes",
                "get leases.coordination.k8s.io@kube-node-lease n1",
                "create certificatesigningrequests.certificates.k8s.io",
                "get /version",
            ],
            vec![
                "get nodes n2",
                "delete nodes n1",
                "list pods",
                "list secrets",
                "get secrets@default a",
                "list configmaps@default",
                "get leases.coordination.k8s.io@default n1",
                "get leases.coordination.k8s.io@kube-node-lease n2",
                "create pods/exec@default a",
                "list deployments.apps",
                "update certificatesigningrequests.certificates.k8s.io/approval a",
                "create namespaces",
            ],
        ),
        (
            &scheduler,
            vec![
                "list pods",
                "create pods/binding@default a",
                "update leases.coordination.k8s.io@kube-system kube-scheduler",
                "list nodes",
            ],
            vec![
                "update leases.coordination.k8s.io@kube-system other",
                "create pods@default",
                "update nodes n1",
            ],
        ),
        (
            &monitor,
            vec!["get /metrics", "get /healthz/ping", "get nodes/metrics n1"],
            vec!["get nodes n1"],
        ),
    ] {
        for (texts, expected) in [(may, true), (may_not, false)] {
            for text in texts {
                let attributes = attributes(user, text);
                let decision = authorizer.decide(&attributes);
                assert_eq!(
                    matches!(decision, Decision::Allow(_)),
                    expected,
                    "{} {text}: {decision:?}",
                    user.name
                );
                assert_eq!(authorizer.allows(&attributes), expected, "{} {text}", user.name);
            }
        }
    }
}

#[test]
fn roles_for_people() {
    let mut authorizer = first();
    for role in ["admin", "edit", "view"] {
        let binding = Object::from_json(json!({
            "metadata": { "name": role, "namespace": "web" },
            "roleRef": { "apiGroup": rbac::GROUP, "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": rbac::GROUP, "kind": "User", "name": role }],
        }));
        authorizer.observe(rbac::GROUP, "rolebindings", &binding);
    }
    let everybody = ["admin", "edit", "view"];
    for (text, may) in [
        ("get pods@web a", &everybody[..]),
        ("get pods/log@web a", &everybody),
        ("list events@web", &everybody),
        ("list events.events.k8s.io@web", &everybody),
        ("watch deployments.apps@web", &everybody),
        ("get namespaces@web web", &everybody),
        ("get poddisruptionbudgets.policy@web a", &everybody),
        ("get secrets@web a", &["admin", "edit"]),
        ("create pods@web", &["admin", "edit"]),
        ("create pods/exec@web a", &["admin", "edit"]),
        ("get pods/portforward@web a", &["admin", "edit"]),
        ("create pods/eviction@web a", &["admin", "edit"]),
        ("delete deployments.apps@web a", &["admin", "edit"]),
        ("create serviceaccounts/token@web a", &["admin", "edit"]),
        ("impersonate serviceaccounts@web a", &["admin", "edit"]),
        ("create rolebindings.rbac.authorization.k8s.io@web", &["admin"]),
        ("create localsubjectaccessreviews.authorization.k8s.io@web", &["admin"]),
        ("update pods/status@web a", &[]),
        ("create pods/ephemeralcontainers@web a", &[]),
        ("get pods@other a", &[]),
        ("list pods", &[]),
        ("list nodes", &[]),
        ("delete namespaces@web web", &[]),
        ("escalate roles.rbac.authorization.k8s.io@web", &[]),
    ] {
        let found: Vec<_> = everybody
            .into_iter()
            .filter(|name| authorizer.allows(&attributes(&user(name, &[]), text)))
            .collect();
        assert_eq!(found, may, "{text}");
    }
}

#[test]
fn refusals_read_as_in_kubernetes() {
    let jane = user("jane", &["system:authenticated"]);
    for (text, reason, expected) in [
        (
            "list pods@web",
            "",
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"web\"",
        ),
        (
            "get nodes n1",
            "",
            "nodes \"n1\" is forbidden: User \"jane\" cannot get resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        (
            "create deployments.apps/scale@web a",
            "because",
            "deployments.apps \"a\" is forbidden: User \"jane\" cannot create resource \"deployments/scale\" in API group \"apps\" in the namespace \"web\": because",
        ),
        ("get /metrics", "", "forbidden: User \"jane\" cannot get path \"/metrics\""),
        ("get /<b>", "", "forbidden: User \"jane\" cannot get path \"/&lt;b&gt;\""),
    ] {
        let error = forbidden(&attributes(&jane, text), reason);
        assert_eq!(error.message, expected);
        assert_eq!(error.code, 403);
    }
    let details = forbidden(&attributes(&jane, "get deployments.apps@web a"), "").details.unwrap();
    assert_eq!(
        (details.group.as_str(), details.kind.as_str(), details.name.as_str()),
        ("apps", "deployments", "a")
    );
}

#[test]
fn reasons() {
    let mut authorizer = first();
    let decide =
        |authorizer: &Authorizer, user: &User, text| authorizer.decide(&attributes(user, text));
    let jane = user("jane", &["system:authenticated"]);
    assert_eq!(
        decide(&authorizer, &jane, "get /api"),
        Decision::Allow(
            "RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\" to Group \"system:authenticated\"".to_owned()
        )
    );
    assert_eq!(decide(&authorizer, &jane, "list pods"), Decision::NoOpinion(String::new()));
    let dangling = Object::from_json(json!({
        "metadata": { "name": "b", "namespace": "web" },
        "roleRef": { "kind": "Role", "name": "gone" },
        "subjects": [{ "kind": "User", "name": "jane" }, { "kind": "User", "name": "system:node:n1" }],
    }));
    authorizer.observe(rbac::GROUP, "rolebindings", &dangling);
    let missing = "RBAC: role.rbac.authorization.k8s.io \"gone\" not found";
    assert_eq!(
        decide(&authorizer, &jane, "list pods@web"),
        Decision::NoOpinion(missing.to_owned())
    );
    assert_eq!(
        decide(&authorizer, &User::node("n1"), "list secrets@web"),
        Decision::NoOpinion(format!("No Object name found\n{missing}"))
    );
}

#[test]
fn rules_of_a_user() {
    let authorizer = first();
    let found = authorizer.rules_for(&user("jane", &["system:authenticated"]), "default");
    assert!(!found.incomplete);
    assert_eq!(found.error, "");
    let shown: Vec<_> = found.rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "{APIGroups:[\"authorization.k8s.io\"], Resources:[\"selfsubjectaccessreviews\" \"selfsubjectrulesreviews\"], Verbs:[\"create\"]}",
            "{APIGroups:[\"authentication.k8s.io\"], Resources:[\"selfsubjectreviews\"], Verbs:[\"create\"]}",
            "{NonResourceURLs:[\"/api\" \"/api/*\" \"/apis\" \"/apis/*\" \"/healthz\" \"/livez\" \"/openapi\" \"/openapi/*\" \"/readyz\" \"/version\" \"/version/\"], Verbs:[\"get\"]}",
            "{NonResourceURLs:[\"/healthz\" \"/livez\" \"/readyz\" \"/version\" \"/version/\"], Verbs:[\"get\"]}",
        ]
    );
    let node = authorizer.rules_for(&User::node("n1"), "default");
    assert!(node.incomplete);
    assert_eq!(node.error, "node authorizer does not support user rule resolution");
}

#[test]
fn what_is_gone_counts_no_more() {
    let mut authorizer = first();
    let jane = user("jane", &["system:authenticated"]);
    assert!(authorizer.allows(&attributes(&jane, "get /api")));
    authorizer.forget(rbac::GROUP, "clusterrolebindings", "", "system:discovery");
    assert!(!authorizer.allows(&attributes(&jane, "get /api")));
    // A role that is gone takes its rights with it, a broken one too.
    assert!(
        authorizer.allows(&attributes(&jane, "create selfsubjectreviews.authentication.k8s.io"))
    );
    let broken =
        Object::from_json(json!({ "metadata": { "name": "system:basic-user" }, "rules": "all" }));
    authorizer.observe(rbac::GROUP, "clusterroles", &broken);
    assert!(
        !authorizer.allows(&attributes(&jane, "create selfsubjectreviews.authentication.k8s.io"))
    );
}
