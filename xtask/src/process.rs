//! Starting programs.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, bail, ensure};

/// A program that may be started.
#[expect(clippy::disallowed_methods, reason = "starting programs is what xtask is for")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // Build scripts of dependencies ask to run again when these change, and here they are those of
    // xtask. Source: cargo, `src/doc/src/reference/environment-variables.md`.
    let ours = ["CARGO_MANIFEST_", "CARGO_PKG_"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// Refuses to go on as anybody else than root.
pub(crate) fn require_root() -> anyhow::Result<()> {
    let user = std::fs::metadata("/proc/self").context("/proc is not mounted")?.uid();
    ensure!(user == 0, "this needs root; run it again as root, or with sudo -E");
    Ok(())
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a program to its end.
///
/// # Errors
///
/// When it cannot be started or fails; what it has to say about that it has printed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
///
/// As [`run`], and when the output is no text.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} prints no text", line(command)))
}

/// Ends a program that was started, in order, and waits until it has ended.
pub(crate) fn terminate(child: &mut Child) -> anyhow::Result<ExitStatus> {
    // Every shell can; the program of that name need not be installed.
    run(command("sh").arg("-c").arg(format!("kill -TERM {}", child.id())))?;
    child.wait().context("a program cannot be waited for")
}

/// Where a program is, if it is on the path or where a system keeps its own.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user who is not root has these not on the path, and uses them through sudo.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// The command as somebody would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
