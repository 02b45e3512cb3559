use expect_test::{Expect, expect};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "the expectation is written in the call")]
fn check(text: &str, expected: Expect) {
    let mut out = String::new();
    for document in read(text) {
        if let Some(root) = &document.root {
            out.push_str(&root.canonical_json());
            out.push('\n');
        }
        if let Some(error) = &document.error {
            out.push_str(&format!("byte {}: {}\n", error.span.start, error.message));
        }
    }
    expected.assert_eq(&out);
}

#[test]
fn values() {
    check(
        r#"{"a": [1, -2.50, 1e3, true, false, null], "b": {}, "c": "\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83d"}"#,
        expect![[r#"
            {"a":[1,-2.50,1e3,true,false,null],"b":{},"c":"\"\\/\u0008\u000c\n\r\té😀�"}
        "#]],
    );
}

#[test]
fn several_values_are_several_documents() {
    check(
        "{\"a\": 1}\n\t{\"b\": 2}\r\n",
        expect![[r#"
        {"a":1}
        {"b":2}
    "#]],
    );
    check(
        "\u{feff}{}",
        expect![[r#"
        {}
    "#]],
    );
}

#[test]
fn errors_keep_what_came_before() {
    check(
        r#"{"metadata": {"name": "web", "namespace": "x"}, "spec": {"containers": [{"name": 01}]}}"#,
        expect![[r#"
            {"metadata":{"name":"web","namespace":"x"},"spec":{"containers":[{"name":0}]}}
            byte 82: expected ',' or '}', found '1'
        "#]],
    );
    check(
        r#"{"a": 1, b: 2}"#,
        expect![[r#"
        {"a":1}
        byte 9: expected a key in double quotes, found 'b'
    "#]],
    );
    check(
        r#"{"a": yes}"#,
        expect![[r#"
        {}
        byte 6: expected a JSON value, found 'y'
    "#]],
    );
    check(
        r#"{"a": "x"#,
        expect![[r#"
        {}
        byte 8: expected the end of the string, found the end of the file
    "#]],
    );
    check(
        "{\"a\": \"x\ny\"}",
        expect![[r#"
        {}
        byte 8: expected the end of the string, found '\n'
    "#]],
    );
    check(
        r#"{"a": "\x"}"#,
        expect![[r#"
        {}
        byte 8: expected an escape such as \n or \u00e9, found 'x'
    "#]],
    );
    check(
        r#"{"a": 1,}"#,
        expect![[r#"
        {"a":1}
        byte 8: expected a key in double quotes, found '}'
    "#]],
    );
    check(
        r#"{"a": [1 2]}"#,
        expect![[r#"
        {"a":[1]}
        byte 9: expected ',' or ']', found '2'
    "#]],
    );
    check(
        r#"{} x"#,
        expect![[r#"
        {}
        byte 3: expected a JSON value, found 'x'
    "#]],
    );
    check(
        r#"{"a": "\u12"}"#,
        expect![[r#"
        {}
        byte 9: expected four hexadecimal digits, found '1'
    "#]],
    );
}

#[test]
fn deep_nesting_is_refused() {
    let error = read(&"[".repeat(1_000_000)).remove(0).error.expect("it is too deep");
    assert!(error.message.contains("100 levels deep"));
    let error = read(&"{\"a\":".repeat(1_000_000)).remove(0).error.expect("it is too deep");
    assert!(error.message.contains("100 levels deep"));
    let many = format!("[{}1]", "1,".repeat(600_000));
    assert!(read(&many).remove(0).error.is_some());
}

#[test]
fn a_brace_makes_it_json() {
    assert!(is_json("\u{feff} \n\t{"));
    assert!(!is_json("a: {"));
    assert!(!is_json("[1]"));
}
