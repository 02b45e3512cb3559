//! `mainstay hold`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::process::{Pidfd, signals};

/// Sleep in a control group until SIGTERM, and then until everything else in it has ended.
///
/// It is the main process of the unit in which systemd has the pods. When that ends, systemd asks
/// whatever else is in the unit a second time to end, which many programs take for impatience; so
/// it is the last one to go. Source: `service_sigchld_event` and `service_enter_signal` in systemd's
/// `src/core/service.c`.
#[derive(Debug, Args)]
pub(super) struct Hold {
    /// The control group, from the root of each hierarchy.
    group: String,
}

impl Hold {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let signals = signals().context("cannot hear signals")?;
        while !signals.wait().context("cannot wait for a signal")?.terminate {}
        let hierarchies = Hierarchies::mounted()?;
        let group = hierarchies.at(&self.group);
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
