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
        let mut reader = Self {
            path: path.to_owned(),
            options,
            files: with_older(path, File::open(path))?,
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
        let Some(present) = self.files.front().map(|it| identity(it.get_ref())).transpose()? else {
            return Ok(false);
        };
        if identity(&newest)? == present {
            return Ok(false);
        }
        // There may have been more than one rotation since. What is not there any more was the oldest.
        let mut later = with_older(&self.path, Ok(newest))?;
        let known = identities(&later)?.iter().rposition(|it| *it == present);
        later.drain(..known.map_or(0, |at| at + 1));
        // The present file is looked at once more before it is left: it was written to until the
        // newest one was there.
        self.files.append(&mut later);
        Ok(self.files.len() > 1)
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

/// The files of a log, the oldest first, of which the newest one has been opened already: if it is renamed meanwhile,
/// it is one of the others, and none is missing.
///
/// # Errors
///
/// When one cannot be read, or there is none.
fn with_older(path: &Path, newest: io::Result<File>) -> io::Result<VecDeque<BufReader<File>>> {
    let mut files = VecDeque::new();
    for part in super::rotated(path)? {
        match File::open(part) {
            // The oldest one went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => files.push_back(BufReader::new(other?)),
        }
    }
    match newest {
        // It is being rotated; its new file is found when it is there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !files.is_empty() => {}
        newest => {
            let newest = newest?;
            if !identities(&files)?.contains(&identity(&newest)?) {
                files.push_back(BufReader::new(newest));
            }
        }
    }
    Ok(files)
}

/// What a file is told from others by, whatever it is called.
fn identity(file: &File) -> io::Result<(u64, u64)> {
    let status = file.metadata()?;
    Ok((status.dev(), status.ino()))
}

fn identities(files: &VecDeque<BufReader<File>>) -> io::Result<Vec<(u64, u64)>> {
    files.iter().map(|file| identity(file.get_ref())).collect()
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
mod tests;
