use super::*;

fn day(day: u8) -> Timestamp {
    format!("2027-01-{day:02}T00:00:00Z").parse().unwrap()
}

#[test]
fn what_is_shown_and_asked_for_is_as_with_a_kubelet() {
    let now = day(10);
    let certificate = |ends| Given::Certificate(day(ends));
    let kept = |ends, due| Some(Kept { ends: day(ends), due, fresh: false });
    let (good, old) = (certificate(20), certificate(9));
    let (token, nothing) = (Given::Token, Given::Nothing);
    let (missing, unreadable) = (Given::Missing, Given::Unreadable);
    let (mine, due, past) = (kept(20, false), kept(20, true), kept(9, true));
    let (show, renew) = (Step::Show, Step::Renew);
    for (given, kept, bootstrap, rotates, expected) in [
        // A kubeconfig is taken as it is.
        (good, None, false, false, show(Proof::Given)),
        (old, None, false, false, show(Proof::Given)),
        (token, None, false, false, show(Proof::Given)),
        (nothing, None, false, false, show(Proof::Given)),
        (good, mine, false, false, show(Proof::Given)),
        (missing, mine, false, false, Step::Unreadable),
        (missing, mine, false, true, Step::Unreadable),
        (unreadable, mine, false, false, Step::Unreadable),
        (unreadable, mine, false, true, Step::Unreadable),
        // Certificates of the node's own come in its place.
        (good, None, false, true, renew(Proof::Given)),
        (token, None, false, true, renew(Proof::Given)),
        (nothing, None, false, true, show(Proof::Given)),
        (good, mine, false, true, show(Proof::Kept)),
        (old, mine, false, true, show(Proof::Kept)),
        (good, due, false, true, renew(Proof::Kept)),
        (good, past, false, true, renew(Proof::Given)),
        (old, past, false, true, Step::Ended(day(9))),
        // The other kubeconfig is for those who have nothing good.
        (good, None, true, false, show(Proof::Given)),
        (good, None, true, true, renew(Proof::Given)),
        (good, mine, true, true, show(Proof::Kept)),
        (missing, None, true, true, Step::Bootstrap),
        (missing, past, true, true, Step::Bootstrap),
        (old, None, true, true, Step::Bootstrap),
        (old, past, true, false, Step::Bootstrap),
        (token, None, true, true, Step::Bootstrap),
        (missing, mine, true, true, Step::Settle),
        (missing, due, true, true, renew(Proof::Kept)),
        (token, mine, true, true, Step::Settle),
        (old, mine, true, false, Step::Settle),
        (old, due, true, false, Step::Settle),
        (old, due, true, true, renew(Proof::Kept)),
        // What somebody is writing, or has mistyped, is not written over.
        (unreadable, None, true, true, Step::Unreadable),
        (unreadable, mine, true, true, Step::Unreadable),
        (unreadable, mine, true, false, Step::Unreadable),
        (unreadable, due, true, true, Step::Unreadable),
        (unreadable, past, true, true, Step::Unreadable),
    ] {
        let found = Found { given, kept, bootstrap, rotates, refused: false };
        assert_eq!(decide(&found, now), expected, "{found:?}");
    }
}

#[test]
fn who_is_refused_begins_anew_if_that_is_possible() {
    let now = day(10);
    let given = Given::Certificate(day(20));
    let kept = Some(Kept { ends: day(20), due: false, fresh: false });
    let refused = |bootstrap| Found { given, kept, bootstrap, rotates: true, refused: true };
    assert_eq!(decide(&refused(true), now), Step::Bootstrap);
    assert_eq!(decide(&refused(false), now), Step::Show(Proof::Kept));
    // One that was just made is not thrown away, and neither is one that seems to have ended.
    let fresh = Some(Kept { ends: day(9), due: true, fresh: true });
    let found = Found { kept: fresh, ..refused(true) };
    assert_eq!(decide(&found, now), Step::Show(Proof::Kept));
    let first = Found { given: Given::Missing, ..found };
    assert_eq!(decide(&first, now), Step::Settle);
}

#[test]
fn a_first_certificate_that_has_ended_by_this_clock_is_shown_and_not_asked_for_at_once() {
    let now = day(10);
    for rotates in [false, true] {
        let given = Given::Missing;
        let start = Found { given, kept: None, bootstrap: true, rotates, refused: false };
        assert_eq!(decide(&start, now), Step::Bootstrap);
        // The kubeconfig could not be written then, and was a moment later.
        let kept = Some(Kept { ends: day(9), due: true, fresh: true });
        let unsettled = Found { kept, ..start };
        assert_eq!(decide(&unsettled, now), Step::Settle);
        let settled = Found { given: Given::Certificate(day(9)), ..unsettled };
        assert_eq!(decide(&settled, now), Step::Show(Proof::Kept));
        assert_eq!(decide(&Found { refused: true, ..settled }, now), Step::Show(Proof::Kept));
        // After the pause the next one is asked for.
        let kept = kept.map(|it| Kept { fresh: false, ..it });
        assert_eq!(decide(&Found { kept, ..settled }, now), Step::Bootstrap);
    }
}
