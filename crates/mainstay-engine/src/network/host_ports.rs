//! Ports of the host that lead into sandboxes: who has which.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use mainstay_cri::{PortMapping, Protocol};
use mainstay_linux::nftables::Element;
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_ip_freebind, set_ipv6_freebind, set_ipv6_v6only, set_socket_reuseaddr,
};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, ipproto, listen, shutdown, socket_with,
};

use super::range::octets;
use super::ruleset::{Elements, MAPS};
use super::{Holder, IpFamily, NetworkError};

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
    target: SocketAddr,
    /// Whether it should be in the maps: not before the sandbox's link is there.
    published: bool,
    /// A socket bound to the port, so that no process of the machine can take it meanwhile and
    /// then wonder why nothing arrives. `None` when the port could not be had any more after a
    /// restart, or the kernel does not know the protocol and so nobody else can bind it either.
    _reservation: Option<OwnedFd>,
}

/// A port of the host, of one of its addresses or of all of a kind, which is then unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) protocol: Protocol,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl HostPort {
    /// What a mapping asks for, with where each leads, for a sandbox that has these addresses.
    ///
    /// Without an address of the host's it is one port of each kind; `0.0.0.0` and `::` mean all
    /// addresses of theirs. Source: the plugin portmap of CNI, `fillDnatRules`.
    fn of(
        mapping: &PortMapping,
        addresses: &[IpAddr],
    ) -> Result<Vec<(Self, SocketAddr)>, NetworkError> {
        let PortMapping { protocol, host_port: port, host_ip, container_port } = *mapping;
        if host_ip == Some(Ipv6Addr::LOCALHOST.into()) {
            return Err(NetworkError::Ipv6Loopback { port });
        }
        let of_kind = |inside: &&IpAddr| host_ip.is_none_or(|it| it.is_ipv4() == inside.is_ipv4());
        let ports = addresses.iter().filter(of_kind).map(|inside| {
            let address = host_ip.unwrap_or_else(|| IpFamily::of(*inside).unspecified());
            (Self { protocol, address, port }, SocketAddr::new(*inside, container_port))
        });
        let ports: Vec<_> = ports.collect();
        match host_ip {
            Some(address) if ports.is_empty() => Err(NetworkError::AddressFamily { address, port }),
            _ => Ok(ports),
        }
    }

    fn conflicts(self, other: Self) -> bool {
        let (one, two) = (self.address, other.address);
        self.protocol == other.protocol
            && self.port == other.port
            && one.is_ipv4() == two.is_ipv4()
            && (one.is_unspecified() || two.is_unspecified() || one == two)
    }

    /// Whether what is sent to that address comes here.
    pub(super) fn takes(self, destination: SocketAddr) -> bool {
        let address = destination.ip();
        self.port == destination.port()
            && self.address.is_ipv4() == address.is_ipv4()
            && (self.address.is_unspecified() || self.address == address)
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
        NetworkError::PortInUse { protocol, address, port, holder }
    }

    /// Why it could not be bound, with who has it if somebody does.
    pub(super) fn refused(
        self,
        source: io::Error,
        holder: impl FnOnce() -> Holder,
    ) -> NetworkError {
        let Self { protocol, address, port } = self;
        match source.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) {
            true => self.in_use(holder()),
            false => NetworkError::Reserve { protocol, address, port, source },
        }
    }

    fn element(self, target: SocketAddr) -> Element {
        let protocol = [self.protocol_number()];
        let port = self.port.to_be_bytes();
        let data: [&[u8]; 2] = [&octets(target.ip()), &target.port().to_be_bytes()];
        match self.address.is_unspecified() {
            true => Element::new(&[&protocol, &port], &data),
            false => Element::new(&[&octets(self.address), &protocol, &port], &data),
        }
    }

    /// A socket for it, not bound yet. The host's address may come later, with its link, or go and come back.
    pub(super) fn socket(self, flags: SocketFlags) -> Result<OwnedFd, Errno> {
        let (kind, protocol) = match self.protocol {
            Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
            Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
            Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
        };
        let family = match self.address {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = socket_with(family, kind, flags, Some(protocol))?;
        match self.address {
            IpAddr::V4(_) => set_ip_freebind(&socket, true)?,
            IpAddr::V6(_) => {
                set_ipv6_freebind(&socket, true)?;
                set_ipv6_v6only(&socket, true)?;
            }
        }
        Ok(socket)
    }

    /// Binds the port without listening on it: a connection that no rule translates is refused by
    /// the kernel, as if nobody were there.
    ///
    /// `None` if the kernel does not know the protocol.
    fn reserve(self) -> io::Result<Option<OwnedFd>> {
        let socket = match self.socket(SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let address = SocketAddr::new(self.address, self.port);
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
        addresses: &[IpAddr],
        mappings: &[PortMapping],
    ) -> Result<(), NetworkError> {
        let mut claims: Vec<Claim> = Vec::new();
        if self.claims.iter().any(|claim| claim.sandbox == sandbox) {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for mapping in mappings {
            wanted.extend(HostPort::of(mapping, addresses)?);
        }
        for (port, target) in wanted {
            let mut others = self.claims.iter().chain(&claims);
            if let Some(other) = others.find(|other| other.port.conflicts(port)) {
                if other.port == port && other.target == target {
                    // Said twice.
                    continue;
                }
                return Err(port.in_use(Holder::Sandbox(other.sandbox.clone())));
            }
            let reservation = port.reserve();
            let reservation = reservation.map_err(|it| port.refused(it, || Holder::Unknown))?;
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
        addresses: &[IpAddr],
        mappings: &[PortMapping],
    ) -> Vec<HostPort> {
        let mut taken = Vec::new();
        // A mapping that cannot be was refused when the sandbox was made.
        let wanted = mappings.iter().filter_map(|mapping| HostPort::of(mapping, addresses).ok());
        for (port, target) in wanted.flatten() {
            if self.claims.iter().any(|claim| claim.port.conflicts(port)) {
                taken.push(port);
                continue;
            }
            let reservation = port.reserve().unwrap_or_else(|_| {
                taken.push(port);
                None
            });
            let (sandbox, published) = (sandbox.into(), true);
            self.claims.push(Claim { sandbox, port, target, published, _reservation: reservation });
        }
        taken
    }

    /// The sandbox that a port, or one that covers it, leads into.
    pub(super) fn holder(&self, port: HostPort) -> Option<Holder> {
        let claim = self.claims.iter().find(|claim| claim.port.conflicts(port))?;
        Some(Holder::Sandbox(claim.sandbox.clone()))
    }

    /// Takes all ports from a sandbox.
    pub(super) fn release(&mut self, sandbox: &str) {
        self.claims.retain(|claim| claim.sandbox != sandbox);
    }

    pub(super) fn clear(&mut self) {
        self.claims.clear();
    }

    /// The UDP ports, and where each leads.
    pub(super) fn udp(&self) -> Vec<(HostPort, SocketAddr)> {
        let udp = self.claims.iter().filter(|claim| claim.port.protocol == Protocol::Udp);
        udp.map(|claim| (claim.port, claim.target)).collect()
    }

    /// Notes that the ports of a sandbox should be in the maps.
    pub(super) fn publish(&mut self, sandbox: &str) {
        for claim in self.claims.iter_mut().filter(|claim| claim.sandbox == sandbox) {
            claim.published = true;
        }
    }

    /// What should be in the maps.
    pub(super) fn published(&self) -> Elements {
        elements(self.claims.iter().filter(|claim| claim.published))
    }

    /// The part of it that is, or will be, one sandbox's.
    pub(super) fn of_sandbox(&self, sandbox: &str) -> Elements {
        elements(self.claims.iter().filter(|claim| claim.sandbox == sandbox))
    }
}

fn elements<'a>(claims: impl Iterator<Item = &'a Claim>) -> Elements {
    let claims: Vec<_> = claims.collect();
    MAPS.map(|map| {
        let of_map = claims.iter().filter(|claim| {
            let address = claim.port.address;
            (IpFamily::of(address), !address.is_unspecified()) == (map.family, map.by_address)
        });
        of_map.map(|claim| claim.port.element(claim.target)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a mapping to a port 80 leads, for the sandbox 10.88.0.2 and fd00::2 or a part of it.
    fn check(host_ip: Option<&str>, addresses: &[&str], expected: &[(&str, &str)]) {
        let mapping = PortMapping {
            protocol: Protocol::Tcp,
            host_port: 8080,
            container_port: 80,
            host_ip: host_ip.map(|text| text.parse().unwrap()),
        };
        let addresses: Vec<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
        let ports = HostPort::of(&mapping, &addresses).unwrap_or_default();
        let found: Vec<_> = ports
            .into_iter()
            .map(|(port, target)| (port.address.to_string(), target.to_string()))
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(on, to)| ((*on).to_owned(), (*to).to_owned())).collect();
        assert_eq!(found, expected, "{host_ip:?} {addresses:?}");
    }

    #[test]
    fn a_mapping_is_a_port_of_each_kind_of_address() {
        let (v4, v6) = (("0.0.0.0", "10.88.0.2:80"), ("::", "[fd00::2]:80"));
        let both = ["10.88.0.2", "fd00::2"];
        check(None, &both, &[v4, v6]);
        check(None, &both[..1], &[v4]);
        check(None, &both[1..], &[v6]);
        check(None, &[], &[]);
        check(Some("0.0.0.0"), &both, &[v4]);
        check(Some("::"), &both, &[v6]);
        check(Some("127.0.0.1"), &both, &[("127.0.0.1", "10.88.0.2:80")]);
        check(Some("fd01::1"), &both, &[("fd01::1", "[fd00::2]:80")]);
        check(Some("fd01::1"), &both[..1], &[]);
        check(Some("::1"), &both, &[]);
    }

    #[test]
    fn ports_of_one_kind_conflict() {
        let port = |address: &str| HostPort {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            port: 8080,
        };
        for (one, other, conflict) in [
            ("0.0.0.0", "0.0.0.0", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::", "::1", true),
            ("::1", "::1", true),
            ("::", "0.0.0.0", false),
            ("::", "127.0.0.1", false),
        ] {
            assert_eq!(port(one).conflicts(port(other)), conflict, "{one} {other}");
            assert_eq!(port(other).conflicts(port(one)), conflict, "{one} {other}");
        }
        assert!(port("::").takes("[fd00::1]:8080".parse().unwrap()));
        assert!(!port("::").takes("192.0.2.1:8080".parse().unwrap()));
        assert!(!port("::1").takes("[fd00::1]:8080".parse().unwrap()));
    }
}
