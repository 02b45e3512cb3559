use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, SystemTime};

use expect_test::{Expect, expect};
use mainstay_linux::mount;
use mainstay_linux::namespace::{Namespaces, receive_mounts_only, unshare};

use super::*;
use crate::archive::{ImportError, ImportOptions};
use crate::platform::Platform;
use crate::progress::{Event, Phase};
use crate::reference::Reference;
use crate::testing::{
    Layer, Mount, TestImage, chain, docker_archive, gzip, not_root, oci_layout, quiet, tar_of,
};

/// A store and files beside it, on a disk of their own: whoever else is busy with the disk of this
/// machine would slow down every sync.
struct Fixture {
    dir: Mount,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = Mount::new("tmpfs", &[]);
        let store = Store::open(dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    fn import(&self, images: &[TestImage]) -> Vec<Image> {
        let file = self.dir.path().join("images.tar");
        fs::write(&file, tar_of(&oci_layout(images, gzip))).unwrap();
        import(&self.store, &file).unwrap()
    }

    fn reopen(&self) -> Store {
        Store::open(self.store.dir()).unwrap()
    }
}

fn import(store: &Store, file: &Path) -> Result<Vec<Image>, ImportError> {
    let options = ImportOptions { platform: Platform::host(), name: None };
    store.import(file, &options, &quiet)
}

fn layer(content: &str) -> Vec<u8> {
    Layer::new().file(&format!("file-{content}"), content.repeat(100)).build()
}

fn image(name: &str, layers: &[&str]) -> TestImage {
    TestImage::new(name, layers.iter().map(|content| layer(content)).collect())
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// How a lookup ends, in a line.
fn lookup(result: Result<Option<Image>, StoreError>) -> String {
    match result {
        Ok(Some(image)) => {
            let names: Vec<String> = image.references.iter().map(ToString::to_string).collect();
            names.join(" ")
        }
        Ok(None) => "none".into(),
        Err(error) => chain(&error),
    }
}

#[test]
fn images_are_found_by_every_name() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let images = fixture.import(&[image("local/x:1", &["a"]), image("local/x:2", &["b"])]);
    let [one, _] = &images[..] else { panic!("{images:?}") };
    let check = |name: &str, expected: &Expect| {
        expected.assert_eq(&lookup(fixture.store.find(name)));
    };
    let first = expect!["docker.io/local/x:1"];
    check("local/x:1", &first);
    check("docker.io/local/x:1", &first);
    check(&one.id.to_string(), &first);
    let by_digest = one.digests[0].to_string();
    check(&by_digest, &first);
    check(&by_digest.replace("local/x@", "local/x:tag@"), &first);
    check(&one.digests[0].digest().unwrap().to_string(), &first);
    check("local/x:3", &expect!["none"]);
    check("local/x", &expect!["none"]);
    // A name in a manifest, and no image of that name is here.
    check(&one.id.hex()[..6], &expect!["none"]);
    assert!(fixture.store.find(one.id.hex()).is_err());
    check(&Digest::of(b"").to_string(), &expect!["none"]);
    check(
        "Not A Name",
        &expect![[
            r#""Not A Name" is not the name of an image: repository "library/Not A Name" in image reference "Not A Name" must be lower-case"#
        ]],
    );
    check("", &expect![[r#""" is not the name of an image: image reference is empty"#]]);
}

#[test]
fn a_start_of_several_ids_is_ambiguous() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    // Sixteen million tries would be needed for six digits, so two records are made by hand.
    let record = |id: Digest| {
        let (manifests, layers, names) = Default::default();
        let record =
            record::ImageRecord { version: VERSION, id: id.clone(), manifests, layers, names };
        fs::write(fixture.store.image_path(&id), to_json(&record)).unwrap();
    };
    for end in ["0", "1"] {
        record(format!("sha256:{}{end}", "a".repeat(63)).parse().unwrap());
    }
    expect![[r#""aaaaaaaa" is the start of 2 image ids: write more of the one that is meant"#]]
        .assert_eq(&chain(&fixture.store.remove("aaaaaaaa").unwrap_err()));
    for end in ["0", "1"] {
        let id = format!("{}{end}", "a".repeat(63));
        assert_eq!(fixture.store.remove(&id).unwrap().image.unwrap().hex(), id);
    }
    assert!(matches!(fixture.store.remove("aaaaaaaa"), Err(StoreError::NotFound(_))));
}

#[test]
fn a_name_moves_to_the_newer_image() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let old = fixture.import(&[image("local/x:1", &["a"])]).remove(0);
    let new = fixture.import(&[image("local/x:1", &["b"])]).remove(0);
    let store = &fixture.store;
    assert_eq!(store.find("local/x:1").unwrap().unwrap().id, new.id);
    // The old one is still there, under its digest only.
    let old = store.find(&old.digests[0].to_string()).unwrap().unwrap();
    assert!(old.references.is_empty());
    assert_eq!(store.list().unwrap().0.len(), 2);
}

#[test]
fn removing_names_and_images() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let store = &fixture.store;
    let one = image("local/x:1", &["a", "b"]);
    let two = TestImage { name: Some("local/x:2".into()), ..one.clone() };
    let other = image("local/y:1", &["a"]);
    let imported = fixture.import(&[one, two, other]);
    let id = imported[0].id.clone();
    let remove = |name: &str| match store.remove(name) {
        Ok(Removed { references, image }) => {
            let names: Vec<String> = references.iter().map(Reference::familiar).collect();
            let gone = if image.is_some() { "image gone" } else { "image stays" };
            format!("{}; {gone}", names.join(" ").replace(id.hex(), "ID"))
        }
        Err(error) => chain(&error).replace(id.hex(), "ID"),
    };
    expect!["image local/z is not here: import or pull it"].assert_eq(&remove("local/z"));
    expect!["local/x:1; image stays"].assert_eq(&remove("local/x:1"));
    store.lease("container-1", &[&id]).unwrap();
    store.lease("container-2", &[&id]).unwrap();
    expect!["image sha256:ID is in use by container-1, container-2: stop it first"]
        .assert_eq(&remove("local/x:2"));
    expect!["image sha256:ID is in use by container-1, container-2: stop it first"]
        .assert_eq(&remove(&id.to_string()));
    store.release("container-1").unwrap();
    store.release("container-2").unwrap();
    store.release("container-2").unwrap();
    assert!(remove("local/x:2").ends_with("; image gone"));
    assert_eq!(lookup(store.find("local/x:2")), "none");
    assert_eq!(lookup(store.find(&id.to_string())), "none");

    let usage = store.usage().unwrap();
    assert_eq!((usage.layers, usage.unused), (200, 100));
    let collected = store.collect(SystemTime::now(), Duration::MAX).unwrap();
    assert_eq!(collected, Collected { layers: 1, bytes: 100 });
    assert_eq!(store.usage().unwrap().unused, 0);
    assert_eq!(lookup(store.find("local/y:1")), "docker.io/local/y:1");
    // The configuration and manifest of the other image only.
    assert_eq!(count(&store.dir().join("blobs/sha256")), 2);
    assert_eq!(count(&store.dir().join("work")), 0);
}

#[test]
fn leases_keep_layers_over_everything() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let store = &fixture.store;
    let id = fixture.import(&[image("local/x:1", &["a"])]).remove(0).id;
    store.lease("c1", &[&id]).unwrap();
    assert_eq!(store.leases().unwrap(), [Lease { owner: "c1".into(), images: vec![id.clone()] }]);
    // Whoever tears the image out regardless, such as somebody with rm.
    fs::remove_dir_all(store.watch_dir()).unwrap();
    let store = fixture.reopen();
    let now = SystemTime::now();
    assert_eq!(store.collect(now, Duration::MAX).unwrap().layers, 0);
    store.release("c1").unwrap();
    assert_eq!(store.collect(now, Duration::MAX).unwrap().layers, 1);

    let refused = |result: Result<(), StoreError>| chain(&result.unwrap_err());
    assert_eq!(
        refused(store.lease("c1", &[&id])),
        format!("image {id} is not here: import or pull it")
    );
    expect![[
        r#""../c1" cannot hold a lease: its name is to be 1 to 200 letters, digits, . _ or -"#
    ]]
    .assert_eq(&refused(store.lease("../c1", &[&id])));
    // One that an earlier version wrote.
    let old = format!(r#"{{"version":1,"image":"{id}","layers":["{id}"]}}"#);
    fs::write(store.dir().join("leases/c2.json"), old).unwrap();
    assert_eq!(store.leases().unwrap(), [Lease { owner: "c2".into(), images: vec![id.clone()] }]);
    // What a power cut leaves of a lease that was not synced.
    fs::write(store.dir().join("leases/c2.json"), "").unwrap();
    assert_eq!(store.leases().unwrap(), [Lease { owner: "c2".into(), images: vec![] }]);
    assert_eq!(store.collect(now, Duration::MAX).unwrap().layers, 0);
    store.release("c2").unwrap();
    assert!(store.leases().unwrap().is_empty());
}

#[test]
fn names_that_lead_nowhere_are_cleared_away() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let store = &fixture.store;
    let found = fixture.import(&[image("local/x:1", &["a"]), image("local/y:1", &["b"])]);
    // A power cut in the middle of a removal.
    fs::remove_file(store.image_path(&found[0].id)).unwrap();
    assert_eq!(lookup(store.find("local/x:1")), "none");
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(count(store.watch_dir()), 5);
    store.collect(SystemTime::now(), Duration::MAX).unwrap();
    assert_eq!(count(store.watch_dir()), 3);
    assert_eq!(lookup(store.find("local/y:1")), "docker.io/local/y:1");
}

#[test]
fn the_lower_directories_of_the_longest_image_fit_into_mount_data() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let layers: Vec<String> = (0..127).map(|i| i.to_string()).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let found = fixture.import(&[image("local/x:1", &layers)]).remove(0);
    let dirs = found.lower_dirs();
    assert_eq!(dirs.len(), 127);
    assert!(dirs.join(":").len() < 2600);
    assert!(dirs.iter().all(|dir| fixture.store.layers_dir().join(dir).is_dir()));
}

#[test]
fn nothing_is_written_when_nothing_is_new() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let images = [image("local/x:1", &["a"])];
    fixture.import(&images);
    let records = || {
        use std::os::unix::fs::MetadataExt;
        let entries = fs::read_dir(fixture.store.watch_dir()).unwrap();
        let inode = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().ino();
        entries.map(inode).collect::<std::collections::BTreeSet<u64>>()
    };
    let before = records();
    fixture.import(&images);
    assert_eq!(records(), before);
}

#[test]
fn running_jobs_keep_what_has_no_image_yet() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let store = &fixture.store;
    let found = fixture.import(&[image("local/x:1", &["a"])]).remove(0);
    let diff_id = Digest::of(&layer("a"));
    let job = store.start_job(vec![diff_id.clone()], vec![found.id.clone()]).unwrap();
    store.remove("local/x:1").unwrap();
    // Another process comes and tidies up.
    let other = fixture.reopen();
    let now = SystemTime::now();
    assert_eq!(other.collect(now, Duration::MAX).unwrap().layers, 0);
    assert!(store.blob_path(&found.id).exists());
    drop(job);
    assert_eq!(other.collect(now, Duration::MAX).unwrap().layers, 1);
    assert!(!store.blob_path(&found.id).exists());
    assert_eq!(count(&store.dir().join("jobs")), 0);
}

#[test]
fn only_abandoned_work_is_cleared_away() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (mine, left) = (Digest::of(b"mine"), Digest::of(b"left"));
    let job = store.layer_job(&mine).unwrap();
    assert!(fixture.reopen().try_layer_job(&mine).unwrap().is_none());
    for diff_id in [&mine, &left] {
        let dir = store.work().join(layer::LayerName::of(diff_id).to_string());
        fs::create_dir_all(dir.join("tree/fs")).unwrap();
        fs::write(dir.join("sha256-0.part"), "half").unwrap();
    }
    let scratch = store.scratch().unwrap();
    fs::write(store.work().join("file-left"), "half").unwrap();
    fs::create_dir(store.work().join("trash-left")).unwrap();
    fs::write(store.dir().join("jobs/job-left"), "{}").unwrap();
    let there = |diff_id: &Digest, name: &str| {
        store.work().join(layer::LayerName::of(diff_id).to_string()).join(name).exists()
    };

    let other = fixture.reopen();
    assert!(there(&mine, "tree") && there(&mine, "sha256-0.part") && scratch.path().exists());
    assert!(!there(&left, "tree"), "half a layer is of no use");
    assert!(there(&left, "sha256-0.part"), "a download can be gone on with");
    assert!(!store.work().join("file-left").exists() && !store.work().join("trash-left").exists());
    assert_eq!(count(&store.dir().join("jobs")), 0);

    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    assert_eq!(other.collect(now, day).unwrap().bytes, 0);
    assert!(there(&left, "sha256-0.part"));
    assert_eq!(other.collect(now + 2 * day, day).unwrap().bytes, 4);
    assert!(!there(&left, "") && there(&mine, "sha256-0.part"));

    drop(job);
    assert_eq!(other.collect(now + 2 * day, day).unwrap().bytes, 4);
    assert!(!there(&mine, "sha256-0.part"));
}

#[test]
fn rubbish_that_cannot_be_removed_stops_nothing() {
    if not_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    let (stuck, other) = (work.join("trash-1/tree/a/b"), work.join("trash-2/tree/a/b"));
    let check = || {
        // What is mounted in the namespace of this thread goes with it.
        unshare(Namespaces::NEWNS).unwrap();
        receive_mounts_only().unwrap();
        for path in [&stuck, &other] {
            fs::create_dir_all(path).unwrap();
        }
        mount::tmpfs(&stuck, None, 0o700).unwrap();
        fs::write(stuck.join("kept"), "").unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(stuck.join("kept").exists() && !work.join("trash-2").exists());
        let error = chain(&store.collect(SystemTime::now(), Duration::MAX).unwrap_err());
        expect!["image store cannot be used: removing WORK/trash-1 failed: Device or resource busy (os error 16)"]
            .assert_eq(&error.replace(work.to_str().unwrap(), "WORK"));
        mount::detach(&stuck).unwrap();
        store.collect(SystemTime::now(), Duration::MAX).unwrap();
        assert_eq!(count(&work), 0);
    };
    std::thread::scope(|scope| scope.spawn(check).join().unwrap());
}

#[test]
fn whoever_waits_for_a_layer_finds_it_made() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let store = &fixture.store;
    let content = layer("a");
    let diff_id = Digest::of(&content);
    let job = store.layer_job(&diff_id).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let _job = store.layer_job(&diff_id).unwrap();
            store.layer_size(&diff_id).unwrap()
        });
        let expected = crate::unpack::Expected { blob: None, diff_id: &diff_id };
        let unpacked = job.unpack(&content[..], expected, &|_| true).unwrap().unwrap();
        job.publish(&unpacked).unwrap();
        assert_eq!(waiting.join().unwrap(), Some(100));
    });
}

#[test]
fn damage_is_found_named_and_mended() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let store = &fixture.store;
    let images = [
        image("local/config:1", &["a", "b"]),
        image("local/layer:1", &["a", "c"]),
        image("local/marker:1", &["d"]),
        image("local/manifest:1", &["e"]),
        image("local/record:1", &["f"]),
        image("local/good:1", &["a"]),
    ];
    let imported = fixture.import(&images);
    assert!(store.verify().unwrap().is_empty());
    fs::write(store.blob_path(&imported[0].id), "{}").unwrap();
    fs::remove_dir_all(store.layer_path(&Digest::of(&layer("c")))).unwrap();
    fs::write(store.layer_path(&Digest::of(&layer("d"))).join("layer.json"), "half").unwrap();
    // A container has the one without a record mounted.
    store.lease("c1", &[&imported[2].id]).unwrap();
    let flags = rustix::fs::OFlags::PATH;
    let mounted = store.layer_path(&Digest::of(&layer("d"))).join("fs");
    let mounted = rustix::fs::open(mounted, flags, rustix::fs::Mode::empty()).unwrap();
    let used = mainstay_linux::path::of_descriptor(&mounted).join("file-d");
    let manifest = imported[3].digests[0].digest().unwrap();
    fs::remove_file(store.blob_path(manifest)).unwrap();
    fs::write(store.image_path(&imported[4].id), "").unwrap();

    let readable = |text: String| {
        let mut text = text.replace(store.dir().to_str().unwrap(), "STORE");
        for (i, image) in imported.iter().enumerate() {
            text = text.replace(image.id.hex(), &format!("ID{i}"));
            for digest in &image.digests {
                text = text.replace(digest.digest().unwrap().hex(), &format!("MANIFEST{i}"));
            }
        }
        for content in ["a", "b", "c", "d", "e", "f"] {
            text = text.replace(Digest::of(&layer(content)).hex(), &format!("LAYER-{content}"));
        }
        text
    };
    let lookups: BTreeMap<&str, String> = images
        .iter()
        .map(|image| image.name.as_deref().unwrap())
        .map(|name| (name, readable(lookup(store.find(name)))))
        .collect();
    expect![[r#"
        {
            "local/config:1": "image sha256:ID0 is damaged: its configuration cannot be read; import or pull it again: not an image configuration: missing field `rootfs` at line 1 column 2",
            "local/good:1": "docker.io/local/good:1",
            "local/layer:1": "image sha256:ID1 is damaged: its layer sha256:LAYER-c is missing; import or pull it again",
            "local/manifest:1": "docker.io/local/manifest:1",
            "local/marker:1": "docker.io/local/marker:1",
            "local/record:1": "STORE/records/image-sha256-ID4.json is damaged: remove it, and import or pull the image again: EOF while parsing a value at line 1 column 0",
        }
    "#]].assert_debug_eq(&lookups);

    let problems = store.verify().unwrap();
    let mut texts: Vec<String> = problems.iter().map(|problem| readable(chain(problem))).collect();
    texts.sort();
    expect![[r#"
        an image in STORE/records/image-sha256-ID4.json is damaged: its record cannot be read: STORE/records/image-sha256-ID4.json is damaged: remove it, and import or pull the image again: EOF while parsing a value at line 1 column 0
        image local/config:1, local/config@sha256:MANIFEST0 (sha256:ID0) is damaged: its document sha256:ID0 is missing or has another content than its digest says
        image local/layer:1, local/layer@sha256:MANIFEST1 (sha256:ID1) is damaged: its layer sha256:LAYER-c is missing or has not been unpacked by this store
        image local/manifest:1, local/manifest@sha256:MANIFEST3 (sha256:ID3) is damaged: its document sha256:MANIFEST3 is missing or has another content than its digest says
        image local/marker:1, local/marker@sha256:MANIFEST2 (sha256:ID2) is damaged: its layer sha256:LAYER-d is missing or has not been unpacked by this store"#]].assert_eq(&texts.join("\n"));

    store.discard_damaged(&problems).unwrap();
    assert!(store.verify().unwrap().is_empty());
    let left = store.list().unwrap();
    assert!(left.1.is_empty());
    assert_eq!(left.0.len(), 1, "the good one is still there");
    assert!(fixture.reopen().verify().unwrap().is_empty());

    // Importing again brings back what was damaged, and only that.
    let file = fixture.dir.path().join("images.tar");
    let options = ImportOptions { platform: Platform::host(), name: None };
    let made = std::sync::Mutex::new(0);
    let progress = |event| {
        *made.lock().unwrap() +=
            usize::from(matches!(event, Event::Layer { phase: Phase::Done, .. }));
    };
    let again = store.import(&file, &options, &progress).unwrap();
    assert_eq!(again, imported);
    assert_eq!(made.into_inner().unwrap(), 2);

    // What the container uses is still there, and goes with it.
    let now = SystemTime::now();
    store.collect(now, Duration::MAX).unwrap();
    assert!(used.exists());
    store.release("c1").unwrap();
    store.collect(now, Duration::MAX).unwrap();
    assert!(!used.exists() && store.verify().unwrap().is_empty());
}

#[test]
fn layers_whose_digests_begin_alike_are_told_apart() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let found = fixture.import(&[image("local/x:1", &["a"])]).remove(0);
    let there = Digest::of(&layer("a"));
    let (start, end) = there.hex().split_at(16);
    let other: Digest = format!("sha256:{start}{}", "0".repeat(end.len())).parse().unwrap();
    let error = fixture.store.layer_size(&other).unwrap_err();
    assert!(matches!(error, StoreError::LayerCollision { .. }), "{error}");
    assert_eq!(lookup(fixture.store.find(&found.id.to_string())), "docker.io/local/x:1");
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(dir.path()).unwrap();
    Store::open(dir.path()).unwrap();
    fs::write(dir.path().join("version.json"), r#"{"version":2}"#).unwrap();
    let error = chain(&Store::open(dir.path()).unwrap_err());
    expect!["image store STORE has the format 2, and this version knows 1: use a newer one, or another directory"].assert_eq(&error.replace(dir.path().to_str().unwrap(), "STORE"));
    fs::write(dir.path().join("version.json"), "half").unwrap();
    let error = chain(&Store::open(dir.path()).unwrap_err());
    expect!["STORE/version.json is damaged: remove it, and import or pull the image again: expected value at line 1 column 1"].assert_eq(&error.replace(dir.path().to_str().unwrap(), "STORE"));
}

/// Importing, removing and collecting at the same time, each as a process of its own would.
#[test]
fn many_at_once() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let file = |name: &str, images: &[TestImage]| {
        let file = fixture.dir.path().join(name);
        fs::write(&file, tar_of(&docker_archive(images, gzip))).unwrap();
        file
    };
    let first = file("1.tar", &[image("local/x:1", &["a", "b"]), image("local/y:1", &["a", "c"])]);
    let second = file("2.tar", &[image("local/z:1", &["a", "b", "c"])]);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let importers: Vec<_> = [&first, &second, &first, &second]
            .into_iter()
            .map(|file| {
                scope.spawn(|| {
                    let store = fixture.reopen();
                    for _ in 0..8 {
                        import(&store, file).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let store = fixture.reopen();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                match store.remove("local/x:1") {
                    Ok(_) | Err(StoreError::NotFound(_)) => {}
                    Err(error) => panic!("{}", chain(&error)),
                }
                store.collect(SystemTime::now(), Duration::ZERO).unwrap();
                let (_, damaged) = store.list().unwrap();
                assert!(damaged.is_empty(), "{damaged:?}");
            }
        });
        let results: Vec<_> = importers.into_iter().map(ScopedJoinHandle::join).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    let store = fixture.reopen();
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(lookup(store.find("local/z:1")), "docker.io/local/z:1");
    assert_eq!(count(&store.dir().join("work")), 0);
    assert_eq!(count(&store.dir().join("jobs")), 0);
}

const CHILD: &str = "MAINSTAY_TEST_IMPORT";

/// Not a test of its own: what the next test starts and kills. It says when something happens, and
/// then waits for a byte, or for nobody being there any more to send one.
#[test]
fn child_that_imports() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = Path::new(&dir);
        let options = ImportOptions { platform: Platform::host(), name: None };
        let progress = |_| {
            let mut output = io::stdout().lock();
            output.write_all(b"event\n").unwrap();
            output.flush().unwrap();
            let _ = io::stdin().lock().read(&mut [0]).unwrap();
        };
        let store = Store::open(dir.join("store")).unwrap();
        store.import(&dir.join("images.tar"), &options, &progress).unwrap();
    }
}

/// Lets a child that imports go on through `events` events and waits for one more, or for its end;
/// whether there was one more.
fn reaches(child: &mut Child, events: usize) -> bool {
    child.stdin.as_mut().unwrap().write_all(&vec![0; events]).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.filter(|line| line == "event").take(events + 1).count() == events + 1
}

#[test]
fn a_killed_import_leaves_nothing_half_visible() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let many: Vec<TestImage> = (0..4)
        .map(|i| {
            let files = (0..40).fold(Layer::new(), |layer, n| layer.file(&format!("{i}-{n}"), "x"));
            TestImage::new(&format!("local/x:{i}"), vec![files.build(), layer("shared")])
        })
        .collect();
    let file = fixture.dir.path().join("images.tar");
    fs::write(&file, gzip(&tar_of(&docker_archive(&many, gzip)))).unwrap();
    #[expect(clippy::disallowed_methods, reason = "only a process can be killed")]
    let spawn = || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "store::tests::child_that_imports"]).env(CHILD, fixture.dir.path());
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let whole = import(&fixture.reopen(), &file).unwrap();
    let expected = fixture.reopen().list().unwrap().0;
    assert_eq!((whole.len(), expected.len()), (4, 4));
    let clear = || fs::remove_dir_all(fixture.store.dir()).unwrap();
    // What is visible is whole; returns how many images are. Importing again brings the rest.
    let check = || {
        let store = fixture.reopen();
        let (images, damaged) = store.list().unwrap();
        assert!(damaged.is_empty() && store.verify().unwrap().is_empty(), "{damaged:?}");
        // Killed between two names, an image may lack one; nothing else.
        for image in &images {
            let whole = expected.iter().find(|whole| whole.id == image.id).unwrap();
            assert!(image.references.iter().all(|name| whole.references.contains(name)));
            assert_eq!((image.size, image.lower_dirs()), (whole.size, whole.lower_dirs()));
        }
        assert_eq!(count(&store.dir().join("jobs")), 0);
        for name in names(&store.work()).unwrap() {
            assert_eq!(count(&store.work().join(&name)), 0, "{name} is a leftover");
        }
        import(&store, &file).unwrap();
        assert_eq!(store.list().unwrap().0, expected);
        images.len()
    };

    // Whenever something has happened to a layer.
    let mut events = 0;
    loop {
        clear();
        let mut child = spawn();
        let more = reaches(&mut child, events);
        if !more {
            assert!(child.wait().unwrap().success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(check(), 0);
        events += 1;
    }
    assert!(events > 12, "only {events} events");

    // While the images get their records and names, one after the other.
    let records = || fs::read_dir(fixture.store.watch_dir()).map_or(0, Iterator::count);
    for shown in 0..=8 {
        clear();
        let mut child = spawn();
        assert!(reaches(&mut child, events - 1));
        drop(child.stdin.take());
        while records() < shown && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        check();
    }
}

#[test]
fn an_image_that_leaves_out_too_much_is_refused() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let store = &fixture.store;
    let found = fixture.import(&[image("local/x:1", &["a", "b"])]).remove(0);
    let diff_ids = ["a", "b"].map(|content| Digest::of(&layer(content)));
    let new = NewImage {
        id: found.id.clone(),
        manifest: None,
        diff_ids: diff_ids.to_vec(),
        references: found.references.clone(),
    };
    let publish = |lists: [&str; 2], go_on: bool| {
        for (diff_id, list) in diff_ids.iter().zip(lists) {
            fs::write(store.layer_path(diff_id).join("implicit"), list).unwrap();
        }
        match store.publish(std::slice::from_ref(&new), &|| go_on) {
            Ok(images) => format!("{} image", images.len()),
            Err(error) => chain(&error),
        }
    };
    let many = |from: usize| (from..from + 25_000).map(|n| format!("{n}\0")).collect::<String>();
    expect!["1 image"].assert_eq(&publish([&many(0), &many(25_000)], true));
    let too_many = expect![
        "layers leave out the entries of more than 50000 directories, or of 4194304 bytes of names of them"
    ];
    too_many.assert_eq(&publish([&many(0), &(many(25_000) + "x\0")], true));
    let long = "a/".repeat(2000) + "\0";
    let long = |count: usize| long.repeat(count);
    expect!["1 image"].assert_eq(&publish([&long(500), &long(500)], true));
    too_many.assert_eq(&publish([&long(500), &long(600)], true));
    // A pull that nobody waits for any more.
    expect!["it was given up"].assert_eq(&publish(["a\0", ""], false));
}

#[test]
fn a_full_disk_leaves_nothing_half_visible() {
    if not_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("images.tar");
    let big = Layer::new().file("big", vec![7; 300_000]).file("more", vec![8; 100_000]).build();
    let images = [TestImage::new("local/x:1", vec![layer("a"), big])];
    fs::write(&file, tar_of(&oci_layout(&images, gzip))).unwrap();
    let no_reserve = Limits { keep_free: 0, ..Limits::default() };
    let mut failures = Vec::new();
    // Disks that are full after one page, after two, and so on, until everything fits.
    for kilobytes in (64..).step_by(4) {
        let disk = Mount::new("tmpfs", &[("size", &format!("{kilobytes}k"))]);
        let Ok(store) = Store::open_with(disk.path().join("store"), no_reserve) else { continue };
        let Err(error) = import(&store, &file) else { break };
        assert!(error.is_disk_full(), "{}", chain(&error));
        failures.push(chain(&error));
        let store = Store::open_with(disk.path().join("store"), no_reserve).unwrap();
        assert!(store.list().unwrap().0.is_empty() && store.verify().unwrap().is_empty());
        assert_eq!(count(&store.dir().join("jobs")), 0);
        for name in names(&store.work()).unwrap() {
            assert_eq!(count(&store.work().join(&name)), 0, "{name} is a leftover");
        }
    }
    assert!(failures.len() > 50, "{failures:#?}");
    let last = failures.pop().unwrap_or_default().replace(dir.path().to_str().unwrap(), "DIR");
    assert!(last.contains("No space left on device"), "{last}");
}

#[test]
fn some_of_the_disk_stays_free() {
    if not_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("images.tar");
    let big = Layer::new().file("big", vec![7; 62 << 20]).build();
    let images = [TestImage::new("local/x:1", vec![big])];
    fs::write(&file, tar_of(&docker_archive(&images, gzip))).unwrap();
    let disk = Mount::new("tmpfs", &[("size", "64m")]);
    let store = Store::open(disk.path().join("store")).unwrap();
    let error = import(&store, &file).unwrap_err();
    assert!(error.is_disk_full());
    let text = chain(&*error.problem);
    assert!(text.contains("disk is full: ") && text.contains("3355443 are to stay free"), "{text}");
}

/// What a container would see of directories, through overlayfs itself.
fn mounted(store: &Store, image: &Image, paths: &[&str]) -> String {
    use std::os::unix::fs::MetadataExt;
    let lower = image.lower_dirs().into_iter().map(|dir| store.layers_dir().join(dir));
    let lower: Vec<String> = lower.map(|dir| dir.display().to_string()).collect();
    let mount = Mount::new("overlay", &[("lowerdir", &lower.join(":")), ("source", "test")]);
    let line = |path: &&str| {
        let path = mount.path().join(path);
        let stat = fs::metadata(&path).unwrap();
        let mut value = [0; 16];
        let xattr = rustix::fs::getxattr(&path, "user.note", &mut value).unwrap_or(0);
        let time = match stat.mtime() - 1_000_000_000 {
            seconds @ 0..=99 => seconds.to_string(),
            _ => "now".into(),
        };
        format!(
            "{:o} {}:{} @{time} {:?} {}\n",
            stat.mode() & 0o7777,
            stat.uid(),
            stat.gid(),
            String::from_utf8_lossy(&value[..xattr]),
            fs::read_dir(&path).unwrap().count(),
        )
    };
    let text: String = paths.iter().map(line).collect();
    format!("{} layers\n{text}", lower.len())
}

#[test]
fn directories_keep_what_a_lower_layer_says_about_them() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let base = Layer::new()
        .dir("./", 0o555)
        .dir("tmp/", 0o1777)
        .dir("home/", 0o755)
        .owned(1000, 1000)
        .xattr("user.note", b"mine")
        .dir("home/app/", 0o700)
        .dir("gone/", 0o700)
        .dir("opaque/", 0o700)
        .dir("same/", 0o755);
    let middle = Layer::new().file(".wh.gone", "").file("home/app/bin/tool", "x");
    let top = Layer::new()
        .file("tmp/file", "x")
        .file("home/app/file", "x")
        .file("gone/file", "x")
        .file("same/file", "x")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/file", "x");
    let layers = vec![base.build(), middle.build(), top.build()];
    let image = fixture.import(&[TestImage::new("local/x:1", layers.clone())]).remove(0);
    let paths = [".", "tmp", "home", "home/app", "home/app/bin", "gone", "opaque", "same"];
    expect![[r#"
        4 layers
        555 0:0 @0 "" 5
        1777 0:0 @1 "" 1
        755 0:0 @now "" 1
        700 1000:1000 @3 "mine" 2
        755 0:0 @now "" 1
        755 0:0 @now "" 1
        755 0:0 @now "" 1
        755 0:0 @now "" 1
    "#]]
    .assert_eq(&mounted(&fixture.store, &image, &paths));
    assert!(fixture.store.verify().unwrap().is_empty());

    // The same layers in another order are another image, and need nothing.
    let other = vec![layers[2].clone(), layers[0].clone()];
    let other = fixture.import(&[TestImage::new("local/y:1", other)]).remove(0);
    expect![[r#"
        2 layers
        1777 0:0 @1 "" 1
        700 1000:1000 @3 "mine" 1
    "#]]
    .assert_eq(&mounted(&fixture.store, &other, &["tmp", "home/app"]));

    // It is kept and goes like any other layer.
    let now = SystemTime::now();
    assert_eq!(fixture.store.collect(now, Duration::MAX).unwrap().layers, 0);
    fixture.store.remove("local/x:1").unwrap();
    assert_eq!(fixture.store.collect(now, Duration::MAX).unwrap().layers, 2);
}
