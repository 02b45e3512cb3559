//! Where sandboxes ask for names: at the machine's addresses on the bridge.
//!
//! They ask at port 53, and the packet filter leads them to the port at which the resolver listens
//! ([`ruleset`](super::ruleset)): a socket at port 53 of one address keeps everybody else from listening at port 53
//! of all addresses, which is what servers for names do, those of the machine and those of sandboxes on its network.
//!
//! That port is always the same one, and one of root's. With one that the kernel picks, the rules would have to
//! follow it from process to process, also while no agent runs, and connections that are tracked would lead to
//! former ones; anybody on the machine could take it while a resolver is replaced, and answer in its place; and
//! some day it would be one that somebody else is to have.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use mainstay_cri::Protocol;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{SocketFlags, bind, listen};

use super::finding::{Finding, Traffic};
use super::host_ports::HostPort;
use super::{Base, Holder, Network, NetworkError, Range, holder};

/// The port that is asked. Source: RFC 1035, section 4.2.
pub(super) const ASKED: u16 = 53;

/// The port that the resolver listens at. It is assigned to nobody (RFC 1700 reserves 249 to 255), and below those
/// that clients of NFS and bindresvport(3) take, from 512 on.
pub(super) const PORT: u16 = 253;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 64;

/// Where sandboxes ask, and who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counter {
    /// The address that new sandboxes ask at. One is enough, as all of them reach it and the same one answers at
    /// all; of two, many programs would ask both.
    pub(crate) primary: IpAddr,
    /// All of them: sandboxes with addresses of older ranges go on to ask at those.
    pub(crate) all: Vec<IpAddr>,
    /// The ranges of sandboxes, as a network and how many of its leading bits count.
    pub(crate) askers: Vec<(IpAddr, u8)>,
}

/// Sockets at an address: one of UDP, and a listening one of TCP.
pub(crate) type Sockets = [OwnedFd; 2];

impl Network {
    /// Where sandboxes ask for names; `None` while there is no bridge. It is made if it `must` be there, and what
    /// keeps sandboxes from it is looked for.
    pub(crate) fn counter(&self, must: bool) -> Result<Option<Counter>, NetworkError> {
        let mut base = self.base();
        if must {
            self.ensure(&mut base)?;
        }
        let ranges = base.ranges.as_ref().filter(|_| base.bridge.is_some());
        Ok(ranges.and_then(|ranges| {
            Some(Counter {
                primary: ranges.current.first()?.gateway(),
                all: ranges.all().map(Range::gateway).collect(),
                askers: ranges.all().map(|range| (range.network(), range.prefix())).collect(),
            })
        }))
    }

    /// What keeps sandboxes from asking the machine for names, if something did when it was looked for last.
    pub(crate) fn shut(&self) -> Option<Finding> {
        let findings = self.ports().filter.dropped().to_vec();
        findings.into_iter().find(|finding| {
            matches!(finding, Finding::Dropped { traffic, .. } if traffic.contains(&Traffic::Questions))
        })
    }

    /// Binds sockets that are asked at an address of the bridge.
    ///
    /// # Errors
    ///
    /// [`NetworkError::PortInUse`] names who has the resolver's port, perhaps of all addresses of the machine.
    pub(crate) fn listen(&self, address: IpAddr) -> Result<Sockets, NetworkError> {
        let open = |protocol| {
            let port = HostPort { protocol, address, port: PORT };
            open(port).map_err(|source| port.refused(source, || self.holder(port)))
        };
        Ok([open(Protocol::Udp)?, open(Protocol::Tcp)?])
    }

    /// Has what is asked at the bridge's addresses come to the resolver, or where it would come without one.
    pub(crate) fn lead_questions(&self, to_resolver: bool) -> Result<(), NetworkError> {
        let mut base = self.base();
        if std::mem::replace(&mut base.resolver, to_resolver) != to_resolver
            && base.bridge.is_some()
        {
            self.ensure(&mut base)?;
        }
        Ok(())
    }

    /// Who else listens where sandboxes ask a server at `address`, and is not reached by them there since the
    /// resolver is; `None` if it is nobody, or no address of the bridge.
    pub(crate) fn shadowed(&self, address: IpAddr) -> Option<Holder> {
        let is_gateway = |range: Range| range.gateway() == address;
        if !self.base().ranges.as_ref()?.all().any(is_gateway) {
            return None;
        }
        [Protocol::Udp, Protocol::Tcp].into_iter().find_map(|protocol| {
            let port = HostPort { protocol, address, port: ASKED };
            let sandbox = self.ports().book.holder(port);
            sandbox.or_else(|| holder::listening(port, &self.names.table))
        })
    }

    fn holder(&self, port: HostPort) -> Holder {
        let sandbox = self.ports().book.holder(port);
        sandbox.unwrap_or_else(|| holder::find(port, &self.names.table))
    }
}

/// What is asked over UDP, and where it leads while there is a resolver.
pub(super) fn questions(base: &Base) -> Vec<(HostPort, SocketAddr)> {
    let ranges = base.ranges.as_ref().filter(|_| base.resolver);
    let gateways = ranges.into_iter().flat_map(|ranges| ranges.all().map(Range::gateway));
    let question = |address| {
        let port = HostPort { protocol: Protocol::Udp, address, port: ASKED };
        (port, SocketAddr::new(address, PORT))
    };
    gateways.map(question).collect()
}

fn open(port: HostPort) -> io::Result<OwnedFd> {
    let socket = port.socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let address = SocketAddr::new(port.address, port.port);
    if port.protocol == Protocol::Tcp {
        // Connections of a resolver that has ended may linger.
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
    } else {
        bind(&socket, &address)?;
    }
    Ok(socket)
}
