//! `cargo xtask install`: mainstay onto this machine, or into a package.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::{layout, metadata, process};

/// The unit as it is in the project, and where it says that mainstay is.
const UNIT: &str = "dist/mainstay.service";
const UNIT_PREFIX: &str = "/usr/local/";
const DEFAULTS: &str = "dist/mainstay.default";
const PROGRAMS: [&str; 2] = ["mainstay", "mainstay-shim"];
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/mainstay"),
    ("fish", "share/fish/vendor_completions.d/mainstay.fish"),
    ("zsh", "share/zsh/site-functions/_mainstay"),
];

/// Builds mainstay and installs it below `prefix`, all of it below `$DESTDIR` if that is given.
pub(crate) fn run(prefix: &str) -> anyhow::Result<()> {
    let destination = PathBuf::from(std::env::var_os("DESTDIR").unwrap_or_else(|| "/".into()));
    ensure!(destination.is_absolute(), "$DESTDIR has to be an absolute path");
    ensure!(prefix.starts_with('/'), "the prefix has to be an absolute path");
    into(&destination, prefix)
}

/// The same, with `destination` for the root directory.
pub(crate) fn into(destination: &Path, prefix: &str) -> anyhow::Result<()> {
    let prefix = prefix.trim_end_matches('/');
    let below = |path: &str| destination.join(path.trim_start_matches('/'));

    let built = build()?;
    for program in PROGRAMS {
        let content = read(&built.join(program))?;
        place(&below(&format!("{prefix}/bin/{program}")), &content, 0o755)?;
    }
    let mainstay = built.join(PROGRAMS[0]);
    for (shell, path) in COMPLETIONS {
        let mut command = process::command(&mainstay);
        let script = process::output(command.args(["completion", shell]))?;
        place(&below(&format!("{prefix}/{path}")), script.as_bytes(), 0o644)?;
    }
    let unit = fs::read_to_string(UNIT).with_context(|| format!("cannot read {UNIT}"))?;
    let unit = unit.replace(UNIT_PREFIX, &format!("{prefix}/"));
    place(
        &below(&format!("{prefix}/lib/systemd/system/mainstay.service")),
        unit.as_bytes(),
        0o644,
    )?;
    let defaults = below("/etc/default/mainstay");
    if defaults.exists() {
        println!("left alone {}", defaults.display());
    } else {
        place(&defaults, &read(Path::new(DEFAULTS))?, 0o644)?;
    }
    let manifests = below("/etc/mainstay/manifests");
    fs::create_dir_all(&manifests).with_context(|| format!("cannot make {}", manifests.display()))
}

/// Builds the programs as they are released, and says where they are.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    build_with(&[])
}

/// The same, with these options of rustc for the agent. They do not change how its functions are called.
pub(crate) fn build_with(options: &[&str]) -> anyhow::Result<PathBuf> {
    let [agent, shim] = PROGRAMS;
    let mut command = process::cargo();
    command.args(["build", "--release", "--locked", "--package", shim]);
    process::run(&mut command)?;
    let mut command = process::cargo();
    command.args(["rustc", "--release", "--locked", "--package", agent, "--bin", agent, "--"]);
    let target = metadata::read()?.target_directory;
    command.args(layout::options(&target.join("release/layout"))?);
    process::run(command.args(options))?;
    let top = std::env::current_dir().context("there is no current directory")?;
    // Short, if it is inside.
    Ok(target.strip_prefix(top).unwrap_or(&target).join("release"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Puts a file in its place at once: what runs of an older one runs on.
fn place(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&temporary, content)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}
