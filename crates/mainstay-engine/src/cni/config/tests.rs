use serde_json::json;

use super::*;

fn list(text: &str) -> Result<NetworkConfigList, InvalidConfig> {
    NetworkConfigList::parse(text.as_bytes(), Form::List)
}

fn single(text: &str) -> Result<NetworkConfigList, InvalidConfig> {
    NetworkConfigList::parse(text.as_bytes(), Form::Single)
}

fn versions_of(fields: &str) -> Result<String, String> {
    let parsed = list(&format!(r#"{{"name":"n","plugins":[{{"type":"a"}}]{fields}}}"#));
    parsed
        .map(|it| it.versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        .map_err(|error| error.to_string())
}

#[test]
fn files_are_looked_at_in_the_order_of_their_names() {
    let names = [
        "99-last.conf",
        "10-b.conflist",
        "README",
        "10-a.json",
        "20.conf.bak",
        "conflist",
        ".conflist",
        "10-b.conf",
        "99-last.conflist~",
    ];
    let found = candidates(names.map(str::to_owned));
    let found: Vec<_> = found.iter().map(|(name, form)| (name.as_str(), *form)).collect();
    assert_eq!(
        found,
        [
            (".conflist", Form::List),
            ("10-a.json", Form::Single),
            ("10-b.conf", Form::Single),
            ("10-b.conflist", Form::List),
            ("99-last.conf", Form::Single),
        ]
    );
}

#[test]
fn a_list_keeps_what_only_its_plugins_know() {
    let parsed = list(
        r#"{
            "cniVersion": "1.0.0", "name": "dbnet", "disableCheck": true, "disableGC": "TRUE",
            "plugins": [
                {"type": "bridge", "keyA": ["more"], "ipam": {"type": "host-local"}},
                {"type": "portmap", "capabilities": {"portMappings": true, "mac": false}}
            ]
        }"#,
    );
    let parsed = parsed.unwrap();
    assert_eq!(parsed.name, "dbnet");
    assert!(parsed.disable_check && parsed.disable_gc && parsed.load_more);
    assert_eq!(parsed.plugins[0].fields["keyA"], json!(["more"]));
    assert_eq!(parsed.plugins[1].kind, "portmap");
    assert!(parsed.plugins[1].has_capability("portMappings"));
    assert!(["mac", "bandwidth"].iter().all(|it| !parsed.plugins[1].has_capability(it)));
    assert_eq!(parsed.owner, None);
}

#[test]
fn a_single_plugin_is_a_list_of_one() {
    let parsed = single(r#"{"cniVersion":"0.3.1","name":"n","type":"macvlan","x":1}"#).unwrap();
    assert_eq!((parsed.plugins.len(), parsed.load_more), (1, false));
    assert_eq!(parsed.plugins[0].fields["x"], 1);
}

#[test]
fn the_highest_version_that_both_speak_comes_first() {
    for (fields, expected) in [
        ("", "0.1.0"),
        (r#","cniVersion":"""#, "0.1.0"),
        (r#","cniVersion":"1.0.0""#, "1.0.0"),
        (r#","cniVersions":["0.4.0","1.1.0","1.0.0"]"#, "1.1.0 1.0.0 0.4.0"),
        (r#","cniVersion":"1.1.0","cniVersions":["1.0.0","1.1.0"]"#, "1.1.0 1.0.0"),
        // What nobody speaks yet, beside what is spoken.
        (r#","cniVersion":"2.0.0","cniVersions":["0.3.1"]"#, "0.3.1"),
    ] {
        assert_eq!(versions_of(fields).as_deref(), Ok(expected), "{fields}");
    }
    for (fields, expected) in [
        (
            r#","cniVersion":"2.0.0""#,
            "it is for CNI 2.0.0, and this mainstay speaks 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, \
             1.0.0, 1.1.0",
        ),
        (r#","cniVersion":"1.0""#, r#""1.0" is no CNI version"#),
        (r#","cniVersion":"1.0.0.0""#, r#""1.0.0.0" is no CNI version"#),
        (r#","cniVersion":1"#, "its cniVersion is no string"),
        (r#","cniVersions":"1.0.0""#, "its cniVersions are no list"),
        (r#","cniVersions":[1]"#, "one of its cniVersions is no string"),
    ] {
        assert_eq!(versions_of(fields).unwrap_err(), expected, "{fields}");
    }
}

#[test]
fn what_is_no_configuration_is_refused_by_name() {
    for (text, expected) in [
        ("[]", "it is no JSON object"),
        (r#"{"plugins":[{"type":"a"}]}"#, "it has no name"),
        (r#"{"name":7,"plugins":[{"type":"a"}]}"#, "its name is no string"),
        (r#"{"name":"n","plugins":[]}"#, "its list of plugins is empty"),
        (r#"{"name":"n","plugins":{}}"#, "its plugins are no list"),
        (
            r#"{"name":"n","loadOnlyInlinedPlugins":true}"#,
            "loadOnlyInlinedPlugins is true, and there are no plugins",
        ),
        (r#"{"name":"n","plugins":["a"]}"#, "a plugin is no object"),
        (r#"{"name":"n","plugins":[{}]}"#, "a plugin has no type, which names its program"),
        (r#"{"name":"n","plugins":[{"type":1}]}"#, "the type of a plugin is no string"),
        (
            r#"{"name":"n","plugins":[{"type":"a","capabilities":{"mac":1}}]}"#,
            "the capabilities of plugin a are no object of true and false",
        ),
        (
            r#"{"name":"n","disableGC":2,"plugins":[{"type":"a"}]}"#,
            "its disableGC is 2, and not true or false",
        ),
    ] {
        assert_eq!(list(text).unwrap_err().to_string(), expected, "{text}");
    }
    for name in ["../n", ".n", "", "a/b", "ä", "a b"] {
        let text = json!({ "name": name, "plugins": [{ "type": "a" }] }).to_string();
        let error = list(&text).unwrap_err().to_string();
        assert!(error.contains("is no name of a network"), "{error}");
    }
    for kind in ["../../bin/sh", "/bin/sh", "", ".", "..", "a\\b", "a\0"] {
        let text = json!({ "name": "n", "plugins": [{ "type": kind }] }).to_string();
        let error = list(&text).unwrap_err().to_string();
        assert!(error.contains("is no name of a program"), "{error}");
    }
    assert!(list("{").unwrap_err().to_string().starts_with("it is no JSON: "));
    assert_eq!(
        single(r#"{"name":"n","plugins":[{"type":"a"}]}"#).unwrap_err().to_string(),
        "it is a list of plugins, whose file has to be called *.conflist"
    );
}

#[test]
fn networks_that_other_engines_made_for_themselves_are_known() {
    for (text, owner) in [
        (r#"{"name":"podman","plugins":[{"type":"bridge"}]}"#, Some("podman")),
        (r#"{"name":"mine","plugins":[{"type":"bridge","bridge":"cni-podman1"}]}"#, Some("podman")),
        (
            r#"{"name":"bridge","nerdctlID":"17f","plugins":[{"type":"bridge","bridge":"nerdctl0"}]}"#,
            Some("nerdctl"),
        ),
        (r#"{"name":"cbr0","plugins":[{"type":"flannel"}]}"#, None),
        (r#"{"name":"containerd-net","plugins":[{"type":"bridge","bridge":"cni0"}]}"#, None),
    ] {
        assert_eq!(list(text).unwrap().owner, owner, "{text}");
    }
}

#[test]
fn plugins_may_lie_elsewhere() {
    let parsed = list(r#"{"name":"n"}"#).unwrap();
    assert!(parsed.load_more && parsed.plugins.is_empty());
}
