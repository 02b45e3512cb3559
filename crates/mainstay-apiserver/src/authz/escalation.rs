//! Nobody gives away more than he has: writing roles and bindings.
//!
//! Source: `pkg/registry/rbac/escalation_check.go`, `pkg/registry/rbac/*/policybased` and
//! `ConfirmNoEscalation` in `pkg/registry/rbac/validation/rule.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::rbac::{self, RoleRef};
use super::rule::{Rule, quoted, uncovered};
use super::{Attributes, Authorizer};
use crate::authn::{MASTERS, User};
use crate::object::Object;
use crate::status::aggregate;

/// A role or binding that is about to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) user: &'a User,
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`; others are nothing to this.
    pub(crate) resource: &'a str,
    /// Empty of what is in none.
    pub(crate) namespace: &'a str,
    pub(crate) new: &'a Object,
    /// What is there; `None` if it is to be made.
    pub(crate) old: Option<&'a Object>,
}

/// Why it must not be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// 403; the reason, which comes after `... is forbidden: `.
    Forbidden(String),
    /// 404; the whole message: the role that is to be bound is not there.
    NotFound(String),
}

/// Whether the writer has all rights that are given by what is written, or may give what he does not have.
pub(crate) fn check(authorizer: &Authorizer, write: &Write<'_>) -> Result<(), Refusal> {
    if write.user.is_in(MASTERS) {
        return Ok(());
    }
    match write.resource {
        "roles" | "clusterroles" => role(authorizer, write),
        "rolebindings" | "clusterrolebindings" => binding(authorizer, write),
        _ => Ok(()),
    }
}

fn role(authorizer: &Authorizer, write: &Write<'_>) -> Result<(), Refusal> {
    // The name of a new object is not in its path, and so not part of the question.
    let name = write.old.map_or("", Object::name);
    if may(authorizer, write, "escalate", write.resource, name) || is_clean_up(write) {
        return Ok(());
    }
    holds(authorizer, write, &rbac::rules(write.new))?;
    let aggregates =
        |role: &Object| !role.list_at(&["aggregationRule", "clusterRoleSelectors"]).is_empty();
    if write.resource == "clusterroles"
        && (aggregates(write.new) || write.old.is_some_and(aggregates))
        && holds(authorizer, write, &everything()).is_err()
    {
        let text = "must have cluster-admin privileges to use the aggregationRule";
        return Err(Refusal::Forbidden(text.to_owned()));
    }
    Ok(())
}

fn binding(authorizer: &Authorizer, write: &Write<'_>) -> Result<(), Refusal> {
    if is_clean_up(write) {
        return Ok(());
    }
    let reference = write.new.0.get("roleRef").cloned().unwrap_or_default();
    let reference: RoleRef = serde_json::from_value(reference).unwrap_or_default();
    let resource = match reference.kind.as_str() {
        "Role" => "roles",
        "ClusterRole" => "clusterroles",
        _ => "",
    };
    if !resource.is_empty() && may(authorizer, write, "bind", resource, &reference.name) {
        return Ok(());
    }
    let rules = authorizer.policy.role(&reference, write.namespace).map_err(Refusal::NotFound)?;
    holds(authorizer, write, rules)
}

/// Whether the writer has the special right to do it nevertheless.
fn may(authorizer: &Authorizer, write: &Write<'_>, verb: &str, resource: &str, name: &str) -> bool {
    authorizer.allows(&Attributes {
        user: write.user,
        verb,
        group: rbac::GROUP,
        resource,
        subresource: "",
        namespace: write.namespace,
        name,
        path: "",
        is_resource: true,
        fields: &[],
        labels: &[],
    })
}

/// Whether the writer has all of these rights.
fn holds(authorizer: &Authorizer, write: &Write<'_>, rules: &[Rule]) -> Result<(), Refusal> {
    let user = write.user;
    let (held, errors) = authorizer.policy.rules_for(user, write.namespace);
    let missing = uncovered(&held, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let missing: BTreeSet<String> = compact(missing).iter().map(Rule::to_string).collect();
    let missing: Vec<String> = missing.into_iter().collect();
    let mut text = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        missing.join("\n")
    );
    if !errors.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", aggregate(&errors)));
    }
    Err(Refusal::Forbidden(text))
}

/// Puts together what differs by the verb only. Source: `CompactRules`.
fn compact(atoms: Vec<Rule>) -> Vec<Rule> {
    let mut by_resource: BTreeMap<_, Rule> = BTreeMap::new();
    let mut others = Vec::new();
    for atom in atoms {
        if atom.resources.is_empty() {
            others.push(atom);
            continue;
        }
        let key = (atom.api_groups.clone(), atom.resources.clone(), atom.resource_names.clone());
        let verbs = atom.verbs.clone();
        by_resource.entry(key).and_modify(|rule| rule.verbs.extend(verbs)).or_insert(atom);
    }
    others.into_iter().chain(by_resource.into_values()).collect()
}

/// What cluster-admin has.
fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

/// Whether nothing changes but what the garbage collector has to change for an object to go away.
/// Source: `IsOnlyMutatingGCFields` in `pkg/registry/rbac/helpers.go`.
fn is_clean_up(write: &Write<'_>) -> bool {
    let Some(old) = write.old else { return false };
    let meta = |object: &Object| -> Map<String, Value> {
        let mut meta = object.meta().cloned().unwrap_or_default();
        for key in ["ownerReferences", "finalizers", "managedFields", "selfLink", "resourceVersion"]
        {
            meta.remove(key);
        }
        meta
    };
    let rest = |object: &Object| -> Map<String, Value> {
        let mut rest = object.0.clone();
        rest.remove("metadata");
        rest
    };
    meta(write.new) == meta(old) && rest(write.new) == rest(old)
}

#[cfg(test)]
mod tests;
