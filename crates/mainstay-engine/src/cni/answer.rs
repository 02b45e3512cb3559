//! What plugins answer. It is not trusted to be what it should be.
//!
//! Source: the CNI specification 1.1.0, section 5; for older forms `pkg/types` of libcni.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::config::{Object, SpecVersion};

/// How much of what a plugin says is repeated, in characters.
const REPEATED_MAX: usize = 1000;

/// The runtime has nothing to clean up: the plugin does not know the container.
const UNKNOWN_CONTAINER: u32 = 3;
/// It may go well later.
const TRY_AGAIN_LATER: u32 = 11;

/// Why a plugin could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}", if details.is_empty() { String::new() } else { format!("; {details}") })]
pub(crate) struct Complaint {
    code: u32,
    msg: String,
    details: String,
}

/// What is wrong with an answer, as the end of a sentence about its plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidAnswer(String);

// === impl Complaint ===

impl Complaint {
    /// What a plugin said that ended as `ended` says. Source: `pluginErr` in
    /// `pkg/invoke/raw_exec.go`.
    pub(crate) fn of(stdout: &[u8], stderr: &[u8], ended: &str) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Said {
            code: u32,
            msg: String,
            details: String,
        }
        let other = |msg| Self { code: 0, msg, details: String::new() };
        if stdout.is_empty() {
            return other(match stderr.is_empty() {
                true => format!("netplugin failed with no error message: {ended}"),
                false => format!("netplugin failed: {:?}: {ended}", repeated(stderr)),
            });
        }
        match serde_json::from_slice::<Said>(stdout) {
            Ok(Said { code, msg, details }) => {
                Self { code, msg: repeated(msg.as_bytes()), details: repeated(details.as_bytes()) }
            }
            Err(error) => other(format!(
                "netplugin failed but error parsing its diagnostic message {:?}: {error}",
                repeated(stdout)
            )),
        }
    }

    /// Whether the plugin says that there is nothing to take back, or cannot take anything back since
    /// the network namespace is gone. Source: `Remove` of containerd's go-cni for the latter.
    pub(crate) fn is_gone(&self, present: bool) -> bool {
        let gone = !present && self.msg.contains("no such file or directory");
        self.code == UNKNOWN_CONTAINER || gone
    }

    /// Whether the plugin says that it may go well later.
    pub(crate) fn is_passing(&self) -> bool {
        self.code == TRY_AGAIN_LATER
    }
}

/// The beginning of what somebody said, on one line.
fn repeated(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().take(REPEATED_MAX).collect::<String>().replace(char::is_control, " ")
}

// === answers ===

/// Reads an answer to ADD; what else is in it goes to the next plugin unchanged.
pub(crate) fn result(output: &[u8], spoken: SpecVersion) -> Result<Value, InvalidAnswer> {
    let mut result: Object = match serde_json::from_slice(output) {
        Ok(Value::Object(result)) => result,
        // Of older plugins that have nothing to say.
        Ok(Value::Null) => Object::new(),
        Ok(_) => return Err(invalid("its result is no JSON object")),
        Err(error) => {
            return Err(invalid(format!("its result {:?} is no JSON: {error}", repeated(output))));
        }
    };
    match result.get("cniVersion").and_then(Value::as_str).unwrap_or_default() {
        "" => {
            result.insert("cniVersion".into(), spoken.to_string().into());
        }
        version if SpecVersion::parse(version).is_some_and(SpecVersion::is_spoken) => {}
        version => {
            let version = repeated(version.as_bytes());
            return Err(invalid(format!("its result is of CNI version {version:?}")));
        }
    }
    Ok(Value::Object(result))
}

/// The addresses that a result gives a link, the primary one first: an IPv4 address where there is
/// one. Source: `createResult` of containerd's go-cni, and `selectPodIPs` of containerd.
pub(crate) fn addresses(result: &Value, if_name: &str) -> Result<Vec<IpAddr>, InvalidAnswer> {
    let mut found: Vec<IpAddr> = Vec::new();
    let list = |name: &str| result.get(name).and_then(Value::as_array).into_iter().flatten();
    for ip in list("ips") {
        if let Some(number) = ip.get("interface").filter(|it| !it.is_null()) {
            let place = number.as_u64().and_then(|number| usize::try_from(number).ok());
            let interface = place.and_then(|place| list("interfaces").nth(place));
            let Some(interface) = interface else {
                return Err(invalid(format!(
                    "its result has an address of interface {number}, and no such interface"
                )));
            };
            if interface.get("name").and_then(Value::as_str) != Some(if_name) {
                continue;
            }
        }
        found.push(address(ip.get("address"))?);
    }
    // Before version 0.3.0.
    for family in ["ip4", "ip6"] {
        if let Some(ip) = result.get(family).and_then(|it| it.get("ip")) {
            found.push(address(Some(ip))?);
        }
    }
    if found.is_empty() {
        return Err(invalid(format!("its result has no address of {if_name}")));
    }
    if let Some(place) = found.iter().position(IpAddr::is_ipv4) {
        found[..=place].rotate_right(1);
    }
    Ok(found)
}

fn address(value: Option<&Value>) -> Result<IpAddr, InvalidAnswer> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let bits = prefix.parse::<u8>().ok();
    match (address.parse::<IpAddr>(), bits) {
        (Ok(address), Some(bits)) if bits <= if address.is_ipv4() { 32 } else { 128 } => {
            Ok(address)
        }
        _ => {
            let text = repeated(text.as_bytes());
            Err(invalid(format!("its result has {text:?} where an address belongs")))
        }
    }
}

/// Reads an answer to VERSION.
pub(crate) fn versions(output: &[u8]) -> Result<Vec<SpecVersion>, InvalidAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        #[serde(default)]
        supported_versions: Vec<String>,
    }
    let said: Said = serde_json::from_slice(output).map_err(|error| {
        invalid(format!("its versions {:?} cannot be understood: {error}", repeated(output)))
    })?;
    // Those of which nobody knows are not spoken by us either.
    let mut versions: Vec<_> =
        said.supported_versions.iter().filter_map(|version| SpecVersion::parse(version)).collect();
    versions.sort_unstable();
    Ok(versions)
}

fn invalid(problem: impl Into<String>) -> InvalidAnswer {
    InvalidAnswer(problem.into())
}

#[cfg(test)]
mod tests;
