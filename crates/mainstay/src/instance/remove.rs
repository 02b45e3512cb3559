//! Giving up an instance's directories: what is known to be mainstay's goes, by name, and nothing
//! else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use mainstay_linux::path::remove_all;

use super::record::{RECORD, Record};
use super::{Instance, LOCK, NodeRecord, names_in, resolve};

/// What mainstay has in a root directory, with what it writes before renaming, and with what
/// people put there for it.
const ROOT_ENTRIES: [&str; 22] = [
    "api.redb",
    "api.redb.lock",
    "api.redb.new",
    "cni",
    "config.json",
    "containers",
    "image-files.json",
    "image-files.new",
    "images",
    "instance.new",
    "joined",
    "kubeconfig",
    "kubeconfig.new",
    "kubelet",
    "ledger",
    "log",
    "network.json",
    "network.tmp",
    "pki",
    "pods",
    "seccomp",
    "store",
];

/// The same of a run directory.
const RUN_ENTRIES: [&str; 14] = [
    "boot",
    "cri.sock",
    "healthz-port",
    "instance.new",
    "longest-grace",
    "longest-grace.new",
    "mainstay.sock",
    "netns",
    "port",
    "read-only-port",
    "resolver",
    "sandboxes",
    "secure-port",
    "sub-paths",
];

impl Instance {
    /// Sees to it that both directories are this instance's, or have nothing in them.
    ///
    /// # Errors
    ///
    /// When one is somebody else's, who is named if he is known.
    pub(crate) fn verify_own(&self) -> anyhow::Result<()> {
        // Each knows the other one. Where it is itself, it cannot know: it may have been moved.
        verify_own(&self.root_dir, &self.run_dir, |node| node.run_dir)?;
        verify_own(&self.run_dir, &self.root_dir, |node| node.root_dir)
    }

    /// Removes the run directory. The caller owns the instance.
    ///
    /// # Errors
    ///
    /// When something is left, which is named. It can be done again.
    pub(crate) fn remove_run_dir(&self) -> anyhow::Result<()> {
        remove(&self.run_dir, &RUN_ENTRIES)
    }

    /// The same with the root directory.
    pub(crate) fn remove_root_dir(&self) -> anyhow::Result<()> {
        remove(&self.root_dir, &ROOT_ENTRIES)
    }
}

/// The same of one of them, whose partner is the other one.
fn verify_own(
    directory: &Path,
    partner: &Path,
    recorded: impl FnOnce(NodeRecord) -> PathBuf,
) -> anyhow::Result<()> {
    let Some(record) = Record::read(directory)? else {
        let foreign = names_in(directory)?.into_iter().find(|name| name != LOCK);
        ensure!(
            foreign.is_none(),
            "{} has files and no {RECORD}, so it is not known to be mainstay's, and is left alone; \
             is it the directory that `mainstay run` was given?",
            directory.display()
        );
        return Ok(());
    };
    if let Some(recorded) = record.node.map(recorded) {
        ensure!(
            resolve(&recorded).is_ok_and(|recorded| recorded == partner),
            "{} belongs with {}, and not with {}; give the --root-dir and the --run-dir that \
             `mainstay run` was given",
            directory.display(),
            recorded.display(),
            partner.display()
        );
    }
    Ok(())
}

fn remove(directory: &Path, own: &[&str]) -> anyhow::Result<()> {
    let gone =
        |path: &Path| remove_all(path).with_context(|| format!("cannot remove {}", path.display()));
    for name in own {
        gone(&directory.join(name))?;
    }
    let mut left = names_in(directory)?;
    left.retain(|name| name != RECORD && name != LOCK);
    ensure!(
        left.is_empty(),
        "{} has what is not mainstay's: {}; take it elsewhere and give the command again",
        directory.display(),
        left.join(", ")
    );
    // The mark stays until there is nothing that it speaks for, and the lock until nobody can come
    // in between.
    for name in [RECORD, LOCK] {
        gone(&directory.join(name))?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) => match error.kind() {
            // Where a file system is mounted, the directory is the operator's.
            io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy => Ok(()),
            _ => Err(error).with_context(|| format!("cannot remove {}", directory.display())),
        },
    }
}
