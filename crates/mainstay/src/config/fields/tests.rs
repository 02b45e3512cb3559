use expect_test::expect_file;

use super::*;

/// The names of the fields as they stand in `types.go`.
const NAMES: &str = include_str!("../testdata/fields-1.36.txt");

#[test]
fn every_field_of_a_kubelet_is_decided_and_no_other() {
    let known: Vec<&str> = NAMES.lines().collect();
    let mut decided: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
    decided.sort_unstable();
    assert_eq!(decided, known);
}

#[test]
fn harmless_values_are_json() {
    for field in FIELDS {
        if let Effect::Named(unless) = field.effect {
            for text in unless {
                assert!(serde_json::from_str::<Value>(text).is_ok(), "{}: {text}", field.name);
            }
        }
    }
}

#[test]
fn what_says_nothing_else_than_what_is_done_is_not_named() {
    let check = |name: &str, text: &str, in_vain: bool| {
        let value = serde_json::from_str(text).unwrap();
        assert_eq!(field(name).unwrap().is_in_vain(&value), in_vain, "{name}: {text}");
    };
    check("cpuManagerPolicy", "\"none\"", false);
    check("cpuManagerPolicy", "\"static\"", true);
    check("cpuManagerReconcilePeriod", "\"0s\"", false);
    check("userNamespaces", r#"{"idsPerPod": 65536, "other": {"none": "0s"}}"#, false);
    check("userNamespaces", r#"{"idsPerPod": 1}"#, true);
    check(
        "logging",
        r#"{"flushFrequency": 0, "options": {"json": {"infoBufferSize": "0"}}}"#,
        false,
    );
    check("maxPods", "1", false);
}

/// The page for people. `cargo xtask codegen` writes it.
#[test]
fn the_page_says_what_becomes_of_each_field() {
    let mut table = String::from("| field | effect |\n| --- | --- |\n");
    for field in FIELDS {
        let note = match field.effect {
            Effect::Taken => field.note.to_owned(),
            Effect::Named(_) => format!("*none*: {}", field.note),
        };
        table.push_str(&format!("| `{}` | {note} |\n", field.name));
    }
    let page = include_str!("../../../../../docs/configuration.md");
    let (head, rest) = page.split_once("<!-- fields -->\n").expect("a mark for the table");
    let (_, tail) = rest.split_once("<!-- end of fields -->\n").expect("a mark for its end");
    let written = format!("{head}<!-- fields -->\n{table}<!-- end of fields -->\n{tail}");
    expect_file!["../../../../../docs/configuration.md"].assert_eq(&written);
}
