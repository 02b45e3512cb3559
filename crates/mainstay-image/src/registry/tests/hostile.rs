//! Registries that send something else than was asked for.

use expect_test::{Expect, expect};

use super::fake::{Answer, Asked, Content, Fake, content, honest};
use super::*;
use crate::digest::Digest;

/// Pulls from a registry whose content `change` had its way with; how that fails.
async fn check(change: impl FnOnce(&mut Content), expected: &Expect) {
    if not_root() {
        return;
    }
    let mut content = content("app", "1", &image());
    change(&mut content);
    check_server(move |asked| honest(&content, asked), expected).await;
}

async fn check_server(
    server: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    expected: &Expect,
) {
    if not_root() {
        return;
    }
    let registry = Fake::start(server);
    let fixture = Fixture::new();
    let text = fixture.failure(&format!("{}/app:1", registry.host())).await;
    expected.assert_eq(&text.replace(&registry.host(), "REGISTRY"));
}

fn manifest() -> String {
    "app/manifests/1".into()
}

#[tokio::test]
async fn manifests_that_are_none() {
    let with = |bytes: &'static [u8]| {
        move |content: &mut Content| {
            content.insert(manifest(), bytes.to_vec());
        }
    };
    check(with(b""), &expect!["Invalid: cannot pull REGISTRY/app:1: manifest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 cannot be used: not an image index or manifest: EOF while parsing a value at line 1 column 0"]).await;
    check(with(b"<html>login</html>"), &expect!["Invalid: cannot pull REGISTRY/app:1: manifest sha256:95e4066e1cf49427398eebf870d23fb8f209c2f6d4ce52baf2866c664eece449 cannot be used: not an image index or manifest: expected value at line 1 column 1"]).await;
    check(with(br#"{"schemaVersion":1,"fsLayers":[]}"#), &expect!["Invalid: cannot pull REGISTRY/app:1: manifest sha256:cd4b5c3fd9025c5a6f7eb6af6a3e8d4d0ca56605bd805dee42589e554eba6f08 cannot be used: manifest has schema version 1, which is not supported: push the image again with a newer tool"]).await;
    check(with(br#"{"schemaVersion":2}"#), &expect!["Invalid: cannot pull REGISTRY/app:1: manifest sha256:bafebd36189ad3688b7b3915ea55d461e0bfcfbdde11e54b0a123999fb6be50f cannot be used: document has neither manifests nor config and layers"]).await;
    let helm = br#"{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
    check(with(helm), &expect![[r#"Invalid: cannot pull REGISTRY/app:1: manifest sha256:cc188b80a925388cb2bf0f1507476695268cd36c81f80c1d132cc5b991c377be cannot be used: not a container image, but an artifact of type "application/vnd.cncf.helm.config.v1+json""#]]).await;
    let long = |content: &mut Content| drop(content.insert(manifest(), vec![b' '; 5 << 20]));
    check(long, &expect!["Invalid: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: REGISTRY sent more than 4194304 bytes"]).await;
}

#[tokio::test]
async fn contents_that_are_not_what_their_digest_says() {
    let id = image().id();
    let config = format!("app/blobs/{id}");
    let (config, id) = (config.as_str(), id);
    check(|content| drop(content.insert(config.into(), b"{}".to_vec())), &expect!["Invalid: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: REGISTRY sent another content than was asked for: its digest is sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a, not sha256:5fc1960d4d746bebbdf0158fa6ec7fbef7fa4271659ca19c052c7ec9bf6fd449"]).await;
    check(|content| drop(content.remove(config)), &expect!["NotFound: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it answered 404 Not Found: manifest unknown"]).await;
    drop(id);
    let big = format!("app{}", big_blob());
    let same_length = vec![7; big_layer().len()];
    check(|content| drop(content.insert(big.clone(), same_length)), &expect!["Invalid: cannot pull REGISTRY/app:1: layer sha256:abc0288fac0213ac314ae3d07852baaf21084bf72a23703d40aed6cfed42b345 cannot be unpacked: layer is damaged: its digest is sha256:465ce310518a53496acea742b3f9e1c2bfd130a194014d9537ef551681b2785b, not sha256:abc0288fac0213ac314ae3d07852baaf21084bf72a23703d40aed6cfed42b345"]).await;
    let longer = [big_layer(), vec![0]].concat();
    check(|content| drop(content.insert(big.clone(), longer)), &expect!["Invalid: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: REGISTRY sent more than 316479 bytes"]).await;
    check(|content| drop(content.remove(&big)), &expect!["NotFound: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it answered 404 Not Found: manifest unknown"]).await;
}

#[tokio::test]
async fn another_manifest_than_the_digest_asked_for() {
    if not_root() {
        return;
    }
    let registry = Fake::start(|_| Answer::new(200, "{}"));
    let fixture = Fixture::new();
    let name = format!("{}/app@{}", registry.host(), Digest::of(b"asked for"));
    let text = fixture.failure(&name).await.replace(&registry.host(), "REGISTRY");
    expect!["Invalid: cannot pull REGISTRY/app@sha256:290a21250eb30ce5f507a6939efbc28c9fb3746178e92fcc41214c1664a4e52b: asking https://REGISTRY failed: REGISTRY sent another content than was asked for: its digest is sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a, not sha256:290a21250eb30ce5f507a6939efbc28c9fb3746178e92fcc41214c1664a4e52b"].assert_eq(&text);
}

#[tokio::test]
async fn images_that_contradict_themselves() {
    let extra_layer = |content: &mut Content| {
        let bytes = &content[&manifest()];
        let mut json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let layers = json["layers"].as_array_mut().unwrap();
        layers.push(layers[0].clone());
        content.insert(manifest(), json.to_string().into_bytes());
    };
    check(extra_layer, &expect!["Invalid: cannot pull REGISTRY/app:1: manifest sha256:ad5e5f936f1b38606ad39c0e31b4c2bb965f710c706efdd69017a3186e2d6b86 has 3 layers, but its configuration says 2"]).await;
    // An index that leads to itself through another name cannot be made, but a deep one can.
    let deep = |content: &mut Content| {
        let mut inner = b"{\"manifests\":[]}".to_vec();
        for _ in 0..6 {
            let digest = Digest::of(&inner);
            let outer =
                serde_json::json!({ "manifests": [{ "digest": digest, "size": inner.len() }] });
            content.insert(format!("app/manifests/{digest}"), inner);
            inner = outer.to_string().into_bytes();
        }
        content.insert(manifest(), inner);
    };
    check(deep, &expect!["Invalid: cannot pull REGISTRY/app:1: manifest sha256:ac2b7187b2c48c41e23207df0dd38a6902bb0c8efdb8a6f04ad57c3e97d5313e is an index within too many others"]).await;
    check(
        |content| drop(content.insert(manifest(), b"{\"manifests\":[]}".to_vec())),
        &expect!["NotFound: cannot pull REGISTRY/app:1: there is no image for linux/amd64: the index is empty"],
    )
    .await;
}

#[tokio::test]
async fn a_layer_that_tries_to_leave_its_root_is_named() {
    if not_root() {
        return;
    }
    let hostile = Layer::new().symlink("a", "/").file("a/etc/cron.d/x", "x").build();
    let image = TestImage::new("", vec![hostile]);
    let content = content("app", "1", &image);
    check_server(move |asked| honest(&content, asked), &expect![[r#"Invalid: cannot pull REGISTRY/app:1: layer sha256:0487853a6efd031aca2247a5895665c354fff5896ee99f465780f080b0f1af97 cannot be unpacked: layer entry "a/etc/cron.d/x" cannot be unpacked: its parent directory leads out of the layer through a symbolic link"#]]).await;
}

#[tokio::test]
async fn answers_that_lead_nowhere() {
    check_server(|_| Answer::new(302, "").header("location", "ftp://elsewhere/x"), &expect![[r#"Invalid: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: REGISTRY redirects to "ftp://elsewhere/x", which is not followed"#]])
        .await;
    check_server(|_| Answer::new(307, "").header("location", "/again"), &expect![[r#"Invalid: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: 127.0.0.1 redirects to "http://REGISTRY/again", which is not followed"#]]).await;
    check_server(|_| Answer::new(401, ""), &expect!["Invalid: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: REGISTRY wants an authentication that is not supported"]).await;
    check_server(|_| Answer::new(401, "").header("www-authenticate", "Negotiate"), &expect!["Invalid: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: REGISTRY wants an authentication that is not supported"])
        .await;
    check_server(|_| Answer::new(418, "teapot"), &expect!["Invalid: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it answered 418 I'm a teapot"]).await;
    let forbidden =
        r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    check_server(move |_| Answer::new(403, forbidden), &expect!["Unauthorized { anonymous: true }: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it wants credentials, or has no such image: requested access to the resource is denied"]).await;
}

#[tokio::test]
async fn a_redirection_takes_the_blobs_elsewhere_but_not_the_password() {
    if not_root() {
        return;
    }
    let content = content("app", "1", &image());
    let blobs = Fake::start({
        let content = content.clone();
        move |asked| honest(&content, asked)
    });
    let elsewhere = blobs.host();
    let registry = Fake::start(move |asked| {
        if !asked.headers.contains_key("authorization") {
            return Answer::new(401, "").header("www-authenticate", "Basic realm=\"x\"");
        }
        if asked.path.contains("/blobs/") {
            let location = format!("http://{elsewhere}{}", asked.path);
            return Answer::new(307, "").header("location", location);
        }
        honest(&content, asked)
    });
    let mut fixture = Fixture::new();
    let password = Credentials::Password { username: "u".into(), password: "p".into() };
    fixture.keyring = Keyring::single(&registry.host(), password);
    fixture.pull(&format!("{}/app:1", registry.host())).await.unwrap();
    assert_eq!(blobs.log().len(), 3);
    assert_eq!(blobs.count("Basic"), 0, "{:?}", blobs.log());
    assert_eq!(registry.count("Basic dTpw"), 4);
}
