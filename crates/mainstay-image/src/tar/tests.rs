use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn list(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(Stream(bytes));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut left: u64 = entry.segments.iter().map(|segment| segment.length).sum();
        let mut content = Vec::new();
        while left > 0 {
            let mut part = vec![0; usize::try_from(left.min(512)).unwrap()];
            reader.read_content(&mut part)?;
            left -= part.len() as u64;
            content.extend(part);
        }
        entries.push((entry, content));
    }
    reader.finish()?;
    Ok(entries)
}

fn check(bytes: &[u8], expected: &Expect) {
    let text = match list(bytes) {
        Ok(entries) => {
            let line = |(entry, content): &(Entry, Vec<u8>)| {
                let mut line = format!(
                    "{:?} {} {:o} {}:{} {} bytes",
                    entry.kind,
                    String::from_utf8_lossy(&entry.path),
                    entry.mode,
                    entry.uid,
                    entry.gid,
                    entry.size
                );
                if !entry.link.is_empty() {
                    line += &format!(" -> {}", String::from_utf8_lossy(&entry.link));
                }
                if entry.segments.len() != 1 || entry.size != content.len() as u64 {
                    let segments =
                        entry.segments.iter().map(|s| format!("{}+{}", s.offset, s.length));
                    line += &format!(" [{}]", segments.collect::<Vec<_>>().join(" "));
                }
                for (name, value) in &entry.xattrs {
                    let name = String::from_utf8_lossy(name);
                    line += &format!(" {name}={}", value.escape_ascii());
                }
                line + "\n"
            };
            entries.iter().map(line).collect()
        }
        Err(error) => format!("{error}\n"),
    };
    expected.assert_eq(&text);
}

/// What GNU tar of this machine makes of `directory`.
#[expect(clippy::disallowed_methods, reason = "GNU tar is the reference that is compared with")]
fn gnu_tar(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("tar")
        .args(["--create", "--file=-", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args(arguments)
        .arg("--directory")
        .arg(directory)
        .arg(".")
        .output()
        .expect("tar is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(directory.path(), private).unwrap();
    fs::create_dir(path("d")).unwrap();
    fs::write(path("d/file"), "content").unwrap();
    fs::hard_link(path("d/file"), path("d/hard")).unwrap();
    std::os::unix::fs::symlink("../d/file", path("d/soft")).unwrap();
    directory
}

#[test]
fn every_format_of_gnu_tar_reads_the_same() {
    let directory = tree();
    let expected = expect![[r#"
        Directory ./ 700 0:0 0 bytes
        Directory ./d/ 755 0:0 0 bytes
        File ./d/file 644 0:0 7 bytes
        HardLink ./d/hard 644 0:0 0 bytes -> ./d/file
        Symlink ./d/soft 777 0:0 0 bytes -> ../d/file
    "#]];
    for format in ["v7", "ustar", "oldgnu", "gnu", "pax"] {
        check(&gnu_tar(directory.path(), &[&format!("--format={format}")]), &expected);
    }
}

#[test]
fn long_names_and_link_targets_in_gnu_and_pax_archives() {
    let directory = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "a".repeat(120), "b".repeat(120));
    fs::create_dir(directory.path().join("a".repeat(120))).unwrap();
    fs::write(directory.path().join(&long), "x").unwrap();
    std::os::unix::fs::symlink(&long, directory.path().join("soft")).unwrap();
    for format in ["gnu", "pax"] {
        let entries = list(&gnu_tar(directory.path(), &[&format!("--format={format}")])).unwrap();
        let paths: Vec<_> = entries.iter().map(|(e, _)| String::from_utf8_lossy(&e.path)).collect();
        let a = "a".repeat(120);
        assert_eq!(paths, ["./", &format!("./{a}/"), &format!("./{long}"), "./soft"], "{format}");
        assert_eq!(entries[3].0.link, long.as_bytes(), "{format}");
    }
}

#[test]
fn sparse_files_in_every_format() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = File::create(directory.path().join("sparse")).unwrap();
    // More segments than fit into a header, so that the extension blocks are used too.
    for i in 0..30_u64 {
        file.seek(SeekFrom::Start(i * 65_536)).unwrap();
        file.write_all(&[u8::try_from(i).unwrap() + 1; 4096]).unwrap();
    }
    file.set_len(4 << 20).unwrap();
    drop(file);
    let whole = fs::read(directory.path().join("sparse")).unwrap();
    for arguments in [
        ["--format=gnu", "--sparse"],
        ["--sparse", "--sparse-version=0.0"],
        ["--sparse", "--sparse-version=0.1"],
        ["--sparse", "--sparse-version=1.0"],
    ] {
        let format =
            if arguments[0].starts_with("--format") { "--format=gnu" } else { "--format=pax" };
        let archive = gnu_tar(directory.path(), &[format, arguments[0], arguments[1]]);
        let entries = list(&archive).unwrap();
        let (entry, content) = &entries[1];
        assert_eq!(entry.path, b"./sparse", "{arguments:?}");
        assert!(archive.len() < whole.len() / 8, "{arguments:?}: GNU tar left the holes out");
        let mut file = vec![0; usize::try_from(entry.size).unwrap()];
        let mut rest = &content[..];
        for segment in &entry.segments {
            let (start, length) = (
                usize::try_from(segment.offset).unwrap(),
                usize::try_from(segment.length).unwrap(),
            );
            let (part, tail) = rest.split_at(length);
            file[start..start + length].copy_from_slice(part);
            rest = tail;
        }
        assert!(file == whole, "{arguments:?}");
    }
}

#[test]
fn extended_headers_override_the_header() {
    let mut builder = ::tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([
            ("uid", &b"3000000"[..]),
            ("gid", b"4000000"),
            ("mtime", b"-1.5"),
            ("path", b"other/name"),
            ("comment", b"ignored"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n"),
        ])
        .unwrap();
    append(&mut builder, ::tar::EntryType::Regular, "name", b"abc", |_| {});
    let bytes = builder.into_inner().unwrap();
    check(
        &bytes,
        &expect![[r#"
            File other/name 644 3000000:4000000 3 bytes security.capability=\x01\x00\x00\x02\n
        "#]],
    );
    let mtime = list(&bytes).unwrap()[0].0.mtime;
    assert_eq!(mtime, Time { seconds: -2, nanoseconds: 500_000_000 });
}

/// Adds an entry with a GNU header that `change` had its way with.
fn append(
    builder: &mut ::tar::Builder<Vec<u8>>,
    kind: ::tar::EntryType,
    name: &str,
    content: &[u8],
    change: impl Fn(&mut ::tar::Header),
) {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    change(&mut header);
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

fn one(kind: ::tar::EntryType, content: &[u8], change: impl Fn(&mut ::tar::Header)) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    append(&mut builder, kind, "name", content, change);
    builder.into_inner().unwrap()
}

#[test]
fn what_is_no_archive_is_refused_with_its_place() {
    check(&[], &expect![""]);
    check(&[0; 512], &expect![""]);
    check(&[1; 512], &expect!["no tar header at byte 0: its checksum is wrong\n"]);
    check(
        &[1; 100],
        &expect!["archive ends in the middle of an entry, at byte 0: it is cut off\n"],
    );
    let whole = one(::tar::EntryType::Regular, &[7; 1000], |_| {});
    check(
        &whole[..1024],
        &expect![[r#"
            archive ends in the middle of an entry, at byte 1024: it is cut off
        "#]],
    );
    // Without the padding of the last block, and without the two blocks at the end.
    check(&whole[..1512], &expect!["File name 644 0:0 1000 bytes\n"]);
    let gap = [&whole[..1536], &[0; 512], &whole[..1536]].concat();
    check(&gap, &expect!["no tar header at byte 1536: its checksum is wrong\n"]);
}

#[test]
fn hostile_headers_are_refused() {
    check(
        &one(::tar::EntryType::new(b'V'), &[], |_| {}),
        &expect![[r#"tar entry "name" at byte 0 has the unsupported type 'V'
"#]],
    );
    let size = |header: &mut ::tar::Header| header.as_gnu_mut().unwrap().size = [0xff; 12];
    check(
        &one(::tar::EntryType::Regular, &[], size),
        &expect!["size of the tar entry at byte 0 is not a number in range\n"],
    );
    let uid = |header: &mut ::tar::Header| header.set_uid(1 << 40);
    check(
        &one(::tar::EntryType::Regular, &[], uid),
        &expect!["uid of the tar entry at byte 0 is not a number in range\n"],
    );
    let huge = |header: &mut ::tar::Header| header.set_size(1 << 40);
    check(
        &one(::tar::EntryType::XHeader, &[], huge),
        &expect!["extended header at byte 0 has 1099511627776 bytes: at most 1048576 are read\n"],
    );
    check(
        &one(::tar::EntryType::GNULongName, &[], huge),
        &expect!["extended header at byte 0 has 1099511627776 bytes: at most 1048576 are read\n"],
    );
    check(
        &one(::tar::EntryType::Regular, &[], huge),
        &expect![[r#"
            archive ends in the middle of an entry, at byte 1536: it is cut off
        "#]],
    );
    check(
        &one(::tar::EntryType::XHeader, b"7 path=", |_| {}),
        &expect!["extended header of the tar entry at byte 0 is broken\n"],
    );
    check(
        &one(::tar::EntryType::GNUSparse, &[0; 512], |_| {}),
        &expect!["sparse file at byte 0 has a broken map\n"],
    );
}

#[test]
fn hostile_sparse_maps_are_refused() {
    let sparse = |records: &[(&str, &[u8])], content: &[u8]| {
        let mut builder = ::tar::Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        append(&mut builder, ::tar::EntryType::Regular, "name", content, |_| {});
        builder.into_inner().unwrap()
    };
    let broken = expect!["sparse file at byte 1024 has a broken map\n"];
    // Overlapping, beyond the end, more than the content.
    for map in [&b"0,5,4,5"[..], b"0,5,100,5", b"0,5,10,6", b"18446744073709551615,10"] {
        check(&sparse(&[("GNU.sparse.size", b"50"), ("GNU.sparse.map", map)], &[1; 10]), &broken);
    }
    // An odd count, and no size: what contradicts itself in the extended header already.
    let contradiction = expect!["sparse file at byte 0 has a broken map\n"];
    check(
        &sparse(&[("GNU.sparse.size", b"50"), ("GNU.sparse.map", b"0,10,20")], &[1; 10]),
        &contradiction,
    );
    check(&sparse(&[("GNU.sparse.map", b"0,10")], &[1; 10]), &contradiction);
    let version = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.realsize", b"50")];
    for content in [&b"1\n0\n10\n"[..], &[b'9'; 512], b"99999999\n"] {
        check(&sparse(&version, &[content, &[0; 512][content.len()..]].concat()), &broken);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = list(&bytes);
        // The same with a right checksum, so that more than the first check is reached.
        if bytes.len() >= 512 {
            let mut header = ::tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&bytes[..512]);
            header.set_cksum();
            bytes[..512].copy_from_slice(header.as_bytes());
            let _ = list(&bytes);
        }
    }
}
