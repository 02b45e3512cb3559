//! The power fails, at moments that nobody chose, while manifests and images come and go.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::Random;
use crate::vm::guest::Guest;
use crate::vm::payload::{IMAGES, WIDE};
use crate::vm::pods::{self, MANIFESTS, Noted};

/// How many times.
const CUTS: usize = 5;
/// Milliseconds within which power fails after the changes have begun.
const AFTER: u64 = 6000;
/// Milliseconds within which it fails once more, from when it is back.
const DURING_BOOT: u64 = 20_000;
/// Puts, changes and removes manifests for as long as there is power.
const EDITS: &str = include_str!("edits.sh");
const DIRECTORY: &str = "/root/power";

pub(super) fn cuts(guest: &mut Guest) -> anyhow::Result<String> {
    let mut random = Random(guest.seed);
    guest.write(&format!("{DIRECTORY}/edits.sh"), EDITS)?;
    let mut forgotten = 0;
    for cut in 1..=CUTS {
        // A new image, and a pod that wants it, at the same time.
        let wide = format!("wide-{cut}");
        ensure!(cut < WIDE, "there is no image {wide}");
        guest.write(&format!("{MANIFESTS}/{wide}.yaml"), &pods::RUN.replace("wide-0", &wide))?;
        let (seed, wait) = (random.below(1 << 15), random.below(AFTER));
        guest.sh(&format!(
            "systemd-run --quiet --unit=edits bash {DIRECTORY}/edits.sh {seed} {cut}; \
             cp {IMAGES}/{wide}.tar /var/lib/mainstay/images/ && \
             sync /var/lib/mainstay/images/{wide}.tar /var/lib/mainstay/images"
        ))?;
        std::thread::sleep(Duration::from_millis(wait));
        guest.sh(&format!(
            "set -e; cd {DIRECTORY}; echo kept >kept-{cut}; sync kept-{cut} .; echo lost >lost-{cut}"
        ))?;
        guest.cut_power()?;
        let mut moments = format!("{wait} ms");
        if random.below(2) == 0 {
            let wait = random.below(DURING_BOOT);
            guest.power_on()?;
            std::thread::sleep(Duration::from_millis(wait));
            guest.cut_power()?;
            moments.push_str(&format!(", and {wait} ms into the next boot"));
        }
        guest.switch_on()?;
        forgotten +=
            usize::from(guest.run(&format!("test -s {DIRECTORY}/lost-{cut}"))?.status != 0);
        guest
            .sh(&format!("test -s {DIRECTORY}/kept-{cut}"))
            .context("the disk of this machine loses what was synced")?;
        let seen = examine(guest).with_context(|| format!("cut {cut}, after {moments}"))?;
        println!("    cut {cut} after {moments}: {seen}");
    }
    ensure!(
        forgotten > 0,
        "no power cut has lost anything that was not synced, so they prove nothing"
    );
    // What an edit was in the middle of is there, too.
    guest.sh(&format!(
        "rm -f {MANIFESTS}/[np]?*.yaml {MANIFESTS}/wide-[1-9].yaml {MANIFESTS}/.*.new"
    ))?;
    guest.wait_for(
        "they are gone",
        "! mainstay status | grep -e '[np][0-9]*-guest' -e 'wide-[1-9]-guest'",
    )?;
    Ok(format!("{CUTS} cuts, {forgotten} of them lost what was not synced"))
}

/// What the manifests say is what runs, and what had finished does not run again.
fn examine(guest: &mut Guest) -> anyhow::Result<String> {
    let boot = guest.sh("cat /proc/sys/kernel/random/boot_id")?;
    // What is on disk after the cut is what counts: name and generation of each.
    let text = guest.sh(&format!(
        "cd {MANIFESTS}; for file in *.yaml; do \
         echo ${{file%.yaml}} $(sed -n 's/.*echo \"[^ ]* \\([0-9]*\\) started.*/\\1/p' $file); done"
    ))?;
    let manifests: Vec<(&str, &str)> =
        text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    let finished = guest.sh("touch /observed/finished; cat /observed/finished")?;
    let running: Vec<(&str, &str)> = manifests
        .iter()
        .filter(|(name, _)| !once(name) && *name != "finished" && *name != "interrupted")
        .map(|(name, _)| (*name, "Running"))
        .collect();
    guest.wait_for_pods(&running)?;
    guest.wait_for(
        "nothing is on its way any more",
        "! mainstay status | grep -e ContainerCreating -e Pending -e Terminating",
    )?;

    let status = guest.status()?;
    let pods = status["pods"].as_array().context("there are no pods")?;
    ensure!(
        pods.len() == manifests.len(),
        "{} pods of {} manifests: {manifests:?}, {status}",
        pods.len(),
        manifests.len()
    );
    let log = pods::log(guest)?;
    let starts = |name: &str, generation: &str, here: bool| {
        let is = |noted: &&Noted| {
            let same = noted.pod == name && noted.generation == generation;
            same && noted.what == "started" && (noted.boot == boot) == here
        };
        log.iter().filter(is).count()
    };
    let (mut kept, mut again) = (0, 0);
    for (name, generation) in &manifests {
        let now = starts(name, generation, true);
        if finished.lines().any(|line| line == *name) {
            ensure!(now == 0, "{name} had finished and ran again: {log:#?}");
            kept += 1;
        } else if once(name) {
            let before = starts(name, generation, false);
            ensure!(
                now + before <= 2 && now <= 1,
                "{name} ran {before} times, and {now} times now"
            );
            again += usize::from(now + before > 1);
        } else if name.starts_with('p') {
            ensure!(
                now == 1,
                "{name} of generation {generation} was started {now} times: {log:#?}"
            );
        }
    }
    for (name, _) in manifests.iter().filter(|(name, _)| name.starts_with("wide-")) {
        let said = guest.sh(&format!("mainstay logs {name}"))?;
        ensure!(said == "whole", "the image of {name} says {said:?}");
    }
    for name in ["finished", "interrupted"] {
        let starts = pods::times(&log, name, "started");
        ensure!(starts == 1, "{name} was started {starts} times");
    }
    let ledger = guest.sh("find /var/lib/mainstay/ledger -name '*.unreadable'")?;
    ensure!(ledger.is_empty(), "the ledger cannot be read: {ledger}");
    let errors = guest.sh("journalctl --boot --unit=mainstay --output=cat | grep ERROR; true")?;
    ensure!(errors.is_empty(), "the agent says:\n{errors}");
    let warnings =
        guest.sh("journalctl --boot --unit=mainstay --output=cat | grep -c WARN; true")?;
    Ok(format!(
        "{} pods run, {kept} had finished, {again} were cut before that was known and ran again, \
         {warnings} warnings",
        running.len()
    ))
}

/// Pods that are to run once.
fn once(name: &str) -> bool {
    name.starts_with('n')
}
