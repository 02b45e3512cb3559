//! Docker's own registry, as Debian packages it.

use std::fs;

use expect_test::expect;
use mainstay_testkit::registry::{Blob, Registry};

use super::*;
use crate::digest::Digest;

/// Puts an image into a registry.
fn put(registry: &Registry, repository: &str, tag: &str, image: &TestImage) -> Digest {
    let blob = |digest: &Digest, content: &[u8]| Blob {
        digest: digest.to_string(),
        content: content.to_owned(),
    };
    let (manifest, blobs) = image.manifest(crate::testing::gzip);
    let digest = Digest::of(&manifest);
    let blobs: Vec<Blob> = blobs.iter().map(|(digest, content)| blob(digest, content)).collect();
    registry.put(repository, tag, &blob(&digest, &manifest), &blobs);
    digest
}

#[tokio::test]
async fn pulled_over_plain_http_on_loopback() {
    if not_root() {
        return;
    }
    let registry = Registry::open();
    let digest = put(&registry, "team/app", "1", &image());
    let fixture = Fixture::new();
    let pulled = fixture.pull(&registry.name("team/app:1")).await.unwrap();
    assert_eq!(pulled.id, image().id());
    assert_eq!(pulled.digests[0].digest(), Some(&digest));
    assert!(fixture.store.verify().unwrap().is_empty());
    assert_eq!(fixture.pull(&registry.name("team/app:1")).await.unwrap(), pulled);

    let newer = TestImage { cmd: "newer", ..image() };
    put(&registry, "team/app", "1", &newer);
    let pulled = fixture.pull(&registry.name("team/app:1")).await.unwrap();
    assert_eq!(pulled.id, newer.id());

    let other = Fixture::new();
    let by_digest = registry.name(&format!("team/app@{digest}"));
    assert_eq!(other.pull(&by_digest).await.unwrap().id, image().id());
    let text = Fixture::new().failure(&registry.name("team/app:missing")).await;
    expect!["NotFound: cannot pull REGISTRY/team/app:missing: asking https://REGISTRY failed: it answered 404 Not Found: manifest unknown"].assert_eq(&text.replace(registry.host(), "REGISTRY"));
    let text = Fixture::new().failure(&registry.name("nobody/nothing")).await;
    expect!["NotFound: cannot pull REGISTRY/nobody/nothing:latest: asking https://REGISTRY failed: it answered 404 Not Found: manifest unknown"].assert_eq(&text.replace(registry.host(), "REGISTRY"));
}

#[tokio::test]
async fn a_download_from_it_goes_on_where_it_stopped() {
    if not_root() {
        return;
    }
    let registry = Registry::open();
    put(&registry, "app", "1", &image());
    let fixture = Fixture::new();
    let job = fixture.store.layer_job(&Digest::of(&image().layers[1])).unwrap();
    let partial = job.partial(&Digest::of(&big_layer()));
    fs::write(partial, &big_layer()[..50_000]).unwrap();
    drop(job);
    fixture.pull(&registry.name("app:1")).await.unwrap();
    // Had the rest not fitted, it would have begun anew.
    assert_eq!(fixture.retries(), 0);
}

#[tokio::test]
async fn pulled_over_tls_with_a_password() {
    if not_root() {
        return;
    }
    let registry = Registry::guarded();
    put(&registry, "app", "1", &image());
    let name = registry.name("app:1");
    let mut fixture = Fixture::new();
    let text = |text: String| text.replace(registry.host(), "REGISTRY");
    let untrusted = text(fixture.failure(&name).await);
    assert!(untrusted.starts_with("Untrusted: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: the certificate of REGISTRY is not trusted: "), "{untrusted}");

    let authorities = vec![registry.authority().as_bytes().to_owned()];
    let host = HostConfig { authorities, ..HostConfig::default() };
    fixture.config.hosts.insert(registry.host().to_owned(), host);
    expect!["Unauthorized { anonymous: true }: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it wants credentials, or has no such image: authentication required"].assert_eq(&text(fixture.failure(&name).await));
    let keyring = |password: &str| {
        let (username, password) = ("user".into(), password.into());
        Keyring::single(registry.host(), Credentials::Password { username, password })
    };
    fixture.keyring = keyring("wrong");
    expect!["Unauthorized { anonymous: false }: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it refuses the credentials, or has no such image: authentication required"].assert_eq(&text(fixture.failure(&name).await));
    fixture.keyring = keyring("secret");
    let pulled = fixture.pull(&name).await.unwrap();
    assert_eq!(pulled.id, image().id());
    assert!(fixture.store.verify().unwrap().is_empty());

    // The same as Docker keeps it.
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, registry.host());
    let mut other = Fixture::new();
    other.config = fixture.config.clone();
    other.keyring = Keyring::parse(config.as_bytes()).unwrap();
    other.pull(&name).await.unwrap();
}
