//! Why a pod was ended.
//!
//! Source: `evictionMessage` in `pkg/kubelet/eviction/helpers.go`.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{PodStatus, ResourceRequirements};
use mainstay_pod::{Pod, Quantity};

use super::{Levels, PodUsage, Resource, Threshold};
use crate::ephemeral_storage::EVICTED;

/// What the message begins with, whatever is short.
const BEGINNING: &str = "The node was low on resource: ";

/// What follows for a static pod, in our words.
const RETURNS: &str = "It is started again when the node has enough again. ";

/// Of what the node had too little, if a status tells of a pod that was ended for that.
pub fn resource_of(status: &PodStatus) -> Option<Resource> {
    let message =
        status.message.as_deref().filter(|_| status.reason.as_deref() == Some(EVICTED))?;
    let (name, _) = message.strip_prefix(BEGINNING)?.split_once('.')?;
    Resource::ALL.into_iter().find(|resource| resource.as_str() == name)
}

/// Why a pod was ended: what was short, and which of its containers used more of it than they asked for.
pub fn message(
    threshold: &Threshold,
    levels: &Levels,
    pod: &Pod,
    usage: Option<&PodUsage>,
) -> String {
    let resource = threshold.signal.resource();
    let name = resource.as_str();
    let mut message = format!("{BEGINNING}{name}. ");
    // Nothing that is written to a String fails.
    if let Some(level) = levels.of(threshold.signal) {
        let (least, available) = (threshold.quantity(level), amount(resource, level.available));
        let _ = write!(message, "Threshold quantity: {least}, available: {available}. ");
    }
    let spec = pod.spec();
    let tell = |message: &mut String, kind: &str, name: &str, used: u64, request: Quantity| {
        let used = Quantity::from_bytes(used);
        let _ = write!(
            message,
            "{kind} {name} was using {used}, request is {request}, has larger consumption of {}. ",
            resource.as_str()
        );
    };
    if let Some(usage) = usage {
        let own = spec.resources.as_ref();
        if let Some(request) = own.and_then(|own| request(own, resource))
            && resource == Resource::Memory
        {
            tell(&mut message, "Pod", pod.name(), usage.memory, request);
        }
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let Some(used) = usage.containers.get(&container.name) else { continue };
            let used = match resource {
                Resource::Memory => used.memory,
                Resource::EphemeralStorage => used.disk,
                Resource::Inodes | Resource::Pids => None,
            };
            let request = container.resources.as_ref().and_then(|it| request(it, resource));
            let request = request.unwrap_or(Quantity::ZERO);
            if let Some(used) = used.filter(|used| Quantity::from_bytes(*used) > request) {
                tell(&mut message, "Container", &container.name, used, request);
            }
        }
    }
    if pod.source().is_static() {
        message.push_str(RETURNS);
    }
    message
}

fn request(resources: &ResourceRequirements, resource: Resource) -> Option<Quantity> {
    let text = resources.requests.as_ref()?.get(resource.as_str())?;
    Quantity::parse(&text.0).ok()
}

/// Bytes are told by powers of 1024, files and processes are counted.
fn amount(resource: Resource, available: u64) -> Quantity {
    match resource {
        Resource::Memory | Resource::EphemeralStorage => Quantity::from_bytes(available),
        Resource::Inodes | Resource::Pids => {
            Quantity::from_units(i64::try_from(available).unwrap_or(i64::MAX))
        }
    }
}
