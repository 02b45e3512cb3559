//! The link between a sandbox and the bridge.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use mainstay_linux::namespace::in_network;
use mainstay_linux::netlink::{
    self, Address, Link, Route, RouteSocket, Veth, VethPeer, unless_exists,
};

use super::bridge::hardware_address;
use super::{IpFamily, Names, NetworkError, Range, bridge};

/// The name of the link inside, as everywhere in the field.
pub(crate) const INSIDE: &str = "eth0";
/// Every network namespace numbers its loopback link so.
pub(crate) const LOOPBACK: u32 = 1;
/// An address that is certainly not here (RFC 5737), to find the default route by.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// Of Ethernet, as long as there is no default route.
const ETHERNET_MTU: u32 = 1500;
/// On links with less there is no IPv6. Source: RFC 8200, section 5.
const IPV6_MTU: u32 = 1280;

/// Gives the network namespace `inside` a link to the bridge with the number `master`, addresses
/// and default routes. What is there already is left as it is.
pub(super) fn attach(
    names: &Names,
    sandbox: &str,
    inside: BorrowedFd<'_>,
    master: u32,
    places: &[(Range, IpAddr)],
) -> Result<(), NetworkError> {
    let failed =
        |step| move |source| NetworkError::Attach { step, sandbox: sandbox.into(), source };
    let mut here = RouteSocket::open().map_err(failed("reach the links"))?;
    let mut there = RouteSocket::open_in(inside).map_err(failed("enter the network namespace"))?;

    let name = names.link(sandbox);
    let ipv6 = places.iter().any(|(range, _)| range.family() == IpFamily::V6);
    let mtu = mtu(&mut here).map_err(failed("find the default route for the link"))?;
    // What does not fit into the way out is then told by this machine.
    let mtu = if ipv6 { mtu.max(IPV6_MTU) } else { mtu };
    // Of the primary address: both have one number in their ranges.
    let address = places.first().map(|(_, address)| hardware_address(*address)).unwrap_or_default();
    let veth = Veth {
        name: &name,
        mtu,
        master,
        group: names.group,
        peer: VethPeer { name: INSIDE, address, namespace: inside },
    };
    let outer = match here.create_veth(veth) {
        Err(error) if error.is_exists() => replace_unless_whole(&mut here, &mut there, veth),
        result => result,
    };
    let outer = outer.map_err(failed("create the link"))?;
    // With br_netfilter, what a sandbox sends to its own host port comes back through the port
    // that it went out of.
    here.set_hairpin(outer.index).map_err(failed("configure the link"))?;

    there.set_up(LOOPBACK).map_err(failed("switch on the loopback link"))?;
    let inner = there.link(INSIDE).map_err(failed("find the inner link"))?;
    let Some(Link { index: inner, .. }) = inner else {
        return Err(NetworkError::Vanished { sandbox: sandbox.into(), link: INSIDE.into() });
    };
    if ipv6 {
        // Before it is switched on, so that no neighbour can be quicker.
        let settings = || -> io::Result<Result<(), NetworkError>> { Ok(bridge::set_ipv6(INSIDE)) };
        in_network(inside, settings).map_err(|source| NetworkError::Setting {
            value: "0",
            path: bridge::ipv6_setting(INSIDE, bridge::ACCEPT_RA),
            source,
        })??;
    }
    there.set_up(inner).map_err(failed("switch on the inner link"))?;
    for (range, address) in places {
        let address = Address { link: inner, address: *address, prefix: range.prefix() };
        unless_exists(there.add_address(address)).map_err(failed("set the address"))?;
        let route = Route::default_through(range.gateway(), inner);
        unless_exists(there.add_route(route)).map_err(failed("set the default route"))?;
    }
    // Whoever starts inside may send at once, so the bridge should take frames now. Since 6.8 the
    // kernel acts on a change of the carrier, at the latest, when it is asked about the link;
    // before that a worker does it some microseconds later. Source: `net/core/rtnetlink.c`,
    // rtnl_getlink.
    match here.link_at(outer.index).map_err(failed("find the link"))? {
        Some(_) => Ok(()),
        None => Err(NetworkError::Vanished { sandbox: sandbox.into(), link: name }),
    }
}

/// A link of that name was there before us: left over from an attempt that was cut off. If its
/// other end is where it should be the rest goes on from there, otherwise it is made anew.
fn replace_unless_whole(
    here: &mut RouteSocket,
    there: &mut RouteSocket,
    veth: Veth<'_>,
) -> Result<Link, netlink::Error> {
    let old = here.link(veth.name)?;
    let inner = there.link(veth.peer.name)?;
    match (old, inner) {
        (Some(old), Some(inner)) if inner.address == veth.peer.address => {
            here.set_group(old.index, veth.group)?;
            here.set_master(old.index, veth.master)?;
            here.set_up(old.index)?;
            Ok(old)
        }
        (old, _) => {
            if let Some(old) = old {
                here.delete_link(old.index)?;
            }
            here.create_veth(veth)
        }
    }
}

/// The frames that the way out of this machine takes.
fn mtu(here: &mut RouteSocket) -> Result<u32, netlink::Error> {
    let Some(route) = here.route_to(ELSEWHERE)? else { return Ok(ETHERNET_MTU) };
    Ok(here.link_at(route.link)?.map_or(ETHERNET_MTU, |link| link.mtu))
}
