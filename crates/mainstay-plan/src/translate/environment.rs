//! The variables of a container.
//!
//! Source: `makeEnvironmentVariables` in `pkg/kubelet/kubelet_pods.go`. Names are taken as they are, as
//! there since `RelaxedEnvironmentVariableValidation`.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVarSource};
use mainstay_pod::{Object, ObjectKind, ObjectName, ObjectValue, Pod};

use super::env_file::{self, EnvFiles};
use super::expand::expand;
use crate::downward::{self, Surroundings};
use crate::references::SourceError;

/// What the variables of a container are made of that neither the pod nor its surroundings have.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// What it is told of services. They count least.
    pub services: BTreeMap<String, String>,
    /// The files that it takes variables from.
    pub files: EnvFiles,
}

/// The variables of a container: all that `envFrom` brings, then those of `env` in their order, which count
/// more and may refer to what is before them; at last what it is told of services.
///
/// # Errors
///
/// When a value cannot be had.
pub fn environment(
    pod: &Pod,
    container: &Container,
    around: &Surroundings<'_>,
    given: &Given,
) -> Result<Vec<(String, String)>, SourceError> {
    let mut variables = Variables::default();
    for source in container.env_from.iter().flatten() {
        let map = source.config_map_ref.as_ref();
        let map = map.map(|it| (ObjectKind::ConfigMap, &it.name, it.optional));
        let secret = source.secret_ref.as_ref();
        let secret = secret.map(|it| (ObjectKind::Secret, &it.name, it.optional));
        let Some((kind, name, optional)) = map.or(secret) else { continue };
        let Some(object) = around.objects.get(kind, pod, name, optional)? else { continue };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let of_kind = |(_, value): &(&String, &ObjectValue)| is_for_variables(kind, value);
        for (key, value) in object.values.iter().filter(of_kind) {
            variables.put(format!("{prefix}{key}"), text(pod, kind, name, key, value)?);
        }
    }
    for variable in container.env.iter().flatten() {
        let written = variable.value.as_deref().unwrap_or_default();
        let value = match &variable.value_from {
            Some(source) if written.is_empty() => {
                value_from(pod, container, source, (around, given))?
            }
            _ => Some(expand(written, |name| {
                let service = || given.services.get(name).map(String::as_str);
                variables.get(name).or_else(service).map(str::to_owned)
            })),
        };
        if let Some(value) = value {
            variables.put(variable.name.clone(), value);
        }
    }
    for (name, value) in &given.services {
        if variables.get(name).is_none() {
            variables.put(name.clone(), value.clone());
        }
    }
    Ok(variables.list)
}

/// What is not there and optional is left out.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    (around, given): (&Surroundings<'_>, &Given),
) -> Result<Option<String>, SourceError> {
    if let Some(field) = &source.field_ref {
        return downward::variable(pod, &field.field_path, around).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return downward::resource_for_variable(pod, container, selector, around).map(Some);
    }
    if let Some(selector) = &source.file_key_ref {
        return env_file::value(selector, &given.files);
    }
    let map = source.config_map_key_ref.as_ref();
    let map = map.map(|it| (ObjectKind::ConfigMap, &it.name, &it.key, it.optional));
    let secret = source.secret_key_ref.as_ref();
    let secret = secret.map(|it| (ObjectKind::Secret, &it.name, &it.key, it.optional));
    let Some((kind, name, key, optional)) = map.or(secret) else {
        // Validation refuses the others, or `unsupported` does.
        return Ok(Some(String::new()));
    };
    let Some(object) = around.objects.get(kind, pod, name, optional)? else { return Ok(None) };
    match value_of(object, kind, key) {
        Some(value) => text(pod, kind, name, key, value).map(Some),
        None if optional == Some(true) => Ok(None),
        None => {
            Err(SourceError::NoKey { object: object_name(pod, kind, name), key: key.to_owned() })
        }
    }
}

fn value_of<'a>(object: &'a Object, kind: ObjectKind, key: &str) -> Option<&'a ObjectValue> {
    object.values.get(key).filter(|value| is_for_variables(kind, value))
}

/// Variables know nothing of a ConfigMap's `binaryData`.
fn is_for_variables(kind: ObjectKind, value: &ObjectValue) -> bool {
    match kind {
        ObjectKind::ConfigMap => matches!(value, ObjectValue::Text(_)),
        ObjectKind::Secret => true,
    }
}

fn text(
    pod: &Pod,
    kind: ObjectKind,
    name: &str,
    key: &str,
    value: &ObjectValue,
) -> Result<String, SourceError> {
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| SourceError::NotText {
        object: object_name(pod, kind, name),
        key: key.to_owned(),
    })
}

fn object_name(pod: &Pod, kind: ObjectKind, name: &str) -> ObjectName {
    ObjectName { kind, namespace: pod.namespace().to_owned(), name: name.to_owned() }
}

/// Variables in the order in which they were named first.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Variables {
    fn put(&mut self, name: String, value: String) {
        match self.places.get(&name).and_then(|place| self.list.get_mut(*place)) {
            Some((_, known)) => *known = value,
            None => {
                self.places.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.list.get(*self.places.get(name)?)?;
        Some(value)
    }
}

#[cfg(test)]
mod tests;
