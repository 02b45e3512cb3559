//! A machine of network namespaces: one for the host, one for the world outside, one per sandbox.
//!
//! They have no names and end with the threads and descriptors that hold them, so nothing is left
//! behind however a test ends. Nobody needs a thread to serve: the kernel completes a TCP
//! handshake before anybody accepts it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use mainstay_cri::{Bandwidth, PortMapping, Protocol};
use mainstay_linux::namespace::{Namespaces, in_network, unshare};
use mainstay_linux::netlink::{Address, Bridge, Route, RouteSocket, Veth, VethPeer};
use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;

use super::super::{Finding, IpFamily, LiveSandbox, Network, NetworkConfig, SandboxNetwork};

/// The machine's address on its local network, and a neighbour's.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Far away, behind the neighbour.
pub(super) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// The same of IPv6.
pub(super) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(super) const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(super) const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfa, 0, 0, 0, 0, 5);
/// What the local network's frames hold: less than usual, to see that it is minded.
pub(super) const MTU: u32 = 1400;

/// The addresses of one kind.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) family: IpFamily,
    pub(super) host: IpAddr,
    pub(super) neighbour: IpAddr,
    pub(super) far: IpAddr,
    pub(super) localhost: IpAddr,
}

pub(super) const KINDS: [Kind; 2] = [
    Kind {
        family: IpFamily::V4,
        host: IpAddr::V4(HOST),
        neighbour: IpAddr::V4(NEIGHBOUR),
        far: IpAddr::V4(FAR),
        localhost: IpAddr::V4(Ipv4Addr::LOCALHOST),
    },
    Kind {
        family: IpFamily::V6,
        host: IpAddr::V6(HOST6),
        neighbour: IpAddr::V6(NEIGHBOUR6),
        far: IpAddr::V6(FAR6),
        localhost: IpAddr::V6(Ipv6Addr::LOCALHOST),
    },
];

/// How long to wait for what must come, and for what must not.
const PATIENCE: Duration = Duration::from_secs(10);
const DOUBT: Duration = Duration::from_millis(300);

/// Where a socket is opened.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Host,
    In(&'a OwnedFd),
}

pub(super) struct Machine {
    pub(super) outside: OwnedFd,
    root_dir: TempDir,
}

pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) namespace: OwnedFd,
    pub(super) mappings: Vec<PortMapping>,
    pub(super) network: SandboxNetwork,
}

/// Runs `test` on a thread that is the machine's host; skips it without the permission.
pub(super) fn on_machine(test: impl FnOnce(&Machine) + Send + 'static) {
    let host = || {
        if let Err(error) = unshare(Namespaces::NEWNET) {
            eprintln!("skipped: a network namespace needs root: {error}");
            return;
        }
        // A new namespace has what the machine has that the tests run on.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
        let machine = Machine { outside: namespace(), root_dir: tempfile::tempdir().unwrap() };
        machine.connect();
        test(&machine);
    };
    if let Err(panic) = std::thread::spawn(host).join() {
        std::panic::resume_unwind(panic);
    }
}

/// What the first need tells on such a machine.
pub(super) fn forwarding() -> Finding {
    Finding::ForwardingSwitchedOn(vec![IpFamily::V4, IpFamily::V6])
}

/// A new network namespace.
pub(super) fn namespace() -> OwnedFd {
    let make = || {
        unshare(Namespaces::NEWNET).unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    };
    std::thread::spawn(make).join().unwrap()
}

pub(super) fn map(protocol: Protocol, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { protocol, host_port, container_port, host_ip: None }
}

pub(super) fn tcp(host_port: u16, container_port: u16) -> PortMapping {
    map(Protocol::Tcp, host_port, container_port)
}

/// A setting of IPv6 of one link.
pub(super) fn setting(link: &str, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{link}/{name}"));
    text.unwrap().trim().to_owned()
}

pub(super) fn set(link: &str, name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/{name}"), value).unwrap();
}

/// Runs a program on the host; `None` if it is not installed.
pub(super) fn run(program: &str, arguments: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the tests play an operator at the shell")]
    let output = std::process::Command::new(program).args(arguments.split_whitespace()).output();
    match output {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments}: {errors}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: the program {program} is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

impl Machine {
    /// host `lan0` 192.0.2.1 — 192.0.2.2 outside, which also is 203.0.113.5.
    fn connect(&self) {
        let mut here = RouteSocket::open().unwrap();
        let mut there = RouteSocket::open_in(self.outside.as_fd()).unwrap();
        here.set_up(1).unwrap();
        there.set_up(1).unwrap();
        let lan =
            here.create_bridge(Bridge { name: "lan0", address: [2, 0, 0, 0, 0, 1], group: 0 });
        let lan = lan.unwrap().index;
        // Both have been there for a while.
        let settled = |link: &str| {
            set(link, "accept_dad", "0");
            Ok(())
        };
        settled("lan0").unwrap();
        here.create_veth(Veth {
            name: "lan0p",
            mtu: MTU,
            master: lan,
            group: 0,
            peer: VethPeer {
                name: "eth0",
                address: [2, 0, 0, 0, 0, 2],
                namespace: self.outside.as_fd(),
            },
        })
        .unwrap();
        let eth0 = there.link("eth0").unwrap().unwrap().index;
        in_network(self.outside.as_fd(), || settled("eth0")).unwrap();
        there.set_up(eth0).unwrap();
        for kind in KINDS {
            let prefix = if kind.family == IpFamily::V4 { 24 } else { 64 };
            let address = |link, address| Address { link, address, prefix };
            here.add_address(address(lan, kind.host)).unwrap();
            there.add_address(address(eth0, kind.neighbour)).unwrap();
            there.add_address(address(1, kind.far)).unwrap();
            here.add_route(Route::default_through(kind.neighbour, lan)).unwrap();
        }
        self.filter_bridged(false);
    }

    /// Whether frames between ports of a bridge go through the packet filter.
    pub(super) fn filter_bridged(&self, on: bool) {
        for program in ["iptables", "ip6tables"] {
            let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{program}");
            if Path::new(&setting).exists() {
                std::fs::write(setting, if on { "1" } else { "0" }).unwrap();
            } else if on {
                eprintln!("not tested with br_netfilter: the module is not loaded");
            }
        }
    }

    pub(super) fn config(&self, instance: &str) -> NetworkConfig {
        let root_dir = self.root_dir.path().join(instance);
        std::fs::create_dir_all(&root_dir).unwrap();
        NetworkConfig {
            range_file: root_dir.join("network.json"),
            root_dir,
            machine_id: "a machine".into(),
            ranges: Vec::new(),
        }
    }

    pub(super) fn open(&self, live: &[&Sandbox]) -> Network {
        let live: Vec<_> = live.iter().map(|sandbox| sandbox.live()).collect();
        Network::open(self.config("a"), &live, &[])
    }
}

impl Sandbox {
    pub(super) fn start(network: &Network, id: &str, mappings: &[PortMapping]) -> Self {
        let namespace = namespace();
        let result = network.setup(id, namespace.as_fd(), mappings);
        let (id, mappings) = (id.into(), mappings.to_vec());
        Self { id, namespace, mappings, network: result.unwrap() }
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        match self.network.addresses[..] {
            [IpAddr::V4(address), IpAddr::V6(_)] | [IpAddr::V4(address)] => address,
            _ => panic!("not one IPv4 address: {:?}", self.network),
        }
    }

    /// The address of a kind.
    pub(super) fn of(&self, kind: Kind) -> IpAddr {
        let mut addresses = self.network.addresses.iter().copied();
        addresses.find(|address| IpFamily::of(*address) == kind.family).unwrap()
    }

    /// The gateway of a kind.
    pub(super) fn gateway_of(&self, kind: Kind) -> IpAddr {
        let mut addresses = self.network.gateways.iter().copied();
        addresses.find(|address| IpFamily::of(*address) == kind.family).unwrap()
    }

    pub(super) fn gateway(&self) -> IpAddr {
        self.network.gateways[0]
    }

    pub(super) fn live(&self) -> LiveSandbox<'_> {
        LiveSandbox {
            id: self.id.clone(),
            namespace: self.namespace.as_fd(),
            addresses: self.network.addresses.clone(),
            port_mappings: self.mappings.clone(),
            bandwidth: Bandwidth::default(),
            asks: false,
        }
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place::In(&self.namespace)
    }

    /// A listener inside.
    pub(super) fn listen(&self, port: u16) -> TcpListener {
        self.place().listen(port)
    }
}

impl Place<'_> {
    pub(super) fn open<T: Send>(
        self,
        open: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> std::io::Result<T> {
        match self {
            Self::Host => open(),
            Self::In(namespace) => in_network(namespace.as_fd(), open),
        }
    }

    pub(super) fn listen(self, port: u16) -> TcpListener {
        // Of both kinds.
        let listener = self.open(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    pub(super) fn udp(self, port: u16) -> UdpSocket {
        let socket = self.open(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// The resolver's sockets at a gateway.
pub(super) fn resolver(network: &Network, gateway: IpAddr) -> (UdpSocket, TcpListener) {
    let [udp, tcp] = network.listen(gateway).unwrap();
    let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
    udp.set_nonblocking(false).unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    (udp, tcp)
}

/// Both ends of a connection.
pub(super) struct Connection {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
}

impl Connection {
    /// Sends something back and forth.
    pub(super) fn check(&self) {
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            from.set_write_timeout(Some(PATIENCE)).unwrap();
            to.set_read_timeout(Some(PATIENCE)).unwrap();
            from.write_all(b"ping").unwrap();
            let mut bytes = [0; 4];
            to.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"ping");
        }
    }
}

/// Connects from `place` to `address`, where `listener` must be found, and tells with which
/// address the listener sees it.
pub(super) fn connect(
    place: Place<'_>,
    address: impl Into<IpAddr>,
    port: u16,
    listener: &TcpListener,
) -> (IpAddr, Connection) {
    let address = SocketAddr::new(address.into(), port);
    let client = place.open(|| TcpStream::connect_timeout(&address, PATIENCE));
    let client = client.unwrap_or_else(|error| panic!("connect to {address}: {error}"));
    // The client may know of it a moment earlier.
    let patience = PATIENCE.try_into().unwrap();
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience)).unwrap();
    let (server, peer) = listener.accept().expect("the connection went elsewhere");
    server.set_nonblocking(false).unwrap();
    let connection = Connection { client, server };
    connection.check();
    (peer.ip().to_canonical(), connection)
}

/// As [`connect`], for the address alone.
pub(super) fn seen_as(
    place: Place<'_>,
    address: impl Into<IpAddr>,
    port: u16,
    listener: &TcpListener,
) -> IpAddr {
    connect(place, address, port, listener).0
}

/// Whether anybody answers there at all.
pub(super) fn answers(place: Place<'_>, address: impl Into<IpAddr>, port: u16) -> bool {
    let address = SocketAddr::new(address.into(), port);
    place.open(|| TcpStream::connect_timeout(&address, DOUBT)).is_ok()
}

/// Sends a datagram to `server` by way of `address` and one back, and tells with which address
/// the server sees the client.
pub(super) fn exchange(
    client: &UdpSocket,
    address: impl Into<IpAddr>,
    port: u16,
    server: &UdpSocket,
) -> SocketAddr {
    let address = match address.into() {
        IpAddr::V4(address) => SocketAddr::from((address.to_ipv6_mapped(), port)),
        address @ IpAddr::V6(_) => SocketAddr::new(address, port),
    };
    client.send_to(b"ping", address).unwrap();
    let mut bytes = [0; 4];
    let (_, peer) = server.recv_from(&mut bytes).expect("the datagram went elsewhere");
    server.send_to(b"pong", peer).unwrap();
    let (_, from) = client.recv_from(&mut bytes).expect("the answer went elsewhere");
    assert_eq!(from, address);
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
