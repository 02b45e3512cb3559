//! Pods that an API has accepted: defaulted, judged and named there.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod as KubernetesPod};
use serde_json::json;
use thiserror::Error;

use crate::identity::SourceKind;
use crate::pod::Pod;
use crate::{json, unsupported};

/// Fields that static pods are refused with, and pods of an API are not: an API sets them itself, or
/// they are the API's to carry out.
const TAKEN: &[&str] = &[
    "metadata.finalizers",
    // They come to a pod that runs already, and do not keep it from running: see [`unsupported_in`].
    "spec.ephemeralContainers",
    // Judged on its own, in a kubelet's words.
    "spec.os.name",
    // Asked of the API before the pod is run.
    "spec.runtimeClassName",
    // No token is mounted; that is documented.
    "spec.serviceAccount",
    "spec.serviceAccountName",
];

/// The longest UID, in bytes.
const UID_MAX: usize = 64;

/// A pod of an API that cannot be run as it stands.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[error("{}", fields.join("; "))]
pub struct Unsupported {
    /// A field and what is the matter with it, each; never empty.
    pub fields: Vec<String>,
}

impl Pod {
    /// Takes in a pod of an API. Name, UID and everything else stay what they are.
    ///
    /// # Errors
    /// When it says something that this version does not carry out: all such fields by name.
    pub fn from_api(mut pod: KubernetesPod) -> Result<Self, Unsupported> {
        pod.metadata.managed_fields = None;
        pod.status = None;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        // It becomes a directory's name.
        let of_uid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if uid.is_empty() || uid.len() > UID_MAX || !uid.bytes().all(of_uid) {
            let field = format!("metadata.uid: {uid:?} is no UID");
            return Err(Unsupported { fields: vec![field] });
        }
        let containers = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
        if containers == 0 {
            let field = "spec.containers: there are none".to_owned();
            return Err(Unsupported { fields: vec![field] });
        }
        let text = serde_json::to_string(&pod).unwrap_or_default();
        let roots = json::read(&text).into_iter().filter_map(|document| document.root);
        let mut fields: Vec<String> = roots
            .flat_map(|root| unsupported::check(&root))
            .filter(|finding| !is_taken(&finding.field))
            .map(|finding| format!("{}: {}", finding.field, finding.message))
            .collect();
        fields.dedup();
        if !fields.is_empty() {
            return Err(Unsupported { fields });
        }
        // Every pull policy is written there, if only by defaulting.
        Ok(Self::new(pod, SourceKind::Api, uid, BTreeSet::new()))
    }
}

/// What an ephemeral container says that this version does not carry out.
///
/// # Errors
/// All such fields by name.
pub fn unsupported_in(container: &EphemeralContainer) -> Result<(), Unsupported> {
    let alone = json!({ "spec": { "ephemeralContainers": [container] } });
    let roots = json::read(&alone.to_string()).into_iter().filter_map(|document| document.root);
    let named = format!("spec.ephemeralContainers{{{}}}", container.name);
    let mut fields: Vec<String> = roots
        .flat_map(|root| unsupported::check(&root))
        .map(|it| {
            let field = it.field.replacen("spec.ephemeralContainers[0]", &named, 1);
            format!("{field}: {}", it.message)
        })
        .collect();
    fields.dedup();
    if fields.is_empty() { Ok(()) } else { Err(Unsupported { fields }) }
}

fn is_taken(field: &str) -> bool {
    let below = |row: &str| {
        field.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    TAKEN.iter().any(|row| below(row))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// As an API holds it after defaulting and admission.
    fn pod(spec: &Value) -> KubernetesPod {
        let mut object = json!({
            "metadata": {
                "name": "t", "namespace": "default", "uid": "3f6c1f6e-58a7-4f4e-9a0e-3f1c8f0f8a11",
                "finalizers": ["a/b"], "generation": 1, "resourceVersion": "7",
                // Set by a user, to no effect.
                "annotations": {"kubernetes.io/config.source": "file"},
            },
            "spec": {
                "containers": [{
                    "name": "t", "image": "x", "imagePullPolicy": "Never", "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "nodeName": "n1",
                "preemptionPolicy": "PreemptLowerPriority", "priority": 0,
                "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "serviceAccount": "default",
                "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
                "tolerations": [{
                    "effect": "NoExecute", "key": "node.kubernetes.io/not-ready",
                    "operator": "Exists", "tolerationSeconds": 300,
                }],
            },
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        });
        let spec = spec.as_object().unwrap().clone();
        object["spec"].as_object_mut().unwrap().extend(spec);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_pod_of_an_api_stays_what_it_is() {
        let held = pod(&json!({"nodeSelector": {"disk": "ssd"}}));
        let taken = Pod::from_api(held.clone()).unwrap();
        assert_eq!(taken.uid(), held.metadata.uid.as_deref().unwrap());
        assert_eq!((taken.name(), taken.source()), ("t", SourceKind::Api));
        assert_eq!(Some(taken.spec()), held.spec.as_ref());
        assert!(taken.has_written_pull_policy("t"));
        let stored = Pod::from_stored(&taken.to_stored()).unwrap();
        assert_eq!(stored, taken);
    }

    #[test]
    fn what_is_not_carried_out_is_named() {
        let init = json!([{"name": "i", "image": "x", "volumeDevices": [{"name": "x", "devicePath": "/x"}]}]);
        let held = pod(&json!({"initContainers": init}));
        let error = Pod::from_api(held).unwrap_err();
        expect_test::expect![
            "spec.initContainers[0].volumeDevices: not supported by this version of mainstay yet"
        ]
        .assert_eq(&error.to_string());
        let debug = json!({"name": "d", "image": "x", "volumeDevices": [{"name": "x", "devicePath": "/x"}]});
        let taken = Pod::from_api(pod(&json!({"ephemeralContainers": [debug]}))).unwrap();
        let debug = &taken.spec().ephemeral_containers.as_ref().unwrap()[0];
        assert_eq!(
            unsupported_in(debug).unwrap_err().to_string(),
            "spec.ephemeralContainers{d}.volumeDevices: not supported by this version of mainstay yet"
        );
        let plain = EphemeralContainer { volume_devices: None, ..debug.clone() };
        assert_eq!(unsupported_in(&plain), Ok(()));
    }

    #[test]
    fn a_uid_that_is_no_file_name_is_refused() {
        for uid in ["", "..", "a/b", "a.b", &"a".repeat(65)] {
            let mut held = pod(&json!({}));
            held.metadata.uid = Some(uid.to_owned());
            assert!(Pod::from_api(held).is_err(), "{uid}");
        }
    }
}
