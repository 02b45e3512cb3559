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

use anyhow::{Context, ensure};

use crate::debian::Scratch;
use crate::install;
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

/// Measures, prints, and says what is promised and not kept.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let alone = arguments.contains(&"--alone");
    ensure!(is_root()?, "containers need root");
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
    println!("measuring unshare and runc");
    let floor = others::unshare(&payload, ROUNDS, PAUSE)?;
    let runc = if alone { None } else { Some(others::runc(&payload, &directory, ROUNDS, PAUSE)?) };
    let mut podman: [Option<Samples>; 2] = [None, None];
    if !alone {
        println!("measuring podman kube play");
        let other = Podman::prepare(&payload, &directory)?;
        podman = [
            Some(other.kube_play(&payload, Network::Host, ROUNDS, PAUSE)?),
            Some(other.kube_play(&payload, Network::Own, ROUNDS, PAUSE)?),
        ];
    }

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
    let names = ["host network", "own network, hostPort"];
    for ((name, ours), (theirs, limit)) in
        names.iter().zip([&host, &own]).zip(podman.iter().zip([30.0, 45.0]))
    {
        if let Some(theirs) = theirs {
            table.row(&format!("podman kube play, {name}"), &theirs.to_string(), "", "");
        }
        let ratio = theirs.as_ref().map(|theirs| ours.median() / theirs.median());
        let shown = ratio.map_or(String::new(), |ratio| format!("1/{:.1} of podman", 1.0 / ratio));
        let kept = ours.median() <= limit && (limit > 40.0 || ratio.is_none_or(|it| it <= 0.1));
        let promise = format!("p50 ≤ {limit} ms") + if limit > 40.0 { "" } else { ", ≤ 1/10" };
        let name = format!("manifest → entrypoint, {name}");
        table.row(&name, &format!("{ours}; {shown}"), &promise, verdict(kept));
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

fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "**missed**" }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

fn is_root() -> anyhow::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self").context("/proc is not mounted")?.uid() == 0)
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

    fn row(&mut self, work: &str, measured: &str, promised: &str, verdict: &str) {
        let measured = measured.trim_end_matches("; ");
        self.0 += &format!("| {work} | {measured} | {promised} | {verdict} |\n");
    }
}
