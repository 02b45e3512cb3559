//! Every way that packets take.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use mainstay_cri::{PortMapping, Protocol};
use mainstay_linux::netlink::RouteSocket;
use mainstay_linux::nftables::{Batch, Element, Family, NftablesSocket};

use super::super::{
    Finding, Holder, IpFamily, LiveSandbox, Names, Network, NetworkConfig, NetworkError, Repair,
};
use super::machine::*;

#[test]
fn sandboxes_reach_each_other_the_machine_and_the_world() {
    on_machine(|machine| {
        for bridged in [false, true] {
            machine.filter_bridged(bridged);
            let network = machine.open(&[]);
            let a = Sandbox::start(&network, "a", &[]);
            let b = Sandbox::start(&network, "b", &[]);
            assert_ne!(a.address(), b.address());
            let in_b = b.listen(80);
            let on_host = Place::Host.listen(80);
            let outside = Place::In(&machine.outside).listen(80);

            for kind in KINDS {
                // Under its own address.
                assert_eq!(seen_as(a.place(), b.of(kind), 80, &in_b), a.of(kind));
                assert_eq!(seen_as(a.place(), a.gateway_of(kind), 80, &on_host), a.of(kind));
                assert_eq!(seen_as(a.place(), kind.host, 80, &on_host), a.of(kind));
                // Under the machine's.
                assert_eq!(seen_as(a.place(), kind.neighbour, 80, &outside), kind.host);
                assert_eq!(seen_as(a.place(), kind.far, 80, &outside), kind.host);
                // From the machine, and from itself over its loopback link.
                assert_eq!(seen_as(Place::Host, b.of(kind), 80, &in_b), b.gateway_of(kind));
                assert_eq!(seen_as(b.place(), kind.localhost, 80, &in_b), kind.localhost);
            }
            network.remove_all().unwrap();
        }
    });
}

#[test]
fn links_have_the_mtu_of_the_way_out() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let sandbox = Sandbox::start(&network, "a", &[]);
        let mut inside = RouteSocket::open_in(sandbox.namespace.as_fd()).unwrap();
        assert_eq!(inside.link("eth0").unwrap().unwrap().mtu, MTU);
    });
}

#[test]
fn host_ports_are_reached_from_everywhere() {
    on_machine(|machine| {
        for bridged in [false, true] {
            machine.filter_bridged(bridged);
            // Strict, as many machines have it: answers must leave the way that packets came.
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
            let network = machine.open(&[]);
            let a = Sandbox::start(&network, "a", &[tcp(8080, 80), tcp(8081, 81)]);
            let b = Sandbox::start(&network, "b", &[]);
            let listener = a.listen(80);
            let outside = Place::In(&machine.outside);

            for kind in KINDS {
                // The client's own address, where the answers come back this way by themselves.
                assert_eq!(seen_as(outside, kind.host, 8080, &listener), kind.neighbour);
                assert_eq!(seen_as(Place::Host, kind.host, 8080, &listener), kind.host);
                // The machine's, where they would not.
                let gateway = a.gateway_of(kind);
                match kind.family {
                    IpFamily::V4 => {
                        let seen = seen_as(Place::Host, kind.localhost, 8080, &listener);
                        assert_eq!(seen, gateway);
                    }
                    IpFamily::V6 => {
                        // The kernel's limit; whoever tries both goes on at once.
                        let error = TcpStream::connect((kind.localhost, 8080)).unwrap_err();
                        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
                    }
                }
                assert_eq!(seen_as(b.place(), kind.host, 8080, &listener), gateway);
                assert_eq!(seen_as(b.place(), gateway, 8080, &listener), gateway);
                // A sandbox's own port, once around the machine.
                assert_eq!(seen_as(a.place(), kind.host, 8080, &listener), gateway);
            }

            let other = a.listen(81);
            assert_eq!(seen_as(outside, HOST, 8081, &other), NEIGHBOUR);
            network.teardown("a").unwrap();
            for place in [outside, Place::Host, b.place()] {
                assert!(!answers(place, HOST, 8080));
            }
            network.remove_all().unwrap();
        }
    });
}

#[test]
fn host_ports_of_udp_are_reached_from_everywhere() {
    on_machine(|machine| {
        for bridged in [false, true] {
            machine.filter_bridged(bridged);
            let network = machine.open(&[]);
            let a = Sandbox::start(&network, "a", &[map(Protocol::Udp, 5300, 53), tcp(5300, 54)]);
            let b = Sandbox::start(&network, "b", &[]);
            let server = a.place().udp(53);
            let ask = |place: Place<'_>, address: IpAddr| {
                exchange(&place.udp(0), address, 5300, &server).ip()
            };
            for kind in KINDS {
                let gateway = a.gateway_of(kind);
                assert_eq!(ask(Place::In(&machine.outside), kind.host), kind.neighbour);
                assert_eq!(ask(Place::Host, kind.host), kind.host);
                if kind.family == IpFamily::V4 {
                    assert_eq!(ask(Place::Host, kind.localhost), gateway);
                }
                assert_eq!(ask(b.place(), kind.host), gateway);
                assert_eq!(ask(a.place(), kind.host), gateway);
            }
            network.remove_all().unwrap();
        }
    });
}

#[test]
fn a_host_port_of_one_address_is_reached_there_alone() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let on = |address: [u8; 4], port| PortMapping {
            host_ip: Some(IpAddr::from(address)),
            ..tcp(8080, port)
        };
        let private = Sandbox::start(&network, "private", &[on([127, 0, 0, 1], 80)]);
        let public = Sandbox::start(&network, "public", &[on([192, 0, 2, 1], 80)]);
        let everywhere =
            Sandbox::start(&network, "all", &[PortMapping { host_port: 9090, ..on([0; 4], 80) }]);
        let [in_private, in_public, in_everywhere] =
            [&private, &public, &everywhere].map(|sandbox| sandbox.listen(80));
        let outside = Place::In(&machine.outside);

        seen_as(Place::Host, Ipv4Addr::LOCALHOST, 8080, &in_private);
        seen_as(Place::Host, HOST, 8080, &in_public);
        seen_as(outside, HOST, 8080, &in_public);
        assert!(!answers(Place::Host, private.gateway(), 8080));
        seen_as(outside, HOST, 9090, &in_everywhere);
        network.teardown("public").unwrap();
        assert!(!answers(outside, HOST, 8080));
        seen_as(Place::Host, Ipv4Addr::LOCALHOST, 8080, &in_private);
    });
}

/// CVE-2020-8558, and ports published on 127.0.0.1 that neighbours reach all the same.
#[test]
fn the_machines_loopback_is_its_own() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let on_loopback =
            PortMapping { host_ip: Some(Ipv4Addr::LOCALHOST.into()), ..tcp(8080, 80) };
        let a = Sandbox::start(&network, "a", &[on_loopback]);
        let _in_a = a.listen(80);
        let b = Sandbox::start(&network, "b", &[]);
        let private = TcpListener::bind((Ipv4Addr::LOCALHOST, 7000)).unwrap();
        // Whoever has the capability for it can send such packets from a sandbox or a neighbour.
        for (place, gateway) in
            [(Place::In(&machine.outside), IpAddr::from(HOST)), (b.place(), b.gateway())]
        {
            let prepared = place.open(|| {
                std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")?;
                let delete = run("ip", "address del 127.0.0.1/8 dev lo");
                let add = run("ip", &format!("route add 127.0.0.0/8 via {gateway}"));
                Ok(delete.and(add).is_some())
            });
            if !prepared.unwrap() {
                return;
            }
            assert!(!answers(place, Ipv4Addr::LOCALHOST, 7000));
            assert!(!answers(place, Ipv4Addr::LOCALHOST, 8080));
        }
        drop(private);
    });
}

/// A sender that goes on with one socket, as resolvers do, must reach whoever has the port now.
#[test]
fn udp_senders_follow_the_port() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let _first = Sandbox::start(&network, "first", &[]);
        for kind in KINDS {
            let client = Place::In(&machine.outside).udp(4000);
            // Nobody has it yet; the kernel remembers the connection untranslated.
            client.send_to(b"lost", (kind.host, 5300)).unwrap();
            for id in ["a", "b"] {
                let sandbox = Sandbox::start(&network, id, &[map(Protocol::Udp, 5300, 53)]);
                network.settle().unwrap();
                let server = sandbox.place().udp(53);
                assert_eq!(exchange(&client, kind.host, 5300, &server).ip(), kind.neighbour);
                network.teardown(id).unwrap();
                network.settle().unwrap();
            }
            // And the machine itself, when no sandbox has it any more.
            let server = Place::Host.udp(5300);
            exchange(&client, kind.host, 5300, &server);
        }
    });
}

#[test]
fn a_taken_port_names_its_holder() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80), map(Protocol::Udp, 5300, 53)]);
        let other_instance = Network::open(machine.config("b"), &[], &[]);
        let process = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)).unwrap();
        let on_loopback = UdpSocket::bind((Ipv4Addr::LOCALHOST, 7001)).unwrap();
        let me = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let name = name.trim_end();
        let b = namespace();
        let check = |network: &Network, mapping: PortMapping, expected: &str| {
            let error = network.setup("b", b.as_fd(), &[tcp(1234, 80), mapping]).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.kind(), mainstay_cri::ErrorKind::FailedPrecondition);
            // Nothing of it stays behind.
            drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 1234)).unwrap());
        };
        let loopback = Some(Ipv4Addr::LOCALHOST.into());
        check(&network, tcp(8080, 80), "host port 8080/TCP is in use by sandbox a");
        check(
            &network,
            PortMapping { host_ip: loopback, ..tcp(8080, 80) },
            "host port 8080/TCP on 127.0.0.1 is in use by sandbox a",
        );
        let process_holds =
            |port: &str| format!("host port {port} is in use by process {me} ({name})");
        check(&network, tcp(7000, 80), &process_holds("7000/TCP"));
        check(&network, map(Protocol::Udp, 7001, 80), &process_holds("7001/UDP"));
        let table = Names::of(&machine.config("a").root_dir).table;
        check(
            &other_instance,
            tcp(8080, 80),
            &format!(
                "host port 8080/TCP is in use by another instance of mainstay (table inet {table})"
            ),
        );
        // Another protocol, and a port that became free, are no conflicts.
        drop((process, on_loopback));
        network.setup("b", b.as_fd(), &[tcp(7000, 80), map(Protocol::Udp, 8080, 80)]).unwrap();
        network.teardown("a").unwrap();
        Sandbox::start(&network, "c", &[tcp(8080, 80), tcp(5300, 80)]);
        drop(a);
    });
}

#[test]
fn a_host_port_is_kept_from_the_machines_processes() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        Sandbox::start(&network, "a", &[tcp(8080, 80), map(Protocol::Udp, 5300, 53)]);
        let bind_tcp = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080));
        let bind_udp = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 5300));
        assert!(bind_tcp().is_err() && bind_udp().is_err());
        // Reserved is not served.
        assert!(!answers(Place::Host, HOST, 8080));
        network.teardown("a").unwrap();
        assert!(bind_tcp().is_ok() && bind_udp().is_ok());
    });
}

/// Kernels without SCTP sockets translate it all the same.
#[test]
fn host_ports_of_sctp_are_in_the_map() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let sandbox = Sandbox::start(&network, "a", &[map(Protocol::Sctp, 9000, 900)]);
        let table = Names::of(&machine.config("a").root_dir).table;
        let mut socket = NftablesSocket::open().unwrap();
        let port = |number: u16| [number.to_be_bytes(), [0; 2]].concat();
        let element = Element {
            key: [vec![132, 0, 0, 0], port(9000)].concat(),
            data: [sandbox.address().octets().to_vec(), port(900)].concat(),
        };
        let elements = socket.elements(Family::Inet, &table, "host_ports").unwrap();
        assert_eq!(elements, [element]);
    });
}

/// Whoever else has port 53: a sandbox, a server of the machine, another program's rules.
#[test]
fn what_is_asked_at_the_bridge_comes_to_the_resolver() {
    on_machine(|machine| {
        for bridged in [false, true] {
            machine.filter_bridged(bridged);
            let network = machine.open(&[]);
            let a = Sandbox::start(&network, "a", &[tcp(53, 53), map(Protocol::Udp, 53, 53)]);
            let b = Sandbox::start(&network, "b", &[]);
            network.check();
            let in_a = a.listen(53);
            let (udp_in_a, outside) = (a.place().udp(53), Place::In(&machine.outside));
            for kind in KINDS {
                let gateway = a.gateway_of(kind);
                // Nobody answers there yet but whom the port leads to.
                seen_as(b.place(), gateway, 53, &in_a);
                let asking = b.place().udp(0);
                exchange(&asking, gateway, 53, &udp_in_a);
                let (udp, tcp) = resolver(&network, gateway);
                network.lead_questions(true).unwrap();
                network.settle().unwrap();
                for (place, seen) in [(b.place(), b.of(kind)), (Place::Host, gateway)] {
                    assert_eq!(seen_as(place, gateway, 53, &tcp), seen);
                    assert_eq!(exchange(&place.udp(0), gateway, 53, &udp).ip(), seen);
                }
                // Also who goes on with one socket.
                assert_eq!(exchange(&asking, gateway, 53, &udp).ip(), b.of(kind));
                // Everywhere else it is the sandbox's.
                assert_eq!(seen_as(outside, kind.host, 53, &in_a), kind.neighbour);
                seen_as(b.place(), kind.host, 53, &in_a);
                exchange(&b.place().udp(0), kind.host, 53, &udp_in_a);
                // Nobody else gets the resolver's.
                let error = network.listen(gateway).unwrap_err();
                assert!(matches!(error, NetworkError::PortInUse { port: 253, .. }), "{error}");
                assert_eq!(network.shadowed(gateway), Some(Holder::Sandbox("a".to_owned())));
                assert_eq!(network.shadowed(kind.host), None);
                // The next one finds it so.
                drop((udp, tcp));
                let (udp, tcp) = resolver(&network, gateway);
                assert_eq!(exchange(&asking, gateway, 53, &udp).ip(), b.of(kind));
                seen_as(b.place(), gateway, 53, &tcp);
                // And without one it is as before.
                network.lead_questions(false).unwrap();
                network.settle().unwrap();
                exchange(&asking, gateway, 53, &udp_in_a);
                seen_as(b.place(), gateway, 53, &in_a);
            }
            assert_eq!(network.check(), []);
            network.remove_all().unwrap();
        }
    });
}

#[test]
fn servers_of_the_machine_have_port_53_beside_the_resolver() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[]);
        let (outside, me) = (Place::In(&machine.outside), std::process::id().cast_signed());
        // Whether they are there before the resolver or come later.
        let before = (Place::Host.listen(53), Place::Host.udp(53));
        let mut resolvers = Vec::new();
        for kind in KINDS {
            resolvers.push(resolver(&network, a.gateway_of(kind)));
        }
        network.lead_questions(true).unwrap();
        drop(before);
        let (tcp, udp) = (Place::Host.listen(53), Place::Host.udp(53));
        for (kind, (udp_of_resolver, tcp_of_resolver)) in KINDS.into_iter().zip(&resolvers) {
            let gateway = a.gateway_of(kind);
            assert_eq!(seen_as(a.place(), gateway, 53, tcp_of_resolver), a.of(kind));
            let seen = exchange(&a.place().udp(0), gateway, 53, udp_of_resolver);
            assert_eq!(seen.ip(), a.of(kind));
            assert_eq!(seen_as(outside, kind.host, 53, &tcp), kind.neighbour);
            assert_eq!(exchange(&outside.udp(0), kind.host, 53, &udp).ip(), kind.neighbour);
            assert_eq!(seen_as(a.place(), kind.host, 53, &tcp), a.of(kind));
            let holder = network.shadowed(gateway);
            assert!(matches!(holder, Some(Holder::Process { pid, .. }) if pid == me), "{holder:?}");
        }
    });
}

fn flush(names: &Names) {
    let mut batch = Batch::new();
    batch.delete_table(Family::Inet, &names.table);
    NftablesSocket::open().unwrap().commit(batch).unwrap();
}

/// A reload of the machine's packet filter, and the next agent.
#[test]
fn questions_come_to_the_resolver_whatever_becomes_of_the_rules() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[]);
        let (udp, tcp) = resolver(&network, a.gateway());
        let server = Place::Host.udp(53);
        // Connections are tracked only while somebody asks about them.
        let other = Network::open(machine.config("b"), &[], &[]);
        let _other = Sandbox::start(&other, "b", &[]);
        network.lead_questions(true).unwrap();
        network.check();
        let asking = a.place().udp(0);
        exchange(&asking, a.gateway(), 53, &udp);
        flush(&Names::of(&machine.config("a").root_dir));
        let later = a.place().udp(0);
        exchange(&later, a.gateway(), 53, &server);
        assert_eq!(network.check(), [Finding::Repaired(Repair::Table)]);
        for socket in [&asking, &later] {
            exchange(socket, a.gateway(), 53, &udp);
        }
        seen_as(a.place(), a.gateway(), 53, &tcp);
        // The next agent leaves it so for those that may ask, ...
        drop(network);
        let live = |asks| LiveSandbox { asks, ..a.live() };
        let network = Network::open(machine.config("a"), &[live(true)], &[]);
        assert_eq!(network.check(), []);
        exchange(&later, a.gateway(), 53, &udp);
        seen_as(a.place(), a.gateway(), 53, &tcp);
        // ... and for nobody else.
        drop(network);
        let network = Network::open(machine.config("a"), &[live(false)], &[]);
        assert_eq!(network.check(), [Finding::Repaired(Repair::Table)]);
        exchange(&later, a.gateway(), 53, &server);
        drop(network);
        // On the machine's network nobody has a link, and may ask all the same.
        let network = Network::open(machine.config("a"), &[], &[a.gateway()]);
        network.check();
        for _ in 0..2 {
            exchange(&Place::Host.udp(0), a.gateway(), 53, &udp);
            seen_as(Place::Host, a.gateway(), 53, &tcp);
            flush(&Names::of(&machine.config("a").root_dir));
            assert_eq!(network.check(), [Finding::Repaired(Repair::Table)]);
        }
        drop(network);
        let network = Network::open(machine.config("a"), &[], &[HOST.into()]);
        network.check();
        assert!(!answers(Place::Host, a.gateway(), 53));
    });
}

#[test]
fn host_addresses_of_a_kind_that_sandboxes_do_not_have_are_refused() {
    on_machine(|machine| {
        let ranges = vec!["10.88.0.0/24".parse().unwrap()];
        let network = Network::open(NetworkConfig { ranges, ..machine.config("a") }, &[], &[]);
        let check = |host_ip: &str, expected: expect_test::Expect| {
            let mapping = PortMapping { host_ip: Some(host_ip.parse().unwrap()), ..tcp(8080, 80) };
            let error = network.setup("a", namespace().as_fd(), &[mapping]).unwrap_err();
            expected.assert_eq(&error.to_string());
            assert_eq!(error.kind(), mainstay_cri::ErrorKind::InvalidArgument);
        };
        check(
            "fd01::1",
            expect_test::expect![[
                "host address fd01::1 of port 8080 is of a kind that the sandbox has no address of: \
                 the machine has it switched off, or podCIDR has no range of it"
            ]],
        );
        check(
            "::1",
            expect_test::expect![[
                "host address ::1 of port 8080 cannot lead into a sandbox, as the kernel routes \
                 nothing from there; use 127.0.0.1, which a client that asks for localhost comes to \
                 as well"
            ]],
        );
    });
}
