//! Reading files of an image as a container would see them, without mounting it.
//!
//! Source: kernel documentation, `filesystems/overlayfs.rst`, sections "Directories" and
//! "whiteouts and opaque directories".

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::durable::{FileError, at, read_limited};
use crate::unpack::{OPAQUE, is_whiteout};

/// The most symbolic links that are followed on the way to a file. Source: `MAXSYMLINKS` of the
/// kernel.
const LINKS_MAX: usize = 40;

/// The layers of an image, seen as one tree.
#[derive(Debug)]
pub struct MergedRoot {
    /// Top first.
    layers: Vec<OwnedFd>,
}

/// Why a file of an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MergedError {
    /// Links in a circle.
    #[error("{path:?} in the image leads through more than {LINKS_MAX} symbolic links")]
    TooManyLinks {
        /// What was to be read.
        path: String,
    },
    /// A directory, device or the like.
    #[error("{path:?} in the image is not a file")]
    NotAFile {
        /// What was to be read.
        path: String,
    },
    /// Reading failed, or the file is longer than was asked for.
    #[error("reading {path:?} in the image failed")]
    Read {
        /// What was to be read.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A directory on the way: its path, without symbolic links in it, and the layers that have a part
/// of it.
struct Directory {
    path: Vec<u8>,
    layers: Vec<usize>,
}

enum Found {
    Nothing,
    Directory(Directory),
    Link(Vec<u8>),
    Other { layer: usize, path: Vec<u8>, kind: FileType },
}

/// Directories of an image that are looked for one after the other. What one has in common with
/// the one before is not looked for again.
pub(crate) struct Walk<'a> {
    merged: &'a MergedRoot,
    /// From the root to where it has got.
    way: Vec<Directory>,
}

// === impl MergedRoot ===

impl MergedRoot {
    /// Opens the layers, given top first.
    pub(crate) fn open(dirs: Vec<PathBuf>) -> Result<Self, FileError> {
        let open = |dir: PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&dir, flags, Mode::empty())
                .map_err(|errno| at("opening the layer", dir)(errno.into()))
        };
        Ok(Self { layers: dirs.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// The content of the file at `path`, or `None` if the image has no such file. Symbolic links
    /// are followed as inside the container: none leads out of the image. A file of more than
    /// `limit` bytes is an error.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> Result<Option<Vec<u8>>, MergedError> {
        let path = path.as_ref();
        let shown = || path.to_string_lossy().into_owned();
        let failed = |source| MergedError::Read { path: shown(), source };
        let mut todo: Vec<Vec<u8>> = reversed(path.as_os_str().as_encoded_bytes()).collect();
        let mut directories = vec![self.root()];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                // Above the root is the root.
                if directories.len() > 1 {
                    directories.pop();
                }
                continue;
            }
            let Some(directory) = directories.last() else { return Ok(None) };
            let found = self.find(directory, &name).map_err(|errno| failed(errno.into()))?;
            match found {
                Found::Nothing => return Ok(None),
                Found::Directory(directory) => directories.push(directory),
                Found::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(MergedError::TooManyLinks { path: shown() });
                    }
                    if target.starts_with(b"/") {
                        directories.truncate(1);
                    }
                    todo.extend(reversed(&target));
                }
                Found::Other { .. } if !todo.is_empty() => return Ok(None),
                Found::Other { layer, path, kind: FileType::RegularFile } => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
                    let file = self.open_in(layer, &path, flags);
                    let file = file.map_err(|errno| failed(errno.into()))?;
                    return read_limited(File::from(file), limit).map(Some).map_err(failed);
                }
                Found::Other { .. } => return Err(MergedError::NotAFile { path: shown() }),
            }
        }
        Err(MergedError::NotAFile { path: shown() })
    }

    /// The directory `path` of one layer.
    pub(crate) fn open_part(&self, layer: usize, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        self.open_in(layer, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn root(&self) -> Directory {
        Directory { path: Vec::new(), layers: (0..self.layers.len()).collect() }
    }

    /// What `name` in `directory` is: the uppermost layer that has it decides, and only
    /// directories go on below, down to one that is opaque or to something else.
    fn find(&self, directory: &Directory, name: &[u8]) -> Result<Found, Errno> {
        let path = match directory.path.as_slice() {
            b"" => name.to_vec(),
            parent => [parent, b"/", name].concat(),
        };
        let mut parts = Vec::new();
        for &layer in &directory.layers {
            let fd = match self.open_in(layer, &path, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            let stat = rustix::fs::fstat(&fd)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    parts.push(layer);
                    if is_opaque(&fd)? {
                        break;
                    }
                }
                _ if is_whiteout(&stat) || !parts.is_empty() => break,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&fd, c"", Vec::new())?;
                    return Ok(Found::Link(target.into_bytes()));
                }
                kind => return Ok(Found::Other { layer, path, kind }),
            }
        }
        Ok(match parts.is_empty() {
            true => Found::Nothing,
            false => Found::Directory(Directory { path, layers: parts }),
        })
    }

    fn open_in(&self, layer: usize, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(self.layers[layer].as_fd(), path, flags, Mode::empty(), resolve)
    }
}

// === impl Walk ===

impl<'a> Walk<'a> {
    /// Starts at the root.
    pub(crate) fn new(merged: &'a MergedRoot) -> Self {
        Self { merged, way: vec![merged.root()] }
    }

    /// Goes to the directory `path`. Returns the layers that have a part of it, top first; none if
    /// the path is, or leads through, something else. Symbolic links are not followed.
    pub(crate) fn to(&mut self, path: &[u8]) -> Result<&[usize], Errno> {
        let leads_there = |directory: &Directory| {
            let rest = path.strip_prefix(directory.path.as_slice());
            directory.path.is_empty()
                || rest.is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
        };
        self.way.truncate(self.way.iter().take_while(|directory| leads_there(directory)).count());
        // The root leads everywhere, so there is always one to go on from.
        let there = self.way.last().map_or(0, |directory| directory.path.len());
        for name in components(&path[there..]) {
            let Some(directory) = self.way.last() else { return Ok(&[]) };
            match self.merged.find(directory, name)? {
                Found::Directory(found) => self.way.push(found),
                Found::Nothing | Found::Link(_) | Found::Other { .. } => return Ok(&[]),
            }
        }
        Ok(self.way.last().map_or(&[], |directory| &directory.layers))
    }

    /// The directories that the one it has gone to is in, innermost first, each with the uppermost
    /// layer that has it.
    pub(crate) fn above(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let above = self.way.iter().rev().skip(1);
        above.filter_map(|directory| Some((directory.path.as_slice(), *directory.layers.first()?)))
    }
}

fn is_opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut value = [0; 2];
    match rustix::fs::fgetxattr(&fd, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        // Longer than "y", so it is something else.
        Err(Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The components of a path.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

/// The components of a path, last first.
fn reversed(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    components(path).rev().map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests;
