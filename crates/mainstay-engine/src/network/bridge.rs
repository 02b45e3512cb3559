//! The bridge of an instance: one per instance, made when the first sandbox needs it.

use std::fs;
use std::io;
use std::net::IpAddr;

use mainstay_linux::netlink::{
    self, Address, Bridge, Link, Route, RouteSocket, unless_exists, unless_gone,
};

use super::peers::PROTOCOL;
use super::range::Ranges;
use super::{IpFamily, Names, NetworkError, Range};

/// The switch for forwarding IPv4 packets between any two links of this network namespace.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Where the settings of IPv6 are, by link.
const IPV6: &str = "/proc/sys/net/ipv6/conf";
const DISABLE_IPV6: &str = "disable_ipv6";
/// The same for IPv6, where it can be switched for all links together only. Source:
/// `net/ipv6/ip6_output.c`, ip6_forward.
const FORWARDING6: &str = "forwarding";
/// Whether a link believes router advertisements.
pub(super) const ACCEPT_RA: &str = "accept_ra";
/// Whether a link asks its neighbours for a second or two whether they have its address, before it
/// uses that.
const ACCEPT_DAD: &str = "accept_dad";

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
    let primary = ranges.current.first().ok_or(NetworkError::NoFreeRange)?;
    let link = match found {
        Some(link) => link,
        None => {
            ensured = Ensured::Made;
            let bridge =
                Bridge { name, address: hardware_address(primary.gateway()), group: names.group };
            socket.create_bridge(bridge).map_err(failed("create"))?
        }
    };
    if link.kind != "bridge" {
        return Err(NetworkError::NotABridge { name: name.into(), kind: link.kind });
    }
    if link.group != names.group {
        socket.set_group(link.index, names.group).map_err(failed("mark"))?;
    }
    match ranges.has(IpFamily::V6) {
        true => set_ipv6(name)?,
        false => no_ipv6(name)?,
    }
    if !link.up {
        socket.set_up(link.index).map_err(failed("switch on"))?;
        ensured = ensured.max(Ensured::Mended);
    }
    socket.set_route_localnet(link.index).map_err(failed("route 127.0.0.0/8 over"))?;
    let gateways = ranges.all().map(|range| Address {
        link: link.index,
        address: range.gateway(),
        prefix: range.prefix(),
    });
    let gateways: Vec<_> = gateways.collect();
    let addresses = socket.addresses().map_err(failed("read the addresses of"))?;
    let ours = |it: &&Address| it.link == link.index && !is_of_link(it.address);
    for other in addresses.iter().filter(ours).filter(|address| !gateways.contains(address)) {
        unless_gone(socket.delete_address(*other)).map_err(failed("take an address from"))?;
    }
    for gateway in gateways.into_iter().filter(|gateway| !addresses.contains(gateway)) {
        unless_exists(socket.add_address(gateway)).map_err(failed("give an address to"))?;
        ensured = ensured.max(Ensured::Mended);
    }
    Ok((link.index, ensured))
}

/// Whether another link has addresses of this range by now. Whoever gives its bridge an address and
/// looks afterwards sees whoever did so at the same time, or is seen.
pub(super) fn is_shared(
    socket: &mut RouteSocket,
    bridge: u32,
    ranges: &[Range],
) -> Result<bool, netlink::Error> {
    let mut addresses = socket.addresses()?;
    addresses.retain(|address| address.link != bridge);
    let taken = taken(&[], &addresses);
    Ok(ranges.iter().any(|range| range.overlaps_any(&taken)))
}

/// Whether an address is one that every link gives itself.
fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The networks that this machine has addresses in or routes to.
pub(super) fn taken(routes: &[Route], addresses: &[Address]) -> Vec<(IpAddr, u8)> {
    // What leads to other machines' sandboxes comes and goes with them.
    let routes = routes.iter().filter(|route| route.protocol != PROTOCOL);
    let routes = routes.map(|route| (route.destination, route.prefix));
    let addresses = addresses.iter().map(|address| (address.address, address.prefix));
    routes.chain(addresses).collect()
}

/// Has a link take part in IPv6, but believe nobody who says where to send packets: otherwise any
/// sandbox could, by a router advertisement (CVE-2020-10749).
///
/// Its own address serves at once, for it follows from the hardware address and is nobody else's. A
/// bridge asks for its sandboxes with it, and those are waited for no longer than three seconds:
/// what is sent to the first one would come late, or never. Source: `net/ipv6/ndisc.c`,
/// ndisc_send_ns; `Documentation/networking/ip-sysctl.rst`, accept_dad and mcast_solicit.
pub(super) fn set_ipv6(link: &str) -> Result<(), NetworkError> {
    set(&ipv6_setting(link, ACCEPT_RA), "0")?;
    set(&ipv6_setting(link, ACCEPT_DAD), "0")?;
    set(&ipv6_setting(link, DISABLE_IPV6), "0").map(drop)
}

/// Keeps IPv6 off the bridge of sandboxes that have no such addresses, for the same reason.
fn no_ipv6(bridge: &str) -> Result<(), NetworkError> {
    match set(&ipv6_setting(bridge, DISABLE_IPV6), "1") {
        // The kernel has no IPv6.
        Err(NetworkError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        result => result.map(drop),
    }
}

/// Whether this machine has IPv6, and has not switched it off.
pub(super) fn has_ipv6() -> bool {
    fs::read_to_string(ipv6_setting("all", DISABLE_IPV6)).is_ok_and(|text| text.trim() == "0")
}

/// Switches forwarding on; tells for which kinds of addresses it was off.
pub(super) fn ensure_forwarding(ranges: &Ranges) -> Result<Vec<IpFamily>, NetworkError> {
    let mut switched = Vec::new();
    if ranges.has(IpFamily::V4) && set(FORWARDING, "1")? {
        switched.push(IpFamily::V4);
    }
    let setting = ipv6_setting("all", FORWARDING6);
    if ranges.has(IpFamily::V6) && !is(&setting, "1")? {
        keep_advertised_routes()?;
        set(&setting, "1")?;
        switched.push(IpFamily::V6);
    }
    Ok(switched)
}

/// A machine that forwards IPv6 is a router, which forgets the routes that other routers have
/// advertised and takes no new ones, unless that is asked for link by link. Links that have taken
/// them so far, and those that come, go on to do so. Source: `net/ipv6/route.c`,
/// rt6_purge_dflt_routers; `Documentation/networking/ip-sysctl.rst`, accept_ra.
fn keep_advertised_routes() -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Setting { value: "2", path: IPV6.into(), source };
    for link in fs::read_dir(IPV6).map_err(failed)? {
        let link = link.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let setting = ipv6_setting(&link, ACCEPT_RA);
        // A link may go meanwhile; and what is said of all is heeded nowhere.
        if link != "all" && fs::read_to_string(&setting).is_ok_and(|text| text.trim() == "1") {
            set(&setting, "2")?;
        }
    }
    Ok(())
}

/// The file of a setting of IPv6.
pub(super) fn ipv6_setting(link: &str, name: &str) -> String {
    format!("{IPV6}/{link}/{name}")
}

/// Writes a setting unless it is so already; tells whether it was not.
fn set(path: &str, value: &'static str) -> Result<bool, NetworkError> {
    let failed = |source| NetworkError::Setting { value, path: path.to_owned(), source };
    if is(path, value)? {
        return Ok(false);
    }
    fs::write(path, format!("{value}\n")).map_err(failed)?;
    Ok(true)
}

fn is(path: &str, value: &'static str) -> Result<bool, NetworkError> {
    let failed = |source| NetworkError::Setting { value, path: path.to_owned(), source };
    Ok(fs::read_to_string(path).map_err(failed)?.trim() == value)
}

/// The hardware address of whoever has an address on the bridge.
///
/// It follows from the address, so that an address which goes to another sandbox takes its
/// hardware address along and nobody's ARP cache is ever wrong. The first byte says that it is
/// locally administered.
pub(super) fn hardware_address(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    [0x02, 0x4d, a, b, c, d]
}
