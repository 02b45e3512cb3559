//! What a pod takes from ConfigMaps and Secrets, also for its images.
//!
//! They are not in the pod, so they are facts: whoever makes a container or a volume of it says what is
//! known of them, as [`Referenced`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Volume};
use mainstay_pod::{Object, ObjectKind, ObjectName, Pod};

/// The objects that a pod refers to, all of its own namespace. Source: `VisitPodConfigmapNames` and
/// `VisitPodSecretNames` in `pkg/api/v1/pod/util.go`, for what is taken from them here.
pub fn of(pod: &Pod) -> BTreeSet<ObjectName> {
    let mut found = Found { namespace: pod.namespace(), names: BTreeSet::new() };
    let spec = pod.spec();
    for (_, container) in pod.containers() {
        found.in_variables(container.env_from.as_deref(), container.env.as_deref());
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        found.in_variables(container.env_from.as_deref(), container.env.as_deref());
    }
    for volume in spec.volumes.iter().flatten() {
        found.in_volume(volume);
    }
    for secret in spec.image_pull_secrets.iter().flatten() {
        found.add(ObjectKind::Secret, &secret.name);
    }
    found.names
}

struct Found<'a> {
    namespace: &'a str,
    names: BTreeSet<ObjectName>,
}

impl Found<'_> {
    fn add(&mut self, kind: ObjectKind, name: &str) {
        if !name.is_empty() {
            let (namespace, name) = (self.namespace.to_owned(), name.to_owned());
            self.names.insert(ObjectName { kind, namespace, name });
        }
    }

    fn in_variables(&mut self, all: Option<&[EnvFromSource]>, one: Option<&[EnvVar]>) {
        for source in all.unwrap_or_default() {
            let map = source.config_map_ref.iter().map(|it| (ObjectKind::ConfigMap, &it.name));
            let secret = source.secret_ref.iter().map(|it| (ObjectKind::Secret, &it.name));
            map.chain(secret).for_each(|(kind, name)| self.add(kind, name));
        }
        for source in one.unwrap_or_default().iter().filter_map(|it| it.value_from.as_ref()) {
            let map = source.config_map_key_ref.iter().map(|it| (ObjectKind::ConfigMap, &it.name));
            let secret = source.secret_key_ref.iter().map(|it| (ObjectKind::Secret, &it.name));
            map.chain(secret).for_each(|(kind, name)| self.add(kind, name));
        }
    }

    fn in_volume(&mut self, volume: &Volume) {
        if let Some(source) = &volume.config_map {
            self.add(ObjectKind::ConfigMap, &source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|it| it.secret_name.as_ref()) {
            self.add(ObjectKind::Secret, name);
        }
        for source in volume.projected.iter().flat_map(|it| it.sources.iter().flatten()) {
            if let Some(source) = &source.config_map {
                self.add(ObjectKind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret {
                self.add(ObjectKind::Secret, &source.name);
            }
        }
    }
}

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Known {
    /// Nothing yet; it has been asked for.
    #[default]
    Awaited,
    /// There is none.
    Missing,
    /// It cannot be read, for this reason.
    Unreadable(Arc<str>),
    /// This is in it.
    Found(Arc<Object>),
}

/// What is known of the objects that a pod refers to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Referenced(pub BTreeMap<ObjectName, Known>);

impl Referenced {
    /// Whether of one of them nothing is known yet.
    pub fn is_awaited(&self) -> bool {
        self.0.values().any(|known| matches!(known, Known::Awaited))
    }

    /// What is known of an object of a pod's namespace; `None` if nobody asked.
    pub fn known(&self, kind: ObjectKind, pod: &Pod, name: &str) -> Option<&Known> {
        let (namespace, name) = (pod.namespace().to_owned(), name.to_owned());
        self.0.get(&ObjectName { kind, namespace, name })
    }

    /// An object of a pod's namespace; `None` if there is none and it is `optional`.
    ///
    /// # Errors
    ///
    /// When it cannot be had.
    pub fn get(
        &self,
        kind: ObjectKind,
        pod: &Pod,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<&Object>, SourceError> {
        let (namespace, name) = (pod.namespace().to_owned(), name.to_owned());
        let object = ObjectName { kind, namespace, name };
        match self.0.get(&object) {
            Some(Known::Found(object)) => Ok(Some(object)),
            Some(Known::Missing) if optional == Some(true) => Ok(None),
            Some(Known::Missing) => Err(SourceError::NotFound(object)),
            Some(Known::Unreadable(reason)) => {
                Err(SourceError::Unreadable { object, reason: reason.clone() })
            }
            Some(Known::Awaited) | None => Err(SourceError::Awaited(kind)),
        }
    }
}

/// A value or a file that cannot be had. The texts are a kubelet's, where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// There is no such object.
    NotFound(ObjectName),
    /// Nothing is known of it yet.
    Awaited(ObjectKind),
    /// It cannot be read.
    Unreadable {
        /// Which.
        object: ObjectName,
        /// Why.
        reason: Arc<str>,
    },
    /// It has no such key, for a variable.
    NoKey {
        /// Which.
        object: ObjectName,
        /// What it does not have.
        key: String,
    },
    /// It has no such key, for a file.
    NoItem {
        /// Which kind of object.
        kind: ObjectKind,
        /// What it does not have.
        key: String,
    },
    /// A value that a variable cannot hold.
    NotText {
        /// Where it is.
        object: ObjectName,
        /// Its key.
        key: String,
    },
    /// A field of the pod, or a resource of a container, that there is not.
    Unknown(String),
    /// A variable that stands in a file, and cannot be had from there.
    EnvFile(String),
    /// A token that was not given.
    NoToken(Arc<str>),
    /// A volume's file whose path leads out of the volume, or that cannot be one.
    Path(String),
}

impl std::error::Error for SourceError {}

/// Source: `pkg/kubelet/kubelet_pods.go`, `pkg/volume/{configmap,secret}`,
/// `pkg/kubelet/util/manager/watch_based_manager.go`.
impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(object) => {
                write!(f, "{} {:?} not found", object.kind.singular(), object.name)
            }
            Self::Awaited(kind) => write!(
                f,
                "failed to sync {} cache: timed out waiting for the condition",
                kind.singular()
            ),
            Self::Unreadable { object, reason } => write!(f, "cannot read {object}: {reason}"),
            Self::NoKey { object, key } => {
                let ObjectName { kind, namespace, name } = object;
                write!(f, "couldn't find key {key} in {} {namespace}/{name}", kind.as_str())
            }
            Self::NoItem { kind: ObjectKind::ConfigMap, key } => {
                write!(f, "configmap references non-existent config key: {key}")
            }
            Self::NoItem { kind: ObjectKind::Secret, key } => {
                write!(f, "references non-existent secret key: {key}")
            }
            Self::NotText { object, key } => write!(
                f,
                "key {key} in {object} is not UTF-8 text without NUL bytes, and a variable can hold \
                 nothing else; mount it as a file"
            ),
            Self::Unknown(what) | Self::EnvFile(what) => f.write_str(what),
            Self::NoToken(why) => f.write_str(why),
            Self::Path(path) => write!(f, "invalid path {path:?} of a file in a volume"),
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_testkit::pods::pod;

    use super::*;

    #[test]
    fn every_place_that_refers_is_found() {
        let pod = pod(r#"
            apiVersion: v1
            kind: Pod
            metadata: {name: p, namespace: ns}
            spec:
              containers:
              - name: c
                image: x
                env:
                - {name: A, valueFrom: {configMapKeyRef: {name: c1, key: k}}}
                - {name: B, valueFrom: {secretKeyRef: {name: s1, key: k}}}
                envFrom: [{configMapRef: {name: c2}}, {secretRef: {name: s2}}]
              imagePullSecrets: [{name: s5}, {}]
              volumes:
              - {name: a, configMap: {name: c3}}
              - {name: b, secret: {secretName: s3}}
              - name: d
                projected:
                  sources: [{configMap: {name: c4}}, {secret: {name: s4}}, {secret: {name: s3}}]
            "#);
        let names: Vec<String> = of(&pod).iter().map(ToString::to_string).collect();
        let all = [("ConfigMap", "c", 4), ("Secret", "s", 5)].into_iter();
        let all = all
            .flat_map(|(kind, name, last)| (1..=last).map(move |n| format!("{kind} ns/{name}{n}")));
        assert_eq!(names, all.collect::<Vec<_>>());
    }
}
