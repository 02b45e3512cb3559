//! Endpoints, which EndpointSlices have followed.
//!
//! Source: `pkg/registry/core/endpoint` and `ValidateEndpoints`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path, names};
use serde_json::Value;

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::Object;
use crate::table;

pub(crate) static ENDPOINTS: Resource = Resource {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    storage: "endpoints",
    // Source: `APILifecycleDeprecated` of the type.
    deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    strategy: &Endpoints,
    ..PLAIN
};

struct Endpoints;

/// Addresses that a table shows.
const SHOWN: usize = 3;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Object) {
        let subsets = object.0.get_mut("subsets").and_then(Value::as_array_mut);
        for subset in subsets.into_iter().flatten() {
            rules::default_protocol(subset);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let path = Path::new("subsets");
        for (at, it) in object.list_at(&["subsets"]).iter().enumerate() {
            subset(it, &path.index(at), &mut errors);
        }
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        // What was taken once is not judged by what has become the rule since.
        let same = rules::top(new, "subsets") == rules::top(old, "subsets");
        if same { Vec::new() } else { self.validate(new) }
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        let mut warnings = Vec::new();
        let path = Path::new("subsets");
        for (at, subset) in object.list_at(&["subsets"]).iter().enumerate() {
            let path = path.index(at);
            for list in ["addresses", "notReadyAddresses"] {
                let path = path.field(list);
                for (at, address) in rules::list(subset, list).iter().enumerate() {
                    let path = path.index(at);
                    let text = rules::text(address, "ip");
                    warnings.extend(rules::address_warning(text, &path.field("ip")));
                }
            }
        }
        warnings
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, column("Endpoints", "string", "Addresses and ports that are ready."), AGE];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), addresses(object).into(), table::age(object, now)]
    }
}

/// Source: `formatEndpoints`.
fn addresses(object: &Object) -> String {
    let subsets = object.list_at(&["subsets"]);
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all: Vec<String> = Vec::new();
    for subset in subsets {
        let addresses = || rules::list(subset, "addresses").iter().map(|it| rules::text(it, "ip"));
        let ports = rules::list(subset, "ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports.iter().map(|port| rules::number(port, "port")) {
            all.extend(addresses().map(|address| match address.contains(':') {
                true => format!("[{address}]:{port}"),
                false => format!("{address}:{port}"),
            }));
        }
    }
    rules::shortened(&all, SHOWN)
}

fn subset(subset: &Value, path: &Path<'_>, errors: &mut Errors) {
    let lists = ["addresses", "notReadyAddresses"].map(|key| (key, rules::list(subset, key)));
    if lists.iter().all(|(_, list)| list.is_empty()) {
        errors.required(path, "must specify `addresses` or `notReadyAddresses`");
    }
    for (key, list) in lists {
        let path = path.field(key);
        for (at, it) in list.iter().enumerate() {
            address(it, &path.index(at), errors);
        }
    }
    let ports = rules::list(subset, "ports");
    let path = path.field("ports");
    for (at, it) in ports.iter().enumerate() {
        port(it, ports.len() > 1, &path.index(at), errors);
    }
}

fn address(address: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ip = rules::text(address, "ip");
    errors.invalid_all(&path.field("ip"), ip, names::address(ip));
    let hostname = rules::text(address, "hostname");
    if !hostname.is_empty() {
        errors.invalid_all(&path.field("hostname"), hostname, names::dns_label(hostname));
    }
    if let Some(node) = rules::at(address, "nodeName").as_str() {
        errors.invalid_all(&path.field("nodeName"), node, names::dns_subdomain(node));
    }
    rules::endpoint_address(ip, &path.field("ip"), errors);
}

fn port(port: &Value, needs_name: bool, path: &Path<'_>, errors: &mut Errors) {
    match rules::text(port, "name") {
        "" if needs_name => errors.required(&path.field("name"), ""),
        "" => {}
        name => errors.invalid_all(&path.field("name"), name, names::dns_label(name)),
    }
    rules::port_number(rules::number(port, "port"), &path.field("port"), errors);
    rules::protocol(port, path, errors);
    rules::app_protocol(port, path, errors);
}
