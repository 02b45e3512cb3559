use mainstay_shim_protocol::{Zone, ZoneHost};
use proptest::prelude::*;

use super::*;
use crate::dns::{belongs, is_failure, with_id};

const SOURCE: &str = "10.1.0.9";

fn host(names: &[&str], addresses: &[&str]) -> ZoneHost {
    ZoneHost {
        names: names.iter().map(ToString::to_string).collect(),
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        by_address: "default.pod".to_owned(),
        reverse: true,
    }
}

fn names() -> Names {
    let long = format!("{}.default.svc", "x".repeat(64));
    let machine = ZoneHost { reverse: false, ..host(&["proxy.default.svc"], &["192.0.2.7"]) };
    Names::of(&Zone {
        domain: "cluster.local".to_owned(),
        addresses: vec!["10.1.0.1".parse().unwrap()],
        askers: vec![("10.1.0.0".parse().unwrap(), 24), ("fd01::".parse().unwrap(), 64)],
        hosts: vec![
            host(&["web.default.svc", "web-n1.default.svc"], &["10.1.0.2", "fd01::2"]),
            host(&["web.default.svc", "db.default.svc"], &["10.1.0.3"]),
            host(&[&long, "long.default.svc", "a.b.long.default.svc"], &["10.1.0.4"]),
            machine,
        ],
        ..Zone::default()
    })
    .unwrap()
}

#[test]
fn nobody_is_in_charge_of_all_names() {
    for domain in ["", ".", "a..b"] {
        let zone = Zone { domain: domain.to_owned(), ..Zone::default() };
        assert!(Names::of(&zone).is_none(), "{domain}");
    }
}

/// A question of this kind, with EDNS of that size if it is not 0.
fn question(id: u16, name: &str, kind: u16, size: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    for field in [id, 0x0100, 1, 0, 0, u16::from(size > 0)] {
        packet.extend(field.to_be_bytes());
    }
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend(INTERNET.to_be_bytes());
    if size > 0 {
        packet.extend([0, 0, 41]);
        packet.extend(size.to_be_bytes());
        packet.extend([0; 6]);
    }
    packet
}

fn ask(packet: &[u8], transport: Transport) -> Decision {
    answer(&names(), packet, SOURCE.parse().unwrap(), transport)
}

fn field(packet: &[u8], number: usize) -> u16 {
    u16::from_be_bytes([packet[2 * number], packet[2 * number + 1]])
}

/// What a response says, as text: its code and flags, and its records in order.
fn show(response: &[u8]) -> String {
    let (flags, mut at) = (field(response, 1), 12);
    let mut text = match flags & 0xf {
        0 => String::from("ok"),
        1 => "malformed".into(),
        3 => "none".into(),
        4 => "unknown".into(),
        5 => "refused".into(),
        other => format!("code {other}"),
    };
    for (bit, name) in [(10, " aa"), (9, " tc"), (8, " rd"), (7, " ra")] {
        if flags & 1 << bit != 0 {
            text.push_str(name);
        }
    }
    assert_ne!(flags & 1 << 15, 0);
    for _ in 0..field(response, 2) {
        at += Name::read(&response[at..]).unwrap().1 + 4;
    }
    let records = field(response, 3) + field(response, 4) + field(response, 5);
    for _ in 0..records {
        at += match response[at] {
            0xc0 => 2,
            _ => Name::read(&response[at..]).unwrap().1,
        };
        let kind = u16::from_be_bytes([response[at], response[at + 1]]);
        let length = usize::from(u16::from_be_bytes([response[at + 8], response[at + 9]]));
        let extended = response[at + 4];
        let data = &response[at + 10..at + 10 + length];
        at += 10 + length;
        text.push(' ');
        text.push_str(&match kind {
            1 => Ipv4Addr::from_octets(data.try_into().unwrap()).to_string(),
            28 => Ipv6Addr::from_octets(data.try_into().unwrap()).to_string(),
            12 => Name::read(data).unwrap().0.to_string(),
            6 => "soa".to_owned(),
            41 => format!("edns {extended}"),
            other => panic!("{other}"),
        });
    }
    assert_eq!(at, response.len());
    text
}

#[track_caller]
fn check(name: &str, kind: u16, expected: &str) {
    let text = match ask(&question(4, name, kind, 0), Transport::Udp) {
        Decision::Drop => "drop".to_owned(),
        Decision::Forward => "forward".to_owned(),
        Decision::Answer(response) => show(&response).replace(" aa rd ra", ""),
    };
    assert_eq!(text, expected, "{name} {kind}");
}

#[test]
fn a_name_is_answered_by_who_has_it() {
    let (a, aaaa) = (kind::A, kind::AAAA);
    check("web.default.svc.cluster.local", a, "ok 10.1.0.2 10.1.0.3");
    check("WEB.default.SVC.cluster.local", aaaa, "ok fd01::2");
    check("web-n1.default.svc.cluster.local", a, "ok 10.1.0.2");
    check("db.default.svc.cluster.local", kind::ANY, "ok 10.1.0.3");
    check("10-1-0-2.default.pod.cluster.local", a, "ok 10.1.0.2");
    check("10-1-0-2.default.pod.cluster.local", aaaa, "ok soa");
    check("fd01--2.default.pod.cluster.local", aaaa, "ok fd01::2");
    check("proxy.default.svc.cluster.local", a, "ok 192.0.2.7");
    // There is no such record, and no such name.
    check("db.default.svc.cluster.local", aaaa, "ok soa");
    check("db.default.svc.cluster.local", 65, "ok soa");
    check("b.long.default.svc.cluster.local", a, "ok soa");
    check("default.svc.cluster.local", a, "ok soa");
    check("cluster.local", kind::SOA, "ok soa");
    check("cluster.local", a, "ok soa");
    check("nobody.default.svc.cluster.local", a, "none soa");
    check("web.other.svc.cluster.local", a, "none soa");
    check("10-1-0-99.default.pod.cluster.local", a, "none soa");
    check("example.org.cluster.local", aaaa, "none soa");
    // Others know better.
    check("example.org", a, "forward");
    check("notcluster.local", a, "forward");
    check("local", a, "forward");
    check("web", a, "forward");
    check("", 2, "forward");
}

#[test]
fn an_address_is_answered_if_a_sandbox_could_have_it() {
    let ptr = kind::PTR;
    check("2.0.1.10.in-addr.arpa", ptr, "ok web.default.svc.cluster.local");
    check("4.0.1.10.in-addr.arpa", ptr, "ok long.default.svc.cluster.local");
    check("2.0.1.10.in-addr.arpa", kind::A, "ok soa");
    check("99.0.1.10.in-addr.arpa", ptr, "none soa");
    check("1.1.1.1.in-addr.arpa", ptr, "forward");
    // The machine's own.
    check("7.2.0.192.in-addr.arpa", ptr, "forward");
    check("0.1.10.in-addr.arpa", ptr, "forward");
    check("x.0.1.10.in-addr.arpa", ptr, "forward");
    check("256.0.1.10.in-addr.arpa", ptr, "forward");
    let zeros = "0.".repeat(27);
    check(&format!("2.{zeros}1.0.d.f.ip6.arpa"), ptr, "ok web.default.svc.cluster.local");
    check(&format!("3.{zeros}1.0.D.F.ip6.arpa"), ptr, "none soa");
    check(&format!("3.{zeros}2.0.d.f.ip6.arpa"), ptr, "forward");
    check(&format!("02.{zeros}1.0.d.f.ip6.arpa"), ptr, "forward");
    check("2.ip6.arpa", ptr, "forward");
}

#[test]
fn who_shares_a_name_is_told_first_in_turns() {
    let told = |id| match ask(&question(id, "web.default.svc.cluster.local", 1, 0), Transport::Udp)
    {
        Decision::Answer(response) => {
            assert_eq!(field(&response, 0), id);
            show(&response)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(told(8), "ok aa rd ra 10.1.0.2 10.1.0.3");
    assert_eq!(told(9), "ok aa rd ra 10.1.0.3 10.1.0.2");
}

#[test]
fn only_sandboxes_are_answered() {
    let packet = question(1, "web.default.svc.cluster.local", kind::A, 0);
    for (source, is_answered) in [
        (SOURCE, true),
        ("10.1.0.1", true),
        ("fd01::77", true),
        ("10.1.1.9", false),
        ("127.0.0.1", false),
        ("fe80::1", false),
        ("::ffff:10.1.0.9", false),
    ] {
        let decision = answer(&names(), &packet, source.parse().unwrap(), Transport::Udp);
        assert_eq!(decision != Decision::Drop, is_answered, "{source}");
    }
}

#[test]
fn what_is_no_question_is_answered_by_no_more_than_that() {
    let good = question(1, "web.default.svc.cluster.local", kind::A, 1232);
    let change = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let told = |packet: &[u8]| match ask(packet, Transport::Udp) {
        Decision::Drop => "drop".to_owned(),
        Decision::Forward => "forward".to_owned(),
        Decision::Answer(response) => show(&response),
    };
    assert_eq!(told(&good), "ok aa rd ra 10.1.0.3 10.1.0.2 edns 0");
    assert_eq!(told(b""), "drop");
    assert_eq!(told(&good[..11]), "drop");
    // A response, which would be answered by one that is answered.
    assert_eq!(told(&change(2, 0x81)), "drop");
    assert_eq!(told(&good[..12]), "malformed rd");
    assert_eq!(told(&good[..30]), "malformed rd");
    assert_eq!(told(&good[..good.len() - 1]), "malformed rd");
    // An update; two questions, none; a name that points to itself; and EDNS of another version.
    assert_eq!(told(&change(2, 0x29)), "unknown rd");
    assert_eq!(told(&change(5, 2)), "malformed rd");
    assert_eq!(told(&change(5, 0)), "malformed rd");
    assert_eq!(told(&change(12, 0xc0)), "malformed rd");
    assert_eq!(told(&change(good.len() - 5, 1)), "ok rd ra edns 1");
    // EDNS where it may not be, and twice.
    let mut twice = good.clone();
    twice[11] = 2;
    twice.extend(&good[good.len() - 11..]);
    assert_eq!(told(&twice), "malformed rd");
    let mut early = good.clone();
    (early[7], early[11]) = (1, 0);
    assert_eq!(told(&early), "malformed rd");
    // Another class of names.
    let chaos = change(good.len() - 12, 3);
    assert_eq!(told(&chaos), "refused rd ra edns 0");
}

#[test]
fn an_answer_is_as_long_as_whoever_asks_can_take() {
    let addresses: Vec<String> = (2..=250).map(|number| format!("10.1.0.{number}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let names = Names::of(&Zone {
        domain: "cluster.local".to_owned(),
        askers: vec![("10.1.0.0".parse().unwrap(), 24)],
        hosts: vec![host(&["all.default.svc"], &addresses)],
        ..Zone::default()
    });
    let names = names.unwrap();
    for (size, transport, longest, is_whole) in [
        (0, Transport::Udp, 512, false),
        (100, Transport::Udp, 512, false),
        (1000, Transport::Udp, 1000, false),
        (u16::MAX, Transport::Udp, 1232, false),
        (0, Transport::Tcp, usize::from(u16::MAX), true),
    ] {
        let packet = question(7, "all.default.svc.cluster.local", kind::A, size);
        let decision = answer(&names, &packet, SOURCE.parse().unwrap(), transport);
        let Decision::Answer(response) = decision else { panic!("{decision:?}") };
        assert!(response.len() <= longest && response.len() + 16 > longest.min(4000), "{size}");
        assert_eq!(show(&response).contains(" tc"), !is_whole, "{size}");
        assert_eq!(field(&response, 3) == 249, is_whole, "{size}");
    }
}

#[test]
fn a_response_belongs_to_the_question_that_it_repeats() {
    let packet = question(7, "Example.org", kind::A, 0);
    let section = packet[12..].to_vec();
    let mut response = packet.clone();
    response[2] |= 0x80;
    assert!(belongs(&response, 7, &section));
    assert!(!belongs(&response, 8, &section));
    assert!(!belongs(&packet, 7, &section));
    assert!(!belongs(&response[..20], 7, &section));
    assert!(belongs(&response.to_ascii_lowercase(), 7, &section));
    let other = question(7, "example.com", kind::A, 0)[12..].to_vec();
    assert!(!belongs(&response, 7, &other));
    assert!(!is_failure(&response));
    // It did not understand it.
    let mut short = response[..12].to_vec();
    short[5] = 0;
    assert!(!belongs(&short, 7, &section));
    short[3] = 2;
    assert!(belongs(&short, 7, &section) && is_failure(&short));
    assert!(belongs(&with_id(short, 9), 9, &section));
}

proptest! {
    #[test]
    fn whatever_comes_is_decided_about(packet: Vec<u8>) {
        let _ = ask(&packet, Transport::Udp);
    }

    #[test]
    fn whatever_becomes_of_a_question_on_its_way_is_decided_about(
        size: u16, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)
    ) {
        let mut packet = question(1, "web.default.svc.cluster.local", kind::A, size);
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Decision::Answer(response) = ask(&packet, Transport::Udp) {
            // It is never more than what was asked for, and always a response to it.
            prop_assert!(response.len() <= 1232);
            prop_assert_eq!(&response[..2], &packet[..2]);
            prop_assert!(response[2] & 0x80 != 0);
            show(&response);
        }
    }
}
