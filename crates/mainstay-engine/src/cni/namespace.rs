//! Names of sandboxes' network namespaces, for plugins: bind mounts in the run directory.
//!
//! A name keeps the namespace for as long as it is there, so that plugins can take back what they made
//! in it also when its shim is gone.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use mainstay_linux::mount;
use mainstay_linux::path::remove_all;
use rustix::fs::{StatFs, statfs};

use super::error::CniError;
use crate::entries;

/// The file system of namespaces. Source: `NSFS_MAGIC` in `linux/magic.h`.
const NSFS: i128 = 0x6e73_6673;

/// The directory of names.
#[derive(Clone, Debug)]
pub(super) struct Namespaces(PathBuf);

impl Namespaces {
    /// Those below `directory`, which need not be there yet.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The name of a sandbox's.
    pub(super) fn path(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Whether a name is there and names a namespace.
    pub(super) fn has(&self, id: &str) -> bool {
        is_namespace(&self.path(id))
    }

    /// Gives a namespace a name.
    pub(super) fn name(&self, id: &str, namespace: impl AsFd) -> Result<(), CniError> {
        let path = self.path(id);
        if is_namespace(&path) {
            return Ok(());
        }
        let name = || {
            fs::create_dir_all(&self.0)?;
            let target = fs::File::create(&path)?;
            mount::attach(mount::copy_one(namespace)?, target)
        };
        name().map_err(failed("name a network namespace", &path))
    }

    /// Takes the name away, and with it the namespace if nothing else is in it.
    pub(super) fn forget(&self, id: &str) -> Result<(), CniError> {
        let path = self.path(id);
        let forget = || {
            if is_namespace(&path) {
                mount::detach(&path)?;
            }
            remove_all(&path)
        };
        forget().map_err(failed("take away the name of a network namespace", &path))
    }

    /// All names that there are.
    pub(super) fn ids(&self) -> Result<Vec<String>, CniError> {
        let files = entries(&self.0).map_err(CniError::read(&self.0))?;
        let names = files.iter().filter_map(|file| file.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }
}

fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|StatFs { f_type, .. }| i128::from(f_type) == NSFS)
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CniError {
    let path = path.to_owned();
    move |source| CniError::Namespace { step, path, source }
}
