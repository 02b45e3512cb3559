//! What objects that make pods have of a pod: templates, and the overhead of a runtime.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Errors, annotations, metadata, resources, spec};
use crate::path::Path;

/// `ValidatePodTemplateSpec`. Defaults have to be filled in before ([`crate::defaults::template`]).
pub fn template(template: &PodTemplateSpec, path: &Path<'_>, errors: &mut Errors) {
    let (no_meta, no_spec) = (ObjectMeta::default(), PodSpec::default());
    let meta = template.metadata.as_ref().unwrap_or(&no_meta);
    let pod = template.spec.as_ref().unwrap_or(&no_spec);
    // The paths of labels and annotations have no `metadata` in Kubernetes.
    metadata::labels(meta.labels.as_ref(), &path.field("labels"), errors);
    metadata::annotations(meta.annotations.as_ref(), &path.field("annotations"), errors);
    annotations::annotations(meta, pod, &path.field("annotations"), errors);
    let path = path.field("spec");
    // A template has no name that the names of its claims could begin with.
    spec::spec(pod, &no_meta, spec::Holder::Template, &path, errors);
    annotations::seccomp_matches(meta, pod, &path, errors);
    annotations::apparmor_matches(meta, pod, &path, errors);
    if pod.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        errors.forbidden(
            &path.field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// What a runtime takes for each pod, judged as limits of a container:
/// `ValidateContainerResourceRequirements`.
pub fn overhead(amounts: &BTreeMap<String, Quantity>, path: &Path<'_>, errors: &mut Errors) {
    let required =
        ResourceRequirements { limits: Some(amounts.clone()), ..ResourceRequirements::default() };
    resources::requirements(&required, resources::Level::Container, &BTreeSet::new(), path, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(value: serde_json::Value) -> Vec<String> {
        let mut pod: PodTemplateSpec = serde_json::from_value(value).unwrap();
        crate::defaults::template(&mut pod);
        let mut errors = Errors::default();
        template(&pod, &Path::new("spec").field("template"), &mut errors);
        errors.0.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_template_is_judged_like_a_pod_at_its_own_paths() {
        let pod = json!({ "containers": [{ "name": "c", "image": "a" }] });
        assert_eq!(check(json!({ "spec": pod })), Vec::<String>::new());
        let container = json!({ "name": "c", "image": "a", "volumeMounts": [{ "name": "v", "mountPath": "/" }] });
        assert_eq!(
            check(json!({ "spec": { "containers": [container] } })),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
        );
        let long = check(json!({ "metadata": { "labels": { "a": "b".repeat(64) } }, "spec": pod }));
        assert!(long[0].starts_with("spec.template.labels: "), "{long:?}");
    }
}
