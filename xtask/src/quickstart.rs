//! `cargo xtask quickstart`: builds mainstay, runs a pod with it, shows it, and leaves nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

use crate::{debian, install, process, test_tools};

const MANIFEST: &str = "examples/hello.yaml";
/// How long a pod may take to run, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether it does.
const INTERVAL: Duration = Duration::from_millis(50);

/// A node of its own, beside any other on this machine.
struct Node {
    mainstay: PathBuf,
    directory: PathBuf,
}

/// Does everything.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure!(geteuid().is_root(), "containers need root; run this again as root, or with sudo -E");
    let image = test_tools::bring_busybox_image()?;
    let node = Node {
        mainstay: install::build()?.join("mainstay"),
        directory: std::path::absolute("target/quickstart")?,
    };
    // What an interrupted run left.
    if node.directory.exists() {
        node.remove()?;
    }
    let result = node.show(&image);
    let removed = node.remove();
    result.and(removed)
}

// === impl Node ===

impl Node {
    fn show(&self, image: &Path) -> anyhow::Result<()> {
        let manifests = self.directory.join("manifests");
        fs::create_dir_all(&manifests)?;
        let image = image.to_string_lossy();
        process::run(announce(&mut self.command(&["image", "import", &*image])))?;

        let log = self.directory.join("agent.log");
        let mut run = self.command(&["run", "--hostname-override=quickstart"]);
        run.arg(format!("--pod-manifest-path={}", manifests.display()));
        announce(&mut run)
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let mut agent = run.spawn().context("cannot start mainstay")?;
        let result = self.show_pod(&mut agent, &manifests);
        let ended = end(&mut agent);
        if result.is_err() {
            eprintln!("the agent's log:\n{}", fs::read_to_string(&log)?);
        }
        result.and(ended)
    }

    fn show_pod(&self, agent: &mut Child, manifests: &Path) -> anyhow::Result<()> {
        // A file that is renamed into the directory is never seen half-written.
        println!("\n$ cp {MANIFEST} {}", manifests.display());
        let copied = self.directory.join("hello.yaml");
        fs::copy(MANIFEST, &copied).with_context(|| format!("cannot copy {MANIFEST}"))?;
        fs::rename(copied, manifests.join("hello.yaml"))?;
        self.wait(agent)?;
        process::run(announce(&mut self.command(&["status"])))?;
        process::run(announce(&mut self.command(&["logs", "hello"])))
    }

    /// Waits until all containers of the pod are ready.
    fn wait(&self, agent: &mut Child) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = agent.try_wait()? {
                bail!("mainstay ended: {status}");
            }
            // Until the agent listens there is no answer, and the exit status is about the pods.
            let status = self.command(&["status", "--output=json"]).output()?;
            if serde_json::from_slice(&status.stdout).is_ok_and(|status| is_ready(&status)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let text = String::from_utf8_lossy(&status.stdout);
                bail!("the pod does not run after {} s:\n{text}", PATIENCE.as_secs());
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// Stops what runs and removes all traces.
    fn remove(&self) -> anyhow::Result<()> {
        process::run(announce(&mut self.command(&["down", "--purge"])))?;
        debian::remove(&self.directory)
    }

    /// A command of mainstay on this node.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::command(&self.mainstay);
        command.args(arguments);
        command.arg(format!("--root-dir={}", self.directory.join("root").display()));
        command.arg(format!("--run-dir={}", self.directory.join("run").display()));
        command
    }
}

/// Whether the one pod that there is has all its containers ready.
fn is_ready(status: &Value) -> bool {
    let pod = &status["pods"][0];
    pod["containers"].as_u64().is_some_and(|all| all > 0 && pod["ready"] == all)
}

/// Shows what is done, as somebody would type it.
fn announce(command: &mut Command) -> &mut Command {
    println!("\n$ {}", process::line(command));
    command
}

/// Ends the agent as a service manager does. Its pods would run on.
fn end(agent: &mut Child) -> anyhow::Result<()> {
    if agent.try_wait()?.is_none() {
        kill_process(Pid::from_child(agent), Signal::TERM).context("cannot end mainstay")?;
    }
    let status = agent.wait()?;
    ensure!(status.success(), "mainstay ended: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_ready;

    #[test]
    fn ready_is_all_containers_of_a_pod() {
        assert!(!is_ready(&json!({ "pods": [] })));
        assert!(!is_ready(&json!({ "pods": [{ "containers": 2, "ready": 1 }] })));
        assert!(is_ready(&json!({ "pods": [{ "containers": 2, "ready": 2 }] })));
    }
}
