//! What an API server fills in when a Pod leaves it out (Kubernetes 1.36).
//!
//! Source: `pkg/apis/core/v1/{defaults,zz_generated.defaults,conversion}.go`. What admission plugins add on
//! top (service account, priority, tolerations) is not added here: static pods do not get it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EphemeralContainer, Lifecycle, Pod, PodSpec, PodTemplateSpec, Probe,
    ResourceFieldSelector, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::quantity::{Quantity, stored_text};
use crate::resources::{self, is_huge_page, is_pod_level};

mod image;
mod volumes;

type QuantityTexts = BTreeMap<String, QuantityText>;

/// Annotations that Kubernetes 1.5 kept init containers in; every API server since drops them.
const INIT_CONTAINER_ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// Fills in every default of a Pod, as an API server does when it reads one. Doing it twice changes
/// nothing.
pub fn apply(pod: &mut Pod) {
    drop_init_container_annotations(&mut pod.metadata);
    let spec = pod.spec.get_or_insert_default();
    // The order is that of the generated SetObjectDefaults_Pod: what is copied is copied unrounded.
    for container in containers_mut(spec) {
        if let Some(resources) = &mut container.resources {
            requests_from_limits(resources);
        }
    }
    pod_level_resources(spec);
    spec.enable_service_links.get_or_insert(true);
    if spec.host_network == Some(true) {
        for container in containers_mut(spec) {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or(0) == 0 && port.container_port != 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
    every_spec(spec);
}

/// Fills in the defaults of a pod's template, which are fewer than those of a pod. Doing it twice changes
/// nothing.
pub fn template(template: &mut PodTemplateSpec) {
    if let Some(metadata) = &mut template.metadata {
        drop_init_container_annotations(metadata);
    }
    every_spec(template.spec.get_or_insert_default());
}

fn drop_init_container_annotations(metadata: &mut ObjectMeta) {
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| !INIT_CONTAINER_ANNOTATIONS.contains(&key.as_str()));
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
}

/// What a spec gets wherever it is.
fn every_spec(spec: &mut PodSpec) {
    pod_spec(spec);
    for volume in spec.volumes.iter_mut().flatten() {
        volumes::apply(volume);
    }
    for each in containers_mut(spec) {
        container(each);
    }
    for each in spec.ephemeral_containers.iter_mut().flatten() {
        let mut common = as_container(each);
        container(&mut common);
        set_common(each, common);
    }
    if let Some(overhead) = &mut spec.overhead {
        round(overhead);
    }
    if let Some(resources) = &mut spec.resources {
        round_all(resources);
    }
    service_account(spec);
}

/// Init containers, then containers.
fn containers_mut(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers)
}

/// `SetDefaults_PodSpec`, and what conversion does to every spec.
fn pod_spec(spec: &mut PodSpec) {
    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    let period = spec.termination_grace_period_seconds.get_or_insert(30);
    if *period < 0 {
        *period = 1;
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown, the new one wins.
fn service_account(spec: &mut PodSpec) {
    let name = spec
        .service_account_name
        .take()
        .filter(|name| !name.is_empty())
        .or_else(|| spec.service_account.take().filter(|name| !name.is_empty()));
    spec.service_account.clone_from(&name);
    spec.service_account_name = name;
}

/// `SetDefaults_Container` and what lies inside a container.
fn container(container: &mut Container) {
    if is_unset(container.image_pull_policy.as_ref()) {
        let image = container.image.as_deref().unwrap_or("");
        container.image_pull_policy = Some(image::pull_policy(image).to_owned());
    }
    default_text(&mut container.termination_message_path, "/dev/termination-log");
    default_text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        default_text(&mut port.protocol, "TCP");
    }
    for variable in container.env.iter_mut().flatten() {
        env_var(variable);
    }
    if let Some(resources) = &mut container.resources {
        round_all(resources);
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    for each in probes.into_iter().flatten() {
        probe(each);
    }
    if let Some(each) = &mut container.lifecycle {
        lifecycle(each);
    }
}

fn env_var(variable: &mut EnvVar) {
    let Some(source) = &mut variable.value_from else { return };
    if let Some(field) = &mut source.field_ref {
        default_text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut source.resource_field_ref {
        divisor(resource);
    }
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

/// Kubernetes has no way to leave a divisor out: it writes 0, which means 1.
fn divisor(resource: &mut ResourceFieldSelector) {
    let divisor = resource.divisor.get_or_insert_with(|| QuantityText("0".to_owned()));
    if let Ok(stored) = stored_text(&divisor.0) {
        divisor.0 = stored;
    }
}

/// `SetDefaults_Probe`: zero means the default here, as it does in Kubernetes.
fn probe(probe: &mut Probe) {
    let numbers = [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ];
    for (number, default) in numbers {
        if number.unwrap_or(0) == 0 {
            *number = Some(default);
        }
    }
    if let Some(get) = &mut probe.http_get {
        http_get(get);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn lifecycle(lifecycle: &mut Lifecycle) {
    for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
        if let Some(get) = &mut handler.http_get {
            http_get(get);
        }
    }
}

fn http_get(get: &mut k8s_openapi::api::core::v1::HTTPGetAction) {
    default_text(&mut get.path, "/");
    default_text(&mut get.scheme, "HTTP");
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// `defaultHugePagePodLimits`, then `defaultPodRequests`.
fn pod_level_resources(spec: &mut PodSpec) {
    let Some(own) = &spec.resources else { return };
    let empty = |list: &Option<QuantityTexts>| list.as_ref().is_none_or(BTreeMap::is_empty);
    if empty(&own.limits) && empty(&own.requests) {
        return;
    }
    let limits = resources::aggregate(spec, |it| it.limits.as_ref());
    let requests = resources::aggregate(spec, |it| it.requests.as_ref());
    let Some(own) = &mut spec.resources else { return };
    let has = |list: &Option<QuantityTexts>, name: &str| {
        list.as_ref().is_some_and(|it| it.contains_key(name))
    };

    let new_limits: Vec<_> = limits
        .into_iter()
        .filter(|(name, _)| {
            is_huge_page(name) && !has(&own.requests, name) && !has(&own.limits, name)
        })
        .collect();
    add(&mut own.limits, new_limits);
    if empty(&own.limits) {
        return;
    }
    let new_requests: Vec<_> = requests
        .into_iter()
        .filter(|(name, _)| is_pod_level(name) && !is_huge_page(name) && !has(&own.requests, name))
        .collect();
    add(&mut own.requests, new_requests);
    let from_limits: Vec<_> = own
        .limits
        .iter()
        .flatten()
        .filter(|(name, _)| is_pod_level(name) && !has(&own.requests, name))
        .map(|(name, limit)| (name.clone(), limit.clone()))
        .collect();
    if !from_limits.is_empty() {
        own.requests.get_or_insert_default().extend(from_limits);
    }
}

fn add(list: &mut Option<QuantityTexts>, new: impl IntoIterator<Item = (String, Quantity)>) {
    let mut new = new.into_iter().peekable();
    if new.peek().is_some() {
        let list = list.get_or_insert_default();
        list.extend(new.map(|(name, quantity)| (name, QuantityText(quantity.canonical()))));
    }
}

fn round_all(resources: &mut ResourceRequirements) {
    for list in [&mut resources.limits, &mut resources.requests].into_iter().flatten() {
        round(list);
    }
}

/// `SetDefaults_ResourceList`: amounts are kept in thousandths, rounded up, and in canonical text.
fn round(list: &mut QuantityTexts) {
    for text in list.values_mut() {
        let Ok(quantity) = Quantity::parse(&text.0) else { continue };
        let rounded = quantity.rounded_to_milli();
        if rounded != quantity {
            text.0 = rounded.canonical();
        } else if let Ok(stored) = stored_text(&text.0) {
            text.0 = stored;
        }
    }
}

fn default_text(text: &mut Option<String>, default: &str) {
    if is_unset(text.as_ref()) {
        *text = Some(default.to_owned());
    }
}

fn is_unset(text: Option<&String>) -> bool {
    text.is_none_or(String::is_empty)
}

/// A container of one kind out of one of the other: they share all fields but one.
macro_rules! convert {
    ($source:expr => $target:ident $(, $extra:ident)?) => {{
        let source = $source;
        $target {
            args: source.args,
            command: source.command,
            env: source.env,
            env_from: source.env_from,
            image: source.image,
            image_pull_policy: source.image_pull_policy,
            lifecycle: source.lifecycle,
            liveness_probe: source.liveness_probe,
            name: source.name,
            ports: source.ports,
            readiness_probe: source.readiness_probe,
            resize_policy: source.resize_policy,
            resources: source.resources,
            restart_policy: source.restart_policy,
            restart_policy_rules: source.restart_policy_rules,
            security_context: source.security_context,
            startup_probe: source.startup_probe,
            stdin: source.stdin,
            stdin_once: source.stdin_once,
            termination_message_path: source.termination_message_path,
            termination_message_policy: source.termination_message_policy,
            tty: source.tty,
            volume_devices: source.volume_devices,
            volume_mounts: source.volume_mounts,
            working_dir: source.working_dir,
            $($extra,)?
        }
    }};
}

/// What an ephemeral container shares with every container.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    convert!(ephemeral.clone() => Container)
}

fn set_common(ephemeral: &mut EphemeralContainer, container: Container) {
    let target_container_name = ephemeral.target_container_name.take();
    *ephemeral = convert!(container => EphemeralContainer, target_container_name);
}

#[cfg(test)]
mod tests;
