//! The credentials that a pod brings along for its images.
//!
//! Source: `getPullSecretsForPod` in `pkg/kubelet/kubelet_pods.go`, and `pkg/credentialprovider/secrets`.

use mainstay_cri::PullSecret;
use mainstay_pod::{DockerFormat, Object, ObjectKind, Pod};

use crate::references::{Known, Referenced};

/// What came of a pod's `imagePullSecrets`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PullSecrets {
    /// Those that there are, in their order.
    pub secrets: Vec<PullSecret>,
    /// The names of those that cannot be had.
    pub missing: Vec<String>,
    /// The names of those that are there and have no credentials for registries.
    pub unfit: Vec<String>,
}

/// What to show registries of whom a pod has an image from.
pub fn of(pod: &Pod, referenced: &Referenced) -> PullSecrets {
    let mut found = PullSecrets::default();
    let references = pod.spec().image_pull_secrets.iter().flatten();
    for name in references.map(|it| it.name.as_str()).filter(|name| !name.is_empty()) {
        match referenced.known(ObjectKind::Secret, pod, name) {
            Some(Known::Found(object)) => match config(object) {
                Some(config) => {
                    let name = format!("{}/{name}", pod.namespace());
                    found.secrets.push(PullSecret { name, config });
                }
                None => found.unfit.push(name.to_owned()),
            },
            Some(Known::Missing | Known::Unreadable(_) | Known::Awaited) | None => {
                found.missing.push(name.to_owned());
            }
        }
    }
    found
}

impl PullSecrets {
    /// What to warn of, all of it with the reason `FailedToRetrieveImagePullSecret`.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.missing.is_empty() {
            // The whole of what a kubelet says.
            warnings.push(format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may \
                 not succeed.",
                self.missing.join(", ")
            ));
        }
        if !self.unfit.is_empty() {
            warnings.push(format!(
                "Some image pull secrets ({}) have no credentials for registries: their type has to be \
                 kubernetes.io/dockerconfigjson with the key .dockerconfigjson, or \
                 kubernetes.io/dockercfg with the key .dockercfg",
                self.unfit.join(", ")
            ));
        }
        warnings
    }
}

/// A `config.json`, from either form. What is no JSON stays none.
fn config(object: &Object) -> Option<Vec<u8>> {
    let format = object.docker?;
    let value = object.values.get(format.key())?.as_bytes();
    match format {
        _ if value.is_empty() => None,
        DockerFormat::ConfigJson => Some(value.to_vec()),
        DockerFormat::Cfg => Some([b"{\"auths\":", value, b"}"].concat()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Secret;
    use mainstay_pod::ObjectName;
    use mainstay_testkit::pods::pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_of_both_types_are_taken_in_their_order() {
        let pod = pod("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ns}\nspec:\n  \
             imagePullSecrets: [{name: cfg}, {}, {name: none}, {name: json}, {name: opaque}, \
             {name: keyless}, {name: empty}, {name: away}, {name: late}]\n  \
             containers: [{name: c, image: x}]\n");
        let secret = |kind: &str, key: &str, value: &str| {
            let secret = json!({"type": kind, "stringData": {key: value}});
            let secret: Secret = serde_json::from_value(secret).unwrap();
            Known::Found(Arc::new(secret.into()))
        };
        let (json, cfg) = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg");
        let referenced = [
            ("json", secret(json, ".dockerconfigjson", r#"{"auths":{}}"#)),
            ("cfg", secret(cfg, ".dockercfg", r#"{"r":{}}"#)),
            ("none", Known::Missing),
            ("opaque", secret("Opaque", ".dockerconfigjson", "{}")),
            ("keyless", secret(cfg, ".dockerconfigjson", "{}")),
            ("empty", secret(json, ".dockerconfigjson", "")),
            ("away", Known::Unreadable("forbidden".into())),
            ("late", Known::Awaited),
        ];
        let name = |name: &str| ObjectName {
            kind: ObjectKind::Secret,
            namespace: "ns".into(),
            name: name.into(),
        };
        let referenced =
            Referenced(referenced.into_iter().map(|(it, known)| (name(it), known)).collect());
        let found = of(&pod, &referenced);
        let shown = found.secrets.iter().map(|it| (it.name.as_str(), it.config.as_slice()));
        let wanted: [(&str, &[u8]); 2] =
            [("ns/cfg", br#"{"auths":{"r":{}}}"#), ("ns/json", br#"{"auths":{}}"#)];
        assert_eq!(shown.collect::<Vec<_>>(), wanted);
        let warnings = found.warnings();
        assert!(warnings[0].contains("(none, away, late); attempting"), "{warnings:?}");
        assert!(warnings[1].contains("(opaque, keyless, empty) have no"), "{warnings:?}");
        assert_eq!(PullSecrets::default().warnings(), [""; 0]);
    }
}
