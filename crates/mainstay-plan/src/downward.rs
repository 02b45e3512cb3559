//! The downward API: what a pod can be told of itself.
//!
//! Source: `pkg/fieldpath/fieldpath.go`, `podFieldSelectorRuntimeValue` in
//! `pkg/kubelet/kubelet_pods.go`, `pkg/api/v1/resource/helpers.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use mainstay_pod::validate::Show as _;
use mainstay_pod::{Amounts, Pod, Quantity, Role};

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
        Some(name) => match of_name(pod, name)? {
            (Role::Main, container) => resource(container, selector, &most),
            (Role::Init | Role::Sidecar | Role::Ephemeral, container) => {
                resource(container, selector, &Amounts::default())
            }
        },
    }
}

/// A resource of a container, for a file.
pub(crate) fn resource_for_file(
    pod: &Pod,
    selector: &ResourceFieldSelector,
    around: &Surroundings<'_>,
) -> Result<String, SourceError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let (_, container) = of_name(pod, name)?;
    resource(container, selector, &around.allocatable)
}

fn of_name<'a>(pod: &'a Pod, name: &str) -> Result<(Role, &'a Container), SourceError> {
    let container = pod.container(name).filter(|(role, _)| *role != Role::Ephemeral);
    container.ok_or_else(|| SourceError::Unknown(format!("container {name} not found")))
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
mod tests;
