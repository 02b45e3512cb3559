//! Links, addresses, routes, rates and tracked connections, over netlink.
//!
//! [`RouteSocket`] speaks rtnetlink (rtnetlink(7)), [`ConntrackSocket`] the connection tracking
//! subsystem of nfnetlink. Both are synchronous: a request is sent and its answer read, and
//! neither ever waits, because the kernel answers before the send returns. A socket belongs to
//! the network namespace of the thread that opened it and works there from any thread;
//! [`RouteSocket::open_in`] opens one elsewhere.
//!
//! The encoder is our own. `netlink-packet-route` would cover the links, but nothing that we may
//! use covers the nf_tables expressions of [`crate::nftables`] (`netlink-packet-netfilter` 0.4
//! knows neither nat, masquerade, fib, ct nor map data, `nf_tables` 0.1 fewer still), and one
//! message format deserves one writer; what is needed of it is [`message`].

mod address;
mod conntrack;
mod error;
mod link;
pub(crate) mod message;
pub(crate) mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod traffic;

pub use address::{Address, Route};
pub use conntrack::{Connection, ConntrackSocket};
pub use error::{Error, unless_exists, unless_gone};
pub use link::{Bridge, Link, RouteSocket, Veth, VethPeer};
pub use traffic::{Qdisc, TokenBucket};
