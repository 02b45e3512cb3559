//! The shapes of names. Each function returns what is wrong with a text, one message for each rule broken.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation/{validation,ip}.go`, `pkg/api/validate/content`.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_MSG: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const UNDERSCORE_LABEL_FMT: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
const UNDERSCORE_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
const KEY_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const KEY_MSG: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const VALUE_MSG: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const CONFIG_KEY_MSG: &str =
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const HEADER_MSG: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
const ENV_MSG: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// The longest DNS name that Kubernetes takes, in bytes.
pub(super) const SUBDOMAIN_MAX: usize = 253;

/// The longest DNS label, in bytes.
pub(super) const LABEL_MAX: usize = 63;

type Messages = Vec<String>;

/// A DNS label: containers, volumes, namespaces, host names.
pub fn dns_label(text: &str) -> Messages {
    let mut messages = Vec::new();
    if text.len() > LABEL_MAX {
        messages.push(max_characters(LABEL_MAX));
    }
    if !is_label(text) {
        messages.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            shape(LABEL_MSG, LABEL_FMT, &["my-name", "123-abc"])
        });
    }
    messages
}

/// A DNS subdomain: pods, nodes, most other objects.
pub fn dns_subdomain(text: &str) -> Messages {
    let mut messages = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        messages.push(max_characters(SUBDOMAIN_MAX));
    }
    messages.extend(subdomain_shape(text));
    messages
}

/// A DNS subdomain as part of a label key, where the length is told in bytes.
fn key_prefix(text: &str) -> Messages {
    let mut messages = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        messages.push(max_bytes(SUBDOMAIN_MAX));
    }
    messages.extend(subdomain_shape(text));
    messages
}

fn subdomain_shape(text: &str) -> Option<String> {
    let fmt = format!("{LABEL_FMT}(\\.{LABEL_FMT})*");
    (!is_subdomain(text)).then(|| shape(SUBDOMAIN_MSG, &fmt, &["example.com"]))
}

/// What is judged of a name that a generated suffix will follow: it may end in a dash. As Kubernetes'
/// `maskTrailingDash` has it, the last two characters are replaced by one.
pub(super) fn without_trailing_dash(text: &str) -> Cow<'_, str> {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let kept: String = rest.chars().take(rest.chars().count() - 1).collect();
            format!("{kept}a").into()
        }
        _ => text.into(),
    }
}

/// A search domain, which may have underscores.
pub(super) fn dns_subdomain_with_underscore(text: &str) -> Messages {
    let mut messages = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        messages.push(max_characters(SUBDOMAIN_MAX));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label).as_bytes();
        bounded(label, inner, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !text.split('.').all(label) {
        let fmt = format!("{UNDERSCORE_LABEL_FMT}(\\.{UNDERSCORE_LABEL_FMT})*");
        messages.push(shape(UNDERSCORE_MSG, &fmt, &["example.com"]));
    }
    messages
}

/// A label key or a qualified name: `app`, `example.com/app`.
pub fn label_key(text: &str) -> Messages {
    let examples = ["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = text.split('/').collect();
    let mut messages = Vec::new();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_owned());
            } else {
                messages
                    .extend(key_prefix(prefix).into_iter().map(|it| format!("prefix part {it}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                shape(KEY_MSG, KEY_FMT, &examples)
            )];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        messages.push(format!("name part {}", max_bytes(63)));
    }
    if !is_key_name(name) {
        messages.push(format!("name part {}", shape(KEY_MSG, KEY_FMT, &examples)));
    }
    messages
}

/// A label's value.
pub fn label_value(text: &str) -> Messages {
    let mut messages = Vec::new();
    if text.len() > 63 {
        messages.push(max_bytes(63));
    }
    if !text.is_empty() && !is_key_name(text) {
        messages.push(shape(
            VALUE_MSG,
            &format!("({KEY_FMT})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    messages
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Messages {
    let mut messages = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        messages.push(max_characters(SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        messages.push(shape(
            CONFIG_KEY_MSG,
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => messages.push("must not be '.'".to_owned()),
        ".." => messages.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => messages.push("must not start with '..'".to_owned()),
        _ => {}
    }
    messages
}

/// The name of an environment variable.
pub(super) fn env_name(text: &str) -> Messages {
    let mut messages = Vec::new();
    if text.is_empty() {
        messages.push("environment variable name must be non-empty".to_owned());
    }
    if text.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        messages.push(ENV_MSG.to_owned());
    }
    messages
}

/// The name of a port.
pub fn port_name(text: &str) -> Messages {
    let mut messages = Vec::new();
    let mut broken = |rule: bool, message: &str| {
        if rule {
            messages.push(message.to_owned());
        }
    };
    broken(text.len() > 15, &max_characters(15));
    let charset = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    broken(
        text.is_empty() || !text.bytes().all(charset),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    broken(!text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    broken(text.contains("--"), "must not contain consecutive hyphens");
    broken(text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen");
    messages
}

/// The name of an HTTP header.
pub(super) fn header_name(text: &str) -> Option<String> {
    let bad = text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    bad.then(|| shape(HEADER_MSG, "[-A-Za-z0-9]+", &["X-Header-Name"]))
}

/// A port number.
pub(super) fn port_number(port: i32) -> Option<String> {
    (!(1..=65535).contains(&port)).then(|| between(1, 65535))
}

/// A user or group id.
pub(super) fn id(id: i64) -> Option<String> {
    let max = i64::from(i32::MAX);
    (!(0..=max).contains(&id)).then(|| between(0, max))
}

/// An IP address, in any of the ways of writing it that older fields take.
pub fn address(text: &str) -> Messages {
    let Some((address, leading_zeros)) = parse_address(text) else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()];
    };
    let mut messages = Vec::new();
    if leading_zeros {
        messages.push("must not have leading 0s".to_owned());
    }
    if let IpAddr::V6(address) = address
        && address.to_ipv4_mapped().is_some()
        && !leading_zeros
    {
        messages.push("must not be an IPv4-mapped IPv6 address".to_owned());
    }
    messages
}

/// An address, and whether it could be read only after taking leading zeros off an IPv4 part.
fn parse_address(text: &str) -> Option<(IpAddr, bool)> {
    if let Ok(address) = text.parse() {
        return Some((address, false));
    }
    let (head, quad) = match text.rfind(':') {
        Some(at) => text.split_at(at + 1),
        None => ("", text),
    };
    let stripped: Vec<&str> = quad
        .split('.')
        .map(|part| {
            let short = part.trim_start_matches('0');
            if short.is_empty() && !part.is_empty() { "0" } else { short }
        })
        .collect();
    if stripped.len() != 4 {
        return None;
    }
    let text = format!("{head}{}", stripped.join("."));
    let address =
        if head.is_empty() { text.parse().ok()? } else { text.parse::<Ipv6Addr>().ok()?.into() };
    Some((address, true))
}

/// `must be between 1 and 255, inclusive`
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bounded(text.as_bytes(), |b| alphanumeric(b) || b == b'-', alphanumeric)
}

/// Whether a text has the shape of a DNS subdomain, of whatever length.
pub fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_key_name(text: &str) -> bool {
    bounded(
        text.as_bytes(),
        |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b),
        |b| b.is_ascii_alphanumeric(),
    )
}

/// Not empty, every byte from one class, the first and last from another.
fn bounded(text: &[u8], inner: impl Fn(u8) -> bool, outer: impl Fn(u8) -> bool) -> bool {
    let ends = text.first().is_some_and(|b| outer(*b)) && text.last().is_some_and(|b| outer(*b));
    ends && text.iter().all(|b| inner(*b))
}

fn max_characters(length: usize) -> String {
    format!("must be no more than {length} characters")
}

fn max_bytes(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

/// A message with examples and the regular expression, as Kubernetes puts it.
fn shape(message: &str, fmt: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{fmt}')", examples.join(" or "))
}
