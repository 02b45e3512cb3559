//! Pods.
//!
//! Source: `pkg/registry/core/pod/strategy.go`.

mod resize;
mod table;
mod update;
pub(super) mod warnings;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use mainstay_pod::validate::{self, Errors, FieldError, Path};
use mainstay_pod::{QosClass, defaults};
use serde_json::{Value, json};

use crate::kind::{self, Column, PLAIN, Resource, Strategy, Subresource};
use crate::object::Object;

pub(crate) static PODS: Resource = Resource {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource { name: "attach", kind: "PodAttachOptions", of: None, verbs: STREAM },
        Subresource { name: "binding", kind: "Binding", of: None, verbs: &["create"] },
        kind::part(EPHEMERAL, "Pod"),
        Subresource {
            name: "eviction",
            kind: "Eviction",
            of: Some(("policy", "v1")),
            verbs: &["create"],
        },
        Subresource { name: "exec", kind: "PodExecOptions", of: None, verbs: STREAM },
        Subresource { name: "log", kind: "Pod", of: None, verbs: &["get"] },
        Subresource { name: "portforward", kind: "PodPortForwardOptions", of: None, verbs: STREAM },
        kind::proxy("PodProxyOptions"),
        kind::part(RESIZE, "Pod"),
        kind::status("Pod"),
    ],
    storage: "pods",
    strategy: &Pods,
    ..PLAIN
};

/// Containers that are added to a pod which is there, to look into it.
const EPHEMERAL: &str = "ephemeralcontainers";

/// Requests and limits of CPU and memory.
const RESIZE: &str = "resize";

/// Upgraded connections begin with either method.
const STREAM: &[&str] = &["create", "get"];

struct Pods;

/// A pod that has been held against its schema as its type.
pub(crate) fn typed(object: &Object) -> Result<Pod, FieldError> {
    object.typed().map_err(|error: serde_json::Error| {
        let mut errors = Errors::default();
        errors.invalid(&Path::new("spec"), "", &error.to_string());
        errors.0.remove(0)
    })
}

impl Strategy for Pods {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Object) {
        let Ok(mut pod) = typed(object) else { return };
        defaults::apply(&mut pod);
        if let Some(spec) = pod.spec.and_then(|spec| serde_json::to_value(spec).ok()) {
            object.0.insert("spec".into(), spec);
        }
        let annotations = pod.metadata.annotations.and_then(|it| serde_json::to_value(it).ok());
        match annotations {
            Some(annotations) => object.meta_mut().insert("annotations".into(), annotations),
            None => object.meta_mut().remove("annotations"),
        };
    }

    fn resets(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "" => &["status"],
            "status" => &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"],
            EPHEMERAL | RESIZE => &[
                "metadata.deletionTimestamp",
                "metadata.labels",
                "metadata.annotations",
                "metadata.finalizers",
                "metadata.ownerReferences",
            ],
            _ => &[],
        }
    }

    fn sets_only(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            EPHEMERAL => &["spec.ephemeralContainers"],
            RESIZE => &[
                "spec.containers.*.resources",
                "spec.containers.*.resizePolicy",
                "spec.initContainers.*.resources",
                "spec.initContainers.*.resizePolicy",
            ],
            _ => &[],
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        let class = typed(object).ok().and_then(|pod| pod.spec.as_ref().map(QosClass::of));
        let mut status = json!({ "phase": "Pending" });
        if let Some(class) = class {
            status["qosClass"] = class.as_str().into();
        }
        if !object.list_at(&["spec", "schedulingGates"]).is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null,
                "lastTransitionTime": object.meta_str("creationTimestamp"),
            }]);
        }
        object.0.insert("status".into(), status);
    }

    fn prepare_status(&self, new: &mut Object, old: &Object) {
        // Source: `podStatusStrategy.PrepareForUpdate`.
        if let (Some(class), None) =
            (old.at(&["status", "qosClass"]), new.at(&["status", "qosClass"]))
        {
            let class = class.clone();
            new.field_mut("status").insert("qosClass".into(), class);
        }
        // One address and all of them say the same. Source: `Convert_v1_PodStatus_To_core_PodStatus`.
        let one = new.str_at(&["status", "podIP"]).to_owned();
        let first = new.list_at(&["status", "podIPs"]).first();
        let first =
            first.map(|it| it.get("ip").and_then(Value::as_str).unwrap_or_default().to_owned());
        match (one.as_str(), first) {
            ("", Some(first)) => {
                new.field_mut("status").insert("podIP".into(), first.into());
            }
            ("", None) => {}
            (one, first) if first.as_deref() != Some(one) => {
                new.field_mut("status").insert("podIPs".into(), json!([{ "ip": one }]));
            }
            _ => {}
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        match typed(object) {
            Ok(pod) => validate::create(&pod),
            Err(error) => vec![error],
        }
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        match (typed(new), typed(old)) {
            (Ok(new), Ok(old)) => update::validate(&new, &old),
            (Err(error), _) | (_, Err(error)) => vec![error],
        }
    }

    fn validate_status(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        update::validate_status(new, old)
    }

    fn prepare_part(&self, part: &str, new: &mut Object, old: &Object, _now: Timestamp) {
        match part {
            EPHEMERAL => {}
            RESIZE => resize::prepare(new, old),
            _ => self.prepare_status(new, old),
        }
    }

    fn validate_part(&self, part: &str, new: &Object, old: &Object) -> Vec<FieldError> {
        let validate = match part {
            EPHEMERAL => update::validate_ephemeral_containers,
            RESIZE => resize::validate,
            _ => return self.validate_status(new, old),
        };
        match (typed(new), typed(old)) {
            (Ok(new), Ok(old)) => validate(&new, &old),
            (Err(error), _) | (_, Err(error)) => vec![error],
        }
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        let mut warnings = Vec::new();
        let messages = validate::names::dns_label(object.name());
        if !messages.is_empty() {
            warnings.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising \
                 behavior; a DNS label is recommended: [{}]",
                messages.join(" ")
            ));
        }
        if let Some(spec) = object.0.get("spec") {
            warnings.extend(warnings::of_spec(spec, &Path::new("spec")));
        }
        warnings
    }

    fn grace_period(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
        let spec = object.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
        let period = requested.or(spec).unwrap_or(0);
        let unscheduled = object.str_at(&["spec", "nodeName"]).is_empty();
        let over = matches!(object.str_at(&["status", "phase"]), "Failed" | "Succeeded");
        Some(match period {
            _ if unscheduled || over => 0,
            ..0 => 1,
            period => period,
        })
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn field<'a>(&self, object: &'a Object, field: &str) -> Cow<'a, str> {
        match field {
            "spec.hostNetwork" => {
                let host = object.at(&["spec", "hostNetwork"]).and_then(Value::as_bool);
                if host == Some(true) { "true".into() } else { "false".into() }
            }
            "status.podIPs" => {
                let ips = object.list_at(&["status", "podIPs"]);
                ips.first().and_then(|ip| ip.get("ip")?.as_str()).unwrap_or_default().into()
            }
            _ => match field.split_once('.') {
                Some((part, key)) => object.str_at(&[part, key]).into(),
                None => "".into(),
            },
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        table::row(object, now)
    }

    fn row_conditions(&self, object: &Object) -> Vec<Value> {
        table::conditions(object)
    }
}

#[cfg(test)]
mod tests;
