//! Text as Go writes it; it is part of messages that people and programs know.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Number, Value};

/// No more of a value than this many bytes is written into a message.
const LONGEST: usize = 4096;

/// A value as `%v` writes it: `map[name:a ports:[80 443]]`.
#[must_use]
pub fn display(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    shorten(&mut out);
    out
}

/// A list as `%v` writes it.
pub(crate) fn display_list(items: &[Value]) -> String {
    let mut out = String::new();
    write_list(items, &mut out);
    shorten(&mut out);
    out
}

/// A value as `%#v` writes it: `map[string]interface {}{"a":1}`.
pub(crate) fn syntax(value: &Value) -> String {
    let mut out = String::new();
    write_syntax(value, &mut out);
    shorten(&mut out);
    out
}

/// A value as `encoding/json` writes it: JSON that is safe within HTML.
#[must_use]
pub fn json(value: &impl Serialize) -> String {
    // Keys that are no text, which nothing here has, are all that can go wrong.
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

/// A string as `%q` and `strconv.Quote` write it.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            // Writing to a String does not fail.
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() || c == '\u{feff}' || c == '\u{2028}' || c == '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The name of the type that Go decodes a value to when it has no better one, as `%s` writes it.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn shorten(out: &mut String) {
    if out.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(end);
        out.push_str("...");
    }
}

fn write(value: &Value, out: &mut String) {
    if out.len() > LONGEST {
        return;
    }
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => write_list(items, out),
        Value::Object(map) => {
            out.push_str("map[");
            for (at, (key, value)) in map.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write(value, out);
            }
            out.push(']');
        }
    }
}

/// Of numbers with a point, Go writes those that are small or large with an exponent of two digits.
fn write_number(number: &Number, out: &mut String) {
    let written = match number.as_f64().filter(|_| number.is_f64()) {
        None => write!(out, "{number}"),
        Some(float) => {
            let text = format!("{float:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            match exponent.parse::<i32>() {
                Ok(small @ ..-4) => write!(out, "{digits}e-{:02}", small.unsigned_abs()),
                Ok(large @ 21..) => write!(out, "{digits}e+{large:02}"),
                _ => write!(out, "{float}"),
            }
        }
    };
    // Writing to a String does not fail.
    debug_assert!(written.is_ok());
}

fn write_list(items: &[Value], out: &mut String) {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if out.len() > LONGEST {
            return;
        }
        if at > 0 {
            out.push(' ');
        }
        write(item, out);
    }
    out.push(']');
}

fn write_syntax(value: &Value, out: &mut String) {
    if out.len() > LONGEST {
        return;
    }
    match value {
        Value::Null => out.push_str("interface {}(nil)"),
        Value::Bool(_) | Value::Number(_) => write(value, out),
        Value::String(text) => out.push_str(&quote(text)),
        Value::Array(items) => {
            out.push_str("[]interface {}{");
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write_syntax(item, out);
            }
            out.push('}');
        }
        Value::Object(map) => {
            out.push_str("map[string]interface {}{");
            for (at, (key, value)) in map.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                out.push_str(&quote(key));
                out.push(':');
                write_syntax(value, out);
            }
            out.push('}');
        }
    }
}
