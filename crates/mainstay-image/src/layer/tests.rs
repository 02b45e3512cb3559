use expect_test::{Expect, expect};

use super::*;
use crate::tar::Time;

fn entry(kind: Kind, path: &str) -> Entry {
    Entry {
        path: path.into(),
        kind,
        link: Vec::new(),
        size: 0,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        device: (1, 3),
        xattrs: Vec::new(),
        segments: Vec::new(),
        position: 0,
    }
}

fn check(entry: &Entry, expected: &Expect) {
    expected.assert_eq(&match step(entry) {
        Ok(step) => format!("{step:?}"),
        Err(problem) => problem.to_string(),
    });
}

#[test]
fn names_are_relative_to_the_root_of_the_layer() {
    let file = |path: &str| entry(Kind::File, path);
    check(&file("a"), &expect![[r#"File("a")"#]]);
    check(&file("./a//b/./c"), &expect![[r#"File("a/b/c")"#]]);
    check(&file("/etc/passwd"), &expect![[r#"File("etc/passwd")"#]]);
    check(&file("../a"), &expect![[r#"its name leads out of the layer through "..""#]]);
    check(&file("a/../b"), &expect![[r#"its name leads out of the layer through "..""#]]);
    check(&file("a\0b"), &expect!["its name or link target contains a NUL byte"]);
    check(&file(&"a/".repeat(2049)), &expect!["its name is longer than 4095 bytes"]);
    check(&file(&"a/".repeat(257)), &expect!["it lies more than 256 directories deep"]);
    assert!(step(&file(&"a/".repeat(256))).is_ok());
    check(
        &file("./"),
        &expect!["it would replace the root of the layer by something that is not a directory"],
    );
    check(&entry(Kind::Directory, "./"), &expect!["Root"]);
    check(&entry(Kind::Directory, "a/"), &expect![[r#"Directory("a")"#]]);
}

#[test]
fn links() {
    let link = |kind, target: &str| Entry { link: target.into(), ..entry(kind, "l") };
    check(&link(Kind::Symlink, "../../../etc"), &expect![[r#"Symlink("l")"#]]);
    check(&link(Kind::Symlink, ""), &expect!["it is a link without a target"]);
    check(&link(Kind::HardLink, "./a/b"), &expect![[r#"HardLink { path: "l", target: "a/b" }"#]]);
    check(&link(Kind::HardLink, "/a/b"), &expect![[r#"HardLink { path: "l", target: "a/b" }"#]]);
    check(
        &link(Kind::HardLink, "../etc/shadow"),
        &expect![[
            r#"it is a hard link to "../etc/shadow", which leads out of the layer through "..""#
        ]],
    );
    check(&link(Kind::HardLink, "/"), &expect!["it is a link without a target"]);
}

#[test]
fn whiteouts() {
    let file = |path: &str| entry(Kind::File, path);
    check(&file("a/.wh.b"), &expect![[r#"Whiteout("a/b")"#]]);
    check(&file(".wh.b"), &expect![[r#"Whiteout("b")"#]]);
    check(&file("a/.wh..wh..opq"), &expect![[r#"Opaque("a")"#]]);
    check(&file(".wh..wh..opq"), &expect![[r#"Opaque("")"#]]);
    check(&file(".wh..wh.plnk/1.2"), &expect!["Nothing"]);
    check(&file("a/.wh..wh.orph"), &expect!["Nothing"]);
    check(&file("a/.wh."), &expect!["it is a whiteout that names nothing that could be hidden"]);
    check(&file("a/.wh.."), &expect!["it is a whiteout that names nothing that could be hidden"]);
    check(&file("a/.wh..."), &expect!["it is a whiteout that names nothing that could be hidden"]);
}

#[test]
fn what_overlayfs_would_take_as_a_command_is_refused() {
    check(&entry(Kind::CharDevice, "dev/null"), &expect![[r#"Node("dev/null")"#]]);
    let forged = Entry { device: (0, 0), ..entry(Kind::CharDevice, "a") };
    check(
        &forged,
        &expect![
            "it is the character device 0:0, by which overlayfs hides files: layers do that with .wh. entries"
        ],
    );
    let xattr = (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec());
    let forged = Entry { xattrs: vec![xattr], ..entry(Kind::Directory, "a") };
    check(
        &forged,
        &expect![[
            r#"it has the attribute "trusted.overlay.redirect", which is reserved for overlayfs itself"#
        ]],
    );
}
