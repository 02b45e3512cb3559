//! Against the kernel, in network namespaces that end with their threads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use expect_test::{Expect, expect};
use rustix::fs::{Mode, OFlags, open};

use super::message::{Attributes, Message, messages};
use super::*;
use crate::namespace::{Namespaces, in_network, unshare};

/// Runs `test` on a thread with a network namespace of its own; skips it without the permission.
pub(crate) fn in_own_network(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| match unshare(Namespaces::NEWNET) {
        Ok(()) => test(),
        Err(error) => eprintln!("skipped: a network namespace needs root: {error}"),
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn other_network() -> OwnedFd {
    let make = || {
        unshare(Namespaces::NEWNET).unwrap();
        open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

fn address(link: u32, text: &str) -> Address {
    let (address, prefix) = text.split_once('/').unwrap();
    Address { link, address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

fn check_refusal(result: Result<(), Error>, expected: &Expect) {
    let error = result.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    expected.assert_eq(&format!("{error}: {source}"));
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let mut message = Message::new(7, 0x400, b"abcde");
    message.string(1, "lo");
    message.nested(2, |inner| {
        inner.u8(3, 9);
        inner.be32(4, 0x0102_0304);
    });
    let bytes = message.finish(5, "test").unwrap();
    let [message] = messages(&bytes).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((message.kind, message.flags, message.sequence), (7, 0x401, 5));
    let attributes = Attributes::after(message.body, 5);
    assert_eq!(attributes.string(1).as_deref(), Some("lo"));
    assert_eq!(attributes.nested(2).get(3), Some(&[9][..]));
    assert_eq!(attributes.nested(2).be32(4), Some(0x0102_0304));
    assert_eq!(attributes.get(3), None);
}

#[test]
fn what_does_not_fit_an_attribute_is_refused() {
    let mut message = Message::new(7, 0, &[]);
    message.attribute(1, &vec![0; 70_000]);
    assert!(matches!(message.finish(1, "test"), Err(Error::TooLong { .. })));
}

#[test]
fn mangled_answers_end_the_reading() {
    let mut message = Message::new(7, 0, &[0; 4]);
    message.nested(2, |inner| inner.string(3, "text"));
    let bytes = message.finish(1, "test").unwrap();
    for cut in 0..bytes.len() {
        for byte in 0..=u8::MAX {
            let mut mangled = bytes.clone();
            mangled[cut] = byte;
            for datagram in [&mangled[..], &mangled[..cut]] {
                for message in messages(datagram) {
                    let _ = Attributes::after(message.body, 4).nested(2).string(3);
                }
            }
        }
    }
}

#[test]
fn a_bridge_and_a_pair_into_another_namespace() {
    in_own_network(|| {
        let mut here = RouteSocket::open().unwrap();
        let bridge = Bridge { name: "br0", address: [2, 0, 0, 0, 0, 1], group: 9 };
        let bridge = here.create_bridge(bridge).unwrap();
        assert_eq!((bridge.kind.as_str(), bridge.up, bridge.group), ("bridge", true, 9));
        assert_eq!(bridge.address, [2, 0, 0, 0, 0, 1]);
        here.set_route_localnet(bridge.index).unwrap();
        let setting = "/proc/sys/net/ipv4/conf/br0/route_localnet";
        assert_eq!(std::fs::read_to_string(setting).unwrap(), "1\n");

        let network = other_network();
        let veth = Veth {
            name: "v0",
            mtu: 1400,
            master: bridge.index,
            group: 9,
            peer: VethPeer {
                name: "eth0",
                address: [2, 0, 0, 0, 0, 2],
                namespace: network.as_fd(),
            },
        };
        let near = here.create_veth(veth).unwrap();
        assert!(here.create_veth(veth).unwrap_err().is_exists());
        assert_eq!((near.master, near.mtu, near.up), (Some(bridge.index), 1400, true));
        assert!(near.peer_namespace.is_some());
        here.set_hairpin(near.index).unwrap();

        let mut there = RouteSocket::open_in(network.as_fd()).unwrap();
        let far = there.link("eth0").unwrap().unwrap();
        assert_eq!((far.up, far.address), (false, vec![2, 0, 0, 0, 0, 2]));
        there.set_up(far.index).unwrap();
        there.add_address(address(far.index, "10.9.0.2/24")).unwrap();
        there.add_route(Route::default_through("10.9.0.1".parse().unwrap(), far.index)).unwrap();
        let default = there.routes().unwrap().into_iter().find(|route| route.prefix == 0).unwrap();
        assert_eq!((default.gateway, default.link), ("10.9.0.1".parse().ok(), far.index));

        here.delete_link(near.index).unwrap();
        assert!(here.delete_link(near.index).unwrap_err().is_not_found());
        assert_eq!(here.link("v0").unwrap(), None);
        assert_eq!(there.link("eth0").unwrap(), None);
        here.delete_group(9).unwrap();
        assert!(here.delete_group(9).unwrap_err().is_not_found());
        assert_eq!(here.links().unwrap().len(), 1);
    });
}

#[test]
fn addresses_and_routes_come_and_go() {
    in_own_network(|| {
        let mut socket = RouteSocket::open().unwrap();
        socket.create_bridge(Bridge { name: "br0", address: [2; 6], group: 0 }).unwrap();
        let link = socket.link("br0").unwrap().unwrap().index;
        for text in ["10.9.0.1/24", "fd00::1/64"] {
            let address = address(link, text);
            socket.add_address(address).unwrap();
            assert!(socket.add_address(address).unwrap_err().is_exists());
            assert!(socket.addresses().unwrap().contains(&address));
            socket.delete_address(address).unwrap();
            assert!(socket.delete_address(address).unwrap_err().is_not_found());
            assert!(!socket.addresses().unwrap().contains(&address));
        }
        socket.add_address(address(link, "10.9.0.1/24")).unwrap();
        let route = Route {
            destination: "10.8.0.0".parse().unwrap(),
            prefix: 16,
            gateway: None,
            link,
            priority: 7,
            table: 1000,
            protocol: 77,
        };
        socket.add_route(route).unwrap();
        assert!(socket.routes().unwrap().contains(&route));
        let found = socket.route_to("10.9.0.7".parse().unwrap()).unwrap().unwrap();
        assert_eq!((found.link, found.gateway), (link, None));
        assert_eq!(socket.route_to("10.7.0.1".parse().unwrap()).unwrap(), None);
        assert_eq!(socket.route_to("10.9.0.1".parse().unwrap()).unwrap(), None);
        socket.delete_route(route).unwrap();
        assert!(socket.delete_route(route).unwrap_err().is_not_found());
        assert!(!socket.routes().unwrap().contains(&route));
    });
}

#[test]
fn a_list_longer_than_a_datagram_is_whole() {
    in_own_network(|| {
        let mut socket = RouteSocket::open().unwrap();
        socket.create_bridge(Bridge { name: "br0", address: [2; 6], group: 0 }).unwrap();
        let link = socket.link("br0").unwrap().unwrap().index;
        for number in 0..2000_u32 {
            let text = format!("10.8.{}.{}/32", number >> 8, number & 0xff);
            socket.add_address(address(link, &text)).unwrap();
        }
        let addresses = socket.addresses().unwrap();
        assert_eq!(addresses.iter().filter(|address| address.address.is_ipv4()).count(), 2000);
    });
}

#[test]
fn refusals_carry_the_operation_and_the_kernels_words() {
    in_own_network(|| {
        let mut socket = RouteSocket::open().unwrap();
        check_refusal(
            socket
                .create_bridge(Bridge {
                    name: "a-name-that-is-too-long",
                    address: [2; 6],
                    group: 0,
                })
                .map(drop),
            &expect![
                "the kernel refused to create bridge a-name-that-is-too-long (Attribute failed policy validation): Numerical result out of range (os error 34)"
            ],
        );
        check_refusal(
            socket.delete_link(4711),
            &expect!["the kernel refused to delete link number 4711: No such device (os error 19)"],
        );
        check_refusal(
            socket.add_route(Route::default_through("10.9.0.1".parse().unwrap(), 1)),
            &expect![
                "the kernel refused to add the route to 0.0.0.0/0 (Nexthop has invalid gateway): Network is unreachable (os error 101)"
            ],
        );
    });
}

#[test]
fn connections_are_forgotten_by_choice() {
    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const LOCALHOST6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    in_own_network(|| {
        let mut route = RouteSocket::open().unwrap();
        route.set_up(1).unwrap();
        // Connections are tracked only while somebody asks about them.
        let mut filter = crate::nftables::NftablesSocket::open().unwrap();
        filter.commit(crate::nftables::tests::ruleset("t")).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:5300").unwrap();
        let other = UdpSocket::bind("127.0.0.1:5301").unwrap();
        let receiver6 = UdpSocket::bind("[::1]:5300").unwrap();
        let sender6 = UdpSocket::bind("[::1]:0").unwrap();
        sender6.send_to(b"x", receiver6.local_addr().unwrap()).unwrap();
        for _ in 0..3 {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
            sender.send_to(b"x", other.local_addr().unwrap()).unwrap();
        }
        let mut conntrack = ConntrackSocket::open().unwrap();
        let to = |address, port| SocketAddr::new(address, port);
        let mut forget = |protocol, destination| {
            let which = |connection: &Connection| {
                connection.destination == destination && connection.answers_from == destination
            };
            conntrack.forget(protocol, which).unwrap()
        };
        assert_eq!(forget(6, to(LOCALHOST, 5300)), 0);
        assert_eq!(forget(17, to(IpAddr::from([127, 0, 0, 2]), 5300)), 0);
        assert_eq!(forget(17, to(LOCALHOST, 5300)), 3);
        assert_eq!(forget(17, to(LOCALHOST, 5300)), 0);
        assert_eq!(forget(17, to(LOCALHOST, 5301)), 3);
        assert_eq!(forget(17, to(LOCALHOST6, 5300)), 1);
    });
}

#[test]
fn a_socket_stays_in_the_namespace_that_it_was_opened_in() {
    in_own_network(|| {
        let network = other_network();
        let mut socket = RouteSocket::open_in(network.as_fd()).unwrap();
        socket.create_bridge(Bridge { name: "there", address: [2; 6], group: 0 }).unwrap();
        assert_eq!(RouteSocket::open().unwrap().link("there").unwrap(), None);
        let seen = in_network(network.as_fd(), || Ok(RouteSocket::open().unwrap().link("there")));
        assert!(seen.unwrap().unwrap().is_some());
    });
}
