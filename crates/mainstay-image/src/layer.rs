//! What the entries of a layer mean, decided without touching a file system.
//!
//! Source: OCI image-spec v1.1, `layer.md`, sections "Representing Changes" and "Whiteouts";
//! kernel documentation, `filesystems/overlayfs.rst`, section "whiteouts and opaque directories".

use std::fmt;

use crate::tar::{Entry, Kind};

const WHITEOUT: &[u8] = b".wh.";
/// The prefix of what AUFS kept for itself; only the opaque marker of these names has a meaning.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The attributes by which overlayfs marks what it does with a lower layer.
pub(crate) const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";
/// The longest path that the kernel takes, in bytes, without its NUL. Source: `PATH_MAX`.
pub(crate) const PATH_MAX: usize = 4095;
/// The most components of a path: more than any program makes, and few enough that work on each
/// directory of a path is nothing to worry about.
const COMPONENTS_MAX: usize = 256;

/// A path below the root of a layer: components joined by `/`, none of them empty, `.` or `..`,
/// no NUL in it. The empty path is the root itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct LayerPath(Vec<u8>);

/// What to do for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Give the root directory the entry's owner, mode, times and attributes.
    Root,
    /// Make a directory, or change one that is there.
    Directory(LayerPath),
    /// Make a file with the entry's content.
    File(LayerPath),
    /// Make a symbolic link to what the entry says.
    Symlink(LayerPath),
    /// Make a second name for the file `target`.
    HardLink { path: LayerPath, target: LayerPath },
    /// Make a device node or FIFO.
    Node(LayerPath),
    /// Hide what lower layers have at this path.
    Whiteout(LayerPath),
    /// Hide everything that lower layers have in this directory.
    Opaque(LayerPath),
    /// Bookkeeping of another storage driver.
    Nothing,
}

/// Why an entry is refused before anything is done for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// `..` in its name.
    #[error("its name leads out of the layer through \"..\"")]
    DotDot,
    /// `..` in the name it is a link to.
    #[error("it is a hard link to {0:?}, which leads out of the layer through \"..\"")]
    LinkDotDot(String),
    /// A name that the kernel would not take.
    #[error("its name is longer than 4095 bytes")]
    TooLong,
    /// Directories in directories without end.
    #[error("it lies more than {COMPONENTS_MAX} directories deep")]
    TooDeep,
    /// A NUL in its name or link target.
    #[error("its name or link target contains a NUL byte")]
    Nul,
    /// A link to nothing.
    #[error("it is a link without a target")]
    EmptyLink,
    /// The root of the layer as something else than a directory.
    #[error("it would replace the root of the layer by something that is not a directory")]
    RootNotDirectory,
    /// A whiteout of no name, of `.` or of `..`.
    #[error("it is a whiteout that names nothing that could be hidden")]
    WhiteoutOfNothing,
    /// The device by which overlayfs knows a whiteout.
    #[error(
        "it is the character device 0:0, by which overlayfs hides files: layers do that with .wh. entries"
    )]
    WhiteoutDevice,
    /// An attribute by which overlayfs is told to read something else.
    #[error("it has the attribute {0:?}, which is reserved for overlayfs itself")]
    OverlayXattr(String),
}

// === impl LayerPath ===

impl LayerPath {
    /// Reads a name as it stands in an archive. A leading `/` and `./` mean the root of the layer,
    /// as every unpacker reads them.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, EntryProblem> {
        let mut path = Vec::with_capacity(name.len());
        let mut components = 0;
        for component in name.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(EntryProblem::DotDot),
                component if component.contains(&0) => return Err(EntryProblem::Nul),
                component => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(component);
                    components += 1;
                }
            }
        }
        if path.len() > PATH_MAX {
            return Err(EntryProblem::TooLong);
        }
        if components > COMPONENTS_MAX { Err(EntryProblem::TooDeep) } else { Ok(Self(path)) }
    }

    /// The path itself, relative to the root of the layer.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it is in, and its name there; `None` for the root.
    pub(crate) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        })
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Decides what to do for `entry`.
pub(crate) fn step(entry: &Entry) -> Result<Step, EntryProblem> {
    let path = LayerPath::parse(&entry.path)?;
    if path.as_bytes().split(|b| *b == b'/').any(is_storage_driver_name) {
        return Ok(Step::Nothing);
    }
    let Some((directory, name)) = path.split() else {
        return match entry.kind {
            Kind::Directory => check_xattrs(entry).map(|()| Step::Root),
            _ => Err(EntryProblem::RootNotDirectory),
        };
    };
    if name == OPAQUE {
        return Ok(Step::Opaque(LayerPath(directory.to_vec())));
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryProblem::WhiteoutOfNothing);
        }
        return LayerPath::parse(&[directory, b"/", hidden].concat()).map(Step::Whiteout);
    }
    check_xattrs(entry)?;
    match entry.kind {
        Kind::Directory => Ok(Step::Directory(path)),
        Kind::File => Ok(Step::File(path)),
        Kind::Fifo | Kind::BlockDevice => Ok(Step::Node(path)),
        Kind::CharDevice if entry.device == (0, 0) => Err(EntryProblem::WhiteoutDevice),
        Kind::CharDevice => Ok(Step::Node(path)),
        Kind::Symlink if entry.link.is_empty() => Err(EntryProblem::EmptyLink),
        Kind::Symlink if entry.link.contains(&0) => Err(EntryProblem::Nul),
        Kind::Symlink if entry.link.len() > PATH_MAX => Err(EntryProblem::TooLong),
        Kind::Symlink => Ok(Step::Symlink(path)),
        Kind::HardLink => {
            let target = LayerPath::parse(&entry.link).map_err(|problem| match problem {
                EntryProblem::DotDot => {
                    EntryProblem::LinkDotDot(String::from_utf8_lossy(&entry.link).into_owned())
                }
                other => other,
            })?;
            if target.is_root() {
                return Err(EntryProblem::EmptyLink);
            }
            Ok(Step::HardLink { path, target })
        }
    }
}

fn is_storage_driver_name(component: &[u8]) -> bool {
    component.starts_with(WHITEOUT_META) && component != OPAQUE
}

fn check_xattrs(entry: &Entry) -> Result<(), EntryProblem> {
    match entry.xattrs.iter().find(|(name, _)| name.starts_with(OVERLAY_XATTRS)) {
        Some((name, _)) => {
            Err(EntryProblem::OverlayXattr(String::from_utf8_lossy(name).into_owned()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
