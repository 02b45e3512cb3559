//! Label selectors and field selectors.
//!
//! Source: `staging/src/k8s.io/apimachinery/pkg/{labels,fields}/selector.go`.

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
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq)]
enum Operator {
    Exists,
    DoesNotExist,
    In(Vec<String>),
    NotIn(Vec<String>),
    GreaterThan(i64),
    LessThan(i64),
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
        let labels = parse_labels(labels)
            .map_err(|why| ApiError::bad_request(format!("unable to parse requirement: {why}")))?;
        let fields = parse_fields(fields)
            .map_err(|why| ApiError::bad_request(format!("invalid field selector: {why}")))?;
        for term in &fields {
            let known = matches!(term.field.as_str(), "metadata.name" | "metadata.namespace")
                || resource.strategy.selectable().contains(&term.field.as_str());
            if !known {
                let text = format!("field label not supported: {}", term.field);
                return Err(ApiError::bad_request(text));
            }
        }
        Ok(Self { labels, fields })
    }

    /// The fields that a field selector pins down, each with its value; none of one that cannot be read.
    pub(crate) fn required(fields: &str) -> Vec<(String, String)> {
        let terms = parse_fields(fields).unwrap_or_default();
        terms.into_iter().filter(|it| it.equal).map(|it| (it.field, it.value)).collect()
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

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match &self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|it| it == value)),
            Operator::NotIn(values) => {
                value.is_none_or(|value| values.iter().all(|it| it != value))
            }
            Operator::GreaterThan(bound) => number(value).is_some_and(|value| value > *bound),
            Operator::LessThan(bound) => number(value).is_some_and(|value| value < *bound),
        }
    }
}

fn number(value: Option<&str>) -> Option<i64> {
    value?.parse().ok()
}

// === labels ===

/// A token: an operator, or a word.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' | ',' => 1,
            '=' if rest.starts_with("==") => 2,
            '!' if rest.starts_with("!=") => 2,
            '=' | '!' | '<' | '>' => 1,
            _ => rest
                .find(|c: char| c.is_whitespace() || "()=!<>,".contains(c))
                .unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

fn parse_labels(text: &str) -> std::result::Result<Vec<Requirement>, String> {
    let tokens = tokens(text);
    let mut rest = tokens.as_slice();
    let mut requirements = Vec::new();
    while !rest.is_empty() {
        let (requirement, after) = requirement(rest)?;
        requirements.push(requirement);
        rest = match after {
            [] => after,
            [",", more @ ..] if !more.is_empty() => more,
            [","] => return Err("found '', expected: identifier after ','".to_owned()),
            [other, ..] => {
                return Err(format!("found '{other}', expected: ',' or 'end of string'"));
            }
        };
    }
    Ok(requirements)
}

type Parsed<'a, 'b, T> = std::result::Result<(T, &'a [&'b str]), String>;

fn requirement<'a, 'b>(tokens: &'a [&'b str]) -> Parsed<'a, 'b, Requirement> {
    let (key, rest, negated) = match tokens {
        ["!", key, rest @ ..] => (*key, rest, true),
        [key, rest @ ..] => (*key, rest, false),
        [] => return Err("found '', expected: !, identifier, or 'end of string'".to_owned()),
    };
    if let Some(why) = mainstay_pod::validate::names::label_key(key).first() {
        return Err(format!("<nil>: Invalid value: {key:?}: {why}"));
    }
    let made = |operator| Requirement { key: key.to_owned(), operator };
    if negated {
        return Ok((made(Operator::DoesNotExist), rest));
    }
    match rest {
        [] | [",", ..] => Ok((made(Operator::Exists), rest)),
        ["=" | "==", rest @ ..] => {
            let (value, rest) = value(rest);
            Ok((made(Operator::In(vec![checked(value)?])), rest))
        }
        ["!=", rest @ ..] => {
            let (value, rest) = value(rest);
            Ok((made(Operator::NotIn(vec![checked(value)?])), rest))
        }
        [sign @ ("<" | ">"), bound, rest @ ..] => {
            let bound = bound.parse().map_err(|_| {
                format!("for 'Gt', 'Lt' operators, the value must be an integer: {bound}")
            })?;
            let operator =
                if *sign == ">" { Operator::GreaterThan(bound) } else { Operator::LessThan(bound) };
            Ok((made(operator), rest))
        }
        [set @ ("in" | "notin"), "(", rest @ ..] => {
            let end = rest
                .iter()
                .position(|token| *token == ")")
                .ok_or("found '', expected: ',' or ')'")?;
            let (inside, after) = rest.split_at(end);
            let mut values = Vec::new();
            for part in inside.split(|token| *token == ",") {
                match part {
                    [] => values.push(String::new()),
                    [value] => values.push(checked(value)?),
                    [_, other, ..] => return Err(format!("found '{other}', expected: ',' or ')'")),
                }
            }
            let operator =
                if *set == "in" { Operator::In(values) } else { Operator::NotIn(values) };
            Ok((made(operator), after.get(1..).unwrap_or_default()))
        }
        [other, ..] => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    }
}

/// The value of a comparison, which may be nothing at all.
fn value<'a, 'b>(tokens: &'a [&'b str]) -> (&'b str, &'a [&'b str]) {
    match tokens {
        [value, rest @ ..] if *value != "," => (value, rest),
        _ => ("", tokens),
    }
}

fn checked(value: &str) -> std::result::Result<String, String> {
    match mainstay_pod::validate::names::label_value(value).first() {
        Some(why) => Err(format!("values[0][{value}]: Invalid value: {value:?}: {why}")),
        None => Ok(value.to_owned()),
    }
}

// === fields ===

fn parse_fields(text: &str) -> std::result::Result<Vec<FieldTerm>, String> {
    let mut terms = Vec::new();
    for part in split_unescaped(text) {
        if part.is_empty() {
            continue;
        }
        let operators = ["!=", "==", "="];
        let found = part.char_indices().find_map(|(at, _)| {
            let rest = part.get(at..)?;
            operators.iter().find(|operator| rest.starts_with(**operator)).map(|it| (at, *it))
        });
        let Some((at, operator)) = found else {
            return Err(format!("can't understand '{part}'"));
        };
        let (field, rest) = part.split_at(at);
        let value = unescape(rest.get(operator.len()..).unwrap_or_default())?;
        terms.push(FieldTerm { field: field.to_owned(), equal: operator != "!=", value });
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
            ',' | '=' => return Err(format!("unescaped rune in value: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
