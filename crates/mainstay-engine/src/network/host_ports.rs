//! Ports of the host that lead into sandboxes: who has which.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use mainstay_cri::{PortMapping, Protocol};
use mainstay_linux::nftables::Element;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ip_freebind, set_socket_reuseaddr};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, ipproto, listen, shutdown, socket_with,
};

use super::{Holder, NetworkError};

/// All host ports that lead into sandboxes.
#[derive(Debug, Default)]
pub(super) struct HostPorts {
    claims: Vec<Claim>,
}

/// A host port that leads into a sandbox.
#[derive(Debug)]
struct Claim {
    sandbox: String,
    port: HostPort,
    target: SocketAddrV4,
    /// Whether it should be in the maps: not before the sandbox's link is there.
    published: bool,
    /// A socket bound to the port, so that no process of the machine can take it meanwhile and
    /// then wonder why nothing arrives. `None` when the port could not be had any more after a
    /// restart, or the kernel does not know the protocol and so nobody else can bind it either.
    _reservation: Option<OwnedFd>,
}

/// A port of the host, of one of its addresses or of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) protocol: Protocol,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) port: u16,
}

impl HostPort {
    /// The host's side of a mapping; `0.0.0.0` means all addresses, as no address does.
    pub(super) fn of(mapping: &PortMapping) -> Result<Self, NetworkError> {
        let PortMapping { protocol, host_port: port, host_ip, .. } = *mapping;
        let address = match host_ip {
            None => None,
            Some(IpAddr::V4(address)) => Some(address).filter(|address| !address.is_unspecified()),
            Some(address @ IpAddr::V6(_)) => {
                return Err(NetworkError::AddressFamily { address, port });
            }
        };
        Ok(Self { protocol, address, port })
    }

    fn conflicts(self, other: Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }

    /// The number of the transport protocol. Source: RFC 790 and its successors.
    pub(super) fn protocol_number(self) -> u8 {
        match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub(super) fn in_use(self, holder: Holder) -> NetworkError {
        let Self { protocol, address, port } = self;
        NetworkError::PortInUse { protocol, address: address.map(IpAddr::V4), port, holder }
    }

    fn element(self, target: SocketAddrV4) -> Element {
        let protocol = [self.protocol_number()];
        let port = self.port.to_be_bytes();
        let data: [&[u8]; 2] = [&target.ip().octets(), &target.port().to_be_bytes()];
        match self.address {
            None => Element::new(&[&protocol, &port], &data),
            Some(address) => Element::new(&[&address.octets(), &protocol, &port], &data),
        }
    }

    /// Binds the port without listening on it: a connection that no rule translates is refused by
    /// the kernel, as if nobody were there.
    ///
    /// `None` if the kernel does not know the protocol.
    fn reserve(self) -> io::Result<Option<OwnedFd>> {
        let (kind, protocol) = match self.protocol {
            Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
            Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
            Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
        };
        let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
        let socket = match socket_with(family, kind, flags, Some(protocol)) {
            Ok(socket) => socket,
            Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // The host's address may come later, with its link.
        set_ip_freebind(&socket, true)?;
        let address = SocketAddrV4::new(self.address.unwrap_or(Ipv4Addr::UNSPECIFIED), self.port);
        if self.protocol == Protocol::Tcp {
            // Connections that linger in TIME_WAIT take nothing from us, hence SO_REUSEADDR. But
            // two sockets that have it may share a port until one of them listens: so we listen
            // for a moment, which fails if anybody has the port, and take the option back, so
            // that it fails for everybody who comes after us. A bound socket that stops
            // listening keeps its port. Source: `net/ipv4/inet_connection_sock.c`,
            // inet_csk_bind_conflict, and `net/ipv4/af_inet.c`, inet_shutdown.
            set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
            listen(&socket, 0)?;
            set_socket_reuseaddr(&socket, false)?;
            shutdown(&socket, Shutdown::Both)?;
        } else {
            bind(&socket, &address)?;
        }
        Ok(Some(socket))
    }
}

// === impl HostPorts ===

impl HostPorts {
    /// Gives a sandbox the ports that its mappings name, all or none of them. Without effect if it
    /// has its ports already.
    ///
    /// # Errors
    ///
    /// [`NetworkError::PortInUse`] with the sandbox that has one; its holder is
    /// [`Holder::Unknown`] when it is somebody outside.
    pub(super) fn claim(
        &mut self,
        sandbox: &str,
        address: Ipv4Addr,
        mappings: &[PortMapping],
    ) -> Result<(), NetworkError> {
        let mut claims: Vec<Claim> = Vec::new();
        if self.claims.iter().any(|claim| claim.sandbox == sandbox) {
            return Ok(());
        }
        for mapping in mappings {
            let port = HostPort::of(mapping)?;
            let target = SocketAddrV4::new(address, mapping.container_port);
            let mut others = self.claims.iter().chain(&claims);
            if let Some(other) = others.find(|other| other.port.conflicts(port)) {
                if other.port == port && other.target == target {
                    // Said twice.
                    continue;
                }
                return Err(port.in_use(Holder::Sandbox(other.sandbox.clone())));
            }
            let reservation = port.reserve().map_err(|source| {
                if source.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) {
                    return port.in_use(Holder::Unknown);
                }
                let HostPort { protocol, address, port } = port;
                let address = address.map(IpAddr::V4);
                NetworkError::Reserve { protocol, address, port, source }
            })?;
            let (sandbox, published) = (sandbox.into(), false);
            claims.push(Claim { sandbox, port, target, published, _reservation: reservation });
        }
        self.claims.extend(claims);
        Ok(())
    }

    /// Notes the ports of a sandbox that lives already, and returns those that somebody else has
    /// taken meanwhile; they lead into the sandbox all the same.
    pub(super) fn adopt(
        &mut self,
        sandbox: &str,
        address: Ipv4Addr,
        mappings: &[PortMapping],
    ) -> Vec<HostPort> {
        let mut taken = Vec::new();
        for mapping in mappings {
            // A mapping that cannot be was refused when the sandbox was made.
            let Ok(port) = HostPort::of(mapping) else { continue };
            if self.claims.iter().any(|claim| claim.port.conflicts(port)) {
                taken.push(port);
                continue;
            }
            let reservation = port.reserve().unwrap_or_else(|_| {
                taken.push(port);
                None
            });
            let target = SocketAddrV4::new(address, mapping.container_port);
            let (sandbox, published) = (sandbox.into(), true);
            self.claims.push(Claim { sandbox, port, target, published, _reservation: reservation });
        }
        taken
    }

    /// Takes all ports from a sandbox.
    pub(super) fn release(&mut self, sandbox: &str) {
        self.claims.retain(|claim| claim.sandbox != sandbox);
    }

    pub(super) fn clear(&mut self) {
        self.claims.clear();
    }

    /// The UDP ports, and where each leads.
    pub(super) fn udp(&self) -> Vec<(HostPort, SocketAddrV4)> {
        let udp = self.claims.iter().filter(|claim| claim.port.protocol == Protocol::Udp);
        udp.map(|claim| (claim.port, claim.target)).collect()
    }

    /// Notes that the ports of a sandbox should be in the maps.
    pub(super) fn publish(&mut self, sandbox: &str) {
        for claim in self.claims.iter_mut().filter(|claim| claim.sandbox == sandbox) {
            claim.published = true;
        }
    }

    /// What should be in the two maps, `host_ports` and `host_ports_by_address`.
    pub(super) fn published(&self) -> (Vec<Element>, Vec<Element>) {
        elements(self.claims.iter().filter(|claim| claim.published))
    }

    /// The part of it that is, or will be, one sandbox's.
    pub(super) fn of_sandbox(&self, sandbox: &str) -> (Vec<Element>, Vec<Element>) {
        elements(self.claims.iter().filter(|claim| claim.sandbox == sandbox))
    }
}

fn elements<'a>(claims: impl Iterator<Item = &'a Claim>) -> (Vec<Element>, Vec<Element>) {
    let (by_address, anywhere): (Vec<_>, Vec<_>) =
        claims.partition(|claim| claim.port.address.is_some());
    let elements = |claims: Vec<&Claim>| {
        claims.into_iter().map(|claim| claim.port.element(claim.target)).collect()
    };
    (elements(anywhere), elements(by_address))
}
