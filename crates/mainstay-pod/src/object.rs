//! ConfigMaps and Secrets, as far as a pod sees them.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::diagnostic::Diagnostic;

/// What a pod can take values and files from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ObjectKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// Which object it is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectName {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is in it.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Object {
    /// By key.
    pub values: BTreeMap<String, ObjectValue>,
    /// Whether it never changes again.
    pub immutable: bool,
    /// In what form it has credentials for registries: its type, if that says so.
    pub docker: Option<DockerFormat>,
    /// What else a manifest says of it; `None` of an object of an API.
    pub written: Option<Box<Written>>,
}

/// What a manifest says of an object and no pod sees.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Written {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The type of a Secret, if it says one.
    pub secret_type: Option<String>,
    /// Keys whose values are not in the manifest: the service manager's credentials, by their names.
    pub credentials: BTreeMap<String, String>,
}

/// How Docker keeps credentials, by the type of a Secret. Source: `SecretTypeDockerConfigJson` and
/// `SecretTypeDockercfg` in `staging/src/k8s.io/api/core/v1/types.go`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DockerFormat {
    /// `kubernetes.io/dockerconfigjson`: a `config.json`.
    ConfigJson,
    /// `kubernetes.io/dockercfg`: what stands below `auths` in one.
    Cfg,
}

/// One value. The `data` of a ConfigMap is text; its `binaryData`, and all that is in a Secret, is bytes.
#[derive(Clone, Eq, PartialEq)]
pub enum ObjectValue {
    /// Text.
    Text(Box<str>),
    /// Bytes, of which nothing is known.
    Bytes(Box<[u8]>),
}

// === impl ObjectKind ===

impl ObjectKind {
    /// As objects and messages name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// As an API server names one that is not there.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }

    /// As a path of the API has it.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
        }
    }
}

// === impl ObjectName ===

impl ObjectName {
    /// The warning that everybody on the machine may read the file in which `object` of this name stands; `None` if
    /// nothing there is secret.
    pub fn exposure(&self, object: &Object, file: &str) -> Option<Diagnostic> {
        let message = format!("{self} can be read by everybody on this machine");
        let hint = format!("chmod 600 {file}");
        let warning = || Diagnostic::warning(file, message, Some(hint));
        (self.kind == ObjectKind::Secret && !object.values.is_empty()).then(warning)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

// === impl Object ===

/// What it says is nobody's business.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl From<ConfigMap> for Object {
    fn from(object: ConfigMap) -> Self {
        let text = object.data.into_iter().flatten();
        let text = text.map(|(key, value)| (key, ObjectValue::Text(value.into())));
        let bytes = object.binary_data.into_iter().flatten();
        let bytes = bytes.map(|(key, value)| (key, ObjectValue::Bytes(value.0.into())));
        let immutable = object.immutable == Some(true);
        let written = Some(Box::new(Written::of(object.metadata, None)));
        Self { values: text.chain(bytes).collect(), immutable, docker: None, written }
    }
}

/// As a server would have it: what is written as text counts more.
impl From<Secret> for Object {
    fn from(object: Secret) -> Self {
        let bytes = object.data.into_iter().flatten().map(|(key, value)| (key, value.0));
        let text = object.string_data.into_iter().flatten();
        let text = text.map(|(key, value)| (key, value.into_bytes()));
        let values = bytes.chain(text);
        Self {
            values: values.map(|(key, value)| (key, ObjectValue::Bytes(value.into()))).collect(),
            immutable: object.immutable == Some(true),
            docker: object.type_.as_deref().and_then(DockerFormat::of_type),
            written: Some(Box::new(Written::of(object.metadata, object.type_))),
        }
    }
}

// === impl Written ===

impl Written {
    fn of(metadata: ObjectMeta, secret_type: Option<String>) -> Self {
        let labels = metadata.labels.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let credentials = BTreeMap::new();
        Self { labels, annotations, secret_type, credentials }
    }
}

// === impl DockerFormat ===

impl DockerFormat {
    /// What the type of a Secret says.
    pub fn of_type(secret_type: &str) -> Option<Self> {
        match secret_type {
            "kubernetes.io/dockerconfigjson" => Some(Self::ConfigJson),
            "kubernetes.io/dockercfg" => Some(Self::Cfg),
            _ => None,
        }
    }

    /// Under which key it is.
    pub const fn key(self) -> &'static str {
        match self {
            Self::ConfigJson => ".dockerconfigjson",
            Self::Cfg => ".dockercfg",
        }
    }
}

// === impl ObjectValue ===

impl ObjectValue {
    /// The bytes of it.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_secret_says_as_text_counts_and_nobody_prints_it() {
        let secret = json!({"data": {"a": "YQ==", "b": "Yg=="}, "stringData": {"b": "text"}});
        let object = Object::from(serde_json::from_value::<Secret>(secret).unwrap());
        assert_eq!(object.values["a"].as_bytes(), b"a");
        assert_eq!(object.values["b"].as_bytes(), b"text");
        assert_eq!(format!("{object:?}"), r#"{"a", "b"}"#);
        assert_eq!(object.docker, None);
        let secret = json!({"type": "kubernetes.io/dockercfg"});
        let object = Object::from(serde_json::from_value::<Secret>(secret).unwrap());
        assert_eq!(object.docker, Some(DockerFormat::Cfg));
    }

    #[test]
    fn a_config_map_tells_text_from_bytes() {
        let map = json!({"data": {"a": "x"}, "binaryData": {"b": "/w=="}, "immutable": true});
        let object = Object::from(serde_json::from_value::<ConfigMap>(map).unwrap());
        assert!(object.values["a"] == ObjectValue::Text("x".into()) && object.immutable);
        assert!(object.values["b"] == ObjectValue::Bytes([0xff].into()));
    }
}
