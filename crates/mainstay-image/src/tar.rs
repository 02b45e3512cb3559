//! A reader of tar archives that trusts nothing in them.
//!
//! Formats: v7, ustar, pax, GNU (long names, base-256 numbers, old sparse files), star. Sources:
//! POSIX.1-2017 `pax`, "Extended Description"; the GNU tar manual, "Tar Internals"; and for what
//! is tolerated, Go's `archive/tar`, since it reads and writes nearly every image in use.
//!
//! What bounds memory: extended headers and long names are limited to [`EXTENSION_MAX`] bytes,
//! sparse maps to [`sparse::SEGMENTS_MAX`] segments, and file contents are never held.

mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead, BufReader, Read, Seek};

use header::{BLOCK, Header};
pub(crate) use sparse::Segment;

/// The most bytes that an extended header or a long name may have. Source: `maxSpecialFileSize` in
/// Go's `archive/tar`.
pub(crate) const EXTENSION_MAX: u64 = 1 << 20;

/// What an entry of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A point in time as archives have it: seconds since 1970, which may be negative, and nanoseconds
/// from 0 to 999,999,999 after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// One entry of an archive, everything but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name as it stands in the archive: not checked, not even for `..`.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Where a hard or symbolic link leads, as it stands in the archive.
    pub(crate) link: Vec<u8>,
    /// The length of the file, holes included, in bytes.
    pub(crate) size: u64,
    /// Permission bits, set-id and sticky bits: 0 to 0o7777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Extended attributes, in the order of the archive.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where in the file the content belongs that follows in the archive, ascending.
    pub(crate) segments: Vec<Segment>,
    /// Where the content starts, in bytes from the start of the archive.
    pub(crate) position: u64,
}

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes themselves could not be read or decompressed.
    #[error("reading the archive failed at byte {position}")]
    Read {
        /// Bytes from the start of the (uncompressed) archive.
        position: u64,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The archive ends within an entry.
    #[error("archive ends in the middle of an entry, at byte {0}: it is cut off")]
    Truncated(u64),
    /// What should be a header is not one.
    #[error("no tar header at byte {0}: its checksum is wrong")]
    Checksum(u64),
    /// A number that is no number, or too large.
    #[error("{field} of the tar entry at byte {position} is not a number in range")]
    Number {
        /// Which one.
        field: &'static str,
        /// Bytes from the start of the archive.
        position: u64,
    },
    /// A broken extended header.
    #[error("extended header of the tar entry at byte {0} is broken")]
    Pax(u64),
    /// An extended header or long name that is too long to be honest.
    #[error(
        "extended header at byte {position} has {size} bytes: at most {EXTENSION_MAX} are read"
    )]
    Extension {
        /// Bytes from the start of the archive.
        position: u64,
        /// Its length.
        size: u64,
    },
    /// A broken map of a sparse file.
    #[error("sparse file at byte {0} has a broken map")]
    Sparse(u64),
    /// A kind of entry that has no place in a file system.
    #[error("tar entry {path:?} at byte {position} has the unsupported type {flag:?}")]
    Type {
        /// Its name.
        path: String,
        /// Bytes from the start of the archive.
        position: u64,
        /// The type flag.
        flag: char,
    },
}

/// Something that is read from front to back, leaving out what is of no interest.
pub(crate) trait Source: Read {
    /// Passes over the next `count` bytes, or as many as there are.
    fn skip(&mut self, count: u64) -> io::Result<u64>;
}

/// A source that cannot seek: a decompressor.
pub(crate) struct Stream<R>(pub(crate) R);

/// The entries of an archive, one after the other.
pub(crate) struct Reader<S> {
    source: S,
    /// Bytes consumed so far.
    position: u64,
    /// Content of the current entry that was not consumed yet.
    content: u64,
    /// What follows that content up to the next block.
    padding: u64,
    /// Whether the mark of the end was read, which an archive that was cut off lacks.
    ended: bool,
}

// === impl Source ===

impl<R: BufRead> Source for Stream<R> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut left = count;
        while left > 0 {
            let available = self.0.fill_buf()?.len();
            if available == 0 {
                break;
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(available);
            self.0.consume(step);
            left -= step as u64;
        }
        Ok(count - left)
    }
}

impl<R: BufRead> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read + Seek> Source for BufReader<R> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        // Seeking past the end succeeds; that the archive is cut off shows at the next header, or
        // when the content is read.
        let mut left = count;
        while left > 0 {
            let step = i64::try_from(left).unwrap_or(i64::MAX);
            self.seek_relative(step)?;
            left -= step.unsigned_abs();
        }
        Ok(count)
    }
}

// === impl Reader ===

impl<S: Source> Reader<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, position: 0, content: 0, padding: 0, ended: false }
    }

    /// The next entry, or `None` at the end of the archive. What was left of the content of the
    /// entry before is passed over.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut long_path = None;
        let mut long_link = None;
        let mut pax = pax::Records::default();
        loop {
            self.finish_entry()?;
            let position = self.position;
            let Some(header) = self.header()? else { return Ok(None) };
            match header.flag() {
                b'x' => pax = pax::Records::parse(&self.extension(&header, position)?, position)?,
                // Defaults for all that follows; nobody writes more than a comment into them.
                b'g' => drop(self.extension(&header, position)?),
                b'L' => long_path = Some(until_nul(self.extension(&header, position)?)),
                b'K' => long_link = Some(until_nul(self.extension(&header, position)?)),
                _ => {
                    let entry = self.entry(&header, position, pax, long_path, long_link)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        position: u64,
        pax: pax::Records,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let path = pax.path.or(long_path).unwrap_or_else(|| header.path());
        let link = pax.link.or(long_link).unwrap_or_else(|| header.link());
        let kind = match header.flag() {
            // Archives of before POSIX mark a directory by a slash only.
            b'\0' if path.ends_with(b"/") => Kind::Directory,
            b'0' | b'\0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => {
                let path = String::from_utf8_lossy(&path).into_owned();
                return Err(TarError::Type { path, position, flag: char::from(flag) });
            }
        };
        let stored = match (kind, pax.size) {
            (Kind::File, Some(size)) => size,
            (Kind::File, None) => header.size(position)?,
            // The other kinds have no content, whatever the field says, as Go reads them.
            _ => 0,
        };
        self.content = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;

        let (size, segments) = match (kind, header.flag(), pax.sparse) {
            (Kind::File, b'S', _) => self.old_gnu_map(header, position)?,
            (Kind::File, _, Some(map)) => self.pax_map(map, position)?,
            _ => (stored, vec![Segment { offset: 0, length: stored }]),
        };
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Time { seconds: header.mtime(position)?, nanoseconds: 0 },
        };
        Ok(Entry {
            path: pax.sparse_name.unwrap_or(path),
            kind,
            link,
            size,
            mode: header.mode(position)?,
            uid: pax.uid.map_or_else(|| header.uid(position), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(position), Ok)?,
            mtime,
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => header.device(position)?,
                _ => (0, 0),
            },
            xattrs: pax.xattrs,
            segments,
            position: self.position,
        })
    }

    /// The map of a sparse file in GNU's old format: four segments in the header, the others in
    /// blocks between it and the content.
    fn old_gnu_map(
        &mut self,
        header: &Header,
        position: u64,
    ) -> Result<(u64, Vec<Segment>), TarError> {
        let size = header.real_size(position)?;
        let mut segments = Vec::new();
        let mut more = header.sparse_segments(&mut segments, position)?;
        while more {
            if segments.len() > sparse::SEGMENTS_MAX {
                return Err(TarError::Sparse(position));
            }
            let mut block = [0; BLOCK];
            self.fill(&mut block)?;
            more = header::extended_segments(&block, &mut segments, position)?;
        }
        sparse::check(&segments, size, self.content).ok_or(TarError::Sparse(position))?;
        Ok((size, segments))
    }

    /// The map of a sparse file in a pax format: in the extended header, or since version 1.0 at
    /// the start of the content.
    fn pax_map(
        &mut self,
        map: pax::SparseMap,
        position: u64,
    ) -> Result<(u64, Vec<Segment>), TarError> {
        let segments = match map.segments {
            Some(segments) => segments,
            None => {
                let mut decoder = sparse::InContent::default();
                let mut block = [0; BLOCK];
                loop {
                    // Each block is a part of the content and cannot be longer than it.
                    let left = self.content.checked_sub(BLOCK as u64);
                    self.content = left.ok_or(TarError::Sparse(position))?;
                    self.fill(&mut block)?;
                    if decoder.block(&block).ok_or(TarError::Sparse(position))? {
                        break decoder.segments;
                    }
                }
            }
        };
        sparse::check(&segments, map.size, self.content).ok_or(TarError::Sparse(position))?;
        Ok((map.size, segments))
    }

    /// The content of a long name or an extended header.
    fn extension(&mut self, header: &Header, position: u64) -> Result<Vec<u8>, TarError> {
        let size = header.size(position)?;
        if size > EXTENSION_MAX {
            return Err(TarError::Extension { position, size });
        }
        let length = usize::try_from(size).map_err(|_| TarError::Extension { position, size })?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(bytes)
    }

    /// The next header, or `None` at the end: two blocks of zeros, or nothing at all.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let position = self.position;
        let mut block = [0; BLOCK];
        for first in [true, false] {
            let mut filled = 0;
            while filled < BLOCK {
                match self.source.read(&mut block[filled..]) {
                    Ok(0) if filled == 0 => return Ok(None),
                    Ok(0) => return Err(TarError::Truncated(self.position)),
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(source) => return Err(TarError::Read { position: self.position, source }),
                }
            }
            self.position += BLOCK as u64;
            if block != [0; BLOCK] {
                let header = if first { Header::parse(block) } else { None };
                return header.map(Some).ok_or(TarError::Checksum(position));
            }
        }
        self.ended = true;
        Ok(None)
    }

    /// Whether the archive, read to its end, has the mark that belongs there.
    pub(crate) fn has_end(&self) -> bool {
        self.ended
    }

    fn finish_entry(&mut self) -> Result<(), TarError> {
        let left = self.content.saturating_add(self.padding);
        let position = self.position;
        let skipped =
            self.source.skip(left).map_err(|source| TarError::Read { position, source })?;
        self.position = self.position.saturating_add(skipped);
        // The last block of an archive may lack its padding, as Go tolerates.
        if skipped < self.content {
            return Err(TarError::Truncated(self.position));
        }
        self.content = 0;
        self.padding = 0;
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        let position = self.position;
        self.source.read_exact(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated(position),
            _ => TarError::Read { position, source },
        })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// Reads content of the current entry into all of `buffer`, which must not be longer than what
    /// is left of it.
    pub(crate) fn read_content(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        let left = self.content.checked_sub(buffer.len() as u64);
        self.content = left.ok_or(TarError::Truncated(self.position))?;
        self.fill(buffer)
    }
}

impl<R: BufRead> Reader<Stream<R>> {
    /// Passes over everything after the last entry, so that the source has been read to its end.
    pub(crate) fn finish(&mut self) -> Result<(), TarError> {
        let position = self.position;
        let skipped = self.source.skip(u64::MAX);
        self.position += skipped.map_err(|source| TarError::Read { position, source })?;
        Ok(())
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests;
