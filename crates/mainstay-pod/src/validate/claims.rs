//! The claim that a generic ephemeral volume makes for itself.

use k8s_openapi::api::core::v1::{EphemeralVolumeSource, PersistentVolumeClaimSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Errors, Shown, metadata, names, resources};
use crate::path::Path;
use crate::quantity::Quantity;

const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn ephemeral(source: &EphemeralVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("volumeClaimTemplate");
    let Some(template) = &source.volume_claim_template else {
        errors.required(&path, "");
        return;
    };
    if let Some(meta) = &template.metadata {
        template_metadata(meta, &path.field("metadata"), errors);
    }
    spec(&template.spec, &path.field("spec"), errors);
}

/// The claim is named after pod and volume, and that has to be a name.
pub(super) fn claim_name(volume: &str, pod: &str, path: &Path<'_>, errors: &mut Errors) {
    if volume.is_empty() || pod.is_empty() {
        return;
    }
    let name = format!("{pod}-{volume}");
    for message in names::dns_subdomain(&name) {
        errors.invalid(&path.field("name"), volume, &format!("PVC name {name:?}: {message}"));
    }
}

/// Of a template's metadata only labels and annotations reach the claim.
fn template_metadata(meta: &ObjectMeta, path: &Path<'_>, errors: &mut Errors) {
    metadata::annotations(meta.annotations.as_ref(), &path.field("annotations"), errors);
    metadata::labels(meta.labels.as_ref(), &path.field("labels"), errors);
    let set = [
        ("name", meta.name.as_ref().is_some_and(|it| !it.is_empty())),
        ("generateName", meta.generate_name.as_ref().is_some_and(|it| !it.is_empty())),
        ("namespace", meta.namespace.as_ref().is_some_and(|it| !it.is_empty())),
        ("selfLink", meta.self_link.as_ref().is_some_and(|it| !it.is_empty())),
        ("uID", meta.uid.as_ref().is_some_and(|it| !it.is_empty())),
        ("resourceVersion", meta.resource_version.as_ref().is_some_and(|it| !it.is_empty())),
        ("generation", meta.generation.is_some_and(|it| it != 0)),
        ("creationTimestamp", meta.creation_timestamp.is_some()),
        ("deletionTimestamp", meta.deletion_timestamp.is_some()),
        ("deletionGracePeriodSeconds", meta.deletion_grace_period_seconds.is_some()),
        ("ownerReferences", meta.owner_references.is_some()),
        ("finalizers", meta.finalizers.is_some()),
        ("managedFields", meta.managed_fields.is_some()),
    ];
    for (field, _) in set.into_iter().filter(|(_, set)| *set) {
        errors.forbidden(&path.field(field), "cannot be set");
    }
}

/// `ValidatePersistentVolumeClaimSpec`.
fn spec(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, errors: &mut Errors) {
    let modes = spec.access_modes.as_deref().unwrap_or(&[]);
    let modes_path = path.field("accessModes");
    if modes.is_empty() {
        errors.required(&modes_path, "at least 1 access mode is required");
    }
    metadata::label_selector(spec.selector.as_ref(), &path.field("selector"), errors);
    for mode in modes {
        errors.one_of(&modes_path, mode, &ACCESS_MODES);
    }
    let single = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    let others = modes
        .iter()
        .any(|mode| mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode.as_str()));
    if single && others {
        errors.forbidden(&modes_path, "may not use ReadWriteOncePod with other access modes");
    }
    storage(spec, &path.field("resources").key("storage"), errors);
    if let Some(class) = spec.storage_class_name.as_ref().filter(|class| !class.is_empty()) {
        errors.invalid_all(&path.field("storageClassName"), class, names::dns_subdomain(class));
    }
    if let Some(mode) = &spec.volume_mode {
        errors.one_of(&path.field("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    data_sources(spec, path, errors);
    if let Some(class) =
        spec.volume_attributes_class_name.as_ref().filter(|class| !class.is_empty())
    {
        errors.invalid_all(
            &path.field("volumeAttributesClassName"),
            class,
            names::dns_subdomain(class),
        );
    }
}

fn storage(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, errors: &mut Errors) {
    let requests = spec.resources.as_ref().and_then(|it| it.requests.as_ref());
    let Some(text) = requests.and_then(|it| it.get("storage")) else {
        errors.required(path, "");
        return;
    };
    let quantity = Quantity::parse(&text.0).unwrap_or(Quantity::ZERO);
    if quantity <= Quantity::ZERO {
        errors.invalid(path, quantity.canonical().as_str(), "must be greater than zero");
    } else {
        resources::quantity_value("storage", quantity, path, errors);
    }
}

fn data_sources(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, errors: &mut Errors) {
    let source =
        spec.data_source.as_ref().map(|it| (it.api_group.as_deref(), &*it.kind, &*it.name));
    let reference =
        spec.data_source_ref.as_ref().map(|it| (it.api_group.as_deref(), &*it.kind, &*it.name));
    if let Some(it) = source {
        data_source(it, &path.field("dataSource"), errors);
    }
    let namespace =
        spec.data_source_ref.as_ref().and_then(|it| it.namespace.as_deref()).unwrap_or("");
    if let Some(it) = reference {
        let path = path.field("dataSourceRef");
        data_source(it, &path, errors);
        if !namespace.is_empty() {
            errors.invalid_all(&path.field("namespace"), namespace, names::dns_label(namespace));
        }
    }
    // Kubernetes shows a path for the value here, as an empty object.
    let message = match (source, reference) {
        (Some(_), Some(_)) if !namespace.is_empty() => {
            "may not be specified when dataSourceRef.namespace is specified"
        }
        (Some(source), Some(reference)) if source != reference => "must match dataSourceRef",
        _ => return,
    };
    errors.invalid(path, Shown("{}".to_owned()), message);
}

fn data_source(
    (group, kind, name): (Option<&str>, &str, &str),
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    }
    if kind.is_empty() {
        errors.required(&path.field("kind"), "");
    }
    let group = group.unwrap_or("");
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(path, kind, message);
    }
    if !group.is_empty() {
        errors.invalid_all(&path.field("apiGroup"), group, names::dns_subdomain(group));
    }
}
