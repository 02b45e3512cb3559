//! Tables, chains and rules as data.

use std::fmt;

use super::Expression;

/// Which packets a table sees. Source: nft(8), "Address families".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// ARP.
    Arp,
    /// Packets of single devices.
    Netdev,
    /// Frames that cross a bridge.
    Bridge,
    /// IPv6.
    Ip6,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Whether it is switched off: its chains see no packets then.
    pub dormant: bool,
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Of its table.
    pub family: Family,
    /// Its table's name.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets enter it; `None` when only other chains lead here.
    pub base: Option<BaseChain>,
}

/// How a base chain is tied into the path of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// What it may do with a packet.
    pub kind: ChainKind,
    /// At which point it sees packets.
    pub hook: Hook,
    /// Lower sees packets earlier; see [`priority`].
    pub priority: i32,
    /// What happens to packets that no rule decides on.
    pub policy: Policy,
}

/// Usual values of [`BaseChain::priority`]. Source: nft(8), "Standard priority names".
pub mod priority {
    /// Before connections are tracked.
    pub const RAW: i32 = -300;
    /// Where destinations are translated.
    pub const DSTNAT: i32 = -100;
    /// Where packets are filtered.
    pub const FILTER: i32 = 0;
    /// Where sources are translated.
    pub const SRCNAT: i32 = 100;
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate addresses; sees only the first packet of a connection.
    Nat,
    /// Have the route looked up again.
    Route,
}

/// A point of a packet's path. Source: nft(8), "Address families".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Everything that comes in, before its route is known.
    Prerouting,
    /// What is for this machine.
    Input,
    /// What passes through.
    Forward,
    /// What this machine sends.
    Output,
    /// Everything that leaves, when its route is known.
    Postrouting,
    /// A point that only families other than `ip`, `ip6` and `inet` have.
    Other(u32),
}

/// See [`BaseChain::policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They go on.
    Accept,
    /// They are dropped.
    Drop,
}

/// A rule: expressions that run one after the other, until one of them breaks off or decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The chain that it stands in.
    pub chain: String,
    /// The kernel's number for it, unique in its table; what a new rule says here is ignored.
    pub handle: u64,
    /// What it does.
    pub expressions: Vec<Expression>,
    /// A remark for people, at most 128 bytes; empty for none.
    pub comment: String,
}

// === impl Family ===

impl Family {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Arp, Self::Netdev, Self::Bridge, Self::Ip6]
            .into_iter()
            .find(|family| family.number() == number)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ip6 => "ip6",
        })
    }
}

// === impl Hook ===

impl Hook {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Other(number) => number,
        }
    }

    pub(super) fn from_number(number: u32) -> Self {
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting]
            .into_iter()
            .find(|hook| hook.number() == number)
            .unwrap_or(Self::Other(number))
    }
}

// === impl ChainKind ===

impl ChainKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Filter, Self::Nat, Self::Route].into_iter().find(|kind| kind.name() == name)
    }
}
