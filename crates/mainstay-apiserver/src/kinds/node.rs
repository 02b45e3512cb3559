//! Nodes.
//!
//! Source: `pkg/registry/core/node` and `pkg/apis/core/validation` (`ValidateNode`).

use std::borrow::Cow;

use jiff::Timestamp;
use mainstay_pod::Quantity;
use mainstay_pod::validate::{Errors, FieldError, Path, Shown, names};
use serde_json::Value;

use super::rules;
use crate::kind::{self, AGE, Column, NAME, PLAIN, Resource, Strategy, column, wide};
use crate::object::Object;
use crate::table;

pub(crate) static NODES: Resource = Resource {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[kind::proxy("NodeProxyOptions"), kind::status("Node")],
    storage: "nodes",
    strategy: &Nodes,
    ..PLAIN
};

struct Nodes;

impl Strategy for Nodes {
    fn default(&self, object: &mut Object) {
        // Source: `SetDefaults_NodeStatus`.
        let capacity = object.at(&["status", "capacity"]).cloned();
        if let Some(capacity) = capacity
            && object.at(&["status", "allocatable"]).is_none()
        {
            object.field_mut("status").insert("allocatable".into(), capacity);
        }
        // One range and all of them say the same. Source: `Convert_v1_NodeSpec_To_core_NodeSpec`.
        let one = object.str_at(&["spec", "podCIDR"]).to_owned();
        let first =
            rules::texts(rules::top(object, "spec"), "podCIDRs").first().map(|it| (*it).to_owned());
        let spec = object.field_mut("spec");
        match (one.as_str(), first) {
            ("", Some(first)) => {
                spec.insert("podCIDR".into(), first.into());
            }
            ("", None) => {}
            (one, first) if first.as_deref() != Some(one) => {
                spec.insert("podCIDRs".into(), vec![one].into());
            }
            _ => {}
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        object.field_mut("spec").remove("configSource");
        object.field_mut("status").remove("config");
    }

    fn prepare_update(&self, new: &mut Object, old: &Object) {
        if old.at(&["spec", "configSource"]).is_none() {
            new.field_mut("spec").remove("configSource");
        }
    }

    fn prepare_status(&self, new: &mut Object, old: &Object) {
        if old.at(&["status", "config"]).is_none() {
            new.field_mut("status").remove("config");
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        avoided_pods(object, &mut errors);
        taints(object, &mut errors);
        amounts(object, &mut errors);
        ranges(object, &mut errors);
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors(self.validate(new));
        repeated_addresses(new, &mut errors);
        let spec = Path::new("spec");
        let ranges = |object| rules::at(rules::top(object, "spec"), "podCIDRs");
        if !ranges(old).is_null() && ranges(new) != ranges(old) {
            errors.forbidden(
                &spec.field("podCIDRs"),
                "node updates may not change podCIDR except from \"\" to valid",
            );
        }
        let (before, after) =
            (old.str_at(&["spec", "providerID"]), new.str_at(&["spec", "providerID"]));
        if !before.is_empty() && before != after {
            errors.forbidden(
                &spec.field("providerID"),
                "node updates may not change providerID except from \"\" to valid",
            );
        }
        if new.str_at(&["spec", "externalID"]) != old.str_at(&["spec", "externalID"]) {
            errors.forbidden(&spec.field("externalID"), "may not be updated");
        }
        errors.0
    }

    fn validate_status(&self, new: &Object, _old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        avoided_pods(new, &mut errors);
        amounts(new, &mut errors);
        repeated_addresses(new, &mut errors);
        errors.0
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        match object.str_at(&["spec", "externalID"]) {
            "" => Vec::new(),
            _ => vec![
                "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
            ],
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field<'a>(&self, object: &'a Object, _field: &str) -> Cow<'a, str> {
        if is_unschedulable(object) { "true".into() } else { "false".into() }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Status", "string", "The status of the node"),
            column("Roles", "string", "The roles of the node"),
            AGE,
            column("Version", "string", "Kubelet Version reported by the node."),
            wide("Internal-IP", "string", "List of addresses reachable to the node."),
            wide("External-IP", "string", "List of addresses reachable to the node."),
            wide(
                "OS-Image",
                "string",
                "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
            ),
            wide(
                "Kernel-Version",
                "string",
                "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
            ),
            wide(
                "Container-Runtime",
                "string",
                "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
            ),
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let info = |key: &str| object.str_at(&["status", "nodeInfo", key]);
        let unknown =
            |text: &str| if text.is_empty() { "<unknown>".to_owned() } else { text.to_owned() };
        let mut kernel = unknown(info("kernelVersion"));
        if !info("architecture").is_empty() {
            kernel = format!("{kernel} ({})", info("architecture"));
        }
        vec![
            object.name().into(),
            status(object).into(),
            roles(object).into(),
            table::age(object, now),
            info("kubeletVersion").into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            unknown(info("osImage")).into(),
            kernel.into(),
            unknown(info("containerRuntimeVersion")).into(),
        ]
    }
}

fn is_unschedulable(object: &Object) -> bool {
    object.at(&["spec", "unschedulable"]).and_then(Value::as_bool) == Some(true)
}

fn status(object: &Object) -> String {
    let conditions = object.list_at(&["status", "conditions"]);
    let ready = conditions.iter().rfind(|condition| rules::text(condition, "type") == "Ready");
    let ready = match ready.map(|condition| rules::text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if is_unschedulable(object) { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

/// Source: `findNodeRoles`.
fn roles(object: &Object) -> String {
    let labels = object.meta().and_then(|meta| meta.get("labels")?.as_object());
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address(object: &Object, kind: &str) -> String {
    let addresses = object.list_at(&["status", "addresses"]);
    let found = addresses.iter().find(|address| rules::text(address, "type") == kind);
    found.map_or_else(|| "<none>".to_owned(), |address| rules::text(address, "address").to_owned())
}

/// Source: `validateNodeTaints`.
fn taints(object: &Object, errors: &mut Errors) {
    // Kubernetes takes them for a part of the metadata.
    let metadata = Path::new("metadata");
    let path = metadata.field("taints");
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (at, taint) in object.list_at(&["spec", "taints"]).iter().enumerate() {
        let path = path.index(at);
        let (key, value, effect) =
            (rules::text(taint, "key"), rules::text(taint, "value"), rules::text(taint, "effect"));
        errors.invalid_all(&path.field("key"), key, names::label_key(key));
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.invalid(&path.field("value"), value, &messages.join(";"));
        }
        match effect {
            "" => errors.required(&path.field("effect"), ""),
            effect => {
                let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
                errors.one_of(&path.field("effect"), effect, &effects);
            }
        }
        if seen.contains(&(key, effect)) {
            let shown = format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{}}}: taints must be unique by \
                 key and effect pair",
                Value::from(key),
                Value::from(value),
                Value::from(effect),
                rules::at(taint, "timeAdded")
            );
            errors.duplicate(&path, Shown(shown));
        }
        seen.push((key, effect));
    }
}

/// An annotation of old that has to be JSON. Source: `ValidateAvoidPodsInNodeAnnotations`.
fn avoided_pods(object: &Object, errors: &mut Errors) {
    const KEY: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";
    let Some(avoided) = object.annotation(KEY).filter(|it| !it.is_empty()) else { return };
    if let Err(error) = serde_json::from_str::<serde_json::Map<String, Value>>(avoided) {
        let path = Path::new("metadata");
        let path = path.field("annotations");
        let detail = match error.is_eof() {
            true => "unexpected end of JSON input".to_owned(),
            false => format!("invalid JSON at line {} column {}", error.line(), error.column()),
        };
        errors.invalid(&path.field("AvoidPods"), KEY, &detail);
    }
}

/// Source: `ValidateNodeResources`.
fn amounts(object: &Object, errors: &mut Errors) {
    let status = Path::new("status");
    for list in ["capacity", "allocatable"] {
        let path = status.field(list);
        let amounts = rules::at(rules::top(object, "status"), list).as_object();
        for (name, amount) in amounts.into_iter().flatten() {
            let amount = amount.as_str().unwrap_or_default();
            let Ok(amount) = Quantity::parse(amount) else { continue };
            mainstay_pod::validate::quantity_value(name, amount, &path.field(name), errors);
        }
    }
}

fn repeated_addresses(object: &Object, errors: &mut Errors) {
    let status = Path::new("status");
    let path = status.field("addresses");
    let addresses = object.list_at(&["status", "addresses"]);
    for (at, address) in addresses.iter().enumerate() {
        if addresses.iter().take(at).any(|other| other == address) {
            let part = |key| Value::from(rules::text(address, key));
            let shown = format!("{{\"Type\":{},\"Address\":{}}}", part("type"), part("address"));
            errors.duplicate(&path.index(at), Shown(shown));
        }
    }
}

fn ranges(object: &Object, errors: &mut Errors) {
    let spec = Path::new("spec");
    let path = spec.field("podCIDRs");
    let ranges = rules::texts(rules::top(object, "spec"), "podCIDRs");
    for (at, range) in ranges.iter().enumerate() {
        errors.invalid_all(&path.index(at), range, rules::network(range));
    }
    if ranges.len() > 2 || ranges.len() == 2 && !rules::of_both_families(&ranges) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.invalid(&path, Shown(Value::from(ranges).to_string()), detail);
    }
}
