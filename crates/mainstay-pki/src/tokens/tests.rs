use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::{Note, PkiError};

fn keys() -> (tempfile::TempDir, TokenKeys) {
    let directory = tempfile::tempdir().unwrap();
    let keys = TokenKeys::open(directory.path(), &mut Vec::new()).unwrap();
    (directory, keys)
}

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|it| (*it).to_owned()).collect()
}

fn object(name: &str, uid: &str) -> BoundObject {
    BoundObject { name: name.to_owned(), uid: uid.to_owned() }
}

fn request() -> TokenRequest {
    TokenRequest {
        issuer: "https://kubernetes.default.svc".to_owned(),
        audiences: list(&["api", "vault"]),
        seconds: 3600,
        namespace: "web".to_owned(),
        service_account: object("shop", "1-2-3"),
        pod: Some(object("shop-0", "4-5-6")),
        node: Some(object("n1", "7-8-9")),
        secret: None,
    }
}

fn now() -> Timestamp {
    "2027-03-04T05:06:07.5Z".parse().unwrap()
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

struct Server {
    issuers: Vec<String>,
    audiences: Vec<String>,
}

impl Server {
    fn new() -> Self {
        Self { issuers: list(&["https://kubernetes.default.svc"]), audiences: list(&["api"]) }
    }

    fn accepts(&self) -> Accepted<'_> {
        Accepted {
            issuers: &self.issuers,
            audiences: &self.audiences,
            own_audiences: &self.audiences,
        }
    }
}

fn part(token: &str, at: usize) -> Value {
    let part = token.split('.').nth(at).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_token_says_what_kubernetes_tokens_say() {
    let (_directory, keys) = keys();
    let (token, claims) = keys.sign(&request(), now()).unwrap();
    let header = part(&token, 0);
    assert_eq!(header["alg"], "ES256");
    assert_eq!(header["kid"], keys.key_set()["keys"][0]["kid"]);
    let mut said = part(&token, 1);
    let id = said.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(id.as_str().unwrap().len(), 36);
    assert_eq!(
        said,
        json!({
            "aud": ["api", "vault"],
            "exp": 1_804_140_367,
            "iat": 1_804_136_767,
            "iss": "https://kubernetes.default.svc",
            "kubernetes.io": {
                "namespace": "web",
                "node": { "name": "n1", "uid": "7-8-9" },
                "pod": { "name": "shop-0", "uid": "4-5-6" },
                "serviceaccount": { "name": "shop", "uid": "1-2-3" },
            },
            "nbf": 1_804_136_767,
            "sub": "system:serviceaccount:web:shop",
        })
    );
    let server = Server::new();
    let verified = keys.verify(&token, &server.accepts(), now()).unwrap();
    assert_eq!(verified, Verified { claims, audiences: list(&["api"]) });
    let (second, _) = keys.sign(&request(), now()).unwrap();
    assert_ne!(part(&token, 1)["jti"], part(&second, 1)["jti"]);
}

#[test]
fn time_and_audience_count() {
    let (_directory, keys) = keys();
    let (token, _) = keys.sign(&request(), now()).unwrap();
    let server = Server::new();
    for (later, expected) in [
        (0, Ok(())),
        (3659, Ok(())),
        (3661, Err(TokenError::Expired)),
        (-59, Ok(())),
        (-62, Err(TokenError::NotYetValid)),
    ] {
        let found = keys.verify(&token, &server.accepts(), now() + seconds(later));
        assert_eq!(found.map(|_| ()), expected, "{later} s later");
    }
    let other = list(&["other"]);
    let accepts = Accepted { audiences: &other, ..server.accepts() };
    assert_eq!(
        keys.verify(&token, &accepts, now()).unwrap_err().to_string(),
        "token audiences [\"api\", \"vault\"] is invalid for the target audiences [\"other\"]"
    );
    let nobody = TokenRequest { audiences: Vec::new(), ..request() };
    let (token, _) = keys.sign(&nobody, now()).unwrap();
    assert_eq!(keys.verify(&token, &server.accepts(), now()).unwrap().audiences, ["api"]);
}

/// A token whose parts have been changed by somebody without the key.
fn forged(token: &str, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let (mut header, mut claims) = (part(token, 0), part(token, 1));
    change(&mut header, &mut claims);
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", encode(&header), encode(&claims), token.rsplit('.').next().unwrap())
}

#[test]
fn forgeries_are_refused() {
    let (_directory, keys) = keys();
    let (_other_directory, other) = self::keys();
    let (token, _) = keys.sign(&request(), now()).unwrap();
    let server = Server::new();
    let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
    let signature = TokenError::Signature;
    let not_ours = TokenError::NotOurs;
    for (forgery, expected) in [
        (
            forged(&token, |_, claims| claims["sub"] = "system:serviceaccount:web:admin".into()),
            &signature,
        ),
        (forged(&token, |_, claims| claims["exp"] = json!(9_999_999_999_u64)), &signature),
        (forged(&token, |header, _| header["alg"] = "none".into()), &signature),
        (forged(&token, |header, _| header["alg"] = "HS256".into()), &signature),
        (forged(&token, |header, _| header["kid"] = "another".into()), &signature),
        (forged(&token, |header, _| header["crit"] = json!(["exp"])), &signature),
        (forged(&token, |_, claims| claims["iss"] = "https://elsewhere".into()), &not_ours),
        (forged(&token, |_, claims| *claims = json!([1])), &not_ours),
        (other.sign(&request(), now()).unwrap().0, &signature),
        (unsigned.clone(), &signature),
        (unsigned.trim_end_matches('.').to_owned(), &not_ours),
        (format!("{token}=="), &not_ours),
        (format!("{token}.x"), &not_ours),
        (format!("{token}{}", "A".repeat(20_000)), &not_ours),
        (String::new(), &not_ours),
        ("..".to_owned(), &not_ours),
        ("opaque".to_owned(), &not_ours),
        ("{\"payload\":\"\"}".to_owned(), &not_ours),
    ] {
        let found = keys.verify(&forgery, &server.accepts(), now());
        assert_eq!(found.as_ref().err(), Some(expected), "{forgery}");
    }
}

#[test]
fn keys_stay_and_more_can_be_trusted() {
    let (directory, keys) = keys();
    let (token, _) = keys.sign(&request(), now()).unwrap();
    let server = Server::new();
    let mut notes = Vec::new();
    let again = TokenKeys::open(directory.path(), &mut notes).unwrap();
    assert!(again.verify(&token, &server.accepts(), now()).is_ok());
    assert_eq!(notes, []);

    // A new key beside the old public one: what the old one signed still counts.
    let public = directory.path().join("sa.pub");
    fs::remove_file(directory.path().join("sa.key")).unwrap();
    let replaced = TokenKeys::open(directory.path(), &mut notes).unwrap();
    assert!(matches!(notes.as_slice(), [Note::Made { .. }]));
    assert!(replaced.verify(&token, &server.accepts(), now()).is_ok());
    assert_eq!(replaced.key_set()["keys"].as_array().unwrap().len(), 2);
    let (new, _) = replaced.sign(&request(), now()).unwrap();
    assert!(keys.verify(&new, &server.accepts(), now()).is_err());
    assert_eq!(fs::read_to_string(&public).unwrap().matches("BEGIN PUBLIC").count(), 2);

    // A broken list of public keys is made again.
    notes.clear();
    fs::write(&public, "-----BEGIN PUBLIC KEY-----\nAAAA\n").unwrap();
    let again = TokenKeys::open(directory.path(), &mut notes).unwrap();
    assert!(notes.iter().all(Note::is_warning) && notes.len() == 1);
    assert!(again.verify(&new, &server.accepts(), now()).is_ok());
    assert!(again.verify(&token, &server.accepts(), now()).is_err());

    // A broken key is not.
    for broken in [
        "",
        "half of a k",
        "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        fs::write(directory.path().join("sa.key"), broken).unwrap();
        let error = TokenKeys::open(directory.path(), &mut notes).unwrap_err();
        assert!(matches!(error, PkiError::Broken { .. }), "{error}");
        assert!(error.to_string().contains("sa.key is not an ECDSA P-256 key"), "{error}");
    }
}

#[test]
fn no_text_makes_it_panic() {
    let (_directory, keys) = keys();
    let server = Server::new();
    proptest::proptest!(|(token in "[A-Za-z0-9._-]{0,60}")| {
        proptest::prop_assert!(keys.verify(&token, &server.accepts(), now()).is_err());
    });
}
