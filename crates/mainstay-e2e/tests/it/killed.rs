//! Agents and shims that are killed.

mod api;
mod shim;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::chance::Chance;
use crate::manifest::{Manifest, pod};
use crate::node::{Node, Pod, wait_for};

/// How often the agent is killed.
const KILLS: usize = 100;

/// A pod that writes down when it starts, when it is asked to end, and whether another one of its
/// name runs. The lock is given back by the kernel when its holder ends, however that ends; the
/// program to take it with is the machine's, since busybox has none.
fn witness(name: &str, version: u32, host: &Path) -> Manifest {
    pod(name)
        .with_host_directory(host)
        .set("spec.volumes.1", json!({ "name": "machine", "hostPath": { "path": "/" } }))
        .main(
            "volumeMounts.1",
            json!({ "name": "machine", "mountPath": "/machine", "readOnly": true }),
        )
        .set("spec.terminationGracePeriodSeconds", 2)
        .exactly(&format!(
            "exec 9>> /host/{name}.lock
            chroot /machine flock -n 9 || echo doubled {version} >> /host/{name}
            echo start {version} >> /host/{name}
            trap 'echo end {version} >> /host/{name}; exit' TERM
            sleep infinity & wait"
        ))
}

/// What is in a manifest directory under one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum File {
    #[default]
    Absent,
    Valid(u32),
    /// With the version that runs on.
    Broken(u32),
}

/// Files, and what was done to them.
struct World {
    node: Node,
    files: BTreeMap<String, File>,
    versions: u32,
    history: Vec<String>,
}

impl World {
    fn put(&mut self, name: &str) {
        self.versions += 1;
        let version = self.versions;
        let host_network = !name.ends_with(['0', '1', '2']);
        let manifest = witness(name, version, &self.node.host());
        self.node.put(&format!("{name}.yaml"), &manifest.set("spec.hostNetwork", host_network));
        self.set(name, File::Valid(version));
    }

    fn set(&mut self, name: &str, file: File) {
        self.history.push(format!("{name} {file:?}"));
        self.files.insert(name.to_owned(), file);
    }

    /// Does something to one of the files.
    fn change(&mut self, chance: &mut Chance) {
        let name = format!("p{}", chance.below(10));
        let file = self.files.get(&name).copied().unwrap_or_default();
        match (file, chance.below(4)) {
            (File::Absent, _) | (_, 0) => self.put(&name),
            // That a version that nobody read yet would be kept cannot be asked for.
            (File::Valid(version), 1 | 2) if self.started(&name, version) == 1 => {
                self.node.put(&format!("{name}.yaml"), &"kind: Pod\nspec: [");
                self.set(&name, File::Broken(version));
            }
            (File::Valid(_), 1 | 2) => {}
            _ => {
                self.node.take(&format!("{name}.yaml"));
                self.set(&name, File::Absent);
            }
        }
    }

    fn started(&self, name: &str, version: u32) -> usize {
        let line = format!("start {version}");
        self.node.told(name).iter().filter(|told| **told == line).count()
    }

    /// The versions that should run.
    fn wanted(&self) -> BTreeMap<String, u32> {
        let running = |(name, file): (&String, &File)| match file {
            File::Valid(version) | File::Broken(version) => Some((name.clone(), *version)),
            File::Absent => None,
        };
        self.files.iter().filter_map(running).collect()
    }

    fn verify(&self) {
        let wanted = self.wanted();
        let status = self.node.wait_until("exactly the wanted pods run", |status| {
            let runs = |(name, version): (&String, &u32)| {
                let runs = status.pod(name).is_some_and(Pod::runs);
                runs && self.started(name, *version) == 1
            };
            status.pods.len() == wanted.len() && wanted.iter().all(runs)
        });
        for pod in &status.pods {
            assert_eq!(pod.restarts, 0, "{pod:#?}");
        }
        for (name, file) in &self.files {
            // Each start is followed by its own end, before the next one.
            let told = self.node.told(name);
            let mut last = "";
            let mut seen = Vec::new();
            for line in &told {
                let (word, version) = line.split_once(' ').unwrap();
                match word {
                    "start" => assert!(!seen.contains(&version), "{name}: {told:?}"),
                    "end" => assert_eq!(last, version, "{name}: {told:?}"),
                    _ => panic!("{name}: {told:?}"),
                }
                last = if word == "start" { version } else { "" };
                seen.extend((word == "start").then_some(version));
            }
            let ends = told.last().is_some_and(|line| line.starts_with("start"));
            assert!(*file != File::Absent && ends || *file == File::Absent, "{name}: {told:?}");
        }
        self.verify_nothing_leaked(wanted.len());
    }

    /// As many of each thing as there are pods.
    fn verify_nothing_leaked(&self, pods: usize) {
        let count = |directory: &str| {
            let directory = self.node.path(directory);
            fs::read_dir(&directory).map_or(0, Iterator::count)
        };
        let counted = || {
            vec![
                ("shims", self.node.processes("shims").len()),
                ("sandboxes", count("run/sandboxes")),
                ("containers", count("root/containers")),
                ("pods", count("root/pods")),
                ("records", count("root/ledger")),
                ("logs", count("root/log/pods")),
            ]
        };
        let settled = wait_for(|| counted().iter().all(|it| it.1 == pods).then_some(()));
        assert!(settled.is_some(), "of {pods} pods there are {:?}", counted());
    }
}

#[test]
fn an_agent_that_is_killed_again_and_again_loses_doubles_and_restarts_nothing() {
    let Some(mut node) = Node::prepare() else { return };
    node.launch();
    let mut chance = Chance::new();
    let mut world = World { node, files: BTreeMap::new(), versions: 0, history: Vec::new() };
    for kill in 0..KILLS {
        for _ in 0..chance.below(4) {
            world.change(&mut chance);
            if chance.below(3) == 0 {
                std::thread::sleep(Duration::from_millis(chance.below(60)));
            }
        }
        std::thread::sleep(Duration::from_millis(chance.below(160)));
        world.node.kill();
        world.history.push(format!("kill {kill}"));
        for _ in 0..chance.below(3) {
            world.change(&mut chance);
        }
        world.node.spawn();
    }
    println!("{}", world.history.join("\n"));
    world.node.wait_until("the agent answers", |status| status.agent);
    world.verify();
    let log = world.node.log();
    let bad: Vec<&str> =
        log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn what_was_taken_away_while_no_agent_ran_ends_in_its_own_time() {
    let Some(mut node) = Node::start() else { return };
    let host = node.host();
    let told = |name: &str, grace: u32, script: &str| {
        let pod = pod(name).with_host_directory(&host).exactly(script);
        pod.set("spec.terminationGracePeriodSeconds", grace)
    };
    let asked = "trap 'echo asked >> /host/slow; until [ -e /host/go ]; do sleep 0.02; done
        echo ended >> /host/slow; exit' TERM
        echo up >> /host/slow; sleep infinity & wait";
    let deaf = "trap 'echo asked >> /host/deaf' TERM
        echo up >> /host/deaf; while :; do sleep infinity & wait; done";
    node.put("slow.yaml", &told("slow", 600, asked));
    node.put("deaf.yaml", &told("deaf", 3, deaf));
    for name in ["slow", "deaf"] {
        node.wait_for_told(name, 1);
        node.wait_for_running(name);
    }
    node.kill();
    node.take("slow.yaml");
    node.take("deaf.yaml");
    node.launch();
    node.wait_for_gone("deaf");
    assert_eq!(node.told("deaf"), ["up", "asked"]);
    node.wait_for_told("slow", 2);
    // That it may take its time outlives the next agent, too, which asks once more.
    node.kill();
    node.launch();
    assert_eq!(node.wait_for_state("slow", "Terminating").name, "slow-n1");
    fs::write(node.host().join("go"), "").unwrap();
    node.wait_for_gone("slow");
    let mut told = node.told("slow");
    told.dedup();
    assert_eq!(told, ["up", "asked", "ended"]);
}
