//! Sandboxes of two machines on one network: the host, and its neighbour outside.

use std::net::IpAddr;

use mainstay_linux::netlink::{Route, RouteSocket};

use super::super::{Cluster, Finding, Network, NetworkConfig, Peer, Range, parse_ranges};
use super::machine::{
    FAR, HOST, HOST6, KINDS, Machine, NEIGHBOUR, NEIGHBOUR6, Place, Sandbox, answers, forwarding,
    on_machine, seen_as,
};

/// Does something on the neighbour.
fn there<T: Send>(machine: &Machine, call: impl FnOnce() -> T + Send) -> T {
    Place::In(&machine.outside).open(|| Ok(call())).unwrap()
}

/// The neighbour's network, with a sandbox. Its ranges are never those that the host has chosen.
fn other(machine: &Machine) -> (Network, Sandbox) {
    let ranges = parse_ranges("10.202.0.0/24,fd00:202::/64").unwrap();
    let config = NetworkConfig { ranges, ..machine.config("b") };
    there(machine, || {
        let other = Network::open(config, &[], &[]);
        let b = Sandbox::start(&other, "b", &[]);
        (other, b)
    })
}

fn peer(name: &str, range: Range, address: impl Into<IpAddr>) -> Peer {
    Peer { name: name.into(), range, address: address.into() }
}

fn cluster(range: Option<Range>, peers: &[Peer]) -> Cluster {
    Cluster { ranges: range.into_iter().collect(), peers: peers.to_vec() }
}

/// Where the routes lead that an instance made.
fn routes() -> Vec<(IpAddr, Option<IpAddr>)> {
    let routes = RouteSocket::open().unwrap().routes().unwrap().into_iter();
    let ours = routes.filter(|route| route.protocol == super::super::peers::PROTOCOL);
    ours.map(|route| (route.destination, route.gateway)).collect()
}

#[test]
fn sandboxes_of_two_machines_see_each_other_as_they_are() {
    on_machine(|machine| {
        let here = machine.open(&[]);
        let a = Sandbox::start(&here, "a", &[]);
        let (other, b) = other(machine);
        let (in_a, in_b) = (a.listen(80), b.listen(80));
        assert_eq!(here.check(), [forwarding()]);
        // The neighbour happens to be where everything goes.
        assert_eq!(seen_as(a.place(), b.address(), 80, &in_b), IpAddr::from(HOST));

        let (range, other_range) = (here.ranges()[0], other.ranges()[0]);
        let neighbour = peer("n2", other_range, NEIGHBOUR);
        here.join(cluster(Some(range), std::slice::from_ref(&neighbour))).unwrap();
        there(machine, || {
            other.join(cluster(Some(other_range), &[peer("n1", range, HOST)])).unwrap();
        });
        assert_eq!(seen_as(a.place(), b.address(), 80, &in_b), IpAddr::from(a.address()));
        assert_eq!(seen_as(b.place(), a.address(), 80, &in_a), IpAddr::from(b.address()));
        assert_eq!(seen_as(Place::Host, b.address(), 80, &in_b), IpAddr::from(HOST));
        assert_eq!(routes(), [(other_range.network(), Some(NEIGHBOUR.into()))]);
        // Elsewhere they are the machine still.
        let outside = Place::In(&machine.outside).listen(81);
        assert_eq!(seen_as(a.place(), NEIGHBOUR, 81, &outside), IpAddr::from(HOST));
        assert_eq!(here.check(), []);

        // Another agent on the same machine knows it all before anybody says it.
        drop(here);
        let here = machine.open(&[&a]);
        assert_eq!(here.check(), []);
        assert_eq!(seen_as(a.place(), b.address(), 80, &in_b), IpAddr::from(a.address()));

        // A route that goes comes back, and those of others stay.
        let mut socket = RouteSocket::open().unwrap();
        let all = socket.routes().unwrap();
        let ours = all.into_iter().find(|it| it.destination == other_range.network());
        let ours = ours.unwrap();
        socket.delete_route(ours).unwrap();
        let elsewhere = Route { destination: "10.99.0.0".parse().unwrap(), ..ours };
        let by_hand = Route { protocol: 3, ..elsewhere };
        let another_instances = Route { priority: 7, ..elsewhere };
        socket.add_route(by_hand).unwrap();
        socket.add_route(another_instances).unwrap();
        here.join(cluster(Some(range), &[neighbour])).unwrap();
        assert_eq!(seen_as(a.place(), b.address(), 80, &in_b), IpAddr::from(a.address()));
        here.join(cluster(Some(range), &[])).unwrap();
        let left = socket.routes().unwrap();
        assert!(!left.contains(&ours));
        assert!(left.contains(&by_hand) && left.contains(&another_instances));
    });
}

#[test]
fn sandboxes_of_two_machines_see_each_other_by_both_kinds_of_addresses() {
    on_machine(|machine| {
        let here = machine.open(&[]);
        let a = Sandbox::start(&here, "a", &[]);
        let (other, b) = other(machine);
        let (in_a, in_b) = (a.listen(80), b.listen(80));
        let (own, others) = (here.ranges(), other.ranges());
        let peers = |name: &str, ranges: &[Range], addresses: [IpAddr; 2]| {
            let both = ranges.iter().zip(addresses);
            both.map(|(range, address)| peer(name, *range, address)).collect()
        };
        let neighbour = peers("n2", &others, [NEIGHBOUR.into(), NEIGHBOUR6.into()]);
        let joined = Cluster { ranges: own.clone(), peers: neighbour };
        here.join(joined).unwrap();
        there(machine, || {
            let peers = peers("n1", &own, [HOST.into(), HOST6.into()]);
            other.join(Cluster { ranges: others.clone(), peers }).unwrap();
        });
        for kind in KINDS {
            assert_eq!(seen_as(a.place(), b.of(kind), 80, &in_b), a.of(kind));
            assert_eq!(seen_as(b.place(), a.of(kind), 80, &in_a), b.of(kind));
            assert_eq!(seen_as(Place::Host, b.of(kind), 80, &in_b), kind.host);
        }
        assert_eq!(routes().len(), 2);
        assert_eq!(here.check(), [forwarding()]);
        // Of a kind that was not given, the machine's own range stays, and nobody knows the way back.
        let one = peer("n2", others[0], NEIGHBOUR);
        here.join(Cluster { ranges: own[..1].to_vec(), peers: vec![one] }).unwrap();
        assert_eq!(here.ranges(), own);
        assert_eq!(routes().len(), 1);
        assert_eq!(seen_as(a.place(), b.of(KINDS[0]), 80, &in_b), a.of(KINDS[0]));
        here.remove_all().unwrap();
        assert_eq!(routes(), []);
    });
}

#[test]
fn running_sandboxes_keep_the_range_that_another_machine_has_now() {
    on_machine(|machine| {
        let here = machine.open(&[]);
        let old = Sandbox::start(&here, "old", &[]);
        assert_eq!(here.check(), [forwarding()]);
        let before = here.ranges()[0];
        let (other, b) = other(machine);
        let given: Range = "10.77.0.0/24".parse().unwrap();
        let neighbour = peer("n2", other.ranges()[0], NEIGHBOUR);
        let joined = || cluster(Some(given), std::slice::from_ref(&neighbour));
        here.join(joined()).unwrap();
        there(machine, || {
            other.join(cluster(Some(other.ranges()[0]), &[peer("n1", given, HOST)])).unwrap();
        });
        let new = Sandbox::start(&here, "new", &[]);
        assert!(given.holds(new.address().into()) && before.holds(old.address().into()));
        let older =
            Finding::OlderRange { range: before, current: given, sandboxes: vec!["old".into()] };
        assert_eq!(here.check(), std::slice::from_ref(&older));

        let (in_old, in_new, in_b) = (old.listen(80), new.listen(80), b.listen(80));
        assert_eq!(seen_as(old.place(), new.address(), 80, &in_new), IpAddr::from(old.address()));
        assert_eq!(seen_as(new.place(), old.address(), 80, &in_old), IpAddr::from(new.address()));
        assert_eq!(seen_as(Place::Host, old.address(), 80, &in_old), old.gateway());
        assert_eq!(seen_as(new.place(), b.address(), 80, &in_b), IpAddr::from(new.address()));
        assert_eq!(seen_as(b.place(), new.address(), 80, &in_new), IpAddr::from(b.address()));
        // It reaches others as the machine, and is not reached.
        assert_eq!(seen_as(old.place(), b.address(), 80, &in_b), IpAddr::from(HOST));
        assert!(!answers(b.place(), old.address(), 80));

        drop(here);
        let here = machine.open(&[&old, &new]);
        assert_eq!(here.check(), [older]);
        here.join(joined()).unwrap();
        assert_eq!(here.ranges()[0], given);
        assert_eq!(seen_as(new.place(), old.address(), 80, &in_old), IpAddr::from(new.address()));
        assert_eq!(seen_as(new.place(), b.address(), 80, &in_b), IpAddr::from(new.address()));

        here.teardown("old").unwrap();
        here.settle().unwrap();
        assert_eq!(here.check(), []);
        let gateway = before.gateway();
        let addresses = RouteSocket::open().unwrap().addresses().unwrap();
        assert!(!addresses.iter().any(|address| address.address == gateway));
        assert_eq!(seen_as(new.place(), b.address(), 80, &in_b), IpAddr::from(new.address()));
        here.remove_all().unwrap();
        assert_eq!(routes(), []);
    });
}

#[test]
fn a_range_whose_last_sandbox_has_gone_is_nobodys_hindrance() {
    for others in [&["new"][..], &[]] {
        on_machine(|machine| {
            let here = machine.open(&[]);
            let _old = Sandbox::start(&here, "old", &[]);
            // Another machine has that range now.
            let before = here.ranges()[0];
            let given: Range = "10.77.0.0/24".parse().unwrap();
            here.join(cluster(Some(given), &[peer("n2", before, NEIGHBOUR)])).unwrap();
            let _others: Vec<Sandbox> =
                others.iter().map(|name| Sandbox::start(&here, name, &[])).collect();
            assert_eq!(routes(), []);
            here.teardown("old").unwrap();
            here.settle().unwrap();
            assert_eq!(routes(), [(before.network(), Some(NEIGHBOUR.into()))]);
            assert_eq!(here.check(), [forwarding()]);
        });
    }
}

#[test]
fn what_cannot_be_is_told_and_left() {
    on_machine(|machine| {
        let here = machine.open(&[]);
        let range = here.ranges()[0];
        let lan: Range = "192.0.2.0/25".parse().unwrap();
        let free: Range = "10.77.0.0/24".parse().unwrap();
        let peers =
            [peer("far", free, FAR), peer("greedy", lan, NEIGHBOUR), peer("self", free, HOST)];
        here.join(cluster(Some(lan), &peers)).unwrap();
        assert_eq!(here.ranges()[0], range);
        assert_eq!(routes(), []);
        let told: Vec<String> = here.check().iter().map(ToString::to_string).collect();
        let expected = [
            format!(
                "the range 192.0.2.0/25 that was given to this node overlaps with a network of this \
                 machine, so sandboxes have addresses of {range} and are reached on this node only; \
                 let the node have another podCIDR by deleting its Node object"
            ),
            "the sandboxes of far cannot be reached: 203.0.113.5 is on none of this machine's \
             networks"
                .to_owned(),
            "the sandboxes of greedy cannot be reached: their range 192.0.2.0/25 overlaps with a \
             network of this machine"
                .to_owned(),
        ];
        assert_eq!(told, expected);
        here.join(cluster(Some(free), &[])).unwrap();
        assert_eq!((here.check(), here.ranges()[0]), (vec![], free));
        let a = Sandbox::start(&here, "a", &[]);
        assert!(free.holds(a.address().into()));
    });
}
