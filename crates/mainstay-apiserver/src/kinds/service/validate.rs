//! Source: `ValidateServiceCreate`, `ValidateServiceUpdate`, `ValidateServiceStatusUpdate`.

use mainstay_pod::validate::{Errors, FieldError, Json, Path, Shown, as_json, names};
use serde_json::{Value, json};

use super::{NONE, is_headless, needs_health_check, reachable_from_outside};
use crate::kinds::rules;
use crate::object::Object;

/// The longest time that a client keeps its pod, in seconds. Source: `MaxClientIPServiceAffinitySeconds`.
const MAX_AFFINITY: i64 = 86_400;

pub(super) fn service(object: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    whole(object, &mut errors);
    errors.0
}

pub(super) fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    kept_addresses(new, old, &mut errors);
    let spec = Path::new("spec");
    let [class, before] =
        [new, old].map(|it| rules::at(rules::top(it, "spec"), "loadBalancerClass"));
    let balancers = [new, old].iter().all(|it| it.str_at(&["spec", "type"]) == "LoadBalancer");
    if balancers && class != before {
        errors.invalid(&spec.field("loadBalancerClass"), as_json(class), "may not change once set");
    }
    let [port, before] = [new, old].map(|it| it.i64_at(&["spec", "healthCheckNodePort"]));
    if needs_health_check(new) && needs_health_check(old) && port != before {
        errors.forbidden(&spec.field("healthCheckNodePort"), "field is immutable");
    }
    whole(new, &mut errors);
    errors.0
}

pub(super) fn status(object: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::new("status");
    let path = path.field("loadBalancer");
    let path = path.field("ingress");
    let all = object.list_at(&["status", "loadBalancer", "ingress"]);
    if object.str_at(&["spec", "type"]) != "LoadBalancer" {
        if !all.is_empty() {
            errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return errors.0;
    }
    for (at, it) in all.iter().enumerate() {
        ingress(it, &path.index(at), &mut errors);
    }
    errors.0
}

fn ingress(ingress: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (ip, name) = (rules::text(ingress, "ip"), rules::text(ingress, "hostname"));
    if !ip.is_empty() {
        errors.invalid_all(&path.field("ip"), ip, names::address(ip));
    }
    let mode_path = path.field("ipMode");
    match rules::at(ingress, "ipMode").as_str() {
        None if !ip.is_empty() => errors.required(&mode_path, "must be specified when `ip` is set"),
        None => {}
        Some(_) if ip.is_empty() => {
            errors.forbidden(&mode_path, "may not be specified when `ip` is not set");
        }
        Some(mode) => errors.one_of(&mode_path, mode, &["Proxy", "VIP"]),
    }
    if !name.is_empty() {
        let path = path.field("hostname");
        errors.invalid_all(&path, name, names::dns_subdomain(name));
        if name.parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(&path, name, "must be a DNS name, not an IP address");
        }
    }
}

fn whole(object: &Object, errors: &mut Errors) {
    let spec = rules::top(object, "spec");
    let path = Path::new("spec");
    let kind = rules::text(spec, "type");
    let ports = rules::list(spec, "ports");
    if ports.is_empty() && !is_headless(object) && kind != "ExternalName" {
        errors.required(&path.field("ports"), "");
    }
    of_type(object, kind, spec, &path, errors);
    let ports_path = path.field("ports");
    let mut seen: Vec<&str> = Vec::new();
    for (at, it) in ports.iter().enumerate() {
        port(it, ports.len() > 1, &mut seen, &ports_path.index(at), errors);
    }
    rules::labels(rules::at(spec, "selector"), &path.field("selector"), errors);
    affinity(spec, &path, errors);
    addresses(object, &path, errors);
    let externals = path.field("externalIPs");
    for (at, ip) in rules::texts(spec, "externalIPs").into_iter().enumerate() {
        let path = externals.index(at);
        let messages = names::address(ip);
        if messages.is_empty() {
            rules::endpoint_address(ip, &path, errors);
        }
        errors.invalid_all(&path, ip, messages);
    }
    match kind {
        "" => errors.required(&path.field("type"), ""),
        kind => {
            let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
            errors.one_of(&path.field("type"), kind, &kinds);
        }
    }
    repeated_ports(kind, ports, &ports_path, errors);
    balancer(object, kind, spec, &path, errors);
    traffic(object, spec, &path, errors);
}

fn of_type(object: &Object, kind: &str, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(object) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&path.field("clusterIPs").index(0), NONE, &detail);
        }
        "ExternalName" => {
            const DETAIL: &str = "may not be set for ExternalName services";
            for key in ["clusterIPs", "ipFamilies"] {
                if !rules::list(spec, key).is_empty() {
                    errors.forbidden(&path.field(key), DETAIL);
                }
            }
            if !rules::at(spec, "ipFamilyPolicy").is_null() {
                errors.forbidden(&path.field("ipFamilyPolicy"), DETAIL);
            }
            let given = rules::text(spec, "externalName");
            match given.strip_suffix('.').unwrap_or(given) {
                "" => errors.required(&path.field("externalName"), ""),
                name => {
                    errors.invalid_all(
                        &path.field("externalName"),
                        name,
                        names::dns_subdomain(name),
                    );
                }
            }
        }
        _ => {}
    }
}

/// `validateServicePort`.
fn port<'a>(
    port: &'a Value,
    needs_name: bool,
    seen: &mut Vec<&'a str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    match rules::text(port, "name") {
        "" if needs_name => errors.required(&path.field("name"), ""),
        "" => {}
        name => {
            errors.invalid_all(&path.field("name"), name, names::dns_label(name));
            if seen.contains(&name) {
                errors.duplicate(&path.field("name"), name);
            } else {
                seen.push(name);
            }
        }
    }
    rules::port_number(rules::number(port, "port"), &path.field("port"), errors);
    rules::protocol(port, path, errors);
    match rules::at(port, "targetPort") {
        Value::String(name) => {
            errors.invalid_all(&path.field("targetPort"), name, names::port_name(name));
        }
        target => {
            let number = target.as_i64().unwrap_or(0);
            rules::port_number(number, &path.field("targetPort"), errors);
        }
    }
    rules::app_protocol(port, path, errors);
}

fn affinity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let affinity = rules::text(spec, "sessionAffinity");
    match affinity {
        "" => errors.required(&path.field("sessionAffinity"), ""),
        affinity => {
            errors.one_of(&path.field("sessionAffinity"), affinity, &["ClientIP", "None"]);
        }
    }
    let settings = rules::at(spec, "sessionAffinityConfig");
    let path = path.field("sessionAffinityConfig");
    if affinity == "None" && !settings.is_null() {
        errors.forbidden(&path, "must not be set when session affinity is None");
    }
    if affinity == "ClientIP" {
        // Defaults have seen to it that it is there.
        let seconds = rules::number(rules::at(settings, "clientIP"), "timeoutSeconds");
        if !(1..=MAX_AFFINITY).contains(&seconds) {
            let path = path.field("clientIP");
            let detail = format!("must be greater than 0 and less than {MAX_AFFINITY}");
            errors.invalid(&path.field("timeoutSeconds"), seconds, &detail);
        }
    }
}

/// `ValidateServiceClusterIPsRelatedFields`.
pub(super) fn addresses(object: &Object, path: &Path<'_>, errors: &mut Errors) {
    let spec = rules::top(object, "spec");
    if rules::text(spec, "type") == "ExternalName" {
        return;
    }
    let all = rules::texts(spec, "clusterIPs");
    let all_path = path.field("clusterIPs");
    let shown = || Shown(json!(all).to_string());
    match (rules::text(spec, "clusterIP"), all.first()) {
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.invalid(&all_path, shown(), detail);
        }
        ("", None) => {}
        (_, None) => errors.required(&all_path, ""),
        (one, Some(first)) if one != *first => {
            errors.invalid(&all_path, shown(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = rules::texts(spec, "ipFamilies");
    let families_path = path.field("ipFamilies");
    for (at, family) in families.iter().enumerate() {
        errors.one_of(&families_path.index(at), family, &["IPv4", "IPv6"]);
        if families.iter().take(at).any(|other| other == family) {
            errors.duplicate(&families_path.index(at), Json(family));
        }
    }
    if let Some(policy) = rules::at(spec, "ipFamilyPolicy").as_str() {
        let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.one_of(&path.field("ipFamilyPolicy"), policy, &policies);
    }
    let mut bad = false;
    for (at, address) in all.iter().enumerate() {
        if at == 0 && *address == NONE {
            if all.len() > 1 {
                bad = true;
                errors.invalid(&all_path, shown(), "'None' must be the first and only value");
            }
            continue;
        }
        let messages = names::address(address);
        bad |= !messages.is_empty();
        errors.invalid_all(&all_path.index(at), address, messages);
    }
    if all.len() > 2 {
        errors.invalid(&all_path, shown(), "may only hold up to 2 values");
    }
    if bad {
        return;
    }
    if all.len() > 1 && !rules::of_both_families(&all) {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(&all_path, shown(), detail);
    }
    if is_headless(object) {
        return;
    }
    for (at, (address, family)) in all.iter().zip(&families).enumerate() {
        let expected = match (*family, address.contains(':')) {
            ("IPv4", true) => "an IPv4",
            ("IPv6", false) => "an IPv6",
            _ => continue,
        };
        let detail = format!("expected {expected} value as indicated by `ipFamilies[{at}]`");
        errors.invalid(&all_path.index(at), *address, &detail);
    }
}

/// What of addresses and families may not change. Source: `validateUpgradeDowngradeClusterIPs`,
/// `validateUpgradeDowngradeIPFamilies`. A cluster here has one family, so that none is added or taken away.
fn kept_addresses(new: &Object, old: &Object, errors: &mut Errors) {
    if [new, old].iter().any(|it| it.str_at(&["spec", "type"]) == "ExternalName") {
        return;
    }
    let (headless, was_headless) = (is_headless(new), is_headless(old));
    if headless && was_headless {
        return;
    }
    const DETAIL: &str = "may not change once set";
    let path = Path::new("spec");
    let of = |object| rules::top(object, "spec");
    let lists = |key: &'static str| (rules::texts(of(new), key), rules::texts(of(old), key));
    let (after, before) = lists("clusterIPs");
    let all = path.field("clusterIPs");
    let shown = |list: &[&str]| Shown(json!(list).to_string());
    if after.is_empty() && !before.is_empty() {
        errors.invalid(&all.index(0), shown(&after), "primary clusterIP can not be unset");
    }
    for (at, (address, known)) in after.iter().zip(&before).enumerate() {
        if address != known {
            errors.invalid(&all.index(at), shown(&after), DETAIL);
        }
    }
    if headless != was_headless {
        return;
    }
    let (after, before) = lists("ipFamilies");
    let all = path.field("ipFamilies");
    for (family, known) in after.iter().zip(&before) {
        if family != known {
            errors.invalid(&all.index(0), shown(&after), DETAIL);
        }
    }
}

fn repeated_ports(kind: &str, ports: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let node_port = |port| rules::number(port, "nodePort");
    if kind == "ClusterIP" {
        for (at, _) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.forbidden(&path.index(at).field("nodePort"), detail);
        }
    }
    let key = |port: &Value, number: i64| (rules::text(port, "protocol").to_owned(), number);
    for (at, port) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
        let mut before = ports.iter().take(at);
        if before.any(|it| key(it, node_port(it)) == key(port, node_port(port))) {
            errors.duplicate(&path.index(at).field("nodePort"), node_port(port));
        }
    }
    for (at, port) in ports.iter().enumerate() {
        let number = |port| rules::number(port, "port");
        let mut before = ports.iter().take(at);
        if before.any(|it| key(it, number(it)) == key(port, number(port))) {
            // What Kubernetes compares is a port of its own with two fields set.
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                json!(rules::text(port, "protocol")),
                number(port)
            );
            errors.duplicate(&path.index(at), Shown(shown));
        }
    }
}

fn balancer(object: &Object, kind: &str, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str = "may only be used when `type` is 'LoadBalancer'";
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let other = kind != "LoadBalancer";
    let ranges = rules::texts(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // Kubernetes spells it as Go does.
        let path = path.field("LoadBalancerSourceRanges");
        if other {
            errors.forbidden(&path, DETAIL);
        }
        for (at, range) in ranges.into_iter().enumerate() {
            errors.invalid_all(&path.index(at), range.trim(), rules::network(range.trim()));
        }
    } else if let Some(text) = object.annotation(RANGES) {
        let path = Path::new("metadata");
        let path = path.field("annotations");
        let path = path.key(RANGES);
        if other {
            errors.forbidden(&path, DETAIL);
        }
        for range in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            errors.invalid_all(&path, range, rules::network(range));
        }
    }
    if other && !rules::at(spec, "allocateLoadBalancerNodePorts").is_null() {
        errors.forbidden(&path.field("allocateLoadBalancerNodePorts"), DETAIL);
    }
    if let Some(class) = rules::at(spec, "loadBalancerClass").as_str() {
        let path = path.field("loadBalancerClass");
        match other {
            true => errors.forbidden(&path, DETAIL),
            false => errors.invalid_all(&path, class, names::label_key(class)),
        }
    }
}

fn traffic(object: &Object, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let policies = ["Cluster", "Local"];
    let outside = rules::text(spec, "externalTrafficPolicy");
    let outside_path = path.field("externalTrafficPolicy");
    match (reachable_from_outside(object), outside) {
        (false, "") => {}
        (false, policy) => {
            let detail = "may only be set for externally-accessible services";
            errors.invalid(&outside_path, Json(policy), detail);
        }
        (true, "") => errors.required(&outside_path, ""),
        (true, policy) => errors.one_of(&outside_path, policy, &policies),
    }
    let port = rules::number(spec, "healthCheckNodePort");
    let port_path = path.field("healthCheckNodePort");
    match (needs_health_check(object), port) {
        (false, 0) => {}
        (false, port) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&port_path, port, detail);
        }
        (true, 0) => errors.required(&port_path, ""),
        (true, port) => rules::port_number(port, &port_path, errors),
    }
    if let Some(policy) = rules::at(spec, "internalTrafficPolicy").as_str() {
        errors.one_of(&path.field("internalTrafficPolicy"), policy, &policies);
    }
    if let Some(distribution) = rules::at(spec, "trafficDistribution").as_str() {
        let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.one_of(&path.field("trafficDistribution"), distribution, &known);
    }
}
