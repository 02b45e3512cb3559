//! What the engine and the resolver say to each other.
//!
//! The resolver is the process that answers the sandboxes' questions for names. It too outlives the
//! agent, but holds nothing that cannot be made again: one of another version is replaced, so there is
//! no older version to be driven. It greets every connection with a [`ResolverHello`], and answers each
//! [`ResolverCommand`] with a [`ResolverReply`], in their order.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of the messages in this file, and of where the resolver listens.
pub const RESOLVER_PROTOCOL: u32 = 2;

/// The first frame on every connection, from the resolver. Its fields are the same in every version, so
/// that a resolver of another one can be ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverHello {
    /// The version that the resolver speaks.
    pub protocol: u32,
    /// The version of mainstay that it was built with.
    pub version: String,
    /// Its process, as seen from the host.
    pub pid: i32,
    /// The addresses that it listens at.
    pub addresses: Vec<IpAddr>,
}

/// From the engine to the resolver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolverCommand {
    /// Listen at one more address, with what comes with the frame: a socket of UDP, and a listening one
    /// of TCP.
    Listen {
        /// What they are bound to.
        address: IpAddr,
    },
    /// Answer by this from now on, and stop listening at addresses that are not in it.
    Serve(Box<Zone>),
    /// End. The same in every version.
    End,
}

/// From the resolver: a command has been carried out, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverReply {
    /// `None` if it has been.
    pub failure: Option<String>,
}

/// All that a resolver knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// What all names end in, such as `cluster.local`; without a dot at its end.
    pub domain: String,
    /// The addresses that it listens at.
    pub addresses: Vec<IpAddr>,
    /// Who may ask: networks, as an address and how many of its leading bits count.
    pub askers: Vec<(IpAddr, u8)>,
    /// Where the servers for all other names are, a file of the form of resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// The sandboxes.
    pub hosts: Vec<ZoneHost>,
}

/// What a sandbox is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneHost {
    /// Names below the domain, such as `web.default.svc`, the one that its addresses are called first.
    pub names: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Below which its addresses are names too, such as `default.pod`.
    pub by_address: String,
    /// Whether questions for its addresses are answered: they are its own, and not the machine's.
    pub reverse: bool,
}
