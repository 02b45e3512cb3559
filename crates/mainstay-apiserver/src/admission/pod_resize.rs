//! A pod is not asked to become larger than its node. Source: `plugin/pkg/admission/podresize`.

use k8s_openapi::api::core::v1::PodSpec;
use mainstay_pod::Quantity;
use mainstay_pod::resources::requests_of;
use serde::Deserialize as _;

use super::{Attributes, Operation};
use crate::kinds;
use crate::object::Object;
use crate::server::Inner;
use crate::status::{ApiError, Cause, Result};

pub(super) async fn validate(
    server: &Inner,
    attributes: &Attributes<'_>,
    new: Option<&Object>,
    old: Option<&Object>,
) -> Result<()> {
    let (Some(pod), Some(old)) = (new, old) else { return Ok(()) };
    let is_resize = attributes.operation == Operation::Update
        && (attributes.resource.group, attributes.resource.plural) == ("", "pods")
        && attributes.subresource == "resize";
    let name = pod.str_at(&["spec", "nodeName"]);
    if !is_resize || name.is_empty() || pod.generation() == old.generation() {
        return Ok(());
    }
    let Some(node) = server.storage.find(&kinds::NODES, "", name).await? else {
        return Err(attributes.forbidden(format!("node {name:?} not found")));
    };
    let node = node.object;
    if let Some(system) = node.label("kubernetes.io/os").filter(|system| *system != "linux") {
        let why =
            format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
        return Err(refuse(attributes, "UnsupportedPlatform", &why));
    }
    let Some(spec) = pod.0.get("spec").and_then(|spec| PodSpec::deserialize(spec).ok()) else {
        return Ok(());
    };
    let requests = requests_of(&spec);
    let short = [("cpu", true), ("memory", false)].into_iter().filter_map(|(name, milli)| {
        let of_node = Quantity::parse(node.str_at(&["status", "allocatable", name]));
        let allocatable = of_node.unwrap_or(Quantity::ZERO);
        let requested = requests.get(name).filter(|requested| **requested > allocatable)?;
        let shown = |it: Quantity| if milli { it.milli() } else { it.units() };
        let (requested, allocatable) = (shown(*requested), shown(allocatable));
        Some(format!("{name}, requested: {requested}, allocatable: {allocatable}"))
    });
    let short: Vec<String> = short.collect();
    if short.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", short.join("; "));
    Err(refuse(attributes, "NodeCapacity", &why))
}

fn refuse(attributes: &Attributes<'_>, cause: &str, why: &str) -> ApiError {
    let mut error = attributes.forbidden(why);
    if let Some(details) = &mut error.details {
        details.causes.push(Cause { reason: cause.to_owned(), ..Cause::default() });
    }
    error
}
