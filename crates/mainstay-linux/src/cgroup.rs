//! Control groups: version 1, version 2, and the hybrid of both that systemd calls so.
//!
//! A [`Cgroup`] is one path in all hierarchies at once, so that callers need not know which
//! controllers live where. Source: cgroups(7), `Documentation/admin-guide/cgroup-v1/`,
//! `Documentation/admin-guide/cgroup-v2.rst`.

mod devices;
mod limits;
mod mounts;
mod usage;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use devices::DeviceRule;
pub use limits::{CpuQuota, Limits, weight_of_shares};
pub use usage::{Memory, Usage};

/// How this machine mounts its control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Version 1 hierarchies only.
    V1,
    /// Version 1 controllers, and an empty version 2 hierarchy beside them.
    Hybrid,
    /// Version 2 only.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its controllers, or `name=...` of one without any.
    pub controllers: BTreeSet<String>,
    /// Whether it is the version 2 one.
    pub unified: bool,
}

/// All hierarchies of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    list: Vec<Hierarchy>,
}

/// A step of an operation on control groups that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct CgroupError {
    /// What was tried, as a verb.
    pub step: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// The result of an operation on control groups.
pub type Result<T> = std::result::Result<T, CgroupError>;

/// Gives an I/O error its step and path.
fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CgroupError + 'a {
    move |source| CgroupError { step, path: path.to_owned(), source }
}

impl Hierarchies {
    /// Reads what is mounted in this mount namespace.
    ///
    /// # Errors
    ///
    /// When `/proc/self/mountinfo` cannot be read, or no hierarchy is mounted.
    pub fn mounted() -> Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        let table = fs::read_to_string(path).map_err(at("read", path))?;
        let mut list = mounts::parse(&table);
        for hierarchy in list.iter_mut().filter(|hierarchy| hierarchy.unified) {
            let file = hierarchy.mount_point.join("cgroup.controllers");
            hierarchy.controllers = words(&file)?;
        }
        if list.is_empty() {
            let source = io::Error::new(io::ErrorKind::NotFound, "no cgroup file system in it");
            return Err(CgroupError { step: "find control groups in", path: path.into(), source });
        }
        Ok(Self { list })
    }

    /// Hierarchies that are known from elsewhere.
    pub fn of(list: Vec<Hierarchy>) -> Self {
        Self { list }
    }

    /// Which of the three layouts it is.
    pub fn layout(&self) -> Layout {
        let unified = self.list.iter().any(|hierarchy| hierarchy.unified);
        let legacy = self.list.iter().any(|hierarchy| !hierarchy.unified);
        match (unified, legacy) {
            (true, false) => Layout::V2,
            (true, true) => Layout::Hybrid,
            (false, _) => Layout::V1,
        }
    }

    /// The hierarchies themselves.
    pub fn iter(&self) -> impl Iterator<Item = &Hierarchy> {
        self.list.iter()
    }

    /// The control group at `path`, which is absolute from the root of each hierarchy.
    pub fn at(&self, path: &str) -> Cgroup<'_> {
        Cgroup { hierarchies: self, path: path.trim_matches('/').into() }
    }
}

/// One path in all hierarchies.
#[derive(Clone, Debug)]
pub struct Cgroup<'a> {
    hierarchies: &'a Hierarchies,
    path: PathBuf,
}

impl Cgroup<'_> {
    /// The directories that make it up.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.list.iter().map(|hierarchy| hierarchy.mount_point.join(&self.path))
    }

    /// Makes it, and the ones above it. There already is success.
    pub fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies.list {
            let mut directory = hierarchy.mount_point.clone();
            for component in self.path.components() {
                let parent = directory.clone();
                directory.push(component);
                // Before the child is there, so that whoever finds it can go on: somebody else may
                // make groups here at the same time, or may have been killed at it.
                if hierarchy.unified {
                    match pass_all_down(hierarchy, &parent) {
                        // One that is there, made by somebody who wanted fewer controllers or from
                        // which some were taken, goes on with what it has; a limit that it then has
                        // no file for says so.
                        Err(_) if directory.is_dir() => {}
                        result => result?,
                    }
                }
                match fs::create_dir(&directory) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(at("make the control group", &directory)(error)),
                }
                // In version 1 that cannot be done before, so it is mended by whoever comes next.
                if !hierarchy.unified && hierarchy.controllers.contains("cpuset") {
                    inherit_cpuset(&parent, &directory)?;
                }
            }
        }
        Ok(())
    }

    /// Lets a version 2 group, which exists, have a controller, if the kernel has it.
    ///
    /// # Errors
    ///
    /// Also when one of the groups above has processes, but for the root.
    pub fn receive(&self, controller: &str) -> Result<()> {
        let wanted = BTreeSet::from([controller.to_owned()]);
        for hierarchy in self.hierarchies.list.iter().filter(|hierarchy| hierarchy.unified) {
            if !hierarchy.controllers.contains(controller) {
                continue;
            }
            let mut parent = hierarchy.mount_point.clone();
            for component in self.path.components() {
                pass_down(&parent, |have| Ok(&wanted - have))?;
                parent.push(component);
            }
        }
        Ok(())
    }

    /// Moves a process into it; 0 is the caller.
    ///
    /// The kernel (from 6.0, unless `favordynmods` is set) lets the first move after a pause wait
    /// for a grace period of several milliseconds.
    pub fn add(&self, pid: i32) -> Result<()> {
        for directory in self.directories() {
            let file = directory.join("cgroup.procs");
            write(&file, &pid.to_string()).map_err(at("write", &file))?;
        }
        Ok(())
    }

    /// Whether it exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.directories().any(|directory| directory.exists())
    }

    /// Whether there are others below it.
    pub fn has_children(&self) -> Result<bool> {
        for directory in self.directories() {
            if !children(&directory)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All processes in it and below.
    pub fn processes(&self) -> Result<BTreeSet<i32>> {
        let mut all = BTreeSet::new();
        for directory in self.directories() {
            collect_processes(&directory, &mut all)?;
        }
        Ok(all)
    }

    /// Kills all processes in it and below, once. New ones may be forked meanwhile; call it until
    /// [`Self::processes`] is empty. Returns how many there were.
    pub fn kill(&self) -> Result<usize> {
        for hierarchy in self.hierarchies.list.iter().filter(|hierarchy| hierarchy.unified) {
            // One write that no fork escapes; kernel 5.14.
            let file = hierarchy.mount_point.join(&self.path).join("cgroup.kill");
            match write(&file, "1") {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at("write", &file)(error)),
            }
        }
        let processes = self.processes()?;
        for pid in &processes {
            if let Ok(process) = crate::process::Pidfd::open(*pid) {
                let file = Path::new("/proc").join(pid.to_string());
                process.signal(libc::SIGKILL).map_err(at("kill the process", &file))?;
            }
        }
        Ok(processes.len())
    }

    /// Removes it and all below it. Absent is success.
    ///
    /// # Errors
    ///
    /// `EBUSY` (`ResourceBusy`) while a process is in it.
    pub fn remove(&self) -> Result<()> {
        for directory in self.directories() {
            remove_tree(&directory)?;
        }
        Ok(())
    }

    /// How many processes in it and below the kernel killed because its memory ran out.
    pub fn oom_kills(&self) -> u64 {
        let find = |file: PathBuf| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
            line.trim().parse::<u64>().ok()
        };
        self.directories()
            .filter_map(|directory| {
                find(directory.join("memory.events"))
                    .or_else(|| find(directory.join("memory.oom_control")))
            })
            .sum()
    }

    /// Sets limits. The group exists.
    pub fn limit(&self, limits: &Limits) -> Result<()> {
        for hierarchy in &self.hierarchies.list {
            let directory = hierarchy.mount_point.join(&self.path);
            let mut files = limits.files(hierarchy);
            let of = |file: &Path| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
            limits::put_in_order(&mut files, |name| of(&directory.join(name)));
            for (file, value) in files {
                let optional = limits::may_be_missing(&file);
                let file = directory.join(file);
                match write(&file, &value) {
                    Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {}
                    result => result.map_err(at("write", &file))?,
                }
            }
        }
        Ok(())
    }

    /// Lifts the limits of processor time of the groups right below it that nobody is in. On version 1 none can
    /// be given less than one below it, also if that is of somebody who has ended.
    pub fn lift_empty(&self) -> Result<()> {
        let has = |it: &&Hierarchy| !it.unified && it.controllers.contains("cpu");
        for hierarchy in self.hierarchies.list.iter().filter(has) {
            for child in children(&hierarchy.mount_point.join(&self.path))? {
                let mut processes = BTreeSet::new();
                collect_processes(&child, &mut processes)?;
                let file = child.join("cpu.cfs_quota_us");
                if processes.is_empty() {
                    match write(&file, "-1") {
                        // It has been removed meanwhile.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        other => other.map_err(at("write", &file))?,
                    }
                }
            }
        }
        Ok(())
    }

    /// The directory of the hierarchy that has `controller`, if one has.
    pub fn directory_of(&self, controller: &str) -> Option<PathBuf> {
        let has = |hierarchy: &&Hierarchy| hierarchy.controllers.contains(controller);
        let hierarchy = self.hierarchies.list.iter().find(has)?;
        Some(hierarchy.mount_point.join(&self.path))
    }
}

/// Kernel files take one value with one write, and are never made by writing.
fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// What a file of the kernel lists in one line.
fn words(file: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(file).map_err(at("read", file))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Lets the children of a version 2 group have all the controllers that it has itself.
///
/// A group can only have what all above it pass down.
fn pass_all_down(hierarchy: &Hierarchy, parent: &Path) -> Result<()> {
    pass_down(parent, |have| {
        // None has more than the root, so there is nothing to look for, which is so nearly always.
        let has_all = !hierarchy.controllers.is_empty() && hierarchy.controllers.is_subset(have);
        if has_all {
            return Ok(BTreeSet::new());
        }
        Ok(&words(&parent.join("cgroup.controllers"))? - have)
    })
}

/// Lets the children of a version 2 group have more controllers: those that are missing, by what
/// they have.
fn pass_down(
    parent: &Path,
    missing: impl FnOnce(&BTreeSet<String>) -> Result<BTreeSet<String>>,
) -> Result<()> {
    let file = parent.join("cgroup.subtree_control");
    let missing = missing(&words(&file)?)?;
    if missing.is_empty() {
        return Ok(());
    }
    let value: Vec<_> = missing.iter().map(|controller| format!("+{controller}")).collect();
    write(&file, &value.join(" ")).map_err(at("pass controllers down in", &file))
}

/// A new version 1 cpuset is empty and takes no process until it has processors and memory.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    let read = |file: &Path| fs::read_to_string(file).map_err(at("read", file));
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = child.join(name);
        if read(&file)?.trim().is_empty() {
            let value = read(&parent.join(name))?;
            write(&file, value.trim()).map_err(at("write", &file))?;
        }
    }
    Ok(())
}

fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at("list", directory))?,
    };
    let mut list = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at("list", directory))?;
        if entry.file_type().map_err(at("list", directory))?.is_dir() {
            list.push(entry.path());
        }
    }
    Ok(list)
}

fn collect_processes(directory: &Path, all: &mut BTreeSet<i32>) -> Result<()> {
    for child in children(directory)? {
        collect_processes(&child, all)?;
    }
    let file = directory.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Ok(text) => all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // Gone, or a threaded group, whose processes are listed above it.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::EOPNOTSUPP)
                || error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => return Err(at("read", &file)(error)),
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> Result<()> {
    for child in children(directory)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("remove the control group", directory)(error)),
    }
}

#[cfg(test)]
mod tests;
