//! The account of a pod, and the token with which it asks the API. Source:
//! `plugin/pkg/admission/serviceaccount`.

use std::time::Duration;

use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::kinds;
use crate::object::Object;
use crate::random;
use crate::server::Inner;
use crate::status::Result;

const DEFAULT: &str = "default";

/// How volumes with a token begin, and where they are mounted.
const VOLUME: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// In seconds: somewhat more than an hour, by which a server knows whom it must not be strict with. Source:
/// `WarnOnlyBoundTokenExpirationSeconds`.
const EXPIRATION: u32 = 3607;

/// How often, and after what time, the account that every namespace gets is looked for again.
const ATTEMPTS: usize = 10;
const INTERVAL: Duration = Duration::from_millis(150);

pub(super) async fn admit(
    server: &Inner,
    attributes: &Attributes<'_>,
    pod: &mut Object,
) -> Result<()> {
    if attributes.operation != Operation::Create {
        return Ok(());
    }
    if pod.annotation(CONFIG_MIRROR_ANNOTATION).is_some() {
        return check_mirror(attributes, pod);
    }
    let named = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
    let name = if named.is_empty() { DEFAULT } else { &named };
    let account = server.account(attributes.namespace, name).await?;
    if account.is_none() && name != DEFAULT {
        return Err(attributes.forbidden(format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            attributes.namespace
        )));
    }
    pod.field_mut("spec").insert("serviceAccountName".into(), name.into());
    pod.field_mut("spec").insert("serviceAccount".into(), name.into());
    // Where nobody makes accounts, pods run without.
    let Some(account) = account else { return Ok(()) };
    if wants_token(&account, pod) {
        mount_token(pod, || random::name(VOLUME));
    }
    if pod.list_at(&["spec", "imagePullSecrets"]).is_empty()
        && let Some(secrets) = account.0.get("imagePullSecrets")
    {
        pod.field_mut("spec").insert("imagePullSecrets".into(), secrets.clone());
    }
    Ok(())
}

impl Inner {
    /// An account. That of a new namespace is waited for, if somebody makes such accounts.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<Object>> {
        let accounts = &kinds::SERVICE_ACCOUNTS;
        for attempt in 1.. {
            if let Some(found) = self.storage.find(accounts, namespace, name).await? {
                return Ok(Some(found.object));
            }
            if name != DEFAULT || attempt == ATTEMPTS {
                break;
            }
            let all = self.storage.all(accounts, "").await?;
            if !all.iter().any(|it| it.name() == DEFAULT) {
                break;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(None)
    }
}

/// Whether a pod gets a token without asking for one. Source: `shouldAutomount`.
fn wants_token(account: &Object, pod: &Object) -> bool {
    let of_pod = pod.at(&["spec", "automountServiceAccountToken"]).and_then(Value::as_bool);
    let of_account = || account.at(&["automountServiceAccountToken"]).and_then(Value::as_bool);
    of_pod.or_else(of_account).unwrap_or(true)
}

/// Mounts a token in all containers that have nothing where it is looked for. Source:
/// `mountServiceAccountToken`.
fn mount_token(pod: &mut Object, new_name: impl FnOnce() -> String) {
    let volumes = pod.list_at(&["spec", "volumes"]).iter();
    let mut names = volumes.filter_map(|it| it.get("name").and_then(Value::as_str));
    let own = names.find(|name| name.starts_with(VOLUME)).map(str::to_owned);
    let has_own = own.is_some();
    let volume = own.unwrap_or_else(new_name);
    let spec = pod.field_mut("spec");
    let mut is_needed = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            // A null is no list either.
            if !mounts.is_array() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|it| it.get("mountPath") == Some(&json!(MOUNT_PATH))) {
                continue;
            }
            mounts.push(json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
            is_needed = true;
        }
    }
    if has_own || !is_needed {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if !volumes.is_array() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(json!({ "name": volume, "projected": projected() }));
    }
}

/// Source: `TokenVolumeSource`.
fn projected() -> Value {
    json!({
        "defaultMode": 0o644,
        "sources": [
            { "serviceAccountToken": { "expirationSeconds": EXPIRATION, "path": "token" } },
            { "configMap": {
                "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }],
            } },
            { "downwardAPI": { "items": [{
                "path": "namespace",
                "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
            }] } },
        ],
    })
}

/// A mirror pod refers to nothing that its node would not have without the API.
fn check_mirror(attributes: &Attributes<'_>, pod: &Object) -> Result<()> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    let volumes = pod.list_at(&["spec", "volumes"]);
    if volumes.iter().any(|volume| volume.get("secret").is_some()) || refers_to_secrets(pod) {
        return Err(attributes.forbidden("a mirror pod may not reference secrets"));
    }
    let projects_token = |volume: &Value| {
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        sources.into_iter().flatten().any(|source| source.get("serviceAccountToken").is_some())
    };
    if volumes.iter().any(projects_token) {
        return Err(
            attributes.forbidden("a mirror pod may not use ServiceAccountToken volume projections")
        );
    }
    Ok(())
}

fn refers_to_secrets(pod: &Object) -> bool {
    !pod.list_at(&["spec", "imagePullSecrets"]).is_empty()
        || ["containers", "initContainers"].iter().any(|list| {
            pod.list_at(&["spec", list]).iter().any(|container| {
                let items =
                    |key: &str| container.get(key).and_then(Value::as_array).into_iter().flatten();
                items("env").any(|it| it.pointer("/valueFrom/secretKeyRef").is_some())
                    || items("envFrom").any(|it| it.get("secretRef").is_some())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(spec: &Value) -> Value {
        let mut pod = Object(json!({ "spec": spec }).as_object().cloned().unwrap_or_default());
        mount_token(&mut pod, || format!("{VOLUME}abcde"));
        Value::Object(pod.0)
    }

    #[test]
    fn every_container_gets_it_that_has_nothing_there() {
        let own = json!({ "name": "own", "mountPath": MOUNT_PATH });
        let found = mounted(&json!({
            "initContainers": [{ "name": "i", "volumeMounts": null }],
            "containers": [{ "name": "a" }, { "name": "b", "volumeMounts": [own] }],
            "volumes": [{ "name": "own", "emptyDir": {} }],
        }));
        let mount =
            json!({ "name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT_PATH });
        let at = |pointer: &str| found.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/spec/initContainers/0/volumeMounts"), json!([mount]));
        assert_eq!(at("/spec/containers/0/volumeMounts"), json!([mount]));
        assert_eq!(at("/spec/containers/1/volumeMounts"), json!([own]));
        assert_eq!(at("/spec/volumes/1/name"), json!("kube-api-access-abcde"));
        assert_eq!(at("/spec/volumes/1/projected"), projected());
        // Nobody needs it.
        let found = mounted(&json!({ "containers": [{ "name": "b", "volumeMounts": [own] }] }));
        assert_eq!(found.pointer("/spec/volumes"), None);
        // It is there already, as in a pod that was read from a server.
        let volumes = json!([{ "name": "kube-api-access-12345", "emptyDir": {} }]);
        let found = mounted(&json!({ "containers": [{ "name": "a" }], "volumes": volumes }));
        let at = |pointer: &str| found.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/spec/volumes"), volumes);
        assert_eq!(at("/spec/containers/0/volumeMounts/0/name"), json!("kube-api-access-12345"));
    }

    #[test]
    fn the_pod_says_first_whether_it_wants_it_then_its_account() {
        let object = |value: Value| Object(value.as_object().cloned().unwrap_or_default());
        for (pod, account, wanted) in [
            (None, None, true),
            (None, Some(false), false),
            (Some(true), Some(false), true),
            (Some(false), Some(true), false),
        ] {
            let field = |says: Option<bool>| json!({ "automountServiceAccountToken": says });
            let pod = object(json!({ "spec": field(pod) }));
            assert_eq!(wants_token(&object(field(account)), &pod), wanted);
        }
    }
}
