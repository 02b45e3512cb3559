//! Static pods: the same payload, a static program that writes down what time it is as its first act,
//! started by everybody.

use super::Bench;
use super::measure::{self, Samples};
use super::node::{Network, Node};
use super::others::{self, Podman};
use super::table::{Table, megabytes};

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

/// Where the node is.
pub(crate) const NODE: &str = "node";

const MB: u64 = 1_000_000;

/// The memory (PSS) of everything but the payload, in bytes: right after a start of many pods at once, and at
/// rest.
#[derive(Clone, Copy)]
struct Memory {
    agent: u64,
    shims: u64,
}

/// What was measured. Times are in milliseconds, memory in bytes.
pub(crate) struct Figures<'a> {
    bench: &'a Bench,
    floor: Samples,
    runc: Option<Samples>,
    /// On the host's network, and with one of the pod's own.
    podman: Option<[Samples; 2]>,
    starts: [Samples; 2],
    removal: Samples,
    some_at_once: f64,
    all_at_once: [f64; 2],
    alone: u64,
    some: [Memory; 2],
    many: [Memory; 2],
    /// The part of one processor's time, right after they started and when that is over.
    cpu: [f64; 2],
    restart: f64,
}

impl<'a> Figures<'a> {
    pub(crate) fn measure(bench: &'a Bench, table: &mut Table) -> anyhow::Result<Self> {
        let Bench { programs, directory, payload, extent, alone, .. } = bench;
        let (rounds, pause) = (extent.rounds, extent.pause);
        table.say(&format!(
            "one write to cgroup.procs, {} ms after the last one: {}",
            pause.as_millis(),
            measure::cgroup_write(pause, 5)?
        ));
        bench.settle()?;
        println!("measuring unshare and runc");
        let floor = others::unshare(payload, rounds, pause)?;
        let (mut runc, mut podman) = (None, None);
        if !alone {
            runc = Some(others::runc(payload, directory, rounds, pause)?);
            bench.settle()?;
            println!("measuring podman kube play");
            let other = Podman::prepare(payload, directory)?;
            podman = Some([
                other.kube_play(payload, Network::Host, rounds, pause)?,
                other.kube_play(payload, Network::Own, rounds, pause)?,
            ]);
        }

        bench.settle()?;
        println!("measuring mainstay");
        let mut node = Node::start(programs, &directory.join(NODE), payload)?;
        // As the others: at rest.
        std::thread::sleep(extent.rest);
        let alone = node.agent_memory()?;
        let host = node.single_starts(payload, Network::Host, rounds, pause)?;
        let own = node.single_starts(payload, Network::Own, rounds, pause)?;
        let removal = node.removals(payload, rounds, pause)?;
        let some_at_once = node.all_at_once(payload, Network::Host, extent.some)?;
        let some_started = Memory::of(&node)?;
        std::thread::sleep(extent.rest);
        let some = [some_started, Memory::of(&node)?];
        node.remove_all()?;
        let all_own = node.all_at_once(payload, Network::Own, extent.many)?;
        node.remove_all()?;
        let all_host = node.all_at_once(payload, Network::Host, extent.many)?;
        let many_started = Memory::of(&node)?;
        let settling = node.cpu_share(extent.idle)?;
        std::thread::sleep(extent.rest);
        bench.settle()?;
        let cpu = [settling, node.cpu_share(extent.idle)?];
        let many = [many_started, Memory::of(&node)?];
        let restart = node.kill_and_start(extent.many)?;
        node.end()?;
        Ok(Self {
            bench,
            floor,
            runc,
            podman,
            starts: [host, own],
            removal,
            some_at_once,
            all_at_once: [all_host, all_own],
            alone,
            some,
            many,
            cpu,
            restart,
        })
    }

    pub(crate) fn tell(&self, table: &mut Table) {
        self.tell_single_starts(table);
        let (many, some) = (self.bench.extent.many, self.bench.extent.some);
        table.compare("manifest removed → process gone", &self.removal.to_string());
        for (network, took) in ["host network", "own network"].iter().zip(self.all_at_once) {
            let name = format!("{many} manifests at once → last entrypoint, {network}");
            table.row(&name, &format!("{took:.0} ms"), "≤ 2000 ms", took <= 2000.0);
        }
        let name = format!("{some} manifests at once, host network");
        table.compare(&name, &format!("{:.0} ms", self.some_at_once));
        table.memory("agent, no pod (PSS)", self.alone, 20 * MB);
        let [started, rest] = self.some;
        table.compare(&format!("all, {some} pods, right after their start (PSS)"), &started.told());
        table.memory(&format!("all, {some} pods (PSS)"), rest.all(), 30 * MB);
        let [started, rest] = self.many;
        table.compare(&format!("all, {many} pods, right after their start (PSS)"), &started.told());
        table.memory(&format!("agent, {many} pods (PSS)"), rest.agent, 25 * MB);
        table.memory("one pod's shim (PSS, average)", rest.shims / many as u64, MB / 2);
        table.memory(&format!("all, {many} pods (PSS)"), rest.all(), 80 * MB);
        let seconds = self.bench.extent.idle.as_secs();
        let [settling, idle] = self.cpu.map(|share| format!("{:.2} % of a core", share * 100.0));
        table.compare(&format!("CPU, the first {seconds} s of {many} pods"), &settling);
        let name = format!("CPU, {many} idle pods, {seconds} s");
        table.row(&name, &idle, "≤ 0.3 %", self.cpu[1] <= 0.003);
        table.row(
            &format!("agent killed and started → all {many} pods known, none restarted"),
            &format!("{:.0} ms", self.restart),
            "≤ 300 ms",
            self.restart <= 300.0,
        );
    }

    fn tell_single_starts(&self, table: &mut Table) {
        table.compare("unshare, the floor", &self.floor.to_string());
        if let Some(runc) = &self.runc {
            table.compare("runc run, one bundle", &runc.to_string());
        }
        for (number, budget) in [HOST_NETWORK, OWN_NETWORK].iter().enumerate() {
            let theirs = self.podman.as_ref().map(|podman| &podman[number]);
            if let Some(theirs) = theirs {
                let name = format!("podman kube play, {}", budget.name);
                table.compare(&name, &theirs.to_string());
            }
            budget.tell(table, &self.starts[number], theirs);
        }
        for (network, ours) in ["host network", "own network"].iter().zip(&self.starts) {
            let to = |other: &Samples| format!("{:.2}", ours.median() / other.median());
            let runc = self.runc.as_ref().map(to);
            let runc = runc.map_or(String::new(), |ratio| format!(", {ratio} × runc"));
            let name = format!("the same as multiples, {network}");
            table.compare(&name, &format!("{} × unshare{runc}", to(&self.floor)));
        }
    }
}

// === impl Memory ===

impl Memory {
    fn of(node: &Node) -> anyhow::Result<Self> {
        Ok(Self { agent: node.agent_memory()?, shims: node.shim_memory()? })
    }

    fn all(self) -> u64 {
        self.agent + self.shims
    }

    fn told(self) -> String {
        format!("{} MB, the agent {} MB", megabytes(self.all()), megabytes(self.agent))
    }
}

// === impl Budget ===

impl Budget {
    /// A podman that was not measured breaks no promise.
    fn is_kept(&self, median: f64, of_podman: Option<f64>) -> bool {
        let within = of_podman.zip(self.of_podman).is_none_or(|(part, most)| part <= most);
        median <= self.limit && within
    }

    fn tell(&self, table: &mut Table, ours: &Samples, theirs: Option<&Samples>) {
        let ratio = theirs.map(|theirs| ours.median() / theirs.median());
        let shown = ratio.map_or(String::new(), |ratio| format!("1/{:.1} of podman", 1.0 / ratio));
        let promise = match self.of_podman {
            Some(part) => format!("p50 ≤ {} ms, ≤ 1/{:.0}", self.limit, 1.0 / part),
            None => format!("p50 ≤ {} ms", self.limit),
        };
        let name = format!("manifest → entrypoint, {}", self.name);
        let kept = self.is_kept(ours.median(), ratio);
        table.row(&name, &format!("{ours}; {shown}"), &promise, kept);
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
