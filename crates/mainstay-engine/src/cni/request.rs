//! What a plugin is called with.
//!
//! Source: the CNI specification 1.1.0, sections 2 and 3.

use std::fmt;

use serde_json::{Value, json};

use super::attachment::{Attachment, CniNetwork};
use super::config::{Object, PluginConfig, SpecVersion};

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// One call of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: Command,
    /// The plugin's type, which names its program.
    pub(crate) plugin: String,
    /// The network.
    pub(crate) network: String,
    /// Variables beside those of the agent.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// What it reads.
    pub(crate) input: Vec<u8>,
}

impl Command {
    /// What it is called in `CNI_COMMAND`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// As libcni has it in its errors.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Del => "delete",
            Self::Check => "check",
            Self::Gc => "gc",
            Self::Status => "status",
            Self::Version => "version",
        })
    }
}

impl Attachment {
    /// The call of one plugin in the chain of ADD, where `before` is what the one before it answered.
    pub(crate) fn add(&self, plugin: &PluginConfig, before: Option<&Value>) -> Request {
        self.request(Command::Add, plugin, before, true)
    }

    /// The calls of CHECK, in their order; none where it is not to be called.
    pub(crate) fn check(&self) -> Vec<Request> {
        let network = &self.network;
        let Some(result) = &self.result else { return Vec::new() };
        if network.disable_check || network.cni_version < SpecVersion::WITH_CHECK {
            return Vec::new();
        }
        let all = network.plugins.iter();
        all.map(|plugin| self.request(Command::Check, plugin, Some(result), true)).collect()
    }

    /// The calls of DEL, in their order; `present` tells whether the network namespace is still there.
    pub(crate) fn del(&self, present: bool) -> Vec<Request> {
        let told = self.network.cni_version >= SpecVersion::WITH_CHECK;
        let result = self.result.as_ref().filter(|_| told);
        let all = self.network.plugins.iter().rev();
        all.map(|plugin| self.request(Command::Del, plugin, result, present)).collect()
    }

    fn request(
        &self,
        command: Command,
        plugin: &PluginConfig,
        result: Option<&Value>,
        present: bool,
    ) -> Request {
        let mut input = self.network.input(plugin);
        let wanted = self.capability_args.iter().filter(|(name, _)| plugin.has_capability(name));
        let wanted: Object = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !wanted.is_empty() {
            input.insert("runtimeConfig".into(), Value::Object(wanted));
        }
        input.remove("capabilities");
        if let Some(result) = result {
            input.insert("prevResult".into(), result.clone());
        }
        let args: Vec<_> =
            self.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let netns = if present { self.netns.to_string_lossy().into_owned() } else { String::new() };
        let mut request = self.network.request(command, plugin, input);
        request.environment.extend([
            ("CNI_CONTAINERID", self.container_id.clone()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", self.if_name.clone()),
            ("CNI_ARGS", args.join(";")),
        ]);
        request
    }
}

impl CniNetwork {
    /// The calls of STATUS, in their order; none where plugins do not know it.
    pub(crate) fn status(&self) -> Vec<Request> {
        if self.cni_version < SpecVersion::WITH_STATUS {
            return Vec::new();
        }
        let all = self.plugins.iter();
        all.map(|plugin| self.request(Command::Status, plugin, self.input(plugin))).collect()
    }

    /// The calls of GC, in their order, where `valid` are the sandboxes that are in the network; none
    /// where it is not to be called.
    pub(crate) fn gc(&self, valid: &[(String, String)]) -> Vec<Request> {
        if self.disable_gc || self.cni_version < SpecVersion::WITH_STATUS {
            return Vec::new();
        }
        let valid: Vec<_> = valid
            .iter()
            .map(|(id, if_name)| json!({ "containerID": id, "ifname": if_name }))
            .collect();
        let request = |plugin| {
            let mut input = self.input(plugin);
            // The second one is what plugins know that go by libcni 1.2.0.
            for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                input.insert(key.into(), Value::Array(valid.clone()));
            }
            self.request(Command::Gc, plugin, input)
        };
        self.plugins.iter().map(request).collect()
    }

    /// The call by which a plugin tells the versions that it speaks.
    pub(crate) fn version(&self, plugin: &PluginConfig) -> Request {
        let mut input = Object::new();
        input.insert("cniVersion".into(), self.cni_version.to_string().into());
        self.request(Command::Version, plugin, input)
    }

    /// What every call has in its input.
    fn input(&self, plugin: &PluginConfig) -> Object {
        let mut input = plugin.fields.clone();
        input.retain(|key, _| key != "prevResult" && !key.starts_with("cni.dev/"));
        input.insert("name".into(), self.name.clone().into());
        input.insert("cniVersion".into(), self.cni_version.to_string().into());
        input
    }

    fn request(&self, command: Command, plugin: &PluginConfig, input: Object) -> Request {
        let dirs: Vec<_> = self.bin_dirs.iter().map(|dir| dir.to_string_lossy()).collect();
        Request {
            command,
            plugin: plugin.kind.clone(),
            network: self.name.clone(),
            environment: vec![
                ("CNI_COMMAND", command.name().to_owned()),
                ("CNI_PATH", dirs.join(":")),
            ],
            input: Value::Object(input).to_string().into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
