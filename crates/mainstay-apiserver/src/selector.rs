//! Label selectors and field selectors.
//!
//! Source: `staging/src/k8s.io/apimachinery/pkg/{labels,fields}/selector.go`.

mod labels;

use self::labels::Requirement;
use crate::kind::Resource;
use crate::object::Object;
use crate::status::{ApiError, Result};

/// What an object has to be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq)]
struct FieldTerm {
    field: String,
    equal: bool,
    value: String,
}

impl Selector {
    /// # Errors
    ///
    /// 400 when one cannot be read, or asks for a field that the resource does not have.
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self> {
        let labels = labels::parse(labels).map_err(ApiError::bad_request)?;
        let fields = parse_fields(fields).map_err(ApiError::bad_request)?;
        let selectable = resource.strategy.selectable();
        for FieldTerm { field, .. } in &fields {
            let known = matches!(field.as_str(), "metadata.name" | "metadata.namespace");
            if !known && !selectable.contains(&field.as_str()) {
                // Kinds without fields of their own have another converter upstream.
                return Err(ApiError::bad_request(match selectable {
                    [] => format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \
                         \"metadata.namespace\""
                    ),
                    _ => format!("field label not supported: {field}"),
                }));
            }
        }
        Ok(Self { labels, fields })
    }

    /// The fields that a field selector pins down, each with its value; none of one that cannot be read.
    pub(crate) fn required_fields(fields: &str) -> Vec<(String, String)> {
        let terms = parse_fields(fields).unwrap_or_default();
        terms.into_iter().filter(|it| it.equal).map(|it| (it.field, it.value)).collect()
    }

    /// The labels that a label selector pins down, each with its value; none of one that cannot be read.
    pub(crate) fn required_labels(labels: &str) -> Vec<(String, String)> {
        let requirements = labels::parse(labels).unwrap_or_default();
        let exact = |it: Requirement| Some((it.key.clone(), it.exact()?.to_owned()));
        requirements.into_iter().filter_map(exact).collect()
    }

    /// Whether it takes everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The name that all objects have that it takes, if it says so.
    pub(crate) fn name(&self) -> Option<&str> {
        self.exact("metadata.name")
    }

    /// The value that a field must have, if it says so.
    pub(crate) fn exact(&self, field: &str) -> Option<&str> {
        let term = self.fields.iter().find(|term| term.equal && term.field == field)?;
        Some(&term.value)
    }

    /// Takes away that objects have a certain name, and says which.
    pub(crate) fn take_name(&mut self) -> Option<String> {
        let is_it = |term: &FieldTerm| term.equal && term.field == "metadata.name";
        let position = self.fields.iter().position(is_it)?;
        Some(self.fields.remove(position).value)
    }

    pub(crate) fn matches(&self, resource: &Resource, object: &Object) -> bool {
        self.labels.iter().all(|it| it.matches(object.label(&it.key)))
            && self.fields.iter().all(|term| {
                let value = match term.field.as_str() {
                    "metadata.name" => object.name().into(),
                    "metadata.namespace" => object.namespace().into(),
                    field => resource.strategy.field(object, field),
                };
                (value == term.value) == term.equal
            })
    }
}

// === fields ===

fn parse_fields(text: &str) -> std::result::Result<Vec<FieldTerm>, String> {
    let mut parts = split_unescaped(text);
    parts.sort_unstable();
    let mut terms = Vec::new();
    for part in parts {
        if part.is_empty() {
            continue;
        }
        let operators = ["!=", "==", "="];
        let found = part.char_indices().find_map(|(at, _)| {
            let rest = part.get(at..)?;
            operators.iter().find(|operator| rest.starts_with(**operator)).map(|it| (at, *it))
        });
        let Some((at, operator)) = found else {
            return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
        };
        let (field, rest) = part.split_at(at);
        let value = unescape(rest.get(operator.len()..).unwrap_or_default())
            .map_err(|why| format!("invalid field selector: {why}"))?;
        // Nothing that has to be nothing holds of everything.
        if !field.is_empty() || !value.is_empty() {
            terms.push(FieldTerm { field: field.to_owned(), equal: operator != "!=", value });
        }
    }
    Ok(terms)
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn unescape(text: &str) -> std::result::Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let shown = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid escape sequence: \\{shown}"));
                }
            },
            ',' | '=' => {
                return Err(format!("unescaped character in value: {}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
