//! What whoever writes a pod or a template of pods should know. Source: `pkg/api/pod/warnings.go`, as far
//! as it is about what nodes here carry out.

use std::collections::BTreeSet;

use mainstay_pod::Quantity;
use mainstay_pod::validate::Path;
use serde_json::Value;

use crate::kinds::rules::{at, list, number, text};

/// Volumes that nobody mounts any more, and since when.
const GONE: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Of a pod's spec at a path.
pub(crate) fn of_spec(spec: &Value, path: &Path<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let constraints = path.field("topologySpreadConstraints");
    for (at_index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        if at(constraint, "labelSelector").is_null() {
            let path = constraints.index(at_index);
            let path = path.field("labelSelector");
            warnings.push(format!("{path}: a null labelSelector results in matching no pod"));
        }
    }
    let volumes = path.field("volumes");
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        for (kind, since) in GONE.into_iter().filter(|(kind, _)| !at(volume, kind).is_null()) {
            let path = volumes.index(index);
            warnings.push(format!("{}: {since}", path.field(kind)));
        }
    }
    repeated(spec, "hostAliases", "ip", path, &mut warnings);
    repeated(spec, "imagePullSecrets", "name", path, &mut warnings);
    let secrets = path.field("imagePullSecrets");
    for (index, _) in list(spec, "imagePullSecrets")
        .iter()
        .enumerate()
        .filter(|(_, secret)| text(secret, "name").is_empty())
    {
        let path = secrets.index(index);
        warnings.push(format!("{}: invalid empty name \"\"", path.field("name")));
    }
    for key in ["initContainers", "containers"] {
        let path = path.field(key);
        for (index, it) in list(spec, key).iter().enumerate() {
            container(it, &path.index(index), &mut warnings);
        }
    }
    ports(spec, path, &mut warnings);
    warnings
}

fn repeated(spec: &Value, key: &str, by: &str, path: &Path<'_>, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    let path = path.field(key);
    for (index, item) in list(spec, key).iter().enumerate() {
        let value = text(item, by);
        if !seen.insert(value) {
            let path = path.index(index);
            warnings.push(format!("{}: duplicate {by} {value:?}", path.field(by)));
        }
    }
}

fn container(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let resources = at(container, "resources");
    for name in ["memory", "ephemeral-storage"] {
        for side in ["limits", "requests"] {
            let amount = text(at(resources, side), name);
            let fraction = Quantity::parse(amount).is_ok_and(|it| it.milli() % 1000 != 0);
            if fraction {
                let path = path.field("resources");
                let path = path.field(side);
                warnings.push(format!(
                    "{}: fractional byte value {amount:?} is invalid, must be an integer",
                    path.key(name)
                ));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let path = path.field("env");
    for (index, variable) in list(container, "env").iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let before = format!("$({name})");
        let hides =
            !at(variable, "valueFrom").is_null() || value == before || !value.contains(&before);
        if !seen.insert(name) && hides {
            warnings.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                path.index(index)
            ));
        }
    }
}

/// A port that is named twice, in one container or in two.
fn ports(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let mut seen: Vec<(i64, &str, i64, &str, String)> = Vec::new();
    for key in ["initContainers", "containers"] {
        let path = path.field(key);
        for (index, container) in list(spec, key).iter().enumerate() {
            let path = path.index(index);
            let path = path.field("ports");
            for (index, port) in list(container, "ports").iter().enumerate() {
                let path = path.index(index);
                let this = (number(port, "containerPort"), text(port, "protocol"));
                let host = (number(port, "hostPort"), text(port, "hostIP"));
                let mut known = seen.iter().filter(|it| (it.0, it.1) == this);
                let same = known.clone().find(|it| (it.2, it.3) == host);
                let half = known.find(|it| it.2 == 0 && host.0 == 0);
                if let Some(other) = same.or(half) {
                    warnings.push(format!("{path}: duplicate port definition with {}", other.4));
                }
                seen.push((this.0, this.1, host.0, host.1, path.to_string()));
            }
        }
    }
}
