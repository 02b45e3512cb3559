//! Which ranges an instance uses when its network is opened.

use std::net::IpAddr;

use super::range::Ranges;
use super::{IpFamily, Range, show_ranges};

/// Which ranges to use, and what to tell if the current ones are not the wanted ones. Addresses that
/// sandboxes hold cannot be changed, so theirs go before all others.
pub(super) fn decide(
    wanted: &[Range],
    remembered: Option<&Ranges>,
    live: &[IpAddr],
) -> (Option<Ranges>, Option<String>) {
    let with_older = |mut ranges: Ranges| {
        ranges.older.retain(|range| live.iter().any(|address| range.holds(*address)));
        live.iter().all(|address| ranges.of_address(*address).is_some()).then_some(ranges)
    };
    let older = remembered.map(|ranges| ranges.older.clone()).unwrap_or_default();
    let wanted_now = (!wanted.is_empty()).then(|| Ranges { current: wanted.to_vec(), older });
    let as_wanted = wanted_now.or_else(|| remembered.cloned()).map(with_older);
    match as_wanted {
        None if live.is_empty() => return (None, None),
        Some(Some(ranges)) => return (Some(ranges), None),
        _ => {}
    }
    if let Some(ranges) = remembered.cloned().and_then(with_older) {
        let wanted = show_ranges(wanted);
        let reason = format!("podCIDR {wanted} takes effect when all of them are gone");
        return (Some(ranges), Some(reason));
    }
    let first = |family| live.iter().find(|address| IpFamily::of(**address) == family);
    let derived = [(IpFamily::V4, 24), (IpFamily::V6, 64)]
        .into_iter()
        .filter_map(|(family, prefix)| Range::new(*first(family)?, prefix));
    let derived: Vec<_> = derived.collect();
    let derived = (!derived.is_empty()).then(|| Ranges::of(derived));
    let reason = "the file that remembers the range does not fit the sandboxes that run; it is \
                  written anew when they are gone";
    let reason = derived.as_ref().map(|_| reason.into());
    (derived, reason)
}

#[cfg(test)]
mod tests {
    use super::super::range;
    use super::*;

    /// `used` are the ranges that are used, or `!` and those when they are not the wanted ones.
    fn check(wanted: &str, remembered: &str, live: &[&str], used: &str) {
        let ranges = |text: &str| match text {
            "" => Vec::new(),
            text => range::parse_ranges(text).unwrap(),
        };
        let live: Vec<_> = live.iter().map(|address| address.parse().unwrap()).collect();
        let (current, older) = remembered.split_once('<').unwrap_or((remembered, ""));
        let older = older.split(',').filter(|it| !it.is_empty()).map(|it| it.parse().unwrap());
        let remembered = Ranges { current: ranges(current), older: older.collect() };
        let remembered = Some(remembered).filter(|ranges| !ranges.current.is_empty());
        let (found, reason) = decide(&ranges(wanted), remembered.as_ref(), &live);
        let mark = if reason.is_some() { "!" } else { "" };
        let found = found.unwrap_or_default();
        let mut text = show_ranges(&found.current);
        for range in &found.older {
            text.push_str(&format!("<{range}"));
        }
        assert_eq!(format!("{mark}{text}"), used, "{wanted} {remembered:?} {live:?}");
    }

    #[test]
    fn the_range_that_living_sandboxes_are_in_goes_before_all_others() {
        let (a, b, in_a, in_b) = ("10.1.0.0/16", "10.2.0.0/24", "10.1.7.7", "10.2.0.9");
        check("", "", &[], "");
        check("", b, &[], b);
        check(a, b, &[], a);
        check(a, b, &[in_a], a);
        check(a, b, &[in_b], &format!("!{b}"));
        check("", a, &[in_b], "!10.2.0.0/24");
        check("", "", &[in_b], "!10.2.0.0/24");
        check(a, "", &[in_b], "!10.2.0.0/24");
        // Sandboxes in a range that the node had before.
        let (both, c) = ("10.1.0.0/16<10.2.0.0/24,10.4.0.0/24", "10.3.0.0/24");
        check("", both, &[], a);
        check("", both, &[in_a], a);
        check("", both, &[in_a, in_b], "10.1.0.0/16<10.2.0.0/24");
        check(a, both, &[in_b], "10.1.0.0/16<10.2.0.0/24");
        check(c, both, &[in_b], "10.3.0.0/24<10.2.0.0/24");
        check(c, both, &[in_a, in_b], "!10.1.0.0/16<10.2.0.0/24");
        check("", both, &[in_a, "10.9.0.1"], "!10.1.7.0/24");
        // Of both kinds.
        let (dual, in_six) = ("10.1.0.0/16,fd00::/64", "fd00::9");
        check("", dual, &[], dual);
        check("", dual, &[in_a, in_six], dual);
        check(dual, a, &[in_a], dual);
        check(dual, "fd00::/64", &[in_six], dual);
        check(a, dual, &[in_a], a);
        check(a, dual, &[in_a, in_six], &format!("!{dual}"));
        check("fd00:1::/64,10.1.0.0/16", dual, &[in_a], "fd00:1::/64,10.1.0.0/16");
        check("fd00:1::/64", dual, &[in_six], &format!("!{dual}"));
        check("", "", &[in_b, in_six], "!10.2.0.0/24,fd00::/64");
    }
}
