//! The language of label selectors, and what is said of texts that are none.
//!
//! Source: `Parser` and `NewRequirement` in `staging/src/k8s.io/apimachinery/pkg/labels/selector.go`.

use std::collections::BTreeSet;

use mainstay_pod::validate::{Errors, Path, names};
use mainstay_schema::go;

use crate::status::aggregate;

/// What a label has to be like.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Requirement {
    pub(super) key: String,
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

const SPECIAL: &str = "=!(),><";

type Parsed<T> = Result<T, String>;

/// # Errors
///
/// Kubernetes' sentence about the first thing that is wrong.
pub(super) fn parse(text: &str) -> Parsed<Vec<Requirement>> {
    let mut tokens = Tokens { rest: text };
    let mut requirements = Vec::new();
    loop {
        match tokens.peek() {
            "" => return Ok(requirements),
            token if !begins(token) => {
                return Err(format!(
                    "found '{token}', expected: !, identifier, or 'end of string'"
                ));
            }
            _ => {}
        }
        let requirement = requirement(&mut tokens);
        requirements
            .push(requirement.map_err(|why| format!("unable to parse requirement: {why}"))?);
        match (tokens.next(), tokens.peek()) {
            ("", _) => return Ok(requirements),
            (",", then) if begins(then) => {}
            (",", then) => return Err(format!("found '{then}', expected: identifier after ','")),
            (other, _) => {
                return Err(format!("found '{other}', expected: ',' or 'end of string'"));
            }
        }
    }
}

/// Whether a requirement begins with a token.
fn begins(token: &str) -> bool {
    token == "!" || is_word(token)
}

/// Whether a token is an identifier; `in` and `notin` are, but for the place of an operator.
fn is_word(token: &str) -> bool {
    !token.is_empty() && !token.starts_with(|c| SPECIAL.contains(c))
}

fn requirement(tokens: &mut Tokens<'_>) -> Parsed<Requirement> {
    let negated = tokens.peek() == "!";
    if negated {
        tokens.next();
    }
    let key = word(tokens)?;
    let messages = names::label_key(key);
    if !messages.is_empty() {
        let (shown, messages) = (go::quote(key), messages.join("; "));
        return Err(format!("<nil>: Invalid value: {shown}: {messages}"));
    }
    let operator = match (negated, tokens.peek()) {
        (true, _) => Operator::DoesNotExist,
        (false, "" | ",") => Operator::Exists,
        (false, _) => comparison(key, tokens)?,
    };
    Ok(Requirement { key: key.to_owned(), operator })
}

fn word<'a>(tokens: &mut Tokens<'a>) -> Parsed<&'a str> {
    match tokens.next() {
        word if is_word(word) => Ok(word),
        other => Err(format!("found '{other}', expected: identifier")),
    }
}

fn comparison(key: &str, tokens: &mut Tokens<'_>) -> Parsed<Operator> {
    let operator = tokens.next();
    let values = match operator {
        "in" | "notin" => listed(tokens)?,
        "=" | "==" | "!=" | ">" | "<" => match tokens.peek() {
            "" | "," => BTreeSet::from([""]),
            _ => BTreeSet::from([word(tokens)?]),
        },
        other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    };
    let (mut errors, path) = (Errors::default(), Path::new("values"));
    let mut bound = 0;
    for (at, value) in values.iter().enumerate() {
        let path = path.index(at);
        if matches!(operator, ">" | "<") {
            match value.parse() {
                Ok(number) => bound = number,
                Err(_) => errors.invalid(
                    &path,
                    *value,
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                ),
            }
        }
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.invalid(&path.key(key), *value, &messages.join("; "));
        }
    }
    if !errors.0.is_empty() {
        return Err(aggregate(&errors.0));
    }
    let values = values.into_iter().map(str::to_owned).collect();
    Ok(match operator {
        ">" => Operator::GreaterThan(bound),
        "<" => Operator::LessThan(bound),
        "!=" | "notin" => Operator::NotIn(values),
        _ => Operator::In(values),
    })
}

/// Values in parentheses. Nothing between two commas is the empty one.
fn listed<'a>(tokens: &mut Tokens<'a>) -> Parsed<BTreeSet<&'a str>> {
    match tokens.next() {
        "(" => {}
        other => return Err(format!("found '{other}' expected: '('")),
    }
    let mut values = BTreeSet::new();
    match tokens.peek() {
        ")" => {
            values.insert("");
        }
        first if first == "," || is_word(first) => {}
        other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
    }
    while tokens.peek() != ")" {
        let (token, then) = (tokens.next(), tokens.peek());
        match token {
            "," => {
                if values.is_empty() || matches!(then, ")" | ",") {
                    values.insert("");
                }
            }
            word if is_word(word) => {
                values.insert(word);
                if !matches!(then, "," | ")") {
                    return Err(format!("found '{then}', expected: ',' or ')'"));
                }
            }
            other => return Err(format!("found '{other}', expected: ',', or identifier")),
        }
    }
    tokens.next();
    Ok(values)
}

/// Identifiers and symbols, one after the other; empty at the end.
struct Tokens<'a> {
    rest: &'a str,
}

// === impl Tokens ===

impl<'a> Tokens<'a> {
    fn peek(&self) -> &'a str {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let length = match text.as_bytes() {
            [b'=' | b'!', b'=', ..] => 2,
            [first, ..] if SPECIAL.as_bytes().contains(first) => 1,
            _ => {
                let ends = |c| SPECIAL.contains(c) || matches!(c, ' ' | '\t' | '\r' | '\n');
                text.find(ends).unwrap_or(text.len())
            }
        };
        text.get(..length).unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        let rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.rest = rest.get(token.len()..).unwrap_or_default();
        token
    }
}

// === impl Requirement ===

impl Requirement {
    /// The one value that a label must have, if it says so.
    pub(super) fn exact(&self) -> Option<&str> {
        match &self.operator {
            Operator::In(values) => match values.as_slice() {
                [one] => Some(one),
                _ => None,
            },
            Operator::Exists
            | Operator::DoesNotExist
            | Operator::NotIn(_)
            | Operator::GreaterThan(_)
            | Operator::LessThan(_) => None,
        }
    }

    /// Whether a label's value is as it has to be; `None` of an object without the label.
    pub(super) fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|it| it == value)),
            Operator::NotIn(values) => {
                value.is_none_or(|value| values.iter().all(|it| it != value))
            }
            Operator::GreaterThan(bound) => number().is_some_and(|value| value > *bound),
            Operator::LessThan(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}
