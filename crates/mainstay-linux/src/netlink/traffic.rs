//! How fast links send: queueing disciplines, and the filter that leads what a link receives through
//! one. Source: tc(8), `include/uapi/linux/pkt_sched.h`, `include/uapi/linux/pkt_cls.h`.

use super::link::{IFF_UP, IFLA_GROUP, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU};
use super::link::{Link, RTM_NEWLINK, RouteSocket, ifinfomsg};
use super::message::{Attributes, Message, NLM_F_CREATE, NLM_F_EXCL, Received, read_u32};
use super::socket::{ACKNOWLEDGED, LIST};
use super::{Error, unless_exists};

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const NLM_F_REPLACE: u16 = 0x100;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

/// `struct tcmsg`: family and padding, then the link, the handle, the parent and more.
const TCMSG: usize = 20;
/// `struct tc_tbf_qopt`: two times `struct tc_ratespec` of 12 bytes, and three numbers.
const TBF_QOPT: usize = 36;
/// `TC_LINKLAYER_ETHERNET`: the rate is computed and not looked up in a table that we would have to
/// make.
const ETHERNET: u8 = 1;
const TC_H_ROOT: u32 = 0xffff_ffff;
const TC_H_INGRESS: u32 = 0xffff_fff1;
/// The handles of the disciplines: the number before the colon in the upper half.
const ROOT: u32 = 1 << 16;
const INGRESS: u32 = 0xffff << 16;
/// The first filter of the table that u32 always has. Named, it is made once only.
const FILTER: u32 = 0x8000_0800;
/// `ETH_P_ALL` in network order, below the priority.
const ALL_PROTOCOLS: u32 = 1 << 16 | 0x0300;
/// `TC_U32_TERMINAL`: what matches goes no further.
const TERMINAL: u8 = 1;
/// `TC_ACT_STOLEN`: the packet goes on elsewhere alone.
const STOLEN: u32 = 4;
/// `TCA_EGRESS_REDIR`: as if the other link had sent it.
const REDIRECT: u32 = 1;

/// A bucket that fills with the given rate; a packet is sent when there are as many bytes in it as the
/// packet has. Source: tc-tbf(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes per second; more than none.
    pub rate: u64,
    /// What the bucket holds, in bytes; a packet that is longer never gets through, unless it can be
    /// cut.
    pub burst: u32,
    /// How many bytes may wait; what comes then is dropped.
    pub limit: u32,
}

/// A queueing discipline of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The link's number.
    pub link: u32,
    /// Such as `tbf`, `ingress` or `noqueue`.
    pub kind: String,
    /// Of a token bucket, in bytes per second.
    pub rate: Option<u64>,
}

impl RouteSocket {
    /// Has a link send through a token bucket, in place of what it had before.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when the kernel has no `sch_tbf`, or the link is gone.
    pub fn set_token_bucket(&mut self, link: u32, bucket: TokenBucket) -> Result<(), Error> {
        let flags = ACKNOWLEDGED | NLM_F_CREATE | NLM_F_REPLACE;
        let mut message = Message::new(RTM_NEWQDISC, flags, &tcmsg(link, ROOT, TC_H_ROOT, 0));
        message.string(TCA_KIND, "tbf");
        message.nested(TCA_OPTIONS, |options| {
            let mut parameters = [0; TBF_QOPT];
            parameters[1] = ETHERNET;
            let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
            parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
            parameters[24..28].copy_from_slice(&bucket.limit.to_ne_bytes());
            options.attribute(TCA_TBF_PARMS, &parameters);
            options.attribute(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes());
            options.u32(TCA_TBF_BURST, bucket.burst);
        });
        self.0.request(message, &format!("limit the rate of link number {link}"))
    }

    /// Leads all that a link receives through what link `through` sends with, and then on as if
    /// nothing had been. Without effect if it is so already.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when the kernel lacks `sch_ingress`, `cls_u32` or `act_mirred`, or one
    /// of the links is gone.
    pub fn redirect_received(&mut self, link: u32, through: u32) -> Result<(), Error> {
        let flags = ACKNOWLEDGED | NLM_F_CREATE | NLM_F_EXCL;
        let mut message = Message::new(RTM_NEWQDISC, flags, &tcmsg(link, INGRESS, TC_H_INGRESS, 0));
        message.string(TCA_KIND, "ingress");
        let operation = format!("see what link number {link} receives");
        unless_exists(self.0.request(message, &operation))?;

        let fixed = tcmsg(link, FILTER, INGRESS, ALL_PROTOCOLS);
        let mut message = Message::new(RTM_NEWTFILTER, flags, &fixed);
        message.string(TCA_KIND, "u32");
        message.nested(TCA_OPTIONS, |options| {
            // One key that compares nothing: everything matches.
            let mut selector = [0; 32];
            selector[0] = TERMINAL;
            selector[2] = 1;
            options.attribute(TCA_U32_SEL, &selector);
            options.nested(TCA_U32_ACT, |actions| {
                actions.nested(1, |action| {
                    action.string(TCA_ACT_KIND, "mirred");
                    action.nested(TCA_ACT_OPTIONS, |options| {
                        let numbers = [0, 0, STOLEN, 0, 0, REDIRECT, through];
                        let parameters = numbers.map(u32::to_ne_bytes).concat();
                        options.attribute(TCA_MIRRED_PARMS, &parameters);
                    });
                });
            });
        });
        let operation = format!("redirect what link number {link} receives to number {through}");
        unless_exists(self.0.request(message, &operation))
    }

    /// Makes a link that gives back what it is made to send, as if it had been received where it came
    /// from, switches it on and returns it. Source: `drivers/net/ifb.c`.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] when the name is taken, [`Error::is_unsupported`] when the kernel has no
    /// `ifb`.
    pub fn create_ifb(&mut self, name: &str, group: u32, mtu: u32) -> Result<Link, Error> {
        let flags = ACKNOWLEDGED | NLM_F_CREATE | NLM_F_EXCL;
        let mut message = Message::new(RTM_NEWLINK, flags, &ifinfomsg(0, IFF_UP, IFF_UP));
        message.string(IFLA_IFNAME, name);
        message.u32(IFLA_MTU, mtu);
        message.u32(IFLA_GROUP, group);
        message.nested(IFLA_LINKINFO, |info| info.attribute(IFLA_INFO_KIND, b"ifb"));
        self.create(message, name, "ifb")
    }

    /// The queueing disciplines of all links.
    pub fn qdiscs(&mut self) -> Result<Vec<Qdisc>, Error> {
        let message = Message::new(RTM_GETQDISC, LIST, &tcmsg(0, 0, 0, 0));
        self.0.dump(&message, "list the queueing disciplines", Qdisc::read)
    }
}

impl Qdisc {
    fn read(message: Received<'_>) -> Option<Self> {
        if message.kind != RTM_NEWQDISC {
            return None;
        }
        let attributes = Attributes::after(message.body, TCMSG);
        let kind = attributes.string(TCA_KIND)?;
        let options = attributes.nested(TCA_OPTIONS);
        let rate = || {
            let wide = options.get(TCA_TBF_RATE64).and_then(|it| <[u8; 8]>::try_from(it).ok());
            let narrow = || read_u32(options.get(TCA_TBF_PARMS)?, 8).map(u64::from);
            wide.map(u64::from_ne_bytes).or_else(narrow)
        };
        let rate = if kind == "tbf" { rate() } else { None };
        Some(Self { link: read_u32(message.body, 4)?, kind, rate })
    }
}

fn tcmsg(link: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut bytes = [0; TCMSG];
    bytes[4..8].copy_from_slice(&link.to_ne_bytes());
    bytes[8..12].copy_from_slice(&handle.to_ne_bytes());
    bytes[12..16].copy_from_slice(&parent.to_ne_bytes());
    bytes[16..20].copy_from_slice(&info.to_ne_bytes());
    bytes
}
