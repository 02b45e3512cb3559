//! Whether a Pod may be created (Kubernetes 1.36, feature gates at their defaults).
//!
//! Source: `pkg/apis/core/validation/validation.go`, `ValidatePodCreate` and what it calls. Field paths,
//! kinds of error and texts are Kubernetes' own, quirks included; only where Kubernetes prints one of its
//! internal Go structs as the bad value is the API's JSON printed instead. Of a map's errors the order is
//! that of its keys, where Kubernetes' is random.
//!
//! Defaults have to be filled in before ([`crate::defaults`]).

mod affinity;
mod annotations;
mod claims;
mod container;
mod data;
mod env;
mod error;
mod handlers;
pub mod metadata;
mod mounts;
pub mod names;
mod os;
mod pod_level;
mod projected;
mod references;
mod resources;
mod scheduling;
mod security;
mod spec;
mod template;
mod volumes;
mod volumes_remote;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::defaults;
pub use crate::path::Path;

pub use data::{ACCOUNT_OF_SECRET, config_map, secret, secret_of_type};
pub use error::{ErrorKind, Errors, FieldError, Json, Show, Shown};
pub use references::{Reference, api_references};
pub use resources::quantity_value;
pub use scheduling::tolerations;
pub use template::{overhead, template};

/// Bytes of a whole list or object that are shown as a bad value.
const MAX_SHOWN: usize = 2000;

/// Everything that keeps a Pod from being created; empty if nothing does.
pub fn create(pod: &Pod) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::new("spec");
    metadata::metadata(
        &pod.metadata,
        true,
        names::dns_subdomain,
        &Path::new("metadata"),
        &mut errors,
    );
    let spec = metadata_and_spec(pod, &path, &mut errors);
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        errors.forbidden(&path.field("ephemeralContainers"), "cannot be set on create");
    }
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    if gated && is_set(spec.node_name.as_ref()) {
        errors.forbidden(
            &path.field("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        );
    }
    profiles_match(pod, &spec, &path, &mut errors);
    errors.0
}

/// What a Pod that is changed must be like, whatever it was before: `validatePodMetadataAndSpec`.
pub fn update(pod: &Pod) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::new("spec");
    let spec = metadata_and_spec(pod, &path, &mut errors);
    profiles_match(pod, &spec, &path, &mut errors);
    errors.0
}

fn metadata_and_spec<'a>(pod: &'a Pod, path: &Path<'_>, errors: &mut Errors) -> Cow<'a, PodSpec> {
    let spec = pod.spec.as_ref().map_or_else(|| Cow::Owned(PodSpec::default()), Cow::Borrowed);
    let metadata = Path::new("metadata");
    annotations::annotations(&pod.metadata, &spec, &metadata.field("annotations"), errors);
    spec::spec(&spec, &pod.metadata, spec::Holder::Pod, path, errors);
    token_without_account(&spec, path, errors);
    for (list, containers) in container_lists(&spec) {
        let path = path.field(list);
        for (index, container) in containers.iter().enumerate() {
            container::only_for_pod(container, &path.index(index), errors);
        }
    }
    spec
}

fn profiles_match(pod: &Pod, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    annotations::seccomp_matches(&pod.metadata, spec, path, errors);
    annotations::apparmor_matches(&pod.metadata, spec, path, errors);
}

/// Why a text cannot be a node's name, if it cannot.
pub(crate) fn node_name(name: &str) -> Option<String> {
    names::dns_subdomain(name).into_iter().next()
}

/// A projected token needs an account to be a token of.
fn token_without_account(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    if is_set(spec.service_account_name.as_ref()) {
        return;
    }
    let path = path.field("volumes");
    for (at, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.index(at);
        let path = path.field("projected");
        let path = path.field("sources");
        let sources = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
        for (at, source) in sources.enumerate() {
            if source.service_account_token.is_some() {
                errors.forbidden(
                    &path.index(at).field("serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    }
}

/// The lists of containers and of init containers, in the order in which they are reported.
fn container_lists(spec: &PodSpec) -> [(&'static str, &[Container]); 2] {
    let init = spec.init_containers.as_deref().unwrap_or(&[]);
    [("containers", &spec.containers), ("initContainers", init)]
}

/// Calls a function with every container and its path: init containers, containers, ephemeral ones.
fn visit_containers(spec: &PodSpec, path: &Path<'_>, mut visit: impl FnMut(&Container, &Path<'_>)) {
    let init = path.field("initContainers");
    for (at, container) in spec.init_containers.iter().flatten().enumerate() {
        visit(container, &init.index(at));
    }
    let main = path.field("containers");
    for (at, container) in spec.containers.iter().enumerate() {
        visit(container, &main.index(at));
    }
    let ephemeral = path.field("ephemeralContainers");
    for (at, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        visit(&defaults::as_container(container), &ephemeral.index(at));
    }
}

fn is_set(text: Option<&String>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

/// A text that may be absent; absent and empty are the same to Kubernetes.
fn text(text: Option<&String>) -> &str {
    text.map_or("", String::as_str)
}

/// What Kubernetes prints for a value that has no short form of its own.
pub fn as_json(value: &impl serde::Serialize) -> Shown {
    let mut text = mainstay_schema::go::json(value);
    if text.len() > MAX_SHOWN {
        text.truncate(text.floor_char_boundary(MAX_SHOWN));
        text.push_str("...");
    }
    Shown(text)
}

#[cfg(test)]
mod tests;
