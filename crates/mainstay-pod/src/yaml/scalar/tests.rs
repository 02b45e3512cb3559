use expect_test::{Expect, expect};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "the expectation is written in the call")]
fn check(texts: &[&str], expected: Expect) {
    let mut out = String::new();
    for text in texts {
        let value = match resolve(text) {
            Ok(Value::Null) => "null".to_owned(),
            Ok(Value::Bool(value)) => value.to_string(),
            Ok(Value::Number(number)) => number.to_string(),
            Ok(Value::String(text)) => format!("{text:?}"),
            Ok(Value::List(_) | Value::Map(_)) => unreachable!("a scalar is no collection"),
            Err(NotJson) => "not JSON".to_owned(),
        };
        out.push_str(&format!("{text} => {value}\n"));
    }
    expected.assert_eq(&out);
}

#[test]
fn words() {
    check(
        &["", "~", "Null", "yes", "y", "On", "NO", "off", "truE", "nul", ".NaN", "-.inf", "inf"],
        expect![[r#"
                 => null
                ~ => null
                Null => null
                yes => true
                y => true
                On => true
                NO => false
                off => false
                truE => "truE"
                nul => "nul"
                .NaN => not JSON
                -.inf => not JSON
                inf => "inf"
            "#]],
    );
}

#[test]
fn integers() {
    check(
        &[
            "0",
            "-0",
            "+7",
            "0777",
            "0o17",
            "08",
            "0x1F",
            "0b101",
            "-0x10",
            "1_000",
            "0x",
            "+-1",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "12:30:45",
            "1-2",
        ],
        expect![[r#"
                0 => 0
                -0 => 0
                +7 => 7
                0777 => 511
                0o17 => 15
                08 => 8
                0x1F => 31
                0b101 => 5
                -0x10 => -16
                1_000 => 1000
                0x => "0x"
                +-1 => "+-1"
                9223372036854775808 => 9223372036854775808
                -9223372036854775808 => -9223372036854775808
                -9223372036854775809 => -9223372036854776000
                18446744073709551616 => 18446744073709552000
                12:30:45 => "12:30:45"
                1-2 => "1-2"
            "#]],
    );
}

#[test]
fn floats() {
    check(
        &[
            "1.5",
            "1.",
            ".5",
            "-.5",
            "1e3",
            "1e21",
            "1e-7",
            "1.0",
            "1e999",
            ".",
            "1.2.3",
            "2001-01-01",
        ],
        expect![[r#"
                1.5 => 1.5
                1. => 1
                .5 => 0.5
                -.5 => -0.5
                1e3 => 1000
                1e21 => 1e+21
                1e-7 => 1e-7
                1.0 => 1
                1e999 => "1e999"
                . => "."
                1.2.3 => "1.2.3"
                2001-01-01 => "2001-01-01"
            "#]],
    );
}

#[test]
fn keys_that_are_floats() {
    let keys: Vec<_> = ["1.5", "0", "1e21", "0.00001", "100000"].map(key_float).to_vec();
    expect![[r#"[Some("1.5"), Some("0"), Some("1e+21"), Some("1e-05"), Some("100000")]"#]]
        .assert_eq(&format!("{keys:?}"));
}
