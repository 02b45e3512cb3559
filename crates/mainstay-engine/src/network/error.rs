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
        /// The host's address, if the mapping names one.
        address: Option<IpAddr>,
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
        /// The host's address, if the mapping names one.
        address: Option<IpAddr>,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mapping for an address of a family that sandboxes do not have.
    #[error(
        "host address {address} of port {port} is not an IPv4 address, and the built-in network \
         has no others yet"
    )]
    AddressFamily {
        /// The mapping's host address.
        address: IpAddr,
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
    /// A setting of the kernel that has to be 1 and cannot be made so.
    #[error("cannot write 1 to {path}; do it yourself")]
    Setting {
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
            Self::AddressFamily { .. } => ErrorKind::InvalidArgument,
            Self::RangeExhausted { .. } => ErrorKind::ResourceExhausted,
            Self::Reserve { .. }
            | Self::NoFreeRange
            | Self::RangeFile(_)
            | Self::Attach { .. }
            | Self::Vanished { .. }
            | Self::Bridge { .. }
            | Self::NotABridge { .. }
            | Self::Filter { .. }
            | Self::Connections { .. }
            | Self::Setting { .. } => ErrorKind::Internal,
        }
    }
}

fn on(address: Option<IpAddr>) -> String {
    address.map(|address| format!(" on {address}")).unwrap_or_default()
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
