use expect_test::{Expect, expect};

use super::*;
use crate::testing::chain;

const CONFIG: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": { "auth": "aHViOnNlY3JldA==" },
            "registry.example:5000": { "username": "plain", "password": "p" },
            "registry.example:5000/team": { "auth": "dGVhbTphOmI" },
            "*.wild.example": { "auth": "d2lsZDp3" },
            "a.wild.example": { "identitytoken": "token" },
            "token.example": { "registrytoken": "token" },
            "empty.example": {}
        },
        "credHelpers": { "gcr.io": "gcloud" },
        "HttpHeaders": { "User-Agent": "x" }
    }"#;

fn check(host: &str, repository: &str, expected: &Expect) {
    let keyring = Keyring::parse(CONFIG.as_bytes()).unwrap();
    let show = |credentials: &Credentials| match credentials {
        Credentials::Password { username, password } => format!("{username}:{password}"),
        other => format!("{other:?}"),
    };
    let found: Vec<String> = keyring.find(host, repository).iter().map(show).collect();
    let helper = keyring.helper(host, repository).map(|error| error.to_string());
    expected.assert_eq(&(found.join(", ") + &helper.unwrap_or_default()));
}

#[test]
fn the_most_specific_entry_comes_first() {
    check("docker.io", "library/nginx", &expect!["hub:secret"]);
    check("registry.example:5000", "other/app", &expect!["plain:p"]);
    check("registry.example:5000", "team/app", &expect!["team:a:b, plain:p"]);
    check("registry.example:5000", "teammate/app", &expect!["plain:p"]);
    check("registry.example", "team/app", &expect![""]);
    check("b.wild.example", "x", &expect!["wild:w"]);
    check("a.wild.example", "x", &expect!["IdentityToken(...), wild:w"]);
    check("a.b.wild.example", "x", &expect![""]);
    check("token.example", "x", &expect!["RegistryToken(...)"]);
    check("empty.example", "x", &expect![""]);
    check("elsewhere.example", "x", &expect![""]);
}

#[test]
fn globs() {
    let check = |pattern: &str, text: &str| glob(pattern.as_bytes(), text.as_bytes());
    for (pattern, text) in [("*", ""), ("*", "abc"), ("a*c", "abbc"), ("*b*", "abc"), ("a", "a")] {
        assert!(check(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [("", "a"), ("a", ""), ("a*c", "abcd"), ("b*", "abc"), ("*ab", "aba")] {
        assert!(!check(pattern, text), "{pattern} {text}");
    }
    assert!(!check(&"*a".repeat(30), &"a".repeat(29)));
}

#[test]
fn credential_helpers_are_named_not_ignored() {
    check(
        "gcr.io",
        "x",
        &expect![[
            r#"credentials for gcr.io are kept by the credential helper "gcloud", which is not supported: put them into "auths" of config.json"#
        ]],
    );
    let store = br#"{"auths":{"a.example":{"auth":"YTpi"}},"credsStore":"desktop"}"#;
    let keyring = Keyring::parse(store).unwrap();
    assert_eq!(keyring.find("a.example", "x").len(), 1);
    assert_eq!(keyring.helper("b.example", "x").unwrap().helper, "desktop");
}

#[test]
fn what_is_no_config_is_refused_without_its_secrets() {
    let check = |json: &str, expected: &Expect| {
        expected.assert_eq(&chain(&Keyring::parse(json.as_bytes()).unwrap_err()));
    };
    check("", &expect!["not a config.json with credentials: wrong at line 1 column 0"]);
    check(
        r#"{"auths":{"a.example":{"auth":"not base64!"}}}"#,
        &expect![[r#"the field "auth" of the entry "a.example" is not base64 of user:password"#]],
    );
    check(
        r#"{"auths":{"a.example":{"auth":"bm9jb2xvbg=="}}}"#,
        &expect![[r#"the field "auth" of the entry "a.example" is not base64 of user:password"#]],
    );
    check(
        r#"{"auths":{"a.example":"hidden"}}"#,
        &expect!["not a config.json with credentials: wrong at line 1 column 30"],
    );
    assert!(Keyring::parse(br#"{"auths":null}"#).is_ok());
    let password = Credentials::Password { username: "u".into(), password: "hidden".into() };
    let keyring = Keyring::single("a.example", password);
    assert!(!format!("{keyring:?}").contains("hidden"));
}

/// Two secrets are one keyring; the node's own is another, which comes after it however specific it is.
#[test]
fn keyrings_are_merged_or_one_comes_before_the_other() {
    let key = |registry: &str, name: &str| {
        let (username, password) = (name.to_owned(), String::new());
        Keyring::single(registry, Credentials::Password { username, password })
    };
    let found = |keyring: &Keyring| -> Vec<String> {
        let name = |credentials: &Credentials| match credentials {
            Credentials::Password { username, .. } => username.clone(),
            other => format!("{other:?}"),
        };
        keyring.find("a.example", "team/app").iter().map(name).collect()
    };
    let [first, second] = [key("a.example", "first"), key("a.example/team", "second")];
    assert_eq!(found(&first.clone().merged(second.clone())), ["second", "first"]);
    let own = key("a.example/team/app", "own");
    assert_eq!(found(&first.merged(second).before(own)), ["second", "first", "own"]);
    let document = br#"{"auths":{"a.example":{"auth":"YTpi"}},"credsStore":"desktop"}"#;
    let keyring = Keyring::parse_auths(document).unwrap();
    assert_eq!((found(&keyring).len(), keyring.helper("b.example", "x")), (1, None));
}
