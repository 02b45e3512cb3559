//! Static pods that Debian's containerd runs: what an agent adds to what containerd needs for the same calls.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::measure::Samples;
use super::node::{self, Network, Node};
use super::table::Table;
use super::{Bench, Programs};
use crate::{process, test_tools};

/// Where the node is.
const NODE: &str = "on-containerd";
/// What is promised, as a multiple of containerd's own time.
const MOST: f64 = 1.1;

const NETWORKS: [(Network, &str); 2] =
    [(Network::Host, "host network"), (Network::Own, "own network")];

/// What was measured, for each of the networks.
pub(crate) struct Figures(Vec<Starts>);

/// From a manifest, and from the first call of a client that asks for the same, to the entrypoint.
struct Starts {
    ours: Samples,
    theirs: Samples,
    /// The client's calls: `RunPodSandbox`, `CreateContainer`, `StartContainer`.
    calls: [Samples; 3],
}

/// A containerd, and a client of it: `crates/mainstay-e2e/examples/cri_client`. Both end with this, and so does
/// what they run, also when this program is killed.
struct Containerd {
    child: Child,
    /// Whose end is theirs.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// Takes down what is left of a node. With its containerd, which has ended with all that it ran, nothing but files
/// can be.
pub(crate) fn clear(programs: &Programs, directory: &Path) {
    if let Err(error) = Node::clear(programs, &directory.join(NODE)) {
        println!("of a node that was on containerd only files are left: {error:#}");
    }
}

// === impl Figures ===

impl Figures {
    pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Self> {
        let tools = test_tools::bring_containerd()?;
        println!("measuring containerd");
        let directory = bench.directory.join(NODE);
        let (mut containerd, socket) = Containerd::start(bench, &tools, &directory)?;
        containerd.lead("recorder")?;
        let mut node = Node::over_runtime(&bench.programs, &directory, &socket)?;
        let mut starts = Vec::new();
        for (network, _) in NETWORKS {
            let measured = measure(bench, &mut containerd, &mut node, network);
            // The node is not down before they are.
            containerd.ask(&json!({ "do": "remove" }))?;
            starts.push(measured?);
            node.remove_all()?;
        }
        // Its pods are ended by containerd.
        node.end()?;
        containerd.end()?;
        Ok(Self(starts))
    }

    pub(crate) fn tell(&self, table: &mut Table) {
        for (starts, (_, network)) in self.0.iter().zip(NETWORKS) {
            starts.tell(table, network);
        }
    }
}

/// Starts pods by manifests and by calls, in turn.
fn measure(
    bench: &Bench,
    containerd: &mut Containerd,
    node: &mut Node,
    network: Network,
) -> anyhow::Result<Starts> {
    let Bench { payload, extent, .. } = bench;
    // The agent is asked for one pod more, and its calls are the client's.
    containerd.lead("recorder")?;
    node.restart()?;
    let model = extent.rounds;
    node.start_one(payload, model, network)?;
    node.wait_for_running(1)?;
    containerd.lead("containerd")?;
    node.restart()?;
    node.wait_for_running(1)?;
    bench.settle()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut calls = [const { Vec::new() }; 3];
    for number in 0..extent.rounds {
        // Whoever is second has what the first one leaves to be done.
        let by_manifest = [number % 2 == 0, number % 2 == 1];
        for by_manifest in by_manifest {
            std::thread::sleep(extent.pause);
            if by_manifest {
                ours.push(node.start_one(payload, number, network)?);
                continue;
            }
            let stamp = payload.fresh(&format!("pod-{model}"))?;
            let pod = format!("pod-{model}-{}", node::NAME);
            let started = containerd.ask(&json!({ "do": "start", "pod": pod }))?;
            let began = started["began"].as_f64().context("the client has no clock")?;
            theirs.push(payload.wait_for(&stamp)? - began);
            for (call, all) in calls.iter_mut().enumerate() {
                all.push(started["calls"][call].as_f64().context("a call took no time")?);
            }
        }
    }
    let [ours, theirs] = [ours, theirs].map(Samples::new);
    Ok(Starts { ours, theirs, calls: calls.map(Samples::new) })
}

// === impl Starts ===

impl Starts {
    fn ratio(&self) -> f64 {
        self.ours.median() / self.theirs.median()
    }

    fn tell(&self, table: &mut Table, network: &str) {
        let [sandbox, create, start] = self.calls.each_ref().map(Samples::median);
        let theirs = &self.theirs;
        let shown = format!("{theirs}; calls {sandbox:.1}, {create:.1} and {start:.1} ms");
        table.compare(&format!("containerd 1.6, the same calls, {network}"), &shown);
        let ratio = self.ratio();
        let name = format!("manifest → entrypoint on containerd, {network}");
        let shown = format!("{}; {ratio:.2} × containerd", self.ours);
        table.row(&name, &shown, &format!("≤ {MOST} × containerd"), ratio <= MOST);
    }
}

// === impl Containerd ===

impl Containerd {
    /// One for the node in a directory, and the socket of the runtime that is to be the node's.
    fn start(bench: &Bench, tools: &Path, node: &Path) -> anyhow::Result<(Self, PathBuf)> {
        let program = bench.programs.cri_client();
        let mut command = process::command(&program);
        // What interrupts this program does not reach it: it takes down what is left first.
        command.env(test_tools::DIRECTORY, tools).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn();
        let mut child = child.with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().context("the client has no output")?;
        let input = child.stdin.take();
        let mut containerd = Self { child, input, output: BufReader::new(output) };
        let socket = containerd.ask(&json!({
            "instance": { "program": bench.programs.mainstay, "root_dir": node.join("root"),
                "run_dir": node::run_dir(node) },
            "images": [bench.payload.image],
        }))?;
        Ok((containerd, serde_json::from_value(socket)?))
    }

    /// Leads the agent to whom it says, from its next start on.
    fn lead(&mut self, to: &str) -> anyhow::Result<()> {
        self.ask(&json!({ "do": "lead", "to": to })).map(|_| ())
    }

    fn ask(&mut self, work: &Value) -> anyhow::Result<Value> {
        let input = self.input.as_mut().context("the client has ended")?;
        writeln!(input, "{work}").context("the client of containerd reads nothing")?;
        let mut line = String::new();
        self.output.read_line(&mut line).context("the client's answer cannot be read")?;
        answer(&line)
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.close()
    }

    fn close(&mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "containerd or its client did not end in order: {status}");
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.input.is_some()
            && let Err(error) = self.close()
        {
            eprintln!("{error:#}");
        }
    }
}

/// What came of some work.
fn answer(line: &str) -> anyhow::Result<Value> {
    let mut answer: Value = serde_json::from_str(line)
        .context("the client of containerd has ended; it says why above")?;
    match answer["failed"].as_str() {
        Some(why) => bail!("the client of containerd failed: {why}"),
        None => Ok(answer["done"].take()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_adds_is_a_ratio_of_medians() {
        let samples = |of: [f64; 3]| Samples::new(of.to_vec());
        let calls = [samples([80.0; 3]), samples([5.0; 3]), samples([10.0; 3])];
        let theirs = samples([90.0, 100.0, 500.0]);
        let kept = Starts { ours: samples([1.0, 110.0, 900.0]), theirs: theirs.clone(), calls };
        let mut table = Table::default();
        kept.tell(&mut table, "host network");
        let missed = Starts { ours: samples([111.0; 3]), ..kept };
        missed.tell(&mut table, "own network");
        expect_test::expect![[r#"
            | containerd 1.6, the same calls, host network | p50 100.0 ms, p90 100.0, max 500.0 (n=3); calls 80.0, 5.0 and 10.0 ms |  |  |
            | manifest → entrypoint on containerd, host network | p50 110.0 ms, p90 110.0, max 900.0 (n=3); 1.10 × containerd | ≤ 1.1 × containerd | kept |
            | containerd 1.6, the same calls, own network | p50 100.0 ms, p90 100.0, max 500.0 (n=3); calls 80.0, 5.0 and 10.0 ms |  |  |
            | manifest → entrypoint on containerd, own network | p50 111.0 ms, p90 111.0, max 111.0 (n=3); 1.11 × containerd | ≤ 1.1 × containerd | **missed** |
        "#]].assert_eq(&table.to_string());
    }

    #[test]
    fn why_a_client_failed_is_said() {
        assert_eq!(answer(r#"{"done":null}"#).unwrap(), Value::Null);
        assert_eq!(answer(r#"{"done":[1]}"#).unwrap(), json!([1]));
        let error = answer(r#"{"failed":"no containerd"}"#).unwrap_err().to_string();
        assert_eq!(error, "the client of containerd failed: no containerd");
        assert!(answer("").is_err());
    }
}
