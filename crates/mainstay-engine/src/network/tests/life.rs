//! Sandboxes and agents come and go.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use expect_test::expect;
use mainstay_cri::Protocol;
use mainstay_linux::netlink::{RouteSocket, Veth, VethPeer};
use mainstay_linux::nftables::NftablesSocket;

use super::super::range::choose;
use super::super::{Finding, IpFamily, Names, Network, NetworkConfig, Repair};
use super::machine::*;

/// Everything that can be seen of instances on the machine: links, tables.
fn traces() -> Vec<String> {
    let links = RouteSocket::open().unwrap().links().unwrap().into_iter().map(|link| link.name);
    let tables = NftablesSocket::open().unwrap().tables().unwrap().into_iter().map(|t| t.name);
    let mut traces: Vec<_> = links.chain(tables).filter(|name| !name.starts_with("lan0")).collect();
    traces.retain(|name| name != "lo");
    traces
}

#[test]
fn nothing_is_touched_before_the_first_sandbox() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        assert_eq!(network.check(), []);
        network.teardown("nobody").unwrap();
        network.settle().unwrap();
        network.remove_all().unwrap();
        assert_eq!(traces(), [""; 0]);
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
    });
}

#[test]
fn setting_up_again_changes_nothing() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let sandbox = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        let listener = sandbox.listen(80);
        let (_, connection) = connect(Place::In(&machine.outside), HOST, 8080, &listener);
        let again = network.setup("a", sandbox.namespace.as_fd(), &sandbox.mappings).unwrap();
        assert_eq!(again, sandbox.network);
        connection.check();
        seen_as(Place::In(&machine.outside), HOST, 8080, &listener);
    });
}

#[test]
fn teardown_frees_ports_at_once_and_the_address_in_the_end() {
    on_machine(|machine| {
        let config =
            NetworkConfig { ranges: vec!["10.88.0.0/29".parse().unwrap()], ..machine.config("a") };
        let network = Network::open(config, &[], &[]);
        let mut sandboxes: Vec<_> = (0..5)
            .map(|n| Sandbox::start(&network, &n.to_string(), &[tcp(8000 + n, 80)]))
            .collect();
        let full = |id| network.setup(id, namespace().as_fd(), &[]).unwrap_err();
        expect![[
            "no address is free in 10.88.0.0/29: all 5 are held by sandboxes; stop some, or set \
             a wider podCIDR"
        ]]
        .assert_eq(&full("x").to_string());
        assert_eq!(full("x").kind(), mainstay_cri::ErrorKind::ResourceExhausted);

        // The link goes with its namespace, or by itself, or was deleted by somebody.
        let vanished = sandboxes.remove(4);
        network.teardown("4").unwrap();
        drop(vanished.namespace);
        network.teardown("3").unwrap();
        let mut socket = RouteSocket::open().unwrap();
        let names = Names::of(&machine.config("a").root_dir);
        let link = socket.link(&names.link("2")).unwrap().unwrap();
        socket.delete_link(link.index).unwrap();
        network.teardown("2").unwrap();
        for _ in 0..2 {
            network.teardown("2").unwrap();
            network.settle().unwrap();
        }
        assert_eq!(network.addresses("2"), [] as [IpAddr; 0]);
        for (id, port) in [("5", 8004), ("6", 8003), ("7", 8002)] {
            let sandbox = Sandbox::start(&network, id, &[tcp(port, 80)]);
            let listener = sandbox.listen(80);
            seen_as(Place::In(&machine.outside), HOST, port, &listener);
            sandboxes.push(sandbox);
        }
        full("x");
        let links = socket.links().unwrap();
        assert_eq!(links.iter().filter(|link| link.group == names.group).count(), 1 + 5);
        assert_eq!(links.iter().filter(|link| link.group == names.doomed).count(), 0);
    });
}

/// The same id, but torn down and set up anew before anybody settled.
#[test]
fn a_sandbox_comes_back_under_its_id() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        network.teardown("a").unwrap();
        let sandbox = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        let listener = sandbox.listen(80);
        seen_as(Place::In(&machine.outside), HOST, 8080, &listener);
    });
}

/// An agent that died in the middle of a setup leaves a link, half made.
#[test]
fn a_setup_that_was_cut_off_is_completed() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let names = Names::of(&machine.config("a").root_dir);
        let _first = Sandbox::start(&network, "first", &[]);
        let mut socket = RouteSocket::open().unwrap();
        let master = socket.link("lan0").unwrap().unwrap().index;
        let (old, new) = (namespace(), namespace());
        for inside in [&old, &new] {
            let namespace = inside.as_fd();
            let peer = VethPeer { name: "eth0", address: [2; 6], namespace };
            let name = names.link("a");
            let veth = Veth { name: &name, mtu: 1500, master, group: names.group, peer };
            socket.create_veth(veth).unwrap();
            network.setup("a", new.as_fd(), &[tcp(8080, 80)]).unwrap();
            let listener = Place::In(&new).listen(80);
            seen_as(Place::In(&machine.outside), HOST, 8080, &listener);
            network.teardown("a").unwrap();
            network.settle().unwrap();
        }
    });
}

#[test]
fn two_hundred_sandboxes_start_at_once() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let start = |worker: u16| {
            let network = &network;
            let ids = (worker..200).step_by(8);
            move || {
                ids.map(|n| Sandbox::start(network, &n.to_string(), &[tcp(10_000 + n, 80)]))
                    .collect::<Vec<_>>()
            }
        };
        let sandboxes: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8).map(|worker| scope.spawn(start(worker))).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let mut addresses: Vec<_> = sandboxes.iter().map(Sandbox::address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 200);
        for sandbox in &sandboxes {
            let port = 10_000 + sandbox.id.parse::<u16>().unwrap();
            let listener = sandbox.listen(80);
            assert_eq!(seen_as(Place::In(&machine.outside), HOST, port, &listener), NEIGHBOUR);
        }
        let [first, .., last] = &sandboxes[..] else { unreachable!() };
        seen_as(first.place(), last.address(), 81, &last.listen(81));
        assert_eq!(network.check(), [forwarding()]);
        for sandbox in &sandboxes {
            network.teardown(&sandbox.id).unwrap();
        }
        network.settle().unwrap();
        let names = Names::of(&machine.config("a").root_dir);
        assert_eq!(traces(), [names.bridge, names.table]);
    });
}

/// What is set up and taken down while others look must neither be reported nor deleted; nor
/// what another instance does.
#[test]
fn checks_do_not_disturb_what_goes_on() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let other = Network::open(machine.config("b"), &[], &[]);
        let kept = Sandbox::start(&network, "kept", &[tcp(8080, 80)]);
        assert_eq!(network.check(), [forwarding()]);
        let listener = kept.listen(80);
        let (_, connection) = connect(Place::In(&machine.outside), HOST, 8080, &listener);
        let churn = |network: &Network, worker: u16| {
            let port = 9000 + worker;
            for round in 0..30 {
                let id = format!("{worker}-{round}");
                let ports = [tcp(port, 80), map(Protocol::Udp, port, 80)];
                let sandbox = Sandbox::start(network, &id, &ports);
                seen_as(Place::Host, Ipv4Addr::LOCALHOST, port, &sandbox.listen(80));
                network.teardown(&id).unwrap();
                if round % 3 == 0 {
                    network.settle().unwrap();
                }
            }
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers = [(&network, 0), (&network, 1), (&other, 2), (&other, 3)];
            let workers =
                workers.map(|(network, worker)| scope.spawn(move || churn(network, worker)));
            let checker = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(network.check(), []);
                }
            });
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            checker.join().unwrap();
        });
        connection.check();
    });
}

#[test]
fn instances_live_side_by_side() {
    on_machine(|machine| {
        let first = machine.open(&[]);
        let second = Network::open(machine.config("b"), &[], &[]);
        let a = Sandbox::start(&first, "a", &[tcp(8080, 80)]);
        let b = Sandbox::start(&second, "a", &[tcp(8081, 80)]);
        let (in_a, in_b) = (a.listen(80), b.listen(80));
        assert_ne!(a.gateway(), b.gateway());
        let outside = Place::In(&machine.outside);
        seen_as(outside, HOST, 8080, &in_a);
        seen_as(outside, HOST, 8081, &in_b);
        // From one to the other, by the host port and directly.
        seen_as(a.place(), HOST, 8081, &in_b);
        assert_eq!(seen_as(a.place(), b.address(), 80, &in_b), b.gateway());
        let (_, connection) = connect(outside, HOST, 8081, &in_b);

        let before = traces();
        first.remove_all().unwrap();
        first.remove_all().unwrap();
        let names = Names::of(&machine.config("b").root_dir);
        let mut left = traces();
        left.sort();
        let mut expected = [names.link("a"), names.bridge, names.table];
        expected.sort();
        assert_eq!(left, expected);
        assert_eq!(before.len(), 6);
        connection.check();
        assert_eq!(second.check(), [] as [Finding; 0]);
        assert!(!answers(outside, HOST, 8080));
        drop(std::net::TcpListener::bind((HOST, 8080)).unwrap());

        // And it can begin anew.
        let c = Sandbox::start(&first, "c", &[tcp(8080, 80)]);
        seen_as(outside, HOST, 8080, &c.listen(80));
    });
}

#[test]
fn instances_that_choose_at_the_same_time_choose_differently() {
    let range =
        |config: &NetworkConfig| choose(IpFamily::V4, &config.machine_id, &config.root_dir, &[]);
    on_machine(move |machine| {
        for round in 0..10 {
            // Two that both choose the same range first.
            let first = machine.config(&format!("{round}"));
            let mut others = (0..).map(|number| machine.config(&format!("{round}-{number}")));
            let second = others.find(|other| range(other) == range(&first)).unwrap();
            let networks = [first, second].map(|config| Network::open(config, &[], &[]));
            let barrier = Barrier::new(networks.len());
            let start = |network| {
                barrier.wait();
                Sandbox::start(network, "a", &[]).gateway()
            };
            let gateways = std::thread::scope(|scope| {
                let threads = networks.each_ref().map(|network| scope.spawn(|| start(network)));
                threads.map(|thread| thread.join().unwrap())
            });
            assert_ne!(gateways[0], gateways[1]);
        }
    });
}

#[test]
fn a_killed_agent_finds_everything_again() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let [lives, dies] = ["lives", "dies"].map(|id| {
            let port = if id == "lives" { 8080 } else { 8081 };
            Sandbox::start(&network, id, &[tcp(port, 80), map(Protocol::Udp, port, 53)])
        });
        let listener = lives.listen(80);
        let outside = Place::In(&machine.outside);
        let (_, in_connection) = connect(outside, HOST, 8080, &listener);
        let far = outside.listen(443);
        let (_, out_connection) = connect(lives.place(), FAR, 443, &far);
        // A sandbox that was cut off while it was set up: a link, elements, but nobody lives.
        drop(network);

        let network = machine.open(&[&lives]);
        let findings = network.check();
        assert!(findings.contains(&Finding::Repaired(Repair::Leftovers(1))), "{findings:?}");
        assert_eq!(network.check(), []);
        in_connection.check();
        out_connection.check();
        assert_eq!(network.addresses("lives"), lives.network.addresses);
        seen_as(outside, HOST, 8080, &listener);
        assert!(!answers(outside, HOST, 8081));
        // Its ports are its own again, and those of the dead are free.
        let fresh = namespace();
        network.setup("x", fresh.as_fd(), &[tcp(8080, 80)]).unwrap_err();
        let next = Sandbox::start(&network, "next", &[tcp(8081, 80)]);
        assert_ne!(next.address(), lives.address());
        seen_as(outside, HOST, 8081, &next.listen(80));
        drop(dies);
    });
}

#[test]
fn after_a_killed_agent_without_sandboxes_ports_are_free() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let sandbox = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        drop(network);
        let network = machine.open(&[]);
        // A process of the machine gets its connections, which the element would have taken.
        let listener = Place::Host.listen(8080);
        seen_as(Place::In(&machine.outside), HOST, 8080, &listener);
        assert_eq!(network.check(), [Finding::Repaired(Repair::Leftovers(1))]);
        drop(sandbox);
    });
}

#[test]
fn a_port_that_was_taken_meanwhile_is_told() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let sandbox = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        drop(network);
        let thief = Place::Host.listen(8080);
        let network = machine.open(&[&sandbox]);
        let [Finding::PortNotReserved { .. }] = &network.check()[..] else {
            panic!("not told: {:?}", network.check())
        };
        seen_as(Place::In(&machine.outside), HOST, 8080, &sandbox.listen(80));
        drop(thief);
    });
}

#[test]
fn the_range_is_remembered_unless_it_is_taken() {
    on_machine(|machine| {
        let config = machine.config("a");
        let gateway = || {
            let network = Network::open(config.clone(), &[], &[]);
            let gateway = Sandbox::start(&network, "a", &[]).gateway();
            network.remove_all().unwrap();
            gateway
        };
        let first = gateway();
        assert_eq!(gateway(), first);
        // Another network of the machine came to have these addresses.
        let mut socket = RouteSocket::open().unwrap();
        let link = socket.link("lan0").unwrap().unwrap().index;
        let address = mainstay_linux::netlink::Address { link, address: first, prefix: 24 };
        socket.add_address(address).unwrap();
        let second = gateway();
        assert_ne!(second, first);
        socket.delete_address(address).unwrap();
        assert_eq!(gateway(), second);
    });
}

#[test]
fn a_wanted_range_waits_for_living_sandboxes() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[]);
        drop(network);
        let wanted =
            NetworkConfig { ranges: vec!["10.88.0.0/24".parse().unwrap()], ..machine.config("a") };
        let network = Network::open(wanted.clone(), &[a.live()], &[]);
        let findings = network.check();
        assert!(matches!(findings[..], [Finding::OtherRange { .. }]), "{findings:?}");
        let b = Sandbox::start(&network, "b", &[]);
        assert_eq!(a.gateway(), b.gateway());
        seen_as(a.place(), b.address(), 80, &b.listen(80));
        network.remove_all().unwrap();
        drop(network);
        let network = Network::open(wanted, &[], &[]);
        let c = Sandbox::start(&network, "c", &[]);
        assert_eq!(c.gateway(), IpAddr::from([10, 88, 0, 1]));
    });
}
