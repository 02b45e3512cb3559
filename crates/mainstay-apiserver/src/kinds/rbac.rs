//! Roles and bindings.
//!
//! Source: `pkg/registry/rbac` and `pkg/apis/rbac/validation/validation.go`. Who may make which of them is
//! not judged here.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path, Shown, as_json, names};
use serde_json::{Value, json};

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column, wide};
use crate::object::{self, Object};
use crate::table;

const GROUP: &str = "rbac.authorization.k8s.io";

/// What all of them have.
const LIKE: Resource = Resource { group: GROUP, ..PLAIN };

pub(super) static CLUSTER_ROLE_BINDINGS: Resource = Resource {
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    storage: "clusterrolebindings.rbac.authorization.k8s.io",
    strategy: &Bindings { namespaced: false },
    ..LIKE
};

pub(super) static CLUSTER_ROLES: Resource = Resource {
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    storage: "clusterroles.rbac.authorization.k8s.io",
    strategy: &Roles { namespaced: false },
    ..LIKE
};

pub(super) static ROLE_BINDINGS: Resource = Resource {
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    storage: "rolebindings.rbac.authorization.k8s.io",
    strategy: &Bindings { namespaced: true },
    ..LIKE
};

pub(super) static ROLES: Resource = Resource {
    kind: "Role",
    plural: "roles",
    singular: "role",
    storage: "roles.rbac.authorization.k8s.io",
    strategy: &Roles { namespaced: true },
    ..LIKE
};

struct Roles {
    namespaced: bool,
}

struct Bindings {
    namespaced: bool,
}

// === impl Roles ===

impl Strategy for Roles {
    fn default(&self, object: &mut Object) {
        // Go has no way to tell no rules from none.
        object.0.entry("rules").or_insert(Value::Null);
    }

    fn name_errors(&self, name: &str) -> Vec<String> {
        rules::path_segment(name)
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let path = Path::new("rules");
        for (at, rule) in object.list_at(&["rules"]).iter().enumerate() {
            policy_rule(rule, self.namespaced, &path.index(at), &mut errors);
        }
        let aggregation = rules::top(object, "aggregationRule");
        if !self.namespaced && !aggregation.is_null() {
            let path = Path::new("aggregationRule");
            aggregated(aggregation, &path.field("clusterRoleSelectors"), &mut errors);
        }
        errors.0
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }
}

/// `ValidatePolicyRule`.
fn policy_rule(rule: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    let has = |key| !rules::list(rule, key).is_empty();
    if !has("verbs") {
        errors.required(&path.field("verbs"), "verbs must contain at least one value");
    }
    if has("nonResourceURLs") {
        let urls = || as_json(rules::at(rule, "nonResourceURLs"));
        let path = path.field("nonResourceURLs");
        if namespaced {
            errors.invalid(&path, urls(), "namespaced rules cannot apply to non-resource URLs");
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&path, urls(), detail);
        }
        return;
    }
    if !has("apiGroups") {
        let detail = "resource rules must supply at least one api group";
        errors.required(&path.field("apiGroups"), detail);
    }
    if !has("resources") {
        let detail = "resource rules must supply at least one resource";
        errors.required(&path.field("resources"), detail);
    }
}

fn aggregated(aggregation: &Value, path: &Path<'_>, errors: &mut Errors) {
    let selectors = rules::list(aggregation, "clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.required(path, detail);
    }
    for (at, selector) in selectors.iter().enumerate() {
        if !rules::selector(selector, &path.index(at), errors) {
            errors.invalid(&path.index(at), as_json(&Value::Null), "invalid label selector.");
        }
    }
}

// === impl Bindings ===

impl Strategy for Bindings {
    fn default(&self, object: &mut Object) {
        // Source: `SetDefaults_RoleBinding`, `SetDefaults_Subject`.
        let role = object::object_of(&mut object.0, "roleRef");
        rules::default_text(role, "apiGroup", GROUP);
        for subject in
            object.0.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten()
        {
            let kind = rules::text(subject, "kind");
            if matches!(kind, "User" | "Group")
                && let Some(subject) = subject.as_object_mut()
            {
                rules::default_text(subject, "apiGroup", GROUP);
            }
        }
    }

    fn name_errors(&self, name: &str) -> Vec<String> {
        rules::path_segment(name)
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let role = rules::top(object, "roleRef");
        let path = Path::new("roleRef");
        supported(role, "apiGroup", &[GROUP], &path, &mut errors);
        let kinds: &[&str] =
            if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        supported(role, "kind", kinds, &path, &mut errors);
        match rules::text(role, "name") {
            "" => errors.required(&path.field("name"), ""),
            name => errors.invalid_all(&path.field("name"), name, rules::path_segment(name)),
        }
        let path = Path::new("subjects");
        for (at, it) in object.list_at(&["subjects"]).iter().enumerate() {
            subject(it, self.namespaced, &path.index(at), &mut errors);
        }
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors(self.validate(new));
        let role = rules::top(new, "roleRef");
        if role != rules::top(old, "roleRef") {
            let part = |key| json!(rules::text(role, key));
            let shown = format!(
                "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
                part("apiGroup"),
                part("kind"),
                part("name")
            );
            errors.invalid(&Path::new("roleRef"), Shown(shown), "cannot change roleRef");
        }
        errors.0
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Role", "string", "What the subjects may do."),
            AGE,
            wide("Users", "string", "Users among the subjects."),
            wide("Groups", "string", "Groups among the subjects."),
            wide("ServiceAccounts", "string", "Accounts among the subjects."),
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let role = rules::top(object, "roleRef");
        let role = format!("{}/{}", rules::text(role, "kind"), rules::text(role, "name"));
        let of = |kind: &str| -> Value {
            let all = object.list_at(&["subjects"]).iter();
            let named =
                all.filter(|it| rules::text(it, "kind") == kind).map(|it| {
                    match rules::text(it, "namespace") {
                        "" => rules::text(it, "name").to_owned(),
                        namespace => format!("{namespace}/{}", rules::text(it, "name")),
                    }
                });
            named.collect::<Vec<_>>().join(", ").into()
        };
        vec![
            object.name().into(),
            role.into(),
            table::age(object, now),
            of("User"),
            of("Group"),
            of("ServiceAccount"),
        ]
    }
}

fn supported(value: &Value, key: &str, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    errors.one_of(&path.field(key), rules::text(value, key), known);
}

/// `ValidateRoleBindingSubject`.
fn subject(subject: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    let name = rules::text(subject, "name");
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    }
    match rules::text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_all(&path.field("name"), name, names::dns_subdomain(name));
            }
            supported(subject, "apiGroup", &[""], path, errors);
            if !namespaced && rules::text(subject, "namespace").is_empty() {
                errors.required(&path.field("namespace"), "");
            }
        }
        "User" | "Group" => supported(subject, "apiGroup", &[GROUP], path, errors),
        _ => supported(subject, "kind", &["ServiceAccount", "User", "Group"], path, errors),
    }
}
