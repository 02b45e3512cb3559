//! One instance of mainstay on this machine: its two directories, and all that follows from them.

mod record;
mod remove;

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mainstay_engine::network::{Names, NetworkConfig, Range};
use mainstay_engine::{CniConfig, EngineConfig};
use rustix::fs::{FlockOperation, flock};

pub(crate) use record::NodeRecord;
use record::Record;

/// The root directory whose instance uses the plain names.
pub(crate) const DEFAULT_ROOT_DIR: &str = "/var/lib/mainstay";
/// The run directory that goes with it.
pub(crate) const DEFAULT_RUN_DIR: &str = "/run/mainstay";

/// The file that is locked by whoever owns a directory.
const LOCK: &str = "lock";

/// The rights of both directories: a container's user has to get through, and nobody else looks.
const MODE: u32 = 0o711;

/// Where an instance keeps things.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Everything durable. Without links on the way, as mountinfo has it.
    pub(crate) root_dir: PathBuf,
    /// Sockets, records, what may vanish at boot. As above.
    pub(crate) run_dir: PathBuf,
    /// Whether it is the one that uses the plain names.
    is_default: bool,
}

/// The right to own an instance, as long as it is held.
#[derive(Debug)]
pub(crate) struct Ownership {
    _locks: [File; 2],
}

impl Instance {
    /// An instance from its directories, made absolute, and with their links resolved: however it
    /// is spelled, it is the same one.
    pub(crate) fn new(root_dir: &Path, run_dir: &Path) -> anyhow::Result<Self> {
        Self::with_default(root_dir, run_dir, Path::new(DEFAULT_ROOT_DIR))
    }

    /// The same beside another default.
    fn with_default(root_dir: &Path, run_dir: &Path, default: &Path) -> anyhow::Result<Self> {
        let resolve =
            |path: &Path| resolve(path).with_context(|| format!("cannot use {}", path.display()));
        let (root_dir, run_dir) = (resolve(root_dir)?, resolve(run_dir)?);
        // Moving the default root directory to another disk, with a link in its place, makes no
        // other instance of it.
        let is_default = resolve(default)? == root_dir;
        Ok(Self { root_dir, run_dir, is_default })
    }

    /// What all that is global on a machine is named after.
    pub(crate) fn name(&self) -> String {
        Names::of(self.named_after()).table
    }

    /// The path that names are made from.
    fn named_after(&self) -> &Path {
        if self.is_default { Path::new(DEFAULT_ROOT_DIR) } else { &self.root_dir }
    }

    /// Where image files lie that are imported by themselves.
    pub(crate) fn image_files(&self) -> PathBuf {
        self.root_dir.join("images")
    }

    /// Where container logs go unless the configuration says otherwise.
    pub(crate) fn log_directory(&self) -> PathBuf {
        if self.is_default {
            PathBuf::from("/var/log/pods")
        } else {
            self.root_dir.join("log/pods")
        }
    }

    /// The control group of all that runs, unless systemd hands over another one.
    pub(crate) fn cgroup_root(&self) -> String {
        format!("/{}", self.name())
    }

    /// The agent's socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run_dir.join("mainstay.sock")
    }

    /// The socket on which the embedded runtime serves the CRI.
    pub(crate) fn cri_socket(&self) -> PathBuf {
        self.run_dir.join("cri.sock")
    }

    /// The admin's kubeconfig, unless it is written elsewhere.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root_dir.join("kubeconfig")
    }

    /// Where images are kept.
    pub(crate) fn store(&self) -> PathBuf {
        self.root_dir.join("store")
    }

    /// What the engine needs to know. Pods get their addresses from `ranges`, or from such as are
    /// chosen; no plugins give them a network unless that is added.
    ///
    /// # Errors
    ///
    /// When it cannot be found out where this program is installed.
    pub(crate) fn engine(
        &self,
        cgroup_root: &str,
        ranges: &[Range],
    ) -> anyhow::Result<EngineConfig> {
        Ok(EngineConfig {
            root_dir: self.root_dir.clone(),
            run_dir: self.run_dir.clone(),
            image_dir: self.store(),
            shim: shim()?,
            cgroup_root: cgroup_root.to_owned(),
            network: NetworkConfig {
                root_dir: self.named_after().to_owned(),
                range_file: self.root_dir.join("network.json"),
                // A machine without one chooses by its root directory alone.
                machine_id: fs::read_to_string("/etc/machine-id").unwrap_or_default(),
                ranges: ranges.to_vec(),
            },
            cni: CniConfig::default(),
            names: None,
        })
    }

    /// Whether there is anything of it on this machine.
    pub(crate) fn exists(&self) -> bool {
        self.root_dir.exists() || self.run_dir.exists()
    }

    /// The UIDs of the pods that have a place in it, and so the only ones that have logs.
    pub(crate) fn pods(&self) -> anyhow::Result<Vec<String>> {
        names_in(&self.root_dir.join("pods"))
    }

    /// Whether pods were run since the machine was started.
    pub(crate) fn has_run(&self) -> bool {
        self.run_dir.join("sandboxes").is_dir() && self.store().is_dir()
    }

    /// Makes the root directory, if it is not there, and marks it.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        make(&self.root_dir)?;
        Record::mark(&self.root_dir)
    }

    /// How the node was run last; what holds by default if it was not, or if only a trace of it is
    /// left.
    pub(crate) fn node(&self) -> anyhow::Result<NodeRecord> {
        for directory in [&self.root_dir, &self.run_dir] {
            if let Some(node) = Record::read(directory)?.and_then(|record| record.node) {
                return Ok(node);
            }
        }
        Ok(NodeRecord {
            root_dir: self.root_dir.clone(),
            run_dir: self.run_dir.clone(),
            node_name: String::new(),
            cgroup_root: self.cgroup_root(),
            log_directory: self.log_directory(),
            runtime_socket: None,
        })
    }

    /// What the pods were run with since the machine was started, if any were; `None` in it is the embedded
    /// runtime.
    pub(crate) fn last_runtime(&self) -> anyhow::Result<Option<Option<PathBuf>>> {
        let node = Record::read(&self.run_dir)?.and_then(|record| record.node);
        Ok(node.map(|node| node.runtime_socket))
    }

    /// Lets those who come later know how the node is run. The caller owns the instance, and has
    /// started nothing yet.
    pub(crate) fn remember(&self, node: &NodeRecord) -> anyhow::Result<()> {
        Record::write(&self.root_dir, node)?;
        Record::write(&self.run_dir, node)
    }

    /// Takes the instance, so that nobody else mends, cleans or starts anything in it.
    ///
    /// # Errors
    ///
    /// When somebody has it, who is named.
    pub(crate) fn own(&self) -> anyhow::Result<Ownership> {
        let own = |directory: &Path| {
            make(directory)?;
            let lock = lock(directory)?;
            Record::mark(directory).map(|()| lock)
        };
        Ok(Ownership { _locks: [own(&self.root_dir)?, own(&self.run_dir)?] })
    }

    /// The process that has the instance, if one has.
    pub(crate) fn owner(&self) -> Option<i32> {
        let mut file = File::open(self.root_dir.join(LOCK)).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => holder(&mut file),
            // Nobody has it; closing the file gives the lock back.
            _ => None,
        }
    }
}

/// Makes a directory. One that is there has the rights that somebody gave it.
fn make(directory: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot make {}", directory.display());
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent).with_context(failed)?;
    }
    match fs::DirBuilder::new().mode(MODE).create(directory) {
        // Whatever the umask is.
        Ok(()) => {
            fs::set_permissions(directory, fs::Permissions::from_mode(MODE)).with_context(failed)
        }
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(error).with_context(failed),
    }
}

/// What a file system has of its own in its uppermost directory. Source: mke2fs(8).
const LOST_AND_FOUND: &str = "lost+found";

/// The names in a directory, in order; none if it is not there.
pub(crate) fn names_in(directory: &Path) -> anyhow::Result<Vec<String>> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.and_then(|entries| {
            let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            entries.map(|entry| entry.map(name)).collect::<io::Result<Vec<_>>>()
        }),
    };
    let mut names = listed.with_context(|| format!("cannot list {}", directory.display()))?;
    names.retain(|name| name != LOST_AND_FOUND);
    names.sort();
    Ok(names)
}

/// An absolute path without links, as far as it exists.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for existing in path.ancestors() {
        match existing.canonicalize() {
            Ok(resolved) => {
                let missing = path.strip_prefix(existing).unwrap_or(Path::new(""));
                // Without an end of nothing, which would be a slash.
                return Ok(resolved.join(missing).components().collect());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(path)
}

/// Takes a directory, and writes down who has it.
fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let holder = holder(&mut file).map_or("unknown".to_owned(), |it| it.to_string());
            bail!(
                "{} is in use by another mainstay (process {}); give this one a --root-dir \
                 and a --run-dir of its own, or stop the other",
                directory.display(),
                holder
            );
        }
        Err(error) => {
            let error = io::Error::from(error);
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// Whoever has a lock wrote its number there.
fn holder(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The shim's program: beside this one.
fn shim() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find out where mainstay is installed")?;
    Ok(own.with_file_name("mainstay-shim"))
}

#[cfg(test)]
mod tests;
