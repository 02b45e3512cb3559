//! The operator reboots the machine.

use std::time::Instant;

use anyhow::{Context, ensure};

use crate::vm::guest::{Driver, Guest};
use crate::vm::pods::{self, MANIFESTS, RUN_ON, times};

/// Pods by what they are to be before and after.
const LIVES: &[(&str, &str, &str)] = &[
    ("web", "Running", "Running"),
    ("host", "Running", "Running"),
    ("wide-0", "Running", "Running"),
    ("retried", "Running", "Running"),
    ("finished", "Completed", "Completed"),
    ("interrupted", "Running", "Interrupted"),
];

pub(super) fn reboot(guest: &mut Guest) -> anyhow::Result<String> {
    guest.sh(&format!("rm -f {}", pods::LOG))?;
    let more = [
        ("wide-0", pods::RUN.to_owned()),
        ("retried", pods::noted("retried", "OnFailure", RUN_ON)),
        ("finished", pods::noted("finished", "Never", "exit 0")),
        ("interrupted", pods::noted("interrupted", "Never", RUN_ON)),
    ];
    // It is to run only after the log is empty.
    guest.write(&format!("{MANIFESTS}/web.yaml"), &pods::WEB.replace("cpu: 500m", "cpu: 501m"))?;
    for (name, manifest) in &more {
        guest.write(&format!("{MANIFESTS}/{name}.yaml"), manifest)?;
    }
    if guest.driver == Driver::Systemd {
        guest.write(&format!("{MANIFESTS}/slow.yaml"), pods::SLOW)?;
        guest.wait_for("the slow one runs", &format!("grep -q '^slow 1 started' {}", pods::LOG))?;
        let told = "grep -qx 180 /run/mainstay/longest-grace";
        guest.wait_for("systemd is told how long pods may take", told)?;
    }
    let lives = |after: bool| -> Vec<(&str, &str)> {
        LIVES.iter().map(|(name, old, new)| (*name, if after { *new } else { *old })).collect()
    };
    guest.wait_for_pods(&lives(false))?;
    guest.wait_for("the log is written", &format!("grep -q '^web 1 started' {}", pods::LOG))?;

    let start = Instant::now();
    guest.reboot()?;
    guest.wait_for_pods(&lives(true))?;
    let time = start.elapsed();

    let log = pods::log(guest)?;
    for (pod, starts) in [("web", 2), ("retried", 2), ("finished", 1), ("interrupted", 1)] {
        let found = times(&log, pod, "started");
        ensure!(found == starts, "{pod} was started {found} times, not {starts}: {log:#?}");
    }
    let phase = guest.pod("interrupted")?["status"]["phase"].clone();
    ensure!(phase == "Failed", "the pod that was interrupted is {phase}");
    let whole = guest.sh("mainstay logs wide-0")?;
    ensure!(whole == "whole", "the image says {whole:?}");
    // A pod was told to end, had time to do something about it, and with systemd also its network.
    // The version before it may have said that it ended after the log was emptied.
    let first = log.iter().position(|noted| noted.pod == "web" && noted.what == "started");
    let since = &log[first.unwrap_or(0)..];
    let ends = times(since, "web", "ended") + times(since, "web", "ended-alone");
    ensure!(ends == 1, "the pod was told to end {ends} times: {log:#?}");
    if guest.driver == Driver::Systemd {
        ensure!(times(since, "web", "ended") == 1, "the network went before the pods");
        ensure!(times(&log, "slow", "ended") == 1, "a pod was killed before its time was over");
        guest.sh(&format!("rm {MANIFESTS}/slow.yaml"))?;
        order(guest)?;
    }
    Ok(format!("{:.0} s until everything ran again", time.as_secs_f64()))
}

/// At shutdown the agent goes first, then the pods, and then the network.
fn order(guest: &mut Guest) -> anyhow::Result<()> {
    let journal = guest.sh("journalctl --boot=-1 --no-pager --output=cat")?;
    let lines: Vec<&str> = journal.lines().collect();
    let mut places = Vec::new();
    for message in [
        "Stopped mainstay.service",
        "Stopped mainstay-pods.service",
        "Stopped target network.target",
    ] {
        let place = lines.iter().rposition(|line| line.starts_with(message));
        places.push(place.with_context(|| format!("nobody said {message:?}"))?);
    }
    ensure!(places.is_sorted(), "the order of the end was another one: {places:?}");
    Ok(())
}
