use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::testing::{
    Compress, Layer, TestImage, chain, dir_of, docker_archive, gzip, layout, not_root, oci_layout,
    plain, quiet, tar_of, zstd,
};

fn options() -> ImportOptions {
    let (os, architecture, variant) = ("linux".into(), "amd64".into(), "v2".into());
    ImportOptions { platform: Platform { os, architecture, variant }, name: None }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

/// Two images that share a layer.
fn images() -> [TestImage; 2] {
    let base = Layer::new().dir("etc/", 0o755).file("etc/passwd", "root:x:0:0::/:/bin/sh").build();
    let one = Layer::new().file("one", "1").build();
    let two = Layer::new().dir("etc/", 0o755).file("etc/.wh.passwd", "").build();
    [
        TestImage::new("local/one:1", vec![base.clone(), one]),
        TestImage {
            cmd: "false",
            ..TestImage::new("registry.example:5000/two:latest", vec![base, two])
        },
    ]
}

/// What the store has, a line for each image.
fn list(store: &Store) -> String {
    let (images, damaged) = store.list().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    let mut lines: Vec<String> = images
        .iter()
        .map(|image| {
            let references = image.references.iter().chain(&image.digests);
            let references: Vec<String> = references.map(ToString::to_string).collect();
            format!(
                "{} {:?} {} layers, {} bytes: {}\n",
                &image.id.hex()[..8],
                image.config.cmd,
                image.lower_dirs().len(),
                image.size,
                references.join(" ")
            )
        })
        .collect();
    lines.sort();
    lines.concat()
}

/// Imports `file` and shows the store, or the error without the name of the file. `None` if this
/// test is not run as root.
fn import(file: &Path, options: &ImportOptions) -> Option<String> {
    if not_root() {
        return None;
    }
    let (_dir, store) = store();
    let text = match store.import(file, options, &quiet) {
        Ok(_) => list(&store),
        Err(error) => {
            assert_eq!(list(&store), "", "nothing is shown of what failed");
            assert_eq!(fs::read_dir(store.dir().join("jobs")).unwrap().count(), 0);
            format!("{}\n", chain(&*error.problem))
        }
    };
    assert!(store.verify().unwrap().is_empty());
    Some(text)
}

fn import_bytes(bytes: &[u8], options: &ImportOptions) -> Option<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    import(file.path(), options)
}

fn check_same(texts: &BTreeSet<String>, expected: &Expect) {
    assert!(texts.len() <= 1, "{texts:?}");
    texts.iter().for_each(|text| expected.assert_eq(text));
}

fn check_import(file: &Path, options: &ImportOptions, expected: &Expect) {
    check_same(&import(file, options).into_iter().collect(), expected);
}

fn check_bytes(bytes: &[u8], options: &ImportOptions, expected: &Expect) {
    check_same(&import_bytes(bytes, options).into_iter().collect(), expected);
}

fn check_members(members: &[(String, Vec<u8>)], expected: &Expect) {
    check_bytes(&tar_of(members), &options(), expected);
}

const COMPRESSIONS: [Compress; 3] = [plain, gzip, zstd];

#[test]
fn docker_archives_in_every_compression() {
    let mut texts = BTreeSet::new();
    for layers in COMPRESSIONS {
        for whole in COMPRESSIONS {
            let archive = tar_of(&docker_archive(&images(), layers));
            texts.extend(import_bytes(&whole(&archive), &options()));
        }
    }
    check_same(
        &texts,
        &expect![[r#"
        4a946fca ["false"] 2 layers, 21 bytes: registry.example:5000/two:latest
        6772c3c5 ["true"] 2 layers, 22 bytes: docker.io/local/one:1
    "#]],
    );
}

#[test]
fn oci_archives_and_layout_directories_in_every_compression() {
    let mut texts = BTreeSet::new();
    for layers in COMPRESSIONS {
        let members = oci_layout(&images(), layers);
        let mut of_these = BTreeSet::new();
        for whole in COMPRESSIONS {
            of_these.extend(import_bytes(&whole(&tar_of(&members)), &options()));
        }
        of_these.extend(import(dir_of(&members).path(), &options()));
        assert!(of_these.len() <= 1, "{of_these:?}");
        // The manifest names the layers as they travel, so the digests differ.
        let without_digests = |text: String| {
            text.split_inclusive([' ', '\n']).filter(|word| !word.contains('@')).collect::<String>()
        };
        texts.extend(of_these.into_iter().map(without_digests));
    }
    check_same(
        &texts,
        &expect![[
            r#"4a946fca ["false"] 2 layers, 21 bytes: registry.example:5000/two:latest 6772c3c5 ["true"] 2 layers, 22 bytes: docker.io/local/one:1 "#
        ]],
    );
}

#[test]
fn imported_images_have_their_layers_on_disk_once() {
    if not_root() {
        return;
    }
    let (dir, store) = store();
    let file = dir.path().join("images.tar");
    fs::write(&file, tar_of(&docker_archive(&images(), gzip))).unwrap();
    let imported = store.import(&file, &options(), &quiet).unwrap();
    let [one, two] = &imported[..] else { panic!("{imported:?}") };
    let shared = one.lower_dirs().pop();
    assert_eq!(shared, two.lower_dirs().pop());
    assert_eq!(fs::read_dir(store.layers_dir()).unwrap().count(), 3);
    let root = store.layers_dir().join(one.lower_dirs().pop().unwrap());
    assert_eq!(fs::read(root.join("etc/passwd")).unwrap(), b"root:x:0:0::/:/bin/sh");
    let read = |image, path| store.open_root(image).unwrap().read(path, 100).unwrap();
    assert_eq!(read(one, "/etc/passwd").as_deref(), Some(&b"root:x:0:0::/:/bin/sh"[..]));
    assert_eq!(read(two, "/etc/passwd"), None);
    // Nobody else may look: images hold set-id programs and device nodes.
    assert_eq!(fs::metadata(store.dir()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(store.layers_dir()).unwrap().mode() & 0o777, 0o700);

    // Again: nothing is unpacked twice, and nothing changes.
    let events = std::sync::Mutex::new(Vec::new());
    let again = store.import(&file, &options(), &|event| events.lock().unwrap().push(event));
    assert_eq!(again.unwrap(), imported);
    let events = events.into_inner().unwrap();
    let phases = events.iter().filter(|event| matches!(event, Event::Layer { .. }));
    assert!(
        phases.clone().all(|event| matches!(event, Event::Layer { phase: Phase::Present, .. }))
    );
    assert_eq!(phases.count(), 4);
}

#[test]
fn progress_names_the_image_and_its_layers() {
    if not_root() {
        return;
    }
    let (dir, store) = store();
    let file = dir.path().join("images.tar");
    fs::write(&file, tar_of(&docker_archive(&images()[..1], plain))).unwrap();
    let events = std::sync::Mutex::new(String::new());
    let note = |event| {
        let mut events = events.lock().unwrap();
        match event {
            Event::Image { name, layers } => {
                let sizes: Vec<u64> = layers.iter().map(|layer| layer.size).collect();
                *events += &format!("{name} {sizes:?}\n");
            }
            Event::Layer { index, phase: Phase::Unpacking(_) } => {
                let line = format!("{index} Unpacking\n");
                if !events.ends_with(&line) {
                    *events += &line;
                }
            }
            Event::Layer { index, phase } => *events += &format!("{index} {phase:?}\n"),
            other => *events += &format!("{other:?}\n"),
        }
    };
    store.import(&file, &options(), &note).unwrap();
    expect![[r#"
        docker.io/local/one:1 [2560, 2048]
        0 Unpacking
        0 Done
        1 Unpacking
        1 Done
    "#]]
    .assert_eq(&events.into_inner().unwrap());
}

fn descriptor(bytes: &[u8], more: &Value) -> Value {
    let mut descriptor = json!({ "digest": Digest::of(bytes), "size": bytes.len() });
    descriptor.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    descriptor
}

/// A layout with one name for several platforms, by an index in the index or without.
fn multi_platform(nested: bool) -> Vec<(String, Vec<u8>)> {
    let name = json!({ "org.opencontainers.image.ref.name": "example.org/multi:1" });
    let mut blobs = BTreeMap::new();
    let mut entries = Vec::new();
    for (platform, cmd) in
        [(("arm64", "v8"), "arm64"), (("amd64", ""), "amd64"), (("amd64", "v2"), "amd64-v2")]
    {
        let layer = Layer::new().file("cmd", cmd).build();
        let image = TestImage { platform, cmd, ..TestImage::new("", vec![layer]) };
        let (manifest, more) = image.manifest(gzip);
        let platform = json!({ "os": "linux", "architecture": platform.0, "variant": platform.1 });
        let mut more_fields = json!({ "platform": platform });
        if !nested {
            more_fields["annotations"] = name.clone();
        }
        entries.push(descriptor(&manifest, &more_fields));
        // As it is in a file that somebody made for one platform: the others' blobs are missing.
        if cmd != "arm64" {
            blobs.extend(more);
            blobs.insert(Digest::of(&manifest), manifest);
        }
    }
    let attestation = json!({ "platform": { "os": "unknown", "architecture": "unknown" } });
    if nested {
        entries.push(descriptor(b"attestation", &attestation));
        let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes();
        entries = vec![descriptor(&index, &json!({ "annotations": name }))];
        blobs.insert(Digest::of(&index), index);
    }
    layout(&entries, blobs)
}

#[test]
fn the_best_platform_is_chosen() {
    check_members(
        &multi_platform(true),
        &expect![[r#"
        93f95934 ["amd64-v2"] 1 layers, 8 bytes: example.org/multi:1 example.org/multi@sha256:28550df7a8a7c78ea165c91c81031afc48ac916f31b35e48a75261af2efa9f43
    "#]],
    );
    check_members(
        &multi_platform(false),
        &expect![[r#"
        93f95934 ["amd64-v2"] 1 layers, 8 bytes: example.org/multi:1 example.org/multi@sha256:3cce2a2883c3b31619d2ae86708a4e5f16b829605de57a3dcc991c59be34f70a
    "#]],
    );
    let riscv = Platform { architecture: "riscv64".into(), ..options().platform };
    let options = ImportOptions { platform: riscv, name: None };
    check_bytes(
        &tar_of(&multi_platform(true)),
        &options,
        &expect![[r#"
        it has no image for linux/riscv64/v2: only for linux/arm64/v8, linux/amd64, linux/amd64/v2, unknown/unknown
    "#]],
    );
    check_bytes(
        &tar_of(&multi_platform(false)),
        &options,
        &expect![[r#"
        it has no image for linux/riscv64/v2: only for linux/arm64/v8, linux/amd64, linux/amd64/v2
    "#]],
    );
}

#[test]
fn names_of_every_tool() {
    let image = |annotations: Value| {
        let (manifest, mut blobs) = images()[0].manifest(plain);
        let entry = descriptor(&manifest, &json!({ "annotations": annotations }));
        blobs.insert(Digest::of(&manifest), manifest);
        tar_of(&layout(&[entry], blobs))
    };
    // Docker and BuildKit: the name in full, and the tag.
    let docker = image(json!({
        "io.containerd.image.name": "docker.io/library/x:1",
        "org.opencontainers.image.ref.name": "1",
    }));
    check_bytes(
        &docker,
        &options(),
        &expect![[r#"
        6772c3c5 ["true"] 2 layers, 22 bytes: docker.io/library/x:1 docker.io/library/x@sha256:0e33366d4802629a2a823924dbfc0a1745f6eeefaccf5a340a226e56d03fa12f
    "#]],
    );
    // Podman: the name in full, in the other annotation.
    let podman = image(json!({ "org.opencontainers.image.ref.name": "localhost/x:latest" }));
    check_bytes(
        &podman,
        &options(),
        &expect![[r#"
        6772c3c5 ["true"] 2 layers, 22 bytes: localhost/x:latest localhost/x@sha256:0e33366d4802629a2a823924dbfc0a1745f6eeefaccf5a340a226e56d03fa12f
    "#]],
    );
    // Skopeo and others: only a tag, so the image has no name unless it is given one.
    let skopeo = image(json!({ "org.opencontainers.image.ref.name": "v2" }));
    check_bytes(
        &skopeo,
        &options(),
        &expect![[r#"
        6772c3c5 ["true"] 2 layers, 22 bytes: 
    "#]],
    );
    let named = ImportOptions { name: Some("local/x".parse().unwrap()), ..options() };
    check_bytes(
        &skopeo,
        &named,
        &expect![[r#"
        6772c3c5 ["true"] 2 layers, 22 bytes: docker.io/local/x:v2
    "#]],
    );
    check_bytes(
        &image(json!({})),
        &named,
        &expect![[r#"
        6772c3c5 ["true"] 2 layers, 22 bytes: docker.io/local/x:latest
    "#]],
    );
    // A name in the file is not overridden.
    check_bytes(
        &podman,
        &named,
        &expect![[r#"
        6772c3c5 ["true"] 2 layers, 22 bytes: localhost/x:latest localhost/x@sha256:0e33366d4802629a2a823924dbfc0a1745f6eeefaccf5a340a226e56d03fa12f
    "#]],
    );
    let wrong = image(json!({ "org.opencontainers.image.ref.name": "Local/X:1" }));
    check_bytes(
        &wrong,
        &options(),
        &expect![[r#"
        it names an image "Local/X:1", which is no image reference: repository "X" in image reference "Local/X:1" must be lower-case
    "#]],
    );
}

#[test]
fn one_image_under_several_names_is_one_image() {
    let [one, _] = images();
    let other = TestImage { name: Some("local/other:2".into()), ..one.clone() };
    check_members(
        &docker_archive(&[one.clone(), other.clone()], gzip),
        &expect![[r#"
        6772c3c5 ["true"] 2 layers, 22 bytes: docker.io/local/one:1 docker.io/local/other:2
    "#]],
    );
    check_members(
        &oci_layout(&[one, other], gzip),
        &expect![[r#"
        6772c3c5 ["true"] 2 layers, 22 bytes: docker.io/local/one:1 docker.io/local/other:2 docker.io/local/one@sha256:e3bbf8b853b24482001719ef1d9590f765ac9b5fde3e190f2340385ee8848e86 docker.io/local/other@sha256:e3bbf8b853b24482001719ef1d9590f765ac9b5fde3e190f2340385ee8848e86
    "#]],
    );
}

#[test]
fn layers_that_are_links_to_other_layers() {
    let [one, two] = images();
    let mut members = docker_archive(&[one.clone(), two], plain);
    let manifest = members.pop().unwrap();
    let text = String::from_utf8(manifest.1).unwrap();
    let base = format!("{}/layer.tar", Digest::of(&one.layers[0]).hex());
    // The second image has its base under another name, as old versions of Docker wrote it.
    let (first, second) = text.split_at(text.rfind(&base).unwrap());
    let text = format!("{first}{}", second.replacen(&base, "other/layer.tar", 1));
    let tar = members.iter().fold(Layer::new(), |tar, (name, content)| tar.file(name, content));
    let tar = tar.symlink("other/layer.tar", &format!("../{base}")).file("./manifest.json", text);
    check_bytes(
        &tar.build(),
        &options(),
        &expect![[r#"
        4a946fca ["false"] 2 layers, 21 bytes: registry.example:5000/two:latest
        6772c3c5 ["true"] 2 layers, 22 bytes: docker.io/local/one:1
    "#]],
    );
    let circle =
        Layer::new().symlink("manifest.json", "index.json").symlink("index.json", "manifest.json");
    check_bytes(
        &circle.build(),
        &options(),
        &expect![[r#"
        its member "index.json" is a link that leads nowhere
    "#]],
    );
}

#[test]
fn a_layer_that_comes_twice_is_mounted_once() {
    let layer = Layer::new().file("a", "a").build();
    let other = Layer::new().file("b", "b").build();
    let image = TestImage::new("local/twice:1", vec![layer.clone(), other, layer]);
    check_members(
        &docker_archive(&[image], gzip),
        &expect![[r#"
        a6f4368d ["true"] 2 layers, 3 bytes: docker.io/local/twice:1
    "#]],
    );
}

#[test]
fn images_for_other_machines() {
    if not_root() {
        return;
    }
    let arm = TestImage { platform: ("arm64", ""), ..images()[0].clone() };
    let notes = |members: &[(String, Vec<u8>)]| {
        let (dir, store) = store();
        let file = dir.path().join("image.tar");
        fs::write(&file, tar_of(members)).unwrap();
        let notes = std::sync::Mutex::new(Vec::new());
        let progress = |event| {
            if let Event::Note(note) = event {
                notes.lock().unwrap().push(note);
            }
        };
        store.import(&file, &options(), &progress).unwrap();
        notes.into_inner().unwrap().join("\n")
    };
    // Whoever has no choice gets what there is, and is told.
    let told = expect![
        "image docker.io/local/one:1 is built for linux/arm64 and this is linux/amd64/v2: it may not start"
    ];
    told.assert_eq(&notes(&docker_archive(std::slice::from_ref(&arm), gzip)));
    told.assert_eq(&notes(&oci_layout(std::slice::from_ref(&arm), gzip)));
    expect![""].assert_eq(&notes(&oci_layout(&images(), gzip)));

    // From an index, which is there to choose from, only what fits is taken.
    let nested = |image: &TestImage| {
        let (manifest, mut blobs) = image.manifest(gzip);
        let index = json!({ "manifests": [descriptor(&manifest, &json!({}))] });
        let index = index.to_string().into_bytes();
        let entry = descriptor(&index, &json!({}));
        blobs.extend([manifest, index].map(|blob| (Digest::of(&blob), blob)));
        layout(&[entry], blobs)
    };
    check_members(
        &nested(&arm),
        &expect![[r#"
            it has no image for linux/amd64/v2: only for linux/arm64
        "#]],
    );
    check_members(
        &nested(&images()[0]),
        &expect![[r#"
            6772c3c5 ["true"] 2 layers, 22 bytes: 
        "#]],
    );
}

#[test]
fn archives_that_are_to_take_all_memory() {
    // One large configuration under many names, and one that is there many times.
    let mut config = images()[0].config();
    config.resize(8 << 20, b' ');
    let entry = |n: usize| json!({ "Config": "config", "RepoTags": [format!("x:{n}")] });
    let manifest: Vec<Value> = (0..9).map(entry).collect();
    let members = [("config", config), ("manifest.json", json!(manifest).to_string().into_bytes())];
    let members = members.map(|(name, content)| (name.to_owned(), content));
    let expected = expect![[r#"
        its manifests and configurations have more than 67108864 bytes altogether
    "#]];
    check_members(&members, &expected);

    let many = vec![descriptor(b"{}", &json!({})); 1001];
    check_members(
        &layout(&many, BTreeMap::from([(Digest::of(b"{}"), b"{}".to_vec())])),
        &expect![[r#"
            it has more than 1000 images
        "#]],
    );

    let name = |n: usize| format!("{n:04}/{}", "a".repeat(4000));
    let names = (0..4200).fold(Layer::new(), |layer, n| layer.file(&name(n), ""));
    let expected = expect![[r#"
        it has more members than an image archive can need
    "#]];
    check_bytes(&names.build(), &options(), &expected);
    let link = "a".repeat(4000);
    let links = (0..4200).fold(Layer::new(), |layer, n| layer.symlink(&n.to_string(), &link));
    check_bytes(&links.build(), &options(), &expected);
    check_bytes(
        &Layer::new().symlink("l", &"a/".repeat(2048)).build(),
        &options(),
        &expect![[r#"
            its member "l" has a name that is refused: its name is longer than 4095 bytes
        "#]],
    );
}

/// Every broken file gives one error that says where and why.
#[test]
fn broken_archives() {
    let image = || [images()[0].clone()];
    let docker = || docker_archive(&image(), gzip);
    let oci = || oci_layout(&image(), gzip);
    let change = |mut members: Vec<(String, Vec<u8>)>, name: &str, content: Option<&[u8]>| {
        let place = members.iter().position(|(member, _)| member.contains(name)).unwrap();
        match content {
            Some(content) => members[place].1 = content.to_vec(),
            None => drop(members.remove(place)),
        }
        members
    };
    let bytes = |bytes: &[u8], expected: &Expect| check_bytes(bytes, &options(), expected);

    check_import(
        Path::new("/nonexistent/image.tar"),
        &options(),
        &expect![[r#"
        it cannot be read: No such file or directory (os error 2)
    "#]],
    );
    check_import(
        Path::new("/dev/null"),
        &options(),
        &expect![[r#"
        it is neither a file nor a directory
    "#]],
    );
    bytes(
        b"",
        &expect![[r#"
            it is not a readable tar archive: archive ends in the middle of an entry, at byte 0: it is cut off
        "#]],
    );
    bytes(
        b"hello",
        &expect![[r#"
        it is not a readable tar archive: archive ends in the middle of an entry, at byte 0: it is cut off
    "#]],
    );
    bytes(
        &[7; 2000],
        &expect![[r#"
        it is not a readable tar archive: no tar header at byte 0: its checksum is wrong
    "#]],
    );
    bytes(
        b"\xfd7zXZ\0\0",
        &expect![[r#"
        it cannot be decompressed: compressed with xz, which is not supported: use gzip or zstd
    "#]],
    );
    let whole = tar_of(&docker());
    bytes(
        &whole[..1000],
        &expect![[r#"
            it is not a readable tar archive: archive ends in the middle of an entry, at byte 1000: it is cut off
        "#]],
    );
    let zipped = gzip(&whole);
    bytes(
        &zipped[..zipped.len() / 2],
        &expect![[r#"
        decompressing it failed: it is damaged or cut off: incomplete deflate stream
    "#]],
    );
    check_members(
        &[("a".into(), b"b".to_vec())],
        &expect![[r#"
        it has neither index.json nor manifest.json: it is no OCI layout, OCI archive or docker-archive
    "#]],
    );
    check_members(
        &[("../a".into(), b"b".to_vec())],
        &expect![[r#"
        its member "../a" has a name that is refused: its name leads out of the layer through ".."
    "#]],
    );

    check_members(
        &change(docker(), "manifest.json", Some(b"{}")),
        &expect![[r#"
        its member "manifest.json" is not the manifest of a docker-archive: invalid type: map, expected a sequence at line 1 column 0
    "#]],
    );
    check_members(
        &change(docker(), "manifest.json", Some(b"[]")),
        &expect![[r#"
        its "manifest.json" names no image
    "#]],
    );
    let climbing = br#"[{"Config":"../../etc/passwd","Layers":[]}]"#;
    check_members(
        &change(docker(), "manifest.json", Some(climbing)),
        &expect![[r#"
        its member "../../etc/passwd" has a name that is refused: its name leads out of the layer through ".."
    "#]],
    );
    let config = images()[0].id().hex().to_owned();
    check_members(
        &change(docker(), &config, None),
        &expect![[r#"
        its member "6772c3c5c0900f0f8dd0c7ce8629e95829959417717c9cfb4b7e55623d847643.json" is missing, which "manifest.json" names
    "#]],
    );
    check_members(
        &change(docker(), &config, Some(b"{}")),
        &expect![[r#"
        its member "6772c3c5c0900f0f8dd0c7ce8629e95829959417717c9cfb4b7e55623d847643.json" cannot be used: not an image configuration: missing field `rootfs` at line 1 column 2
    "#]],
    );
    let no_layers = br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#;
    check_members(
        &change(docker(), &config, Some(no_layers)),
        &expect![[r#"
        its image with the configuration "6772c3c5c0900f0f8dd0c7ce8629e95829959417717c9cfb4b7e55623d847643.json" has 2 layers, but says that it has 0
    "#]],
    );
    let layer = Digest::of(&images()[0].layers[1]).hex().to_owned();
    check_members(
        &change(docker(), &layer, None),
        &expect![[r#"
        its member "9571695f08da9469872f4caf927525c622b0d96061dd311bfbc64619cbf057a7/layer.tar" is missing, which "6772c3c5c0900f0f8dd0c7ce8629e95829959417717c9cfb4b7e55623d847643.json" names
    "#]],
    );
    check_members(
        &change(docker(), &layer, Some(b"not a tar archive")),
        &expect![[r#"
        its layer "9571695f08da9469872f4caf927525c622b0d96061dd311bfbc64619cbf057a7/layer.tar" cannot be unpacked: layer is not a readable tar archive: archive ends in the middle of an entry, at byte 0: it is cut off
    "#]],
    );
    let other = gzip(&Layer::new().file("other", "x").build());
    check_members(
        &change(docker(), &layer, Some(&other)),
        &expect![[r#"
        its layer "9571695f08da9469872f4caf927525c622b0d96061dd311bfbc64619cbf057a7/layer.tar" cannot be unpacked: layer has the uncompressed digest sha256:77d66897246fd10244471c2e3226dc1286248f96fb3dc2f96a69767ab8a75ca5, but the image's configuration says sha256:9571695f08da9469872f4caf927525c622b0d96061dd311bfbc64619cbf057a7
    "#]],
    );
    let names = br#"[{"Config":"c","RepoTags":["Bad Name"],"Layers":[]}]"#;
    let members = [("c".into(), no_layers.to_vec()), ("manifest.json".into(), names.to_vec())];
    check_members(
        &members,
        &expect![[r#"
        it names an image "Bad Name", which is no image reference: repository "library/Bad Name" in image reference "Bad Name" must be lower-case
    "#]],
    );

    check_members(
        &change(oci(), "index.json", Some(b"{\"manifests\":[]}")),
        &expect![[r#"
        its "index.json" names no image
    "#]],
    );
    check_members(
        &change(oci(), "index.json", Some(b"[1]")),
        &expect![[r#"
            its member "index.json" cannot be used: not an image index or manifest, but some other JSON
        "#]],
    );
    let (manifest, _) = images()[0].manifest(gzip);
    let manifest = Digest::of(&manifest).hex().to_owned();
    check_members(
        &change(oci(), &manifest, None),
        &expect![[r#"
        its member "blobs/sha256/e3bbf8b853b24482001719ef1d9590f765ac9b5fde3e190f2340385ee8848e86" is missing, which "index.json" names
    "#]],
    );
    check_members(
        &change(oci(), &manifest, Some(b"{}")),
        &expect![[r#"
        its member "blobs/sha256/e3bbf8b853b24482001719ef1d9590f765ac9b5fde3e190f2340385ee8848e86" is damaged: its digest is sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
    "#]],
    );
    check_members(
        &change(oci(), &config, None),
        &expect![[r#"
        its member "blobs/sha256/6772c3c5c0900f0f8dd0c7ce8629e95829959417717c9cfb4b7e55623d847643" is missing, which "blobs/sha256/e3bbf8b853b24482001719ef1d9590f765ac9b5fde3e190f2340385ee8848e86" names
    "#]],
    );
    check_members(
        &change(oci(), &config, Some(b"{}")),
        &expect![[r#"
        its member "blobs/sha256/6772c3c5c0900f0f8dd0c7ce8629e95829959417717c9cfb4b7e55623d847643" is damaged: its digest is sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
    "#]],
    );
    let layer = Digest::of(&gzip(&images()[0].layers[1])).hex().to_owned();
    check_members(
        &change(oci(), &layer, None),
        &expect![[r#"
        its member "blobs/sha256/cfaf3699ee14d3cb27b74c1f5de520368646223926109139e1b2d8c6d2f297c6" is missing, which "blobs/sha256/6772c3c5c0900f0f8dd0c7ce8629e95829959417717c9cfb4b7e55623d847643" names
    "#]],
    );
    check_members(
        &change(oci(), &layer, Some(&other)),
        &expect![[r#"
            its layer "blobs/sha256/cfaf3699ee14d3cb27b74c1f5de520368646223926109139e1b2d8c6d2f297c6" cannot be unpacked: layer has the uncompressed digest sha256:77d66897246fd10244471c2e3226dc1286248f96fb3dc2f96a69767ab8a75ca5, but the image's configuration says sha256:9571695f08da9469872f4caf927525c622b0d96061dd311bfbc64619cbf057a7
        "#]],
    );
    check_members(
        &change(oci(), &layer, Some(&[0; 1024])),
        &expect![[r#"
            its layer "blobs/sha256/cfaf3699ee14d3cb27b74c1f5de520368646223926109139e1b2d8c6d2f297c6" cannot be unpacked: layer has the uncompressed digest sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef, but the image's configuration says sha256:9571695f08da9469872f4caf927525c622b0d96061dd311bfbc64619cbf057a7
        "#]],
    );

    // An index that contains itself cannot be made, but one that is deep can.
    let mut blobs = BTreeMap::new();
    let mut inner = b"{\"manifests\":[]}".to_vec();
    for _ in 0..5 {
        let outer = json!({ "manifests": [descriptor(&inner, &json!({}))] });
        blobs.insert(Digest::of(&inner), std::mem::replace(&mut inner, outer.to_string().into()));
    }
    let entry = descriptor(&inner, &json!({}));
    blobs.insert(Digest::of(&inner), inner);
    check_members(
        &layout(&[entry], blobs),
        &expect![[r#"
        its member "blobs/sha256/8a4420ab58312b75ca20f7b16cdc55921ffecc0f9ca1bc242f8ad549f112158d" is an index within too many others
    "#]],
    );
}

#[test]
fn a_layout_directory_cannot_lead_outside() {
    if not_root() {
        return;
    }
    let dir = dir_of(&oci_layout(&images()[..1], plain));
    let outside = dir_of(&[("index.json".into(), b"{}".to_vec())]);
    fs::remove_file(dir.path().join("index.json")).unwrap();
    let link = outside.path().join("index.json");
    std::os::unix::fs::symlink(link, dir.path().join("index.json")).unwrap();
    check_import(
        dir.path(),
        &options(),
        &expect![[r#"
            its member "index.json" leads out of it through a symbolic link
        "#]],
    );
}
