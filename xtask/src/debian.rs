//! Programs from Debian's packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, bail};

use crate::process;

/// A program, and the package that has it.
pub(crate) type Packaged<'a> = (&'a str, &'a str);

/// Installs the packages of those programs that are not there.
///
/// # Errors
///
/// When apt does, or when a program is not there afterwards.
pub(crate) fn install(programs: &[Packaged<'_>]) -> anyhow::Result<()> {
    let missing = || -> Vec<&str> {
        let missing = programs.iter().filter(|(program, _)| process::find(program).is_none());
        missing.map(|(_, package)| *package).collect()
    };
    // Twice, since a package of another release that has one of the programs may have to go for the
    // others.
    for _ in 0..2 {
        let packages = missing();
        if packages.is_empty() {
            return Ok(());
        }
        update();
        println!("installing {}", packages.join(", "));
        let mut install = apt_get();
        install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        process::run(&mut install)?;
    }
    match missing() {
        missing if missing.is_empty() => Ok(()),
        missing => {
            bail!("{} were installed, without the programs that are wanted", missing.join(", "))
        }
    }
}

/// Unpacks packages into a directory, without installing them: a package with a daemon starts it
/// when it is installed.
pub(crate) fn unpack(packages: &[&str], into: &Path) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    update();
    let download = Scratch::new(&into.with_extension("download"))?;
    // As root, apt would otherwise drop to a user who cannot write here.
    let mut command = apt_get();
    command.args(["--option=APT::Sandbox::User=root", "download"]).args(packages);
    process::run(command.current_dir(&download.0))?;
    let listed = std::fs::read_dir(&download.0);
    let listed = listed.with_context(|| format!("cannot list {}", download.0.display()))?;
    let mut unpacked = 0;
    for entry in listed {
        let package = entry.context("cannot list the packages")?.path();
        process::run(process::command("dpkg-deb").arg("--extract").arg(package).arg(into))?;
        unpacked += 1;
    }
    if unpacked != packages.len() {
        bail!("apt-get brought {unpacked} packages, and not {}", packages.join(", "));
    }
    Ok(())
}

/// Learns which packages there are, once.
fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // One of several sources may be away without harm; apt says so, and what is then missing
        // is named by the command that wants it.
        if let Err(error) = process::run(apt_get().arg("update")) {
            eprintln!("{error:#}; going on with the packages known before");
        }
    });
}

fn apt_get() -> Command {
    let mut command = process::command("apt-get");
    command.arg("--quiet=2").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// A directory that is empty when this is made, and gone with it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, in place of what an earlier run left there.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        remove(path)?;
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Removes a directory and all in it, if it is there.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
