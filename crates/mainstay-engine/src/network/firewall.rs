//! Other programs' packet filters: do they let the sandboxes' traffic through?
//!
//! A packet passes only if no base chain of any table drops it; ours cannot overrule another. So
//! the chains at the hooks in question are run here, on paper, with the few packets that matter.
//! What such a packet is not known to have (its addresses, its ports) cannot decide: a rule that
//! asks for it is passed over, and the answer is then called uncertain.

use std::collections::BTreeMap;

use mainstay_linux::nftables::{
    Chain, ChainKind, Comparison, Ct, Expression, Family, Hook, Meta, Policy, Register, Rule,
    Verdict,
};

use super::IpFamily;
use super::finding::{DroppingRule, Traffic};
use super::ruleset::{link_name, protocol};

/// Of nft(8)'s ct state.
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;
/// `IPS_DST_NAT`.
const TRANSLATED: u32 = 1 << 5;
/// `NFT_JUMP_STACK_SIZE`: the kernel accepts no deeper rulesets.
const DEPTH: u32 = 16;

/// A base chain that drops traffic of the sandboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropping {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) chain: String,
    /// The rule that drops; `None` if the policy does.
    pub(super) rule: Option<DroppingRule>,
    /// Whether every rule on the way could be understood.
    pub(super) certain: bool,
    pub(super) traffic: Vec<Traffic>,
}

/// Which chains drop which traffic of the sandboxes behind `bridge`.
///
/// `rules` holds the rules of the tables of all base chains in `chains` that [`matters`].
pub(super) fn dropping(
    chains: &[Chain],
    rules: &BTreeMap<(Family, String), Vec<Rule>>,
    bridge: &str,
    others: Others,
) -> Vec<Dropping> {
    let mut found = Vec::new();
    for chain in chains.iter().filter(|chain| matters(chain, others.family)) {
        let Some(base) = chain.base else { continue };
        let Some(rules) = rules.get(&(chain.family, chain.table.clone())) else { continue };
        let mut dropping: Option<Dropping> = None;
        for (traffic, packet) in packets(bridge, base.hook, others) {
            let mut run = Run { rules, packet, certain: true };
            let rule = match run.chain(&chain.name, 0) {
                Some(Fate::Accepted) => continue,
                Some(Fate::Dropped(rule)) => Some(rule),
                None if base.policy == Policy::Accept => continue,
                None => None,
            };
            let dropping = dropping.get_or_insert_with(|| Dropping {
                family: chain.family,
                table: chain.table.clone(),
                chain: chain.name.clone(),
                rule,
                certain: run.certain,
                traffic: Vec::new(),
            });
            if dropping.traffic.last() != Some(&traffic) {
                dropping.traffic.push(traffic);
            }
        }
        found.extend(dropping);
    }
    found
}

/// Whose packets there are besides those that are always there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Others {
    /// Which kind of packets.
    pub(super) family: IpFamily,
    /// Frames between two ports of a bridge go through these hooks too
    /// (`net.bridge.bridge-nf-call-iptables`).
    pub(super) bridged: bool,
    /// Other machines' sandboxes talk to those of this one.
    pub(super) peers: bool,
}

/// Whether a chain decides on packets of a kind that pass through the machine or are for it.
pub(super) fn matters(chain: &Chain, family: IpFamily) -> bool {
    let own = match family {
        IpFamily::V4 => Family::Ip,
        IpFamily::V6 => Family::Ip6,
    };
    (chain.family == own || chain.family == Family::Inet)
        && chain.base.is_some_and(|base| {
            base.kind == ChainKind::Filter && matches!(base.hook, Hook::Forward | Hook::Input)
        })
}

/// What is known of a packet.
#[derive(Clone, Debug)]
struct Packet {
    protocol: u8,
    input: Value,
    output: Value,
    state: u32,
    status: u32,
}

/// What is known of a value that a rule loads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Is(Vec<u8>),
    /// Anything but that.
    IsNot(Vec<u8>),
    /// The packet has no such thing, and asking for it ends the rule.
    Absent,
    Unknown,
}

/// The packets of both directions of a connection, new ones and answers, at the given hook.
fn packets(bridge: &str, hook: Hook, others: Others) -> Vec<(Traffic, Packet)> {
    let here = || Value::Is(link_name(bridge));
    let elsewhere = || Value::IsNot(link_name(bridge));
    let protocol = protocol(others.family);
    let packet = |input, output, state, status| Packet { protocol, input, output, state, status };
    if hook == Hook::Input {
        return vec![
            (Traffic::ToMachine, packet(here(), Value::Absent, NEW, 0)),
            (Traffic::Questions, packet(here(), Value::Absent, NEW, TRANSLATED)),
        ];
    }
    let mut packets = vec![
        (Traffic::Leaving, packet(here(), elsewhere(), NEW, 0)),
        (Traffic::Leaving, packet(elsewhere(), here(), ESTABLISHED, 0)),
        (Traffic::Entering, packet(elsewhere(), here(), NEW, TRANSLATED)),
        (Traffic::Entering, packet(here(), elsewhere(), ESTABLISHED, TRANSLATED)),
    ];
    if others.peers {
        packets.push((Traffic::FromPeers, packet(elsewhere(), here(), NEW, 0)));
        packets.push((Traffic::FromPeers, packet(here(), elsewhere(), ESTABLISHED, 0)));
    }
    if others.bridged {
        packets.push((Traffic::Between, packet(here(), here(), NEW, 0)));
    }
    packets
}

/// What a rule made of a packet.
enum Fate {
    Accepted,
    Dropped(DroppingRule),
}

/// One packet's way through the chains of a table.
struct Run<'a> {
    rules: &'a [Rule],
    packet: Packet,
    certain: bool,
}

impl Run<'_> {
    /// What the chain decides; `None` if the packet comes out at its end.
    fn chain(&mut self, name: &str, depth: u32) -> Option<Fate> {
        if depth > DEPTH {
            return None;
        }
        let rules = self.rules;
        for rule in rules.iter().filter(|rule| rule.chain == name) {
            match self.verdict(rule) {
                None => {}
                Some(Verdict::Accept) => return Some(Fate::Accepted),
                Some(Verdict::Drop) => {
                    let rule = DroppingRule { chain: name.into(), handle: rule.handle };
                    return Some(Fate::Dropped(rule));
                }
                Some(Verdict::Return) => return None,
                Some(Verdict::Goto(chain)) => return self.chain(&chain, depth + 1),
                Some(Verdict::Jump(chain)) => {
                    if let Some(fate) = self.chain(&chain, depth + 1) {
                        return Some(fate);
                    }
                }
            }
        }
        None
    }

    /// What the rule decides about the packet, if it does.
    fn verdict(&mut self, rule: &Rule) -> Option<Verdict> {
        let mut registers: BTreeMap<u8, Value> = BTreeMap::new();
        let load = |registers: &mut BTreeMap<u8, Value>, to: Register, value: Value| {
            registers.insert(to.0, value);
        };
        let mut understood = true;
        for expression in &rule.expressions {
            match expression {
                Expression::Meta { key, to } => match self.packet.meta(*key) {
                    Value::Absent => return None,
                    value => load(&mut registers, *to, value),
                },
                Expression::Ct { key, to } => {
                    let number = match key {
                        Ct::State => self.packet.state,
                        Ct::Status => self.packet.status,
                    };
                    load(&mut registers, *to, Value::Is(number.to_ne_bytes().to_vec()));
                }
                Expression::Immediate { to, data } => {
                    load(&mut registers, *to, Value::Is(data.clone()));
                }
                Expression::Payload { to, .. } | Expression::FibDestinationType { to } => {
                    load(&mut registers, *to, Value::Unknown);
                }
                Expression::Bitwise { from, to, mask, xor } => {
                    let value = registers
                        .get(&from.0)
                        .map_or(Value::Unknown, |value| value.masked(mask, xor));
                    load(&mut registers, *to, value);
                }
                Expression::Compare { from, comparison, data } => {
                    let value = registers.get(&from.0).unwrap_or(&Value::Unknown);
                    match value.compare(*comparison, data) {
                        Some(true) => {}
                        Some(false) => return None,
                        None => understood = false,
                    }
                }
                Expression::Lookup { to, .. } => {
                    understood = false;
                    if let Some(to) = to {
                        load(&mut registers, *to, Value::Unknown);
                    }
                }
                Expression::Counter => {}
                Expression::XtablesMatch(name) if name == "comment" => {}
                Expression::Other(name) if name == "log" => {}
                Expression::XtablesTarget(name) if name == "LOG" || name == "NFLOG" => {}
                Expression::Verdict(verdict) => return self.decide(understood, verdict.clone()),
                Expression::Other(name) if name == "reject" => {
                    return self.decide(understood, Verdict::Drop);
                }
                Expression::XtablesTarget(name) if name == "REJECT" || name == "DROP" => {
                    return self.decide(understood, Verdict::Drop);
                }
                Expression::Dnat { .. }
                | Expression::Masquerade
                | Expression::XtablesMatch(_)
                | Expression::XtablesTarget(_)
                | Expression::Other(_) => understood = false,
            }
        }
        None
    }

    fn decide(&mut self, understood: bool, verdict: Verdict) -> Option<Verdict> {
        self.certain &= understood;
        understood.then_some(verdict)
    }
}

impl Packet {
    fn meta(&self, key: Meta) -> Value {
        match key {
            Meta::InputName => self.input.clone(),
            Meta::OutputName => self.output.clone(),
            Meta::OutputLink if self.output == Value::Absent => Value::Absent,
            Meta::InputLink | Meta::OutputLink | Meta::TransportProtocol => Value::Unknown,
            Meta::NetworkProtocol => Value::Is(vec![self.protocol]),
        }
    }
}

impl Value {
    fn masked(&self, mask: &[u8], xor: &[u8]) -> Self {
        match self {
            Self::Is(value) if value.len() == mask.len() && mask.len() == xor.len() => {
                let bytes = value.iter().zip(mask).zip(xor);
                Self::Is(bytes.map(|((value, mask), xor)| value & mask ^ xor).collect())
            }
            _ => Self::Unknown,
        }
    }

    /// Whether the comparison of this with `data` holds. A shorter `data` is compared with as
    /// many bytes, which for a name is a prefix unless its NUL is part of `data`.
    fn compare(&self, comparison: Comparison, data: &[u8]) -> Option<bool> {
        match self {
            Self::Is(value) => {
                let ordering = value.get(..data.len())?.cmp(data);
                Some(match comparison {
                    Comparison::Equal => ordering.is_eq(),
                    Comparison::NotEqual => ordering.is_ne(),
                    Comparison::Less => ordering.is_lt(),
                    Comparison::LessOrEqual => ordering.is_le(),
                    Comparison::Greater => ordering.is_gt(),
                    Comparison::GreaterOrEqual => ordering.is_ge(),
                })
            }
            Self::IsNot(value) => {
                let whole = data.last() == Some(&0) && value.starts_with(data);
                match comparison {
                    Comparison::Equal if whole => Some(false),
                    Comparison::NotEqual if whole => Some(true),
                    _ => None,
                }
            }
            Self::Absent | Self::Unknown => None,
        }
    }
}
