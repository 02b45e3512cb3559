//! The roles and bindings that every cluster has from the start.
//!
//! Source: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go` (Kubernetes 1.36, gates as they are
//! by default). Of the roles in `kube-system` and `kube-public` only those of controllers that exist here are
//! there: `namespace_policy.go`.

mod controllers;
mod roles;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::rule::{Rule, uncovered};
use super::{rbac, rule};
use crate::object::Object;
use controllers::{CONTROLLERS, SYSTEM_CONTROLLERS};
use roles::{BINDINGS, NODE, ROLES, RuleText};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// The roles that are made up of all that are labelled for them.
const AGGREGATED: [&str; 3] = ["admin", "edit", "view"];

/// All roles, under `clusterroles`, then all bindings, under `clusterrolebindings`; after them those of
/// namespaces.
pub(crate) fn objects() -> Vec<(&'static str, Object)> {
    let roles = ROLES.iter().map(|(name, texts)| ("clusterroles", role(name, texts)));
    let aggregated = AGGREGATED.map(|name| ("clusterroles", aggregated(name)));
    let bindings =
        BINDINGS.iter().map(|(name, subjects)| ("clusterrolebindings", binding(name, subjects)));
    let controllers = CONTROLLERS.iter().flat_map(|(account, texts)| {
        let name = format!("system:controller:{account}");
        let subject = format!("ServiceAccount kube-system/{account}");
        let binding = binding(&name, &[&subject]);
        [("clusterroles", role(&name, texts)), ("clusterrolebindings", binding)]
    });
    let system = SYSTEM_CONTROLLERS.iter().flat_map(|(account, texts)| {
        let name = format!("system:controller:{account}");
        let subject = format!("ServiceAccount {SYSTEM}/{account}");
        let mut binding = binding(&name, &[&subject]);
        binding.field_mut("roleRef").insert("kind".into(), "Role".into());
        [("roles", in_system(role(&name, texts))), ("rolebindings", in_system(binding))]
    });
    roles.chain(aggregated).chain(bindings).chain(controllers).chain(system).collect()
}

/// The namespace of what belongs to the cluster.
const SYSTEM: &str = "kube-system";

fn in_system(mut object: Object) -> Object {
    object.meta_mut().insert("namespace".into(), SYSTEM.into());
    object
}

/// What all nodes may do; a role that is bound to nobody, as the node authorizer knows better.
pub(super) fn node_rules() -> Vec<Rule> {
    rules_of(NODE)
}

/// What has to be written so that what is there says at least what it should: the whole object, if
/// anything has to. Whoever does not want that annotates the object with `autoupdate: "false"`.
///
/// A binding to another role than it should be to has to be taken away first: that cannot be changed.
///
/// Source: `computeReconciledRole` and `computeReconciledRoleBinding` in
/// `staging/src/k8s.io/component-helpers/auth/rbac/reconciliation`.
pub(crate) fn reconcile(existing: &Object, expected: &Object) -> Reconciled {
    if existing.annotation(AUTO_UPDATE) == Some("false") {
        return Reconciled::Keep;
    }
    if existing.0.get("roleRef") != expected.0.get("roleRef") {
        return Reconciled::Replace;
    }
    let mut object = existing.clone();
    for key in ["labels", "annotations"] {
        let wanted = expected.meta().and_then(|meta| meta.get(key)?.as_object());
        let there = crate::object::object_of(object.meta_mut(), key);
        for (key, value) in wanted.into_iter().flatten() {
            there.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let (held, wanted) = (rbac::rules(existing), rbac::rules(expected));
    // Holding each against each takes its time, and is for nothing at almost every start.
    if held != wanted {
        let missing = uncovered(&held, &wanted);
        extend(&mut object.0, "rules", missing.iter().map(rule_json));
    }
    let absent = |key: &[&str]| {
        let there = existing.list_at(key);
        expected.list_at(key).iter().filter(|it| !there.contains(it)).cloned().collect::<Vec<_>>()
    };
    extend(&mut object.0, "subjects", absent(&["subjects"]).into_iter());
    let selectors = ["aggregationRule", "clusterRoleSelectors"];
    match expected.0.contains_key("aggregationRule") {
        true => {
            let rule = crate::object::object_of(&mut object.0, "aggregationRule");
            extend(rule, "clusterRoleSelectors", absent(&selectors).into_iter());
        }
        false => drop(object.0.remove("aggregationRule")),
    }
    if object == *existing { Reconciled::Keep } else { Reconciled::Update(object) }
}

/// What has to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reconciled {
    /// Nothing.
    Keep,
    /// It has to be this.
    Update(Object),
    /// It has to be deleted and the expected one made.
    Replace,
}

fn extend(fields: &mut Map<String, Value>, key: &str, values: impl Iterator<Item = Value>) {
    let values: Vec<Value> = values.collect();
    if values.is_empty() {
        return;
    }
    match fields.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.extend(values),
        None => drop(fields.insert(key.to_owned(), values.into())),
    }
}

fn role(name: &str, texts: &[RuleText]) -> Object {
    whole(name, json!({ "rules": rules_json(&rules_of(texts)) }))
}

/// With the rules that a controller gathers in a cluster.
/// Source: `pkg/controller/clusterroleaggregation`.
fn aggregated(name: &str) -> Object {
    let selector = json!({ "matchLabels": { (format!("{AGGREGATE}{name}")): "true" } });
    whole(
        name,
        json!({
            "aggregationRule": { "clusterRoleSelectors": [selector] },
            "rules": rules_json(&gathered(name)),
        }),
    )
}

fn gathered(name: &str) -> Vec<Rule> {
    let own = ROLES
        .iter()
        .find(|(role, _)| role.strip_prefix("system:aggregate-to-") == Some(name))
        .map(|(_, texts)| rules_of(texts))
        .unwrap_or_default();
    // In the order of the names of the roles that are gathered.
    let all = match name {
        "admin" => [gathered("edit"), own].concat(),
        "edit" => [own, gathered("view")].concat(),
        _ => own,
    };
    let mut rules: Vec<Rule> = Vec::new();
    for rule in all {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

fn binding(name: &str, subjects: &[&str]) -> Object {
    let subjects: Vec<Value> = subjects.iter().map(|subject| subject_json(subject)).collect();
    let role = json!({ "apiGroup": rbac::GROUP, "kind": "ClusterRole", "name": name });
    let mut fields = json!({ "roleRef": role });
    if !subjects.is_empty() {
        fields["subjects"] = subjects.into();
    }
    whole(name, fields)
}

/// `Group NAME`, `User NAME` or `ServiceAccount NAMESPACE/NAME`.
fn subject_json(text: &str) -> Value {
    let (kind, name) = text.split_once(' ').unwrap_or(("", text));
    match name.split_once('/') {
        Some((namespace, name)) if kind == "ServiceAccount" => {
            json!({ "kind": kind, "name": name, "namespace": namespace })
        }
        _ => json!({ "apiGroup": rbac::GROUP, "kind": kind, "name": name }),
    }
}

/// With the metadata that all have.
fn whole(name: &str, fields: Value) -> Object {
    let mut labels = json!({ "kubernetes.io/bootstrapping": "rbac-defaults" });
    let aggregated_to = match name {
        "view" => Some("edit"),
        "edit" => Some("admin"),
        name => name.strip_prefix("system:aggregate-to-"),
    };
    if let Some(target) = aggregated_to {
        labels[format!("{AGGREGATE}{target}")] = "true".into();
    }
    let mut object = Object::from_json(fields);
    let meta = object.meta_mut();
    meta.insert("name".into(), name.into());
    meta.insert("labels".into(), labels);
    meta.insert("annotations".into(), json!({ (AUTO_UPDATE): "true" }));
    object
}

fn rules_of(texts: &[RuleText]) -> Vec<Rule> {
    texts.iter().map(RuleText::rule).collect()
}

fn rules_json(rules: &[Rule]) -> Value {
    rules.iter().map(rule_json).collect()
}

fn rule_json(rule: &Rule) -> Value {
    let lists = [
        ("apiGroups", &rule.api_groups),
        ("nonResourceURLs", &rule.non_resource_urls),
        ("resourceNames", &rule.resource_names),
        ("resources", &rule.resources),
    ];
    let mut json = json!({ "verbs": rule.verbs });
    for (key, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
        json[key] = values.clone().into();
    }
    json
}

impl RuleText {
    fn rule(&self) -> rule::Rule {
        let list = |text: &str| -> Vec<String> {
            // In the order in which clusters have them.
            let words: BTreeSet<&str> = text.split_whitespace().collect();
            words.into_iter().map(str::to_owned).collect()
        };
        let mut groups = list(self.groups);
        for group in groups.iter_mut().filter(|group| *group == "core") {
            group.clear();
        }
        groups.sort();
        Rule {
            api_groups: groups,
            non_resource_urls: list(self.urls),
            resource_names: list(self.names),
            resources: list(self.resources),
            verbs: list(self.verbs),
        }
    }
}

#[cfg(test)]
mod tests;
