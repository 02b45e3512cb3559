//! Roles and their bindings.
//!
//! Source: `plugin/pkg/auth/authorizer/rbac/rbac.go` and `pkg/registry/rbac/validation/rule.go`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Deserialize;

use super::rule::Rule;
use super::{Attributes, Decision};
use crate::authn::{SERVICE_ACCOUNT_PREFIX, User};
use crate::object::Object;
use crate::status::aggregate;

/// The API group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// All roles and bindings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    cluster_roles: BTreeMap<String, Arc<[Rule]>>,
    cluster_role_bindings: BTreeMap<String, Binding>,
    /// By namespace.
    namespaces: BTreeMap<String, InNamespace>,
}

#[derive(Clone, Debug, Default)]
struct InNamespace {
    roles: BTreeMap<String, Arc<[Rule]>>,
    role_bindings: BTreeMap<String, Binding>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Binding {
    role_ref: RoleRef,
    subjects: Option<Vec<Subject>>,
}

/// The role that a binding binds.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RoleRef {
    pub(crate) api_group: String,
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// The binding and the subject that give somebody a rule.
struct Grant<'a> {
    /// Empty for a ClusterRoleBinding.
    namespace: &'a str,
    name: &'a str,
    binding: &'a Binding,
    subject: &'a Subject,
}

impl Policy {
    /// Takes over a new or changed object. One that cannot be read gives nobody anything.
    pub(crate) fn observe(&mut self, resource: &str, object: &Object) {
        let (namespace, name) = (object.namespace(), object.name().to_owned());
        match resource {
            "clusterroles" => drop(self.cluster_roles.insert(name, rules(object))),
            "clusterrolebindings" => {
                let binding = object.typed().unwrap_or_default();
                self.cluster_role_bindings.insert(name, binding);
            }
            "roles" => {
                let there = self.namespaces.entry(namespace.to_owned()).or_default();
                there.roles.insert(name, rules(object));
            }
            "rolebindings" => {
                let there = self.namespaces.entry(namespace.to_owned()).or_default();
                there.role_bindings.insert(name, object.typed().unwrap_or_default());
            }
            _ => {}
        }
    }

    /// Takes over that an object is gone.
    pub(crate) fn forget(&mut self, resource: &str, namespace: &str, name: &str) {
        match resource {
            "clusterroles" => drop(self.cluster_roles.remove(name)),
            "clusterrolebindings" => drop(self.cluster_role_bindings.remove(name)),
            _ => {}
        }
        let Some(there) = self.namespaces.get_mut(namespace) else { return };
        match resource {
            "roles" => drop(there.roles.remove(name)),
            "rolebindings" => drop(there.role_bindings.remove(name)),
            _ => {}
        }
        if there.roles.is_empty() && there.role_bindings.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// Whether some rule allows a request.
    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let visit = |_: &Grant<'_>, rule: &Rule| match rule.allows(attributes) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        self.visit(attributes.user, attributes.namespace, visit, |_| {}).is_break()
    }

    /// Whether some rule allows a request, and which one.
    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let mut errors = Vec::new();
        let visit = |grant: &Grant<'_>, rule: &Rule| match rule.allows(attributes) {
            true => ControlFlow::Break(format!("RBAC: allowed by {grant}")),
            false => ControlFlow::Continue(()),
        };
        let error = |error| errors.push(error);
        match self.visit(attributes.user, attributes.namespace, visit, error) {
            ControlFlow::Break(reason) => Decision::Allow(reason),
            ControlFlow::Continue(()) if errors.is_empty() => Decision::NoOpinion(String::new()),
            ControlFlow::Continue(()) => {
                Decision::NoOpinion(format!("RBAC: {}", aggregate(&errors)))
            }
        }
    }

    /// All rules that a user has in a namespace and outside of all, and what is wrong with bindings.
    pub(crate) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        let visit = |_: &Grant<'_>, rule: &Rule| {
            rules.push(rule.clone());
            ControlFlow::<()>::Continue(())
        };
        let _ = self.visit(user, namespace, visit, |error| errors.push(error));
        (rules, errors)
    }

    /// The rules of a role that is bound in a namespace; in none, if that is empty.
    ///
    /// # Errors
    ///
    /// When there is no such role, in the words that a client gets.
    pub(crate) fn role(&self, role: &RoleRef, namespace: &str) -> Result<&Arc<[Rule]>, String> {
        let name = role.name.as_str();
        let (found, kind) = match role.kind.as_str() {
            "Role" => {
                let there = self.namespaces.get(namespace);
                (there.and_then(|it| it.roles.get(name)), "role")
            }
            "ClusterRole" => (self.cluster_roles.get(name), "clusterrole"),
            kind => return Err(format!("unsupported role reference kind: {kind:?}")),
        };
        found.ok_or_else(|| format!("{kind}.{GROUP} {name:?} not found"))
    }

    /// Shows every rule that a user has, until one is enough.
    fn visit<B>(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&Grant<'_>, &Rule) -> ControlFlow<B>,
        mut error: impl FnMut(String),
    ) -> ControlFlow<B> {
        let none = BTreeMap::new();
        let there = self.namespaces.get(namespace).map_or(&none, |it| &it.role_bindings);
        let bindings = self.cluster_role_bindings.iter().map(|it| ("", it));
        for (namespace, (name, binding)) in bindings.chain(there.iter().map(|it| (namespace, it))) {
            let mut subjects = binding.subjects.iter().flatten();
            let Some(subject) = subjects.find(|it| it.is(user, namespace)) else { continue };
            match self.role(&binding.role_ref, namespace) {
                Ok(rules) => {
                    let grant = Grant { namespace, name, binding, subject };
                    rules.iter().try_for_each(|rule| visit(&grant, rule))?;
                }
                Err(text) => error(text),
            }
        }
        ControlFlow::Continue(())
    }
}

impl Subject {
    /// Whether it means a user, in a binding of this namespace.
    fn is(&self, user: &User, namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => user.name == self.name,
            "Group" => user.is_in(&self.name),
            "ServiceAccount" => {
                let own = self.namespace.as_deref().filter(|own| !own.is_empty());
                let namespace = own.unwrap_or(namespace);
                let rest = || {
                    let rest = user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?;
                    rest.strip_prefix(namespace)?.strip_prefix(':')
                };
                !namespace.is_empty() && rest() == Some(&self.name)
            }
            _ => false,
        }
    }
}

/// Source: `String` of `clusterRoleBindingDescriber` and `roleBindingDescriber`, which have the name before
/// the namespace.
impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, binding, subject } = self;
        match *namespace {
            "" => write!(f, "ClusterRoleBinding {name:?}")?,
            namespace => write!(f, "RoleBinding {:?}", format!("{name}/{namespace}"))?,
        }
        write!(f, " of {} {:?} to ", binding.role_ref.kind, binding.role_ref.name)?;
        let own = subject.namespace.as_deref().filter(|own| !own.is_empty());
        match subject.kind.as_str() {
            kind @ "ServiceAccount" => {
                let whole = format!("{}/{}", subject.name, own.unwrap_or(namespace));
                write!(f, "{kind} {whole:?}")
            }
            kind => write!(f, "{kind} {:?}", subject.name),
        }
    }
}

/// The rules of a role.
pub(super) fn rules(role: &Object) -> Arc<[Rule]> {
    let rules = role.0.get("rules").map(Option::<Vec<Rule>>::deserialize);
    rules.and_then(Result::ok).flatten().unwrap_or_default().into()
}

#[cfg(test)]
mod tests;
