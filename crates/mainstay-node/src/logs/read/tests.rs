use std::fs;
use std::io::Write;

use super::*;

fn line(second: u8, text: &str) -> String {
    format!("2026-01-02T03:04:0{second}.5Z stdout F {text}\n")
}

fn all(reader: &mut LogReader) -> String {
    let mut out = Vec::new();
    reader.read(&mut out, usize::MAX).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn rotated_parts_come_first_and_options_choose() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let older = directory.path().join("0.log.20260102-030400");
    fs::write(&older, line(0, "zero") + &line(1, "one")).unwrap();
    let partial = "2026-01-02T03:04:02Z stderr P tw\n2026-01-02T03:04:02Z stderr F o\n";
    fs::write(&path, partial.to_owned() + &line(3, "") + "not an entry\n").unwrap();
    let check = |options, wanted: &str| {
        let mut reader = LogReader::open(&path, options).unwrap();
        assert_eq!(all(&mut reader), wanted, "{options:?}");
        assert_eq!(all(&mut reader), "", "{options:?}");
    };
    let options = LogOptions::default();
    check(options, "zero\none\ntwo\n\nnot an entry\n");
    check(LogOptions { tail: Some(3), ..options }, "two\n\nnot an entry\n");
    check(LogOptions { tail: Some(0), ..options }, "");
    check(LogOptions { tail: Some(100), ..options }, "zero\none\ntwo\n\nnot an entry\n");
    let stdout = Some(LogStream::Stdout);
    check(LogOptions { stream: stdout, ..options }, "zero\none\n\nnot an entry\n");
    check(LogOptions { stream: Some(LogStream::Stderr), ..options }, "two\nnot an entry\n");
    let since = Some("2026-01-02T03:04:02Z".parse().unwrap());
    check(LogOptions { since, ..options }, "two\n\nnot an entry\n");
    check(LogOptions { since, tail: Some(2), ..options }, "\nnot an entry\n");
    let timestamps = LogOptions { timestamps: true, tail: Some(3), ..options };
    let wanted = "2026-01-02T03:04:02Z two\n2026-01-02T03:04:03.5Z \nnot an entry\n";
    check(timestamps, wanted);
}

#[test]
fn what_is_added_later_is_read_through_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let mut file = File::create(&path).unwrap();
    let mut reader = LogReader::open(&path, LogOptions::default()).unwrap();
    assert_eq!(all(&mut reader), "");
    let (front, back) = (line(1, "one"), line(2, "two"));
    file.write_all(&front.as_bytes()[..10]).unwrap();
    assert_eq!(all(&mut reader), "");
    file.write_all(&front.as_bytes()[10..]).unwrap();
    assert_eq!(all(&mut reader), "one\n");
    fs::rename(&path, directory.path().join("0.log.20260102-030405")).unwrap();
    assert_eq!(all(&mut reader), "");
    // The writer has not heard of the rotation yet.
    file.write_all(back.as_bytes()).unwrap();
    fs::write(&path, line(3, "three")).unwrap();
    assert_eq!(all(&mut reader), "two\nthree\n");
}

#[test]
fn a_reader_that_is_slower_than_rotations_misses_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let rotate = |second: u8| {
        fs::rename(&path, directory.path().join(format!("0.log.20260102-03040{second}")))
    };
    fs::write(&path, line(0, "zero")).unwrap();
    rotate(0).unwrap();
    fs::write(&path, line(1, "one")).unwrap();
    let mut reader = LogReader::open(&path, LogOptions::default()).unwrap();
    assert_eq!(all(&mut reader), "zero\none\n");
    for (second, text) in [(2, "two"), (3, "three"), (4, "four")] {
        rotate(second).unwrap();
        fs::write(&path, line(second, text)).unwrap();
    }
    assert_eq!(all(&mut reader), "two\nthree\nfour\n");
    // Also when the one that it was at is gone.
    for (second, text) in [(5, "five"), (6, "six")] {
        rotate(second).unwrap();
        fs::write(&path, line(second, text)).unwrap();
    }
    for second in [0, 2, 3, 4, 5] {
        fs::remove_file(directory.path().join(format!("0.log.20260102-03040{second}"))).unwrap();
    }
    assert_eq!(all(&mut reader), "five\nsix\n");
}

#[test]
fn reading_stops_where_it_is_told_to_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    fs::write(&path, line(1, "one") + &line(2, "two")).unwrap();
    let mut reader = LogReader::open(&path, LogOptions::default()).unwrap();
    let mut out = Vec::new();
    reader.read(&mut out, 1).unwrap();
    assert_eq!(out, b"one\n");
    reader.read(&mut out, 1).unwrap();
    assert_eq!(out, b"one\ntwo\n");
}
