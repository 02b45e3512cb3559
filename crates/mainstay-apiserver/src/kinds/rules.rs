//! Rules that several kinds have. Paths and texts are Kubernetes'.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use mainstay_pod::validate::{Errors, Path, Shown, as_json, metadata, names};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::object::Object;

const NULL: &Value = &Value::Null;

/// What the status of a condition can be.
const CONDITION_STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// The longest reason and message of a condition, in bytes.
const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32 * 1024;

/// A field of an object; `null` if it is not there.
pub(super) fn top<'a>(object: &'a Object, key: &str) -> &'a Value {
    object.0.get(key).unwrap_or(NULL)
}

/// A field of a value; `null` if it is not there.
pub(super) fn at<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(NULL)
}

/// A text of a value; empty if it is not there.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    at(value, key).as_str().unwrap_or_default()
}

/// A list of a value; empty if it is not there.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    at(value, key).as_array().map_or(&[], Vec::as_slice)
}

/// A number of a value; 0 if it is not there.
pub(super) fn number(value: &Value, key: &str) -> i64 {
    at(value, key).as_i64().unwrap_or(0)
}

/// A list of texts.
pub(super) fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    list(value, key).iter().filter_map(Value::as_str).collect()
}

/// Each of some numbers, where it is there, may not be below 0.
pub(super) fn non_negative(value: &Value, keys: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for key in keys {
        if let Some(number) = at(value, key).as_i64() {
            metadata::non_negative(number, &path.field(key), errors);
        }
    }
}

/// `ValidateImmutableField`: absent and `null` are the same.
pub(super) fn immutable(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    if new != old {
        errors.invalid(path, as_json(new), "field is immutable");
    }
}

/// A selector as Go prints it: its fields in their order there.
pub(super) fn shown_selector(selector: &Value) -> Shown {
    let fields = ["matchLabels", "matchExpressions"].map(|key| (key, at(selector, key)));
    let fields: Vec<String> = fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| format!("\"{key}\":{}", as_json(value).0))
        .collect();
    match selector {
        Value::Null => as_json(selector),
        _ => Shown(format!("{{{}}}", fields.join(","))),
    }
}

/// `ValidatePositiveIntOrPercent`.
pub(super) fn amount(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::String(text) if percent(text).is_none() => errors.invalid(
            path,
            as_json(value),
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
             '93%', regex used for validation is '[0-9]+%')",
        ),
        Value::String(_) => {}
        other => metadata::non_negative(other.as_i64().unwrap_or(0), path, errors),
    }
}

/// `IsNotMoreThan100Percent`.
pub(super) fn not_more_than_all(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if value.as_str().and_then(percent).is_some_and(|percent| percent > 100) {
        errors.invalid(path, as_json(value), "must not be greater than 100%");
    }
}

/// Whether an amount is none. Source: `getIntOrPercentValue`.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => percent(text).or_else(|| text.parse().ok()).unwrap_or(0) == 0,
        other => other.as_i64().unwrap_or(0) == 0,
    }
}

fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // More than a number holds is more than all.
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// An amount as a table shows it.
pub(super) fn amount_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// `ValidateLabelSelector`; whether it can be used afterwards.
pub(super) fn selector(value: &Value, path: &Path<'_>, errors: &mut Errors) -> bool {
    let before = errors.0.len();
    let typed = LabelSelector::deserialize(value).ok();
    metadata::label_selector(typed.as_ref(), path, errors);
    errors.0.len() == before
}

/// Whether a selector asks for nothing.
pub(super) fn asks_nothing(selector: &Value) -> bool {
    let empty = |key| match at(selector, key) {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    empty("matchLabels") && empty("matchExpressions")
}

/// Labels that are a plain map. Source: `ValidateLabels`.
pub(super) fn labels(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let typed = BTreeMap::deserialize(value).ok();
    metadata::labels(typed.as_ref(), path, errors);
}

/// `ValidateConditions` of apimachinery.
pub(super) fn conditions(conditions: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let kind = text(condition, "type");
        // A pair that is there twice is told once for each time.
        if seen.contains(&kind) {
            errors.duplicate(&path.field("type"), kind);
        }
        seen.push(kind);
        errors.invalid_all(&path.field("type"), kind, names::label_key(kind));
        errors.one_of(&path.field("status"), text(condition, "status"), &CONDITION_STATUSES);
        if number(condition, "observedGeneration") < 0 {
            errors.invalid(
                &path.field("observedGeneration"),
                number(condition, "observedGeneration"),
                "must be greater than or equal to zero",
            );
        }
        if text(condition, "lastTransitionTime").is_empty() {
            errors.required(&path.field("lastTransitionTime"), "");
        }
        let reason = text(condition, "reason");
        if reason.is_empty() {
            errors.required(&path.field("reason"), "");
        } else {
            if !is_reason(reason) {
                errors.invalid(
                    &path.field("reason"),
                    reason,
                    "a condition reason must start with alphabetic character, optionally followed by a \
                     string of alphanumeric characters or '_,:', and must end with an alphanumeric \
                     character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or \
                     'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
                     '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
                );
            }
            if reason.len() > REASON_MAX {
                errors.too_long(&path.field("reason"), REASON_MAX);
            }
        }
        if text(condition, "message").len() > MESSAGE_MAX {
            errors.too_long(&path.field("message"), MESSAGE_MAX);
        }
    }
}

fn is_reason(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte);
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// What can be one part of a path: the names of roles and of some other kinds. Source:
/// `IsPathSegmentName`.
pub(super) fn path_segment(name: &str) -> Vec<String> {
    if matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    let found = ["/", "%"].into_iter().filter(|illegal| name.contains(illegal));
    found.map(|illegal| format!("may not contain '{illegal}'")).collect()
}

/// The kinds of the blocks of a PEM file.
pub(super) fn pem_kinds(pem: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(pem);
    let begins = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN "));
    begins.filter_map(|rest| rest.strip_suffix("-----")).map(str::to_owned).collect()
}

/// The keys of a ConfigMap or a Secret. Source: `IsConfigMapKey`.
pub(super) fn data_keys(data: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in data.as_object().into_iter().flatten().map(|(key, _)| key) {
        errors.invalid_all(&path.key(key), key, names::config_key(key));
    }
}

/// Bytes of the values of a map, which are texts or base64.
pub(super) fn data_size(data: &Value, base64: bool) -> usize {
    let values = data.as_object().into_iter().flatten();
    values
        .filter_map(|(_, value)| value.as_str())
        .map(|text| match base64 {
            true => text.trim_end_matches('=').len() * 3 / 4,
            false => text.len(),
        })
        .sum()
}

/// An immutable object of data stays as it is. Source: `ValidateConfigMapUpdate`, `ValidateSecretUpdate`.
pub(super) fn immutable_data(new: &Object, old: &Object, maps: &[&str], errors: &mut Errors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if *top(old, "immutable") != true {
        return;
    }
    if *top(new, "immutable") != true {
        errors.forbidden(&Path::new("immutable"), DETAIL);
    }
    for map in maps {
        if top(new, map) != top(old, map) {
            errors.forbidden(&Path::new(map), DETAIL);
        }
    }
}

/// `ValidateNonSpecialIP`: an address that a Service can lead to.
pub(super) fn endpoint_address(text: &str, path: &Path<'_>, errors: &mut Errors) {
    use std::net::IpAddr;
    let Ok(address) = text.parse::<IpAddr>() else {
        // One with zeros in front is an address still, and has been told of.
        if names::address(text).iter().any(|message| message.starts_with("must be a valid")) {
            errors.invalid(path, text, "must be a valid IP address");
        }
        return;
    };
    let (link_local, link_group) = match address {
        IpAddr::V4(it) => (it.is_link_local(), it.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(it) => (it.is_unicast_link_local(), it.segments()[0] & 0xff0f == 0xff02),
    };
    let rules = [
        (address.is_unspecified(), format!("may not be unspecified ({text})")),
        (
            address.is_loopback(),
            "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned(),
        ),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (
            link_group,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ];
    for (_, detail) in rules.into_iter().filter(|(broken, _)| *broken) {
        errors.invalid(path, text, &detail);
    }
}

/// An address that is written as it has to be now. Source: `IsValidIP`.
pub(super) fn strict_address(text: &str) -> Vec<String> {
    let mut messages = names::address(text);
    if messages.is_empty()
        && let Ok(address) = text.parse::<std::net::IpAddr>()
        && address.to_string() != text
    {
        messages.push(format!("must be in canonical form (\"{address}\")"));
    }
    messages
}

/// What the client should know of an address that is taken. Source: `GetWarningsForIP`.
pub(super) fn address_warning(text: &str, path: &Path<'_>) -> Option<String> {
    let address: std::net::IpAddr = text.parse().ok()?;
    (address.is_ipv6() && address.to_string() != text).then(|| {
        format!(
            "{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{address}\")"
        )
    })
}

/// Whether there is an address or network of each family among some. Source: `IsDualStackIPStrings`.
pub(super) fn of_both_families(all: &[&str]) -> bool {
    let is_6 = |it: &&str| it.contains(':');
    all.iter().any(is_6) && !all.iter().all(is_6)
}

/// A network such as `10.0.0.0/8`. Source: `IsValidCIDRForLegacyField`.
pub(super) fn network(text: &str) -> Vec<String> {
    use std::net::IpAddr;
    let parts = text.split_once('/');
    let parsed = parts.and_then(|(address, length)| {
        let messages = names::address(address);
        let zeros = messages.iter().any(|message| message.contains("leading 0s"));
        let is_6 = address.contains(':');
        let length: u8 = length.parse().ok()?;
        (length <= if is_6 { 128 } else { 32 }).then_some(())?;
        if !zeros {
            address.parse::<IpAddr>().ok()?;
        }
        Some((address, length, zeros))
    });
    let Some((address, length, zeros)) = parsed else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    };
    let mut messages = Vec::new();
    if zeros {
        messages.push("must not have leading 0s in IP or prefix length".to_owned());
        return messages;
    }
    let masked = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(it)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(it) & mask).into())
        }
        Ok(IpAddr::V6(it)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(it) & mask).into())
        }
        Err(_) => return messages,
    };
    if address.parse::<IpAddr>().is_ok_and(|it| it != masked) {
        messages.push("must not have bits set beyond the prefix length".to_owned());
    }
    messages
}

/// A name of at least two parts. Source: `IsFullyQualifiedDomainName`.
pub(super) fn domain(text: &str) -> Vec<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let messages = names::dns_subdomain(name);
    if !messages.is_empty() {
        return messages;
    }
    if name.contains('.') {
        return Vec::new();
    }
    vec!["should be a domain with at least two segments separated by dots".to_owned()]
}

/// `IsValidPortNum`.
pub(super) fn port_number(port: i64, path: &Path<'_>, errors: &mut Errors) {
    if !(1..=65535).contains(&port) {
        errors.invalid(path, port, &names::between(1, 65535));
    }
}

/// The protocol of a port.
pub(super) fn protocol(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    match text(port, "protocol") {
        "" => errors.required(&path.field("protocol"), ""),
        protocol => errors.one_of(&path.field("protocol"), protocol, &["SCTP", "TCP", "UDP"]),
    }
}

/// The application protocol of a port, if it has one.
pub(super) fn app_protocol(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(protocol) = at(port, "appProtocol").as_str() {
        errors.invalid_all(&path.field("appProtocol"), protocol, names::label_key(protocol));
    }
}

/// A text that has been left out: absent, `null` and empty are the same to Go.
pub(super) fn default_text(fields: &mut Map<String, Value>, key: &str, text: &str) {
    let value = fields.entry(key).or_insert(Value::Null);
    if value.is_null() || *value == "" {
        *value = text.into();
    }
}

/// The protocol of ports that have none is TCP.
pub(super) fn default_protocol(holder: &mut Value) {
    let ports = holder.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        default_text(port, "protocol", "TCP");
    }
}

/// The first items of a list, and how many more there are. Source: `listWithMoreString`.
pub(super) fn shortened(list: &[String], shown: usize) -> String {
    let first = list.get(..shown).unwrap_or(list).join(",");
    match list.len().saturating_sub(shown) {
        0 => first,
        more => format!("{first} + {more} more..."),
    }
}

/// The owner that controls an object as a table shows it: `daemonset.apps/d`. Source: `formatResourceName`.
pub(super) fn controller(meta: &Value) -> Option<Cow<'_, str>> {
    let owner = list(meta, "ownerReferences").iter().find(|it| *at(it, "controller") == true)?;
    let kind = text(owner, "kind").to_lowercase();
    let name = text(owner, "name");
    Some(match text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}").into(),
        None => format!("{kind}/{name}").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_digits_and_a_sign() {
        let cases = [("5%", Some(5)), ("%", None), ("-5%", None), ("5", None), ("5.5%", None)];
        for (text, value) in cases {
            assert_eq!(percent(text), value, "{text}");
        }
        assert!(is_zero(&"0%".into()) && is_zero(&0.into()) && !is_zero(&"1%".into()));
    }
}
