//! The members of an archive or layout directory, by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::ImportProblem;
use crate::compression::{Compression, START, decompress};
use crate::layer::{EntryProblem, LayerPath, PATH_MAX};
use crate::space::Space;
use crate::store::Store;
use crate::tar::{Kind, Reader, TarError};

/// The most members that an archive may have: each is remembered.
const MEMBERS_MAX: usize = 100_000;
/// The most bytes that their names, and what they are links to, may have altogether.
const NAMES_MAX: usize = 16 << 20;
/// The most links from one member to the next.
const LINKS_MAX: usize = 8;
/// How much is copied at a time, in bytes.
const BUFFER: usize = 256 << 10;

/// Where the members are.
pub(super) enum Source {
    /// A directory that was unpacked by somebody.
    Directory(OwnedFd),
    /// An uncompressed tar archive: the file itself, or what was decompressed of it.
    Tar { file: File, members: BTreeMap<Vec<u8>, Member>, has_end: bool },
}

/// Where in an archive a member is.
pub(super) enum Member {
    Content { position: u64, size: u64 },
    Link(Vec<u8>),
}

/// The content of a member, to be read once.
pub(super) struct Content<'a> {
    pub(super) reader: Box<dyn Read + Send + 'a>,
    pub(super) size: u64,
}

/// A part of a file.
struct Section<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

// === impl Source ===

impl Source {
    /// Opens the archive or directory at `path`. A compressed archive is decompressed into a
    /// nameless file of the store first, since its documents may stand after its layers.
    pub(super) fn open(path: &Path, store: &Store) -> Result<Self, ImportProblem> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty());
        let fd = fd.map_err(|errno| ImportProblem::Open(errno.into()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| ImportProblem::Open(errno.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Ok(Self::Directory(fd)),
            FileType::RegularFile => {}
            _ => return Err(ImportProblem::NotAFile),
        }
        let file = File::from(fd);
        let mut start = [0; START];
        let length = file.read_at(&mut start, 0).map_err(ImportProblem::Open)?;
        let file = match Compression::of(&start[..length])? {
            Compression::None => file,
            Compression::Gzip | Compression::Zstd => spool(&file, store)?,
        };
        let (members, has_end) = index(&file)?;
        Ok(Self::Tar { file, members, has_end })
    }

    /// Why there is no member that every image archive has.
    pub(super) fn no_image(&self) -> ImportProblem {
        match self {
            Self::Tar { file, has_end: false, .. } => match file.metadata() {
                Ok(stat) => TarError::Truncated(stat.len()).into(),
                Err(error) => ImportProblem::Open(error),
            },
            Self::Directory(_) | Self::Tar { .. } => ImportProblem::NotAnImage,
        }
    }

    /// The member `name`, or `None` if there is none.
    pub(super) fn get(&self, name: &str) -> Result<Option<Content<'_>>, ImportProblem> {
        let path = member_path(name.as_bytes())?;
        match self {
            Self::Directory(root) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let failed = |errno: Errno| ImportProblem::Read {
                    member: name.into(),
                    source: errno.into(),
                };
                let fd = match rustix::fs::openat2(root, &path[..], flags, Mode::empty(), resolve) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT) => return Ok(None),
                    Err(Errno::XDEV) => {
                        return Err(ImportProblem::MemberEscapes { member: name.into() });
                    }
                    Err(errno) => return Err(failed(errno)),
                };
                let stat = rustix::fs::fstat(&fd).map_err(failed)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(ImportProblem::MemberNotAFile { member: name.into() });
                }
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                Ok(Some(Content { reader: Box::new(File::from(fd)), size }))
            }
            Self::Tar { file, members, .. } => {
                let mut path = path;
                for _ in 0..LINKS_MAX {
                    match members.get(&path) {
                        None => return Ok(None),
                        Some(Member::Link(target)) => path.clone_from(target),
                        Some(&Member::Content { position, size }) => {
                            let end = position.saturating_add(size);
                            let section = Section { file, position, end };
                            return Ok(Some(Content { reader: Box::new(section), size }));
                        }
                    }
                }
                Err(ImportProblem::MemberLinks { member: name.into() })
            }
        }
    }
}

/// Copies the decompressed content of `file` to where it can be read in any order.
fn spool(file: &File, store: &Store) -> Result<File, ImportProblem> {
    let mut content = decompress(file)?;
    let mut spool = store.spool()?;
    let mut buffer = vec![0; BUFFER];
    let mut space = Space::new(store.limits().keep_free);
    loop {
        let n = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ImportProblem::Decompress(error)),
        };
        space.spend(n as u64, &spool)?;
        spool.write_all(&buffer[..n]).map_err(ImportProblem::Spool)?;
    }
    spool.rewind().map_err(ImportProblem::Spool)?;
    Ok(spool)
}

fn index(file: &File) -> Result<(BTreeMap<Vec<u8>, Member>, bool), ImportProblem> {
    let length = file.metadata().map_err(ImportProblem::Open)?.len();
    let mut members = BTreeMap::new();
    let mut names = 0;
    let mut archive = Reader::new(BufReader::new(file));
    while let Some(entry) = archive.next_entry()? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let path = member_path(&entry.path)?;
        let member = match entry.kind {
            Kind::File => {
                let [segment] = entry.segments[..] else {
                    return Err(ImportProblem::MemberNotAFile { member: name });
                };
                if segment.offset != 0 || segment.length != entry.size {
                    return Err(ImportProblem::MemberNotAFile { member: name });
                }
                // Seeking over content does not notice that it is cut off.
                if entry.position.checked_add(entry.size).is_none_or(|end| end > length) {
                    return Err(TarError::Truncated(length).into());
                }
                Member::Content { position: entry.position, size: entry.size }
            }
            Kind::HardLink => Member::Link(member_path(&entry.link)?),
            // `docker save` of old links a layer that comes twice, relative to where the link is.
            Kind::Symlink if entry.link.len() > PATH_MAX => {
                let problem = EntryProblem::TooLong;
                return Err(ImportProblem::MemberName { member: name, problem });
            }
            Kind::Symlink => Member::Link(beside(&path, &entry.link)),
            Kind::Directory | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => continue,
        };
        names += path.len();
        if let Member::Link(target) = &member {
            names += target.len();
        }
        members.insert(path, member);
        if members.len() > MEMBERS_MAX || names > NAMES_MAX {
            return Err(ImportProblem::TooManyMembers);
        }
    }
    Ok((members, archive.has_end()))
}

fn member_path(name: &[u8]) -> Result<Vec<u8>, ImportProblem> {
    let path = LayerPath::parse(name).map_err(|problem| ImportProblem::MemberName {
        member: String::from_utf8_lossy(name).into_owned(),
        problem,
    })?;
    Ok(path.as_bytes().to_vec())
}

/// What a symbolic link in place of the member `path` leads to. Above the root is the root: there
/// is nothing but members to find.
fn beside(path: &[u8], target: &[u8]) -> Vec<u8> {
    let parent = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &path[..slash]);
    let start = if target.starts_with(b"/") { b"" } else { parent };
    let mut components: Vec<&[u8]> = Vec::new();
    for component in start.split(|b| *b == b'/').chain(target.split(|b| *b == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            component => components.push(component),
        }
    }
    components.join(&b'/')
}

// === impl Section ===

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let n = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}
