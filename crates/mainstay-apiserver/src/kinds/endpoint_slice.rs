//! EndpointSlices.
//!
//! Source: `pkg/registry/discovery/endpointslice` and `ValidateEndpointSlice`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path, names};
use serde_json::{Value, json};

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::Object;
use crate::table;

pub(crate) static ENDPOINT_SLICES: Resource = Resource {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    storage: "endpointslices.discovery.k8s.io",
    strategy: &EndpointSlices,
    ..PLAIN
};

struct EndpointSlices;

const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_ENDPOINTS: usize = 1000;
const MAX_HINTS: usize = 8;

/// Items that a table shows.
const SHOWN: usize = 3;

impl Strategy for EndpointSlices {
    fn has_generation(&self) -> bool {
        true
    }

    fn next_generation(&self, new: &Object, old: &Object) -> bool {
        let labels = ["metadata", "labels"];
        let [after, before] =
            [new, old].map(|it| it.0.iter().filter(|(key, _)| *key != "metadata"));
        after.ne(before) || new.at(&labels) != old.at(&labels)
    }

    fn default(&self, object: &mut Object) {
        // Source: `SetDefaults_EndpointPort`.
        let ports = object.0.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
            port.entry("name").or_insert_with(|| "".into());
            port.entry("protocol").or_insert_with(|| "TCP".into());
        }
        let endpoints = object.0.entry("endpoints").or_insert(Value::Null);
        for endpoint in
            endpoints.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut)
        {
            endpoint.entry("conditions").or_insert_with(|| json!({}));
        }
        // An empty list and none are the same to Go here.
        for key in ["endpoints", "ports"] {
            let value = object.0.entry(key).or_insert(Value::Null);
            if value.as_array().is_some_and(Vec::is_empty) {
                *value = Value::Null;
            }
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        drop_topology(object);
    }

    fn prepare_update(&self, new: &mut Object, _old: &Object) {
        drop_topology(new);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let path = Path::new("addressType");
        let kind = object.str_at(&["addressType"]);
        match kind {
            "" => errors.required(&path, ""),
            kind => errors.one_of(&path, kind, &["FQDN", "IPv4", "IPv6"]),
        }
        ports(object.list_at(&["ports"]), &mut errors);
        endpoints(object.list_at(&["endpoints"]), kind, &mut errors);
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors(self.validate(new));
        let [new, old] = [new, old].map(|it| rules::top(it, "addressType"));
        rules::immutable(new, old, &Path::new("addressType"), &mut errors);
        errors.0
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        let mut warnings = Vec::new();
        if object.str_at(&["addressType"]) == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        let path = Path::new("endpoints");
        for (at, endpoint) in object.list_at(&["endpoints"]).iter().enumerate() {
            let path = path.index(at);
            let path = path.field("addresses");
            for (at, address) in rules::texts(endpoint, "addresses").into_iter().enumerate() {
                warnings.extend(rules::address_warning(address, &path.index(at)));
            }
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("AddressType", "string", "What its addresses are."),
            column("Ports", "string", "Its ports."),
            column("Endpoints", "string", "Its addresses."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let ports = object.list_at(&["ports"]).iter();
        let ports: Vec<String> = ports
            .map(|port| match rules::at(port, "port").as_i64() {
                Some(number) => number.to_string(),
                None => rules::text(port, "name").to_owned(),
            })
            .collect();
        let endpoints = object.list_at(&["endpoints"]).iter();
        let addresses: Vec<String> =
            endpoints.flat_map(|it| rules::texts(it, "addresses")).map(str::to_owned).collect();
        let shown = |list: &[String]| match rules::shortened(list, SHOWN) {
            text if text.is_empty() => Value::from("<unset>"),
            text => text.into(),
        };
        vec![
            object.name().into(),
            object.str_at(&["addressType"]).into(),
            shown(&ports),
            shown(&addresses),
            table::age(object, now),
        ]
    }
}

/// What this version of the API does not take. Source: `dropTopologyOnV1`.
fn drop_topology(object: &mut Object) {
    let endpoints = object.0.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_object_mut) {
        endpoint.remove("deprecatedTopology");
    }
}

fn ports(ports: &[Value], errors: &mut Errors) {
    let path = Path::new("ports");
    if ports.len() > MAX_PORTS {
        errors.too_many(&path, ports.len(), MAX_PORTS);
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let name = rules::text(port, "name");
        if !name.is_empty() {
            errors.invalid_all(&path.field("name"), name, names::dns_label(name));
        }
        if seen.contains(&name) {
            errors.duplicate(&path.field("name"), name);
        } else {
            seen.push(name);
        }
        rules::protocol(port, &path, errors);
        rules::app_protocol(port, &path, errors);
    }
}

fn endpoints(endpoints: &[Value], kind: &str, errors: &mut Errors) {
    let path = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.too_many(&path, endpoints.len(), MAX_ENDPOINTS);
        return;
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(at);
        addresses(&rules::texts(endpoint, "addresses"), kind, &path.field("addresses"), errors);
        if let Some(node) = rules::at(endpoint, "nodeName").as_str() {
            errors.invalid_all(&path.field("nodeName"), node, names::dns_subdomain(node));
        }
        if let Some(name) = rules::at(endpoint, "hostname").as_str() {
            errors.invalid_all(&path.field("hostname"), name, names::dns_label(name));
        }
        hints(rules::at(endpoint, "hints"), &path.field("hints"), errors);
    }
}

fn addresses(addresses: &[&str], kind: &str, path: &Path<'_>, errors: &mut Errors) {
    if addresses.is_empty() {
        errors.required(path, "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        errors.too_many(path, addresses.len(), MAX_ADDRESSES);
    }
    for (at, address) in addresses.iter().enumerate() {
        let item = path.index(at);
        let messages = match kind {
            "IPv4" => names::address(address),
            "IPv6" => rules::strict_address(address),
            "FQDN" => {
                errors.invalid_all(&item, address, rules::domain(address));
                continue;
            }
            _ => continue,
        };
        if !messages.is_empty() {
            errors.invalid_all(&item, address, messages);
            continue;
        }
        if address.contains(':') != (kind == "IPv6") {
            errors.invalid(path, *address, &format!("must be an {kind} address"));
        }
        rules::endpoint_address(address, &item, errors);
    }
}

fn hints(hints: &Value, path: &Path<'_>, errors: &mut Errors) {
    type Rule = fn(&str) -> Vec<String>;
    let lists: [(&str, Rule); 2] =
        [("forZones", names::label_value), ("forNodes", names::dns_subdomain)];
    for (key, rule) in lists {
        let path = path.field(key);
        let list = rules::list(hints, key);
        if list.len() > MAX_HINTS {
            errors.too_many(&path, list.len(), MAX_HINTS);
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        for (at, hint) in list.iter().enumerate() {
            let path = path.index(at);
            let name = rules::text(hint, "name");
            if seen.contains(&name) {
                errors.duplicate(&path.field("name"), name);
            } else {
                seen.push(name);
            }
            errors.invalid_all(&path.field("name"), name, rule(name));
        }
    }
}
