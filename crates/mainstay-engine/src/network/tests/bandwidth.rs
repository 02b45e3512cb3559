//! What sandboxes receive and send at most.

use std::net::IpAddr;
use std::os::fd::AsFd;

use mainstay_cri::Bandwidth;
use mainstay_linux::netlink::RouteSocket;

use super::super::{Finding, LiveSandbox, Names, Network, Repair};
use super::machine::*;

/// Of the links with a bound of their rate: their names and their rates in bytes per second.
fn rates() -> Vec<(String, u64)> {
    let mut socket = RouteSocket::open().unwrap();
    let links = socket.links().unwrap();
    let name = |index| links.iter().find(|link| link.index == index).unwrap().name.clone();
    let qdiscs = socket.qdiscs().unwrap().into_iter();
    let mut rates: Vec<_> =
        qdiscs.filter_map(|qdisc| Some((name(qdisc.link), qdisc.rate?))).collect();
    rates.sort();
    rates
}

/// How many packets a link has received and sent. Source: proc_pid_net(5).
fn packets(link: &str) -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line =
        table.lines().find_map(|line| line.trim().strip_prefix(&format!("{link}:"))).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|it| it.parse().unwrap()).collect();
    (numbers[1], numbers[9])
}

fn names(machine: &Machine) -> Names {
    Names::of(&machine.config("a").root_dir)
}

#[test]
fn bounds_are_where_the_sandbox_cannot_change_them() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        let _free = Sandbox::start(&network, "free", &[]);
        let bandwidth = Bandwidth { ingress: Some(8_000_000), egress: Some(80_000_000_000) };
        // And again, as after something was cut off.
        for _ in 0..2 {
            network.limit("a", bandwidth).unwrap();
        }
        let names = names(machine);
        let (link, detour) = (names.link("a"), names.detour("a"));
        let mut expected = [(link.clone(), 1_000_000), (detour.clone(), 10_000_000_000)];
        expected.sort();
        assert_eq!(rates(), expected);
        let mut inside = RouteSocket::open_in(a.namespace.as_fd()).unwrap();
        assert!(inside.qdiscs().unwrap().iter().all(|qdisc| qdisc.rate.is_none()));
        // Everything goes its way still, by both kinds of addresses, and what is sent by the detour.
        let listener = a.listen(80);
        let far = Place::In(&machine.outside).listen(443);
        for kind in KINDS {
            let before = packets(&detour);
            assert_eq!(
                seen_as(Place::In(&machine.outside), kind.host, 8080, &listener),
                kind.neighbour
            );
            assert_eq!(seen_as(a.place(), kind.far, 443, &far), kind.host);
            let after = packets(&detour);
            assert!(after.0 > before.0 && after.1 > before.1, "{before:?} {after:?}");
        }
        network.check();
        assert_eq!(network.check(), []);
        assert_eq!(rates(), expected);

        // An agent that comes later keeps them, and makes them anew with the link.
        drop(network);
        let live = || LiveSandbox { bandwidth, ..a.live() };
        let network = Network::open(machine.config("a"), &[live()], &[]);
        assert_eq!(rates(), expected);
        drop(network);
        let mut socket = RouteSocket::open().unwrap();
        let index = socket.link(&link).unwrap().unwrap().index;
        socket.delete_link(index).unwrap();
        let network = Network::open(machine.config("a"), &[live()], &[]);
        assert_eq!(rates(), expected);
        seen_as(Place::In(&machine.outside), HOST, 8080, &listener);

        // What others take away comes back, each by itself.
        network.check();
        for gone in [
            format!("qdisc del dev {link} root"),
            format!("qdisc del dev {link} ingress"),
            format!("qdisc del dev {detour} root"),
        ] {
            let Some(_) = run("tc", &gone) else { break };
            assert_eq!(network.check(), [Finding::Repaired(Repair::Link("a".into()))], "{gone}");
            assert_eq!(network.check(), []);
            assert_eq!(rates(), expected);
            let before = packets(&detour);
            assert_eq!(seen_as(a.place(), FAR, 443, &far), IpAddr::from(HOST));
            assert!(packets(&detour).0 > before.0, "{gone}");
        }

        network.teardown("a").unwrap();
        network.settle().unwrap();
        assert_eq!(rates(), []);
        assert!(socket.link(&detour).unwrap().is_none());
    });
}

/// Whoever has ended leaves no detour behind either.
#[test]
fn detours_of_nobody_are_deleted() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        for id in ["dead", "lives"] {
            let sandbox = Sandbox::start(&network, id, &[]);
            network.limit(id, Bandwidth { egress: Some(8_000_000), ingress: None }).unwrap();
            if id == "lives" {
                drop(network);
                let network = machine.open(&[&sandbox]);
                assert_eq!(rates(), [(names(machine).detour("lives"), 1_000_000)]);
                network.remove_all().unwrap();
                assert_eq!(rates(), []);
                return;
            }
        }
    });
}

/// At the least rate a burst of packets does not get through within any time that a test may take.
#[test]
fn what_is_more_than_the_bound_does_not_get_through() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[]);
        network.limit("a", Bandwidth { ingress: Some(1_000), egress: Some(1_000) }).unwrap();
        let names = names(machine);
        let (here, inside) = (Place::Host.udp(5000), a.place().udp(5000));
        let bytes = [0; 1000];
        let gateway = match a.gateway() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        for _ in 0..400 {
            here.send_to(&bytes, (a.address().to_ipv6_mapped(), 5000)).unwrap();
            inside.send_to(&bytes, (gateway, 5000)).unwrap();
        }
        // Of 125 bytes a second, and some packets at once.
        let (_, received) = packets(&names.link("a"));
        let (_, sent) = packets(&names.detour("a"));
        assert!((1..200).contains(&received), "{received}");
        assert!((1..200).contains(&sent), "{sent}");
    });
}
