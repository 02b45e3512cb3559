//! Who may do what.
//!
//! Source: `pkg/kubeapiserver/authorizer` (Kubernetes 1.36), with the modes `Node,RBAC`.
//!
//! # Flow
//!
//! `system:masters` may do everything. Then [`node`] is asked, then [`rbac`]; the first that allows it
//! counts, and nobody denies what another could allow. What nobody allows is 403.

pub(crate) mod bootstrap;
pub(crate) mod escalation;
pub(crate) mod node;
pub(crate) mod rbac;
mod rule;

use std::fmt::Write;

pub(crate) use rule::Rule;

use crate::authn::{MASTERS, User};
use crate::kind;
use crate::object::Object;
use crate::status::{ApiError, Details, aggregate};

/// A request, as far as it matters for who may do what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub(crate) user: &'a User,
    /// `get`, `list`, ...; of paths of nothing the method in lower case.
    pub(crate) verb: &'a str,
    /// The API group; empty for the core.
    pub(crate) group: &'a str,
    /// Such as `pods`.
    pub(crate) resource: &'a str,
    /// Such as `log`; empty for the object itself.
    pub(crate) subresource: &'a str,
    /// Empty for what is in no namespace, or in all.
    pub(crate) namespace: &'a str,
    /// Empty for many, and of a new object.
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
    /// Whether it is about objects; else only `verb` and `path` count.
    pub(crate) is_resource: bool,
    /// The fields that must have a value, by the request's field selector: `("spec.nodeName", "n1")`.
    pub(crate) fields: &'a [(String, String)],
    /// The same of labels.
    pub(crate) labels: &'a [(String, String)],
}

/// Whether something may be done, and the reason, which may be empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Decision {
    /// It may.
    Allow(String),
    /// Nobody says that it may.
    NoOpinion(String),
}

/// What is known of who may do what.
#[derive(Debug, Default)]
pub(crate) struct Authorizer {
    pub(crate) policy: rbac::Policy,
    pub(crate) graph: node::Graph,
}

/// What a user may do, for a SelfSubjectRulesReview.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct UserRules {
    pub(crate) rules: Vec<Rule>,
    /// Whether there may be more.
    pub(crate) incomplete: bool,
    /// Why; empty if there is nothing to say.
    pub(crate) error: String,
}

impl Authorizer {
    /// Whether something may be done; the same as [`Self::decide`] without the reason.
    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        attributes.user.is_in(MASTERS)
            || self.policy.allows(attributes)
            || matches!(self.graph.decide(attributes), Decision::Allow(_))
    }

    /// Whether something may be done, and why.
    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow(String::new());
        }
        let node = match self.graph.decide(attributes) {
            Decision::NoOpinion(reason) => reason,
            allowed @ Decision::Allow(_) => return allowed,
        };
        match self.policy.decide(attributes) {
            Decision::NoOpinion(rbac) => Decision::NoOpinion(join(node, &rbac)),
            allowed @ Decision::Allow(_) => allowed,
        }
    }

    /// What a user may do in a namespace, and outside of all.
    pub(crate) fn rules_for(&self, user: &User, namespace: &str) -> UserRules {
        let (rules, errors) = self.policy.rules_for(user, namespace);
        let mut found = UserRules { rules, incomplete: false, error: aggregate(&errors) };
        if user.node_name().is_some() {
            found.incomplete = true;
            let node = "node authorizer does not support user rule resolution".to_owned();
            found.error = aggregate(&std::iter::once(node).chain(errors).collect::<Vec<_>>());
        }
        found
    }

    /// Takes over a new or changed object of any resource; those that do not matter here are ignored.
    pub(crate) fn observe(&mut self, group: &str, resource: &str, object: &Object) {
        match (group, resource) {
            (rbac::GROUP, _) => self.policy.observe(resource, object),
            ("", "pods") => self.graph.observe_pod(object),
            _ => {}
        }
    }

    /// Takes over that an object is gone.
    pub(crate) fn forget(&mut self, group: &str, resource: &str, namespace: &str, name: &str) {
        match (group, resource) {
            (rbac::GROUP, _) => self.policy.forget(resource, namespace, name),
            ("", "pods") => self.graph.forget_pod(namespace, name),
            _ => {}
        }
    }
}

/// The refusal of a request, with the reason, which may be empty.
///
/// Source: `ForbiddenStatusError` in
/// `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`.
pub(crate) fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let Attributes { group, resource, name, .. } = *attributes;
    let mut text = match (resource, group) {
        ("", "") => "forbidden".to_owned(),
        (resource, group) => kind::qualified(resource, group).into_owned(),
    };
    if !(resource.is_empty() && group.is_empty()) {
        if !name.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, " {name:?}");
        }
        text.push_str(" is forbidden");
    }
    let _ = write!(text, ": {}", html_safe(&cannot(attributes)));
    if !reason.is_empty() {
        let _ = write!(text, ": {reason}");
    }
    let details = Details {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: resource.to_owned(),
        ..Details::default()
    };
    ApiError::forbidden_text(text, details)
}

/// Who cannot do what.
fn cannot(attributes: &Attributes<'_>) -> String {
    let Attributes { user, verb, group, resource, subresource, namespace, path, .. } = *attributes;
    let name = &user.name;
    if !attributes.is_resource {
        return format!("User {name:?} cannot {verb} path {path:?}");
    }
    let resource = match subresource {
        "" => resource.to_owned(),
        subresource => format!("{resource}/{subresource}"),
    };
    let place = match namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
}

/// Names that clients send must not look like HTML to browsers.
fn html_safe(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Both reasons, each on a line.
fn join(first: String, second: &str) -> String {
    match (first.as_str(), second) {
        ("", second) => second.to_owned(),
        (_, "") => first,
        (first, second) => format!("{first}\n{second}"),
    }
}

#[cfg(test)]
mod tests;
