//! Containers of every sort: `validateContainers`, `validateInitContainers`, `validateEphemeralContainers`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerRestartRule, EphemeralContainer, PodSpec, Volume,
};

use super::spec::Holder;
use super::{Errors, Json, env, handlers, mounts, names, resources, security, text};
use crate::containers::restarts_always;
use crate::defaults;
use crate::path::Path;

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ONLY_SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";

/// What the containers of a pod are checked against.
pub(super) struct Around<'a> {
    /// Volumes without errors, by name.
    pub(super) volumes: BTreeMap<&'a str, &'a Volume>,
    pub(super) claims: BTreeSet<&'a str>,
    pub(super) grace_period: Option<i64>,
    pub(super) restart_policy: &'a str,
    pub(super) host_users: bool,
    pub(super) os: Option<&'a str>,
}

pub(super) fn containers(
    containers: &[Container],
    around: &Around<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if containers.is_empty() {
        errors.required(path, "");
        return;
    }
    let mut seen = HashSet::new();
    for (at, container) in containers.iter().enumerate() {
        let path = path.index(at);
        common(container, around, &path, errors);
        if !seen.insert(container.name.as_str()) {
            errors.duplicate(&path.field("name"), container.name.as_str());
        }
        handlers::lifecycle_and_probes(container, around, &path, errors);
        restart_policy(container, false, &path, errors);
    }
    host_port_conflicts(containers, path, errors);
}

pub(super) fn init_containers(
    containers: &[Container],
    regular: &[Container],
    around: &Around<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let mut seen: HashSet<&str> = regular.iter().map(|it| it.name.as_str()).collect();
    for (at, container) in containers.iter().enumerate() {
        let list = path;
        let path = path.index(at);
        common(container, around, &path, errors);
        restart_policy(container, true, &path, errors);
        let new = container.name.is_empty() && !seen.contains("") || seen.insert(&container.name);
        if !new {
            errors.duplicate(&path.field("name"), container.name.as_str());
        }
        // Init containers run one after another, so only ports within one can collide.
        host_port_conflicts(std::slice::from_ref(container), list, errors);
        if restarts_always(container) {
            handlers::lifecycle_and_probes(container, around, &path, errors);
            continue;
        }
        let set = [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (field, _) in set.into_iter().filter(|(_, set)| *set) {
            errors.forbidden(&path.field(field), ONLY_SIDECARS);
        }
        let policies = path.field("resizePolicy");
        for (at, policy) in container.resize_policy.iter().flatten().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let message =
                    "must not be set to 'RestartContainer' for non-sidecar initContainers";
                let path = policies.index(at);
                errors.invalid(&path.field("restartPolicy"), Json(&policy.restart_policy), message);
            }
        }
    }
}

pub(super) fn ephemeral_containers(
    containers: &[EphemeralContainer],
    spec: &PodSpec,
    around: &Around<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    const NOT_HERE: &str = "cannot be set for an Ephemeral Container";
    let others: HashSet<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|it| it.name.as_str())
        .collect();
    let mut seen = others.clone();
    for (at, ephemeral) in containers.iter().enumerate() {
        let path = path.index(at);
        let container = defaults::as_container(ephemeral);
        common(&container, around, &path, errors);
        only_for_pod(&container, &path, errors);
        if !seen.insert(&ephemeral.name) {
            errors.duplicate(&path.field("name"), ephemeral.name.as_str());
        }
        let target = text(ephemeral.target_container_name.as_ref());
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(&path.field("targetContainerName"), target, "");
        }
        let resources = container
            .resources
            .as_ref()
            .is_some_and(|it| it.claims.is_some() || it.limits.is_some() || it.requests.is_some());
        let set = [
            ("ports", container.ports.is_some()),
            ("resources", resources),
            ("resizePolicy", container.resize_policy.is_some()),
            ("restartPolicy", container.restart_policy.is_some()),
            ("restartPolicyRules", container.restart_policy_rules.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
        ];
        for (field, _) in set.into_iter().filter(|(_, set)| *set) {
            errors.forbidden(&path.field(field), NOT_HERE);
        }
        let mounts = path.field("volumeMounts");
        for (at, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let path = mounts.index(at);
            if !text(mount.sub_path.as_ref()).is_empty() {
                errors.forbidden(&path.field("subPath"), NOT_HERE);
            }
            if !text(mount.sub_path_expr.as_ref()).is_empty() {
                errors.forbidden(&path.field("subPathExpr"), NOT_HERE);
            }
        }
    }
}

/// What only a Pod, and not a template of one, is held to.
pub(super) fn only_for_pod(container: &Container, path: &Path<'_>, errors: &mut Errors) {
    let image = text(container.image.as_ref());
    if image.trim() != image {
        errors.invalid(&path.field("image"), image, "must not have leading or trailing whitespace");
    }
}

/// `validateContainerCommon`.
fn common(container: &Container, around: &Around<'_>, path: &Path<'_>, errors: &mut Errors) {
    let name = path.field("name");
    if container.name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.invalid_all(&name, &container.name, names::dns_label(&container.name));
    }
    if text(container.image.as_ref()).is_empty() {
        errors.required(&path.field("image"), "");
    }
    let policy = path.field("terminationMessagePolicy");
    match text(container.termination_message_policy.as_ref()) {
        "" => errors.required(&policy, ""),
        value => errors.one_of(&policy, value, &["File", "FallbackToLogsOnError"]),
    }
    ports(container.ports.as_deref().unwrap_or(&[]), &path.field("ports"), errors);
    env::env(container.env.as_deref().unwrap_or(&[]), &path.field("env"), errors);
    env::env_from(container.env_from.as_deref().unwrap_or(&[]), &path.field("envFrom"), errors);
    mounts::mounts(container, &around.volumes, path, errors);
    pull_policy(text(container.image_pull_policy.as_ref()), &path.field("imagePullPolicy"), errors);
    if let Some(required) = &container.resources {
        let path = path.field("resources");
        resources::requirements(
            required,
            resources::Level::Container,
            &around.claims,
            &path,
            errors,
        );
    }
    resize_policy(container, around.restart_policy, &path.field("resizePolicy"), errors);
    let context = container.security_context.as_ref();
    security::container(context, around.host_users, &path.field("securityContext"), errors);
}

pub(super) fn pull_policy(policy: &str, path: &Path<'_>, errors: &mut Errors) {
    match policy {
        "" => errors.required(path, ""),
        policy => errors.one_of(path, policy, &PULL_POLICIES),
    }
}

fn ports(ports: &[ContainerPort], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let name = text(port.name.as_ref());
        if !name.is_empty() {
            let messages = names::port_name(name);
            if !messages.is_empty() {
                errors.invalid_all(&path.field("name"), name, messages);
            } else if !seen.insert(name) {
                errors.duplicate(&path.field("name"), name);
            }
        }
        if port.container_port == 0 {
            errors.required(&path.field("containerPort"), "");
        } else if let Some(message) = names::port_number(port.container_port) {
            errors.invalid(&path.field("containerPort"), port.container_port, &message);
        }
        if let Some(host) = port.host_port.filter(|host| *host != 0)
            && let Some(message) = names::port_number(host)
        {
            errors.invalid(&path.field("hostPort"), host, &message);
        }
        match text(port.protocol.as_ref()) {
            "" => errors.required(&path.field("protocol"), ""),
            protocol => errors.one_of(&path.field("protocol"), protocol, &PROTOCOLS),
        }
    }
}

/// Two containers of a pod cannot have the same port of the host.
fn host_port_conflicts(containers: &[Container], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (at, container) in containers.iter().enumerate() {
        let path = path.index(at);
        let path = path.field("ports");
        for (at, port) in container.ports.iter().flatten().enumerate() {
            let Some(host) = port.host_port.filter(|host| *host != 0) else { continue };
            let (protocol, ip) = (text(port.protocol.as_ref()), text(port.host_ip.as_ref()));
            let key = format!("{protocol}/{ip}/{host}");
            if seen.contains(&key) {
                errors.duplicate(&path.index(at).field("hostPort"), key.as_str());
            } else {
                seen.insert(key);
            }
        }
    }
}

fn resize_policy(container: &Container, pod_restarts: &str, path: &Path<'_>, errors: &mut Errors) {
    let policies = container.resize_policy.as_deref().unwrap_or(&[]);
    let mut seen = HashSet::new();
    for (at, policy) in policies.iter().enumerate() {
        let name = policy.resource_name.as_str();
        if !seen.insert(name) {
            errors.duplicate(&path.index(at), Json(name));
        }
        match name {
            "" => errors.required(path, ""),
            name => errors.one_of(path, name, &["cpu", "memory"]),
        }
        match policy.restart_policy.as_str() {
            "" => errors.required(path, ""),
            value => errors.one_of(path, value, &["NotRequired", "RestartContainer"]),
        }
        if pod_restarts == "Never" && policy.restart_policy != "NotRequired" {
            let message = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(path, Json(&policy.restart_policy), message);
        }
    }
}

/// `validateContainerRestartPolicy`. Of an init container without a policy the rules are not looked at.
fn restart_policy(container: &Container, is_init: bool, path: &Path<'_>, errors: &mut Errors) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or(&[]);
    let policy = path.field("restartPolicy");
    match &container.restart_policy {
        Some(value) => errors.one_of(&policy, value, &["Always", "Never", "OnFailure"]),
        None if rules.is_empty() => return,
        None => {
            errors.required(&policy, "must specify restartPolicy when restart rules are used");
            if is_init {
                return;
            }
        }
    }
    let path = path.field("restartPolicyRules");
    if rules.len() > 20 {
        errors.too_many(&path, rules.len(), 20);
    }
    for (at, rule) in rules.iter().enumerate() {
        restart_rule(rule, &path.index(at), errors);
    }
}

fn restart_rule(rule: &ContainerRestartRule, path: &Path<'_>, errors: &mut Errors) {
    errors.one_of(&path.field("action"), &rule.action, &["Restart", "RestartAllContainers"]);
    let codes = path.field("exitCodes");
    let Some(exit_codes) = &rule.exit_codes else {
        errors.required(&codes, "must be specified");
        return;
    };
    errors.one_of(&codes.field("operator"), &exit_codes.operator, &["In", "NotIn"]);
    let values = exit_codes.values.as_ref().map_or(0, Vec::len);
    if values > 255 {
        errors.too_many(&codes.field("values"), values, 255);
    }
}

/// `validatePodHostNetworkDeps`: with the host's network a port is the host's port.
pub(super) fn host_network_ports(
    spec: &PodSpec,
    holder: Holder,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if spec.host_network != Some(true) {
        return;
    }
    let path = path.field("containers");
    for (at, container) in spec.containers.iter().enumerate() {
        let path = path.index(at);
        let path = path.field("ports");
        for (at, port) in container.ports.iter().flatten().enumerate() {
            let host = port.host_port.unwrap_or(0);
            // Of a template's pods it will be filled in.
            let left_out = host == 0 && holder == Holder::Template;
            if host != port.container_port && !left_out {
                let message = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.index(at).field("hostPort"), host, message);
            }
        }
    }
}
