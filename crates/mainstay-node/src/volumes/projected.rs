//! Volumes whose files are made: written beside the old ones, and exchanged at once.
//!
//! ```text
//! app.conf -> ..data/app.conf
//! ..data   -> ..2026_11_29_13_40_05.123456789
//! ..2026_11_29_13_40_05.123456789/app.conf
//! ```
//!
//! # Guarantees
//!
//! - Whoever opens `..data` sees one version, whole.
//! - What was cut off, by a kill or with the power, is found to differ and made anew.
//!
//! Source: `pkg/volume/util/atomic_writer.go`, `pkg/volume/volume_linux.go`.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use mainstay_linux::path::remove_all;
use mainstay_plan::medium::Medium;
use mainstay_plan::projection::Files;

use super::empty_dir::{self, EmptyDirError};

/// The link to the version that counts.
const DATA: &str = "..data";
/// What it is called before it is exchanged.
const STAGED: &str = "..data_tmp";

const DIRECTORY_MODE: u32 = 0o755;
/// What the pod's `fsGroup` may do with a file, and with a directory, in which new files get it too.
const GROUP_FILE: u32 = 0o440;
const GROUP_DIRECTORY: u32 = 0o2550;

/// A volume that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectedError {
    /// The directory that it is in.
    #[error(transparent)]
    Directory(#[from] EmptyDirError),
    /// Something in it.
    #[error("cannot {step} {}", path.display())]
    File {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What a volume is to be.
pub(super) struct Wanted<'a> {
    pub(super) directory: &'a Path,
    /// Whether it is kept in memory.
    pub(super) in_memory: bool,
    /// Directories in it that something else is mounted at.
    pub(super) mount_points: &'a [String],
    pub(super) files: &'a Files<'a>,
    /// The pod's `fsGroup`.
    pub(super) group: Option<u32>,
}

/// Whether a volume is there, of whatever version.
pub(super) fn is_there(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join(DATA)).is_ok()
}

/// Makes a volume, or what differs of it.
pub(super) fn prepare(wanted: &Wanted<'_>) -> Result<(), ProjectedError> {
    let directory = wanted.directory;
    let medium = if wanted.in_memory { Medium::Memory } else { Medium::Disk };
    empty_dir::prepare(medium, None, directory, wanted.group)?;
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| ProjectedError::File { step, path, source }
    };
    for name in wanted.mount_points {
        let path = directory.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&path)
            .map_err(failed("make", &path))?;
    }
    let data = directory.join(DATA);
    let before = match fs::read_link(&data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(directory.join(other.map_err(failed("read", &data))?)),
    };
    let old = match &before {
        Some(before) => paths_in(before).map_err(failed("list", before))?,
        None => BTreeSet::new(),
    };
    let is_current = before.as_deref().is_some_and(|before| shows(before, &old, wanted.files));
    if !is_current {
        let version = new_version(directory).map_err(failed("make a version in", directory))?;
        write(&version, wanted).map_err(failed("write", &version))?;
        exchange(&version, &data).map_err(failed("exchange", &data))?;
    }
    let tops: BTreeSet<&str> = wanted.files.keys().map(|path| top(path)).collect();
    for name in &tops {
        let path = directory.join(name);
        link(&path, name, wanted.group).map_err(failed("link", &path))?;
    }
    for name in old.iter().map(|path| top(path)).filter(|name| !tops.contains(name)) {
        let path = directory.join(name);
        unlink(&path).map_err(failed("remove", &path))?;
    }
    remove_others(directory, &data).map_err(failed("remove what is old in", directory))
}

/// The first name of a path.
fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// The files below a directory, by their paths in it.
fn paths_in(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    let mut ahead = vec![String::new()];
    while let Some(within) = ahead.pop() {
        let entries = match fs::read_dir(directory.join(&within)) {
            // The link leads nowhere: its version was lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if within.is_empty() { name } else { format!("{within}/{name}") };
            match entry.file_type()?.is_dir() {
                true => ahead.push(path),
                false => drop(paths.insert(path)),
            }
        }
    }
    Ok(paths)
}

/// Whether a version has these files, and no other ones. One that cannot be read has not.
fn shows(version: &Path, paths: &BTreeSet<String>, files: &Files<'_>) -> bool {
    paths.iter().eq(files.keys())
        && files.iter().all(|(path, file)| holds(&version.join(path), &file.content))
}

fn holds(path: &Path, content: &[u8]) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut known = Vec::with_capacity(content.len());
    let most = u64::try_from(content.len()).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut known).is_ok() && known == content
}

/// A directory for a version, named after the time.
fn new_version(directory: &Path) -> io::Result<PathBuf> {
    loop {
        let name = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
        let path = directory.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| path),
        }
    }
}

fn write(version: &Path, wanted: &Wanted<'_>) -> io::Result<()> {
    let group = wanted.group;
    let own = |directory: &Path| {
        let file = File::open(directory)?;
        set_rights(&file, DIRECTORY_MODE, group, GROUP_DIRECTORY)
    };
    for (path, content) in wanted.files {
        let mut directory = version.to_owned();
        let (within, name) = path.rsplit_once('/').unwrap_or(("", path));
        for name in within.split('/').filter(|name| !name.is_empty()) {
            directory.push(name);
            match fs::create_dir(&directory) {
                Ok(()) => own(&directory)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(directory.join(name))?;
        file.write_all(&content.content)?;
        if content.owner.is_some() {
            fchown(&file, content.owner, None)?;
        }
        set_rights(&file, content.mode, group, GROUP_FILE)?;
    }
    own(version)
}

/// Whatever the umask is. The owner first: changing it takes bits of the mode away.
fn set_rights(file: &File, mode: u32, group: Option<u32>, for_group: u32) -> io::Result<()> {
    let mode = match group {
        Some(group) => {
            fchown(file, None, Some(group))?;
            mode | for_group
        }
        None => mode,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn exchange(version: &Path, data: &Path) -> io::Result<()> {
    let name = version.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let staged = data.with_file_name(STAGED);
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(name, &staged)?;
    fs::rename(staged, data)
}

/// The name that people see. A directory that something is mounted at is left alone.
fn link(path: &Path, name: &str, group: Option<u32>) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    symlink(Path::new(DATA).join(name), path)?;
    match group {
        Some(group) => lchown(path, None, Some(group)),
        None => Ok(()),
    }
}

fn unlink(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(status) if status.is_symlink() => fs::remove_file(path),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes versions that do not count: the old one, and those that were never finished.
fn remove_others(directory: &Path, data: &Path) -> io::Result<()> {
    let current = fs::read_link(data)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_version = name.to_string_lossy().starts_with("..") && entry.file_type()?.is_dir();
        if is_version && name != *current.as_os_str() {
            remove_all(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
