//! What may change of a pod that is there.
//!
//! Source: `ValidatePodUpdate`, `ValidatePodStatusUpdate`, `ValidatePodEphemeralContainersUpdate` in
//! `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration};
use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use mainstay_pod::validate::{self, Errors, FieldError, Path, Shown};
use serde_json::Value;

use crate::kinds::rules;
use crate::object::Object;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,\
                         `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                         tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                         was previously negative)";

/// Differences that are shown of a change that is refused.
const SHOWN: usize = 10;

pub(super) fn validate(new: &Pod, old: &Pod) -> Vec<FieldError> {
    let mut errors = Errors(validate::update(new));
    annotations(new, old, &mut errors);
    let none = PodSpec::default();
    let path = Path::new("spec");
    let (spec, before) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let lists = [
        ("containers", spec.containers.as_slice(), before.containers.as_slice()),
        ("initContainers", init_containers(spec), init_containers(before)),
    ];
    for (name, new, old) in lists {
        if !images(new, old, &path.field(name), &mut errors) {
            return errors.0;
        }
    }
    if !deadline(spec, before, &path, &mut errors) {
        return errors.0;
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let known = before.tolerations.as_deref().unwrap_or_default();
    if !known.iter().all(|old| tolerations.iter().any(|new| same_but_for_time(new, old))) {
        let text = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&path.field("tolerations"), text);
    }
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    let known = before.scheduling_gates.as_deref().unwrap_or_default();
    let gates_path = path.field("schedulingGates");
    for (at, gate) in gates.iter().enumerate().filter(|(_, gate)| !known.contains(gate)) {
        let path = gates_path.index(at);
        let text =
            format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.forbidden(&path.field("name"), &text);
    }
    let leveled = leveled(spec, before);
    if leveled != *before {
        let differences = differences(before, &leveled);
        let text = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            differences.join("\n")
        );
        errors.forbidden(&path, &text);
    }
    errors.0
}

/// What may change by the subresource `ephemeralcontainers`, which only adds. Kubernetes refuses all of it for
/// mirrors, whose kubelet looks at no API; here the agent of the node carries it out.
pub(super) fn validate_ephemeral_containers(new: &Pod, old: &Pod) -> Vec<FieldError> {
    let mut errors = Errors(validate::update(new));
    annotations(new, old, &mut errors);
    let of = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default()
    };
    let spec = Path::new("spec");
    let path = spec.field("ephemeralContainers");
    let now = of(new);
    for before in of(old) {
        let name = &before.name;
        // A patch does not keep their order.
        match now.iter().rfind(|it| it.name == *name) {
            Some(now) if *now == before => {}
            Some(now) => {
                let value = |it| serde_json::to_value(it).unwrap_or_default();
                let mut lines = Vec::new();
                differ("", &value(&before), &value(now), &mut lines);
                let text = format!(
                    "existing ephemeral containers {name:?} may not be changed\n{}",
                    lines.join("\n")
                );
                errors.forbidden(&path, &text);
            }
            None => {
                let text = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.forbidden(&path, &text);
            }
        }
    }
    errors.0
}

pub(super) fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

fn annotations(new: &Pod, old: &Pod, errors: &mut Errors) {
    let none = BTreeMap::new();
    let now = new.metadata.annotations.as_ref().unwrap_or(&none);
    let then = old.metadata.annotations.as_ref().unwrap_or(&none);
    let meta = Path::new("metadata");
    let path = meta.field("annotations");
    match (then.get(CONFIG_MIRROR_ANNOTATION), now.get(CONFIG_MIRROR_ANNOTATION)) {
        (Some(old), new) if new != Some(old) => errors.forbidden(
            &path.key(CONFIG_MIRROR_ANNOTATION),
            "may not remove or update mirror pod annotation",
        ),
        (None, Some(_)) => {
            errors.forbidden(
                &path.key(CONFIG_MIRROR_ANNOTATION),
                "may not add mirror pod annotation",
            );
        }
        _ => {}
    }
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
    for key in
        then.keys().filter(|key| key.starts_with(APP_ARMOR) && now.get(*key) != then.get(*key))
    {
        errors.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
    }
    for key in now.keys().filter(|key| key.starts_with(APP_ARMOR) && !then.contains_key(*key)) {
        errors.forbidden(&path.key(key), "may not add AppArmor annotations");
    }
}

/// Whether anything after this can be compared.
fn images(new: &[Container], old: &[Container], path: &Path<'_>, errors: &mut Errors) -> bool {
    if new.len() != old.len() {
        errors.forbidden(path, "pod updates may not add or remove containers");
        return false;
    }
    for (at, container) in new.iter().enumerate() {
        let path = path.index(at);
        let image = container.image.as_deref().unwrap_or_default();
        if image.is_empty() {
            errors.required(&path.field("image"), "");
        }
        if image.trim() != image {
            errors.invalid(
                &path.field("image"),
                image,
                "must not have leading or trailing whitespace",
            );
        }
    }
    true
}

fn deadline(new: &PodSpec, old: &PodSpec, path: &Path<'_>, errors: &mut Errors) -> bool {
    let path = path.field("activeDeadlineSeconds");
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(&path, new, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(&path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            let text = "must not update from a positive integer to nil value";
            errors.invalid(&path, Shown("null".to_owned()), text);
            true
        }
        _ => true,
    }
}

fn same_but_for_time(new: &Toleration, old: &Toleration) -> bool {
    Toleration { toleration_seconds: new.toleration_seconds, ..old.clone() } == *new
}

/// The new spec with what may change as it was.
fn leveled(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut spec = new.clone();
    let images = |new: &mut [Container], old: &[Container]| {
        for (container, before) in new.iter_mut().zip(old) {
            container.image.clone_from(&before.image);
        }
    };
    images(&mut spec.containers, &old.containers);
    images(spec.init_containers.as_deref_mut().unwrap_or_default(), init_containers(old));
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    spec.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
        && spec.termination_grace_period_seconds == Some(1)
    {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    // Source: of a pod that waits at a gate, what it asks of a node may still be narrowed.
    if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        let kept = old.node_selector.iter().flatten().all(|(key, value)| {
            spec.node_selector.as_ref().and_then(|selector| selector.get(key)) == Some(value)
        });
        if kept {
            spec.node_selector.clone_from(&old.node_selector);
        }
    }
    spec
}

/// What differs, one line for each field, as `spec.hostNetwork: null → true`.
fn differences(old: &PodSpec, new: &PodSpec) -> Vec<String> {
    let value = |spec: &PodSpec| serde_json::to_value(spec).unwrap_or_default();
    let mut lines = Vec::new();
    differ("spec", &value(old), &value(new), &mut lines);
    lines.truncate(SHOWN);
    lines
}

fn differ(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        _ if old == new || lines.len() >= SHOWN => {}
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let [before, after] =
                    [before, after].map(|map| map.get(key).unwrap_or(&Value::Null));
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differ(&path, before, after, lines);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                differ(&format!("{path}[{at}]"), before, after, lines);
            }
        }
        _ => lines.push(format!("  {path}: {old} → {new}")),
    }
}

/// What a status may say.
pub(super) fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::new("status");
    let generation = new.i64_at(&["status", "observedGeneration"]);
    if generation < 0 {
        let path = path.field("observedGeneration");
        errors.invalid(&path, generation, "must be a non-negative integer");
    }
    let nominated = new.str_at(&["status", "nominatedNodeName"]);
    let changed = nominated != old.str_at(&["status", "nominatedNodeName"]);
    if !nominated.is_empty() && changed {
        let path = path.field("nominatedNodeName");
        errors.invalid_all(&path, nominated, validate::names::dns_subdomain(nominated));
        if !old.str_at(&["spec", "nodeName"]).is_empty() {
            errors.forbidden(&path, "may not be set on pods that are already bound to a node");
        }
    }
    let [class, before] = [new, old].map(|it| rules::at(rules::top(it, "status"), "qosClass"));
    rules::immutable(class, before, &path.field("qosClass"), &mut errors);
    conditions(new, &path.field("conditions"), &mut errors);
    let policy = old.str_at(&["spec", "restartPolicy"]);
    for list in ["containerStatuses", "initContainerStatuses"] {
        transitions(new, old, list, policy, &path, &mut errors);
    }
    addresses(new, "podIPs", &path, &mut errors);
    addresses(new, "hostIPs", &path, &mut errors);
    errors.0
}

/// Source: `ValidateContainerStateTransition`.
fn transitions(
    new: &Object,
    old: &Object,
    list: &str,
    policy: &str,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if policy == "Always" || policy.is_empty() {
        return;
    }
    let path = path.field(list);
    for (at, before) in old.list_at(&["status", list]).iter().enumerate() {
        let Some(ended) = before.pointer("/state/terminated") else { continue };
        let failed = rules::number(ended, "exitCode") != 0;
        if policy == "OnFailure" && failed {
            continue;
        }
        let statuses = new.list_at(&["status", list]);
        let now = statuses.iter().find(|status| status.get("name") == before.get("name"));
        if now.is_some_and(|now| now.pointer("/state/terminated").is_none()) {
            let path = path.index(at);
            errors
                .forbidden(&path.field("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// Source: `validatePodConditions`.
fn conditions(new: &Object, path: &Path<'_>, errors: &mut Errors) {
    for (at, condition) in new.list_at(&["status", "conditions"]).iter().enumerate() {
        let path = path.index(at);
        let generation = rules::number(condition, "observedGeneration");
        if generation < 0 {
            let path = path.field("observedGeneration");
            errors.invalid(&path, generation, "must be a non-negative integer");
        }
        let kind = rules::text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            // Kubernetes spells it as Go does.
            errors.invalid_all(&path.field("Type"), kind, validate::names::label_key(kind));
        }
    }
}

/// Source: `validatePodIPs`, `validateHostIPs`.
fn addresses(new: &Object, list: &str, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field(list);
    let all = new.list_at(&["status", list]).iter();
    let all: Vec<&str> = all.map(|it| rules::text(it, "ip")).collect();
    if let Some(first) = all.first().filter(|_| list == "hostIPs")
        && *first != new.str_at(&["status", "hostIP"])
    {
        errors.invalid(&path.index(0).field("ip"), *first, "must be equal to `hostIP`");
    }
    for (at, ip) in all.iter().enumerate() {
        errors.invalid_all(&path.index(at), ip, validate::names::address(ip));
    }
    if all.len() > 2 || all.len() == 2 && !rules::of_both_families(&all) {
        let shown: Vec<String> =
            all.iter().map(|ip| format!("{{\"IP\":{}}}", Value::from(*ip))).collect();
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(&path, Shown(format!("[{}]", shown.join(","))), detail);
    }
}
