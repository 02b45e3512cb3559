//! One rule of a role: which verbs on what it allows.
//!
//! Source: `pkg/apis/rbac/v1/evaluation_helpers.go` and
//! `staging/src/k8s.io/component-helpers/auth/rbac/validation/policy_comparator.go`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Attributes;

const ALL: &str = "*";

/// One rule: the verbs it names on the resources or the paths it names.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Rule {
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) non_resource_urls: Vec<String>,
    /// None means all.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(deserialize_with = "null_as_empty")]
    pub(crate) verbs: Vec<String>,
}

impl Rule {
    /// Whether it allows a request.
    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !names(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.non_resource_urls.iter().any(|url| url_covers(url, attributes.path));
        }
        names(&self.api_groups, attributes.group)
            && self.names_resource(attributes.resource, attributes.subresource)
            && (self.resource_names.is_empty() || has(&self.resource_names, attributes.name))
    }

    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|rule| {
            if rule == ALL {
                return true;
            }
            if subresource.is_empty() {
                return rule == resource;
            }
            let of = rule.strip_suffix(subresource).and_then(|it| it.strip_suffix('/'));
            of.is_some_and(|of| of == ALL || of == resource)
        })
    }

    /// Rules that together say the same, each with one verb on one resource or path.
    pub(crate) fn atoms(&self) -> Vec<Rule> {
        let one = |text: &String| vec![text.clone()];
        let mut atoms = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let atom = Rule {
                        api_groups: one(group),
                        resources: one(resource),
                        verbs: one(verb),
                        ..Rule::default()
                    };
                    match self.resource_names.as_slice() {
                        [] => atoms.push(atom),
                        names => atoms.extend(
                            names
                                .iter()
                                .map(|name| Rule { resource_names: one(name), ..atom.clone() }),
                        ),
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                atoms.push(Rule {
                    non_resource_urls: one(url),
                    verbs: one(verb),
                    ..Rule::default()
                });
            }
        }
        atoms
    }

    /// Whether it allows all that one of [`Self::atoms`] allows.
    pub(crate) fn covers(&self, atom: &Rule) -> bool {
        let names_of = |ours: &[String], theirs: &[String]| {
            has(ours, ALL) || theirs.iter().all(|it| has(ours, it))
        };
        let named = match (self.resource_names.as_slice(), atom.resource_names.as_slice()) {
            ([], _) => true,
            (_, []) => false,
            (ours, theirs) => theirs.iter().all(|it| has(ours, it)),
        };
        named
            && names_of(&self.verbs, &atom.verbs)
            && names_of(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(|resource| self.covers_resource(resource))
            && atom
                .non_resource_urls
                .iter()
                .all(|theirs| self.non_resource_urls.iter().any(|ours| url_covers(ours, theirs)))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        has(&self.resources, ALL)
            || has(&self.resources, resource)
            || resource.split_once('/').is_some_and(|(_, subresource)| {
                self.resources
                    .iter()
                    .any(|ours| ours.strip_prefix("*/").is_some_and(|ours| ours == subresource))
            })
    }
}

/// As refusals show it. Source: `CompactString`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(name, values)| format!("{name}:{}", quoted(values)))
            .collect();
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// `["a" "b"]`, as Go writes it.
pub(super) fn quoted(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", values.join(" "))
}

/// The atoms of `wanted` that none of `held` covers.
pub(super) fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms.filter(|atom| !held.iter().any(|rule| rule.covers(atom))).collect()
}

fn has(values: &[String], value: &str) -> bool {
    values.iter().any(|it| it == value)
}

fn names(values: &[String], value: &str) -> bool {
    values.iter().any(|it| it == ALL || it == value)
}

/// Whether a path, which may end with `*`, covers another.
fn url_covers(ours: &str, theirs: &str) -> bool {
    ours == theirs || ours.ends_with('*') && theirs.starts_with(ours.trim_end_matches('*'))
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
