mod fake;
mod flaky;
mod hostile;
mod real;
mod token;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::progress::{Event, Phase};
use crate::reference::Reference;
use crate::store::{Image, Store};
use crate::testing::{Layer, Mount, TestImage, chain, not_root};
use fake::{Answer, Fake, content, honest};

/// A store to pull into, and how.
struct Fixture {
    _disk: Mount,
    store: Store,
    config: RegistryConfig,
    keyring: Keyring,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Fixture {
    fn new() -> Self {
        let disk = Mount::new("tmpfs", &[]);
        let store = Store::open(disk.path().join("store")).unwrap();
        // Nothing here is about how long it takes.
        let retry = RetryPolicy { first: Duration::from_millis(1), ..RetryPolicy::default() };
        let platform =
            Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
        Self {
            _disk: disk,
            store,
            config: RegistryConfig { retry, platform, ..RegistryConfig::default() },
            keyring: Keyring::anonymous(),
            events: Arc::default(),
        }
    }

    fn request(&self, reference: &str) -> PullRequest {
        let events = Arc::clone(&self.events);
        PullRequest {
            reference: reference.parse().unwrap(),
            keyring: Arc::new(self.keyring.clone()),
            answer_within: None,
            progress: Arc::new(move |event| events.lock().unwrap().push(event)),
        }
    }

    fn puller(&self) -> Puller {
        Puller::new(self.store.clone(), self.config.clone())
    }

    async fn pull(&self, reference: &str) -> Result<Image, PullError> {
        self.puller().pull(&self.request(reference)).await
    }

    /// How a pull fails, with its kind; nothing is visible after it.
    async fn failure(&self, reference: &str) -> String {
        let error = self.pull(reference).await.unwrap_err();
        assert!(self.store.list().unwrap().0.is_empty());
        assert!(self.store.verify().unwrap().is_empty());
        format!("{:?}: {}", error.kind(), chain(&error))
    }

    fn retries(&self) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, Event::Retry { .. })).count()
    }

    fn phases(&self, phase: Phase) -> usize {
        let wanted = |event: &&Event| matches!(event, Event::Layer { phase: p, .. } if *p == phase);
        self.events.lock().unwrap().iter().filter(wanted).count()
    }
}

/// An image of two layers, the second of which takes several reads.
fn image() -> TestImage {
    let mut state = 1_u64;
    let noise = std::iter::from_fn(|| {
        // Knuth's generator: something that gzip makes nothing smaller of.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Some(state.to_be_bytes()[0])
    });
    let noise: Vec<u8> = noise.take(300_000).collect();
    let base = Layer::new().dir("etc/", 0o755).file("etc/passwd", "root").build();
    TestImage::new("", vec![base, Layer::new().file("noise", noise).build()])
}

/// The second layer of [`image`], as it travels.
fn big_layer() -> Vec<u8> {
    crate::testing::gzip(&image().layers[1])
}

fn big_blob() -> String {
    format!("/blobs/{}", crate::digest::Digest::of(&big_layer()))
}

/// An honest registry with [`image`] as `app:1`.
fn registry() -> Fake {
    let content = content("app", "1", &image());
    Fake::start(move |asked| honest(&content, asked))
}

fn mirrors(fixture: &mut Fixture, registry: &str, addresses: &[String]) {
    let mirrors = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let host = HostConfig { mirrors, ..HostConfig::default() };
    fixture.config.hosts.insert(registry.into(), host);
}

#[tokio::test]
async fn an_image_is_pulled_and_then_only_compared() {
    if not_root() {
        return;
    }
    let registry = registry();
    let fixture = Fixture::new();
    let name = format!("{}/app:1", registry.host());
    let pulled = fixture.pull(&name).await.unwrap();
    assert_eq!(pulled.id, image().id());
    assert_eq!(pulled.references, [name.parse::<Reference>().unwrap()]);
    assert_eq!(pulled.digests.len(), 1);
    let root = fixture.store.open_root(&pulled).unwrap();
    assert_eq!(root.read("etc/passwd", 10).unwrap().as_deref(), Some(&b"root"[..]));
    assert_eq!(fixture.phases(Phase::Done), 2);
    assert_eq!(std::fs::read_dir(fixture.store.dir().join("work")).unwrap().count(), 0);

    let before = registry.log().len();
    assert_eq!(fixture.pull(&name).await.unwrap(), pulled);
    let asked = registry.log().split_off(before);
    assert_eq!(asked, ["HEAD /v2/app/manifests/1"]);
    // A digest cannot mean anything else by now.
    let by_digest = pulled.digests[0].to_string();
    assert_eq!(fixture.pull(&by_digest).await.unwrap(), pulled);
    assert_eq!(registry.log().len(), before + 1);
}

#[test]
fn pulls_can_be_tasks_of_their_own() {
    fn is_a_task<T: Send + 'static>(_: impl FnOnce(Puller, PullRequest) -> T) {}
    is_a_task(|puller, request| async move { puller.pull(&request).await });
}

#[tokio::test]
async fn layers_that_are_here_are_not_downloaded_again() {
    if not_root() {
        return;
    }
    let other = TestImage { cmd: "other", ..image() };
    let mut all = content("app", "1", &image());
    all.extend(content("app", "2", &other));
    let registry = Fake::start(move |asked| honest(&all, asked));
    let fixture = Fixture::new();
    fixture.pull(&format!("{}/app:1", registry.host())).await.unwrap();
    let second = fixture.pull(&format!("{}/app:2", registry.host())).await.unwrap();
    assert_eq!(second.id, other.id());
    assert_eq!(registry.count(&big_blob()), 1);
    assert_eq!(fixture.phases(Phase::Present), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_at_the_same_time_make_a_layer_once() {
    if not_root() {
        return;
    }
    let registry = registry();
    let fixture = Fixture::new();
    let name = format!("{}/app:1", registry.host());
    // Another process would have a store of its own.
    let other = Store::open(fixture.store.dir()).unwrap();
    let other = Puller::new(other, fixture.config.clone());
    let request = fixture.request(&name);
    let (first, second) = tokio::join!(fixture.pull(&name), other.pull(&request));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(registry.count(&big_blob()), 1);
}

#[tokio::test]
async fn a_tag_follows_the_registry() {
    if not_root() {
        return;
    }
    let current = Arc::new(Mutex::new(content("app", "1", &image())));
    let served = Arc::clone(&current);
    let registry = Fake::start(move |asked| honest(&served.lock().unwrap(), asked));
    let fixture = Fixture::new();
    let name = format!("{}/app:1", registry.host());
    let old = fixture.pull(&name).await.unwrap();
    let newer = TestImage { cmd: "newer", ..image() };
    *current.lock().unwrap() = content("app", "1", &newer);
    let new = fixture.pull(&name).await.unwrap();
    assert_eq!(new.id, newer.id());
    assert_eq!(fixture.store.find(&name).unwrap().unwrap().id, newer.id());
    let old = fixture.store.find(&old.digests[0].to_string()).unwrap().unwrap();
    assert_eq!((old.id, old.references.len()), (image().id(), 0));
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_last() {
    if not_root() {
        return;
    }
    let registry = registry();
    let empty = Fake::start(|_| Answer::new(404, ""));
    let broken = Fake::start(|_| Answer::new(500, ""));
    let mut fixture = Fixture::new();
    // Nobody listens on a port that was just given back.
    let nobody = {
        let gone = Fake::start(|_| Answer::new(404, ""));
        gone.host()
    };
    let addresses = [nobody, empty.host(), broken.host()].map(|host| format!("http://{host}"));
    mirrors(&mut fixture, &registry.host(), &addresses);
    let name = format!("{}/app:1", registry.host());
    fixture.pull(&name).await.unwrap();
    assert_eq!(empty.log()[0], format!("GET /v2/app/manifests/1?ns={}", registry.host()));
    assert_eq!(broken.count("manifests/1"), 1, "a mirror is not asked twice");
    assert_eq!(registry.count(&big_blob()), 1);

    // Docker Hub is never asked if a mirror has the image.
    let full = Fake::start({
        let content = content("library/app", "1", &image());
        move |asked| honest(&content, asked)
    });
    let mut fixture = Fixture::new();
    mirrors(&mut fixture, "docker.io", &[format!("http://{}/", full.host())]);
    let pulled = fixture.pull("app:1").await.unwrap();
    assert_eq!(pulled.references[0].to_string(), "docker.io/library/app:1");
    assert!(full.log().iter().all(|line| line.ends_with("?ns=docker.io")), "{:?}", full.log());
}

#[tokio::test]
async fn when_nobody_has_it_everybody_is_named() {
    if not_root() {
        return;
    }
    let registry = Fake::start(|asked| honest(&fake::Content::new(), asked));
    let mirror = Fake::start(|_| Answer::new(500, ""));
    let mut fixture = Fixture::new();
    mirrors(&mut fixture, &registry.host(), &[format!("http://{}/sub", mirror.host())]);
    let text = fixture.failure(&format!("{}/app:1", registry.host())).await;
    let text = text.replace(&registry.host(), "REGISTRY").replace(&mirror.host(), "MIRROR");
    expect_test::expect!["NotFound: cannot pull REGISTRY/app:1 (nor from its mirrors: http://MIRROR/sub: it answered 500 Internal Server Error): asking https://REGISTRY failed: it answered 404 Not Found: manifest unknown"].assert_eq(&text);
}

#[tokio::test]
async fn the_right_platform_is_pulled() {
    if not_root() {
        return;
    }
    let arm = TestImage { platform: ("arm64", ""), cmd: "arm", ..image() };
    let mut all = content("app", "amd", &image());
    all.extend(content("app", "arm", &arm));
    let entry = |tag: &str, architecture: &str| {
        let manifest = &all[&format!("app/manifests/{tag}")];
        serde_json::json!({
            "digest": crate::digest::Digest::of(manifest),
            "size": manifest.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let index = |entries: &[serde_json::Value]| {
        serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes()
    };
    let both = index(&[entry("arm", "arm64"), entry("amd", "amd64")]);
    let only_arm = index(&[entry("arm", "arm64")]);
    let mut unlabelled = entry("arm", "arm64");
    unlabelled.as_object_mut().unwrap().remove("platform");
    all.insert("app/manifests/unlabelled".into(), index(&[unlabelled]));
    all.insert("app/manifests/both".into(), both.clone());
    all.insert("app/manifests/arm-only".into(), only_arm);
    let registry = Fake::start(move |asked| honest(&all, asked));
    let fixture = Fixture::new();
    let text = fixture.failure(&format!("{}/app:arm-only", registry.host())).await;
    expect_test::expect!["NotFound: cannot pull REGISTRY/app:arm-only: there is no image for linux/amd64: only for linux/arm64"].assert_eq(&text.replace(&registry.host(), "REGISTRY"));
    // What the index does not say, the configuration does.
    let text = fixture.failure(&format!("{}/app:unlabelled", registry.host())).await;
    expect_test::expect!["NotFound: cannot pull REGISTRY/app:unlabelled: there is no image for linux/amd64: only for linux/arm64"].assert_eq(&text.replace(&registry.host(), "REGISTRY"));
    let pulled = fixture.pull(&format!("{}/app:both", registry.host())).await.unwrap();
    assert_eq!(pulled.id, image().id());
    // The digest that the name had, not that of the image for this platform.
    assert_eq!(pulled.digests[0].digest().unwrap(), &crate::digest::Digest::of(&both));

    // Where there is nothing to choose from, what there is is taken, as by containerd.
    fixture.events.lock().unwrap().clear();
    let name = format!("{}/app:arm", registry.host());
    assert_eq!(fixture.pull(&name).await.unwrap().id, arm.id());
    let note =
        format!("image {name} is built for linux/arm64 and this is linux/amd64: it may not start");
    assert!(fixture.events.lock().unwrap().contains(&Event::Note(note)));
}
