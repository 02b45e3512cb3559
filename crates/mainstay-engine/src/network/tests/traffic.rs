//! Every way that packets take.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use mainstay_cri::{PortMapping, Protocol};
use mainstay_linux::netlink::RouteSocket;
use mainstay_linux::nftables::{Element, Family, NftablesSocket};

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

            // Under its own address.
            assert_eq!(seen_as(a.place(), b.address(), 80, &in_b), a.address());
            assert_eq!(seen_as(a.place(), a.gateway(), 80, &on_host), a.address());
            assert_eq!(seen_as(a.place(), HOST, 80, &on_host), a.address());
            // Under the machine's.
            assert_eq!(seen_as(a.place(), NEIGHBOUR, 80, &outside), HOST);
            assert_eq!(seen_as(a.place(), FAR, 80, &outside), HOST);
            // From the machine, and from itself over its loopback link.
            assert_eq!(seen_as(Place::Host, b.address(), 80, &in_b), b.gateway());
            assert_eq!(seen_as(b.place(), Ipv4Addr::LOCALHOST, 80, &in_b), Ipv4Addr::LOCALHOST);
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

            // The client's own address, where the answers come back this way by themselves.
            assert_eq!(seen_as(outside, HOST, 8080, &listener), NEIGHBOUR);
            assert_eq!(seen_as(Place::Host, HOST, 8080, &listener), HOST);
            // The machine's, where they would not.
            assert_eq!(seen_as(Place::Host, Ipv4Addr::LOCALHOST, 8080, &listener), a.gateway());
            assert_eq!(seen_as(b.place(), HOST, 8080, &listener), a.gateway());
            assert_eq!(seen_as(b.place(), b.gateway(), 8080, &listener), a.gateway());
            // A sandbox's own port, once around the machine.
            assert_eq!(seen_as(a.place(), HOST, 8080, &listener), a.gateway());

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
            let ask = |place: Place<'_>, address: Ipv4Addr| {
                exchange(&place.udp(0), address, 5300, &server).ip()
            };
            assert_eq!(ask(Place::In(&machine.outside), HOST), NEIGHBOUR);
            assert_eq!(ask(Place::Host, HOST), HOST);
            assert_eq!(ask(Place::Host, Ipv4Addr::LOCALHOST), a.gateway());
            assert_eq!(ask(b.place(), HOST), a.gateway());
            assert_eq!(ask(a.place(), HOST), a.gateway());
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
        let client = Place::In(&machine.outside).udp(4000);
        // Nobody has it yet; the kernel remembers the connection untranslated.
        client.send_to(b"lost", (HOST, 5300)).unwrap();
        for id in ["a", "b"] {
            let sandbox = Sandbox::start(&network, id, &[map(Protocol::Udp, 5300, 53)]);
            network.settle().unwrap();
            let server = sandbox.place().udp(53);
            assert_eq!(exchange(&client, HOST, 5300, &server).ip(), NEIGHBOUR);
            network.teardown(id).unwrap();
            network.settle().unwrap();
        }
        // And the machine itself, when no sandbox has it any more.
        let server = Place::Host.udp(5300);
        exchange(&client, HOST, 5300, &server);
    });
}

#[test]
fn a_taken_port_names_its_holder() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80), map(Protocol::Udp, 5300, 53)]);
        let other_instance = super::super::Network::open(machine.config("b"), &[]);
        let process = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)).unwrap();
        let on_loopback = UdpSocket::bind((Ipv4Addr::LOCALHOST, 7001)).unwrap();
        let me = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let name = name.trim_end();
        let b = namespace();
        let check = |network: &super::super::Network, mapping: PortMapping, expected: &str| {
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
        let table = super::super::Names::of(&machine.config("a").root_dir).table;
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
        let table = super::super::Names::of(&machine.config("a").root_dir).table;
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

#[test]
fn ipv6_host_addresses_are_refused() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let mapping = PortMapping { host_ip: Some("::1".parse().unwrap()), ..tcp(8080, 80) };
        let error = network.setup("a", namespace().as_fd(), &[mapping]).unwrap_err();
        expect_test::expect![[
            "host address ::1 of port 8080 is not an IPv4 address, and the built-in network has \
             no others yet"
        ]]
        .assert_eq(&error.to_string());
        assert_eq!(error.kind(), mainstay_cri::ErrorKind::InvalidArgument);
    });
}
