//! Tracked connections. Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::Error;
use super::link::AF_INET;
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
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_CTA_PROTO_NUM`, from `net/netfilter/nf_internals.h`.
const FILTER_PROTOCOL: u32 = 1 << 3;

/// `struct nfgenmsg`: family, version and a resource number.
const NFGENMSG: [u8; 4] = [AF_INET, 0, 0, 0];

/// A tracked IPv4 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where its first packet was sent to.
    pub destination: SocketAddrV4,
    /// Where its answers come from: the same address, unless the destination was translated.
    pub answers_from: Ipv4Addr,
}

/// A socket for the connections tracked in one network namespace.
#[derive(Debug)]
pub struct ConntrackSocket(Socket);

impl ConntrackSocket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Socket::open_netfilter("conntrack").map(Self)
    }

    /// Forgets those IPv4 connections of the transport protocol with the given number that
    /// `which` chooses; tells how many.
    ///
    /// Their next packet is a new connection then, for which address translation is decided anew.
    /// The kernel looks through its whole table for this, some milliseconds on a large machine,
    /// and before 5.8 hands out the connections of all protocols.
    pub fn forget(
        &mut self,
        protocol: u8,
        which: impl Fn(&Connection) -> bool,
    ) -> Result<usize, Error> {
        let mut list = Message::new(IPCTNL_MSG_CT_GET, LIST, &NFGENMSG);
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
            let mut delete = Message::new(IPCTNL_MSG_CT_DELETE, ACKNOWLEDGED, &NFGENMSG);
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
        let attributes = Attributes::after(message.body, NFGENMSG.len());
        let original = attributes.nested(CTA_TUPLE_ORIG);
        let proto = original.nested(CTA_TUPLE_PROTO);
        let address = |tuple: Attributes<'_>, kind| {
            let octets = tuple.nested(CTA_TUPLE_IP).get(kind)?;
            <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
        };
        let port = u16::from_be_bytes(proto.get(CTA_PROTO_DST_PORT)?.try_into().ok()?);
        Some(Self {
            connection: Connection {
                destination: SocketAddrV4::new(address(original, CTA_IP_V4_DST)?, port),
                answers_from: address(attributes.nested(CTA_TUPLE_REPLY), CTA_IP_V4_SRC)?,
            },
            protocol: *proto.get(CTA_PROTO_NUM)?.first()?,
            tuple: attributes.get(CTA_TUPLE_ORIG)?.to_vec(),
            id: attributes.get(CTA_ID)?.to_vec(),
        })
    }
}
