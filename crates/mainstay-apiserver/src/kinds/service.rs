//! Services, as objects: an address that nothing serves is an address still.
//!
//! Source: `pkg/registry/core/service`.

pub(crate) mod allocate;
mod validate;

use std::borrow::Cow;

use jiff::Timestamp;
use mainstay_pod::validate::{FieldError, Path, names};
use serde_json::{Map, Value, json};

use super::rules;
use crate::kind::{self, AGE, Column, NAME, PLAIN, Resource, Strategy, column, wide};
use crate::object::{self, Object};
use crate::table;

pub(crate) static SERVICES: Resource = Resource {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[kind::proxy("ServiceProxyOptions"), kind::status("Service")],
    storage: "services",
    strategy: &Services,
    ..PLAIN
};

struct Services;

/// Seconds that a client keeps its pod for, if nobody says otherwise. Source:
/// `DefaultClientIPServiceAffinitySeconds`.
const AFFINITY_SECONDS: i64 = 10_800;

/// What `clusterIP` is of a Service without an address.
const NONE: &str = "None";

impl Strategy for Services {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    /// Source: `SetDefaults_Service`.
    fn default(&self, object: &mut Object) {
        let outside = reachable_from_outside(object);
        let spec = object.field_mut("spec");
        rules::default_text(spec, "sessionAffinity", "None");
        rules::default_text(spec, "type", "ClusterIP");
        affinity_settings(spec);
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let number = rules::number(port, "port");
            let Some(port) = port.as_object_mut() else { continue };
            rules::default_text(port, "protocol", "TCP");
            let target = port.entry("targetPort").or_insert(Value::Null);
            if matches!(target, Value::Null) || *target == 0 || *target == "" {
                *target = number.into();
            }
        }
        if outside {
            rules::default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
            spec.entry("internalTrafficPolicy").or_insert_with(|| "Cluster".into());
        }
        if kind == "LoadBalancer" {
            spec.entry("allocateLoadBalancerNodePorts").or_insert_with(|| true.into());
            let balancer = object::object_of(object.field_mut("status"), "loadBalancer");
            let ingress = balancer.get_mut("ingress").and_then(Value::as_array_mut);
            for ingress in ingress.into_iter().flatten().filter_map(Value::as_object_mut) {
                if ingress.get("ip").and_then(Value::as_str).is_some_and(|ip| !ip.is_empty()) {
                    ingress.entry("ipMode").or_insert_with(|| "VIP".into());
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({ "loadBalancer": {} }));
    }

    fn prepare_update(&self, new: &mut Object, old: &Object) {
        drop_what_the_type_has_not(new, old);
    }

    fn name_errors(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        validate::service(object)
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        validate::update(new, old)
    }

    fn validate_status(&self, new: &Object, _old: &Object) -> Vec<FieldError> {
        validate::status(new)
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        warnings(object)
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn field<'a>(&self, object: &'a Object, field: &str) -> Cow<'a, str> {
        let key = field.strip_prefix("spec.").unwrap_or_default();
        object.str_at(&["spec", key]).into()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Type", "string", "How it can be reached."),
            column("Cluster-IP", "string", "Its address inside the cluster."),
            column("External-IP", "string", "Its addresses outside."),
            column("Port(s)", "string", "Its ports, and those of the nodes."),
            AGE,
            wide("Selector", "string", "The labels of its pods."),
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let inside = rules::texts(rules::top(object, "spec"), "clusterIPs");
        vec![
            object.name().into(),
            object.str_at(&["spec", "type"]).into(),
            table::or_none(inside.first().unwrap_or(&"")),
            outside(object).into(),
            table::or_none(&ports(object)),
            table::age(object, now),
            table::pairs(object.at(&["spec", "selector"])).into(),
        ]
    }
}

fn affinity_settings(spec: &mut Map<String, Value>) {
    match spec.get("sessionAffinity").and_then(Value::as_str) {
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        Some("ClientIP") => {
            let given = spec
                .get("sessionAffinityConfig")
                .and_then(|it| it.pointer("/clientIP/timeoutSeconds"));
            if given.is_none_or(Value::is_null) {
                let settings = json!({ "clientIP": { "timeoutSeconds": AFFINITY_SECONDS } });
                spec.insert("sessionAffinityConfig".into(), settings);
            }
        }
        _ => {}
    }
}

/// Whether traffic from outside comes in. Source: `ExternallyAccessible`.
fn reachable_from_outside(object: &Object) -> bool {
    let spec = rules::top(object, "spec");
    match rules::text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" | "" => !rules::list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether a load balancer has to ask the nodes. Source: `NeedsHealthCheck`.
fn needs_health_check(object: &Object) -> bool {
    object.str_at(&["spec", "type"]) == "LoadBalancer"
        && object.str_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

/// Whether the spec says that there is no address. Source: `isHeadlessService` of the validation.
fn is_headless(object: &Object) -> bool {
    rules::texts(rules::top(object, "spec"), "clusterIPs") == [NONE]
}

fn needs_address(object: &Object) -> bool {
    object.str_at(&["spec", "type"]) != "ExternalName"
}

fn needs_node_ports(object: &Object) -> bool {
    matches!(object.str_at(&["spec", "type"]), "NodePort" | "LoadBalancer")
}

/// Who changes the type of a Service takes away what only the old type had, unless he has changed it
/// too. Source: `dropTypeDependentFields`.
fn drop_what_the_type_has_not(new: &mut Object, old: &Object) {
    let same = |new: &Object, key: &str| new.at(&["spec", key]) == old.at(&["spec", key]);
    let is_balancer = |object: &Object| object.str_at(&["spec", "type"]) == "LoadBalancer";
    let mut drop: Vec<&str> = Vec::new();
    if needs_address(old) && !needs_address(new) {
        if same(new, "clusterIP") && same(new, "clusterIPs") {
            drop.extend(["clusterIP", "clusterIPs"]);
        }
        drop.extend(["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|key| same(new, key)));
    }
    if needs_health_check(old) && !needs_health_check(new) && same(new, "healthCheckNodePort") {
        drop.push("healthCheckNodePort");
    }
    if is_balancer(old) && !is_balancer(new) {
        let keys = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];
        drop.extend(keys.into_iter().filter(|key| same(new, key)));
    }
    if reachable_from_outside(old)
        && !reachable_from_outside(new)
        && same(new, "externalTrafficPolicy")
    {
        drop.push("externalTrafficPolicy");
    }
    let no_ports = needs_node_ports(old)
        && !needs_node_ports(new)
        && node_ports(new).iter().all(|port| node_ports(old).contains(port));
    if !is_balancer(new) {
        new.0.insert("status".into(), without_balancer(rules::top(new, "status")));
    }
    if new.str_at(&["spec", "type"]) == "ExternalName" {
        drop.push("internalTrafficPolicy");
    }
    let spec = new.field_mut("spec");
    for key in drop {
        spec.remove(key);
    }
    if no_ports {
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
        for port in ports.filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
    }
}

fn without_balancer(status: &Value) -> Value {
    let mut status = status.as_object().cloned().unwrap_or_default();
    status.insert("loadBalancer".into(), json!({}));
    Value::Object(status)
}

fn node_ports(object: &Object) -> Vec<i64> {
    let ports = object.list_at(&["spec", "ports"]).iter();
    ports.map(|port| rules::number(port, "nodePort")).filter(|port| *port != 0).collect()
}

/// Source: `getServiceExternalIP`.
fn outside(object: &Object) -> String {
    let spec = rules::top(object, "spec");
    let mut addresses = Vec::new();
    let kind = rules::text(spec, "type");
    if kind == "LoadBalancer" {
        let ingress = object.list_at(&["status", "loadBalancer", "ingress"]).iter();
        addresses = ingress
            .map(|it| match rules::text(it, "ip") {
                "" => rules::text(it, "hostname"),
                ip => ip,
            })
            .filter(|text| !text.is_empty())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
    }
    addresses.extend(rules::texts(spec, "externalIPs"));
    match (kind, addresses.is_empty()) {
        ("ExternalName", _) => rules::text(spec, "externalName").to_owned(),
        ("LoadBalancer", true) => "<pending>".to_owned(),
        (_, true) => "<none>".to_owned(),
        _ => addresses.join(","),
    }
}

/// Source: `makePortString`.
fn ports(object: &Object) -> String {
    let ports = object.list_at(&["spec", "ports"]).iter();
    let texts: Vec<String> = ports
        .map(|port| {
            let (number, protocol) = (rules::number(port, "port"), rules::text(port, "protocol"));
            match rules::number(port, "nodePort") {
                0 => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    texts.join(",")
}

/// Source: `GetWarningsForService`.
fn warnings(object: &Object) -> Vec<String> {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let spec = rules::top(object, "spec");
    let kind = rules::text(spec, "type");
    let mut warnings = Vec::new();
    if object.annotation(HINTS).is_some() {
        warnings.push(format!(
            "annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    let spec_path = Path::new("spec");
    let addresses = |key: &str, warnings: &mut Vec<String>| {
        let path = spec_path.field(key);
        for (at, address) in rules::texts(spec, key).into_iter().enumerate() {
            warnings.extend(rules::address_warning(address, &path.index(at)));
        }
    };
    let headless = kind == "ClusterIP" && rules::text(spec, "clusterIP") == NONE;
    if !headless {
        addresses("clusterIPs", &mut warnings);
    }
    let external = !rules::list(spec, "externalIPs").is_empty();
    if headless {
        if !rules::text(spec, "loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if external {
            warnings.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if rules::text(spec, "sessionAffinity") != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    addresses("externalIPs", &mut warnings);
    if external && !headless && kind != "ExternalName" {
        warnings.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                .to_owned(),
        );
    }
    if kind == "ExternalName" && external {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !rules::text(spec, "externalName").is_empty() {
        warnings
            .push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if rules::text(spec, "trafficDistribution") == "PreferClose" {
        warnings.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
                .to_owned(),
        );
    }
    warnings
}
