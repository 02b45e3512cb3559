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
//!     chain prerouting { type nat hook prerouting priority dstnat
//!         ip daddr != 127.0.0.0/8 fib daddr type local jump host_ports
//!     }
//!     chain output { type nat hook output priority dstnat
//!         fib daddr type local jump host_ports
//!     }
//!     chain postrouting { type nat hook postrouting priority srcnat
//!         ip saddr RANGE ip daddr PEER accept
//!         ip saddr RANGE oifname != "mainstay0" masquerade
//!         ip saddr RANGE ip daddr RANGE ct status dnat masquerade
//!         ip saddr 127.0.0.0/8 oifname "mainstay0" masquerade
//!     }
//! }
//! ```
//!
//! - Sandboxes of other machines that know the way back (PEER) see who talks to them; only those with
//!   an address of the current range are known there. The rest stands there for each range.
//! - A sandbox that talks to a host port of a sandbox, perhaps its own, gets its answers from the
//!   machine's address only if they pass through the machine, hence the second masquerade.
//! - `127.0.0.1` of the machine reaches host ports by way of the bridge's `route_localnet`, which
//!   would open the machine's loopback services to the sandboxes (CVE-2020-8558): the guard shuts
//!   that, and `prerouting` leaves 127.0.0.0/8 alone so that ports published on 127.0.0.1 cannot
//!   be reached from the neighbouring machines either.
//! - Nothing here filters: sandboxes reach each other and the machine, as Kubernetes promises.

use mainstay_linux::nftables::{
    BaseChain, Batch, Chain, ChainKind, Comparison, Ct, DataType, Element, Expression, Family,
    Hook, Map, Meta, PayloadBase, Policy, Register, Rule, Verdict, priority,
};

use super::Range;
use super::range::Ranges;

pub(super) const HOST_PORTS: &str = "host_ports";
pub(super) const HOST_PORTS_BY_ADDRESS: &str = "host_ports_by_address";

/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// `RTN_LOCAL`: an address of this machine.
const LOCAL: u32 = 2;
/// `IPS_DST_NAT`: the connection's destination was translated.
const TRANSLATED: u32 = 1 << 5;
const LOOPBACK: (u32, u32) = (0x7f00_0000, 0xff00_0000);
/// Where an IPv4 header has its addresses.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

const R0: Register = Register(0);
const R1: Register = Register(1);
const R2: Register = Register(2);

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
        chain("prerouting", base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT)),
        chain("output", base(ChainKind::Nat, Hook::Output, priority::DSTNAT)),
        chain("postrouting", base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT)),
    ]
}

/// Whose addresses are whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Territory {
    pub(super) ranges: Ranges,
    /// Of machines that know the way to the current range.
    pub(super) peers: Vec<Range>,
}

/// The rules, in the order of the chains. Their handles are 0.
pub(super) fn rules(bridge: &str, territory: &Territory) -> Vec<Rule> {
    let jump = || Expression::Verdict(Verdict::Jump(HOST_PORTS.into()));
    let drop = || Expression::Verdict(Verdict::Drop);
    let of = |range: Range| (range.network().to_bits(), range.mask());
    let translate = |map: &str| {
        [
            Expression::Lookup { set: map.into(), from: R0, to: Some(R0), inverted: false },
            Expression::Dnat { address: R0, port: R1 },
        ]
    };
    let rule = |chain: &str, comment: &str, expressions: Vec<Expression>| {
        let mut all = equal(Meta::NetworkProtocol, vec![IPV4]).to_vec();
        all.extend(expressions);
        Rule { chain: chain.into(), handle: 0, expressions: all, comment: comment.into() }
    };
    let mut rules = vec![
        rule(
            HOST_PORTS,
            "ports of one address",
            [
                vec![payload(PayloadBase::Network, DESTINATION, 4, R0)],
                port_key(R1, R2).to_vec(),
                translate(HOST_PORTS_BY_ADDRESS).to_vec(),
            ]
            .concat(),
        ),
        rule(
            HOST_PORTS,
            "ports of all addresses",
            [port_key(R0, R1).to_vec(), translate(HOST_PORTS).to_vec()].concat(),
        ),
        rule(
            "guard",
            "this machine's loopback is its own",
            [
                equal(Meta::InputName, link_name(bridge)).to_vec(),
                address(DESTINATION, Comparison::Equal, LOOPBACK).to_vec(),
                vec![drop()],
            ]
            .concat(),
        ),
        rule(
            "guard",
            "nobody else has a loopback address",
            [
                equal(Meta::InputName, link_name(bridge)).to_vec(),
                address(SOURCE, Comparison::Equal, LOOPBACK).to_vec(),
                vec![drop()],
            ]
            .concat(),
        ),
        rule(
            "prerouting",
            "host ports, from elsewhere",
            [
                address(DESTINATION, Comparison::NotEqual, LOOPBACK).to_vec(),
                local_destination().to_vec(),
                vec![jump()],
            ]
            .concat(),
        ),
        rule(
            "output",
            "host ports, from this machine",
            [local_destination().to_vec(), vec![jump()]].concat(),
        ),
    ];
    let current = of(territory.ranges.current);
    for peer in &territory.peers {
        rules.push(rule(
            "postrouting",
            "to the sandboxes of another machine",
            [
                address(SOURCE, Comparison::Equal, current).to_vec(),
                address(DESTINATION, Comparison::Equal, of(*peer)).to_vec(),
                vec![Expression::Verdict(Verdict::Accept)],
            ]
            .concat(),
        ));
    }
    for inside in territory.ranges.all().map(of) {
        rules.push(rule(
            "postrouting",
            "out into the world",
            [
                address(SOURCE, Comparison::Equal, inside).to_vec(),
                output(Comparison::NotEqual, bridge).to_vec(),
                vec![Expression::Masquerade],
            ]
            .concat(),
        ));
        rules.push(rule(
            "postrouting",
            "host ports, from a sandbox",
            [
                address(SOURCE, Comparison::Equal, inside).to_vec(),
                address(DESTINATION, Comparison::Equal, inside).to_vec(),
                translated().to_vec(),
                vec![Expression::Masquerade],
            ]
            .concat(),
        ));
    }
    rules.push(rule(
        "postrouting",
        "host ports, from 127.0.0.1",
        [
            address(SOURCE, Comparison::Equal, LOOPBACK).to_vec(),
            output(Comparison::Equal, bridge).to_vec(),
            vec![Expression::Masquerade],
        ]
        .concat(),
    ));
    rules
}

/// Everything, in place of what is there now.
pub(super) fn replace(
    table: &str,
    bridge: &str,
    territory: &Territory,
    (anywhere, by_address): (&[Element], &[Element]),
) -> Batch {
    let mut batch = Batch::new();
    // Deleting what may not exist: made first, it does.
    batch.add_table(Family::Inet, table);
    batch.delete_table(Family::Inet, table);
    batch.add_table(Family::Inet, table);
    let data = &[DataType::Ipv4Address, DataType::Port];
    let key = &[DataType::TransportProtocol, DataType::Port];
    batch.add_map(Family::Inet, table, Map { name: HOST_PORTS, key, data });
    let key = &[DataType::Ipv4Address, DataType::TransportProtocol, DataType::Port];
    batch.add_map(Family::Inet, table, Map { name: HOST_PORTS_BY_ADDRESS, key, data });
    for chain in chains(table) {
        batch.add_chain(&chain);
    }
    for Rule { chain, expressions, comment, .. } in rules(bridge, territory) {
        batch.append_rule(Family::Inet, table, &chain, &expressions, &comment);
    }
    batch.add_elements(Family::Inet, table, HOST_PORTS, anywhere);
    batch.add_elements(Family::Inet, table, HOST_PORTS_BY_ADDRESS, by_address);
    batch
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

fn payload(base: PayloadBase, offset: u32, length: u32, to: Register) -> Expression {
    Expression::Payload { base, offset, length, to }
}

fn address(offset: u32, comparison: Comparison, (network, mask): (u32, u32)) -> [Expression; 3] {
    [
        payload(PayloadBase::Network, offset, 4, R0),
        Expression::Bitwise {
            from: R0,
            to: R0,
            mask: mask.to_be_bytes().to_vec(),
            xor: vec![0; 4],
        },
        Expression::Compare { from: R0, comparison, data: network.to_be_bytes().to_vec() },
    ]
}

fn port_key(protocol: Register, port: Register) -> [Expression; 2] {
    [
        Expression::Meta { key: Meta::TransportProtocol, to: protocol },
        payload(PayloadBase::Transport, 2, 2, port),
    ]
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
