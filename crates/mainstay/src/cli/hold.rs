//! `mainstay hold`

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use mainstay_engine::SHIMS;
use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::process::{Pidfd, origin, signals};
use rustix::process::Signal;

use crate::systemd;

/// For what is left to do when the last pod has used up its time.
const MARGIN: Duration = Duration::from_secs(2);

/// Sleep in the control group of an instance's pods until SIGTERM; then ask them to end, and wait
/// until they have.
///
/// It is the main process of the unit in which systemd has the pods. What systemd itself does to end
/// a unit is meant for one program: it signals whatever processes it comes across, those too that a
/// container has just started to end in order, and once more when the main process has ended.
/// Source: systemd.kill(5), `KillMode=mixed`; `cg_kill` in systemd's `src/basic/cgroup-util.c`.
#[derive(Debug, Args)]
pub(super) struct Hold {
    /// The control group, from the root of each hierarchy.
    group: String,
    /// The file that says how many seconds pods have at most to end.
    longest_grace: PathBuf,
}

impl Hold {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let signals = signals().context("cannot hear signals")?;
        while !signals.wait().context("cannot wait for a signal")?.terminate {}
        // Without an agent to say so, nothing has more than is usual.
        let longest = fs::read_to_string(&self.longest_grace).ok();
        let longest = longest.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        if let Some(longest) = longest.filter(|longest| *longest > systemd::SHUTDOWN_GRACE) {
            systemd::extend_timeout(longest + MARGIN);
        }
        let hierarchies = Hierarchies::mounted()?;
        let group = hierarchies.at(&self.group);
        let shims = hierarchies.at(&format!("{}/{SHIMS}", self.group)).processes()?;
        // The first process of a container, and of a command in it, is its shim's child. A shim ends
        // after its last container.
        for pid in group.processes()? {
            if shims.contains(&pid) || is_child_of(pid, &shims) {
                end(pid).with_context(|| format!("cannot ask process {pid} to end"))?;
            }
        }
        let own = i32::try_from(std::process::id())?;
        loop {
            let other = group.processes()?.into_iter().find(|pid| *pid != own);
            let Some(other) = other else { return Ok(ExitCode::SUCCESS) };
            // One that has ended meanwhile is what is waited for.
            if let Ok(process) = Pidfd::open(other) {
                process.wait().with_context(|| format!("cannot wait for process {other}"))?;
            }
        }
    }
}

/// One that cannot be looked at has ended.
fn is_child_of(pid: i32, shims: &BTreeSet<i32>) -> bool {
    origin(pid).is_ok_and(|origin| shims.contains(&origin.parent))
}

fn end(pid: i32) -> std::io::Result<()> {
    match Pidfd::open(pid) {
        Ok(process) => process.signal(Signal::TERM.as_raw()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
