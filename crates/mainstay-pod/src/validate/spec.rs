//! The spec of a pod: `ValidatePodSpec`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::container::Around;
use super::{
    Errors, Shown, affinity, as_json, container, env, metadata, names, os, pod_level, resources,
    scheduling, security, text, visit_containers, volumes,
};
use crate::path::Path;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_TEXT: usize = 2048;

/// The longest host name that Linux takes, in bytes.
const HOSTNAME_MAX: usize = 64;

/// What has the spec.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Holder {
    Pod,
    Template,
}

pub(super) fn spec(
    spec: &PodSpec,
    meta: &ObjectMeta,
    holder: Holder,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&path.field("terminationGracePeriodSeconds"), "");
    }
    let valid = volumes::volumes(
        spec.volumes.as_deref().unwrap_or(&[]),
        text(meta.name.as_ref()),
        &path.field("volumes"),
        errors,
    );
    let pod_claims = spec.resource_claims.as_deref().unwrap_or(&[]);
    let claims: BTreeSet<&str> =
        pod_claims.iter().map(|it| it.name.as_str()).filter(|name| !name.is_empty()).collect();
    pod_level::claims(pod_claims, meta, &path.field("resourceClaims"), errors);
    let restart_policy = text(spec.restart_policy.as_ref());
    let around = Around {
        volumes: valid,
        claims: claims.clone(),
        grace_period: spec.termination_grace_period_seconds,
        restart_policy,
        host_users: spec.host_users.unwrap_or(true),
        os: spec.os.as_ref().map(|os| os.name.as_str()),
    };
    let init = spec.init_containers.as_deref().unwrap_or(&[]);
    let ephemeral = spec.ephemeral_containers.as_deref().unwrap_or(&[]);
    container::containers(&spec.containers, &around, &path.field("containers"), errors);
    container::init_containers(
        init,
        &spec.containers,
        &around,
        &path.field("initContainers"),
        errors,
    );
    container::ephemeral_containers(
        ephemeral,
        spec,
        &around,
        &path.field("ephemeralContainers"),
        errors,
    );
    pod_level::resources(spec, &claims, path, errors);
    container::host_network_ports(spec, holder, path, errors);
    policies(spec, restart_policy, path, errors);
    metadata::labels(spec.node_selector.as_ref(), &path.field("nodeSelector"), errors);
    security::pod(spec, &path.field("securityContext"), errors);
    affinity::affinity(spec.affinity.as_ref(), &path.field("affinity"), errors);
    dns_config(spec, &path.field("dnsConfig"), errors);
    gates(spec, path, errors);
    scheduling::topology_spread(
        spec.topology_spread_constraints.as_deref().unwrap_or(&[]),
        &path.field("topologySpreadConstraints"),
        errors,
    );
    os::host_process(spec, path, errors);
    host_users(spec, path, errors);
    hostname_override(spec, path, errors);
    plain_fields(spec, path, errors);
    os::os(spec, path, errors);
    scheduling_group(spec, &path.field("schedulingGroup"), errors);
    env::file_key_volumes(spec, path, errors);
}

fn policies(spec: &PodSpec, restart_policy: &str, path: &Path<'_>, errors: &mut Errors) {
    let enumerations: [(&str, &str, &[&str]); 2] = [
        ("restartPolicy", restart_policy, &["Always", "OnFailure", "Never"]),
        (
            "dnsPolicy",
            text(spec.dns_policy.as_ref()),
            &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        ),
    ];
    for (field, value, supported) in enumerations {
        match value {
            "" => errors.required(&path.field(field), ""),
            value => errors.one_of(&path.field(field), value, supported),
        }
    }
}

/// Fields that stand for themselves.
fn plain_fields(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    type Rule = fn(&str) -> Vec<String>;
    let names: [(&str, Option<&String>, Rule); 5] = [
        ("serviceAccountName", spec.service_account_name.as_ref(), names::dns_subdomain),
        ("nodeName", spec.node_name.as_ref(), names::dns_subdomain),
        ("hostname", spec.hostname.as_ref(), names::dns_label),
        ("subdomain", spec.subdomain.as_ref(), names::dns_label),
        ("priorityClassName", spec.priority_class_name.as_ref(), names::dns_subdomain),
    ];
    for (field, value, rule) in names {
        let value = text(value);
        if !value.is_empty() {
            errors.invalid_all(&path.field(field), value, rule(value));
        }
    }
    if let Some(deadline) = spec.active_deadline_seconds {
        let max = i64::from(i32::MAX);
        if !(1..=max).contains(&deadline) {
            let message = names::between(1, max);
            errors.invalid(&path.field("activeDeadlineSeconds"), deadline, &message);
        }
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or(&[]);
    scheduling::tolerations(tolerations, &path.field("tolerations"), errors);
    let aliases = path.field("hostAliases");
    for (at, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = aliases.index(at);
        errors.invalid_all(&path.field("ip"), &alias.ip, names::address(&alias.ip));
        let path = path.field("hostnames");
        for (at, name) in alias.hostnames.iter().flatten().enumerate() {
            errors.invalid_all(&path.index(at), name, names::dns_subdomain(name));
        }
    }
    if let Some(class) = &spec.runtime_class_name {
        errors.invalid_all(&path.field("runtimeClassName"), class, names::dns_subdomain(class));
    }
    if let Some(policy) = &spec.preemption_policy {
        let path = path.field("preemptionPolicy");
        match policy.as_str() {
            "" => errors.required(&path, ""),
            policy => errors.one_of(&path, policy, &["PreemptLowerPriority", "Never"]),
        }
    }
    if let Some(overhead) = &spec.overhead {
        let required = k8s_openapi::api::core::v1::ResourceRequirements {
            limits: Some(overhead.clone()),
            ..Default::default()
        };
        let none = BTreeSet::new();
        let path = path.field("overhead");
        resources::requirements(&required, resources::Level::Container, &none, &path, errors);
    }
}

fn dns_config(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let config = spec.dns_config.as_ref();
    let empty = PodDNSConfig::default();
    let given = config.unwrap_or(&empty);
    let nameservers = given.nameservers.as_deref().unwrap_or(&[]);
    if spec.dns_policy.as_deref() == Some("None") {
        if config.is_none() {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if nameservers.is_empty() {
            let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&path.field("nameservers"), message);
            return;
        }
    }
    let servers = path.field("nameservers");
    if nameservers.len() > MAX_NAMESERVERS {
        let message = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.invalid(&servers, as_json(&nameservers), &message);
    }
    for (at, server) in nameservers.iter().enumerate() {
        errors.invalid_all(&servers.index(at), server, names::address(server));
    }
    let searches = given.searches.as_deref().unwrap_or(&[]);
    let search_path = path.field("searches");
    if searches.len() > MAX_SEARCHES {
        let message = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(&search_path, as_json(&searches), &message);
    }
    if searches.join(" ").len() > MAX_SEARCH_TEXT {
        let message = format!(
            "must not have more than {MAX_SEARCH_TEXT} characters (including spaces) in the search list"
        );
        errors.invalid(&search_path, as_json(&searches), &message);
    }
    for (at, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.invalid_all(
            &search_path.index(at),
            search,
            names::dns_subdomain_with_underscore(search),
        );
    }
    let options = path.field("options");
    for (at, option) in given.options.iter().flatten().enumerate() {
        if text(option.name.as_ref()).is_empty() {
            errors.required(&options.index(at), "must not be empty");
        }
    }
}

fn gates(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let readiness = path.field("readinessGates");
    for (at, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = readiness.index(at);
        let condition = &gate.condition_type;
        errors.invalid_all(&path.field("conditionType"), condition, names::label_key(condition));
    }
    let scheduling = path.field("schedulingGates");
    let mut seen = BTreeSet::new();
    for (at, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = scheduling.index(at);
        errors.invalid_all(&path, &gate.name, names::label_key(&gate.name));
        if !seen.insert(gate.name.as_str()) {
            errors.duplicate(&path, gate.name.as_str());
        }
    }
}

/// `validateHostUsers`: a pod with users of its own shares no other namespace with the host.
fn host_users(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    const WHEN: &str = "when `hostUsers` is false";
    if spec.host_users != Some(false) {
        return;
    }
    // Kubernetes spells two of the three as Go does.
    let shared = [
        ("hostNetwork", spec.host_network),
        ("HostPID", spec.host_pid),
        ("HostIPC", spec.host_ipc),
    ];
    for (field, _) in shared.into_iter().filter(|(_, shared)| *shared == Some(true)) {
        errors.forbidden(&path.field(field), WHEN);
    }
    visit_containers(spec, path, |container, path| {
        if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
            errors.forbidden(&path.field("volumeDevices"), WHEN);
        }
    });
}

/// `validatePodHostName`.
fn hostname_override(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let Some(name) = &spec.hostname_override else { return };
    let path = path.field("hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > HOSTNAME_MAX {
        errors.too_long(&path, HOSTNAME_MAX);
    }
    errors.invalid_all(&path, name, names::dns_subdomain(name));
}

fn scheduling_group(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let Some(group) = &spec.scheduling_group else { return };
    let path = path.field("podGroupName");
    match &group.pod_group_name {
        None => {
            errors.invalid(&path, Shown("null".to_owned()), "must specify one of: `podGroupName`");
        }
        Some(name) => errors.invalid_all(&path, name, names::dns_subdomain(name)),
    }
}
