//! One instance of mainstay on this machine: its two directories, and all that follows from them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mainstay_engine::EngineConfig;
use mainstay_engine::network::{Names, NetworkConfig};
use rustix::fs::{FlockOperation, flock};

/// The root directory whose instance uses the plain names.
pub const DEFAULT_ROOT_DIR: &str = "/var/lib/mainstay";
/// The run directory that goes with it.
pub const DEFAULT_RUN_DIR: &str = "/run/mainstay";

/// Where an instance keeps things.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Everything durable.
    pub root_dir: PathBuf,
    /// Sockets, records, what may vanish at boot.
    pub run_dir: PathBuf,
}

/// The right to own an instance, as long as it is held.
#[derive(Debug)]
pub struct Ownership {
    _locks: [File; 2],
}

impl Instance {
    /// An instance from its directories, made absolute.
    pub fn new(root_dir: &Path, run_dir: &Path) -> anyhow::Result<Self> {
        let absolute = |path: &Path| {
            std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))
        };
        Ok(Self { root_dir: absolute(root_dir)?, run_dir: absolute(run_dir)? })
    }

    /// What all that is global on a machine is named after.
    pub fn name(&self) -> String {
        Names::of(&self.root_dir).table
    }

    /// Where image files lie that are imported by themselves.
    pub fn image_files(&self) -> PathBuf {
        self.root_dir.join("images")
    }

    /// Where container logs go unless the configuration says otherwise.
    pub fn log_directory(&self) -> PathBuf {
        if self.root_dir == Path::new(DEFAULT_ROOT_DIR) {
            PathBuf::from("/var/log/pods")
        } else {
            self.root_dir.join("log/pods")
        }
    }

    /// The control group of all that runs.
    pub fn cgroup_root(&self) -> String {
        format!("/{}", self.name())
    }

    /// The agent's socket.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("mainstay.sock")
    }

    /// What the engine needs to know.
    pub fn engine(&self, shim: PathBuf) -> EngineConfig {
        EngineConfig {
            root_dir: self.root_dir.clone(),
            run_dir: self.run_dir.clone(),
            image_dir: self.root_dir.join("store"),
            shim,
            cgroup_root: self.cgroup_root(),
            network: NetworkConfig {
                root_dir: self.root_dir.clone(),
                range_file: self.root_dir.join("network.json"),
                // A machine without one chooses by its root directory alone.
                machine_id: fs::read_to_string("/etc/machine-id").unwrap_or_default(),
                range: None,
            },
        }
    }

    /// Makes the directories, for root only.
    pub fn create(&self) -> anyhow::Result<()> {
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
    pub fn own(&self) -> anyhow::Result<Ownership> {
        self.create()?;
        let locks = [self.lock(&self.root_dir)?, self.lock(&self.run_dir)?];
        Ok(Ownership { _locks: locks })
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
                let mut holder = String::new();
                // Whoever has it wrote its number there; an unreadable one is told without.
                let _ = file.read_to_string(&mut holder);
                bail!(
                    "{} is in use by another mainstay (process {}); give this one a --root-dir \
                     and a --run-dir of its own, or stop the other",
                    directory.display(),
                    holder.trim()
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

/// The shim's program: beside this one.
pub fn shim() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find out where mainstay is installed")?;
    Ok(own.with_file_name("mainstay-shim"))
}
