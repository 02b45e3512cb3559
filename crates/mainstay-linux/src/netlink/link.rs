//! Network devices. Source: rtnetlink(7), and `include/uapi/linux/if_link.h` for the attributes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::Error;
use super::message::{Attributes, Message, NLM_F_CREATE, NLM_F_EXCL, Received, read_u32};
use super::socket::{ACKNOWLEDGED, LIST, Socket};
use crate::namespace;

pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
pub(super) const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;

pub(super) const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ROUTE_LOCALNET: u16 = 26;

/// In `IFLA_EXT_MASK`: leave the counters out, which are most of an answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
pub(super) const IFF_UP: u32 = 1;
/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

/// A socket for links, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct RouteSocket(pub(super) Socket);

/// A network device as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// What kind of virtual device it is, such as `bridge` or `veth`; empty for real ones.
    pub kind: String,
    /// The number of the device that it is a port of.
    pub master: Option<u32>,
    /// The group it belongs to; 0 is everybody's.
    pub group: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Bytes that fit into a frame.
    pub mtu: u32,
    /// The hardware address.
    pub address: Vec<u8>,
    /// The kernel's id of the network namespace that the other end lives in, if that is another
    /// one.
    pub peer_namespace: Option<u32>,
}

/// A bridge to be made.
#[derive(Clone, Copy, Debug)]
pub struct Bridge<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// Given, the bridge keeps it; otherwise its address changes with its ports.
    pub address: [u8; 6],
    /// See [`Link::group`].
    pub group: u32,
}

/// A pair of virtual Ethernet devices to be made, one end here and one elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// The name of the end here, at most 15 bytes.
    pub name: &'a str,
    /// Of both ends, in bytes.
    pub mtu: u32,
    /// The number of the bridge that the end here becomes a port of.
    pub master: u32,
    /// The group of the end here; see [`Link::group`].
    pub group: u32,
    /// The other end.
    pub peer: VethPeer<'a>,
}

/// The far end of a [`Veth`].
#[derive(Clone, Copy, Debug)]
pub struct VethPeer<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address.
    pub address: [u8; 6],
    /// Where it is made, at once and not by moving it there: a move waits for an RCU grace period.
    pub namespace: BorrowedFd<'a>,
}

// === impl RouteSocket ===

impl RouteSocket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Socket::open_route().map(Self)
    }

    /// Opens a socket in the given network namespace, on a thread of its own that ends at once.
    pub fn open_in(network: BorrowedFd<'_>) -> Result<Self, Error> {
        // `in_network` speaks `io::Result` for its own failures; ours are carried through it.
        namespace::in_network(network, || Ok(Self::open()))
            .unwrap_or_else(|source| Err(Error::Open { protocol: "rtnetlink", source }))
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut message = Message::new(RTM_GETLINK, LIST, &ifinfomsg(0, 0, 0));
        message.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.0.dump(&message, "list the links", Link::read)
    }

    /// The link of that name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = Message::new(RTM_GETLINK, ACKNOWLEDGED, &ifinfomsg(0, 0, 0));
        message.string(IFLA_IFNAME, name);
        message.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.one_link(message, &format!("read link {name}"))
    }

    /// The link of that number, if there is one.
    pub fn link_at(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let mut message = Message::new(RTM_GETLINK, ACKNOWLEDGED, &ifinfomsg(index, 0, 0));
        message.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.one_link(message, &format!("read link number {index}"))
    }

    fn one_link(&mut self, message: Message, operation: &str) -> Result<Option<Link>, Error> {
        let mut found = None;
        match self.0.get(message, operation, |answer| found = Link::read(answer)) {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// Makes a bridge, switches it on and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] when the name is taken.
    pub fn create_bridge(&mut self, bridge: Bridge<'_>) -> Result<Link, Error> {
        let mut message = Message::new(
            RTM_NEWLINK,
            ACKNOWLEDGED | NLM_F_CREATE | NLM_F_EXCL,
            &ifinfomsg(0, IFF_UP, IFF_UP),
        );
        message.string(IFLA_IFNAME, bridge.name);
        message.attribute(IFLA_ADDRESS, &bridge.address);
        message.u32(IFLA_GROUP, bridge.group);
        message.nested(IFLA_LINKINFO, |info| info.attribute(IFLA_INFO_KIND, b"bridge"));
        self.create(message, bridge.name, "bridge")
    }

    /// Makes a pair of virtual Ethernet devices and returns the end here, which is a port of its
    /// bridge and switched on; the other one is in its namespace and still off.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] when one of the names is taken.
    pub fn create_veth(&mut self, veth: Veth<'_>) -> Result<Link, Error> {
        let mut message = Message::new(
            RTM_NEWLINK,
            ACKNOWLEDGED | NLM_F_CREATE | NLM_F_EXCL,
            &ifinfomsg(0, IFF_UP, IFF_UP),
        );
        message.string(IFLA_IFNAME, veth.name);
        message.u32(IFLA_MTU, veth.mtu);
        message.u32(IFLA_GROUP, veth.group);
        message.u32(IFLA_MASTER, veth.master);
        message.nested(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_KIND, b"veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.fixed(&ifinfomsg(0, 0, 0));
                    peer.string(IFLA_IFNAME, veth.peer.name);
                    peer.attribute(IFLA_ADDRESS, &veth.peer.address);
                    peer.u32(IFLA_MTU, veth.mtu);
                    let fd = veth.peer.namespace.as_fd().as_raw_fd();
                    peer.u32(IFLA_NET_NS_FD, fd.cast_unsigned());
                });
            });
        });
        self.create(message, veth.name, "veth pair")
    }

    pub(super) fn create(
        &mut self,
        message: Message,
        name: &str,
        kind: &str,
    ) -> Result<Link, Error> {
        let operation = format!("create {kind} {name}");
        self.0.request(message, &operation)?;
        // Only kernels from 6.2 on tell the number that they gave it.
        self.link(name)?.ok_or(Error::NoAnswer { operation })
    }

    /// Deletes a link; of a veth pair, both ends. Waits for RCU grace periods, tens of
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when it is gone already.
    pub fn delete_link(&mut self, index: u32) -> Result<(), Error> {
        let message = Message::new(RTM_DELLINK, ACKNOWLEDGED, &ifinfomsg(index, 0, 0));
        self.0.request(message, &format!("delete link number {index}"))
    }

    /// Deletes all links of a group together, which waits as long as deleting one of them.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when the group has no links.
    pub fn delete_group(&mut self, group: u32) -> Result<(), Error> {
        let mut message = Message::new(RTM_DELLINK, ACKNOWLEDGED, &ifinfomsg(0, 0, 0));
        message.u32(IFLA_GROUP, group);
        self.0.request(message, &format!("delete the links of group {group}"))
    }

    /// Moves a link to another group; see [`Link::group`].
    pub fn set_group(&mut self, index: u32, group: u32) -> Result<(), Error> {
        let mut message = Message::new(RTM_NEWLINK, ACKNOWLEDGED, &ifinfomsg(index, 0, 0));
        message.u32(IFLA_GROUP, group);
        self.0.request(message, &format!("set the group of link number {index}"))
    }

    /// Switches a link on.
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        let message = Message::new(RTM_NEWLINK, ACKNOWLEDGED, &ifinfomsg(index, IFF_UP, IFF_UP));
        self.0.request(message, &format!("switch link number {index} on"))
    }

    /// Makes a link a port of the bridge with the number `master`.
    pub fn set_master(&mut self, index: u32, master: u32) -> Result<(), Error> {
        let mut message = Message::new(RTM_NEWLINK, ACKNOWLEDGED, &ifinfomsg(index, 0, 0));
        message.u32(IFLA_MASTER, master);
        self.0.request(message, &format!("make link number {index} a port of number {master}"))
    }

    /// Lets a bridge send a frame back through the port that it came from.
    pub fn set_hairpin(&mut self, index: u32) -> Result<(), Error> {
        let mut message = Message::new(RTM_NEWLINK, ACKNOWLEDGED, &ifinfomsg(index, 0, 0));
        message.nested(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_SLAVE_KIND, b"bridge");
            info.nested(IFLA_INFO_SLAVE_DATA, |port| port.u8(IFLA_BRPORT_MODE, 1));
        });
        self.0.request(message, &format!("let port number {index} send back what it received"))
    }

    /// Lets addresses of 127.0.0.0/8 cross this link: the setting
    /// `net.ipv4.conf.<link>.route_localnet`.
    pub fn set_route_localnet(&mut self, index: u32) -> Result<(), Error> {
        let mut message = Message::new(RTM_NEWLINK, ACKNOWLEDGED, &ifinfomsg(index, 0, 0));
        message.nested(IFLA_AF_SPEC, |families| {
            families.nested(u16::from(AF_INET), |inet| {
                inet.nested(IFLA_INET_CONF, |settings| {
                    settings.u32(IPV4_DEVCONF_ROUTE_LOCALNET, 1);
                });
            });
        });
        self.0.request(message, &format!("let 127.0.0.0/8 cross link number {index}"))
    }
}

// === impl Link ===

impl Link {
    fn read(message: Received<'_>) -> Option<Self> {
        if message.kind != RTM_NEWLINK {
            return None;
        }
        let attributes = Attributes::after(message.body, IFINFOMSG);
        let info = attributes.nested(IFLA_LINKINFO);
        Some(Self {
            index: read_u32(message.body, 4)?,
            name: attributes.string(IFLA_IFNAME)?,
            kind: info.string(IFLA_INFO_KIND).unwrap_or_default(),
            master: attributes.u32(IFLA_MASTER),
            group: attributes.u32(IFLA_GROUP).unwrap_or_default(),
            up: read_u32(message.body, 8)? & IFF_UP != 0,
            mtu: attributes.u32(IFLA_MTU).unwrap_or_default(),
            address: attributes.get(IFLA_ADDRESS).unwrap_or_default().to_vec(),
            peer_namespace: attributes.u32(IFLA_LINK_NETNSID),
        })
    }
}

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

/// `struct ifinfomsg`: family and type 0, then the number, the flags and which of them to change.
pub(super) fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut bytes = [0; IFINFOMSG];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}
