//! ConfigMaps and Secrets: `ValidateConfigMap`, `ValidateSecret`.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{Errors, FieldError, metadata, names};
use crate::path::Path;

/// Bytes of all values. Source: `MaxSecretSize` in `pkg/apis/core/types.go`.
const MAX_SIZE: usize = 1024 * 1024;

/// Everything that keeps a ConfigMap from being used; empty if nothing does.
pub fn config_map(object: &ConfigMap) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let meta = Path::new("metadata");
    metadata::metadata(&object.metadata, true, names::dns_subdomain, &meta, &mut errors);
    let path = Path::new("data");
    keys(object.data.as_ref(), &path, &mut errors);
    for key in object.data.iter().flat_map(BTreeMap::keys) {
        if object.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
            errors.invalid(&path.key(key), key.as_str(), "duplicate of key present in binaryData");
        }
    }
    keys(object.binary_data.as_ref(), &Path::new("binaryData"), &mut errors);
    let text: usize = object.data.iter().flatten().map(|(_, value)| value.len()).sum();
    if text + size(object.binary_data.as_ref()) > MAX_SIZE {
        errors.too_long(&Path::new(""), MAX_SIZE);
    }
    errors.0
}

/// The same of a Secret, whatever its type asks for: that is for those who read it.
pub fn secret(object: &Secret) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let meta = Path::new("metadata");
    metadata::metadata(&object.metadata, true, names::dns_subdomain, &meta, &mut errors);
    let path = Path::new("data");
    keys(object.data.as_ref(), &path, &mut errors);
    keys(object.string_data.as_ref(), &Path::new("stringData"), &mut errors);
    // A text takes the place of the bytes under its key.
    let text: usize = object.string_data.iter().flatten().map(|(_, value)| value.len()).sum();
    let is_text =
        |key: &String| object.string_data.as_ref().is_some_and(|text| text.contains_key(key));
    let bytes = object.data.iter().flatten().filter(|(key, _)| !is_text(key));
    if text + bytes.map(|(_, value)| value.0.len()).sum::<usize>() > MAX_SIZE {
        errors.too_long(&path, MAX_SIZE);
    }
    errors.0
}

fn keys<T>(data: Option<&BTreeMap<String, T>>, path: &Path<'_>, errors: &mut Errors) {
    for key in data.into_iter().flat_map(BTreeMap::keys) {
        errors.invalid_all(&path.key(key), key, names::config_key(key));
    }
}

fn size(data: Option<&BTreeMap<String, ByteString>>) -> usize {
    data.into_iter().flatten().map(|(_, value)| value.0.len()).sum()
}
