use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use expect_test::{Expect, expect};

use super::*;
use crate::testing::{Layer, chain, gzip, not_root, zstd};

/// One line for everything below `root`: what it is, whose, since when, and what is in it.
fn list(root: &Path) -> String {
    let mut lines = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let kind = stat.file_type();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let mut line = match () {
            () if kind.is_dir() => format!("{name}/"),
            () if kind.is_symlink() => {
                format!("{name} -> {}", fs::read_link(&path).unwrap().display())
            }
            () if kind.is_char_device() && stat.rdev() == 0 => format!("{name} whiteout"),
            () if kind.is_char_device() => format!("{name} device {:x}", stat.rdev()),
            () if kind.is_fifo() => format!("{name} fifo"),
            () => {
                let content = fs::read(&path).unwrap();
                match String::from_utf8(content) {
                    Ok(text) if text.len() < 20 => format!("{name} {text:?}"),
                    _ => format!("{name} {} bytes", stat.size()),
                }
            }
        };
        if !line.ends_with("whiteout") {
            line += &format!(" {:o} {}:{}", stat.mode() & 0o7777, stat.uid(), stat.gid());
            // Layers of these tests begin at second 1,000,000,000.
            match stat.mtime() - 1_000_000_000 {
                seconds @ 0..=99 => line += &format!(" @{seconds}"),
                _ => line += " @now",
            }
            if stat.nlink() > 1 && !kind.is_dir() {
                line += &format!(" links={}", stat.nlink());
            }
        }
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut names).unwrap();
        for xattr in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let mut value = [0; 256];
            let length = rustix::fs::lgetxattr(&path, xattr, &mut value).unwrap();
            line +=
                &format!(" {}={}", String::from_utf8_lossy(xattr), value[..length].escape_ascii());
        }
        if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        lines.insert(name, line + "\n");
    }
    lines.into_values().collect()
}

fn unpack_bytes(layer: &[u8], into: &Path, limits: &Limits) -> Result<Unpacked, UnpackError> {
    // Another digest is the subject of other tests.
    let mut plain = Vec::new();
    let decompressed = decompress(layer).map(|mut reader| reader.read_to_end(&mut plain));
    drop(decompressed);
    let diff_id = Digest::of(&plain);
    let expected = Expected { blob: Some(&Digest::of(layer)), diff_id: &diff_id };
    unpack(layer, expected, into, limits, &|_| true)
}

fn check(layer: Layer, expected: &Expect) {
    if not_root() {
        return;
    }
    // A directory around the layer shows that nothing is changed there.
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let into = outside.path().join("layer");
    fs::create_dir(&into).unwrap();
    let text = match unpack_bytes(&layer.build(), &into, &Limits::default()) {
        Ok(unpacked) => {
            let mut text = list(&into);
            for path in unpacked.implicit {
                text += &format!("implicit: /{}\n", String::from_utf8_lossy(&path));
            }
            for name in unpacked.skipped_xattrs {
                text += &format!("skipped: {name}\n");
            }
            text
        }
        Err(error) => chain(&error) + "\n",
    };
    expected.assert_eq(&text);
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    let names = fs::read_dir(outside.path()).unwrap().count();
    assert_eq!(names, 2, "nothing was made outside of the layer");
}

#[test]
fn every_kind_of_entry_with_its_owner_mode_times_and_attributes() {
    let long = format!("{}/{}", "a".repeat(150), "b".repeat(150));
    check(
        Layer::new()
            .dir("./", 0o755)
            .owned(1000, 1001)
            .dir("etc/", 0o1777)
            .owned(1000, 1001)
            .file_mode("etc/setuid", 0o4755, "program")
            .xattr("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
            .file("etc/ping", "x")
            .xattr("user.note", b"hello")
            .dir("etc/marked", 0o700)
            .owned(5, 6)
            .symlink("etc/soft", "/etc/../setuid")
            .hard_link("etc/hard", "etc/setuid")
            .char_device("null", (1, 3))
            .fifo("fifo")
            .dir(&format!("{}/", "a".repeat(150)), 0o755)
            .file(&long, "deep"),
        &expect![[r#"
            / 755 0:0 @0
            aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/ 755 0:0 @9
            aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb "deep" 644 0:0 @10
            etc/ 1777 1000:1001 @1
            etc/hard "program" 4755 1000:1001 @2 links=2
            etc/marked/ 700 0:0 @4 user.note=hello
            etc/ping "x" 644 0:0 @3 security.capability=\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00
            etc/setuid "program" 4755 1000:1001 @2 links=2
            etc/soft -> /etc/../setuid 777 5:6 @5
            fifo fifo 600 0:0 @8
            null device 103 666 0:0 @7
        "#]],
    );
}

#[test]
fn directories_may_come_late_twice_or_not_at_all() {
    check(
        Layer::new()
            .file("late/deep/file", "1")
            .owned(7, 7)
            .dir("late/", 0o700)
            .file("never/file", "2")
            .dir("twice/", 0o700)
            .file("twice/file", "3")
            .owned(9, 9)
            .dir("twice/", 0o750),
        &expect![[r#"
            / 755 0:0 @now
            late/ 700 7:7 @1
            late/deep/ 755 0:0 @now
            late/deep/file "1" 644 0:0 @0
            never/ 755 0:0 @now
            never/file "2" 644 0:0 @2
            twice/ 750 9:9 @5
            twice/file "3" 644 0:0 @4
            implicit: /
            implicit: /late/deep
            implicit: /never
        "#]],
    );
}

#[test]
fn the_last_of_several_entries_counts() {
    check(
        Layer::new()
            .file("a", "first")
            .file("a", "second")
            .dir("b", 0o755)
            .file("b/inside", "gone")
            .file("b", "now a file")
            .symlink("c", "a")
            .dir("c", 0o755)
            .file("c/file", "not through the link")
            .file("d", "target")
            .symlink("e", "d")
            .file("e", "not through the link either")
            .hard_link("a", "d")
            .hard_link("d", "d"),
        &expect![[r#"
            / 755 0:0 @now
            a "target" 644 0:0 @8 links=2
            b "now a file" 644 0:0 @4
            c/ 755 0:0 @6
            c/file 20 bytes 644 0:0 @7
            d "target" 644 0:0 @8 links=2
            e 27 bytes 644 0:0 @10
            implicit: /
        "#]],
    );
}

#[test]
fn whiteouts_hide_lower_layers_and_nothing_of_this_one() {
    check(
        Layer::new()
            .dir("dir/", 0o755)
            .file("dir/.wh.gone", "")
            .file("dir/.wh.kept", "")
            .file("dir/kept", "kept")
            .file("dir/kept2", "kept")
            .file("dir/.wh.kept2", "")
            .file(".wh.before", "")
            .dir("before/", 0o755)
            .dir("after/", 0o755)
            .file(".wh.after", "")
            .file(".wh.implicit", "")
            .file("implicit/file", "x")
            .dir("opaque/", 0o700)
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/file", "x")
            .file(".wh..wh.plnk/77.1", "")
            .file(".wh..wh.aufs", ""),
        &expect![[r#"
            / 755 0:0 @now
            after/ 755 0:0 @8 trusted.overlay.opaque=y
            before/ 755 0:0 @7 trusted.overlay.opaque=y
            dir/ 755 0:0 @0
            dir/gone whiteout
            dir/kept "kept" 644 0:0 @3
            dir/kept2 "kept" 644 0:0 @4
            implicit/ 755 0:0 @now trusted.overlay.opaque=y
            implicit/file "x" 644 0:0 @11
            opaque/ 700 0:0 @12 trusted.overlay.opaque=y
            opaque/file "x" 644 0:0 @14
            implicit: /
            implicit: /implicit
        "#]],
    );
    check(
        Layer::new().file(".wh..wh..opq", ""),
        &expect![[r#"
            / 755 0:0 @now trusted.overlay.opaque=y
            implicit: /
        "#]],
    );
}

#[test]
fn links_within_the_layer_may_be_parents() {
    check(
        Layer::new()
            .dir("usr/lib/", 0o755)
            .symlink("lib", "usr/lib")
            .file("lib/a.so", "a")
            .dir("usr/bin", 0o755)
            .symlink("usr/lib/up", "../bin")
            .file("lib/up/tool", "t"),
        &expect![[r#"
            / 755 0:0 @now
            lib -> usr/lib 777 0:0 @1
            usr/ 755 0:0 @now
            usr/bin/ 755 0:0 @3
            usr/bin/tool "t" 644 0:0 @5
            usr/lib/ 755 0:0 @0
            usr/lib/a.so "a" 644 0:0 @2
            usr/lib/up -> ../bin 777 0:0 @4
            implicit: /
            implicit: /usr
        "#]],
    );
}

/// Whatever tries to leave the layer is refused by name.
#[test]
fn hostile_layers() {
    let layer = Layer::new;
    check(
        layer().file("../secret", "x"),
        &expect![[r#"
        layer entry "../secret" is refused: its name leads out of the layer through ".."
    "#]],
    );
    check(
        layer().dir("a", 0o755).file("a/../../secret", "x"),
        &expect![[r#"
        layer entry "a/../../secret" is refused: its name leads out of the layer through ".."
    "#]],
    );
    check(
        layer().symlink("a", "..").file("a/secret", "x"),
        &expect![[r#"
        layer entry "a/secret" cannot be unpacked: its parent directory leads out of the layer through a symbolic link
    "#]],
    );
    check(
        layer().symlink("a", "/").file("a/tmp/x", "x"),
        &expect![[r#"
        layer entry "a/tmp/x" cannot be unpacked: its parent directory leads out of the layer through a symbolic link
    "#]],
    );
    check(
        layer().symlink("a", "/proc/self/root").file("a/tmp/x", "x"),
        &expect![[r#"
        layer entry "a/tmp/x" cannot be unpacked: its parent directory leads out of the layer through a symbolic link
    "#]],
    );
    check(
        layer().symlink("a", "b/../../..").dir("b", 0o755).file("a/x", "x"),
        &expect![[r#"
        layer entry "a/x" cannot be unpacked: its parent directory leads out of the layer through a symbolic link
    "#]],
    );
    check(
        layer().symlink("a", "..").dir("a/b/", 0o777),
        &expect![[r#"
        layer entry "a/b/" cannot be unpacked: its parent directory leads out of the layer through a symbolic link
    "#]],
    );
    check(
        layer().symlink("a", "..").file("a/.wh.secret", ""),
        &expect![[r#"
        layer entry "a/.wh.secret" cannot be unpacked: its parent directory leads out of the layer through a symbolic link
    "#]],
    );
    check(
        layer().symlink("a", "..").file("a/.wh..wh..opq", ""),
        &expect![[r#"
        layer entry "a/.wh..wh..opq" cannot be unpacked: its parent directory leads out of the layer through a symbolic link
    "#]],
    );
    check(
        layer().symlink("a", "a").file("a/x", ""),
        &expect![[r#"
        layer entry "a/x" cannot be unpacked: its parent directory "a" is a symbolic link that leads nowhere in this layer
    "#]],
    );
    check(
        layer().symlink("a", "missing").file("a/x", ""),
        &expect![[r#"
        layer entry "a/x" cannot be unpacked: its parent directory "a" is a symbolic link that leads nowhere in this layer
    "#]],
    );
    check(
        layer().file("a", "").file("a/x", ""),
        &expect![[r#"
        layer entry "a/x" cannot be unpacked: its parent "a" is not a directory
    "#]],
    );
    check(
        layer().hard_link("a", "../secret"),
        &expect![[r#"
        layer entry "a" is refused: it is a hard link to "../secret", which leads out of the layer through ".."
    "#]],
    );
    check(
        layer().hard_link("a", "/etc/passwd"),
        &expect![[r#"
        layer entry "a" cannot be unpacked: it is a hard link to "etc/passwd", which this layer has not: a link into a lower layer cannot be made
    "#]],
    );
    check(
        layer().symlink("a", "..").hard_link("b", "a/secret"),
        &expect![[r#"
        layer entry "b" cannot be unpacked: it is a hard link to "a/secret", which leads out of the layer through a symbolic link
    "#]],
    );
    check(
        layer().dir("a", 0o755).hard_link("b", "a"),
        &expect![[r#"
        layer entry "b" cannot be unpacked: it is a hard link to the directory "a"
    "#]],
    );
    check(
        layer().hard_link("b", "lower/file"),
        &expect![[r#"
        layer entry "b" cannot be unpacked: it is a hard link to "lower/file", which this layer has not: a link into a lower layer cannot be made
    "#]],
    );
    check(
        layer().file("a", "").hard_link("b", "a/x"),
        &expect![[r#"
        layer entry "b" cannot be unpacked: it is a hard link to "a/x", which this layer has not: a link into a lower layer cannot be made
    "#]],
    );
    check(
        layer().char_device("a", (0, 0)),
        &expect![[r#"
        layer entry "a" is refused: it is the character device 0:0, by which overlayfs hides files: layers do that with .wh. entries
    "#]],
    );
    check(
        layer().xattr("trusted.overlay.opaque", b"y").dir("a", 0o755),
        &expect![[r#"
        layer entry "a" is refused: it has the attribute "trusted.overlay.opaque", which is reserved for overlayfs itself
    "#]],
    );
    check(
        layer().file("a/.wh...", ""),
        &expect![[r#"
        layer entry "a/.wh..." is refused: it is a whiteout that names nothing that could be hidden
    "#]],
    );
    check(
        layer().file("./", "x"),
        &expect![[r#"
            layer entry "./" is refused: it would replace the root of the layer by something that is not a directory
        "#]],
    );
    check(
        layer().symlink("/", "/etc"),
        &expect![[r#"
        layer entry "/" is refused: it would replace the root of the layer by something that is not a directory
    "#]],
    );
    check(
        layer().file(&"n".repeat(256), "x"),
        &expect![[r#"
        layer entry "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" cannot be unpacked: making a file failed: File name too long (os error 36)
    "#]],
    );
    // A link to a secret may exist, as inside a container it leads elsewhere; only going through
    // it is refused. And a hard link to it is a link to the link.
    check(
        layer().symlink("a", "../secret").hard_link("b", "a").file("a", "replaces the link"),
        &expect![[r#"
            / 755 0:0 @now
            a "replaces the link" 644 0:0 @2
            b -> ../secret 777 0:0 @0
            implicit: /
        "#]],
    );
}

#[test]
fn compressed_layers_are_the_same_layers() {
    if not_root() {
        return;
    }
    let plain = Layer::new().file("a", "content").build();
    for bytes in [
        plain.clone(),
        gzip(&plain),
        zstd(&plain),
        [gzip(&plain[..700]), gzip(&plain[700..])].concat(),
    ] {
        let directory = tempfile::tempdir().unwrap();
        unpack_bytes(&bytes, directory.path(), &Limits::default()).unwrap();
        assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"content");
    }
}

#[test]
fn damaged_layers_are_refused() {
    if not_root() {
        return;
    }
    let plain = Layer::new().file("a", vec![b'x'; 100_000]).build();
    let directory = tempfile::tempdir().unwrap();
    let run = |bytes: &[u8], blob: &Digest, diff_id: &Digest| {
        let into = tempfile::tempdir_in(&directory).unwrap();
        let expected = Expected { blob: Some(blob), diff_id };
        chain(&unpack(bytes, expected, into.path(), &Limits::default(), &|_| true).unwrap_err())
    };
    let (digest, other) = (Digest::of(&plain), Digest::of(b"other"));
    expect!["layer is damaged: its digest is sha256:7cf752146324ae729f8e398fa718295bbcead1b5d2265415874c0ea8c2e71803, not sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"].assert_eq(&run(&plain, &other, &digest));
    expect!["layer has the uncompressed digest sha256:7cf752146324ae729f8e398fa718295bbcead1b5d2265415874c0ea8c2e71803, but the image's configuration says sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"].assert_eq(&run(&plain, &digest, &other));
    expect!["layer is damaged: its digest is sha256:104765ef7db722759eca65eb4d4d864b8fa1471646567f8b51a070701345c0b2, not sha256:7cf752146324ae729f8e398fa718295bbcead1b5d2265415874c0ea8c2e71803"].assert_eq(&run(&plain[..1000], &digest, &digest));
    expect!["layer has the uncompressed digest sha256:e3501084cc3399e70ef30feeff93d040b49910cc9af6920b2f0e37457cc4d9d2, but the image's configuration says sha256:7cf752146324ae729f8e398fa718295bbcead1b5d2265415874c0ea8c2e71803"].assert_eq(&run(&[&plain[..], b"more"].concat(), &digest, &digest));
    let zipped = gzip(&plain);
    expect!["layer is damaged: its digest is sha256:23da9c7104171488dc927b82df8ee96c67f64962c204d09b274f0d37072a4c61, not sha256:7cf752146324ae729f8e398fa718295bbcead1b5d2265415874c0ea8c2e71803"].assert_eq(&run(&zipped[..zipped.len() - 4], &digest, &digest));
    expect!["layer is damaged: its digest is sha256:7328185498b385d3ffaec2376c1fa07f8450f57c80d29f771df3383a6342d429, not sha256:7cf752146324ae729f8e398fa718295bbcead1b5d2265415874c0ea8c2e71803"].assert_eq(&run(b"BZh91AY&SY", &digest, &digest));
    expect!["layer is damaged: its digest is sha256:5130b33e6b87fbf5316ed9049e98924eb110800bcbaaad8050f642fba6df37c9, not sha256:7cf752146324ae729f8e398fa718295bbcead1b5d2265415874c0ea8c2e71803"]
        .assert_eq(&run(&[b'x'; 600], &digest, &digest));
}

#[test]
fn bombs_are_stopped_by_the_limit() {
    if not_root() {
        return;
    }
    let bomb = gzip(&Layer::new().file("zeros", vec![0; 40 << 20]).build());
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { layer: 1 << 20, keep_free: 0 };
    let error = unpack_bytes(&bomb, directory.path(), &limits).unwrap_err();
    expect![[r#"layer unpacks to more than 1048576 bytes, which is the limit (at entry "zeros")"#]]
        .assert_eq(&chain(&error));
    assert!(!error.is_disk_full());
}

#[test]
fn work_can_be_given_up() {
    if not_root() {
        return;
    }
    let layer = Layer::new().file("a", vec![b'x'; 1 << 20]).build();
    let digest = Digest::of(&layer);
    let directory = tempfile::tempdir().unwrap();
    let expected = Expected { blob: None, diff_id: &digest };
    let result =
        unpack(&layer[..], expected, directory.path(), &Limits::default(), &|read| read < 300_000);
    assert!(matches!(result, Err(UnpackError::GivenUp)), "{result:?}");
}
