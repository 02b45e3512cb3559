//! After `rbac_test.go` and `rule_test.go` of Kubernetes.

use serde_json::{Value, json};

use super::*;

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|it| (*it).to_owned()).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

fn on<'a>(
    user: &'a User,
    verb: &'a str,
    namespace: &'a str,
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    name: &'a str,
) -> Attributes<'a> {
    Attributes {
        user,
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
        path: "",
        is_resource: true,
        fields: &[],
        labels: &[],
    }
}

fn path<'a>(user: &'a User, verb: &'a str, path: &'a str) -> Attributes<'a> {
    Attributes { path, is_resource: false, ..on(user, verb, "", "", "", "", "") }
}

fn words(text: &str) -> Value {
    text.split(' ').filter(|it| !it.is_empty()).map(Value::from).collect()
}

fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Value {
    let groups: Value = groups.split(' ').map(Value::from).collect();
    json!({ "verbs": words(verbs), "apiGroups": groups, "resources": words(resources), "resourceNames": words(names) })
}

fn urls(verbs: &str, urls: &str) -> Value {
    json!({ "verbs": words(verbs), "nonResourceURLs": words(urls) })
}

/// `Kind name` and `ServiceAccount namespace/name`.
fn subjects(texts: &[&str]) -> Value {
    let subject = |text: &&str| {
        let (kind, name) = text.split_once(' ').unwrap();
        match name.split_once('/') {
            Some((namespace, name)) => {
                json!({ "kind": kind, "name": name, "namespace": namespace })
            }
            None => json!({ "kind": kind, "name": name }),
        }
    };
    texts.iter().map(subject).collect()
}

#[derive(Default)]
struct World(Policy);

impl World {
    fn role(mut self, namespace: &str, name: &str, rules: &[Value]) -> Self {
        let resource = if namespace.is_empty() { "clusterroles" } else { "roles" };
        let object =
            json!({ "metadata": { "name": name, "namespace": namespace }, "rules": rules });
        self.0.observe(resource, &Object::from_json(object));
        self
    }

    fn bind(mut self, namespace: &str, kind: &str, role: &str, to: &[&str]) -> Self {
        let resource = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
        let object = json!({
            "metadata": { "name": format!("{kind}-{role}"), "namespace": namespace },
            "roleRef": { "apiGroup": GROUP, "kind": kind, "name": role },
            "subjects": subjects(to),
        });
        self.0.observe(resource, &Object::from_json(object));
        self
    }

    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let allows = self.0.allows(attributes);
        assert_eq!(allows, matches!(self.0.decide(attributes), Decision::Allow(_)));
        allows
    }
}

#[test]
fn a_cluster_role_in_one_namespace() {
    let world = World::default().role("", "admin", &[rule("*", "*", "*", "")]).bind(
        "ns1",
        "ClusterRole",
        "admin",
        &["User admin", "Group admins"],
    );
    let (admin, joe) = (user("admin", &[]), user("joe", &["group1", "admins"]));
    for user in [&admin, &joe] {
        assert!(world.allows(&on(user, "get", "ns1", "", "Pods", "", "")));
        assert!(world.allows(&on(user, "watch", "ns1", "", "Foobar", "", "")));
        assert!(!world.allows(&on(user, "GET", "ns2", "", "Pods", "", "")));
        assert!(!world.allows(&on(user, "GET", "", "", "Nodes", "", "")));
        // Rules on paths count only when they are bound for the whole cluster.
        assert!(!world.allows(&path(user, "get", "/apis")));
    }
    assert!(!world.allows(&on(&user("joe", &["group1"]), "get", "ns1", "", "Pods", "", "")));
}

#[test]
fn paths() {
    let world = World::default()
        .role("", "getter", &[urls("get", "/apis")])
        .role("", "all", &[urls("*", "/apis")])
        .role("", "prefix", &[urls("get", "/apis/*")])
        .bind("", "ClusterRole", "getter", &["User foo", "Group bar"])
        .bind("", "ClusterRole", "all", &["User admin", "Group admin"])
        .bind("", "ClusterRole", "prefix", &["User prefixed", "Group prefixed"]);
    for (name, groups, verb, asked, expected) in [
        ("foo", vec![], "get", "/apis", true),
        ("", vec!["bar"], "get", "/apis", true),
        ("admin", vec![], "watch", "/apis", true),
        ("prefixed", vec![], "get", "/apis/v1", true),
        ("", vec!["prefixed"], "get", "/apis/v1/foobar", true),
        ("foo", vec![], "watch", "/apis", false),
        ("foo", vec![], "get", "/api/v1", false),
        ("admin", vec![], "get", "/api/v1", false),
        ("prefixed", vec![], "get", "/api/v1", false),
        ("prefixed", vec![], "get", "/apis", false),
    ] {
        let user = user(name, &groups);
        assert_eq!(world.allows(&path(&user, verb, asked)), expected, "{name} {groups:?} {asked}");
    }
}

#[test]
fn subresources_and_names() {
    let jane = user("jane", &[]);
    for (rules, resource, subresource, name, expected) in [
        (vec![rule("*", "*", "pods", "")], "pods", "", "a", true),
        (vec![rule("*", "*", "pods", "")], "pods", "status", "a", false),
        (vec![rule("*", "*", "pods/status", "")], "pods", "status", "a", true),
        (vec![rule("*", "*", "pods/status", "")], "pods", "", "a", false),
        (vec![rule("*", "*", "pods/log", "")], "pods", "log", "a", true),
        (vec![rule("*", "*", "pods/log", "")], "pods", "og", "a", false),
        (vec![rule("*", "*", "pods/*", "")], "pods", "log", "a", false),
        (vec![rule("*", "*", "*/scale", "")], "anything", "scale", "a", true),
        (vec![rule("*", "*", "*/scale", "")], "anything", "", "a", false),
        (vec![rule("*", "*", "*/scale", "")], "anything", "upscale", "a", false),
        (vec![rule("*", "*", "*", "")], "anything", "scale", "a", true),
        (vec![rule("*", "apps", "pods", "")], "pods", "", "a", false),
        (vec![rule("*", "apps ", "pods", "")], "pods", "", "a", true),
        (vec![rule("get list", "", "pods", "")], "pods", "", "a", true),
        (vec![rule("list", "", "pods", "")], "pods", "", "a", false),
        (vec![rule("*", "", "pods", "a b")], "pods", "", "a", true),
        (vec![rule("*", "", "pods", "b")], "pods", "", "a", false),
        (vec![rule("*", "", "pods", "b")], "pods", "", "", false),
        (vec![rule("*", "", "pods", "*")], "pods", "", "a", false),
        (vec![rule("list", "", "pods", ""), rule("get", "", "pods", "a")], "pods", "", "a", true),
        (vec![urls("*", "*")], "pods", "", "a", false),
    ] {
        let shown = format!("{rules:?} {resource}/{subresource} {name}");
        let world =
            World::default().role("", "r", &rules).bind("", "ClusterRole", "r", &["User jane"]);
        let asked = on(&jane, "get", "ns1", "", resource, subresource, name);
        assert_eq!(world.allows(&asked), expected, "{shown}");
    }
}

#[test]
fn whom_a_binding_means() {
    let shop = user(
        "system:serviceaccount:ns1:shop",
        &["system:serviceaccounts", "system:serviceaccounts:ns1"],
    );
    let jane = user("jane", &["devs"]);
    for (user, namespace, subject, expected) in [
        (&jane, "ns1", "User jane", true),
        (&jane, "ns1", "User devs", false),
        (&jane, "ns1", "Group devs", true),
        (&jane, "ns1", "Group jane", false),
        (&jane, "ns1", "ServiceAccount jane", false),
        (&jane, "ns1", "Robot jane", false),
        (&shop, "ns1", "ServiceAccount shop", true),
        (&shop, "ns1", "ServiceAccount ns1/shop", true),
        (&shop, "ns2", "ServiceAccount ns1/shop", true),
        (&shop, "ns2", "ServiceAccount shop", false),
        (&shop, "", "ServiceAccount ns1/shop", true),
        (&shop, "", "ServiceAccount shop", false),
        (&shop, "ns1", "ServiceAccount sho", false),
        (&shop, "ns1", "ServiceAccount ns/1:shop", false),
        (&shop, "ns1", "User system:serviceaccount:ns1:shop", true),
        (&shop, "ns1", "Group system:serviceaccounts:ns1", true),
    ] {
        let world = World::default().role("", "r", &[rule("get", "", "pods", "")]).bind(
            namespace,
            "ClusterRole",
            "r",
            &[subject],
        );
        let asked = if namespace.is_empty() { "anywhere" } else { namespace };
        assert_eq!(
            world.allows(&on(user, "get", asked, "", "pods", "", "")),
            expected,
            "{subject} in {namespace:?}"
        );
    }
}

#[test]
fn roles_of_namespaces() {
    let jane = user("jane", &[]);
    let world = World::default()
        .role("ns1", "r", &[rule("get", "", "pods", "")])
        .bind("ns1", "Role", "r", &["User jane"])
        .bind("ns2", "Role", "r", &["User jane"])
        .bind("", "Role", "r", &["User jane"]);
    assert!(world.allows(&on(&jane, "get", "ns1", "", "pods", "", "")));
    assert!(!world.allows(&on(&jane, "get", "ns2", "", "pods", "", "")));
    assert!(!world.allows(&on(&jane, "get", "", "", "pods", "", "")));
    let (rules, errors) = world.0.rules_for(&jane, "ns2");
    assert!(rules.is_empty());
    let missing = "role.rbac.authorization.k8s.io \"r\" not found".to_owned();
    assert_eq!(errors, [missing.clone(), missing]);
}

#[test]
fn why_something_is_allowed() {
    let shop = user("system:serviceaccount:ns1:shop", &[]);
    let world = World::default().role("", "r", &[rule("get", "", "pods", "")]).bind(
        "ns1",
        "ClusterRole",
        "r",
        &["User nobody", "ServiceAccount shop"],
    );
    assert_eq!(
        world.0.decide(&on(&shop, "get", "ns1", "", "pods", "", "")),
        Decision::Allow(
            "RBAC: allowed by RoleBinding \"ClusterRole-r/ns1\" of ClusterRole \"r\" to ServiceAccount \"shop/ns1\""
                .to_owned()
        )
    );
}

#[test]
fn what_is_forgotten_leaves_nothing() {
    let mut world = World::default()
        .role("ns1", "r", &[rule("get", "", "pods", "")])
        .bind("ns1", "Role", "r", &["User jane"])
        .role("", "c", &[])
        .bind("", "ClusterRole", "c", &["User jane"]);
    for (resource, namespace, name) in [
        ("roles", "ns1", "r"),
        ("rolebindings", "ns1", "Role-r"),
        ("clusterroles", "", "c"),
        ("clusterrolebindings", "", "ClusterRole-c"),
        ("rolebindings", "elsewhere", "never was"),
    ] {
        world.0.forget(resource, namespace, name);
    }
    assert!(world.0.namespaces.is_empty());
    assert!(world.0.cluster_roles.is_empty() && world.0.cluster_role_bindings.is_empty());
}
