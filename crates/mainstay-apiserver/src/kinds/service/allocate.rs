//! The addresses and ports that a Service is given.
//!
//! Source: `pkg/registry/core/service/storage/{storage,alloc}.go`. A cluster has IPv4 addresses for
//! Services and no others.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use mainstay_pod::validate::{Errors, FieldError, Path, Shown, as_json};
use serde_json::{Map, Value, json};

use super::{NONE, needs_address, needs_health_check, needs_node_ports, validate};
use crate::kinds::rules;
use crate::object::Object;

/// The ports of nodes that Services get. Source: `DefaultServiceNodePortRange`.
const FIRST_NODE_PORT: i64 = 30_000;
const LAST_NODE_PORT: i64 = 32_767;

/// How often a random choice that is taken is made again before all are looked through.
const TRIES: usize = 100;

/// The addresses that Services get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ServiceRange {
    base: Ipv4Addr,
    length: u8,
}

impl Default for ServiceRange {
    /// What `kubeadm` sets up clusters with.
    fn default() -> Self {
        Self { base: Ipv4Addr::new(10, 96, 0, 0), length: 12 }
    }
}

impl ServiceRange {
    /// The first address, which the API's own Service has.
    pub(crate) fn first(self) -> Ipv4Addr {
        self.nth(1)
    }

    fn size(self) -> u32 {
        u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0).saturating_add(1)
    }

    fn nth(self, at: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(at))
    }

    /// Neither the network's own address nor the one for all is given.
    fn contains(self, address: Ipv4Addr) -> bool {
        let at = u32::from(address).wrapping_sub(u32::from(self.base));
        at >= 1 && at < self.size() - 1
    }
}

impl std::fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

/// What other Services have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<i64>,
}

impl Taken {
    /// What these Services have, but for the one that is being written.
    pub(crate) fn by(services: &[Object], but: &Object) -> Self {
        let mut taken = Self::default();
        let others = services
            .iter()
            .filter(|it| (it.namespace(), it.name()) != (but.namespace(), but.name()));
        for service in others {
            let addresses = rules::texts(rules::top(service, "spec"), "clusterIPs");
            taken.addresses.extend(addresses.iter().filter_map(|it| it.parse::<Ipv4Addr>().ok()));
            taken.ports.extend(super::node_ports(service));
            taken.ports.extend(Some(health_port(service)).filter(|port| *port != 0));
        }
        taken
    }
}

/// Why a Service cannot have what it wants.
#[derive(Debug, PartialEq)]
pub(crate) enum Refused {
    /// Fields are wrong.
    Fields(Vec<FieldError>),
    /// Nothing is left to give.
    Full(String),
}

/// Chooses a number below a bound; random but in tests.
pub(crate) type Choose<'a> = &'a mut dyn FnMut(u32) -> u32;

/// Gives a Service what it lacks: an address, families, node ports. What it has already it keeps.
///
/// # Errors
///
/// When it asks for what is taken or is not to be had.
pub(crate) fn allocate(
    new: &mut Object,
    old: Option<&Object>,
    range: ServiceRange,
    mut taken: Taken,
    choose: Choose<'_>,
) -> Result<(), Refused> {
    if let Some(old) = old {
        keep(new, old);
    }
    one_and_all(new, old);
    families(new, old)?;
    addresses(new, old, range, &mut taken, choose)?;
    node_ports(new, old, &mut taken, choose)
}

/// Who leaves out what was given keeps it. Source: `patchAllocatedValues`.
fn keep(new: &mut Object, old: &Object) {
    let spec = rules::top(old, "spec");
    if needs_address(new) && needs_address(old) {
        let fields = new.field_mut("spec");
        if is_empty(fields, "clusterIP") {
            put(fields, "clusterIP", rules::at(spec, "clusterIP"));
        }
        if is_empty(fields, "clusterIPs") {
            put(fields, "clusterIPs", rules::at(spec, "clusterIPs"));
        }
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        let given = super::node_ports(new);
        let before = rules::list(spec, "ports");
        let ports = new.field_mut("spec").get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            let name = rules::text(port, "name").to_owned();
            let known = before.iter().rfind(|it| rules::text(it, "name") == name);
            let known = known.map_or(0, |it| rules::number(it, "nodePort"));
            if rules::number(port, "nodePort") == 0 && known != 0 && !given.contains(&known) {
                set_node_port(port, known);
            }
        }
    }
    if needs_health_check(new) && needs_health_check(old) && health_port(new) == 0 {
        let port = health_port(old);
        new.field_mut("spec").insert("healthCheckNodePort".into(), port.into());
    }
}

/// `clusterIP` and `clusterIPs` say the same. Source: `normalizeClusterIPs`.
fn one_and_all(new: &mut Object, old: Option<&Object>) {
    let one = new.str_at(&["spec", "clusterIP"]).to_owned();
    let all = rules::at(rules::top(new, "spec"), "clusterIPs").clone();
    let is_none = rules::texts(rules::top(new, "spec"), "clusterIPs").is_empty();
    let spec = new.field_mut("spec");
    match old {
        None if is_none && !one.is_empty() => {
            spec.insert("clusterIPs".into(), json!([one]));
        }
        None => {}
        Some(old) => {
            let before = rules::top(old, "spec");
            let same_list = all == *rules::at(before, "clusterIPs");
            match (rules::text(before, "clusterIP"), one.as_str()) {
                (known, one) if known == one => {}
                (_, "") if same_list => {
                    spec.remove("clusterIPs");
                }
                (_, "") => {}
                (_, one) if same_list => {
                    spec.insert("clusterIPs".into(), json!([one]));
                }
                _ => {}
            }
        }
    }
}

/// Source: `initIPFamilyFields`, for a cluster of IPv4 alone.
fn families(new: &mut Object, old: Option<&Object>) -> Result<(), Refused> {
    if !needs_address(new) {
        return Ok(());
    }
    let spec = rules::top(new, "spec");
    let headless = rules::text(spec, "clusterIP") == NONE;
    let no_selector = rules::at(spec, "selector").as_object().is_none_or(Map::is_empty);
    if rules::at(spec, "ipFamilyPolicy").is_null() {
        let before = old.and_then(|old| old.at(&["spec", "ipFamilyPolicy"])).cloned();
        let policy = before.filter(|it| !it.is_null()).unwrap_or_else(|| {
            if headless && no_selector { "RequireDualStack".into() } else { "SingleStack".into() }
        });
        new.field_mut("spec").insert("ipFamilyPolicy".into(), policy);
    }
    let mut errors = Errors::default();
    let path = Path::new("spec");
    validate::addresses(new, &path, &mut errors);
    if !errors.0.is_empty() {
        return Err(Refused::Fields(errors.0));
    }
    let spec = rules::top(new, "spec");
    let policy = rules::text(spec, "ipFamilyPolicy").to_owned();
    let all = rules::texts(spec, "clusterIPs");
    let mut families: Vec<&str> = rules::texts(spec, "ipFamilies");
    if policy == "SingleStack" {
        let counts = [(all.len(), "cluster IPs"), (families.len(), "IP families")];
        for (_, what) in counts.into_iter().filter(|(count, _)| *count == 2) {
            let detail = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            );
            errors.invalid(&path.field("ipFamilyPolicy"), policy.as_str(), &detail);
        }
    }
    for (at, address) in all.iter().enumerate().take_while(|(_, it)| **it != NONE) {
        if at >= families.len() {
            if address.contains(':') {
                let shown = Shown(json!(all).to_string());
                let detail = "IPv6 is not configured on this cluster";
                errors.invalid(&path.field("clusterIPs").index(at), shown, detail);
            } else {
                families.push("IPv4");
            }
        }
    }
    if !errors.0.is_empty() {
        return Err(Refused::Fields(errors.0));
    }
    if headless && no_selector {
        // Nobody but its user knows where it leads, so that it may lead anywhere.
        if families.is_empty() {
            families.push("IPv4");
        }
        if families.len() < 2 && policy != "SingleStack" {
            let other = if families == ["IPv4"] { "IPv6" } else { "IPv4" };
            families.push(other);
        }
    } else {
        if policy == "RequireDualStack" {
            let detail = "this cluster is not configured for dual-stack services";
            errors.invalid(&path.field("ipFamilyPolicy"), policy.as_str(), detail);
        }
        for (at, family) in families.iter().enumerate().filter(|(_, it)| **it != "IPv4") {
            let detail = "not configured on this cluster";
            errors.invalid(&path.field("ipFamilies").index(at), *family, detail);
        }
        if !errors.0.is_empty() {
            return Err(Refused::Fields(errors.0));
        }
        if families.is_empty() {
            families.push("IPv4");
        }
    }
    let families = json!(families);
    new.field_mut("spec").insert("ipFamilies".into(), families);
    Ok(())
}

fn addresses(
    new: &mut Object,
    old: Option<&Object>,
    range: ServiceRange,
    taken: &mut Taken,
    choose: Choose<'_>,
) -> Result<(), Refused> {
    if !needs_address(new) || rules::text(rules::top(new, "spec"), "clusterIP") == NONE {
        return Ok(());
    }
    let kept = old.filter(|old| needs_address(old)).map(|old| old.str_at(&["spec", "clusterIP"]));
    if kept.is_some_and(|kept| !kept.is_empty()) {
        // Whether it may change is for validation.
        return Ok(());
    }
    let given = new.str_at(&["spec", "clusterIP"]).to_owned();
    let address = if given.is_empty() {
        free_address(range, &taken.addresses, choose).ok_or_else(|| {
            let name = new.name();
            Refused::Full(format!(
                "failed to allocate a serviceIP for Service {name:?}: range is full"
            ))
        })?
    } else {
        let why = match given.parse::<Ipv4Addr>() {
            Ok(address) if taken.addresses.contains(&address) => {
                Some("provided IP is already allocated".to_owned())
            }
            Ok(address) if range.contains(address) => None,
            _ => Some(format!(
                "the provided IP ({given}) is not in the valid range. The range of valid IPs is {range}"
            )),
        };
        if let Some(why) = why {
            let mut errors = Errors::default();
            let shown = as_json(rules::at(rules::top(new, "spec"), "clusterIPs"));
            let detail = format!("failed to allocate IP {given}: {why}");
            errors.invalid(&Path::new("spec").field("clusterIPs"), shown, &detail);
            return Err(Refused::Fields(errors.0));
        }
        return Ok(());
    };
    taken.addresses.insert(address);
    let text = address.to_string();
    let spec = new.field_mut("spec");
    spec.insert("clusterIPs".into(), json!([text]));
    spec.insert("clusterIP".into(), text.into());
    Ok(())
}

/// A random address that nobody has. The first of a range are left for those who ask for one, while
/// there are others.
fn free_address(
    range: ServiceRange,
    taken: &BTreeSet<Ipv4Addr>,
    choose: Choose<'_>,
) -> Option<Ipv4Addr> {
    let usable = range.size().saturating_sub(2);
    let reserved = (usable / 16).clamp(0, 256);
    for _ in 0..TRIES {
        let address = range.nth(1 + reserved + choose(usable - reserved));
        if !taken.contains(&address) {
            return Some(address);
        }
    }
    (1..=usable).rev().map(|at| range.nth(at)).find(|address| !taken.contains(address))
}

fn node_ports(
    new: &mut Object,
    old: Option<&Object>,
    taken: &mut Taken,
    choose: Choose<'_>,
) -> Result<(), Refused> {
    if needs_node_ports(new) {
        let kept = old.map(super::node_ports).unwrap_or_default();
        let gives = new.str_at(&["spec", "type"]) == "NodePort"
            || new.at(&["spec", "allocateLoadBalancerNodePorts"]) == Some(&Value::Bool(true));
        let ports = new.list_at(&["spec", "ports"]).to_vec();
        let mut given: Vec<(i64, i64)> = Vec::new();
        let mut out = Vec::with_capacity(ports.len());
        for (at, port) in ports.iter().enumerate() {
            let mut port = port.clone();
            let (number, asked) = (rules::number(&port, "port"), rules::number(&port, "nodePort"));
            // Of one port with several protocols all have the same node port.
            let shared = given.iter().find(|(it, _)| *it == number).map(|(_, node)| *node);
            if asked == 0 && !gives {
                out.push(port);
                continue;
            }
            let wanted =
                if asked == 0 { requested(number, &ports).or(shared) } else { Some(asked) };
            let node = match wanted {
                Some(wanted) if kept.contains(&wanted) || shared == Some(wanted) => wanted,
                Some(wanted) => {
                    reserve(wanted, at, taken)?;
                    wanted
                }
                None => free_port(taken, choose).ok_or_else(|| {
                    Refused::Full("failed to allocate a nodePort: range is full".to_owned())
                })?,
            };
            taken.ports.insert(node);
            if shared.is_none() {
                given.push((number, node));
            }
            set_node_port(&mut port, node);
            out.push(port);
        }
        if !out.is_empty() {
            new.field_mut("spec").insert("ports".into(), Value::Array(out));
        }
    }
    if needs_health_check(new) && !old.is_some_and(needs_health_check) {
        let asked = health_port(new);
        let port = if asked == 0 {
            free_port(taken, choose).ok_or_else(|| {
                Refused::Full(
                    "failed to allocate a HealthCheck NodePort 0: range is full".to_owned(),
                )
            })?
        } else if taken.ports.contains(&asked) {
            return Err(Refused::Full(format!(
                "failed to allocate requested HealthCheck NodePort {asked}: provided port is already \
                 allocated"
            )));
        } else {
            asked
        };
        new.field_mut("spec").insert("healthCheckNodePort".into(), port.into());
    }
    Ok(())
}

/// The node port that the same port has elsewhere in a list.
fn requested(number: i64, ports: &[Value]) -> Option<i64> {
    let mut same = ports.iter().filter(|port| rules::number(port, "port") == number);
    same.find_map(|port| Some(rules::number(port, "nodePort")).filter(|node| *node != 0))
}

fn reserve(port: i64, at: usize, taken: &Taken) -> Result<(), Refused> {
    let detail = if taken.ports.contains(&port) {
        "provided port is already allocated".to_owned()
    } else if (FIRST_NODE_PORT..=LAST_NODE_PORT).contains(&port) {
        return Ok(());
    } else {
        format!(
            "provided port is not in the valid range. The range of valid ports is \
             {FIRST_NODE_PORT}-{LAST_NODE_PORT}"
        )
    };
    let mut errors = Errors::default();
    let path = Path::new("spec");
    let path = path.field("ports");
    errors.invalid(&path.index(at).field("nodePort"), port, &detail);
    Err(Refused::Fields(errors.0))
}

fn free_port(taken: &mut Taken, choose: Choose<'_>) -> Option<i64> {
    let count = u32::try_from(LAST_NODE_PORT - FIRST_NODE_PORT + 1).unwrap_or(1);
    let tries = (0..TRIES).map(|_| FIRST_NODE_PORT + i64::from(choose(count)));
    let found =
        tries.chain(FIRST_NODE_PORT..=LAST_NODE_PORT).find(|port| !taken.ports.contains(port))?;
    taken.ports.insert(found);
    Some(found)
}

fn set_node_port(port: &mut Value, node: i64) {
    if let Some(port) = port.as_object_mut() {
        port.insert("nodePort".into(), node.into());
    }
}

fn health_port(object: &Object) -> i64 {
    object.i64_at(&["spec", "healthCheckNodePort"])
}

fn is_empty(fields: &Map<String, Value>, key: &str) -> bool {
    match fields.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

fn put(fields: &mut Map<String, Value>, key: &str, value: &Value) {
    if !value.is_null() {
        fields.insert(key.into(), value.clone());
    }
}

#[cfg(test)]
mod tests;
