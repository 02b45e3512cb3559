//! The end of a container's log.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::read::parse;

/// Bytes of a log that are looked at. Each line of it has a time before it, and a long one is in parts.
const WINDOW: u64 = 64 * 1024;

/// The text at the end of a log, both outputs of the container: at most so many lines of it and so many bytes.
///
/// As the kubelet, it looks at the file only that is being written.
///
/// # Errors
///
/// When it cannot be read; one that was never written to is absent.
pub(crate) fn last_lines(path: &Path, lines: usize, bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start))?;
    let mut window = Vec::new();
    file.take(WINDOW).read_to_end(&mut window)?;
    let mut entries = window.split_inclusive(|byte| *byte == b'\n');
    if start > 0 {
        // Most likely a part of one.
        entries.next();
    }
    let (mut text, mut ends) = (Vec::new(), Vec::new());
    // The container has ended, so a last entry without an end stays as it is, and is not shown.
    for line in entries.filter(|line| line.ends_with(b"\n")) {
        match parse(line) {
            Some(entry) => {
                text.extend_from_slice(entry.text);
                if entry.partial {
                    continue;
                }
                text.push(b'\n');
            }
            None => text.extend_from_slice(line),
        }
        ends.push(text.len());
    }
    let of_lines = ends.len().checked_sub(lines + 1).map_or(0, |before| ends[before]);
    let from = of_lines.max(text.len().saturating_sub(bytes));
    Ok(text.split_off(from))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::fs;

    use super::*;

    #[test]
    fn the_end_of_a_log_is_cut_by_lines_and_by_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let check = |log: &str, lines, bytes, expected: &str| {
            fs::write(&path, log).unwrap();
            let text = last_lines(&path, lines, bytes).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), expected, "{lines} {bytes}");
        };
        let time = "2026-01-02T03:04:05.6Z";
        let log = format!(
            "{time} stdout F one\n{time} stderr P tw\n{time} stderr F o\n{time} stdout F \n\
             not an entry\n{time} stdout F unfinis"
        );
        check("", 80, 2048, "");
        check(&log, 80, 2048, "one\ntwo\n\nnot an entry\n");
        check(&log, 3, 2048, "two\n\nnot an entry\n");
        check(&log, 80, 7, " entry\n");
        check(&log, 1, 2048, "not an entry\n");
        let mut long = String::new();
        for number in 0..10_000 {
            writeln!(long, "{time} stdout F {number}").unwrap();
        }
        check(&long, 2, 2048, "9998\n9999\n");
    }
}
