//! ConfigMaps and Secrets: `ValidateConfigMap`, `ValidateSecret`.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use serde_json::Value;

use super::{Errors, FieldError, metadata, names};
use crate::path::Path;

/// The annotation that says whose token a Secret is.
pub const ACCOUNT_OF_SECRET: &str = "kubernetes.io/service-account.name";

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

/// The same of a Secret.
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
    let account = object.metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT_OF_SECRET));
    let value = |key: &str| {
        let text = object.string_data.as_ref().and_then(|all| all.get(key));
        let bytes = || object.data.as_ref()?.get(key).map(|bytes| bytes.0.clone());
        text.map(|text| text.clone().into_bytes()).or_else(bytes)
    };
    let kind = object.type_.as_deref().unwrap_or_default();
    secret_of_type(kind, account.map(String::as_str), value, &mut errors);
    errors.0
}

/// What the type of a Secret asks for. `account` is what it says under [`ACCOUNT_OF_SECRET`], and `value` tells what lies under a
/// key.
pub fn secret_of_type(
    kind: &str,
    account: Option<&str>,
    value: impl Fn(&str) -> Option<Vec<u8>>,
    errors: &mut Errors,
) {
    let path = Path::new("data");
    match kind {
        "kubernetes.io/service-account-token" if account.is_none_or(str::is_empty) => {
            errors.required(&Path::new("metadata").field("annotations").key(ACCOUNT_OF_SECRET), "");
        }
        "kubernetes.io/dockercfg" => json_object(".dockercfg", value(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => {
            json_object(".dockerconfigjson", value(".dockerconfigjson"), errors);
        }
        "kubernetes.io/basic-auth"
            if value("username").is_none() && value("password").is_none() =>
        {
            errors.required(&path.key("username"), "");
            errors.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(|it| it.is_empty()) => {
            errors.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| value(key).is_none()) {
                errors.required(&path.key(key), "");
            }
        }
        _ => {}
    }
}

/// A value that has to be a JSON object. The message of Go's decoder is not repeated in full: it would
/// show what the secret says.
fn json_object(key: &str, value: Option<Vec<u8>>, errors: &mut Errors) {
    let data = Path::new("data");
    let path = data.key(key);
    let Some(bytes) = value else {
        errors.required(&path, "");
        return;
    };
    let detail = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            let found = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            format!(
                "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
            )
        }
        Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(error) => format!("invalid JSON at line {} column {}", error.line(), error.column()),
    };
    errors.invalid(&path, "<secret contents redacted>", &detail);
}

fn keys<T>(data: Option<&BTreeMap<String, T>>, path: &Path<'_>, errors: &mut Errors) {
    for key in data.into_iter().flat_map(BTreeMap::keys) {
        errors.invalid_all(&path.key(key), key, names::config_key(key));
    }
}

fn size(data: Option<&BTreeMap<String, ByteString>>) -> usize {
    data.into_iter().flatten().map(|(_, value)| value.0.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_what_its_type_asks_for() {
        let refused = |kind: &str, entries: &[(&str, &str)]| -> Vec<String> {
            let (bytes, text) = entries.split_at(entries.len() / 2);
            let data = bytes.iter().map(|(key, value)| {
                ((*key).to_owned(), ByteString((*value).as_bytes().to_owned()))
            });
            let text = text.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let mut object = Secret {
                type_: Some(format!("kubernetes.io/{kind}")),
                data: Some(data.collect()),
                string_data: Some(text.collect()),
                ..Secret::default()
            };
            object.metadata.name = Some("s".to_owned());
            object.metadata.namespace = Some("default".to_owned());
            secret(&object).into_iter().map(|error| error.to_string()).collect()
        };
        let none: [&str; 0] = [];
        assert_eq!(refused("tls", &[("tls.crt", ""), ("tls.key", "")]), none);
        assert_eq!(refused("tls", &[("tls.crt", "")]), ["data[tls.key]: Required value"]);
        assert_eq!(refused("basic-auth", &[("password", "")]), none);
        assert_eq!(refused("basic-auth", &[]).len(), 2);
        assert_eq!(refused("ssh-auth", &[("ssh-privatekey", "")]).len(), 1);
        assert_eq!(refused("ssh-auth", &[("ssh-privatekey", "k")]), none);
        assert_eq!(refused("dockercfg", &[(".dockercfg", "{}")]), none);
        let refused_json = refused("dockerconfigjson", &[(".dockerconfigjson", "[1]")]);
        let why = "json: cannot unmarshal array into Go value of type map[string]interface {}";
        assert_eq!(refused_json.len(), 1, "{refused_json:?}");
        assert!(refused_json[0].ends_with(why), "{refused_json:?}");
        let account = "metadata.annotations[kubernetes.io/service-account.name]: Required value";
        assert_eq!(refused("service-account-token", &[]), [account]);
    }
}
