//! What others need for the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::measure::{Samples, now};
use super::node::{Network, manifest};
use super::payload::{IMAGE, Payload};
use crate::{debian, process};

/// Namespaces and nothing else, which nobody can do without.
pub(crate) fn unshare(
    payload: &Payload,
    rounds: usize,
    pause: Duration,
) -> anyhow::Result<Samples> {
    let mut samples = Vec::new();
    for _ in 0..rounds {
        let stamp = payload.fresh("unshare")?;
        std::thread::sleep(pause);
        let mut command = process::command("unshare");
        command.arg("-mnpiuf").arg(&payload.program).arg(&stamp).arg("once");
        let start = now()?;
        process::run(&mut command)?;
        samples.push(payload.wait_for(&stamp)? - start);
    }
    Ok(Samples::new(samples))
}

/// One bundle, made beforehand.
pub(crate) fn runc(
    payload: &Payload,
    directory: &Path,
    rounds: usize,
    pause: Duration,
) -> anyhow::Result<Samples> {
    debian::install(&[("runc", "runc")])?;
    let bundle = directory.join("bundle");
    fs::create_dir_all(&bundle)?;
    process::run(process::command("runc").arg("spec").current_dir(&bundle))?;
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/stamp", "/out/runc"]);
    spec["root"] = json!({ "path": payload.root, "readonly": true });
    let mount = json!({ "destination": "/out", "type": "bind", "source": payload.out,
        "options": ["rbind", "rw"] });
    spec["mounts"].as_array_mut().context("runc spec has no mounts")?.push(mount);
    fs::create_dir_all(payload.root.join("out"))?;
    // The host's network, as for the others.
    let namespaces = spec["linux"]["namespaces"].as_array_mut();
    namespaces.context("runc spec has no namespaces")?.retain(|it| it["type"] != "network");
    fs::write(&path, serde_json::to_vec_pretty(&spec)?)?;
    let runc = |arguments: &[&str]| {
        let mut command = process::command("runc");
        command.arg("--root").arg(directory.join("runc")).args(arguments);
        command.current_dir(&bundle).stdin(Stdio::null());
        command
    };
    let mut samples = Vec::new();
    for _ in 0..rounds {
        let stamp = payload.fresh("runc")?;
        std::thread::sleep(pause);
        let start = now()?;
        process::run(&mut runc(&["run", "--detach", "mainstay-bench"]))?;
        samples.push(payload.wait_for(&stamp)? - start);
        process::run(&mut runc(&["delete", "--force", "mainstay-bench"]))?;
    }
    Ok(Samples::new(samples))
}

/// The newer of its two networks, which needs no further plugins; and limits that can be set also
/// where none may be raised.
const CONFIGURATION: &str = "[containers]
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
[network]
network_backend = \"netavark\"
";

/// podman, with storage, network and `/run` of its own, so that all of it ends with this.
pub(crate) struct Podman {
    directory: PathBuf,
    /// Holds the namespaces.
    holder: Child,
}

/// How long a monitor may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What podman 4.3 leaves in every hierarchy, on version 2 in the only one.
const CGROUP: &str = "libpod_parent";

impl Podman {
    pub(crate) fn prepare(payload: &Payload, directory: &Path) -> anyhow::Result<Self> {
        debian::install(&[
            ("podman", "podman"),
            ("runc", "runc"),
            ("catatonit", "catatonit"),
            ("iptables", "iptables"),
            ("/usr/lib/podman/netavark", "netavark"),
            ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
        ])?;
        let directory = directory.join("podman");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("containers.conf"), CONFIGURATION)?;
        let mut unshare = process::command("unshare");
        unshare.args(["--mount", "--net", "sleep", "infinity"]);
        let holder = unshare.spawn().context("cannot start unshare")?;
        let podman = Self { directory, holder };
        podman.wait_for_namespaces()?;
        let set_up = "mount -t tmpfs tmpfs /run && ip link set lo up";
        process::run(podman.within("sh").args(["-c", set_up]))?;
        process::run(podman.command().args(["load", "--quiet", "--input"]).arg(&payload.image))?;
        Ok(podman)
    }

    /// Until the holder is another program, its namespaces may still be ours.
    fn wait_for_namespaces(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/comm", self.holder.id());
        while fs::read_to_string(&path).context("unshare has ended")?.trim() != "sleep" {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// One manifest after the other.
    pub(crate) fn kube_play(
        &self,
        payload: &Payload,
        network: Network,
        rounds: usize,
        pause: Duration,
    ) -> anyhow::Result<Samples> {
        let mut samples = Vec::new();
        let file = self.directory.join("pod.yaml");
        for number in 0..rounds {
            let name = format!("podman-{number}");
            let stamp = payload.fresh(&name)?;
            fs::write(&file, manifest(payload, &name, number, network))?;
            std::thread::sleep(pause);
            let mut play = self.command();
            play.args(["kube", "play"]);
            if network == Network::Host {
                play.args(["--network", "host"]);
            }
            let start = now()?;
            process::run(play.arg(&file).stdout(Stdio::null()))?;
            samples.push(payload.wait_for(&stamp)? - start);
            let mut down = self.command();
            process::run(down.args(["kube", "down"]).arg(&file).stdout(Stdio::null()))?;
        }
        Ok(Samples::new(samples))
    }

    /// Milliseconds that one container takes to print so many lines, which conmon keeps in a file of the same
    /// format as a kubelet's.
    pub(crate) fn print(&self, payload: &Payload, lines: u64) -> anyhow::Result<f64> {
        let name = "podman-lines";
        let (begin, end) = (payload.fresh(name)?, payload.fresh(&format!("{name}.end"))?);
        let log = self.directory.join("lines.log");
        let mut run = self.command();
        run.args(["run", "--detach", "--name", name, "--network", "host"]);
        run.args(["--log-driver", "k8s-file", "--log-opt"]).arg(format!("path={}", log.display()));
        run.arg("--volume").arg(format!("{}:/out", payload.out.display())).arg(IMAGE);
        run.args(["/stamp", &format!("/out/{name}"), &lines.to_string()]);
        process::run(run.stdout(Stdio::null()))?;
        let took = payload.wait_for(&end)? - payload.wait_for(&begin)?;
        let mut remove = self.command();
        process::run(remove.args(["rm", "--force", name]).stdout(Stdio::null()))?;
        fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
        Ok(took)
    }

    fn command(&self) -> Command {
        let mut command = self.within("podman");
        command.arg("--root").arg(self.directory.join("storage"));
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        command.args(["--storage-driver", "overlay"]);
        command.env("CONTAINERS_CONF", self.directory.join("containers.conf"));
        command
    }

    fn within(&self, program: &str) -> Command {
        let mut command = process::command("nsenter");
        command.arg(format!("--target={}", self.holder.id())).args(["--mount", "--net", program]);
        command
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        let mut reset = self.command();
        process::run(reset.args(["system", "reset", "--force"]).stdout(Stdio::null()))?;
        self.holder.kill()?;
        self.holder.wait()?;
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root)?.flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([root.to_owned()]) {
            let group = hierarchy.join(CGROUP);
            if !group.is_dir() {
                continue;
            }
            // With those of the monitors in it. Files of control groups go with their directory.
            let inner = fs::read_dir(&group)?.flatten().map(|entry| entry.path());
            for group in inner.filter(|path| path.is_dir()).chain([group.clone()]) {
                wait_until_empty(&group)?;
                fs::remove_dir(&group)
                    .with_context(|| format!("cannot remove {}", group.display()))?;
            }
        }
        Ok(())
    }
}

/// A monitor ends after its container.
fn wait_until_empty(group: &Path) -> anyhow::Result<()> {
    let processes = group.join("cgroup.procs");
    let start = Instant::now();
    loop {
        let left = fs::read_to_string(&processes);
        let left = left.with_context(|| format!("cannot read {}", processes.display()))?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "{} has processes: {left}", group.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("something of podman is left: {error:#}");
        }
    }
}
