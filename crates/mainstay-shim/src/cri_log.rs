//! Container logs in the format of the CRI.
//!
//! A line is `<time> <stream> <tag> <text>`, where the tag is `F` for a whole line and `P` for a
//! part of one that is too long. Source: `pkg/kubelet/kuberuntime/logs/logs.go`, `parseCRILog`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The most text of one line that is written at once; longer ones are cut into parts. The same
/// as containerd's `max_container_log_line_size`.
const MAX_LINE: usize = 16 * 1024;

/// Which of a process's outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The log file of one container.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// Whether the last write failed, so that a failure is told once and not for every line.
    failing: bool,
}

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open_file(path)?, failing: false })
    }

    /// Goes on in a new file of the same name. Stays with the old one if that fails.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = open_file(&self.path)?;
        Ok(())
    }

    /// Writes lines that [`Lines`] made. Returns the first error after a success.
    pub(crate) fn write(&mut self, lines: &[u8]) -> Option<io::Error> {
        if lines.is_empty() {
            return None;
        }
        match self.file.write_all(lines) {
            Ok(()) => {
                self.failing = false;
                None
            }
            Err(error) => (!std::mem::replace(&mut self.failing, true)).then_some(error),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Cuts what a process writes into lines.
#[derive(Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Lines {
    /// Takes what was read and appends the lines that are complete to `out`.
    pub(crate) fn push(&mut self, stream: Stream, read: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        let prefix = format!("{now:.9} {} ", stream.name());
        let mut rest = read;
        while !rest.is_empty() {
            let room = MAX_LINE - self.begun.len();
            let within = &rest[..rest.len().min(room)];
            let (text, tag) = match within.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let text = &rest[..end];
                    rest = &rest[end + 1..];
                    (text, b'F')
                }
                None if within.len() == room => {
                    let text = &rest[..room];
                    rest = &rest[room..];
                    (text, b'P')
                }
                None => {
                    self.begun.extend_from_slice(rest);
                    return;
                }
            };
            write_line(&prefix, tag, &self.begun, text, out);
            // The memory goes back: a shim that once saw a long line stays as small as before.
            self.begun = Vec::new();
        }
    }

    /// The stream has ended; what was begun is a line.
    pub(crate) fn finish(&mut self, stream: Stream, now: Timestamp, out: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            let prefix = format!("{now:.9} {} ", stream.name());
            write_line(&prefix, b'F', &self.begun, &[], out);
            self.begun = Vec::new();
        }
    }
}

fn write_line(prefix: &str, tag: u8, begun: &[u8], text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(&[tag, b' ']);
    out.extend_from_slice(begun);
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected: &[(char, usize, &str)]) {
        let now = Timestamp::from_nanosecond(1_000_000_007).unwrap();
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(Stream::Stdout, piece, now, &mut out);
        }
        lines.finish(Stream::Stdout, now, &mut out);
        let text = String::from_utf8(out).unwrap();
        let got: Vec<_> = text
            .lines()
            .map(|line| {
                let line = line.strip_prefix("1970-01-01T00:00:01.000000007Z stdout ").unwrap();
                let (tag, text) = line.split_once(' ').unwrap();
                (tag.chars().next().unwrap(), text.len(), &text[..text.len().min(3)])
            })
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_taken_apart_from_one() {
        check(&[b"a", b"b\nc\n\nd"], &[('F', 2, "ab"), ('F', 1, "c"), ('F', 0, ""), ('F', 1, "d")]);
    }

    #[test]
    fn a_long_line_comes_in_parts() {
        let long = vec![b'x'; 2 * MAX_LINE + 5];
        let parts = [('P', MAX_LINE, "xxx"), ('P', MAX_LINE, "xxx"), ('F', 5, "xxx")];
        check(&[&long, b"\n"], &parts);
        check(&[&long[..7], &long[7..], b"\n"], &parts);
    }

    #[test]
    fn a_failing_file_is_told_of_once_and_again_after_it_had_worked() {
        let mut log = Log::open(Path::new("/dev/full")).unwrap();
        assert!(log.write(b"x\n").is_some());
        assert!(log.write(b"x\n").is_none());
        log.file = OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert!(log.write(b"x\n").is_none());
        log.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(log.write(b"x\n").is_some());
    }
}
