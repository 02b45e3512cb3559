//! Annotations that Kubernetes gives a meaning: mirror pods, old ways to ask for tolerations, seccomp and
//! AppArmor.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Errors, is_set, scheduling, security, visit_containers};
use crate::identity::CONFIG_MIRROR_ANNOTATION;
use crate::path::Path;

const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";
const RUNTIME_DEFAULT: &str = "runtime/default";
const DOCKER_DEFAULT: &str = "docker/default";
const UNCONFINED: &str = "unconfined";

/// `ValidatePodSpecificAnnotations`.
pub(super) fn annotations(meta: &ObjectMeta, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let annotations = meta.annotations.iter().flatten();
    let get = |key: &str| meta.annotations.as_ref().and_then(|it| it.get(key));
    if let Some(mirror) = get(CONFIG_MIRROR_ANNOTATION).filter(|_| !is_set(spec.node_name.as_ref()))
    {
        let message = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&path.key(CONFIG_MIRROR_ANNOTATION), mirror.as_str(), message);
    }
    if let Some(text) = get(TOLERATIONS).filter(|text| !text.is_empty()) {
        match serde_json::from_str::<Vec<Toleration>>(text) {
            Ok(tolerations) => {
                scheduling::tolerations(&tolerations, &path.field(TOLERATIONS), errors);
            }
            Err(error) => errors.invalid(path, TOLERATIONS, &error.to_string()),
        }
    }
    if let Some(cost) = get(DELETION_COST) {
        let canonical = cost == "0" || !(cost.starts_with('0') || cost.starts_with('+'));
        if !canonical || cost.parse::<i32>().is_err() {
            errors.invalid(&path.key(DELETION_COST), cost.as_str(), "must be a 32bit integer");
        }
    }
    if let Some(profile) = get(SECCOMP_POD) {
        seccomp_profile(profile, &path.field(SECCOMP_POD), errors);
    }
    for (key, profile) in annotations.clone().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER))
    {
        seccomp_profile(profile, &path.field(key), errors);
    }
    let mut containers = HashSet::new();
    visit_containers(spec, &Path::new("spec"), |container, _| {
        containers.insert(container.name.clone());
    });
    for (key, profile) in annotations {
        let Some(name) = key.strip_prefix(APPARMOR_CONTAINER) else { continue };
        if !containers.contains(name) {
            errors.invalid(&path.key(key), name, "container not found");
        }
        let known = matches!(profile.as_str(), "" | RUNTIME_DEFAULT | UNCONFINED);
        if !known && !profile.starts_with(LOCALHOST) {
            let message = format!("invalid AppArmor profile name: {profile:?}");
            errors.invalid(&path.key(key), profile.as_str(), &message);
        }
    }
}

fn seccomp_profile(profile: &str, path: &Path<'_>, errors: &mut Errors) {
    if matches!(profile, RUNTIME_DEFAULT | DOCKER_DEFAULT | UNCONFINED) {
        return;
    }
    match profile.strip_prefix(LOCALHOST) {
        Some(file) => security::local_descending_path(file, path, errors),
        None => errors.invalid(path, profile, "must be a valid seccomp profile"),
    }
}

/// Where both the annotation and the field ask for a seccomp profile, they must ask for the same.
pub(super) fn seccomp_matches(
    meta: &ObjectMeta,
    spec: &PodSpec,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
    let pod = spec.security_context.as_ref().and_then(|it| it.seccomp_profile.as_ref());
    if let (Some(profile), Some(annotation)) = (pod, annotation(SECCOMP_POD)) {
        let path = path.field("securityContext");
        seccomp_match(annotation, profile, &path.field("seccompProfile"), errors);
    }
    visit_containers(spec, path, |container, path| {
        let profile =
            container.security_context.as_ref().and_then(|it| it.seccomp_profile.as_ref());
        let key = format!("{SECCOMP_CONTAINER}{}", container.name);
        if let (Some(profile), Some(annotation)) = (profile, annotation(&key)) {
            let path = path.field("securityContext");
            seccomp_match(annotation, profile, &path.field("seccompProfile"), errors);
        }
    });
}

fn seccomp_match(annotation: &str, profile: &SeccompProfile, path: &Path<'_>, errors: &mut Errors) {
    let type_differs = match profile.type_.as_str() {
        "Unconfined" => annotation != UNCONFINED,
        "RuntimeDefault" => !matches!(annotation, RUNTIME_DEFAULT | DOCKER_DEFAULT),
        "Localhost" => !annotation.starts_with(LOCALHOST),
        _ => return,
    };
    if type_differs {
        errors.forbidden(&path.field("type"), "seccomp type in annotation and field must match");
    } else if profile.type_ == "Localhost"
        && annotation.strip_prefix(LOCALHOST) != profile.localhost_profile.as_deref()
    {
        errors.forbidden(
            &path.field("localhostProfile"),
            "seccomp profile in annotation and field must match",
        );
    }
}

/// The same for AppArmor, except on Windows.
pub(super) fn apparmor_matches(
    meta: &ObjectMeta,
    spec: &PodSpec,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let pod = spec.security_context.as_ref().and_then(|it| it.app_armor_profile.as_ref());
    visit_containers(spec, path, |container, path| {
        let own = container.security_context.as_ref().and_then(|it| it.app_armor_profile.as_ref());
        let key = format!("{APPARMOR_CONTAINER}{}", container.name);
        let annotation = meta.annotations.as_ref().and_then(|it| it.get(&key));
        if let (Some(profile), Some(annotation)) = (own.or(pod), annotation) {
            let path = path.field("securityContext");
            apparmor_match(annotation, profile, &path.field("appArmorProfile"), errors);
        }
    });
}

fn apparmor_match(
    annotation: &str,
    profile: &AppArmorProfile,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let type_differs = match profile.type_.as_str() {
        "Unconfined" => annotation != UNCONFINED,
        "RuntimeDefault" => annotation != RUNTIME_DEFAULT,
        "Localhost" => !annotation.starts_with(LOCALHOST),
        _ => return,
    };
    if type_differs {
        errors.forbidden(&path.field("type"), "apparmor type in annotation and field must match");
    } else if profile.type_ == "Localhost"
        && annotation.strip_prefix(LOCALHOST) != profile.localhost_profile.as_deref()
    {
        errors.forbidden(
            &path.field("localhostProfile"),
            "apparmor profile in annotation and field must match",
        );
    }
}
