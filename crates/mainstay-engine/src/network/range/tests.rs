use super::*;

fn range(text: &str) -> Range {
    text.parse().unwrap()
}

fn chosen(family: IpFamily, taken: &[&str]) -> Option<String> {
    let taken: Vec<_> = taken
        .iter()
        .map(|text| text.split_once('/').unwrap())
        .map(|(address, prefix)| (address.parse().unwrap(), prefix.parse().unwrap()))
        .collect();
    let range = choose(family, "machine", Path::new("/var/lib/mainstay"), &taken);
    range.map(|range| range.to_string())
}

#[test]
fn a_range_knows_its_addresses() {
    for (text, network, beside) in [
        ("10.88.0.0/29", "10.88.0.", "10.87.255.255"),
        ("fd00:88::/125", "fd00:88::", "fd00:87:ffff::ffff"),
    ] {
        let (address, prefix) = text.split_once('/').unwrap();
        // Too narrow to be of use, but quickly counted.
        let range = Range { network: address.parse().unwrap(), prefix: prefix.parse().unwrap() };
        let at = |last: u32| format!("{network}{last}").parse::<IpAddr>().unwrap();
        let addresses: Vec<_> = (0..6).map(|number| range.address(number)).collect();
        assert_eq!(range.gateway(), at(1));
        assert_eq!(addresses, [2, 3, 4, 5, 6, 2].map(at));
        let held = (0..=9).filter(|last| range.holds(at(*last))).count();
        assert_eq!(held, 5);
        assert!(!range.holds(beside.parse().unwrap()));
    }
    // Of the other kind, with the same bits.
    assert!(!range("fd00::/64").holds("10.0.0.2".parse().unwrap()));
    assert!(!range("10.88.0.0/24").overlaps("::".parse().unwrap(), 1));
    assert_eq!(range("fd00::/64").capacity(), u32::MAX);
    assert_eq!(range("fd00:1::/64").mask(), "ffff:ffff:ffff:ffff::".parse::<IpAddr>().unwrap());
    assert_eq!(range("10.88.0.0/20").mask(), "255.255.240.0".parse::<IpAddr>().unwrap());
}

#[test]
fn only_whole_networks_are_ranges() {
    for text in [
        "10.88.0.1/24",
        "10.88.0.0",
        "10.88.0.0/30",
        "10.0.0.0/7",
        "::1/64",
        "fd00::/7",
        "fd00::/121",
        "fd00::/300",
        "",
    ] {
        assert!(text.parse::<Range>().is_err(), "{text}");
    }
}

#[test]
fn a_list_has_one_of_a_kind() {
    for text in ["10.88.0.0/24", "fd00::/64", "10.88.0.0/24,fd00::/64", "fd00::/64,10.88.0.0/24"] {
        assert_eq!(show_ranges(&parse_ranges(text).unwrap()), text);
    }
    assert_eq!(parse_ranges("10.88.0.0/24, fd00::/64").unwrap().len(), 2);
    for text in ["", ",", "10.88.0.0/24,", "10.88.0.0/24,10.89.0.0/24", "fd00::/64,10.0.0.0"] {
        assert!(parse_ranges(text).is_err(), "{text}");
    }
}

#[test]
fn the_choice_avoids_what_is_taken() {
    let chosen = |taken: &[&str]| chosen(IpFamily::V4, taken);
    let first = chosen(&["0.0.0.0/0", "192.168.1.0/24", "fd00::/8"]).unwrap();
    assert!(first.starts_with("10.201."), "{first}");
    assert_eq!(chosen(&[]), Some(first.clone()));
    let second = chosen(&[&first]).unwrap();
    assert!(second.starts_with("10.201.") && second != first, "{second}");
    // A route to one address of it, and one to all of its block.
    let inside = first.replace(".0/24", ".77/32");
    assert_eq!(chosen(&[&inside]), Some(second));
    assert!(chosen(&["10.0.0.0/8"]).unwrap().starts_with("172.30."));
    assert!(chosen(&["10.0.0.0/8", "172.16.0.0/12"]).unwrap().starts_with("192.168."));
    let all = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
    assert!(chosen(&all).unwrap().starts_with("198.18."));
    assert_eq!(chosen(&["0.0.0.0/1", "128.0.0.0/1"]), None);
}

#[test]
fn of_ipv6_a_part_of_the_local_addresses_is_chosen() {
    let chosen = |taken: &[&str]| chosen(IpFamily::V6, taken);
    let first = chosen(&["::/0", "10.0.0.0/8"]).unwrap();
    assert!(first.starts_with("fd") && first.ends_with("::/64"), "{first}");
    let second = chosen(&[&first]).unwrap();
    assert!(second.starts_with("fd") && second != first, "{second}");
    assert_eq!(chosen(&["fc00::/7"]), None);
}

#[test]
fn instances_and_machines_choose_differently() {
    for (family, least) in [(IpFamily::V4, 11), (IpFamily::V6, 20)] {
        let mut chosen: Vec<_> = (0..20)
            .map(|number| format!("/srv/{number}"))
            .map(|root_dir| choose(family, "machine", Path::new(&root_dir), &[]).unwrap())
            .map(|range| range.to_string())
            .collect();
        chosen.sort();
        chosen.dedup();
        assert!(chosen.len() >= least, "{chosen:?}");
    }
}

#[test]
fn a_range_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("network.json");
    assert_eq!(remembered(&path).unwrap(), None);
    let of = |text: &str| Ranges::of(parse_ranges(text).unwrap());
    for text in ["10.88.0.0/24", "fd00::/64", "10.89.0.0/16,fd00:1::/64"] {
        remember(&path, &of(text)).unwrap();
        assert_eq!(remembered(&path).unwrap(), Some(of(text)));
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        r#"{"version":1,"range":"10.89.0.0/16,fd00:1::/64"}"#
    );
    let older = vec![range("10.87.0.0/24"), range("fd00:2::/64")];
    let ranges = Ranges { older, ..of("10.89.0.0/16") };
    remember(&path, &ranges).unwrap();
    assert_eq!(remembered(&path).unwrap(), Some(ranges));
    for text in ["", "{", r#"{"version":2,"range":"10.89.0.0/16"}"#] {
        fs::write(&path, text).unwrap();
        assert!(remembered(&path).is_err(), "{text}");
    }
}
