use super::*;
use crate::pod::SourceKind;

const NONE: BTreeMap<String, u64> = BTreeMap::new();

fn ports(text: &str) -> Exclusive {
    let ports = text.split_terminator(',').map(|it| it.parse().unwrap());
    Exclusive { ports: ports.collect(), ..Exclusive::default() }
}

fn key(name: &str) -> PodKey {
    PodKey { source: SourceKind::File, namespace: "ns".into(), name: name.into() }
}

#[test]
fn who_has_a_sandbox_goes_on_and_then_who_was_accepted_first() {
    let at = |second| Some(Timestamp::from_second(second).unwrap());
    let wants = |second| Standing::Wants(at(second));
    let all = "80/TCP";
    // What the other one, `b`, has or wants, and what becomes of one that came at 5.
    let in_use = "host port 80/TCP is in use by pod ns/b";
    let is_for = "host port 80/TCP is for pod ns/b, which was accepted first";
    for (own, name, theirs, standing, expected) in [
        (all, "a", "", Standing::Has, ""),
        (all, "a", "81/TCP,80/UDP", Standing::Has, ""),
        ("81/TCP,80/TCP", "a", all, Standing::Has, in_use),
        ("80/TCP@::1", "a", all, Standing::Has, "host port 80/TCP on ::1 is in use by pod ns/b"),
        ("80/TCP@0.0.0.0", "a", all, Standing::Has, in_use),
        // Another version of itself is another matter.
        (all, "b", all, Standing::Has, ""),
        (all, "a", all, wants(4), is_for),
        (all, "a", all, wants(6), ""),
        (all, "a", all, wants(5), ""),
        (all, "c", all, wants(5), is_for),
        // As one that an earlier version of the agent accepted.
        (all, "a", all, Standing::Wants(None), is_for),
        (all, "a", "81/TCP", wants(4), ""),
    ] {
        let theirs = ports(theirs);
        let other = Claim { key: &key("b"), what: &theirs, standing };
        let answer = admit(&key(name), at(5), &ports(own), &[other], &NONE);
        let answer = answer.map_or_else(|conflict| conflict.to_string(), |()| String::new());
        assert_eq!(answer, expected, "{own} of {name}, {theirs:?} {standing:?}");
    }
    // Of two without a sandbox exactly one goes on.
    let port = ports(all);
    for (one, two) in [(at(1), at(2)), (at(2), at(1)), (at(1), at(1)), (None, None)] {
        let (a, b) = (key("a"), key("b"));
        let claim = |key, since| Claim { key, what: &port, standing: Standing::Wants(since) };
        let first = admit(&a, one, &port, &[claim(&b, two)], &NONE).is_ok();
        assert_ne!(
            first,
            admit(&b, two, &port, &[claim(&a, one)], &NONE).is_ok(),
            "{one:?} {two:?}"
        );
    }
    // Who has it is named before who wants it.
    let (b, c) = (key("b"), key("c"));
    let wanted = Claim { key: &c, what: &port, standing: wants(1) };
    let had = Claim { key: &b, what: &port, standing: Standing::Has };
    let conflict = admit(&key("a"), at(5), &port, &[wanted, had], &NONE).unwrap_err();
    assert_eq!(conflict.to_string(), in_use);
}
#[test]
fn huge_pages_are_whose_they_fit() {
    let pages = |list: &[(&str, i64)]| {
        let huge_pages = list.iter().map(|(size, bytes)| (format!("hugepages-{size}"), *bytes));
        Exclusive { huge_pages: huge_pages.collect(), ..Exclusive::default() }
    };
    let machine = BTreeMap::from([("2Mi".to_owned(), 8), ("1Gi".to_owned(), 0)]);
    let wants = Standing::Wants(None);
    let why = |name, used, capacity| {
        format!(
            "Node didn't have enough resource: hugepages-{name}, requested: 4, used: {used}, \
             capacity: {capacity}"
        )
    };
    for (own, theirs, standing, expected) in [
        ("2Mi", ("2Mi", 4), Standing::Has, String::new()),
        ("2Mi", ("2Mi", 5), Standing::Has, why("2Mi", 5, 8)),
        ("2Mi", ("1Gi", 5), Standing::Has, String::new()),
        // One that waits may wait for ever.
        ("2Mi", ("2Mi", 100), wants, String::new()),
        ("1Gi", ("2Mi", 4), Standing::Has, why("1Gi", 0, 0)),
        ("64Ki", ("2Mi", 4), Standing::Has, why("64Ki", 0, 0)),
    ] {
        let theirs = pages(&[theirs]);
        let other = Claim { key: &key("b"), what: &theirs, standing };
        let answer = admit(&key("a"), None, &pages(&[(own, 4)]), &[other], &machine);
        let answer = answer.map_or_else(|conflict| conflict.to_string(), |()| String::new());
        assert_eq!(answer, expected, "{own} {theirs:?} {standing:?}");
    }
}

#[test]
fn what_a_pod_has_is_written_down_with_its_sandbox() {
    let pod = mainstay_testkit::pods::pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  \
         - {name: a, image: i, ports: [{containerPort: 80, hostPort: 8080}], \
         resources: {limits: {cpu: 1, hugepages-2Mi: 4Mi}}}\n",
    );
    let what = Exclusive::of(&pod);
    let mut annotations = BTreeMap::from([(labels::HUGE_PAGES.to_owned(), "mine".to_owned())]);
    what.note(&mut annotations);
    assert_eq!(annotations[labels::HOST_PORTS], "8080/TCP");
    assert_eq!(annotations[labels::HUGE_PAGES], "hugepages-2Mi=4194304");
    assert_eq!(Exclusive::noted(&annotations), what);
    Exclusive::default().note(&mut annotations);
    assert!(annotations.is_empty() && Exclusive::noted(&annotations).is_empty());
}
