//! Tracked connections. Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::SocketAddr;

use super::Error;
use super::address::address_of;
use super::link::{AF_INET, AF_INET6};
use super::message::{Attributes, Message, Received};
use super::socket::{ACKNOWLEDGED, LIST, Socket};

const IPCTNL_MSG_CT_NEW: u16 = 1 << 8;
const IPCTNL_MSG_CT_GET: u16 = 1 << 8 | 1;
const IPCTNL_MSG_CT_DELETE: u16 = 1 << 8 | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_CTA_PROTO_NUM`, from `net/netfilter/nf_internals.h`.
const FILTER_PROTOCOL: u32 = 1 << 3;

/// `struct nfgenmsg`: family, version and a resource number.
const NFGENMSG: usize = 4;

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where its first packet was sent to.
    pub destination: SocketAddr,
    /// Where its answers come from: the same, unless the destination was translated.
    pub answers_from: SocketAddr,
}

/// A socket for the connections tracked in one network namespace.
#[derive(Debug)]
pub struct ConntrackSocket(Socket);

impl ConntrackSocket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Socket::open_netfilter("conntrack").map(Self)
    }

    /// Forgets those connections of the transport protocol with the given number that `which`
    /// chooses, of IPv4 and IPv6; tells how many.
    ///
    /// Their next packet is a new connection then, for which address translation is decided anew.
    /// The kernel looks through its whole table for this, some milliseconds on a large machine,
    /// and before 5.8 hands out the connections of all protocols.
    pub fn forget(
        &mut self,
        protocol: u8,
        which: impl Fn(&Connection) -> bool,
    ) -> Result<usize, Error> {
        let mut forgotten = 0;
        for family in [AF_INET, AF_INET6] {
            forgotten += self.forget_of(family, protocol, &which)?;
        }
        Ok(forgotten)
    }

    fn forget_of(
        &mut self,
        family: u8,
        protocol: u8,
        which: impl Fn(&Connection) -> bool,
    ) -> Result<usize, Error> {
        let mut list = Message::new(IPCTNL_MSG_CT_GET, LIST, &nfgenmsg(family));
        list.nested(CTA_TUPLE_ORIG, |tuple| {
            tuple.nested(CTA_TUPLE_PROTO, |proto| proto.u8(CTA_PROTO_NUM, protocol));
        });
        list.nested(CTA_FILTER, |filter| {
            filter.u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL);
            filter.u32(CTA_FILTER_REPLY_FLAGS, 0);
        });
        let entries = self.0.dump(&list, "list the tracked connections", |entry| {
            Entry::read(entry)
                .filter(|entry| entry.protocol == protocol && which(&entry.connection))
        })?;
        let mut forgotten = 0;
        for entry in entries {
            let mut delete = Message::new(IPCTNL_MSG_CT_DELETE, ACKNOWLEDGED, &nfgenmsg(family));
            delete.attribute(CTA_TUPLE_ORIG, &entry.tuple);
            // The same tuple may be a new connection by now.
            delete.attribute(CTA_ID, &entry.id);
            match self.0.request(delete, "forget a tracked connection") {
                Ok(()) => forgotten += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(forgotten)
    }
}

struct Entry {
    connection: Connection,
    protocol: u8,
    tuple: Vec<u8>,
    id: Vec<u8>,
}

impl Entry {
    fn read(message: Received<'_>) -> Option<Self> {
        if message.kind != IPCTNL_MSG_CT_NEW {
            return None;
        }
        let attributes = Attributes::after(message.body, NFGENMSG);
        let original = attributes.nested(CTA_TUPLE_ORIG);
        let end = |tuple: Attributes<'_>, v4, v6, port| {
            let ip = tuple.nested(CTA_TUPLE_IP);
            let address = address_of(ip.get(v4).or_else(|| ip.get(v6))?)?;
            let port = tuple.nested(CTA_TUPLE_PROTO).get(port)?.try_into().ok()?;
            Some(SocketAddr::new(address, u16::from_be_bytes(port)))
        };
        let reply = attributes.nested(CTA_TUPLE_REPLY);
        Some(Self {
            connection: Connection {
                destination: end(original, CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT)?,
                answers_from: end(reply, CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_PROTO_SRC_PORT)?,
            },
            protocol: *original.nested(CTA_TUPLE_PROTO).get(CTA_PROTO_NUM)?.first()?,
            tuple: attributes.get(CTA_TUPLE_ORIG)?.to_vec(),
            id: attributes.get(CTA_ID)?.to_vec(),
        })
    }
}

fn nfgenmsg(family: u8) -> [u8; NFGENMSG] {
    [family, 0, 0, 0]
}
