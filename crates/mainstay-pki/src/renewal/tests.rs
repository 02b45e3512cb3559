use std::collections::BTreeSet;

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn names(list: &[&str]) -> BTreeSet<SubjectName> {
    list.iter().map(|name| name.parse().unwrap()).collect()
}

fn wanted() -> Leaf {
    Leaf {
        common_name: "kube-apiserver".to_owned(),
        organization: None,
        usage: Usage::Server,
        names: names(&["localhost", "127.0.0.1"]),
    }
}

fn facts(from: &str, to: &str) -> CertificateFacts {
    CertificateFacts {
        common_name: "kube-apiserver".to_owned(),
        organizations: Vec::new(),
        names: names(&["localhost", "127.0.0.1", "old.example.com"]),
        not_before: time(from),
        not_after: time(to),
        server_auth: true,
        client_auth: false,
        is_authority: false,
        by_authority: true,
        key_matches: true,
    }
}

#[test]
fn time_decides() {
    for (from, to, now, expected) in [
        // A year: kept for two thirds of it.
        (
            "2027-01-01T00:00:00Z",
            "2028-01-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
            Some("2027-09-01T08:00:00Z"),
        ),
        (
            "2027-01-01T00:00:00Z",
            "2028-01-01T00:00:00Z",
            "2027-09-01T07:59:59Z",
            Some("2027-09-01T08:00:00Z"),
        ),
        ("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "2027-09-01T08:00:00Z", None),
        ("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z", None),
        // Three days, made elsewhere: a day before its end.
        (
            "2027-01-01T00:00:00Z",
            "2027-01-04T00:00:00Z",
            "2027-01-02T00:00:00Z",
            Some("2027-01-03T00:00:00Z"),
        ),
        // A longer one is kept until a third of what a new one would get is left.
        (
            "2020-01-01T00:00:00Z",
            "2040-01-01T00:00:00Z",
            "2027-01-02T00:00:00Z",
            Some("2039-09-01T08:00:00Z"),
        ),
        // The clock is behind, or was ahead.
        ("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "2026-12-31T23:59:59Z", None),
        ("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "1970-01-01T00:00:05Z", None),
        // It ends before it begins.
        ("2028-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2028-06-01T00:00:00Z", None),
    ] {
        let found = match renewal(&facts(from, to), &wanted(), time(now)) {
            Renewal::Keep { until } => Some(until.to_string()),
            Renewal::Issue(_) => None,
        };
        assert_eq!(found.as_deref(), expected, "{from} to {to} at {now}");
    }
}

#[test]
fn what_it_is_decides() {
    let now = time("2027-02-01T00:00:00Z");
    let good = || facts("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z");
    type Spoil = fn(&mut CertificateFacts, &mut Leaf);
    let cases: [(Spoil, Reason); 8] = [
        (|it, _| it.by_authority = false, Reason::OtherAuthority),
        (|it, _| it.key_matches = false, Reason::OtherKey),
        (|it, _| it.common_name.push('x'), Reason::OtherSubject),
        (|_, wanted| wanted.organization = Some("system:nodes".to_owned()), Reason::OtherSubject),
        (|it, _| it.server_auth = false, Reason::OtherUsage),
        (|_, wanted| wanted.usage = Usage::Client, Reason::OtherUsage),
        (|it, _| it.is_authority = true, Reason::OtherUsage),
        (
            |_, wanted| wanted.names.extend(names(&["192.0.2.1", "new.example.com"])),
            Reason::Names(vec!["new.example.com".parse().unwrap(), "192.0.2.1".parse().unwrap()]),
        ),
    ];
    for (spoil, reason) in cases {
        let (mut facts, mut wanted) = (good(), wanted());
        spoil(&mut facts, &mut wanted);
        assert_eq!(renewal(&facts, &wanted, now), Renewal::Issue(reason));
    }
    assert!(matches!(renewal(&good(), &wanted(), now), Renewal::Keep { .. }));
}

/// Whatever the clock says when a certificate is made, it is good then; and good, or found to have to be
/// made again, whatever the clock says later.
#[test]
fn clocks_that_jump() {
    let clocks = [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:10:00Z",
        "2000-01-01T00:00:00Z",
        "2025-12-31T23:59:59Z",
        "2026-01-01T00:00:00Z",
        "2026-08-01T00:00:00Z",
        "2031-01-01T00:00:00Z",
        "2038-01-20T00:00:00Z",
        "2106-02-08T00:00:00Z",
        "9999-01-01T00:00:00Z",
    ];
    for made in clocks.map(time) {
        let (not_before, not_after) = leaf_validity(made);
        let leaf = CertificateFacts { not_before, not_after, ..facts(clocks[0], clocks[1]) };
        assert!(
            matches!(renewal(&leaf, &wanted(), made), Renewal::Keep { .. })
                || made > time("9998-01-01T00:00:00Z")
        );
        for later in clocks.map(time) {
            let valid = not_before <= later && later < not_after;
            let kept = matches!(renewal(&leaf, &wanted(), later), Renewal::Keep { .. });
            assert!(valid || !kept, "made {made}, kept at {later}");
            if made < EARLIEST_PLAUSIBLE && later < time("2030-01-01T00:00:00Z") {
                assert!(valid, "made {made}, not good at {later}");
                assert_eq!(kept, later < EARLIEST_PLAUSIBLE, "made {made}, at {later}");
            }
        }
        let (from, to) = authority_validity(made);
        assert_eq!(from, Timestamp::UNIX_EPOCH);
        assert!(to >= time("2035-12-31T00:00:00Z"));
    }
}

#[test]
fn life_stays_below_what_clients_accept() {
    let (from, to) = leaf_validity(time("2027-05-05T00:00:00Z"));
    assert!(to.duration_since(from) <= DAY * 398);
}

#[test]
fn a_kubelets_certificate_is_rotated_at_its_own_time() {
    let facts = facts("2027-01-01T00:00:00Z", "2027-04-11T00:00:00Z");
    for (own, day) in [(0, "2027-03-12T00"), (255, "2027-04-01T00")] {
        // As exact as a hundred days are in parts of a second.
        let due = time(&format!("{day}:00:00Z"));
        let about = jiff::SignedDuration::from_secs(1);
        let at = |now| rotation(&facts, &wanted(), own, now);
        let Renewal::Keep { until } = at(due - about) else { panic!("{own}: not kept") };
        assert!(until > due - about && until < due + about, "{own}: {until}");
        assert_eq!(at(due + about), Renewal::Issue(Reason::Ending(facts.not_after)));
    }
    let early = time("2026-12-31T23:59:59Z");
    assert_eq!(rotation(&facts, &wanted(), 7, early), Renewal::Issue(Reason::NotYetValid));
    let other = Leaf { names: names(&["192.0.2.1"]), ..wanted() };
    let named = rotation(&facts, &other, 7, time("2027-01-02T00:00:00Z"));
    assert!(matches!(named, Renewal::Issue(Reason::Names(_))));
}
