//! What can go wrong with a sandbox's network.

use std::fmt;
use std::io;
use std::net::IpAddr;

use mainstay_cri::{ErrorKind, Protocol};
use mainstay_linux::netlink;

use super::{Range, RangeFileError};

/// A network that could not be set up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Somebody else has the port of the host.
    #[error("host port {port}/{protocol}{} is in use by {holder}", on(*.address))]
    PortInUse {
        /// The transport.
        protocol: Protocol,
        /// The host's address; unspecified if it is all of its kind.
        address: IpAddr,
        /// The port.
        port: u16,
        /// Who has it.
        holder: Holder,
    },
    /// A host port that cannot be reserved for another reason.
    #[error("cannot reserve host port {port}/{protocol}{}", on(*.address))]
    Reserve {
        /// The transport.
        protocol: Protocol,
        /// The host's address; unspecified if it is all of its kind.
        address: IpAddr,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mapping for an address of a kind that the sandbox does not have.
    #[error(
        "host address {address} of port {port} is of a kind that the sandbox has no address of: the \
         machine has it switched off, or podCIDR has no range of it"
    )]
    AddressFamily {
        /// The mapping's host address.
        address: IpAddr,
        /// The mapping's host port.
        port: u16,
    },
    /// A mapping for the loopback address of IPv6.
    #[error(
        "host address ::1 of port {port} cannot lead into a sandbox, as the kernel routes nothing from \
         there; use 127.0.0.1, which a client that asks for localhost comes to as well"
    )]
    Ipv6Loopback {
        /// The mapping's host port.
        port: u16,
    },
    /// Every address is held.
    #[error(
        "no address is free in {range}: all {} are held by sandboxes; stop some, or set a wider \
         podCIDR", .range.capacity()
    )]
    RangeExhausted {
        /// The instance's range.
        range: Range,
    },
    /// Every range that could be chosen overlaps with a network that this machine reaches.
    #[error(
        "no range of addresses is free for sandboxes: this machine has routes into all of them; \
         set podCIDR to one that it may shadow"
    )]
    NoFreeRange,
    /// There are to be addresses of IPv6 only, which this machine does not have.
    #[error(
        "this machine has no IPv6 (net.ipv6.conf.all.disable_ipv6, or the kernel), and podCIDR has \
         no other range: add one of IPv4, or switch IPv6 on"
    )]
    NoIpv6,
    /// The range could not be remembered.
    #[error("the range of addresses cannot be kept over a restart")]
    RangeFile(#[source] RangeFileError),
    /// A link, an address or a route.
    #[error("cannot {step} of sandbox {sandbox}")]
    Attach {
        /// Which part of it.
        step: &'static str,
        /// The sandbox.
        sandbox: String,
        /// What the kernel said.
        #[source]
        source: netlink::Error,
    },
    /// A bound of what a sandbox receives or sends.
    #[error(
        "cannot {step} of sandbox {sandbox} for its bandwidth; the kernel needs tbf, and for egress \
         ifb, ingress, u32 and mirred (modules sch_tbf, ifb, sch_ingress, cls_u32, act_mirred)"
    )]
    Limit {
        /// Which part of it.
        step: &'static str,
        /// The sandbox.
        sandbox: String,
        /// What the kernel said.
        #[source]
        source: netlink::Error,
    },
    /// One end of a sandbox's link is not where it was made.
    #[error("link {link} of sandbox {sandbox} is gone; something else removes it")]
    Vanished {
        /// The sandbox.
        sandbox: String,
        /// The name of that end.
        link: String,
    },
    /// The bridge, or what hangs from it.
    #[error("cannot {step} bridge {bridge}")]
    Bridge {
        /// What was to be done with it.
        step: &'static str,
        /// Its name.
        bridge: String,
        /// What the kernel said.
        #[source]
        source: netlink::Error,
    },
    /// The bridge's name belongs to a link of another kind.
    #[error("link {name} is in the way: it is a {kind} and no bridge; remove or rename it")]
    NotABridge {
        /// The name.
        name: String,
        /// Of the link that has it.
        kind: String,
    },
    /// The packet filter.
    #[error(
        "cannot {step} in table inet {table}; the kernel needs nf_tables with nat, masquerade, \
         fib and ct (modules nft_chain_nat, nft_masq, nft_fib_inet, nft_ct)"
    )]
    Filter {
        /// What was to be done.
        step: &'static str,
        /// The instance's table.
        table: String,
        /// What the kernel said.
        #[source]
        source: netlink::Error,
    },
    /// The tracked connections.
    #[error("cannot make UDP senders follow the host ports")]
    Connections {
        /// What the kernel said.
        #[source]
        source: netlink::Error,
    },
    /// A setting of the kernel that cannot be made what it has to be.
    #[error("cannot write {value} to {path}; do it yourself")]
    Setting {
        /// What it has to be.
        value: &'static str,
        /// The setting.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Who has a port of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Another sandbox of this instance, by its id.
    Sandbox(String),
    /// A sandbox of another instance, by the name of its table.
    Instance(String),
    /// A process of the machine.
    Process {
        /// Its id.
        pid: i32,
        /// The name of its program.
        name: String,
    },
    /// Nobody that could be found.
    Unknown,
}

impl NetworkError {
    /// What the caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PortInUse { .. } => ErrorKind::FailedPrecondition,
            Self::AddressFamily { .. } | Self::Ipv6Loopback { .. } => ErrorKind::InvalidArgument,
            Self::RangeExhausted { .. } => ErrorKind::ResourceExhausted,
            Self::Reserve { .. }
            | Self::NoFreeRange
            | Self::NoIpv6
            | Self::RangeFile(_)
            | Self::Attach { .. }
            | Self::Limit { .. }
            | Self::Vanished { .. }
            | Self::Bridge { .. }
            | Self::NotABridge { .. }
            | Self::Filter { .. }
            | Self::Connections { .. }
            | Self::Setting { .. } => ErrorKind::Internal,
        }
    }
}

/// How an address of a host port is told of.
pub(super) fn on(address: IpAddr) -> String {
    if address.is_unspecified() { String::new() } else { format!(" on {address}") }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox(id) => write!(f, "sandbox {id}"),
            Self::Instance(table) => write!(f, "another instance of mainstay (table inet {table})"),
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::Unknown => f.write_str("a process that does not listen on it"),
        }
    }
}
