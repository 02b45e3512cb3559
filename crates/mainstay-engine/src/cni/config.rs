//! Network configurations, as they lie in a directory.
//!
//! Source: the CNI specification 1.1.0, section 1; for what is done about files that are not as it
//! says, `libcni/conf.go`, and `opts.go` of containerd's go-cni.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct SpecVersion(u8, u8, u8);

/// Those that are spoken, from the first to the last.
const SPOKEN: [SpecVersion; 7] = [
    SpecVersion(0, 1, 0),
    SpecVersion(0, 2, 0),
    SpecVersion(0, 3, 0),
    SpecVersion(0, 3, 1),
    SpecVersion(0, 4, 0),
    SpecVersion(1, 0, 0),
    SpecVersion(1, 1, 0),
];

/// A network: plugins that are called one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetworkConfigList {
    /// What names it, on the machine and to its plugins.
    pub(crate) name: String,
    /// In which versions its plugins may be spoken to, the highest one first. Never empty.
    pub(crate) versions: Vec<SpecVersion>,
    /// Whether attachments are not to be checked.
    pub(crate) disable_check: bool,
    /// Whether plugins are not to be told which attachments there are.
    pub(crate) disable_gc: bool,
    /// Whether further plugins may lie in a directory of the network's name.
    pub(crate) load_more: bool,
    /// The engine that made the network for its own containers, if one did.
    pub(crate) owner: Option<&'static str>,
    /// The plugins, in the order in which a sandbox is added.
    pub(crate) plugins: Vec<PluginConfig>,
}

/// What one plugin is called with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub(crate) struct PluginConfig {
    /// The name of its program.
    pub(crate) kind: String,
    /// The whole object, with fields that only the plugin knows.
    pub(crate) fields: Object,
}

/// What is wrong with a configuration, as the end of a sentence about its file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidConfig(String);

/// How a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// A list of plugins: `*.conflist`.
    List,
    /// One plugin, as before version 1.0.0: `*.conf` and `*.json`.
    Single,
}

/// The files that may be configurations, in the order in which they are looked at.
pub(crate) fn candidates(names: impl IntoIterator<Item = String>) -> Vec<(String, Form)> {
    let mut all: Vec<_> =
        names.into_iter().filter_map(|name| form_of(&name).map(|form| (name, form))).collect();
    all.sort();
    all
}

fn form_of(name: &str) -> Option<Form> {
    match name.rsplit_once('.')?.1 {
        "conflist" => Some(Form::List),
        "conf" | "json" => Some(Form::Single),
        _ => None,
    }
}

// === impl SpecVersion ===

impl SpecVersion {
    /// That of configurations and results that do not say.
    pub(crate) const OLDEST: Self = SPOKEN[0];
    /// From here on there is CHECK, and DEL is told the result.
    pub(crate) const WITH_CHECK: Self = Self(0, 4, 0);
    /// From here on there are GC and STATUS.
    pub(crate) const WITH_STATUS: Self = Self(1, 1, 0);

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    pub(crate) fn is_spoken(self) -> bool {
        SPOKEN.contains(&self)
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl From<SpecVersion> for String {
    fn from(version: SpecVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for SpecVersion {
    type Error = InvalidConfig;

    fn try_from(text: String) -> Result<Self, InvalidConfig> {
        Self::parse(&text).ok_or_else(|| invalid(format!("{text:?} is no CNI version")))
    }
}

// === impl PluginConfig ===

impl From<PluginConfig> for Value {
    fn from(plugin: PluginConfig) -> Self {
        Self::Object(plugin.fields)
    }
}

impl TryFrom<Value> for PluginConfig {
    type Error = InvalidConfig;

    fn try_from(value: Value) -> Result<Self, InvalidConfig> {
        Self::parse(value)
    }
}

impl PluginConfig {
    /// One plugin of a network.
    pub(crate) fn parse(value: Value) -> Result<Self, InvalidConfig> {
        let Value::Object(fields) = value else { return Err(invalid("a plugin is no object")) };
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            Some(_) => return Err(invalid("the type of a plugin is no string")),
            None => return Err(invalid("a plugin has no type, which names its program")),
        };
        // It becomes the name of a file in a directory of programs.
        let names_file = !kind.is_empty() && kind != "." && kind != "..";
        if !names_file || kind.contains(['/', '\\', '\0']) {
            return Err(invalid(format!("the type {kind:?} of a plugin is no name of a program")));
        }
        if let Some(capabilities) = fields.get("capabilities") {
            let are_switches =
                capabilities.as_object().is_some_and(|all| all.values().all(Value::is_boolean));
            if !are_switches && !capabilities.is_null() {
                return Err(invalid(format!(
                    "the capabilities of plugin {kind} are no object of true and false"
                )));
            }
        }
        Ok(Self { kind, fields })
    }

    /// Whether it wants to be told something that is called so.
    pub(crate) fn has_capability(&self, name: &str) -> bool {
        let capabilities = self.fields.get("capabilities");
        capabilities.and_then(|all| all.get(name)).and_then(Value::as_bool) == Some(true)
    }
}

// === impl NetworkConfigList ===

impl NetworkConfigList {
    /// Reads a file. Its plugins may still be missing ([`Self::load_more`]).
    pub(crate) fn parse(bytes: &[u8], form: Form) -> Result<Self, InvalidConfig> {
        let value = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("it is no JSON: {error}")))?;
        let Value::Object(fields) = value else { return Err(invalid("it is no JSON object")) };
        match form {
            Form::List => Self::of_list(&fields),
            Form::Single => Self::of_single(fields),
        }
    }

    fn of_list(fields: &Object) -> Result<Self, InvalidConfig> {
        let load_more = !switch(fields, "loadOnlyInlinedPlugins")?;
        let plugins = match fields.get("plugins") {
            Some(Value::Array(plugins)) if plugins.is_empty() => {
                return Err(invalid("its list of plugins is empty"));
            }
            Some(Value::Array(plugins)) => {
                plugins.iter().cloned().map(PluginConfig::parse).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(invalid("its plugins are no list")),
            None if load_more => Vec::new(),
            None => {
                return Err(invalid("loadOnlyInlinedPlugins is true, and there are no plugins"));
            }
        };
        let name = name(fields)?;
        Ok(Self {
            owner: owner(&name, fields, &plugins),
            name,
            versions: versions(fields)?,
            disable_check: switch(fields, "disableCheck")?,
            disable_gc: switch(fields, "disableGC")?,
            load_more,
            plugins,
        })
    }

    fn of_single(fields: Object) -> Result<Self, InvalidConfig> {
        if !fields.contains_key("type") && fields.contains_key("plugins") {
            return Err(invalid("it is a list of plugins, whose file has to be called *.conflist"));
        }
        Ok(Self {
            name: name(&fields)?,
            versions: versions(&fields)?,
            disable_check: false,
            disable_gc: false,
            load_more: false,
            owner: None,
            plugins: vec![PluginConfig::parse(Value::Object(fields))?],
        })
    }
}

/// Whose own network it is. Debian's podman brings the configuration of one, also where no plugin is
/// installed; nerdctl makes its own when it is first run. Both name what they make (podman's
/// `libnetwork/cni/cni_conversion.go`, nerdctl's `pkg/netutil/netutil.go`).
fn owner(name: &str, fields: &Object, plugins: &[PluginConfig]) -> Option<&'static str> {
    let mut bridges = plugins.iter().filter_map(|it| it.fields.get("bridge")?.as_str());
    if name == "podman" || bridges.any(|bridge| bridge.starts_with("cni-podman")) {
        return Some("podman");
    }
    fields.contains_key("nerdctlID").then_some("nerdctl")
}

fn invalid(problem: impl Into<String>) -> InvalidConfig {
    InvalidConfig(problem.into())
}

/// Source: `ValidateNetworkName` in `pkg/utils/utils.go` of libcni.
fn name(fields: &Object) -> Result<String, InvalidConfig> {
    let name = match fields.get("name") {
        Some(Value::String(name)) => name,
        Some(_) => return Err(invalid("its name is no string")),
        None => return Err(invalid("it has no name")),
    };
    let starts = name.starts_with(|it: char| it.is_ascii_alphanumeric());
    if !starts || !name.chars().all(|it| it.is_ascii_alphanumeric() || "_.-".contains(it)) {
        return Err(invalid(format!(
            "its name {name:?} is no name of a network: letters, digits, and between them _ . -"
        )));
    }
    Ok(name.clone())
}

/// A switch may be a word, since there are configurations with one.
fn switch(fields: &Object, name: &str) -> Result<bool, InvalidConfig> {
    match fields.get(name) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(invalid(format!("its {name} is {other}, and not true or false"))),
    }
}

/// The versions that both sides speak, the highest one first.
fn versions(fields: &Object) -> Result<Vec<SpecVersion>, InvalidConfig> {
    let mut named: Vec<&str> = Vec::new();
    match fields.get("cniVersion") {
        None => {}
        Some(Value::String(version)) if version.is_empty() => {}
        Some(Value::String(version)) => named.push(version),
        Some(_) => return Err(invalid("its cniVersion is no string")),
    }
    match fields.get("cniVersions") {
        None => {}
        Some(Value::Array(all)) => {
            for version in all {
                let text = version.as_str();
                named.push(text.ok_or_else(|| invalid("one of its cniVersions is no string"))?);
            }
        }
        Some(_) => return Err(invalid("its cniVersions are no list")),
    }
    if named.is_empty() {
        return Ok(vec![SpecVersion::OLDEST]);
    }
    let mut versions = Vec::new();
    for text in &named {
        versions.push(SpecVersion::try_from((*text).to_owned())?);
    }
    versions.retain(|version| version.is_spoken());
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.dedup();
    match versions.is_empty() {
        true => Err(invalid(format!(
            "it is for CNI {}, and this mainstay speaks {}",
            named.join(", "),
            SPOKEN.map(|version| version.to_string()).join(", ")
        ))),
        false => Ok(versions),
    }
}

#[cfg(test)]
mod tests;
