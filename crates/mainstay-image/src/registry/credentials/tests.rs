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
    expected.assert_eq(&found.join(", "));
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
fn helpers_are_for_their_registries_and_the_default_one_for_what_is_not_known() {
    let check = |json: &str, host: &str, wanted: Option<(&str, &str)>| {
        let found = Keyring::parse(json.as_bytes()).unwrap().helper(host, "x");
        let found = found.as_ref().map(|it| (it.name.as_str(), it.server.as_str()));
        assert_eq!(found, wanted, "{host}");
    };
    check(CONFIG, "gcr.io", Some(("gcloud", "gcr.io")));
    check(CONFIG, "a.example", None);
    let both = r#"{"auths":{"a.example":{"auth":"YTpi"},"c.example":{"auth":"YTpi"},"d.example":{}},
        "credsStore":"desktop","credHelpers":{"c.example":"c","docker.io":"hub"}}"#;
    check(both, "a.example", None);
    check(both, "b.example", Some(("desktop", "b.example")));
    check(both, "c.example", Some(("c", "c.example")));
    check(both, "d.example", Some(("desktop", "d.example")));
    check(both, "docker.io", Some(("hub", "https://index.docker.io/v1/")));
    let helper = |name: &str| Helper { name: name.into(), server: String::new() }.program();
    assert_eq!(helper("pass").as_deref(), Some("docker-credential-pass"));
    assert_eq!(helper("x/../../../bin/sh"), None);
}

#[test]
fn what_helpers_answer() {
    let check = |success, answer: &str, wanted: Result<Option<&str>, &str>| {
        let found = Helper::answer(success, answer.as_bytes());
        let shown = found.map(|it| it.map(|it| format!("{it:?}")));
        assert_eq!(shown, wanted.map(|it| it.map(str::to_owned)), "{answer}");
    };
    let answer = r#"{"ServerURL":"x","Username":"u","Secret":"hidden"}"#;
    check(true, answer, Ok(Some(r#"Password("u", ...)"#)));
    let token = r#"{"Username":"<token>","Secret":"hidden"}"#;
    check(true, token, Ok(Some("IdentityToken(...)")));
    check(true, "hidden", Err("its answer is not JSON with Username and Secret"));
    check(true, r#"{"Username":"u"}"#, Err("its answer is not JSON with Username and Secret"));
    check(false, "credentials not found in native keychain\n", Ok(None));
    check(false, answer, Err("it failed"));
}

#[test]
fn what_a_helper_gave_is_tried_first() {
    let mut keyring = Keyring::parse(CONFIG.as_bytes()).unwrap();
    keyring.take_in("token.example", Ok(Some(Credentials::IdentityToken(String::new()))));
    let shown = format!("{:?}", keyring.find("token.example", "x"));
    assert_eq!(shown, "[IdentityToken(...), RegistryToken(...)]");
    keyring.take_in("token.example", Ok(None));
    let error = HelperError { registry: "x".into(), program: "p".into(), reason: "r".into() };
    keyring.take_in("x", Err(error.clone()));
    let keyring = Keyring::anonymous().before(keyring);
    assert_eq!((keyring.failure("x"), keyring.failure("y")), (Some(error), None));
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
