use std::fs;

use expect_test::{Expect, expect};

use super::*;
use crate::digest::Digest;
use crate::testing::{Layer, Mount, chain, not_root};
use crate::unpack::{Expected, Limits, unpack};

/// Layers, lowest first, that try everything that overlayfs merges.
fn layers() -> Vec<Layer> {
    vec![
        Layer::new()
            .dir("etc/", 0o755)
            .file("etc/passwd", "lower")
            .file("etc/group", "lower")
            .dir("dir/", 0o755)
            .file("dir/a", "lower")
            .file("dir/b", "lower")
            .dir("dir/sub/", 0o755)
            .file("dir/sub/x", "lower")
            .dir("opaque/", 0o755)
            .file("opaque/a", "lower")
            .dir("turns-file/", 0o755)
            .file("turns-file/a", "lower")
            .file("turns-dir", "lower")
            .dir("back/", 0o755)
            .file("back/a", "lower")
            .symlink("link", "etc/passwd")
            .symlink("absolute", "/etc/passwd")
            .symlink("up", "../../../../etc/group")
            .symlink("dirlink", "dir/sub/..")
            .symlink("loop", "loop")
            .symlink("dangling", "nowhere")
            .fifo("fifo"),
        Layer::new()
            .file("etc/.wh.group", "")
            .file("dir/.wh.a", "")
            .dir("opaque/", 0o755)
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/b", "middle")
            .file("turns-file", "middle")
            .dir("turns-dir/", 0o755)
            .file("turns-dir/a", "middle")
            .file(".wh.back", "")
            .file(".wh.dangling", ""),
        Layer::new()
            .dir("etc/", 0o755)
            .file("etc/passwd", "upper")
            .file("dir/sub/y", "upper")
            .dir("back/", 0o755)
            .file("back/b", "upper")
            .symlink("turns-link", "turns-dir"),
    ]
}

const PATHS: [&str; 34] = [
    "etc/passwd",
    "/etc/passwd",
    "/etc//./passwd",
    "etc/group",
    "dir/a",
    "dir/b",
    "dir/sub/x",
    "dir/sub/y",
    "dir/sub/../b",
    "dir/../../../etc/passwd",
    "opaque/a",
    "opaque/b",
    "turns-file",
    "turns-file/a",
    "turns-dir",
    "turns-dir/a",
    "back/a",
    "back/b",
    "link",
    "absolute",
    "up",
    "dirlink/b",
    "dirlink/sub/y",
    "loop",
    "dangling",
    "turns-link/a",
    "missing",
    "missing/x",
    "etc/passwd/x",
    "etc",
    "/",
    "fifo",
    "..",
    "etc/../link",
];

/// Unpacks layers; their directories, top first.
fn unpack_all(into: &Path, layers: Vec<Layer>) -> Vec<PathBuf> {
    let dirs = layers.into_iter().enumerate().map(|(i, layer)| {
        let dir = into.join(i.to_string());
        fs::create_dir(&dir).unwrap();
        let bytes = layer.build();
        let expected = Expected { blob: None, diff_id: &Digest::of(&bytes) };
        unpack(&bytes[..], expected, &dir, &Limits::default(), &|_| true).unwrap();
        dir
    });
    let mut dirs: Vec<PathBuf> = dirs.collect();
    dirs.reverse();
    dirs
}

/// What the kernel finds at `path` of a mounted image, with links resolved inside it.
fn through_kernel(mount: &Mount, path: &str) -> Option<Vec<u8>> {
    let root = rustix::fs::open(mount.path(), OFlags::PATH, Mode::empty()).unwrap();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let stat = rustix::fs::fstat(&fd).unwrap();
    let file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    file.then(|| read_limited(File::from(fd), 100).unwrap())
}

#[test]
fn the_same_is_read_as_through_overlayfs() {
    if not_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dirs = unpack_all(dir.path(), layers());
    let lower: Vec<&str> = dirs.iter().map(|dir| dir.to_str().unwrap()).collect();
    let mount = Mount::new("overlay", &[("lowerdir", &lower.join(":")), ("source", "test")]);
    let merged = MergedRoot::open(dirs).unwrap();
    let mut found = 0;
    for path in PATHS {
        let ours = merged.read(path, 100).ok().flatten();
        assert_eq!(ours, through_kernel(&mount, path), "{path}");
        found += usize::from(ours.is_some());
    }
    assert_eq!(found, 18, "enough of the paths lead to a file");
}

#[test]
fn a_walk_finds_the_same_from_wherever_it_is() {
    if not_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layers = vec![
        Layer::new().dir("a/", 0o755).dir("a/b/", 0o755).dir("a/b/c/", 0o755).dir("ab/", 0o755),
        Layer::new().dir("a/", 0o755).file("ab", "").dir("a-b/", 0o755),
        Layer::new().dir("a/", 0o755).dir("a/b/", 0o755).dir("d/", 0o755).symlink("l", "a"),
    ];
    let merged = MergedRoot::open(unpack_all(dir.path(), layers)).unwrap();
    let paths = ["", "a", "a-b", "a/b", "a/b/c", "a/x/y", "ab", "d", "d/a", "l", "l/b"];
    let lookup = |walk: &mut Walk<'_>, path: &str| {
        let parts = walk.to(path.as_bytes()).unwrap().to_vec();
        let above = walk.above().map(|(path, top)| (String::from_utf8_lossy(path).into(), top));
        let above: Vec<(String, usize)> = above.collect();
        if parts.is_empty() { (parts, Vec::new()) } else { (parts, above) }
    };
    let mut walk = Walk::new(&merged);
    for first in paths {
        for second in paths {
            lookup(&mut walk, first);
            let found = lookup(&mut walk, second);
            assert_eq!(found, lookup(&mut Walk::new(&merged), second), "{first}, {second}");
        }
    }
    expect![[r#"([2], [("a/b", 0), ("a", 0), ("", 0)])"#]]
        .assert_eq(&format!("{:?}", lookup(&mut walk, "a/b/c")));
}

fn check(path: &str, limit: u64, expected: &Expect) {
    if not_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let merged = MergedRoot::open(unpack_all(dir.path(), layers())).unwrap();
    expected.assert_eq(&match merged.read(path, limit) {
        Ok(content) => format!("{:?}", content.map(|content| String::from_utf8(content).unwrap())),
        Err(error) => chain(&error),
    });
}

#[test]
fn what_is_no_file_or_too_long_is_an_error() {
    check("etc/passwd", 5, &expect![[r#"Some("upper")"#]]);
    check(
        "etc/passwd",
        4,
        &expect![[
            r#"reading "etc/passwd" in the image failed: longer than the 4 bytes that are read at most"#
        ]],
    );
    check("etc", 100, &expect![[r#""etc" in the image is not a file"#]]);
    check("/", 100, &expect![[r#""/" in the image is not a file"#]]);
    check("fifo", 100, &expect![[r#""fifo" in the image is not a file"#]]);
    check(
        "loop",
        100,
        &expect![[r#""loop" in the image leads through more than 40 symbolic links"#]],
    );
    check("dangling", 100, &expect!["None"]);
}
