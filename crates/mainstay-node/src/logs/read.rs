//! Reading a container's log.
//!
//! Source: `pkg/kubelet/kuberuntime/logs/logs.go` for what the options mean. Unlike the kubelet,
//! which reads the current file only, this goes through the rotated ones too.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Which lines, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Only lines written since then.
    pub since: Option<Timestamp>,
    /// Whether each line starts with its time.
    pub timestamps: bool,
    /// Only what was written to this; `None` is both.
    pub stream: Option<LogStream>,
}

/// Which of a container's outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Reads the log of one container from its first wanted line on, and what is added to it later.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    options: LogOptions,
    /// Files that are still to be read, the oldest first; the last one is being written.
    files: VecDeque<BufReader<File>>,
    /// Lines to pass over before the wanted ones.
    skip: usize,
    /// An entry of which the end has not been written yet.
    unfinished: Vec<u8>,
    /// Whether the line that is being read goes on in the next entry.
    within_line: bool,
}

/// One entry: a line, or a part of one.
pub(super) struct Entry<'a> {
    time: &'a str,
    stream: LogStream,
    /// Whether the line goes on in the next entry of the same stream.
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

impl LogReader {
    /// Opens a log.
    ///
    /// # Errors
    ///
    /// When it cannot be read; one that was never written to is absent.
    pub fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        let mut files = VecDeque::new();
        for part in super::rotated(path)? {
            match File::open(part) {
                // The oldest one went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => files.push_back(BufReader::new(other?)),
            }
        }
        match File::open(path) {
            // It is being rotated; its new file is found when it is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !files.is_empty() => {}
            other => files.push_back(BufReader::new(other?)),
        }
        let mut reader = Self {
            path: path.to_owned(),
            options,
            files,
            skip: 0,
            unfinished: Vec::new(),
            within_line: false,
        };
        reader.pass_over()?;
        Ok(reader)
    }

    /// Adds to `out` what there is and has not been read yet, up to about `most` bytes. Adds
    /// nothing when there is nothing new.
    pub fn read(&mut self, out: &mut Vec<u8>, most: usize) -> io::Result<()> {
        let start = out.len();
        while out.len() - start < most {
            if self.next_entry()? {
                let entry = std::mem::take(&mut self.unfinished);
                self.take_in(&entry, out);
            } else if !self.next_file()? {
                break;
            }
        }
        Ok(())
    }

    /// Finds out how many lines come before the wanted ones, and starts again.
    fn pass_over(&mut self) -> io::Result<()> {
        let Some(tail) = self.options.tail else { return Ok(()) };
        let options = self.options;
        let mut lines = 0usize;
        for file in &mut self.files {
            let mut entry = Vec::new();
            while file.read_until(b'\n', &mut entry)? > 0 {
                let ends = parse(&entry).is_none_or(|entry| !entry.partial);
                let wanted = parse(&entry).is_none_or(|entry| options.wants(&entry));
                lines += usize::from(ends && wanted && entry.ends_with(b"\n"));
                entry.clear();
            }
            file.rewind()?;
        }
        self.skip = lines.saturating_sub(tail);
        Ok(())
    }

    /// Completes the entry that is being read, if its end is there.
    fn next_entry(&mut self) -> io::Result<bool> {
        let Some(file) = self.files.front_mut() else { return Ok(false) };
        file.read_until(b'\n', &mut self.unfinished)?;
        Ok(self.unfinished.ends_with(b"\n"))
    }

    /// Goes on to the next file. Returns whether there may be something to read now.
    fn next_file(&mut self) -> io::Result<bool> {
        if self.files.len() > 1 {
            self.files.pop_front();
            self.unfinished.clear();
            return Ok(true);
        }
        let newest = match File::open(&self.path) {
            // It is being rotated, or was removed with its container.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if let Some(present) = self.files.front() {
            let (present, newest) = (present.get_ref().metadata()?, newest.metadata()?);
            if (present.dev(), present.ino()) == (newest.dev(), newest.ino()) {
                return Ok(false);
            }
        }
        // The present file is looked at once more before it is left: it was written to until the
        // newest one was there.
        self.files.push_back(BufReader::new(newest));
        Ok(true)
    }

    fn take_in(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let entry = parse(line);
        let (partial, wanted) = match &entry {
            Some(entry) => (entry.partial, self.options.wants(entry)),
            None => (false, true),
        };
        if !wanted {
            return;
        }
        if self.skip > 0 {
            self.skip -= usize::from(!partial);
            return;
        }
        let Some(entry) = entry else {
            // Somebody else wrote it, and it is shown as it is.
            out.extend_from_slice(line);
            return;
        };
        if self.options.timestamps && !self.within_line {
            out.extend_from_slice(entry.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(entry.text);
        if !partial {
            out.push(b'\n');
        }
        self.within_line = partial;
    }
}

impl LogOptions {
    fn wants(&self, entry: &Entry<'_>) -> bool {
        if self.stream.is_some_and(|stream| stream != entry.stream) {
            return false;
        }
        let Some(since) = self.since else { return true };
        entry.time.parse::<Timestamp>().map_or(true, |time| time >= since)
    }
}

/// `<time> <stream> <tags> <text>`. Source: `pkg/kubelet/kuberuntime/logs/logs.go`, `parseCRILog`.
pub(super) fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(words.next()?).ok()?;
    let stream = match words.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let tags = words.next()?;
    let text = words.next()?;
    let tag = tags.split(|byte| *byte == b':').next()?;
    Some(Entry { time, stream, partial: tag == b"P", text })
}

#[cfg(test)]
mod tests {
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
}
