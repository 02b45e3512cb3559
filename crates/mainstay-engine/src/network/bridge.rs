//! The bridge of an instance: one per instance, made when the first sandbox needs it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use mainstay_linux::netlink::{self, Address, Bridge, Link, Route, RouteSocket};

use super::peers::PROTOCOL;
use super::range::Ranges;
use super::{Names, NetworkError, Range};

/// The switch for forwarding IPv4 packets between any two links of this network namespace.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What [`ensure`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ensured {
    Found,
    /// Switched on, or given back its address.
    Mended,
    Made,
}

/// Sees to it that the bridge exists, is on, and has the gateways' addresses, and returns its
/// number. `found` is the link that has its name now.
pub(super) fn ensure(
    socket: &mut RouteSocket,
    names: &Names,
    ranges: &Ranges,
    found: Option<Link>,
) -> Result<(u32, Ensured), NetworkError> {
    let name = names.bridge.as_str();
    let failed =
        |step| move |source| NetworkError::Bridge { step, bridge: names.bridge.clone(), source };
    let mut ensured = Ensured::Found;
    let link = match found {
        Some(link) => link,
        None => {
            ensured = Ensured::Made;
            let bridge = Bridge {
                name,
                address: hardware_address(ranges.current.gateway()),
                group: names.group,
            };
            socket.create_bridge(bridge).map_err(failed("create"))?
        }
    };
    if link.kind != "bridge" {
        return Err(NetworkError::NotABridge { name: name.into(), kind: link.kind });
    }
    if link.group != names.group {
        socket.set_group(link.index, names.group).map_err(failed("mark"))?;
    }
    no_ipv6(name).map_err(|(path, source)| NetworkError::Setting { path, source })?;
    if !link.up {
        socket.set_up(link.index).map_err(failed("switch on"))?;
        ensured = ensured.max(Ensured::Mended);
    }
    socket.set_route_localnet(link.index).map_err(failed("route 127.0.0.0/8 over"))?;
    let gateways = ranges.all().map(|range| Address {
        link: link.index,
        address: range.gateway().into(),
        prefix: range.prefix(),
    });
    let gateways: Vec<_> = gateways.collect();
    let addresses = socket.addresses().map_err(failed("read the addresses of"))?;
    let ours = |address: &&Address| address.link == link.index && address.address.is_ipv4();
    for other in addresses.iter().filter(ours).filter(|address| !gateways.contains(address)) {
        match socket.delete_address(*other) {
            Err(error) if !error.is_not_found() => {
                return Err(failed("take an address from")(error));
            }
            _ => {}
        }
    }
    for gateway in gateways.into_iter().filter(|gateway| !addresses.contains(gateway)) {
        match socket.add_address(gateway) {
            Err(error) if !error.is_exists() => return Err(failed("give an address to")(error)),
            _ => {}
        }
        ensured = ensured.max(Ensured::Mended);
    }
    Ok((link.index, ensured))
}

/// Whether another link has addresses of this range by now. Whoever gives its bridge an address and
/// looks afterwards sees whoever did so at the same time, or is seen.
pub(super) fn is_shared(
    socket: &mut RouteSocket,
    bridge: u32,
    range: Range,
) -> Result<bool, netlink::Error> {
    let mut addresses = socket.addresses()?;
    addresses.retain(|address| address.link != bridge);
    Ok(range.overlaps_any(&taken(&[], &addresses)))
}

/// The IPv4 networks that this machine has addresses in or routes to.
pub(super) fn taken(routes: &[Route], addresses: &[Address]) -> Vec<(Ipv4Addr, u8)> {
    // What leads to other machines' sandboxes comes and goes with them.
    let routes = routes.iter().filter(|route| route.protocol != PROTOCOL);
    let routes = routes.map(|route| (route.destination, route.prefix));
    let addresses = addresses.iter().map(|address| (address.address, address.prefix));
    routes
        .chain(addresses)
        .filter_map(|(address, prefix)| match address {
            IpAddr::V4(address) => Some((address, prefix)),
            IpAddr::V6(_) => None,
        })
        .collect()
}

/// Keeps IPv6 off the bridge, whose range has none: otherwise any sandbox could tell the machine by
/// a router advertisement where to send its traffic (CVE-2020-10749).
fn no_ipv6(bridge: &str) -> Result<(), (String, io::Error)> {
    let path = format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == "1" => Ok(()),
        Ok(_) => fs::write(&path, "1\n").map_err(|error| (path, error)),
        // The kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err((path, error)),
    }
}

/// Switches forwarding on; tells whether it was off.
pub(super) fn ensure_forwarding() -> Result<bool, NetworkError> {
    let failed = |source| NetworkError::Setting { path: FORWARDING.to_owned(), source };
    if fs::read_to_string(FORWARDING).map_err(failed)?.trim() == "1" {
        return Ok(false);
    }
    fs::write(FORWARDING, "1\n").map_err(failed)?;
    Ok(true)
}

/// The hardware address of whoever has an IPv4 address on the bridge.
///
/// It follows from the address, so that an address which goes to another sandbox takes its
/// hardware address along and nobody's ARP cache is ever wrong. The first byte says that it is
/// locally administered.
pub(super) fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x4d, a, b, c, d]
}
