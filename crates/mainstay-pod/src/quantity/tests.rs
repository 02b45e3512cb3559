use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "the expectation is written in the call")]
fn check(texts: &[&str], expected: Expect) {
    let mut out = String::new();
    for text in texts {
        let line = match Quantity::parse(text) {
            Ok(it) => {
                let stored = stored_text(text).expect("it parses");
                format!("{it}, stored {stored}, {} milli, {} units", it.milli(), it.units())
            }
            Err(error) => error.to_string(),
        };
        out.push_str(&format!("{text:?}: {line}\n"));
    }
    expected.assert_eq(&out);
}

#[test]
fn decimal() {
    check(
        &[
            "0", "1", "0.1", "100m", "1500m", "1.5", "1.500", "2k", "1e3", "12E6", "+5", "0100",
            "-3", ".5", "5.",
        ],
        expect![[r#"
            "0": 0, stored 0, 0 milli, 0 units
            "1": 1, stored 1, 1000 milli, 1 units
            "0.1": 100m, stored 100m, 100 milli, 1 units
            "100m": 100m, stored 100m, 100 milli, 1 units
            "1500m": 1500m, stored 1500m, 1500 milli, 2 units
            "1.5": 1500m, stored 1500m, 1500 milli, 2 units
            "1.500": 1500m, stored 1.500, 1500 milli, 2 units
            "2k": 2k, stored 2k, 2000000 milli, 2000 units
            "1e3": 1e3, stored 1e3, 1000000 milli, 1000 units
            "12E6": 12e6, stored 12E6, 12000000000 milli, 12000000 units
            "+5": 5, stored +5, 5000 milli, 5 units
            "0100": 100, stored 0100, 100000 milli, 100 units
            "-3": -3, stored -3, -3000 milli, -3 units
            ".5": 500m, stored 500m, 500 milli, 1 units
            "5.": 5, stored 5., 5000 milli, 5 units
        "#]],
    );
}

#[test]
fn binary() {
    check(
        &["1Ki", "1024Ki", "1.5Gi", "1023Mi", "0.5Ki", "1.1Ki", "8Ei", "9Ei"],
        expect![[r#"
        "1Ki": 1Ki, stored 1Ki, 1024000 milli, 1024 units
        "1024Ki": 1Mi, stored 1Mi, 1048576000 milli, 1048576 units
        "1.5Gi": 1536Mi, stored 1536Mi, 1610612736000 milli, 1610612736 units
        "1023Mi": 1023Mi, stored 1023Mi, 1072693248000 milli, 1072693248 units
        "0.5Ki": 512, stored 512, 512000 milli, 512 units
        "1.1Ki": 1126400m, stored 1126400m, 1126400 milli, 1127 units
        "8Ei": 9223372036854775807, stored 9223372036854775807, 9223372036854775807 milli, 9223372036854775807 units
        "9Ei": 9223372036854775807, stored 9223372036854775807, 9223372036854775807 milli, 9223372036854775807 units
    "#]],
    );
}

#[test]
fn amounts_are_rounded_up() {
    check(
        &["1n", "0.0001", "1.0000000001", "1000.0001", "-0.0001"],
        expect![[r#"
        "1n": 1n, stored 1n, 1 milli, 1 units
        "0.0001": 100u, stored 100u, 1 milli, 1 units
        "1.0000000001": 1000000001n, stored 1000000001n, 1001 milli, 2 units
        "1000.0001": 1000000100u, stored 1000000100u, 1000001 milli, 1001 units
        "-0.0001": -100u, stored -100u, -1 milli, -1 units
    "#]],
    );
}

#[test]
fn what_is_no_quantity() {
    check(
        &[
            "",
            "a",
            "1 Gi",
            "1GB",
            "1mi",
            "1.2.3",
            "1e",
            "--1",
            "1e99999",
            "1000000000E",
            "0x10",
            "1_000",
        ],
        expect![[r#"
            "": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            "a": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            "1 Gi": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            "1GB": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            "1mi": unable to parse quantity's suffix
            "1.2.3": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            "1e": unable to parse quantity's suffix
            "--1": unable to parse quantity's suffix
            "1e99999": quantity is too large
            "1000000000E": quantity is too large
            "0x10": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            "1_000": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
        "#]],
    );
}

#[test]
fn sums_keep_the_first_way_of_writing() {
    let parse = |text| Quantity::parse(text).expect("a quantity");
    assert_eq!(parse("1Gi").plus(parse("512Mi")).canonical(), "1536Mi");
    assert_eq!(parse("0").plus(parse("512Mi")).canonical(), "512Mi");
    assert_eq!(parse("1").plus(parse("500m")).canonical(), "1500m");
    assert_eq!(parse("1.1").rounded_to_milli().canonical(), "1100m");
    assert_eq!(parse("0.00001").rounded_to_milli().canonical(), "1m");
    assert_eq!(Quantity::from_units(3).canonical(), "3");
    for (bytes, text) in [(0, "0"), (1000, "1k"), (1024, "1Ki"), (1025, "1025"), (5 << 30, "5Gi")] {
        assert_eq!(Quantity::from_bytes(bytes).canonical(), text, "{bytes}");
    }
}

fn quantity() -> impl Strategy<Value = String> {
    let suffix = prop::sample::select(vec![
        "", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "E-3", "e0",
    ]);
    ("[+-]?[0-9]{1,6}(\\.[0-9]{0,11})?", suffix).prop_map(|(number, suffix)| number + suffix)
}

proptest! {
    #[test]
    fn canonical_text_means_the_same(text in quantity()) {
        let parsed = Quantity::parse(&text).unwrap();
        let again = Quantity::parse(&parsed.canonical()).unwrap();
        prop_assert_eq!(parsed, again);
        prop_assert_eq!(parsed.canonical(), again.canonical());
        prop_assert_eq!(Quantity::parse(&stored_text(&text).unwrap()).unwrap(), parsed);
    }

    #[test]
    fn order_and_sums_agree(a in quantity(), b in quantity()) {
        let (a, b) = (Quantity::parse(&a).unwrap(), Quantity::parse(&b).unwrap());
        prop_assert_eq!(a.plus(b), b.plus(a));
        prop_assert_eq!(a.plus(b) > a, b > Quantity::ZERO);
        if a >= b {
            prop_assert!(a.milli() >= b.milli() && a.units() >= b.units());
        }
    }

    #[test]
    fn rounding_goes_away_from_zero(text in quantity()) {
        let it = Quantity::parse(&text).unwrap();
        let rounded = it.rounded_to_milli();
        let away = if it.is_negative() { rounded <= it } else { rounded >= it };
        prop_assert!(away);
        prop_assert_eq!(rounded.milli(), it.milli());
    }

    #[test]
    fn any_text_is_judged(text in ".{0,40}") {
        let _ = stored_text(&text);
    }
}
