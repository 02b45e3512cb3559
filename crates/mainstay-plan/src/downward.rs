//! The downward API: what a pod can be told of itself.
//!
//! Source: `pkg/fieldpath/fieldpath.go`, `podFieldSelectorRuntimeValue` in
//! `pkg/kubelet/kubelet_pods.go`, `pkg/api/v1/resource/helpers.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use mainstay_pod::validate::Show as _;
use mainstay_pod::{Amounts, Pod, Quantity};

use crate::references::{Referenced, SourceError};
use crate::status::NodeAddresses;
use crate::tokens::Tokens;

/// What a pod does not know by itself, and its variables and files may tell.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// What of the node pods can have.
    pub allocatable: Amounts,
    /// The node's addresses.
    pub node: &'a NodeAddresses,
    /// The addresses of the pod's sandbox, the primary one first. Files know of none.
    pub pod_ips: &'a [IpAddr],
    /// What is known of the objects that it refers to.
    pub objects: &'a Referenced,
    /// The tokens that it wants. Variables know of none.
    pub tokens: &'a Tokens,
}

/// The value of a field for a variable.
pub(crate) fn variable(
    pod: &Pod,
    path: &str,
    around: &Surroundings<'_>,
) -> Result<String, SourceError> {
    let joined = |ips: &[IpAddr]| {
        let texts: Vec<String> = ips.iter().map(ToString::to_string).collect();
        texts.join(",")
    };
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    // On the host's network, a pod's addresses are the host's.
    let pod_ips = if pod.is_host_network() { &around.node.ips } else { around.pod_ips };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Ok(match path {
        "spec.nodeName" | "spec.host" => text(&pod.spec().node_name),
        "spec.serviceAccountName" => text(&pod.spec().service_account_name),
        "status.hostIP" => first(&around.node.ips),
        "status.hostIPs" => joined(&around.node.ips),
        "status.podIP" => first(pod_ips),
        "status.podIPs" => joined(pod_ips),
        other => return field(pod, other),
    })
}

/// The value of a field of the metadata. Source: `ExtractFieldPathAsString`.
pub(crate) fn field(pod: &Pod, path: &str) -> Result<String, SourceError> {
    let metadata = pod.metadata();
    let value = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return match map {
            "metadata.annotations" => Ok(value(&metadata.annotations, key)),
            "metadata.labels" => Ok(value(&metadata.labels, key)),
            _ => {
                Err(SourceError::Unknown(format!("fieldPath {path:?} does not support subscript")))
            }
        };
    }
    match path {
        "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
        "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
        "metadata.name" => Ok(pod.name().to_owned()),
        "metadata.namespace" => Ok(pod.namespace().to_owned()),
        "metadata.uid" => Ok(pod.uid().to_owned()),
        _ => Err(SourceError::Unknown(format!("unsupported fieldPath: {path}"))),
    }
}

/// One line for each, with the value as Go quotes it. Source: `FormatMap`.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={}", value.as_str().show());
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// A resource of a container, for one of its variables.
pub(crate) fn resource_for_variable(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    around: &Surroundings<'_>,
) -> Result<String, SourceError> {
    // The pod's own limits, where it has some, take the node's place. Source:
    // `defaultPodLimitsForDownwardAPI` in `pkg/kubelet/kubelet_resources.go`.
    let mut most = around.allocatable;
    let limits = pod.spec().resources.as_ref().and_then(|it| it.limits.as_ref());
    let limit = |name: &str| limits.and_then(|it| amount(it, name)).filter(|it| !it.is_zero());
    let number = |value: i64| u64::try_from(value).ok();
    most.cpu_milli = limit("cpu").map_or(most.cpu_milli, |it| number(it.milli()));
    most.memory_bytes = limit("memory").map_or(most.memory_bytes, |it| number(it.units()));
    match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => resource(container, selector, &most),
        Some(name) => {
            let mut main = pod.spec().containers.iter();
            match main.find(|container| container.name == name) {
                Some(container) => resource(container, selector, &most),
                None => resource(of_name(pod, name)?, selector, &Amounts::default()),
            }
        }
    }
}

/// A resource of a container, for a file.
pub(crate) fn resource_for_file(
    pod: &Pod,
    selector: &ResourceFieldSelector,
    around: &Surroundings<'_>,
) -> Result<String, SourceError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    resource(of_name(pod, name)?, selector, &around.allocatable)
}

fn of_name<'a>(pod: &'a Pod, name: &str) -> Result<&'a Container, SourceError> {
    let spec = pod.spec();
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.find(|container| container.name == name)
        .ok_or_else(|| SourceError::Unknown(format!("container {name} not found")))
}

fn amount(list: &BTreeMap<String, QuantityText>, name: &str) -> Option<Quantity> {
    list.get(name).and_then(|text| Quantity::parse(&text.0).ok())
}

/// In units of the divisor, rounded up. `most` stands for limits that are not set.
fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    most: &Amounts,
) -> Result<String, SourceError> {
    let none = ResourceRequirements::default();
    let resources = container.resources.as_ref().unwrap_or(&none);
    let unknown =
        || SourceError::Unknown(format!("unsupported container resource : {}", selector.resource));
    let (list, name, most) = match selector.resource.split_once('.').ok_or_else(unknown)? {
        ("limits", name) => (&resources.limits, name, *most),
        ("requests", name) => (&resources.requests, name, Amounts::default()),
        _ => return Err(unknown()),
    };
    let written = list.as_ref().and_then(|list| amount(list, name)).filter(|it| !it.is_zero());
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let divisor = selector.divisor.as_ref().and_then(|text| Quantity::parse(&text.0).ok());
    let divisor = divisor.filter(|divisor| !divisor.is_zero()).unwrap_or(Quantity::from_units(1));
    let (value, divisor) = match name {
        "cpu" => {
            let milli = written.map(|it| number(it.milli())).or(most.cpu_milli);
            (milli, number(divisor.milli()))
        }
        "memory" => {
            (written.map(|it| number(it.units())).or(most.memory_bytes), number(divisor.units()))
        }
        "ephemeral-storage" => {
            let bytes = written.map(|it| number(it.units())).or(most.ephemeral_storage_bytes);
            (bytes, number(divisor.units()))
        }
        name if name.starts_with("hugepages-") => {
            (written.map(|it| number(it.units())), number(divisor.units()))
        }
        _ => return Err(unknown()),
    };
    Ok(value.unwrap_or(0).div_ceil(divisor.max(1)).to_string())
}

#[cfg(test)]
mod tests {
    use mainstay_testkit::pods::pod;
    use serde_json::json;

    use super::*;

    const MANIFEST: &str = r#"
        apiVersion: v1
        kind: Pod
        metadata:
          name: p
          namespace: ns
          labels: {b: two, a: "1"}
          annotations: {note: "say \"hi\"\n"}
        spec:
          containers:
          - name: c
            image: x
            resources: {requests: {cpu: 1500m, memory: 1Mi}, limits: {memory: 10M}}
          - {name: d, image: x}
        "#;

    fn with<T>(check: impl FnOnce(&Pod, &Surroundings<'_>) -> T) -> T {
        let node = NodeAddresses { ips: vec![[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()] };
        let allocatable = Amounts {
            cpu_milli: Some(4000),
            memory_bytes: Some(8 << 30),
            ephemeral_storage_bytes: Some(1 << 30),
        };
        let (pod_ips, objects) = ([[172, 16, 0, 2].into()], Referenced::default());
        let around = Surroundings {
            allocatable,
            node: &node,
            pod_ips: &pod_ips,
            objects: &objects,
            tokens: &Tokens::new(),
        };
        check(&pod(MANIFEST), &around)
    }

    #[test]
    fn a_pod_is_told_of_itself() {
        with(|pod, around| {
            for (path, value) in [
                ("metadata.name", "p-n1"),
                ("metadata.namespace", "ns"),
                ("metadata.uid", pod.uid()),
                ("metadata.labels", "a=\"1\"\nb=\"two\""),
                ("metadata.labels['b']", "two"),
                ("metadata.labels['none']", ""),
                ("metadata.annotations['note']", "say \"hi\"\n"),
                ("metadata.annotations['kubernetes.io/config.source']", "file"),
                ("spec.nodeName", "n1"),
                ("spec.serviceAccountName", ""),
                ("status.hostIP", "10.0.0.1"),
                ("status.hostIPs", "10.0.0.1,fd00::1"),
                ("status.podIP", "172.16.0.2"),
                ("status.podIPs", "172.16.0.2"),
            ] {
                assert_eq!(variable(pod, path, around).as_deref(), Ok(value), "{path}");
            }
            let annotations = field(pod, "metadata.annotations").unwrap();
            let note = r#"note="say \"hi\"\n""#;
            assert!(annotations.lines().any(|line| line == note), "{annotations}");
            for path in ["spec.restartPolicy", "status.phase", "spec.x['a']"] {
                variable(pod, path, around).unwrap_err();
            }
            // Files are told of what does not change only.
            field(pod, "status.podIP").unwrap_err();
        });
    }

    #[test]
    fn resources_are_told_in_units_and_rounded_up() {
        with(|pod, around| {
            let container = &pod.spec().containers[0];
            for (name, resource, divisor, value) in [
                ("", "requests.cpu", "0", "2"),
                ("", "requests.cpu", "1m", "1500"),
                ("", "limits.cpu", "1", "4"),
                ("", "requests.memory", "1k", "1049"),
                ("", "limits.memory", "1Mi", "10"),
                ("d", "limits.memory", "1Gi", "8"),
                ("d", "requests.memory", "1", "0"),
                ("d", "limits.ephemeral-storage", "1Mi", "1024"),
                ("d", "limits.hugepages-2Mi", "1", "0"),
            ] {
                let selector =
                    json!({"containerName": name, "resource": resource, "divisor": divisor});
                let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
                let found = resource_for_variable(pod, container, &selector, around);
                assert_eq!(found.as_deref(), Ok(value), "{name} {resource} {divisor}");
            }
            let selector = json!({"containerName": "e", "resource": "limits.cpu"});
            let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
            let error = resource_for_file(pod, &selector, around).unwrap_err();
            assert_eq!(error.to_string(), "container e not found");
        });
    }
}
