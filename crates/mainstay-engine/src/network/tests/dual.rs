//! Addresses of IPv4, of IPv6, and of both.

use std::net::IpAddr;
use std::os::fd::AsFd;

use mainstay_cri::PortMapping;
use mainstay_linux::nftables::{
    BaseChain, Batch, Chain, ChainKind, Family, Hook, NftablesSocket, Policy, priority,
};

use super::super::{
    Finding, IpFamily, Names, Network, NetworkConfig, NetworkError, Repair, Traffic, parse_ranges,
};
use super::machine::*;

/// Of an address that its link still asks its neighbours about. Source: `linux/if_addr.h`.
const IFA_F_TENTATIVE: u32 = 0x40;

fn with_ranges(machine: &Machine, ranges: &str) -> NetworkConfig {
    NetworkConfig { ranges: parse_ranges(ranges).unwrap(), ..machine.config("a") }
}

#[test]
fn a_sandbox_has_an_address_of_each_kind_and_ipv4_goes_first() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[]);
        let families: Vec<_> = a.network.addresses.iter().map(|it| IpFamily::of(*it)).collect();
        assert_eq!(families, [IpFamily::V4, IpFamily::V6]);
        let ranges = network.ranges();
        for ((address, gateway), range) in
            a.network.addresses.iter().zip(&a.network.gateways).zip(&ranges)
        {
            assert!(range.holds(*address));
            assert_eq!(*gateway, range.gateway());
        }
        // The same after a restart, and for others.
        drop(network);
        let network = machine.open(&[&a]);
        assert_eq!(network.ranges(), ranges);
        let b = Sandbox::start(&network, "b", &[]);
        for kind in KINDS {
            seen_as(b.place(), a.of(kind), 80, &a.listen(80));
        }
    });
}

#[test]
fn a_machine_without_ipv6_has_sandboxes_without() {
    on_machine(|machine| {
        set("all", "disable_ipv6", "1");
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        assert_eq!(a.network.addresses, [IpAddr::from(a.address())]);
        let told = network.check();
        assert_eq!(told, [Finding::NoIpv6, Finding::ForwardingSwitchedOn(vec![IpFamily::V4])]);
        assert_eq!(network.check(), []);
        seen_as(Place::Host, HOST, 8080, &a.listen(80));
        assert_eq!(setting("all", "forwarding"), "0");

        let six = Network::open(with_ranges(machine, "fd00:88::/64"), &[], &[]);
        let error = six.setup("b", namespace().as_fd(), &[]).unwrap_err();
        assert!(matches!(error, NetworkError::NoIpv6), "{error}");
    });
}

/// And the other way round: the range of IPv6 comes when the machine has it.
#[test]
fn sandboxes_from_before_keep_what_they_have() {
    on_machine(|machine| {
        let network = Network::open(with_ranges(machine, "10.88.0.0/24"), &[], &[]);
        let old = Sandbox::start(&network, "old", &[tcp(8080, 80)]);
        assert_eq!(network.check(), [Finding::ForwardingSwitchedOn(vec![IpFamily::V4])]);
        assert_eq!(setting(&Names::of(&machine.config("a").root_dir).bridge, "disable_ipv6"), "1");
        let listener = old.listen(80);
        let (_, connection) = connect(Place::In(&machine.outside), HOST, 8080, &listener);
        drop(network);

        let network = machine.open(&[&old]);
        assert_eq!(network.check(), [Finding::ForwardingSwitchedOn(vec![IpFamily::V6])]);
        let new = Sandbox::start(&network, "new", &[]);
        assert_eq!(new.network.addresses.len(), 2);
        assert_eq!(network.addresses("old"), old.network.addresses);
        seen_as(new.place(), old.address(), 80, &listener);
        let far = Place::In(&machine.outside).listen(443);
        assert_eq!(seen_as(new.place(), FAR6, 443, &far), IpAddr::from(HOST6));
        connection.check();
        assert_eq!(network.check(), []);
    });
}

#[test]
fn sandboxes_of_ipv6_alone() {
    on_machine(|machine| {
        let network = Network::open(with_ranges(machine, "fd00:88::/64"), &[], &[]);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        let b = Sandbox::start(&network, "b", &[]);
        let [_, kind] = KINDS;
        assert_eq!(a.network.addresses, [a.of(kind)]);
        let in_a = a.listen(80);
        let outside = Place::In(&machine.outside);
        assert_eq!(seen_as(b.place(), a.of(kind), 80, &in_a), b.of(kind));
        assert_eq!(seen_as(outside, HOST6, 8080, &in_a), IpAddr::from(NEIGHBOUR6));
        assert_eq!(seen_as(b.place(), FAR6, 443, &outside.listen(443)), IpAddr::from(HOST6));
        assert_eq!(network.check(), [Finding::ForwardingSwitchedOn(vec![IpFamily::V6])]);
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
        // A port of IPv4 is not theirs.
        drop(std::net::TcpListener::bind((HOST, 8080)).unwrap());
    });
}

#[test]
fn a_host_port_of_one_kind_or_address_is_reached_there_alone() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let on = |address: &str, port| PortMapping {
            host_ip: Some(address.parse().unwrap()),
            ..tcp(8080, port)
        };
        let six = Sandbox::start(&network, "six", &[on("2001:db8::1", 80)]);
        let four = Sandbox::start(&network, "four", &[on("0.0.0.0", 80)]);
        let mapping = PortMapping { host_port: 9090, ..on("::", 80) };
        let all = Sandbox::start(&network, "all", &[mapping]);
        let [in_six, in_four, in_all] = [&six, &four, &all].map(|sandbox| sandbox.listen(80));
        let outside = Place::In(&machine.outside);
        for place in [Place::Host, outside] {
            seen_as(place, HOST6, 8080, &in_six);
            seen_as(place, HOST, 8080, &in_four);
            seen_as(place, HOST6, 9090, &in_all);
            assert!(!answers(place, HOST, 9090));
        }
        assert!(!answers(Place::Host, six.gateway_of(KINDS[1]), 8080));
        network.teardown("six").unwrap();
        assert!(!answers(outside, HOST6, 8080));
        seen_as(outside, HOST, 8080, &in_four);
    });
}

/// CVE-2020-10749, and machines that have their way out from a router's advertisements.
#[test]
fn the_machine_believes_the_routers_that_it_believed_and_no_sandbox() {
    on_machine(|machine| {
        set("lan0", "accept_ra", "1");
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[]);
        assert_eq!(setting("all", "forwarding"), "1");
        assert_eq!(setting("lan0", "accept_ra"), "2");
        let bridge = Names::of(&machine.config("a").root_dir).bridge;
        assert_eq!((setting(&bridge, "accept_ra"), setting(&bridge, "disable_ipv6")), zeros());
        let inside =
            a.place().open(|| Ok((setting("eth0", "accept_ra"), setting("eth0", "disable_ipv6"))));
        assert_eq!(inside.unwrap(), zeros());
    });
}

/// Otherwise nobody is sent anything over IPv6 for the first one or two seconds of a bridge.
#[test]
fn a_bridge_uses_its_own_address_at_once() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let _a = Sandbox::start(&network, "a", &[]);
        let bridge = Names::of(&machine.config("a").root_dir).bridge;
        // A worker of the kernel sees the first port, and gives the bridge the address.
        let flags = loop {
            let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
            let mut lines = addresses.lines().map(|line| line.split_whitespace().collect());
            let own = |line: &Vec<&str>| line[0].starts_with("fe80") && line[5] == bridge;
            match lines.find(own) {
                Some(line) => break u32::from_str_radix(line[4], 16).unwrap(),
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(flags & IFA_F_TENTATIVE, 0);
    });
}

fn zeros() -> (String, String) {
    ("0".into(), "0".into())
}

/// As Docker does once it has switched forwarding on.
#[test]
fn a_closed_table_of_ip6tables_is_opened() {
    on_machine(|machine| {
        let mut batch = Batch::new();
        batch.add_table(Family::Ip6, "filter");
        let base = Some(BaseChain {
            kind: ChainKind::Filter,
            hook: Hook::Forward,
            priority: priority::FILTER,
            policy: Policy::Drop,
        });
        batch.add_chain(&Chain {
            family: Family::Ip6,
            table: "filter".into(),
            name: "FORWARD".into(),
            base,
        });
        NftablesSocket::open().unwrap().commit(batch).unwrap();
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        let opened = Finding::Repaired(Repair::Opened(Family::Ip6, "FORWARD".into()));
        let told = network.check();
        assert!(told.contains(&opened), "{told:?}");
        seen_as(Place::In(&machine.outside), HOST6, 8080, &a.listen(80));
        network.remove_all().unwrap();
        let left = NftablesSocket::open().unwrap().rules(Family::Ip6, "filter").unwrap();
        assert!(left.is_empty());
    });
}

#[test]
fn a_table_that_drops_ipv6_is_told() {
    on_machine(|machine| {
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[tcp(8080, 80)]);
        let _in_a = a.listen(80);
        network.check();
        let Some(_) = run("nft", "add table ip6 strict") else { return };
        run(
            "nft",
            "add chain ip6 strict pass { type filter hook forward priority 0 ; policy drop ; }",
        );
        let told = network.check();
        let [Finding::Dropped { family, table, traffic, .. }] = &told[..] else {
            panic!("not told: {told:?}")
        };
        assert_eq!((*family, table.as_str()), (Some(Family::Ip6), "strict"));
        assert_eq!(traffic[..], [Traffic::Leaving, Traffic::Entering]);
        assert!(!answers(Place::In(&machine.outside), HOST6, 8080));
    });
}
