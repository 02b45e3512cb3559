//! What an operator should know about the network.

use std::fmt;
use std::net::IpAddr;

use mainstay_cri::Protocol;
use mainstay_linux::nftables::Family;

use super::error::on;
use super::{Holder, IpFamily, Range, show_ranges};

/// Something that [`super::Network::check`] found. Its text is a sentence for people that names
/// the thing, the place and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Another program's packet filter drops traffic of the sandboxes. Stays until it no longer
    /// does.
    Dropped {
        /// Of the table, or `None` for the older xtables.
        family: Option<Family>,
        /// The table.
        table: String,
        /// The base chain.
        chain: String,
        /// The rule that drops; `None` if the chain's policy does.
        rule: Option<DroppingRule>,
        /// Whether all of its rules could be understood; otherwise it may let the traffic pass
        /// after all.
        certain: bool,
        /// Which traffic.
        traffic: Vec<Traffic>,
        /// Commands that open it.
        remedy: String,
    },
    /// This machine did not forward packets of these kinds and does now. Told once.
    ForwardingSwitchedOn(Vec<IpFamily>),
    /// Sandboxes have no addresses of IPv6, as this machine has none. Told once.
    NoIpv6,
    /// Sandboxes have no addresses of this kind, as every range of them is taken. Stays.
    NoRange(IpFamily),
    /// Something was missing or wrong and has been put right. Told once.
    Repaired(Repair),
    /// A host port leads into a sandbox but could not be reserved, because somebody took it while
    /// no agent ran. Told once.
    PortNotReserved {
        /// The sandbox.
        sandbox: String,
        /// The transport.
        protocol: Protocol,
        /// The host's address; unspecified if it is all of its kind.
        address: IpAddr,
        /// The port.
        port: u16,
        /// Who has it.
        holder: Holder,
    },
    /// A sandbox's link is gone although the sandbox lives. Stays until it is set up again.
    Detached {
        /// The sandbox.
        sandbox: String,
    },
    /// Other ranges than the remembered or the wanted ones are in use. Stays.
    OtherRange {
        /// Those that are in use.
        used: Vec<Range>,
        /// Why, and what to do about it.
        reason: String,
    },
    /// Sandboxes have addresses of a range that is not this node's any more. Stays until they are
    /// gone.
    OlderRange {
        /// That range.
        range: Range,
        /// The one that new sandboxes get addresses of.
        current: Range,
        /// The sandboxes.
        sandboxes: Vec<String>,
    },
    /// The range that was given to this node cannot be used. Stays.
    RefusedRange {
        /// The one that was given.
        given: Range,
        /// The one that is in use instead.
        used: Range,
    },
    /// The sandboxes of another machine cannot be reached. Stays.
    Unreachable {
        /// What that machine is called.
        machine: String,
        /// Why.
        reason: String,
    },
    /// Something is wrong and could not be put right. Stays until it can.
    NotRepaired {
        /// The error and its causes.
        error: String,
    },
}

/// A rule that drops packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppingRule {
    /// The chain it stands in, of the same table.
    pub chain: String,
    /// Its number in that table, as `nft --handle list table` shows it.
    pub handle: u64,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Connections from sandboxes to other machines.
    Leaving,
    /// Connections from other machines to host ports.
    Entering,
    /// Connections from the sandboxes of other machines.
    FromPeers,
    /// Connections from sandbox to sandbox.
    Between,
    /// Connections from sandboxes to this machine itself.
    ToMachine,
    /// Questions of sandboxes for names, which are translated on their way to this machine.
    Questions,
}

/// What was put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The table was gone or changed, and is as it should be again.
    Table,
    /// The bridge was gone, switched off or without its address.
    Bridge,
    /// The link of this sandbox was gone, not on the bridge, or without its bounds.
    Link(String),
    /// Rules that let the sandboxes' traffic pass were added to this chain of the table `filter` of
    /// that family.
    Opened(Family, String),
    /// This many links of sandboxes that are no more were deleted.
    Leftovers(usize),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped { family, table, chain, rule, certain, traffic, remedy } => {
                let family = family.map_or("xtables".into(), |family| family.to_string());
                let verb = if *certain { "drops" } else { "probably drops" };
                // Who may ask the machine nothing may not ask it for names.
                let all = traffic.contains(&Traffic::ToMachine);
                let told = traffic.iter().filter(|it| !all || **it != Traffic::Questions);
                let traffic: Vec<_> = told.map(ToString::to_string).collect();
                let cause = match rule {
                    None => "its policy is drop".into(),
                    Some(rule) => format!("the rule with handle {} in {}", rule.handle, rule.chain),
                };
                write!(
                    f,
                    "chain {chain} of table {family} {table} {verb} {} ({cause}); to let them \
                     pass: {remedy}",
                    traffic.join(" and "),
                )
            }
            Self::ForwardingSwitchedOn(families) => {
                let families: Vec<_> = families.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "forwarding of {} was off and has been switched on for the sandboxes: this \
                     machine now also forwards packets between its other networks, unless a packet \
                     filter drops them",
                    families.join(" and "),
                )
            }
            Self::NoIpv6 => f.write_str(
                "this machine has no IPv6 (net.ipv6.conf.all.disable_ipv6, or the kernel), so \
                 sandboxes have none",
            ),
            Self::NoRange(family) => write!(
                f,
                "sandboxes have no addresses of {family}: this machine has routes into all ranges; \
                 set podCIDR to one that it may shadow"
            ),
            Self::Repaired(repair) => repair.fmt(f),
            Self::PortNotReserved { sandbox, protocol, address, port, holder } => {
                let on = on(*address);
                write!(
                    f,
                    "host port {port}/{protocol}{on} leads into sandbox {sandbox}, but {holder} \
                     has it too and gets no connections"
                )
            }
            Self::Detached { sandbox } => {
                write!(f, "the link of sandbox {sandbox} is gone; it is set up again")
            }
            Self::OtherRange { used, reason } => {
                let used = show_ranges(used);
                write!(f, "sandboxes have addresses of {used}: {reason}")
            }
            Self::OlderRange { range, current, sandboxes } => write!(
                f,
                "{} of {range}, which is not this node's range any more: they are reached on \
                 this node only, until they are restarted and get addresses of {current}",
                have_addresses(sandboxes),
            ),
            Self::RefusedRange { given, used } => write!(
                f,
                "the range {given} that was given to this node overlaps with a network of this \
                 machine, so sandboxes have addresses of {used} and are reached on this node \
                 only; let the node have another podCIDR by deleting its Node object"
            ),
            Self::Unreachable { machine, reason } => {
                write!(f, "the sandboxes of {machine} cannot be reached: {reason}")
            }
            Self::NotRepaired { error } => {
                write!(f, "the network of the sandboxes is not as it should be: {error}")
            }
        }
    }
}

fn have_addresses(sandboxes: &[String]) -> String {
    match sandboxes {
        [sandbox] => format!("{sandbox} has an address"),
        sandboxes => format!("{} have addresses", sandboxes.join(", ")),
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaving => "connections from sandboxes to other machines",
            Self::Entering => "connections from other machines to host ports",
            Self::FromPeers => "connections from sandboxes of other machines",
            Self::Between => "connections between sandboxes",
            Self::ToMachine => "connections from sandboxes to this machine",
            Self::Questions => "questions of sandboxes for names",
        })
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => f.write_str("the table of nf_tables was changed and has been restored"),
            Self::Bridge => f.write_str("the bridge was changed and has been restored"),
            Self::Link(sandbox) => write!(f, "the link of sandbox {sandbox} has been restored"),
            Self::Opened(family, chain) => write!(
                f,
                "chain {chain} of table {family} filter drops what it does not know; rules for the \
                 sandboxes have been added"
            ),
            Self::Leftovers(count) => {
                write!(f, "links of sandboxes that are no more have been deleted: {count}")
            }
        }
    }
}
