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
        let mut todo: Vec<Vec<u8>> = components(path.as_os_str().as_encoded_bytes());
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
                    todo.extend(components(&target));
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

    /// The layers that have a part of the directory `path`, top first; none if the path is, or leads
    /// through, something else. Symbolic links are not followed.
    pub(crate) fn parts(&self, path: &[u8]) -> Result<Vec<usize>, Errno> {
        let mut directory = self.root();
        for name in components(path).into_iter().rev() {
            match self.find(&directory, &name)? {
                Found::Directory(found) => directory = found,
                Found::Nothing | Found::Link(_) | Found::Other { .. } => return Ok(Vec::new()),
            }
        }
        Ok(directory.layers)
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
                    if self.is_opaque(layer, &path)? {
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

    fn is_opaque(&self, layer: usize, path: &[u8]) -> Result<bool, Errno> {
        let fd = self.open_in(layer, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut value = [0; 2];
        match rustix::fs::fgetxattr(&fd, OPAQUE, &mut value[..]) {
            Ok(length) => Ok(&value[..length] == b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            // Longer than "y", so it is something else.
            Err(Errno::RANGE) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn open_in(&self, layer: usize, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(self.layers[layer].as_fd(), path, flags, Mode::empty(), resolve)
    }
}

/// The components of a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let components = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    components.rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests;
