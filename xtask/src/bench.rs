//! `cargo xtask bench`: the promises of SPECIFICATION.md, measured.
//!
//! Everything is measured in one run, on one machine, in one state, with the same payload: a static
//! program that writes down what time it is as its first act. What others need for the same work
//! stands beside it, and the ratios are what counts: absolute times hold for this machine only.

mod measure;
mod node;
mod others;
mod payload;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::debian::Scratch;
use crate::{install, process};
use measure::Samples;
use node::{Network, Node};
use others::Podman;
use payload::Payload;

/// How often single starts are measured.
const ROUNDS: usize = 20;
/// How many pods are many.
const MANY: usize = 100;
/// How many are some.
const SOME: usize = 20;
/// How long idle pods are watched.
const IDLE: Duration = Duration::from_secs(30);
/// How long nothing is done between two starts, as on a machine where now and then a pod is
/// started.
const PAUSE: Duration = Duration::from_millis(600);

/// What is promised of the time from a manifest to its entrypoint.
struct Budget {
    name: &'static str,
    /// Milliseconds, of the median.
    limit: f64,
    /// The part of podman's median.
    of_podman: Option<f64>,
}

const HOST_NETWORK: Budget = Budget { name: "host network", limit: 30.0, of_podman: Some(0.1) };
const OWN_NETWORK: Budget = Budget { name: "own network, hostPort", limit: 45.0, of_podman: None };

/// Measures, prints, and says what is promised and not kept.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let alone = arguments.contains(&"--alone");
    process::require_root()?;
    let programs = install::build()?;
    let scratch = Scratch::new(Path::new("target/bench"))?;
    // Paths in manifests and bundles are absolute.
    let directory = std::path::absolute(scratch.path()).context("there is no current directory")?;
    let payload = Payload::make(&directory)?;
    let mut table = Table::default();

    table.say(&measure::machine()?);
    table.say(&format!(
        "one write to cgroup.procs, {} ms after the last one: {}",
        PAUSE.as_millis(),
        measure::cgroup_write(PAUSE, 5)?
    ));
    measure::settle()?;
    println!("measuring unshare and runc");
    let floor = others::unshare(&payload, ROUNDS, PAUSE)?;
    let runc = if alone { None } else { Some(others::runc(&payload, &directory, ROUNDS, PAUSE)?) };
    let (mut podman_host, mut podman_own) = (None, None);
    if !alone {
        measure::settle()?;
        println!("measuring podman kube play");
        let other = Podman::prepare(&payload, &directory)?;
        podman_host = Some(other.kube_play(&payload, Network::Host, ROUNDS, PAUSE)?);
        podman_own = Some(other.kube_play(&payload, Network::Own, ROUNDS, PAUSE)?);
    }

    measure::settle()?;
    println!("measuring mainstay");
    let mut node = Node::start(&programs, &directory, &payload)?;
    let agent_alone = node.agent_memory()?;
    let host = node.single_starts(&payload, Network::Host, ROUNDS, PAUSE)?;
    let own = node.single_starts(&payload, Network::Own, ROUNDS, PAUSE)?;
    let removal = node.removals(&payload, ROUNDS, PAUSE)?;
    let all_own = node.all_at_once(&payload, Network::Own, MANY)?;
    node.remove_all()?;
    let some = node.all_at_once(&payload, Network::Host, SOME)?;
    let (agent_some, shims_some) = (node.agent_memory()?, node.shim_memory()?);
    node.remove_all()?;
    let all_host = node.all_at_once(&payload, Network::Host, MANY)?;
    let cpu = node.cpu_share(IDLE)?;
    let (agent_many, shims_many) = (node.agent_memory()?, node.shim_memory()?);
    let restart = node.kill_and_start(MANY)?;
    node.end()?;

    table.head();
    table.row("unshare, the floor", &floor.to_string(), "", "");
    if let Some(runc) = &runc {
        table.row("runc run, one bundle", &runc.to_string(), "", "");
    }
    for (budget, ours, theirs) in
        [(HOST_NETWORK, &host, &podman_host), (OWN_NETWORK, &own, &podman_own)]
    {
        if let Some(theirs) = theirs {
            let name = format!("podman kube play, {}", budget.name);
            table.row(&name, &theirs.to_string(), "", "");
        }
        table.start(&budget, ours, theirs.as_ref());
    }
    let ratios = [&host, &own].map(|ours| {
        let to = |other: &Samples| format!("{:.2}", ours.median() / other.median());
        (to(&floor), runc.as_ref().map(to))
    });
    let [(host_floor, host_runc), (own_floor, own_runc)] = ratios;
    let runc_ratio =
        |ratio: Option<String>| ratio.map_or(String::new(), |it| format!(", {it} × runc"));
    table.row(
        "the same as multiples, host network",
        &format!("{host_floor} × unshare{}", runc_ratio(host_runc)),
        "",
        "",
    );
    table.row(
        "the same as multiples, own network",
        &format!("{own_floor} × unshare{}", runc_ratio(own_runc)),
        "",
        "",
    );
    table.row("manifest removed → process gone", &removal.to_string(), "", "");
    for (name, took) in [("host network", all_host), ("own network", all_own)] {
        let kept = took <= 2000.0;
        let name = format!("{MANY} manifests at once → last entrypoint, {name}");
        table.row(&name, &format!("{took:.0} ms"), "≤ 2000 ms", verdict(kept));
    }
    table.row(&format!("{SOME} manifests at once, host network"), &format!("{some:.0} ms"), "", "");
    let memory = |table: &mut Table, name: &str, bytes: u64, limit: u64| {
        let promise = format!("≤ {} MB", megabytes(limit));
        table.row(name, &format!("{} MB", megabytes(bytes)), &promise, verdict(bytes <= limit));
    };
    const MB: u64 = 1_000_000;
    memory(&mut table, "agent, no pod (PSS)", agent_alone, 20 * MB);
    memory(&mut table, &format!("agent, {MANY} pods (PSS)"), agent_many, 25 * MB);
    memory(&mut table, "one pod's shim (PSS, average)", shims_many / MANY as u64, MB / 2);
    memory(&mut table, &format!("all, {SOME} pods (PSS)"), agent_some + shims_some, 30 * MB);
    memory(&mut table, &format!("all, {MANY} pods (PSS)"), agent_many + shims_many, 80 * MB);
    table.row(
        &format!("CPU, {MANY} idle pods, {} s", IDLE.as_secs()),
        &format!("{:.2} % of a core", cpu * 100.0),
        "≤ 0.3 %",
        verdict(cpu <= 0.003),
    );
    table.row(
        &format!("agent killed and started → all {MANY} pods known, none restarted"),
        &format!("{restart:.0} ms"),
        "≤ 300 ms",
        verdict(restart <= 300.0),
    );
    println!("\n{}", table.0);
    Ok(())
}

// === impl Budget ===

impl Budget {
    /// A podman that was not measured breaks no promise.
    fn is_kept(&self, median: f64, of_podman: Option<f64>) -> bool {
        let within = of_podman.zip(self.of_podman).is_none_or(|(part, most)| part <= most);
        median <= self.limit && within
    }
}

fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "**missed**" }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// The table, as Markdown.
#[derive(Default)]
struct Table(String);

impl Table {
    fn say(&mut self, line: &str) {
        println!("{line}");
        self.0 += &format!("{line}\n");
    }

    fn head(&mut self) {
        self.0 += "\n| work | measured | promised | |\n| --- | --- | --- | --- |\n";
    }

    fn start(&mut self, budget: &Budget, ours: &Samples, theirs: Option<&Samples>) {
        let ratio = theirs.map(|theirs| ours.median() / theirs.median());
        let shown = ratio.map_or(String::new(), |ratio| format!("1/{:.1} of podman", 1.0 / ratio));
        let promise = match budget.of_podman {
            Some(part) => format!("p50 ≤ {} ms, ≤ 1/{:.0}", budget.limit, 1.0 / part),
            None => format!("p50 ≤ {} ms", budget.limit),
        };
        let name = format!("manifest → entrypoint, {}", budget.name);
        let kept = budget.is_kept(ours.median(), ratio);
        self.row(&name, &format!("{ours}; {shown}"), &promise, verdict(kept));
    }

    fn row(&mut self, work: &str, measured: &str, promised: &str, verdict: &str) {
        let measured = measured.trim_end_matches("; ");
        self.0 += &format!("| {work} | {measured} | {promised} | {verdict} |\n");
    }
}

#[cfg(test)]
mod tests {
    use super::{HOST_NETWORK, OWN_NETWORK};

    #[test]
    fn podman_is_a_measure_where_it_is_promised_to_be() {
        assert!(HOST_NETWORK.is_kept(29.0, Some(0.09)));
        assert!(HOST_NETWORK.is_kept(29.0, None));
        assert!(!HOST_NETWORK.is_kept(31.0, Some(0.09)));
        assert!(!HOST_NETWORK.is_kept(29.0, Some(0.11)));
        assert!(OWN_NETWORK.is_kept(44.0, Some(0.2)));
        assert!(!OWN_NETWORK.is_kept(46.0, Some(0.01)));
    }
}
