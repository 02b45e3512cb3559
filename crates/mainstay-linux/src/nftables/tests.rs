//! Against the kernel, in network namespaces that end with their threads.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use expect_test::expect;

use super::*;
use crate::netlink::tests::in_own_network;
use crate::netlink::{Address, RouteSocket};

const TCP: u8 = 6;

fn chain(table: &str, name: &str, base: Option<BaseChain>) -> Chain {
    Chain { family: Family::Inet, table: table.into(), name: name.into(), base }
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<BaseChain> {
    Some(BaseChain { kind, hook, priority, policy: Policy::Accept })
}

fn element(port: u16, address: Ipv4Addr, to: u16) -> Element {
    Element::new(&[&[TCP], &port.to_be_bytes()], &[&address.octets(), &to.to_be_bytes()])
}

fn name(link: &str) -> Vec<u8> {
    let mut bytes = link.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Expressions that translate by the map `ports`.
fn translate() -> Vec<Expression> {
    vec![
        Expression::Meta { key: Meta::NetworkProtocol, to: Register(0) },
        Expression::Compare { from: Register(0), comparison: Comparison::Equal, data: vec![2] },
        Expression::FibDestinationType { to: Register(0) },
        Expression::Compare {
            from: Register(0),
            comparison: Comparison::Equal,
            data: 2_u32.to_ne_bytes().to_vec(),
        },
        Expression::Meta { key: Meta::TransportProtocol, to: Register(0) },
        Expression::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: Register(1) },
        Expression::Lookup {
            set: "ports".into(),
            from: Register(0),
            to: Some(Register(0)),
            inverted: false,
        },
        Expression::Dnat { ipv6: false, address: Register(0), port: Register(1) },
    ]
}

/// Rules with every expression that can be written, in the chains `translate`, `redirect`, `leave`
/// and `filter` of table `name`.
fn rules(map: bool) -> Vec<(&'static str, Vec<Expression>)> {
    let mut rules = vec![
        (
            "leave",
            vec![
                Expression::Meta { key: Meta::NetworkProtocol, to: Register(0) },
                Expression::Compare {
                    from: Register(0),
                    comparison: Comparison::Equal,
                    data: vec![2],
                },
                Expression::Meta { key: Meta::OutputName, to: Register(0) },
                Expression::Compare {
                    from: Register(0),
                    comparison: Comparison::NotEqual,
                    data: name("br0"),
                },
                Expression::Payload {
                    base: PayloadBase::Network,
                    offset: 12,
                    length: 4,
                    to: Register(1),
                },
                Expression::Bitwise {
                    from: Register(1),
                    to: Register(1),
                    mask: vec![255, 255, 255, 0],
                    xor: vec![0; 4],
                },
                Expression::Compare {
                    from: Register(1),
                    comparison: Comparison::Equal,
                    data: vec![10, 9, 0, 0],
                },
                Expression::Masquerade,
            ],
        ),
        (
            "filter",
            vec![
                Expression::Ct { key: Ct::State, to: Register(0) },
                Expression::Bitwise {
                    from: Register(0),
                    to: Register(0),
                    mask: 8_u32.to_ne_bytes().to_vec(),
                    xor: vec![0; 4],
                },
                Expression::Compare {
                    from: Register(0),
                    comparison: Comparison::NotEqual,
                    data: vec![0; 4],
                },
                Expression::Counter,
                Expression::Verdict(Verdict::Jump("called".into())),
            ],
        ),
        ("called", vec![Expression::Counter, Expression::Verdict(Verdict::Return)]),
        (
            "redirect",
            vec![
                Expression::Meta { key: Meta::NetworkProtocol, to: Register(0) },
                Expression::Compare {
                    from: Register(0),
                    comparison: Comparison::Equal,
                    data: vec![10],
                },
                Expression::Immediate {
                    to: Register(0),
                    data: [&[0xfd][..], &[0; 14], &[1]].concat(),
                },
                Expression::Immediate { to: Register(4), data: vec![0, 80] },
                Expression::Dnat { ipv6: true, address: Register(0), port: Register(4) },
            ],
        ),
    ];
    if map {
        rules.push(("translate", translate()));
    }
    rules
}

pub(crate) fn ruleset(table: &str) -> Batch {
    let mut batch = Batch::new();
    batch.add_table(Family::Inet, table);
    batch.add_map(
        Family::Inet,
        table,
        Map {
            name: "ports",
            key: &[DataType::TransportProtocol, DataType::Port],
            data: &[DataType::Ipv4Address, DataType::Port],
        },
    );
    for chain in [
        chain(table, "called", None),
        chain(table, "translate", base(ChainKind::Nat, Hook::Output, priority::DSTNAT)),
        chain(table, "redirect", base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT - 1)),
        chain(table, "leave", base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT)),
        chain(table, "filter", base(ChainKind::Filter, Hook::Forward, priority::FILTER)),
    ] {
        batch.add_chain(&chain);
    }
    for (chain, expressions) in rules(true) {
        batch.append_rule(Family::Inet, table, chain, &expressions, "a remark");
    }
    batch
}

#[test]
fn a_ruleset_is_read_as_it_was_written() {
    in_own_network(|| {
        let mut socket = NftablesSocket::open().unwrap();
        let before = socket.generation().unwrap();
        socket.commit(ruleset("t")).unwrap();
        assert_ne!(socket.generation().unwrap(), before);

        let table = Table { family: Family::Inet, name: "t".into(), dormant: false };
        assert_eq!(socket.tables().unwrap(), [table]);
        let chains = socket.chains().unwrap();
        assert_eq!(chains.len(), 5);
        assert!(chains.contains(&chain("t", "called", None)));
        let leave = base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT);
        assert!(chains.contains(&chain("t", "leave", leave)));
        let read = socket.rules(Family::Inet, "t").unwrap();
        for (chain, expressions) in rules(true) {
            let rule = read.iter().find(|rule| rule.chain == chain).unwrap();
            assert_eq!(rule.expressions, expressions);
            assert_eq!(rule.comment, "a remark");
        }
        assert_eq!(socket.rules(Family::Inet, "no-such-table").unwrap(), []);
    });
}

/// What `nft` shows is the judgement of the reference implementation on our encoding.
#[test]
fn the_reference_program_understands_it() {
    in_own_network(|| {
        let mut socket = NftablesSocket::open().unwrap();
        let mut batch = ruleset("t");
        batch.add_elements(
            Family::Inet,
            "t",
            "ports",
            &[element(8080, Ipv4Addr::new(10, 9, 0, 2), 80)],
        );
        socket.commit(batch).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test compares with the real program")]
        let output =
            std::process::Command::new("nft").args(["list", "table", "inet", "t"]).output();
        let Ok(output) = output else {
            eprintln!("skipped: the program nft is not installed");
            return;
        };
        let shown = String::from_utf8(output.stdout).unwrap();
        for line in [
            "type inet_proto . inet_service : ipv4_addr . inet_service",
            "elements = { tcp . 8080 : 10.9.0.2 . 80 }",
            "fib daddr type local dnat ip to meta l4proto . th dport map @ports",
            "oifname != \"br0\" ip saddr 10.9.0.0/24 masquerade fully-random",
            "ct state new counter packets 0 bytes 0 jump called comment \"a remark\"",
            "counter packets 0 bytes 0 return",
            "meta nfproto ipv6 dnat ip6 to [fd00::1]:80",
        ] {
            assert!(shown.contains(line), "{line} is missing in:\n{shown}");
        }
    });
}

#[test]
fn a_batch_is_made_whole_or_not_at_all() {
    in_own_network(|| {
        let mut socket = NftablesSocket::open().unwrap();
        let mut batch = ruleset("t");
        batch.append_rule(Family::Inet, "t", "no-such-chain", &[Expression::Counter], "");
        batch.add_table(Family::Inet, "another");
        let error = socket.commit(batch).unwrap_err();
        assert!(error.is_not_found());
        expect!["the kernel refused to append a rule to inet t no-such-chain"]
            .assert_eq(&error.to_string());
        assert_eq!(socket.tables().unwrap(), []);

        // The same when the last change is the bad one, and when the first one is.
        let mut batch = Batch::new();
        batch.add_table(Family::Inet, "t");
        batch.delete_table(Family::Inet, "u");
        assert!(socket.commit(batch).unwrap_err().is_not_found());
        let mut batch = Batch::new();
        batch.delete_table(Family::Inet, "u");
        batch.add_table(Family::Inet, "t");
        assert!(socket.commit(batch).unwrap_err().is_not_found());
        assert_eq!(socket.tables().unwrap(), []);
        socket.commit(Batch::new()).unwrap();
        socket.commit(ruleset("t")).unwrap();
        assert_eq!(socket.tables().unwrap().len(), 1);
    });
}

#[test]
fn a_table_is_replaced_in_one_batch() {
    in_own_network(|| {
        let mut socket = NftablesSocket::open().unwrap();
        for _ in 0..3 {
            let mut batch = Batch::new();
            batch.add_table(Family::Inet, "t");
            batch.delete_table(Family::Inet, "t");
            batch.append(ruleset("t"));
            socket.commit(batch).unwrap();
            assert_eq!(socket.rules(Family::Inet, "t").unwrap().len(), 5);
        }
    });
}

#[test]
fn rules_are_inserted_and_deleted_by_handle() {
    in_own_network(|| {
        let mut socket = NftablesSocket::open().unwrap();
        let mut batch = ruleset("t");
        let accept = [Expression::Verdict(Verdict::Accept)];
        batch.insert_rule(Family::Inet, "t", "filter", &accept, "");
        socket.commit(batch).unwrap();
        let in_filter = |socket: &mut NftablesSocket| {
            let mut rules = socket.rules(Family::Inet, "t").unwrap();
            rules.retain(|rule| rule.chain == "filter");
            rules
        };
        let rules = in_filter(&mut socket);
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].expressions, accept);
        let mut batch = Batch::new();
        batch.delete_rule(Family::Inet, "t", "filter", rules[0].handle);
        socket.commit(batch).unwrap();
        assert_eq!(in_filter(&mut socket), rules[1..]);
    });
}

#[test]
fn elements_come_and_go() {
    in_own_network(|| {
        let mut socket = NftablesSocket::open().unwrap();
        let address = Ipv4Addr::new(10, 9, 0, 2);
        let all: Vec<_> = (1..=3000).map(|port| element(port, address, port)).collect();
        let mut batch = ruleset("t");
        batch.add_elements(Family::Inet, "t", "ports", &all);
        socket.commit(batch).unwrap();
        // Until the kernel has made the map as large as it wants it.
        while socket.elements(Family::Inet, "t", "ports").unwrap() != all {}

        let change =
            |socket: &mut NftablesSocket, change: fn(&mut Batch, &[Element]), elements: &[_]| {
                let mut batch = Batch::new();
                change(&mut batch, elements);
                socket.commit(batch)
            };
        let add = |batch: &mut Batch, elements: &[Element]| {
            batch.add_elements(Family::Inet, "t", "ports", elements);
        };
        let delete = |batch: &mut Batch, elements: &[Element]| {
            batch.delete_elements(Family::Inet, "t", "ports", elements);
        };
        change(&mut socket, add, &all[..2]).unwrap();
        assert!(change(&mut socket, add, &[element(1, address, 2)]).unwrap_err().is_exists());
        change(&mut socket, delete, &all[1..]).unwrap();
        while socket.elements(Family::Inet, "t", "ports").unwrap() != all[..1] {}
        assert!(change(&mut socket, delete, &all[..2]).unwrap_err().is_not_found());
        assert_eq!(socket.elements(Family::Inet, "t", "ports").unwrap(), all[..1]);
        assert!(socket.elements(Family::Inet, "t", "no-such-map").unwrap_err().is_not_found());
    });
}

#[test]
fn a_connection_follows_the_map() {
    in_own_network(|| {
        let mut route = RouteSocket::open().unwrap();
        route.set_up(1).unwrap();
        let address = Ipv4Addr::new(10, 9, 0, 2);
        route.add_address(Address { link: 1, address: address.into(), prefix: 32 }).unwrap();
        let listener = TcpListener::bind((address, 80)).unwrap();
        let mut socket = NftablesSocket::open().unwrap();
        let mut batch = ruleset("t");
        batch.add_elements(Family::Inet, "t", "ports", &[element(8080, address, 80)]);
        socket.commit(batch).unwrap();
        let near = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert_eq!(far.peer_addr().unwrap(), near.local_addr().unwrap());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, 8081)).is_err());
    });
}

#[test]
fn the_older_filter_is_read() {
    older_filter(false, "iptables-legacy", "10.0.0.0/8");
    older_filter(true, "ip6tables-legacy", "fd00::/8");
}

#[expect(clippy::disallowed_methods, reason = "the tests read what the real program wrote")]
fn older_filter(ipv6: bool, program: &'static str, network: &'static str) {
    in_own_network(move || {
        assert_eq!(legacy_forward(ipv6).unwrap(), None);
        let set = |arguments: &[&str]| {
            let status = std::process::Command::new(program).args(arguments).status();
            status.is_ok_and(|status| status.success())
        };
        if !set(&["-t", "filter", "-P", "FORWARD", "ACCEPT"]) {
            eprintln!("skipped: {program} is not installed, or the kernel has no xtables");
            return;
        }
        let forward = LegacyForward {
            policy: Policy::Accept,
            accepted_inputs: Vec::new(),
            accepted_outputs: Vec::new(),
        };
        assert_eq!(legacy_forward(ipv6).unwrap(), Some(forward));
        assert_eq!(legacy_forward(!ipv6).unwrap(), None);
        for rule in [
            &["-i", "br0", "-j", "ACCEPT"][..],
            &["-o", "br1", "-j", "ACCEPT"],
            &["-i", "no0", "-o", "no1", "-j", "ACCEPT"],
            &["-i", "no2", "-j", "DROP"],
            &["-i", "no3", "-p", "tcp", "-j", "ACCEPT"],
            &["-i", "no4", "-s", network, "-j", "ACCEPT"],
            &["-i", "no5", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"],
            &["!", "-i", "no6", "-j", "ACCEPT"],
        ] {
            assert!(set(&[&["-A", "FORWARD"], rule].concat()), "{rule:?}");
        }
        assert!(set(&["-A", "INPUT", "-i", "no7", "-j", "ACCEPT"]));
        assert!(set(&["-P", "FORWARD", "DROP"]));
        let forward = LegacyForward {
            policy: Policy::Drop,
            accepted_inputs: vec!["br0".into()],
            accepted_outputs: vec!["br1".into()],
        };
        assert_eq!(legacy_forward(ipv6).unwrap(), Some(forward));
    });
}
