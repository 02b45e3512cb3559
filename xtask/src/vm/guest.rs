//! The machine as its operator sees it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::disk::Disks;
use super::machine::{Answer, Machine};

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often is looked whether it is there. Looking costs more than it does on a real machine.
const INTERVAL: Duration = Duration::from_millis(250);

/// The port on which the guest is reached from outside.
pub(super) const PORT: u16 = 8080;

/// Who makes control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// What is chosen when nobody says anything.
    Systemd,
    Cgroupfs,
}

/// A guest, switched on or off.
pub(super) struct Guest {
    disks: Disks,
    console: PathBuf,
    /// The port of this machine that leads to [`PORT`].
    port: u16,
    machine: Option<Machine>,
    /// How mainstay is set up in it.
    pub(super) driver: Driver,
    /// What random choices follow from.
    pub(super) seed: u64,
}

/// A process of a pod, and which one of all that had or will have its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// When it was started, in ticks since boot.
    started: u64,
    pub(super) cgroup: String,
    pub(super) command: String,
}

/// All processes of pods, by number.
pub(super) type Processes = BTreeMap<u32, Process>;

impl Driver {
    /// Below which everything of pods is, from the root of the hierarchy.
    pub(super) fn root(self) -> &'static str {
        match self {
            Self::Systemd => "/mainstay.slice/mainstay-pods.service",
            Self::Cgroupfs => "/mainstay",
        }
    }
}

impl Guest {
    pub(super) fn new(disks: Disks, console: PathBuf, seed: u64) -> anyhow::Result<Self> {
        // Free now, and hardly taken before qemu has it.
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
        let port = listener.local_addr()?.port();
        Ok(Self { disks, console, port, machine: None, driver: Driver::Systemd, seed })
    }

    // === On and off ===

    /// Switches it on, and waits until everything that starts by itself has started.
    pub(super) fn switch_on(&mut self) -> anyhow::Result<()> {
        self.power_on()?;
        self.machine.as_mut().context("the guest is off")?.wait_for_boot()?;
        let state = self.run("systemctl is-system-running --wait")?;
        if state.status != 0 {
            bail!("the guest is {}:\n{}", state.output.trim(), self.sh("systemctl --failed")?);
        }
        Ok(())
    }

    /// Switches it on, and does not wait.
    pub(super) fn power_on(&mut self) -> anyhow::Result<()> {
        ensure!(self.machine.is_none(), "the guest is on");
        let machine = Machine::start(&self.disks, &self.console, (self.port, PORT))?;
        self.machine = Some(machine);
        Ok(())
    }

    /// Boots it again, as an operator does.
    pub(super) fn reboot(&mut self) -> anyhow::Result<()> {
        self.machine.take().context("the guest is off")?.end_by("systemctl --no-block reboot")?;
        self.switch_on()
    }

    /// Switches it off as an operator does, and on again.
    pub(super) fn power_off_and_on(&mut self) -> anyhow::Result<()> {
        self.machine.take().context("the guest is off")?.end_by("systemctl --no-block poweroff")?;
        self.switch_on()
    }

    pub(super) fn cut_power(&mut self) -> anyhow::Result<()> {
        self.machine.take().context("the guest is off")?.cut_power()
    }

    // === Commands ===

    /// Runs a script and says how it ended.
    pub(super) fn run(&mut self, script: &str) -> anyhow::Result<Answer> {
        self.machine.as_mut().context("the guest is off")?.run(script)
    }

    /// Runs a script that has to succeed, and returns what it printed, without the end of the last
    /// line.
    pub(super) fn sh(&mut self, script: &str) -> anyhow::Result<String> {
        let Answer { status, output } = self.run(script)?;
        ensure!(status == 0, "`{script}` ended with {status}:\n{output}");
        Ok(output.trim_end().to_owned())
    }

    /// Waits until a script succeeds.
    pub(super) fn wait_for(&mut self, what: &str, script: &str) -> anyhow::Result<()> {
        self.wait(what, |guest| {
            let answer = guest.run(script)?;
            Ok(if answer.status == 0 { Ok(()) } else { Err(answer.output) })
        })
    }

    /// Waits until `look` finds what it looks for, or says why it gave up.
    fn wait<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match look(self)? {
                Ok(found) => return Ok(found),
                Err(instead) if Instant::now() > deadline => {
                    bail!("not after {} s: {what}; instead:\n{instead}", PATIENCE.as_secs())
                }
                Err(_) => std::thread::sleep(INTERVAL),
            }
        }
    }

    /// Writes a file as one does who wants it to be whole at any moment, and to stay.
    pub(super) fn write(&mut self, path: &str, content: &str) -> anyhow::Result<()> {
        let (directory, name) = path.rsplit_once('/').context("the path is not absolute")?;
        let new = format!("{directory}/.{name}.new");
        // Scripts have an END of their own.
        self.sh(&format!(
            "set -e; mkdir -p {directory}; cat >{new} <<'END OF FILE'\n{content}\nEND OF FILE\n\
             sync {new}; mv {new} {path}; sync {directory}"
        ))?;
        Ok(())
    }

    // === Pods ===

    /// What `mainstay status` says, whether all is well or not.
    pub(super) fn status(&mut self) -> anyhow::Result<Value> {
        let answer = self.run("mainstay status --output=json 2>/dev/null")?;
        serde_json::from_str(&answer.output)
            .with_context(|| format!("mainstay status says:\n{}", answer.output))
    }

    /// What it says of one pod, by its name without the node's.
    pub(super) fn pod(&mut self, name: &str) -> anyhow::Result<Value> {
        let status = self.status()?;
        pod_in(&status, name).cloned().with_context(|| format!("there is no pod {name}: {status}"))
    }

    /// Waits until these pods are in these states, and all of their containers ready if that is
    /// `Running`.
    pub(super) fn wait_for_pods(&mut self, pods: &[(&str, &str)]) -> anyhow::Result<()> {
        self.wait(&format!("{pods:?}"), |guest| {
            let status = guest.status()?;
            let is = |(name, state): &(&str, &str)| {
                pod_in(&status, name).is_some_and(|pod| {
                    let ready = pod["ready"] == pod["containers"];
                    pod["state"] == *state && (ready || *state != "Running")
                })
            };
            if pods.iter().all(is) {
                return Ok(Ok(()));
            }
            Ok(Err(guest.run("mainstay status")?.output))
        })
    }

    /// The directory of a container's control group.
    pub(super) fn cgroup_of(&mut self, pod: &str, container: &str) -> anyhow::Result<String> {
        let pod = self.pod(pod)?;
        let containers = pod["status"]["containerStatuses"].as_array();
        let id = containers
            .into_iter()
            .flatten()
            .find(|it| it["name"] == container)
            .and_then(|it| it["containerID"].as_str())
            .and_then(|id| id.split_once("://"))
            .with_context(|| format!("the container {container} has no ID: {pod}"))?;
        let found = self.sh(&format!("find /sys/fs/cgroup -type d -name '*{}*'", id.1))?;
        ensure!(found.lines().count() == 1, "control groups of {container}: {found:?}");
        Ok(found)
    }

    /// All processes in the pods' control groups, shims included.
    pub(super) fn processes(&mut self) -> anyhow::Result<Processes> {
        // What is the kernel's or the system's is passed over before it costs anything.
        let script = format!(
            "cd /proc; for pid in [0-9]*; do \
             read -r group <$pid/cgroup || continue; \
             case ${{group#0::}} in {}/*) ;; *) continue;; esac; \
             read -r stat <$pid/stat && set -- ${{stat##*) }} && \
             echo \"$pid ${{20}} ${{group#0::}} $(tr '\\0\\n' '  ' <$pid/cmdline)\"; \
             done 2>/dev/null; true",
            self.driver.root()
        );
        let text = self.sh(&script)?;
        let lines = text.lines().map(|line| {
            let mut words = line.splitn(4, ' ');
            let mut next = || words.next().context("a line is too short");
            let (pid, started) = (next()?.parse()?, next()?.parse()?);
            let (cgroup, command) = (next()?.to_owned(), next()?.trim().to_owned());
            anyhow::Ok((pid, Process { started, cgroup, command }))
        });
        lines.collect::<anyhow::Result<_>>().with_context(|| format!("cannot read {text}"))
    }

    /// Asks for a page from outside, as anybody on the network would.
    pub(super) fn page(&self) -> anyhow::Result<String> {
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        let answer = ask().context("the guest's host port does not answer")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("that is not HTTP")?;
        Ok(body.trim().to_owned())
    }

    /// What there is to know after something has failed.
    pub(super) fn post_mortem(&mut self) -> String {
        let script = "mainstay status; systemctl --failed --no-legend; \
             journalctl --boot --no-pager --lines=80 --unit='mainstay*'; \
             systemd-cgls --no-pager --xattr=no | head -80";
        match self.run(script) {
            Ok(answer) => answer.output,
            Err(error) => {
                let text = std::fs::read_to_string(&self.console).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                format!("{error:#}; its console says:\n{last}")
            }
        }
    }
}

fn pod_in<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let full = format!("{name}-guest");
    status["pods"].as_array()?.iter().find(|pod| pod["name"] == full.as_str())
}
