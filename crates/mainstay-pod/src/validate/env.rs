//! Environment variables and where their values come from.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector,
    Volume,
};

use super::{Errors, names, security, text, visit_containers};
use crate::path::Path;
use crate::quantity::Quantity;

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that the downward API knows at all, before it is asked where.
const KNOWN_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn env(variables: &[EnvVar], path: &Path<'_>, errors: &mut Errors) {
    for (at, variable) in variables.iter().enumerate() {
        let path = path.index(at);
        if variable.name.is_empty() {
            errors.required(&path.field("name"), "");
        } else {
            errors.invalid_all(
                &path.field("name"),
                &variable.name,
                names::env_name(&variable.name),
            );
        }
        value_from(variable, &path.field("valueFrom"), errors);
    }
}

fn value_from(variable: &EnvVar, path: &Path<'_>, errors: &mut Errors) {
    let Some(source) = &variable.value_from else { return };
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        object_field(field, &ENV_FIELDS, &path.field("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_field(resource, false, &path.field("resourceFieldRef"), errors);
    }
    if let Some(selector) = &source.config_map_key_ref {
        sources += 1;
        key_selector(&selector.name, &selector.key, &path.field("configMapKeyRef"), errors);
    }
    if let Some(selector) = &source.secret_key_ref {
        sources += 1;
        key_selector(&selector.name, &selector.key, &path.field("secretKeyRef"), errors);
    }
    if let Some(file) = &source.file_key_ref {
        sources += 1;
        file_key(file, &path.field("fileKeyRef"), errors);
    }
    let message = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !text(variable.value.as_ref()).is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.invalid(path, "", message);
}

pub(super) fn object_field(
    selector: &ObjectFieldSelector,
    allowed: &[&str],
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let version = text(selector.api_version.as_ref());
    let field = selector.field_path.as_str();
    if version.is_empty() {
        errors.required(&path.field("apiVersion"), "");
        return;
    }
    if field.is_empty() {
        errors.required(&path.field("fieldPath"), "");
        return;
    }
    let subscripted = split_subscript(field);
    let unknown = if version != "v1" {
        Some(format!("unsupported pod version: {version}"))
    } else if let Some((base, _)) = subscripted {
        (!matches!(base, "metadata.annotations" | "metadata.labels"))
            .then(|| format!("field label does not support subscript: {field}"))
    } else {
        let known =
            ENV_FIELDS.contains(&field) || KNOWN_FIELDS.contains(&field) || field == "spec.host";
        (!known).then(|| format!("field label not supported: {field}"))
    };
    if let Some(reason) = unknown {
        let message = format!("error converting fieldPath: {reason}");
        errors.invalid(&path.field("fieldPath"), field, &message);
        return;
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            errors.invalid_all(path, &key, names::label_key(&key));
        }
        Some((_, key)) => errors.invalid_all(path, key, names::label_key(key)),
        None => {
            let field = if field == "spec.host" { "spec.nodeName" } else { field };
            if !allowed.contains(&field) {
                errors.not_supported(&path.field("fieldPath"), field, allowed);
            }
        }
    }
}

/// `metadata.labels['app']` is `metadata.labels` and `app`.
fn split_subscript(field: &str) -> Option<(&str, &str)> {
    let (base, key) = field.strip_suffix("']")?.split_once("['")?;
    (!base.is_empty()).then_some((base, key))
}

pub(super) fn resource_field(
    selector: &ResourceFieldSelector,
    in_volume: bool,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let resource = selector.resource.as_str();
    let huge =
        resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && text(selector.container_name.as_ref()).is_empty() {
        errors.required(&path.field("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.field("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(&path.field("resource"), resource, &RESOURCES);
    }
    let Some(divisor) = selector.divisor.as_ref().and_then(|it| Quantity::parse(&it.0).ok()) else {
        return;
    };
    if divisor.is_zero() {
        return;
    }
    let text = selector.divisor.as_ref().map_or("", |it| it.0.as_str());
    // Kubernetes compares texts, those that it would store.
    let divisor = crate::quantity::stored_text(text).unwrap_or_default();
    let bytes = BYTE_DIVISORS.join(", ");
    let (allowed, message): (&[&str], String) = match resource {
        "limits.cpu" | "requests.cpu" => (
            &["1m", "1"],
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned(),
        ),
        "limits.memory" | "requests.memory" => (
            &BYTE_DIVISORS,
            format!("only divisor's values {bytes} are supported with the memory resource"),
        ),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (
            &BYTE_DIVISORS,
            format!(
                "only divisor's values {bytes} are supported with the local ephemeral storage resource"
            ),
        ),
        _ if huge => (
            &BYTE_DIVISORS,
            format!("only divisor's values {bytes} are supported with the hugepages resource"),
        ),
        _ => return,
    };
    if !allowed.contains(&divisor.as_str()) {
        errors.invalid(&path.field("divisor"), resource, &message);
    }
}

fn key_selector(name: &str, key: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_all(&path.field("name"), name, names::dns_subdomain(name));
    if key.is_empty() {
        errors.required(&path.field("key"), "");
    } else {
        errors.invalid_all(&path.field("key"), key, names::config_key(key));
    }
}

fn file_key(selector: &FileKeySelector, path: &Path<'_>, errors: &mut Errors) {
    let FileKeySelector { key, path: file, volume_name, .. } = selector;
    if key.is_empty() {
        errors.required(&path.field("key"), "");
    } else {
        errors.invalid_all(&path.field("key"), key, names::env_name(key));
    }
    if volume_name.is_empty() {
        errors.required(&path.field("volumeName"), "");
    } else {
        errors.invalid_all(&path.field("volumeName"), volume_name, names::dns_label(volume_name));
    }
    if file.is_empty() {
        errors.required(&path.field("path"), "");
    } else {
        security::no_backsteps(file, &path.field("path"), errors);
    }
}

pub(super) fn env_from(sources: &[EnvFromSource], path: &Path<'_>, errors: &mut Errors) {
    for (at, source) in sources.iter().enumerate() {
        let item = path.index(at);
        let prefix = text(source.prefix.as_ref());
        if !prefix.is_empty() {
            errors.invalid_all(&item.field("prefix"), prefix, names::env_name(prefix));
        }
        let config_map = source.config_map_ref.as_ref().map(|it| ("configMapRef", &it.name));
        let secret = source.secret_ref.as_ref().map(|it| ("secretRef", &it.name));
        for (field, name) in [config_map, secret].into_iter().flatten() {
            let path = item.field(field);
            if name.is_empty() {
                errors.required(&path.field("name"), "");
            } else {
                errors.invalid_all(
                    &path.field("name"),
                    name,
                    names::dns_subdomain(&names::without_trailing_dash(name)),
                );
            }
        }
        match (config_map, secret) {
            (None, None) => {
                errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`");
            }
            (Some(_), Some(_)) => {
                errors.invalid(path, "", "may not have more than one field specified at a time");
            }
            _ => {}
        }
    }
}

/// `validateFileKeyRefVolumes`: a file with variables lies in an emptyDir.
pub(super) fn file_key_volumes(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    // Of volumes with equal names the last counts.
    let volumes: HashMap<&str, &Volume> =
        spec.volumes.iter().flatten().map(|it| (it.name.as_str(), it)).collect();
    visit_containers(spec, path, |container, path| {
        let path = path.field("env");
        for (at, variable) in container.env.iter().flatten().enumerate() {
            let Some(file) = variable.value_from.as_ref().and_then(|it| it.file_key_ref.as_ref())
            else {
                continue;
            };
            let path = path.index(at);
            let path = path.field("valueFrom");
            let path = path.field("fileKeyRef");
            let path = path.field("volumeName");
            match volumes.get(file.volume_name.as_str()) {
                None => errors.not_found(&path, file.volume_name.as_str(), ""),
                Some(volume) if volume.empty_dir.is_none() => {
                    let message = "referenced volume must be of type emptyDir";
                    errors.invalid(&path, file.volume_name.as_str(), message);
                }
                Some(_) => {}
            }
        }
    });
}
