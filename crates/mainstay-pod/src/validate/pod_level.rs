//! Resources of the pod as a whole, and the claims of devices that it makes.

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::api::core::v1::{PodResourceClaim, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Errors, as_json, names, resources};
use crate::identity::CONFIG_MIRROR_ANNOTATION;
use crate::path::Path;
use crate::resources::{aggregate, is_huge_page, parse};

/// `validatePodResources`.
pub(super) fn resources(
    spec: &PodSpec,
    claims: &BTreeSet<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let Some(own) = &spec.resources else { return };
    let path = path.field("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.forbidden(&path, "may not be set for a windows pod");
        return;
    }
    if own.claims.is_some() {
        errors.forbidden(&path.field("claims"), "claims may not be set for Resources at pod-level");
    }
    resources::requirements(own, resources::Level::Pod, claims, &path, errors);
    consistent(spec, &path, errors);
}

/// `validatePodResourceConsistency`: what the containers ask for fits what the pod asks for.
fn consistent(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let Some(own) = &spec.resources else { return };
    let (own_requests, own_limits) = (parse(own.requests.as_ref()), parse(own.limits.as_ref()));
    let requests_path = path.field("requests");
    for (name, containers) in aggregate(spec, |it| it.requests.as_ref()) {
        let Some(pod) = own_requests.get(&name).filter(|pod| containers > **pod) else { continue };
        let message = format!(
            "must be greater than or equal to aggregate container requests of {containers}"
        );
        errors.invalid(&requests_path.key(&name), pod.canonical().as_str(), &message);
    }
    let limits_path = path.field("limits");
    for (name, containers) in aggregate(spec, |it| it.limits.as_ref()) {
        let Some(pod) =
            own_limits.get(&name).filter(|pod| is_huge_page(&name) && containers > **pod)
        else {
            continue;
        };
        let message =
            format!("must be greater than or equal to aggregate container limits of {containers}");
        errors.invalid(&limits_path.key(&name), pod.canonical().as_str(), &message);
    }
    let containers = path.field("containers");
    for (at, container) in spec.containers.iter().enumerate() {
        let path = containers.index(at);
        for (name, limit) in parse(container.resources.as_ref().and_then(|it| it.limits.as_ref())) {
            let Some(pod) = own_limits.get(&name).filter(|pod| limit > **pod) else { continue };
            let path = path.key(&name);
            let message = format!("must be less than or equal to pod limits of {pod}");
            errors.invalid(&path.field("limits"), limit.canonical().as_str(), &message);
        }
    }
}

/// `validatePodResourceClaims`.
pub(super) fn claims(
    claims: &[PodResourceClaim],
    meta: &ObjectMeta,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    const WHICH: &str = "`resourceClaimName`";
    let mirror = meta.annotations.iter().flatten().any(|(key, _)| key == CONFIG_MIRROR_ANNOTATION);
    let mut seen = HashSet::new();
    for (at, claim) in claims.iter().enumerate() {
        if mirror {
            errors.forbidden(&Path::new(""), "static pods do not support resource claims");
            continue;
        }
        let path = path.index(at);
        let name = path.field("name");
        if claim.name.is_empty() {
            errors.required(&name, "");
        } else if seen.contains(claim.name.as_str()) {
            errors.duplicate(&name, claim.name.as_str());
        } else {
            errors.invalid_all(&name, &claim.name, names::dns_label(&claim.name));
            seen.insert(claim.name.as_str());
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                let message = format!(
                    "at most one of {WHICH} or `resourceClaimTemplateName` may be specified"
                );
                errors.invalid(&path, as_json(claim), &message);
            }
            (None, None) => {
                let message = format!("must specify one of: {WHICH}, `resourceClaimTemplateName`");
                errors.invalid(&path, as_json(claim), &message);
            }
            _ => {}
        }
        let named = [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ];
        for (field, value) in named {
            if let Some(value) = value {
                errors.invalid_all(&path.field(field), value, names::dns_subdomain(value));
            }
        }
    }
}
