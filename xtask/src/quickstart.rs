//! `cargo xtask quickstart`: builds mainstay, runs a pod with it, shows it, and leaves nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
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
    process::require_root()?;
    let image = test_tools::bring_busybox_image()?;
    let node = Node {
        mainstay: install::build()?.join("mainstay"),
        directory: "target/quickstart".into(),
    };
    // What a run left that was interrupted or failed.
    if node.directory.exists() {
        node.down()?;
    }
    debian::remove(&node.directory)?;
    node.show(&image)?;
    debian::remove(&node.directory)
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
        run.args(["--secure-port=0", "--port=0", "--healthz-port=0"]);
        run.arg(format!("--pod-manifest-path={}", manifests.display()));
        run.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
        let mut agent = announce(&mut run).spawn().context("cannot start mainstay")?;
        let mut result = self.show_pod(&mut agent, &manifests);
        if result.is_err() {
            // It may be what hangs. Its pods are stopped without it as well.
            agent.kill().context("cannot kill mainstay")?;
            eprintln!("the agent's log, {}:\n{}", log.display(), fs::read_to_string(&log)?);
        }
        result = result.and(self.down());
        if result.is_err() {
            agent.kill().context("cannot kill mainstay")?;
        }
        let status = agent.wait()?;
        ensure!(result.is_err() || status.success(), "mainstay ended: {status}");
        result
    }

    fn show_pod(&self, agent: &mut Child, manifests: &Path) -> anyhow::Result<()> {
        println!("\n$ cp {MANIFEST} {}", manifests.display());
        fs::copy(MANIFEST, manifests.join("hello.yaml"))
            .with_context(|| format!("cannot copy {MANIFEST}"))?;
        // Until the agent listens there is no answer.
        self.wait(agent, &["status", "--output=json"], |status| {
            serde_json::from_slice(status).is_ok_and(|status| is_ready(&status))
        })?;
        process::run(announce(&mut self.command(&["status"])))?;
        // A container runs before it has said something.
        self.wait(agent, &["logs", "hello"], |log| !log.is_empty())?;
        process::run(announce(&mut self.command(&["logs", "hello"])))
    }

    /// Waits until what a command prints is as it should be.
    fn wait(
        &self,
        agent: &mut Child,
        arguments: &[&str],
        done: impl Fn(&[u8]) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = agent.try_wait()? {
                bail!("mainstay ended: {status}");
            }
            let mut command = self.command(arguments);
            let output = command.output()?;
            if done(&output.stdout) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                bail!("after {PATIENCE:?}, {} says:\n{text}", process::line(&command));
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// Ends the agent and its pods, and removes all that they have on this machine.
    fn down(&self) -> anyhow::Result<()> {
        process::run(announce(&mut self.command(&["down", "--purge"])))
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
