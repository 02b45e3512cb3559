//! What a plain YAML scalar means.
//!
//! Kubernetes reads YAML 1.1 as go.yaml.in/yaml/v2 does (`resolve.go`, through sigs.k8s.io/yaml) and turns
//! the result into JSON: `yes` and `on` are booleans, `0777` is octal, `1e3` is the number 1000.

use crate::tree::Value;

/// The scalar has no JSON form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NotJson;

/// The value of a plain scalar without a tag.
pub(super) fn resolve(text: &str) -> Result<Value, NotJson> {
    if let Some(value) = word(text) {
        return value;
    }
    Ok(number(text)
        .map_or_else(|| Value::String(text.into()), |number| Value::Number(number.into())))
}

fn word(text: &str) -> Option<Result<Value, NotJson>> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Ok(Value::Bool(true))
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Ok(Value::Bool(false))
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => Err(NotJson),
        _ => return None,
    })
}

/// The JSON text of a number, or none if it is not written as one.
fn number(text: &str) -> Option<String> {
    match text.as_bytes().first()? {
        b'+' | b'-' | b'0'..=b'9' => {
            let plain = text.replace('_', "");
            integer(&plain).or_else(|| float(&plain))
        }
        b'.' => float(text),
        _ => None,
    }
}

/// As Go's `ParseInt` and then `ParseUint` with base 0 read it.
fn integer(text: &str) -> Option<String> {
    let (negative, signless) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = signless.get(..2).map(str::to_ascii_lowercase);
    let (digits, radix) = match lower.as_deref() {
        Some("0x") => (&signless[2..], 16),
        Some("0b") => (&signless[2..], 2),
        Some("0o") => (&signless[2..], 8),
        Some(pair) if pair.starts_with('0') => (&signless[1..], 8),
        _ => (signless, 10),
    };
    // Rust takes a second sign here, Go does not.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match (negative, i64::try_from(magnitude)) {
        (false, Ok(_)) => Some(magnitude.to_string()),
        // Only a number without any sign may use the 64th bit.
        (false, Err(_)) => (!text.starts_with('+')).then(|| magnitude.to_string()),
        (true, _) => 0_i64.checked_sub_unsigned(magnitude).map(|value| value.to_string()),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<String> {
    let signless = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match signless.find(['e', 'E']) {
        Some(at) => (&signless[..at], Some(&signless[at + 1..])),
        None => (signless, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return None;
        }
    }
    let value: f64 = text.parse().ok()?;
    // What a float cannot hold stays a string, as in Go.
    value.is_finite().then(|| json_float(value))
}

/// A float as Go's encoding/json writes it.
pub(super) fn json_float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((mantissa, exponent)) if !exponent.starts_with('-') => {
                format!("{mantissa}e+{exponent}")
            }
            _ => text,
        };
    }
    format!("{value}")
}

/// A float as a key of a map: Go's `%g` of the nearest 32-bit float.
pub(super) fn key_float(text: &str) -> Option<String> {
    #[expect(clippy::cast_possible_truncation, reason = "Kubernetes narrows float keys to 32 bits")]
    let value = text.parse::<f64>().ok()? as f32;
    if value == 0.0 {
        return Some(if value.is_sign_negative() { "-0" } else { "0" }.to_owned());
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    Some(if (-4..21).contains(&exponent) {
        format!("{value}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    })
}

#[cfg(test)]
mod tests;
