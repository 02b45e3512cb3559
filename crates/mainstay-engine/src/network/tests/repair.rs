//! Others break things.

use std::os::fd::AsFd;

use expect_test::expect;
use mainstay_linux::netlink::{RouteSocket, Veth, VethPeer};
use mainstay_linux::nftables::{Batch, Family, NftablesSocket};

use super::super::{Finding, Names, Repair};
use super::machine::*;

/// Breaks something, and expects that the next check tells `expected` and that everything works
/// again; connections that exist do not notice.
fn check(break_it: fn(&Names), expected: &[Finding]) {
    let expected = expected.to_vec();
    on_machine(move |machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        let b = Sandbox::start(&network, "b", &[]);
        network.check();
        let (in_a, in_b) = (a.listen(80), b.listen(80));
        let outside = Place::In(&machine.outside);
        let far = outside.listen(443);
        let (_, inward) = connect(outside, HOST, 8080, &in_a);
        let (_, outward) = connect(a.place(), FAR, 443, &far);
        let (_, across) = connect(a.place(), b.address(), 80, &in_b);

        break_it(&Names::of(&machine.config("a").root_dir));
        let mut found = network.check();
        // Links are looked at in the order of their names, which are no names for people.
        found.sort_by_key(ToString::to_string);
        assert_eq!(found, expected);
        assert_eq!(network.check(), []);
        for connection in [inward, outward, across] {
            connection.check();
        }
        seen_as(outside, HOST, 8080, &in_a);
        seen_as(a.place(), HOST, 8080, &in_a);
        seen_as(a.place(), b.address(), 80, &in_b);
        assert_eq!(seen_as(b.place(), FAR, 443, &far), HOST);
    });
}

fn commit(fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    NftablesSocket::open().unwrap().commit(batch).unwrap();
}

#[test]
fn the_ruleset_was_flushed() {
    check(
        |names| commit(|batch| batch.delete_table(Family::Inet, &names.table)),
        &[Finding::Repaired(Repair::Table)],
    );
}

#[test]
fn a_rule_was_deleted() {
    check(
        |names| {
            let rules = NftablesSocket::open().unwrap().rules(Family::Inet, &names.table).unwrap();
            let rule = rules.iter().find(|rule| rule.chain == "postrouting").unwrap();
            commit(|batch| {
                batch.delete_rule(Family::Inet, &names.table, "postrouting", rule.handle);
            });
        },
        &[Finding::Repaired(Repair::Table)],
    );
}

#[test]
fn an_element_was_deleted() {
    check(
        |names| {
            let mut socket = NftablesSocket::open().unwrap();
            let elements = socket.elements(Family::Inet, &names.table, "host_ports").unwrap();
            commit(|batch| {
                batch.delete_elements(Family::Inet, &names.table, "host_ports", &elements);
            });
        },
        &[Finding::Repaired(Repair::Table)],
    );
}

#[test]
fn the_bridge_was_deleted() {
    check(
        |names| {
            let mut socket = RouteSocket::open().unwrap();
            let bridge = socket.link(&names.bridge).unwrap().unwrap();
            socket.delete_link(bridge.index).unwrap();
        },
        &[
            Finding::Repaired(Repair::Bridge),
            Finding::Repaired(Repair::Link("a".into())),
            Finding::Repaired(Repair::Link("b".into())),
        ],
    );
}

#[test]
fn the_bridge_lost_its_address() {
    check(
        |names| {
            let mut socket = RouteSocket::open().unwrap();
            let bridge = socket.link(&names.bridge).unwrap().unwrap();
            let addresses = socket.addresses().unwrap().into_iter();
            for address in addresses.filter(|address| address.link == bridge.index) {
                socket.delete_address(address).unwrap();
            }
        },
        &[Finding::Repaired(Repair::Bridge)],
    );
}

#[test]
fn forwarding_was_switched_off() {
    check(
        |_| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
        },
        &[forwarding()],
    );
}

#[test]
fn a_setup_mends_as_it_goes() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let names = Names::of(&machine.config("a").root_dir);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        let mut socket = RouteSocket::open().unwrap();
        let bridge = socket.link(&names.bridge).unwrap().unwrap();
        socket.delete_link(bridge.index).unwrap();
        commit(|batch| batch.delete_table(Family::Inet, &names.table));
        let b = Sandbox::start(&network, "b", &[tcp(8081, 80)]);
        let outside = Place::In(&machine.outside);
        seen_as(outside, HOST, 8080, &a.listen(80));
        seen_as(outside, HOST, 8081, &b.listen(80));
    });
}

#[test]
fn teardown_succeeds_whatever_is_gone() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let names = Names::of(&machine.config("a").root_dir);
        let [_a, b] = [8080, 8081].map(|port| {
            Sandbox::start(&network, &port.to_string(), &[tcp(port, 80), tcp(port + 10, 80)])
        });
        let mut socket = NftablesSocket::open().unwrap();
        let elements = socket.elements(Family::Inet, &names.table, "host_ports").unwrap();
        let of_a: Vec<_> =
            elements.into_iter().filter(|e| e.key.ends_with(&[0x1f, 0x90, 0, 0])).collect();
        assert_eq!(of_a.len(), 1);
        commit(|batch| batch.delete_elements(Family::Inet, &names.table, "host_ports", &of_a));
        network.teardown("8080").unwrap();
        let left = socket.elements(Family::Inet, &names.table, "host_ports").unwrap();
        assert_eq!(left.len(), 2);
        commit(|batch| batch.delete_table(Family::Inet, &names.table));
        network.teardown("8081").unwrap();
        network.settle().unwrap();
        drop(b);
    });
}

#[test]
fn a_lost_link_is_told_until_it_is_set_up_again() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let names = Names::of(&machine.config("a").root_dir);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        network.check();
        let lose = || {
            let mut socket = RouteSocket::open().unwrap();
            let link = socket.link(&names.link("a")).unwrap().unwrap();
            socket.delete_link(link.index).unwrap();
        };
        lose();
        for _ in 0..2 {
            assert_eq!(network.check(), [Finding::Detached { sandbox: "a".into() }]);
        }
        let again = network.setup("a", a.namespace.as_fd(), &a.mappings).unwrap();
        assert_eq!(again, a.network);
        assert_eq!(network.check(), []);
        let listener = a.listen(80);
        seen_as(Place::In(&machine.outside), HOST, 8080, &listener);
        // With the namespace at hand it is mended at once.
        lose();
        drop(network);
        let network = machine.open(&[&a]);
        assert_eq!(network.check(), [Finding::Repaired(Repair::Link("a".into()))]);
        seen_as(Place::In(&machine.outside), HOST, 8080, &listener);
    });
}

#[test]
fn a_foreign_link_with_the_bridges_name_is_left_alone() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let names = Names::of(&machine.config("a").root_dir);
        let mut socket = RouteSocket::open().unwrap();
        let master = socket.link("lan0").unwrap().unwrap().index;
        let namespace = machine.outside.as_fd();
        let peer = VethPeer { name: "foreign", address: [2; 6], namespace };
        let veth = Veth { name: &names.bridge, mtu: MTU, master, group: 0, peer };
        socket.create_veth(veth).unwrap();
        let error = network.setup("a", super::machine::namespace().as_fd(), &[]).unwrap_err();
        let text = error.to_string().replace(&names.bridge, "BRIDGE");
        expect!["link BRIDGE is in the way: it is a veth and no bridge; remove or rename it"]
            .assert_eq(&text);
        network.remove_all().unwrap();
        assert!(socket.link(&names.bridge).unwrap().is_some());
    });
}
