//! Registries that want to know who asks.

use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::expect;

use super::fake::{Answer, Asked, Fake, content, honest};
use super::*;
use crate::registry::HelperError;

fn auth(asked: &Asked) -> &str {
    asked.headers.get("authorization").map_or("", String::as_str)
}

/// A registry that takes tokens `T<n>`, each for `uses` requests, from a token server that asks
/// `give` whether there is one for a request.
fn registry_with_tokens(
    uses: usize,
    give: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
) -> Fake {
    let content = content("app", "1", &image());
    let (given, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Fake::start(move |asked| {
        if asked.path.starts_with("/token") {
            return give(asked).unwrap_or_else(|| {
                used.store(0, Ordering::Relaxed);
                let token = format!("T{}", given.fetch_add(1, Ordering::Relaxed));
                Answer::new(200, serde_json::json!({ "token": token }).to_string())
            });
        }
        let newest = given.load(Ordering::Relaxed).checked_sub(1);
        let valid = newest.is_some_and(|n| auth(asked) == format!("Bearer T{n}"));
        if valid && used.fetch_add(1, Ordering::Relaxed) < uses {
            return honest(&content, asked);
        }
        let challenge = format!(
            r#"Bearer realm="http://{}/token",service="test",scope="repository:app:pull""#,
            asked.headers["host"]
        );
        let refused = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Answer::new(401, refused).header("www-authenticate", challenge)
    })
}

async fn failure(fixture: &Fixture, registry: &Fake) -> String {
    let text = fixture.failure(&format!("{}/app:1", registry.host())).await;
    text.replace(&registry.host(), "REGISTRY")
}

/// A fixture whose registry counts as plain HTTP by configuration.
fn fixture(registry: &Fake) -> Fixture {
    let mut fixture = Fixture::new();
    let plain = HostConfig { plain_http: true, ..HostConfig::default() };
    fixture.config.hosts.insert(registry.host(), plain);
    fixture
}

fn password(password: &str) -> Credentials {
    Credentials::Password { username: "user".into(), password: password.into() }
}

#[tokio::test]
async fn nobody_in_particular_gets_a_token_too() {
    if not_root() {
        return;
    }
    let registry = registry_with_tokens(100, |_| None);
    let fixture = fixture(&registry);
    fixture.pull(&format!("{}/app:1", registry.host())).await.unwrap();
    let tokens: Vec<String> =
        registry.log().into_iter().filter(|line| line.contains("/token")).collect();
    expect!["GET /token?service=test&scope=repository%3Aapp%3Apull&client_id=mainstay"]
        .assert_eq(&tokens.join("\n"));
}

#[tokio::test]
async fn tokens_that_run_out_are_renewed() {
    if not_root() {
        return;
    }
    // The first is for manifest and configuration. Of the two layers, which are downloaded at the
    // same time, one may be refused with it when the other has another one.
    let registry = registry_with_tokens(2, |_| None);
    let fixture = fixture(&registry);
    fixture.pull(&format!("{}/app:1", registry.host())).await.unwrap();
    assert_eq!(registry.count("/token"), 2);
}

#[tokio::test]
async fn passwords_and_identity_tokens_are_exchanged() {
    if not_root() {
        return;
    }
    let give = |asked: &Asked| match (asked.method.as_str(), auth(asked)) {
        // user:right
        ("GET", "Basic dXNlcjpyaWdodA==") => None,
        ("POST", "") if asked.body.contains("refresh_token=good%26token") => {
            assert_eq!(
                asked.body,
                "grant_type=refresh_token&refresh_token=good%26token&client_id=mainstay&service=test&scope=repository%3Aapp%3Apull"
            );
            None
        }
        _ => Some(Answer::new(401, "")),
    };
    for (credentials, works) in [
        (Some(password("right")), true),
        (Some(Credentials::IdentityToken("good&token".into())), true),
        (Some(password("wrong")), false),
        (Some(Credentials::IdentityToken("bad".into())), false),
        (None, false),
    ] {
        let registry = registry_with_tokens(100, give);
        let mut fixture = fixture(&registry);
        let anonymous = credentials.is_none();
        if let Some(credentials) = credentials {
            fixture.keyring = Keyring::single(&registry.host(), credentials);
        }
        let name = format!("{}/app:1", registry.host());
        match fixture.pull(&name).await {
            Ok(_) => assert!(works),
            Err(error) => {
                assert!(!works, "{}", chain(&error));
                assert_eq!(error.kind(), PullErrorKind::Unauthorized { anonymous });
            }
        }
    }
}

#[tokio::test]
async fn an_identity_token_is_not_sent_on() {
    if not_root() {
        return;
    }
    for status in [302, 307] {
        let elsewhere = Fake::start(|_| Answer::new(200, r#"{"token":"T0"}"#));
        let location = format!("http://{}/", elsewhere.host());
        let registry = registry_with_tokens(100, move |_| {
            Some(Answer::new(status, "").header("location", location.clone()))
        });
        let mut fixture = fixture(&registry);
        let token = Credentials::IdentityToken("secret".into());
        fixture.keyring = Keyring::single(&registry.host(), token);
        let text = failure(&fixture, &registry).await.replace(&elsewhere.host(), "ELSEWHERE");
        expect![[r#"Invalid: cannot pull REGISTRY/app:1: asking http://REGISTRY failed: getting a token from http://REGISTRY/token failed: REGISTRY redirects to "http://ELSEWHERE/", which is not followed"#]].assert_eq(&text);
        assert!(elsewhere.log().is_empty());
    }
}

#[tokio::test]
async fn several_credentials_are_tried_in_order() {
    if not_root() {
        return;
    }
    let give = |asked: &Asked| match auth(asked) {
        "Basic dXNlcjpyaWdodA==" => None,
        _ => Some(Answer::new(401, "")),
    };
    let registry = registry_with_tokens(100, give);
    let mut fixture = fixture(&registry);
    let host = registry.host();
    let more_specific = Keyring::single(&format!("{host}/app"), password("wrong"));
    fixture.keyring = Keyring::single(&host, password("right")).merged(more_specific);
    fixture.pull(&format!("{host}/app:1")).await.unwrap();
    assert_eq!(registry.count("/token"), 2);
}

#[tokio::test]
async fn a_token_for_the_registry_itself_is_shown_as_it_is() {
    if not_root() {
        return;
    }
    let content = content("app", "1", &image());
    let registry = Fake::start(move |asked| match auth(asked) {
        "Bearer mine" => honest(&content, asked),
        _ => Answer::new(401, "").header("www-authenticate", "Bearer realm=\"http://nowhere\""),
    });
    let mut fixture = fixture(&registry);
    fixture.keyring = Keyring::single(&registry.host(), Credentials::RegistryToken("mine".into()));
    fixture.pull(&format!("{}/app:1", registry.host())).await.unwrap();
}

#[tokio::test]
async fn refusals_say_what_was_refused() {
    if not_root() {
        return;
    }
    let registry = registry_with_tokens(0, |_| None);
    expect!["Unauthorized { anonymous: true }: cannot pull REGISTRY/app:1: asking http://REGISTRY failed: it wants credentials, or has no such image: authentication required"].assert_eq(&failure(&fixture(&registry), &registry).await);
    let mut with_password = fixture(&registry);
    with_password.keyring = Keyring::single(&registry.host(), password("hidden"));
    let text = failure(&with_password, &registry).await;
    assert!(!text.contains("hidden"));
    expect!["Unauthorized { anonymous: false }: cannot pull REGISTRY/app:1: asking http://REGISTRY failed: it refuses the credentials, or has no such image: authentication required"].assert_eq(&text);
    let mut with_helper = fixture(&registry);
    let (host, program) = (registry.host(), "docker-credential-desktop".to_owned());
    let failure_of =
        HelperError { registry: host.clone(), program, reason: "it failed".to_owned() };
    with_helper.keyring.take_in(&host, Err(failure_of));
    expect!["Credentials: cannot pull REGISTRY/app:1: it wants credentials, and there are none: docker-credential-desktop gave no credentials for REGISTRY: it failed"].assert_eq(&failure(&with_helper, &registry).await);
}

#[tokio::test]
async fn token_servers_that_fail_are_not_wrong_passwords() {
    if not_root() {
        return;
    }
    let registry = registry_with_tokens(100, |_| Some(Answer::new(503, "")));
    expect!["RegistryUnavailable: cannot pull REGISTRY/app:1: asking http://REGISTRY failed: getting a token from http://REGISTRY/token failed: it answered 503 Service Unavailable"].assert_eq(&failure(&fixture(&registry), &registry).await);
    let registry = registry_with_tokens(100, |_| Some(Answer::new(200, "{}")));
    expect!["Invalid: cannot pull REGISTRY/app:1: asking http://REGISTRY failed: getting a token from http://REGISTRY/token failed: the token server http://REGISTRY/token answered without a token"].assert_eq(&failure(&fixture(&registry), &registry).await);
    // A password for a registry with TLS is not shown to a token server without.
    let registry = Fake::start(|_| {
        Answer::new(401, "").header("www-authenticate", "Bearer realm=\"ftp://elsewhere/token\"")
    });
    expect![[r#"Invalid: cannot pull REGISTRY/app:1: asking http://REGISTRY failed: getting a token from ftp://elsewhere/token failed: "ftp://elsewhere/token" is not an address that can be asked"#]].assert_eq(&failure(&fixture(&registry), &registry).await);
}
