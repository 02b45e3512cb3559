//! What a static pod may not refer to, because it must run without an API server.
//!
//! Source: `HasAPIObjectReference` in `pkg/api/pod/util.go` (Kubernetes 1.36, gate
//! `PreventStaticPodAPIReferences`, on by default).

use k8s_openapi::api::core::v1::{Container, LocalObjectReference, Pod, PodSpec, Volume};

use super::visit_containers;
use crate::path::Path;

/// References of one pod that are named.
const MAX_REFERENCES: usize = 100;

/// One thing in the API that a pod refers to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference {
    /// The path of the field that refers to it.
    pub field: String,
    /// What it is, in the kubelet's words: `secrets`, `configmaps (via projected volumes)`.
    pub resource: &'static str,
}

impl Reference {
    /// What to do instead, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        let is = |start: &str| self.resource.starts_with(start);
        if is("serviceaccounts") && !self.field.contains("projected") {
            Some("leave it out: a static pod has no service account")
        } else if is("persistentvolumeclaims") {
            Some("use a hostPath volume for data of this machine")
        } else {
            None
        }
    }

    /// Whether a ConfigMap or Secret that lies beside the manifest can take the place of the API's.
    pub fn is_local(&self) -> bool {
        const TAKEN: [&str; 7] = [
            "configMap",
            "configMapKeyRef",
            "configMapRef",
            "imagePullSecrets",
            "secret",
            "secretKeyRef",
            "secretRef",
        ];
        let last = self.field.rsplit('.').next().unwrap_or_default();
        let (field, _index) = last.split_once('[').unwrap_or((last, ""));
        TAKEN.contains(&field)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "static pods may not reference {}", self.resource)
    }
}

/// Everything in the API that a pod refers to. The first is the one that a kubelet names.
pub fn api_references(pod: &Pod) -> Vec<Reference> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut found = Vec::new();
    let path = Path::new("spec");
    for (field, name) in [
        ("serviceAccountName", &spec.service_account_name),
        ("serviceAccount", &spec.service_account),
    ] {
        // Defaulting shows the one under both names.
        if name.as_ref().is_some_and(|name| !name.is_empty()) {
            add(&mut found, &path.field(field), "serviceaccounts");
            break;
        }
    }
    secrets(spec, &path, &mut found);
    config_maps(spec, &path, &mut found);
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        add(&mut found, &path.field("resourceClaims"), "resourceclaims");
    }
    let volumes = path.field("volumes");
    for (at, volume) in spec.volumes.iter().flatten().enumerate() {
        others(volume, &volumes.index(at), &mut found);
    }
    found
}

/// A field that refers to something twice over is reported once, in the words that come first.
fn add(found: &mut Vec<Reference>, path: &Path<'_>, resource: &'static str) {
    if found.len() >= MAX_REFERENCES {
        return;
    }
    let field = path.to_string();
    if !found.iter().any(|it| it.field == field) {
        found.push(Reference { field, resource });
    }
}

/// References to secrets by a name that is not empty.
fn secrets(spec: &PodSpec, path: &Path<'_>, found: &mut Vec<Reference>) {
    let list = path.field("imagePullSecrets");
    for (at, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if !secret.name.is_empty() {
            add(found, &list.index(at), "secrets");
        }
    }
    visit_containers(spec, path, |container, path| {
        env_references(container, path, "secrets", found);
    });
    let list = path.field("volumes");
    for (at, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = list.index(at);
        let local = |reference: Option<&LocalObjectReference>| {
            reference.is_some_and(|it| !it.name.is_empty())
        };
        let secret = [
            ("azureFile", volume.azure_file.as_ref().is_some_and(|it| !it.secret_name.is_empty())),
            ("cephfs", local(volume.cephfs.as_ref().and_then(|it| it.secret_ref.as_ref()))),
            ("cinder", local(volume.cinder.as_ref().and_then(|it| it.secret_ref.as_ref()))),
            (
                "flexVolume",
                local(volume.flex_volume.as_ref().and_then(|it| it.secret_ref.as_ref())),
            ),
            ("rbd", local(volume.rbd.as_ref().and_then(|it| it.secret_ref.as_ref()))),
            (
                "secret",
                volume
                    .secret
                    .as_ref()
                    .is_some_and(|it| it.secret_name.as_ref().is_some_and(|it| !it.is_empty())),
            ),
            ("scaleIO", volume.scale_io.as_ref().is_some_and(|it| !it.secret_ref.name.is_empty())),
            ("iscsi", local(volume.iscsi.as_ref().and_then(|it| it.secret_ref.as_ref()))),
            ("storageos", local(volume.storageos.as_ref().and_then(|it| it.secret_ref.as_ref()))),
            ("csi", local(volume.csi.as_ref().and_then(|it| it.node_publish_secret_ref.as_ref()))),
        ];
        for (field, _) in secret.into_iter().filter(|(_, refers)| *refers) {
            add(found, &path.field(field), "secrets");
        }
        projected_by_name(volume, &path, "secret", "secrets", found);
    }
}

fn config_maps(spec: &PodSpec, path: &Path<'_>, found: &mut Vec<Reference>) {
    visit_containers(spec, path, |container, path| {
        env_references(container, path, "configmaps", found);
    });
    let list = path.field("volumes");
    for (at, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = list.index(at);
        projected_by_name(volume, &path, "configMap", "configmaps", found);
        if volume.config_map.as_ref().is_some_and(|it| !it.name.is_empty()) {
            add(found, &path.field("configMap"), "configmaps");
        }
    }
}

/// `envFrom` and `valueFrom`.
fn env_references(
    container: &Container,
    path: &Path<'_>,
    resource: &'static str,
    found: &mut Vec<Reference>,
) {
    let secrets = resource == "secrets";
    let from = path.field("envFrom");
    for (at, source) in container.env_from.iter().flatten().enumerate() {
        let (field, name) = if secrets {
            ("secretRef", source.secret_ref.as_ref().map(|it| &it.name))
        } else {
            ("configMapRef", source.config_map_ref.as_ref().map(|it| &it.name))
        };
        if name.is_some_and(|name| !name.is_empty()) {
            add(found, &from.index(at).field(field), resource);
        }
    }
    let env = path.field("env");
    for (at, variable) in container.env.iter().flatten().enumerate() {
        let Some(source) = &variable.value_from else { continue };
        let (field, name) = if secrets {
            ("secretKeyRef", source.secret_key_ref.as_ref().map(|it| &it.name))
        } else {
            ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|it| &it.name))
        };
        if name.is_some_and(|name| !name.is_empty()) {
            let path = env.index(at);
            add(found, &path.field("valueFrom").field(field), resource);
        }
    }
}

fn projected_by_name(
    volume: &Volume,
    path: &Path<'_>,
    field: &'static str,
    resource: &'static str,
    found: &mut Vec<Reference>,
) {
    let path = path.field("projected");
    let path = path.field("sources");
    let sources = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
    for (at, source) in sources.enumerate() {
        let name = if field == "secret" {
            source.secret.as_ref().map(|it| &it.name)
        } else {
            source.config_map.as_ref().map(|it| &it.name)
        };
        if name.is_some_and(|name| !name.is_empty()) {
            add(found, &path.index(at).field(field), resource);
        }
    }
}

/// Volumes that need the API whatever they name.
fn others(volume: &Volume, path: &Path<'_>, found: &mut Vec<Reference>) {
    let kinds = [
        ("configMap", volume.config_map.is_some(), "configmaps (via configmap volumes)"),
        ("secret", volume.secret.is_some(), "secrets (via secret volumes)"),
        ("csi", volume.csi.is_some(), "csidrivers (via CSI volumes)"),
        ("glusterfs", volume.glusterfs.is_some(), "endpoints (via glusterFS volumes)"),
        (
            "persistentVolumeClaim",
            volume.persistent_volume_claim.is_some(),
            "persistentvolumeclaims",
        ),
        ("ephemeral", volume.ephemeral.is_some(), "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", volume.azure_file.is_some(), "secrets (via azureFile volumes)"),
    ];
    for (field, _, resource) in kinds.into_iter().filter(|(_, set, _)| *set) {
        add(found, &path.field(field), resource);
    }
    let path = path.field("projected");
    let path = path.field("sources");
    let sources = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
    for (at, source) in sources.enumerate() {
        let kinds = [
            ("configMap", source.config_map.is_some(), "configmaps (via projected volumes)"),
            ("secret", source.secret.is_some(), "secrets (via projected volumes)"),
            (
                "serviceAccountToken",
                source.service_account_token.is_some(),
                "serviceaccounts (via projected volumes)",
            ),
            ("clusterTrustBundle", source.cluster_trust_bundle.is_some(), "clustertrustbundles"),
            ("podCertificate", source.pod_certificate.is_some(), "podcertificates"),
        ];
        for (field, _, resource) in kinds.into_iter().filter(|(_, set, _)| *set) {
            add(found, &path.index(at).field(field), resource);
        }
    }
}
