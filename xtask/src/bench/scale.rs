//! Many nodes and many pods, as far as the API, the scheduler and the controllers have to do with them.

use std::fmt::Write as _;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::node::{NAME, Node};
use super::payload::IMAGE;
use super::table::{Table, megabytes};

/// Where the node is.
pub(crate) const NODE: &str = "scale";
/// The time that the pods have that are drained, all of which they take, in seconds.
const GRACE: u32 = 2;
/// How much longer a drain may take, in milliseconds.
const SLACK: f64 = 2000.0;

/// How much more each may take where there are more, at each step. It would be ten times as much if it grew
/// with the square; the rest is scatter, and what few pods have of a machine that is idle otherwise.
const SCATTER: f64 = 1.5;

const MB: u64 = 1_000_000;

/// What was measured. Times are in milliseconds, memory in bytes; each list has a number for each size.
pub(crate) struct Figures<'a> {
    bench: &'a Bench,
    /// The last answer to a request for a pod, after the first request.
    created: Vec<f64>,
    /// The last binding, after the first request.
    bound: Vec<f64>,
    /// A Deployment.
    settled: Vec<f64>,
    memory: Vec<f64>,
    drained: f64,
}

impl<'a> Figures<'a> {
    pub(crate) fn measure(bench: &'a Bench) -> anyhow::Result<Self> {
        let Bench { programs, directory, payload, extent, .. } = bench;
        bench.settle()?;
        println!("measuring many nodes and pods");
        let node = Node::start(programs, &directory.join(NODE), payload)?;
        bench.settle()?;
        let answer = node.client.ask(&json!({
            "do": "scale", "cordoned": NAME, "nodes": extent.nodes, "sizes": extent.sizes,
            "agent": node.agent(),
        }))?;
        let list = |name: &str| -> anyhow::Result<Vec<f64>> {
            let list = answer[name].as_array().context("the answer has no measurements")?;
            ensure!(list.len() == extent.sizes.len(), "not every size was measured");
            Ok(list.iter().filter_map(Value::as_f64).collect())
        };
        let (created, bound) = (list("created")?, list("bound")?);
        let (settled, memory) = (list("settled")?, list("memory")?);
        bench.settle()?;
        println!("measuring a drain");
        let pods: Vec<Value> = (0..extent.drained).map(pod).collect();
        node.client.ask(&json!({ "do": "create", "objects": pods }))?;
        node.wait_for_running(extent.drained)?;
        bench.settle()?;
        let drain = json!({ "do": "drain", "node": NAME, "pods": extent.drained });
        let drained = node.client.ask(&drain)?;
        let drained = drained.as_f64().context("the client does not know how long it took")?;
        node.end()?;
        Ok(Self { bench, created, bound, settled, memory, drained })
    }

    pub(crate) fn tell(&self, table: &mut Table) {
        let extent = self.bench.extent;
        let nodes = extent.nodes;
        let most = extent.sizes.last().copied().unwrap_or_default();
        let last = |list: &[f64]| list.last().copied().unwrap_or(f64::NAN);
        let rate = count(most) / last(&self.bound) * 1000.0;
        let shown = format!(
            "{rate:.0}/s: {:.0} ms; the pods were made after {:.0} ms",
            last(&self.bound),
            last(&self.created)
        );
        let name = format!("{most} pods made and scheduled onto {nodes} nodes");
        table.row(&name, &shown, "≥ 500/s", rate >= 500.0);
        self.tell_growth(table, "pods made and scheduled", &self.bound);
        let took = last(&self.settled);
        let name = format!("Deployment of {most} replicas → all available");
        table.row(&name, &format!("{took:.0} ms"), "≤ 10 s", took <= 10_000.0);
        self.tell_growth(table, "replicas available", &self.settled);
        let bytes = self.memory.iter().map(|bytes| format!("{:.1}", bytes / 1e6));
        let name = format!("agent with {nodes} nodes and a Deployment of so many pods (PSS)");
        let promised = format!("≤ {} MB", megabytes(150 * MB));
        let shown = format!("{} MB for {:?}", bytes.collect::<Vec<_>>().join(", "), extent.sizes);
        table.row(&name, &shown, &promised, last(&self.memory) <= count(150) * 1e6);
        let name = format!("drain of {} pods that take their {GRACE} s", extent.drained);
        let limit = f64::from(GRACE) * 1000.0 + SLACK;
        let promised = format!("≤ {limit} ms");
        table.row(&name, &format!("{:.0} ms", self.drained), &promised, self.drained <= limit);
    }

    /// How long fewer of them take.
    fn tell_growth(&self, table: &mut Table, what: &str, took: &[f64]) {
        let sizes = &self.bench.extent.sizes;
        let mut shown = String::new();
        for (size, took) in sizes.iter().zip(took) {
            let comma = if shown.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(shown, "{comma}{size}: {took:.0} ms");
        }
        let promised = "no worse than linear";
        table.row(what, &shown, promised, is_linear(sizes, took));
    }
}

/// Whether what takes so long for so many takes at no step more for each, but for [`SCATTER`].
fn is_linear(sizes: &[usize], took: &[f64]) -> bool {
    let each: Vec<f64> = sizes.iter().zip(took).map(|(size, took)| took / count(*size)).collect();
    each.is_sorted_by(|fewer, more| *more <= fewer * SCATTER)
}

#[expect(clippy::cast_precision_loss, reason = "there are not that many")]
fn count(number: usize) -> f64 {
    number as f64
}

/// A pod of the API on this node, whose first process has no ear for the signal that it is sent.
fn pod(number: usize) -> Value {
    let name = format!("drained-{number}");
    let mounts = json!([{ "name": "out", "mountPath": "/out" }]);
    json!({
        "path": "/api/v1/namespaces/default/pods",
        "object": {
            "metadata": { "name": name },
            "spec": {
                "nodeName": NAME, "hostNetwork": true, "terminationGracePeriodSeconds": GRACE,
                "automountServiceAccountToken": false, "os": { "name": "linux" },
                "containers": [{
                    "name": "stamp", "image": IMAGE, "imagePullPolicy": "Never",
                    "command": ["/stamp", format!("/out/{name}")], "volumeMounts": mounts,
                    "lifecycle": { "stopSignal": "SIGTERM" },
                }],
                "volumes": [{ "name": "out", "emptyDir": {} }],
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::is_linear;

    #[test]
    fn growth_is_judged_step_by_step() {
        let sizes = [10, 100, 1000];
        assert!(is_linear(&sizes, &[20.0, 150.0, 1500.0]));
        assert!(is_linear(&sizes, &[20.0, 210.0, 2500.0]));
        assert!(!is_linear(&sizes, &[20.0, 310.0, 1500.0]));
        assert!(!is_linear(&sizes, &[20.0, 150.0, 2400.0]));
    }
}
