//! Requests, limits and claims.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ResourceClaim, ResourceRequirements};

use super::{Errors, Json, names};
use crate::path::Path;
use crate::quantity::Quantity;
use crate::resources::{is_huge_page, is_pod_level, parse};

/// Resources that are counted, and so come in whole numbers.
const INTEGER: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// Names without a domain that mean something somewhere in the API.
const STANDARD: [&str; 11] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "storage",
];

/// Who asks for the resources.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Level {
    Container,
    Pod,
}

/// `validateResourceRequirements`.
pub(super) fn requirements(
    required: &ResourceRequirements,
    level: Level,
    pod_claims: &BTreeSet<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let (limits_path, requests_path) = (path.field("limits"), path.field("requests"));
    let limits = parse(required.limits.as_ref());
    let requests = parse(required.requests.as_ref());
    for (name, quantity) in &limits {
        amount(name, *quantity, level, &limits_path.key(name), errors);
    }
    for (name, quantity) in &requests {
        let path = requests_path.key(name);
        amount(name, *quantity, level, &path, errors);
        let limit = limits.get(name).copied();
        errors.placed(&path, |errors| {
            within_limit(name, *quantity, limit, &requests_path, &limits_path, errors);
        });
    }
    let mut all = limits.keys().chain(requests.keys()).map(String::as_str);
    if all.clone().any(is_huge_page) && !all.any(|name| matches!(name, "cpu" | "memory")) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    let claims = required.claims.as_deref().unwrap_or(&[]);
    claim_names(claims, pod_claims, &path.field("claims"), errors);
}

/// A request fits its limit; Kubernetes reports it at the list of requests or limits.
fn within_limit(
    name: &str,
    request: Quantity,
    limit: Option<Quantity>,
    requests: &Path<'_>,
    limits: &Path<'_>,
    errors: &mut Errors,
) {
    let overcommit = is_native(name) && !is_huge_page(name);
    match limit {
        Some(limit) if request != limit && !overcommit => {
            let message = format!("must be equal to {name} limit of {limit}");
            errors.invalid(requests, request.canonical().as_str(), &message);
        }
        Some(limit) if request > limit => {
            let message = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(requests, request.canonical().as_str(), &message);
        }
        None if !overcommit => {
            errors.required(limits, "Limit must be set for non overcommitable resources");
        }
        Some(_) | None => {}
    }
}

fn amount(name: &str, quantity: Quantity, level: Level, path: &Path<'_>, errors: &mut Errors) {
    match level {
        Level::Container => container_resource_name(name, path, errors),
        Level::Pod => pod_resource_name(name, path, errors),
    }
    quantity_value(name, quantity, path, errors);
    if is_huge_page(name) && !is_multiple_of_page(name, quantity) {
        let message = format!("{quantity} is not positive integer multiple of {name}");
        errors.invalid(path, quantity.canonical().as_str(), &message);
    }
}

/// `ValidateResourceQuantityValue`.
pub fn quantity_value(name: &str, quantity: Quantity, path: &Path<'_>, errors: &mut Errors) {
    if quantity.is_negative() {
        let message = "must be greater than or equal to 0";
        errors.invalid(path, quantity.canonical().as_str(), message);
    }
    let counted = INTEGER.contains(&name) || is_extended(name);
    if counted && quantity.milli() % 1000 != 0 {
        errors.invalid(path, Json(&quantity.canonical()), "must be an integer");
    }
}

/// `validateResourceName`; false if the name is wrong.
fn resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) -> bool {
    let messages = names::label_key(name);
    let well_formed = messages.is_empty();
    for message in messages {
        errors.invalid(path, Json(name), &message);
    }
    if !well_formed {
        return false;
    }
    let quota_huge_page = is_huge_page(name) || name.starts_with("requests.hugepages-");
    if !name.contains('/')
        && !STANDARD.contains(&name)
        && !INTEGER.contains(&name)
        && !quota_huge_page
    {
        errors.invalid(path, Json(name), "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

fn container_resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    resource_name(name, path, errors);
    if !name.contains('/') {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name);
        if !standard {
            errors.invalid(path, Json(name), "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, Json(name), "doesn't follow extended resource name standard");
    }
}

fn pod_resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if resource_name(name, path, errors) && !is_pod_level(name) {
        errors.not_supported(path, Json(name), &["cpu", "hugepages-", "memory"]);
    }
}

/// In the domain of Kubernetes, which names without a domain are too.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource of somebody's own, such as `example.com/gpu`.
fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::label_key(&format!("requests.{name}")).is_empty()
}

fn is_multiple_of_page(name: &str, quantity: Quantity) -> bool {
    let size = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    let Some(size) = size.filter(|size| *size > Quantity::ZERO && size.milli() % 1000 == 0) else {
        return false;
    };
    size.units() != 0 && quantity.units() % size.units() == 0
}

/// `validateResourceClaimNames`.
fn claim_names(
    claims: &[ResourceClaim],
    pod_claims: &BTreeSet<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (at, claim) in claims.iter().enumerate() {
        let path = path.index(at);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let request = super::text(claim.request.as_ref());
        if seen.contains(name) {
            errors.duplicate(&path, name);
        } else {
            let key = if request.is_empty() {
                name.to_owned()
            } else {
                errors.invalid_all(&path.field("request"), request, names::dns_label(request));
                format!("{name}/{request}")
            };
            if seen.contains(&key) {
                errors.duplicate(&path, key.as_str());
            } else if request.is_empty() {
                // The whole claim overlaps with every part of it that was named before.
                let start = format!("{name}/");
                let parts =
                    seen.range(start.clone()..).take_while(|it| it.starts_with(&start)).count();
                for _ in 0..parts {
                    errors.duplicate(&path, name);
                }
            }
            seen.insert(key);
        }
        if !pod_claims.contains(name) {
            let mut detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if pod_claims.is_empty() {
                detail.push_str(" which is empty");
            } else {
                let names: Vec<&str> = pod_claims.iter().copied().take(100).collect();
                detail.push_str(": ");
                detail.push_str(&names.join(", "));
            }
            errors.not_found(&path, name, &detail);
        }
    }
}
