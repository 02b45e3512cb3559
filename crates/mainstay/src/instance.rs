//! One instance of mainstay on this machine: its two directories, and all that follows from them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mainstay_engine::EngineConfig;
use mainstay_engine::network::{Names, NetworkConfig, Range};
use rustix::fs::{FlockOperation, flock};

/// The root directory whose instance uses the plain names.
pub(crate) const DEFAULT_ROOT_DIR: &str = "/var/lib/mainstay";
/// The run directory that goes with it.
pub(crate) const DEFAULT_RUN_DIR: &str = "/run/mainstay";

/// Where an instance keeps things.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Everything durable.
    pub(crate) root_dir: PathBuf,
    /// Sockets, records, what may vanish at boot.
    pub(crate) run_dir: PathBuf,
}

/// The right to own an instance, as long as it is held.
#[derive(Debug)]
pub(crate) struct Ownership {
    _locks: [File; 2],
}

impl Instance {
    /// An instance from its directories, made absolute.
    pub(crate) fn new(root_dir: &Path, run_dir: &Path) -> anyhow::Result<Self> {
        let absolute = |path: &Path| {
            std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))
        };
        Ok(Self { root_dir: absolute(root_dir)?, run_dir: absolute(run_dir)? })
    }

    /// What all that is global on a machine is named after.
    pub(crate) fn name(&self) -> String {
        Names::of(&self.root_dir).table
    }

    /// Where image files lie that are imported by themselves.
    pub(crate) fn image_files(&self) -> PathBuf {
        self.root_dir.join("images")
    }

    /// Where container logs go unless the configuration says otherwise.
    pub(crate) fn log_directory(&self) -> PathBuf {
        if self.root_dir == Path::new(DEFAULT_ROOT_DIR) {
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

    /// Where images are kept.
    pub(crate) fn store(&self) -> PathBuf {
        self.root_dir.join("store")
    }

    /// What the engine needs to know. Pods get their addresses from `range`, or from one that is
    /// chosen.
    ///
    /// # Errors
    ///
    /// When it cannot be found out where this program is installed.
    pub(crate) fn engine(
        &self,
        cgroup_root: &str,
        range: Option<Range>,
    ) -> anyhow::Result<EngineConfig> {
        Ok(EngineConfig {
            root_dir: self.root_dir.clone(),
            run_dir: self.run_dir.clone(),
            image_dir: self.store(),
            shim: shim()?,
            cgroup_root: cgroup_root.to_owned(),
            network: NetworkConfig {
                root_dir: self.root_dir.clone(),
                range_file: self.root_dir.join("network.json"),
                // A machine without one chooses by its root directory alone.
                machine_id: fs::read_to_string("/etc/machine-id").unwrap_or_default(),
                range,
            },
        })
    }

    /// Whether there is anything of it on this machine.
    pub(crate) fn exists(&self) -> bool {
        self.root_dir.exists() || self.run_dir.exists()
    }

    /// Makes the directories, for root only.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        for directory in [&self.root_dir, &self.run_dir] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o711))
                .with_context(|| format!("cannot set the rights of {}", directory.display()))?;
        }
        Ok(())
    }

    /// Takes the instance, so that nobody else mends, cleans or starts anything in it.
    ///
    /// # Errors
    ///
    /// When somebody has it, who is named.
    pub(crate) fn own(&self) -> anyhow::Result<Ownership> {
        self.create()?;
        let locks = [self.lock(&self.root_dir)?, self.lock(&self.run_dir)?];
        Ok(Ownership { _locks: locks })
    }

    /// The process that has the instance, if one has.
    pub(crate) fn owner(&self) -> Option<i32> {
        let mut file = File::open(self.root_dir.join("lock")).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => holder(&mut file),
            // Nobody has it; closing the file gives the lock back.
            _ => None,
        }
    }

    fn lock(&self, directory: &Path) -> anyhow::Result<File> {
        let path = directory.join("lock");
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
