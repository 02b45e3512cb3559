//! The account of a pod. Source: `plugin/pkg/admission/serviceaccount`.
//!
//! No volume with a token is added by itself yet.

use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::kinds;
use crate::object::Object;
use crate::server::Inner;
use crate::status::Result;

const DEFAULT: &str = "default";

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
    let accounts = &kinds::SERVICE_ACCOUNTS;
    let found = server.storage.find(accounts, attributes.namespace, name).await?;
    if found.is_none() && name != DEFAULT {
        return Err(attributes.forbidden(format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            attributes.namespace
        )));
    }
    let pull_secrets = found
        .filter(|_| pod.list_at(&["spec", "imagePullSecrets"]).is_empty())
        .and_then(|stored| stored.object.0.get("imagePullSecrets").cloned());
    let spec = pod.field_mut("spec");
    spec.insert("serviceAccountName".into(), name.into());
    spec.insert("serviceAccount".into(), name.into());
    if let Some(secrets) = pull_secrets {
        spec.insert("imagePullSecrets".into(), secrets);
    }
    Ok(())
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
