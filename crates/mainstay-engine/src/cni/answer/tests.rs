use proptest::prelude::*;
use serde_json::json;

use super::*;

const SPOKEN: SpecVersion = SpecVersion::WITH_CHECK;

#[test]
fn results_go_on_unchanged_and_say_their_version() {
    for (output, expected) in [
        (
            r#"{"cniVersion":"1.0.0","x":{"y":1}}"#,
            json!({ "cniVersion": "1.0.0", "x": { "y": 1 } }),
        ),
        (r#"{"ips":[]}"#, json!({ "cniVersion": "0.4.0", "ips": [] })),
        (r#"{"cniVersion":""}"#, json!({ "cniVersion": "0.4.0" })),
        ("null", json!({ "cniVersion": "0.4.0" })),
    ] {
        assert_eq!(result(output.as_bytes(), SPOKEN), Ok(expected), "{output}");
    }
    for (output, expected) in [
        ("", "its result \"\" is no JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "its result is no JSON object"),
        (r#"{"cniVersion":"9.0.0"}"#, "its result is of CNI version \"9.0.0\""),
    ] {
        assert_eq!(result(output.as_bytes(), SPOKEN).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_sandbox_has_the_addresses_of_its_link() {
    let two = json!([{ "name": "cni0" }, { "name": "eth0", "sandbox": "/x" }]);
    for (name, value, expected) in [
        ("plain", json!({ "ips": [{ "address": "10.1.0.5/16" }] }), Ok(vec!["10.1.0.5"])),
        (
            "of its link only",
            json!({ "interfaces": two, "ips": [
                { "address": "10.1.0.1/16", "interface": 0 },
                { "address": "10.1.0.5/16", "interface": 1 },
            ] }),
            Ok(vec!["10.1.0.5"]),
        ),
        (
            "an IPv4 address is the primary one",
            json!({ "ips": [
                { "address": "fd00::5/64" }, { "address": "fd00::6/64", "interface": null },
                { "address": "10.1.0.5/16" }, { "address": "10.2.0.5/16" },
            ] }),
            Ok(vec!["10.1.0.5", "fd00::5", "fd00::6", "10.2.0.5"]),
        ),
        ("IPv6 alone", json!({ "ips": [{ "address": "fd00::5/64" }] }), Ok(vec!["fd00::5"])),
        (
            "before 0.3.0",
            json!({ "ip4": { "ip": "10.1.0.5/16" }, "ip6": { "ip": "fd00::5/64" } }),
            Ok(vec!["10.1.0.5", "fd00::5"]),
        ),
        ("none", json!({ "ips": [] }), Err("its result has no address of eth0")),
        ("no list", json!({ "ips": {} }), Err("its result has no address of eth0")),
        (
            "another link's",
            json!({ "interfaces": two, "ips": [{ "address": "10.1.0.1/16", "interface": 0 }] }),
            Err("its result has no address of eth0"),
        ),
        (
            "no such interface",
            json!({ "ips": [{ "address": "10.1.0.5/16", "interface": 0 }] }),
            Err("its result has an address of interface 0, and no such interface"),
        ),
        (
            "no number",
            json!({ "interfaces": two, "ips": [{ "address": "10.1.0.5/16", "interface": -1 }] }),
            Err("its result has an address of interface -1, and no such interface"),
        ),
        (
            "no prefix",
            json!({ "ips": [{ "address": "10.1.0.5" }] }),
            Err("its result has \"10.1.0.5\" where an address belongs"),
        ),
        (
            "too long a prefix",
            json!({ "ips": [{ "address": "10.1.0.5/33" }] }),
            Err("its result has \"10.1.0.5/33\" where an address belongs"),
        ),
        ("no text", json!({ "ips": [{}] }), Err("its result has \"\" where an address belongs")),
    ] {
        let found = addresses(&value, "eth0");
        let found = found.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        let expected = expected.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            found.map_err(|error| error.to_string()),
            expected.map_err(str::to_owned),
            "{name}"
        );
    }
}

#[test]
fn plugins_that_fail_say_why() {
    let said = |stdout: &str, stderr: &str| {
        Complaint::of(stdout.as_bytes(), stderr.as_bytes(), "exit status: 1")
    };
    for (stdout, stderr, expected) in [
        (r#"{"code":7,"msg":"Invalid","details":"too small"}"#, "noise", "Invalid; too small"),
        (r#"{"code":7,"msg":"Invalid"}"#, "", "Invalid"),
        ("", "", "netplugin failed with no error message: exit status: 1"),
        ("", "boom\n", "netplugin failed: \"boom\": exit status: 1"),
        (
            "no",
            "",
            "netplugin failed but error parsing its diagnostic message \"no\": expected ident at \
             line 1 column 2",
        ),
    ] {
        assert_eq!(said(stdout, stderr).to_string(), expected);
    }
    let long = format!(r#"{{"msg":"{}\n{}"}}"#, "a".repeat(10), "b".repeat(5000));
    let text = said(&long, "").to_string();
    assert_eq!((text.len(), &text[..12]), (1000, "aaaaaaaaaa b"));
    assert!(said(r#"{"code":11}"#, "").is_passing());
    let gone = r#"{"code":1,"msg":"failed to open netns: no such file or directory"}"#;
    for (stdout, present, expected) in [
        (r#"{"code":3,"msg":"unknown"}"#, true, true),
        (gone, true, false),
        (gone, false, true),
        (r#"{"code":7,"msg":"a"}"#, false, false),
    ] {
        assert_eq!(said(stdout, "").is_gone(present), expected, "{stdout} {present}");
    }
}

#[test]
fn plugins_say_which_versions_they_speak() {
    let output = br#"{"cniVersion":"1.0.0","supportedVersions":["1.0.0","0.4.0","x","2.0.0"]}"#;
    let found: Vec<_> = versions(output).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(found, ["0.4.0", "1.0.0", "2.0.0"]);
    assert!(versions(b"no").is_err());
}

proptest! {
    /// Whatever a plugin writes: it is understood or refused, and what is repeated is short.
    #[test]
    fn no_answer_breaks_anything(output in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let complaint = Complaint::of(&output, &output, "exit status: 1").to_string();
        prop_assert!(complaint.chars().count() < 20 * REPEATED_MAX);
        prop_assert!(!complaint.contains('\n'));
        if let Ok(result) = result(&output, SPOKEN) {
            let _ = addresses(&result, "eth0");
        }
        let _ = versions(&output);
    }
}
