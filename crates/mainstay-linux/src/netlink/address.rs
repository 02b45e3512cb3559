//! Addresses of links, and routes. Source: rtnetlink(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Error;
use super::link::{AF_INET, AF_INET6, RouteSocket};
use super::message::{Attributes, Message, NLM_F_CREATE, NLM_F_EXCL, Received, read_u32};
use super::socket::{ACKNOWLEDGED, LIST};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// Take an address without asking for a second whether somebody else has it.
const IFA_F_NODAD: u8 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;

/// `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
/// `struct rtmsg`.
const RTMSG: usize = 12;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub link: u32,
    /// The address itself.
    pub address: IpAddr,
    /// How many leading bits are the network's.
    pub prefix: u8,
}

/// A unicast route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network it leads to; the unspecified address with prefix 0 is the default route.
    pub destination: IpAddr,
    /// How many leading bits of the destination count.
    pub prefix: u8,
    /// The next hop; `None` when the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The number of the link it leaves through; 0 for routes with several next hops.
    pub link: u32,
    /// Lower is preferred.
    pub priority: u32,
    /// The number of the routing table; [`Route::MAIN`] is the main one.
    pub table: u32,
    /// Who made it. Source: rtnetlink(7), `rtm_protocol`; numbers from 5 on are for programs to
    /// choose.
    pub protocol: u8,
}

impl RouteSocket {
    /// All addresses of all links.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let message = Message::new(RTM_GETADDR, LIST, &[0; IFADDRMSG]);
        self.0.dump(&message, "list the addresses", Address::read)
    }

    /// Gives a link an address; one of IPv6 without looking for others that have it, for which nobody
    /// could wait.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] when it has that address already.
    pub fn add_address(&mut self, address: Address) -> Result<(), Error> {
        let flags = ACKNOWLEDGED | NLM_F_CREATE | NLM_F_EXCL;
        let operation =
            format!("give {}/{} to link number {}", address.address, address.prefix, address.link);
        self.0.request(address.message(RTM_NEWADDR, flags), &operation)
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when the link does not have it.
    pub fn delete_address(&mut self, address: Address) -> Result<(), Error> {
        let operation = format!(
            "take {}/{} from link number {}",
            address.address, address.prefix, address.link
        );
        self.0.request(address.message(RTM_DELADDR, ACKNOWLEDGED), &operation)
    }

    /// All unicast routes of all tables.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let message = Message::new(RTM_GETROUTE, LIST, &[0; RTMSG]);
        self.0.dump(&message, "list the routes", Route::read)
    }

    /// The route that a packet to `destination` takes; `None` when there is none, or when the
    /// address is one of this machine's own.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Option<Route>, Error> {
        let mut fixed = [0; RTMSG];
        fixed[0] = family(destination);
        fixed[1] = if destination.is_ipv4() { 32 } else { 128 };
        let mut message = Message::new(RTM_GETROUTE, ACKNOWLEDGED, &fixed);
        message.attribute(RTA_DST, &octets(destination));
        let operation = format!("look up the route to {destination}");
        let mut found = None;
        match self.0.get(message, &operation, |answer| found = Route::read(answer)) {
            Err(error) if error.errno() == Some(libc::ENETUNREACH) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// Adds a route to the table that it names.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] when there is such a route already.
    pub fn add_route(&mut self, route: Route) -> Result<(), Error> {
        let flags = ACKNOWLEDGED | NLM_F_CREATE | NLM_F_EXCL;
        let operation = format!("add the route to {}/{}", route.destination, route.prefix);
        self.0.request(route.message(RTM_NEWROUTE, flags), &operation)
    }

    /// Deletes a route.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when there is no such route.
    pub fn delete_route(&mut self, route: Route) -> Result<(), Error> {
        let operation = format!("delete the route to {}/{}", route.destination, route.prefix);
        self.0.request(route.message(RTM_DELROUTE, ACKNOWLEDGED), &operation)
    }
}

// === impl Address ===

impl Address {
    fn message(&self, kind: u16, flags: u16) -> Message {
        let mut fixed = [0; IFADDRMSG];
        fixed[0] = family(self.address);
        fixed[1] = self.prefix;
        if self.address.is_ipv6() {
            fixed[2] = IFA_F_NODAD;
        }
        fixed[4..8].copy_from_slice(&self.link.to_ne_bytes());
        let mut message = Message::new(kind, flags, &fixed);
        message.attribute(IFA_LOCAL, &octets(self.address));
        message.attribute(IFA_ADDRESS, &octets(self.address));
        if let IpAddr::V4(address) = self.address
            && self.prefix < 31
        {
            // ip(8) sets it with `brd +`; without it the kernel knows no broadcast address.
            let host_bits = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
            message.attribute(IFA_BROADCAST, &(address.to_bits() | host_bits).to_be_bytes());
        }
        message
    }

    fn read(message: Received<'_>) -> Option<Self> {
        if message.kind != RTM_NEWADDR {
            return None;
        }
        let attributes = Attributes::after(message.body, IFADDRMSG);
        // Where the two differ, IFA_ADDRESS is the far end of a point-to-point link.
        let local = attributes.get(IFA_LOCAL).or_else(|| attributes.get(IFA_ADDRESS))?;
        Some(Self {
            link: read_u32(message.body, 4)?,
            address: address_of(local)?,
            prefix: *message.body.get(1)?,
        })
    }
}

// === impl Route ===

impl Route {
    /// The main routing table.
    pub const MAIN: u32 = RT_TABLE_MAIN as u32;

    /// The default route of the main table through `gateway` on the link with the given number.
    pub fn default_through(gateway: IpAddr, link: u32) -> Self {
        let destination = match gateway {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self {
            destination,
            prefix: 0,
            gateway: Some(gateway),
            link,
            priority: 0,
            table: Self::MAIN,
            protocol: RTPROT_BOOT,
        }
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let scope = if self.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
        let mut fixed = [0; RTMSG];
        fixed[0] = family(self.destination);
        fixed[1] = self.prefix;
        // The byte is too small for some tables; the attribute below counts.
        fixed[4] = u8::try_from(self.table).unwrap_or_default();
        fixed[5] = self.protocol;
        fixed[6] = scope;
        fixed[7] = RTN_UNICAST;
        let mut message = Message::new(kind, flags, &fixed);
        message.u32(RTA_TABLE, self.table);
        if self.prefix > 0 {
            message.attribute(RTA_DST, &octets(self.destination));
        }
        if let Some(gateway) = self.gateway {
            message.attribute(RTA_GATEWAY, &octets(gateway));
        }
        if self.priority > 0 {
            message.u32(RTA_PRIORITY, self.priority);
        }
        message.u32(RTA_OIF, self.link);
        message
    }

    fn read(message: Received<'_>) -> Option<Self> {
        if message.kind != RTM_NEWROUTE || message.body.get(7) != Some(&RTN_UNICAST) {
            return None;
        }
        let attributes = Attributes::after(message.body, RTMSG);
        let unspecified = match *message.body.first()? {
            AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        Some(Self {
            destination: attributes.get(RTA_DST).and_then(address_of).unwrap_or(unspecified),
            prefix: *message.body.get(1)?,
            gateway: attributes.get(RTA_GATEWAY).and_then(address_of),
            link: attributes.u32(RTA_OIF).unwrap_or_default(),
            priority: attributes.u32(RTA_PRIORITY).unwrap_or_default(),
            table: attributes.u32(RTA_TABLE).unwrap_or_else(|| message.body[4].into()),
            protocol: *message.body.get(5)?,
        })
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(super) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
