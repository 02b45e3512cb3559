//! The instance's table of nf_tables: what must be in it.
//!
//! ```text
//! table inet mainstay {
//!     map host_ports {
//!         type inet_proto . inet_service : ipv4_addr . inet_service
//!     }
//!     map host_ports_by_address {
//!         type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
//!     }
//!     chain host_ports {
//!         dnat ip to ip daddr . meta l4proto . th dport map @host_ports_by_address
//!         dnat ip to meta l4proto . th dport map @host_ports
//!     }
//!     chain guard { type filter hook prerouting priority raw
//!         iifname "mainstay0" ip daddr 127.0.0.0/8 drop
//!         iifname "mainstay0" ip saddr 127.0.0.0/8 drop
//!     }
//!     chain questions { type nat hook prerouting priority dstnat - 1
//!         iifname "mainstay0" ip daddr GATEWAY udp dport 53 dnat ip to GATEWAY:253
//!         iifname "mainstay0" ip daddr GATEWAY tcp dport 53 dnat ip to GATEWAY:253
//!     }
//!     chain own_questions { type nat hook output priority dstnat - 1
//!         ip daddr GATEWAY udp dport 53 dnat ip to GATEWAY:253
//!         ip daddr GATEWAY tcp dport 53 dnat ip to GATEWAY:253
//!     }
//!     chain prerouting { type nat hook prerouting priority dstnat
//!         ip daddr != 127.0.0.0/8 fib daddr type local jump host_ports
//!     }
//!     chain output { type nat hook output priority dstnat
//!         fib daddr type local jump host_ports
//!     }
//!     chain postrouting { type nat hook postrouting priority srcnat
//!         ip daddr GATEWAY th dport 253 accept
//!         ip saddr RANGE ip daddr PEER accept
//!         ip saddr RANGE oifname != "mainstay0" masquerade
//!         ip saddr RANGE ip daddr RANGE ct status dnat masquerade
//!         ip saddr 127.0.0.0/8 oifname "mainstay0" masquerade
//!     }
//! }
//! ```
//!
//! - With ranges of IPv6, each of these rules is there again for them, with maps `host_ports6` and
//!   `host_ports6_by_address`, but for what is there for 127.0.0.0/8: over a link the kernel takes nothing
//!   from or to `::1` (RFC 4291, section 2.5.3), not even an answer whose address it has translated itself
//!   (`net/ipv6/route.c`, rt6_need_strict). So host ports cannot be reached by `::1`; there the reserved
//!   port refuses connections at once, and whoever asks for `localhost` goes on to `127.0.0.1`.
//! - Where there is a resolver, what sandboxes and the machine ask at the bridge's own addresses (GATEWAY, of each
//!   range) comes to it, whoever else has port 53 of all of the machine's addresses: a sandbox, a server of the
//!   machine, or another program's rules (hence before all of those); and from the address that it has, by which
//!   the resolver knows the machine's own. Why it listens at another port: [`super::resolver`].
//! - Sandboxes of other machines that know the way back (PEER) see who talks to them; only those with
//!   an address of a current range are known there. The rest stands there for each range.
//! - A sandbox that talks to a host port of a sandbox, perhaps its own, gets its answers from the
//!   machine's address only if they pass through the machine, hence the second masquerade.
//! - `127.0.0.1` of the machine reaches host ports by way of the bridge's `route_localnet`, which
//!   would open the machine's loopback services to the sandboxes (CVE-2020-8558): the guard shuts
//!   that, and `prerouting` leaves 127.0.0.0/8 alone so that ports published on 127.0.0.1 cannot
//!   be reached from the neighbouring machines either.
//! - Nothing here filters: sandboxes reach each other and the machine, as Kubernetes promises.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mainstay_linux::nftables::{
    BaseChain, Batch, Chain, ChainKind, Comparison, Ct, DataType, Element, Expression, Family,
    Hook, Map, Meta, PayloadBase, Policy, Register, Rule, Verdict, priority,
};

use super::range::{Ranges, octets};
use super::resolver::{ASKED, PORT};
use super::{IpFamily, Range};

/// The chain of the ports.
const HOST_PORTS: &str = "host_ports";

/// A map of the ports of the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostPortMap {
    pub(super) name: &'static str,
    /// Which addresses it leads to.
    pub(super) family: IpFamily,
    /// Whether a port is one of one address, which is then part of the key.
    pub(super) by_address: bool,
}

/// All of them. They are there whether there are addresses of their kind or not.
pub(super) const MAPS: [HostPortMap; 4] = [
    HostPortMap { name: "host_ports_by_address", family: IpFamily::V4, by_address: true },
    HostPortMap { name: HOST_PORTS, family: IpFamily::V4, by_address: false },
    HostPortMap { name: "host_ports6_by_address", family: IpFamily::V6, by_address: true },
    HostPortMap { name: "host_ports6", family: IpFamily::V6, by_address: false },
];

/// What is in each of [`MAPS`].
pub(super) type Elements = [Vec<Element>; MAPS.len()];

/// `RTN_LOCAL`: an address of this machine.
const LOCAL: u32 = 2;
/// `IPS_DST_NAT`: the connection's destination was translated.
const TRANSLATED: u32 = 1 << 5;
/// 127.0.0.0/8, as an address and its mask.
const LOOPBACK: Network =
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), IpAddr::V4(Ipv4Addr::new(255, 0, 0, 0)));
const LOOPBACK6: Network =
    (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));

/// An address, and another one whose bits are set for the network's part.
type Network = (IpAddr, IpAddr);

/// Which of its addresses a header is asked for.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

const R0: Register = Register(0);

/// The protocols of questions for names: UDP and TCP.
const QUESTIONS: [u8; 2] = [17, 6];
/// Before anybody else translates anything.
const FIRST: i32 = priority::DSTNAT - 1;

/// The chains, the called one before its callers.
pub(super) fn chains(table: &str) -> Vec<Chain> {
    let chain = |name: &str, base: Option<(ChainKind, Hook, i32)>| Chain {
        family: Family::Inet,
        table: table.into(),
        name: name.into(),
        base: base.map(|(kind, hook, priority)| BaseChain {
            kind,
            hook,
            priority,
            policy: Policy::Accept,
        }),
    };
    let base = |kind, hook, priority| Some((kind, hook, priority));
    vec![
        chain(HOST_PORTS, None),
        chain("guard", base(ChainKind::Filter, Hook::Prerouting, priority::RAW)),
        chain("questions", base(ChainKind::Nat, Hook::Prerouting, FIRST)),
        chain("own_questions", base(ChainKind::Nat, Hook::Output, FIRST)),
        chain("prerouting", base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT)),
        chain("output", base(ChainKind::Nat, Hook::Output, priority::DSTNAT)),
        chain("postrouting", base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT)),
    ]
}

/// Whose addresses are whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Territory {
    pub(super) ranges: Ranges,
    /// Of machines that know the way to the current range of their kind.
    pub(super) peers: Vec<Range>,
    /// Whether what is asked at the gateways is for the resolver.
    pub(super) resolver: bool,
}

/// The rules, in the order of the chains. Their handles are 0.
pub(super) fn rules(bridge: &str, territory: &Territory) -> Vec<Rule> {
    territory.ranges.families().flat_map(|family| rules_of(family, bridge, territory)).collect()
}

fn rules_of(family: IpFamily, bridge: &str, territory: &Territory) -> Vec<Rule> {
    let jump = || Expression::Verdict(Verdict::Jump(HOST_PORTS.into()));
    let of = |range: Range| (range.network(), range.mask());
    let rule = |chain: &str, comment: &str, parts: &[&[Expression]]| {
        let mut all = equal(Meta::NetworkProtocol, vec![protocol(family)]).to_vec();
        all.extend(parts.iter().flat_map(|part| part.iter().cloned()));
        Rule { chain: chain.into(), handle: 0, expressions: all, comment: comment.into() }
    };
    let from = |network| address(End::Source, Comparison::Equal, network);
    let to = |network| address(End::Destination, Comparison::Equal, network);
    let mut rules: Vec<Rule> = MAPS
        .iter()
        .filter(|map| map.family == family)
        .map(|map| {
            let comment = match map.by_address {
                true => "ports of one address",
                false => "ports of all addresses",
            };
            rule(HOST_PORTS, comment, &[&look_up(*map)])
        })
        .collect();
    let from_bridge = equal(Meta::InputName, link_name(bridge));
    if family == IpFamily::V4 {
        let drop = [Expression::Verdict(Verdict::Drop)];
        rules.extend([
            rule(
                "guard",
                "this machine's loopback is its own",
                &[&from_bridge, &to(LOOPBACK), &drop],
            ),
            rule(
                "guard",
                "nobody else has a loopback address",
                &[&from_bridge, &from(LOOPBACK), &drop],
            ),
        ]);
    }
    let elsewhere = |loopback| address(End::Destination, Comparison::NotEqual, loopback).to_vec();
    let (prerouting, out) = match family {
        IpFamily::V4 => (elsewhere(LOOPBACK), Vec::new()),
        IpFamily::V6 => (Vec::new(), elsewhere(LOOPBACK6)),
    };
    let gateways = territory.ranges.all().filter(|range| range.family() == family);
    for gateway in gateways.map(Range::gateway).filter(|_| territory.resolver) {
        let to_gateway = to((gateway, all_bits(family)));
        let comment = "names of sandboxes";
        for (chain, from) in [("questions", &from_bridge[..]), ("own_questions", &[])] {
            for number in QUESTIONS {
                let over = equal(Meta::TransportProtocol, vec![number]);
                let parts: [&[Expression]; 5] =
                    [from, &to_gateway, &over, &to_port(ASKED), &translate(gateway, PORT)];
                rules.push(rule(chain, comment, &parts));
            }
        }
        let accept = [Expression::Verdict(Verdict::Accept)];
        rules.push(rule("postrouting", comment, &[&to_gateway, &to_port(PORT), &accept]));
    }
    let local = local_destination();
    rules.extend([
        rule("prerouting", "host ports, from elsewhere", &[&prerouting, &local, &[jump()]]),
        rule("output", "host ports, from this machine", &[&out, &local, &[jump()]]),
    ]);
    let peers = territory.peers.iter().filter(|peer| peer.family() == family);
    for (peer, current) in
        peers.filter_map(|peer| Some((*peer, territory.ranges.current_of(family)?)))
    {
        rules.push(rule(
            "postrouting",
            "to the sandboxes of another machine",
            &[&from(of(current)), &to(of(peer)), &[Expression::Verdict(Verdict::Accept)]],
        ));
    }
    for inside in territory.ranges.all().filter(|range| range.family() == family).map(of) {
        rules.push(rule(
            "postrouting",
            "out into the world",
            &[&from(inside), &output(Comparison::NotEqual, bridge), &[Expression::Masquerade]],
        ));
        rules.push(rule(
            "postrouting",
            "host ports, from a sandbox",
            &[&from(inside), &to(inside), &translated(), &[Expression::Masquerade]],
        ));
    }
    if family == IpFamily::V4 {
        rules.push(rule(
            "postrouting",
            "host ports, from 127.0.0.1",
            &[&from(LOOPBACK), &output(Comparison::Equal, bridge), &[Expression::Masquerade]],
        ));
    }
    rules
}

/// Everything, in place of what is there now.
pub(super) fn replace(
    table: &str,
    bridge: &str,
    territory: &Territory,
    elements: &Elements,
) -> Batch {
    let mut batch = Batch::new();
    // Deleting what may not exist: made first, it does.
    batch.add_table(Family::Inet, table);
    batch.delete_table(Family::Inet, table);
    batch.add_table(Family::Inet, table);
    for map in MAPS {
        let address = match map.family {
            IpFamily::V4 => DataType::Ipv4Address,
            IpFamily::V6 => DataType::Ipv6Address,
        };
        let key = [address, DataType::TransportProtocol, DataType::Port];
        let key = if map.by_address { &key[..] } else { &key[1..] };
        let map = Map { name: map.name, key, data: &[address, DataType::Port] };
        batch.add_map(Family::Inet, table, map);
    }
    for chain in chains(table) {
        batch.add_chain(&chain);
    }
    for Rule { chain, expressions, comment, .. } in rules(bridge, territory) {
        batch.append_rule(Family::Inet, table, &chain, &expressions, &comment);
    }
    for (map, elements) in MAPS.iter().zip(elements) {
        batch.add_elements(Family::Inet, table, map.name, elements);
    }
    batch
}

/// `NFPROTO_*`.
pub(super) fn protocol(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 2,
        IpFamily::V6 => 10,
    }
}

/// A link's name as it is compared whole.
pub(super) fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn equal(key: Meta, data: Vec<u8>) -> [Expression; 2] {
    [
        Expression::Meta { key, to: R0 },
        Expression::Compare { from: R0, comparison: Comparison::Equal, data },
    ]
}

fn output(comparison: Comparison, bridge: &str) -> [Expression; 2] {
    [
        Expression::Meta { key: Meta::OutputName, to: R0 },
        Expression::Compare { from: R0, comparison, data: link_name(bridge) },
    ]
}

/// The address of a packet, in registers from the first one on.
fn address_of_packet(family: IpFamily, end: End) -> Expression {
    // Where the header has it, and how long it is.
    let (offset, length) = match (family, end) {
        (IpFamily::V4, End::Source) => (12, 4),
        (IpFamily::V4, End::Destination) => (16, 4),
        (IpFamily::V6, End::Source) => (8, 16),
        (IpFamily::V6, End::Destination) => (24, 16),
    };
    Expression::Payload { base: PayloadBase::Network, offset, length, to: R0 }
}

fn address(end: End, comparison: Comparison, (network, mask): Network) -> [Expression; 3] {
    let mask = octets(mask);
    [
        address_of_packet(IpFamily::of(network), end),
        Expression::Bitwise { from: R0, to: R0, xor: vec![0; mask.len()], mask },
        Expression::Compare { from: R0, comparison, data: octets(network) },
    ]
}

/// How many registers an address takes.
fn width(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 1,
        IpFamily::V6 => 4,
    }
}

/// Sends a connection there.
fn translate(address: IpAddr, port: u16) -> [Expression; 3] {
    let family = IpFamily::of(address);
    let behind = Register(width(family));
    [
        Expression::Immediate { to: R0, data: octets(address) },
        Expression::Immediate { to: behind, data: port.to_be_bytes().to_vec() },
        Expression::Dnat { ipv6: family == IpFamily::V6, address: R0, port: behind },
    ]
}

/// Sends a connection where the map says, if it does.
fn look_up(map: HostPortMap) -> Vec<Expression> {
    let width = width(map.family);
    let mut expressions = Vec::new();
    let mut next = 0;
    if map.by_address {
        expressions.push(address_of_packet(map.family, End::Destination));
        next = width;
    }
    expressions.extend([
        Expression::Meta { key: Meta::TransportProtocol, to: Register(next) },
        Expression::Payload {
            base: PayloadBase::Transport,
            offset: 2,
            length: 2,
            to: Register(next + 1),
        },
        Expression::Lookup { set: map.name.into(), from: R0, to: Some(R0), inverted: false },
        Expression::Dnat { ipv6: map.family == IpFamily::V6, address: R0, port: Register(width) },
    ]);
    expressions
}

fn local_destination() -> [Expression; 2] {
    [
        Expression::FibDestinationType { to: R0 },
        Expression::Compare {
            from: R0,
            comparison: Comparison::Equal,
            data: LOCAL.to_ne_bytes().to_vec(),
        },
    ]
}

/// The mask of one address.
fn all_bits(family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => Ipv4Addr::BROADCAST.into(),
        IpFamily::V6 => Ipv6Addr::from_bits(u128::MAX).into(),
    }
}

fn to_port(port: u16) -> [Expression; 2] {
    [
        Expression::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: R0 },
        Expression::Compare {
            from: R0,
            comparison: Comparison::Equal,
            data: port.to_be_bytes().to_vec(),
        },
    ]
}

fn translated() -> [Expression; 3] {
    [
        Expression::Ct { key: Ct::Status, to: R0 },
        Expression::Bitwise {
            from: R0,
            to: R0,
            mask: TRANSLATED.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        },
        Expression::Compare { from: R0, comparison: Comparison::NotEqual, data: vec![0; 4] },
    ]
}
