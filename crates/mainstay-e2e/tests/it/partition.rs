//! Nodes that are cut off from their API and from each other, by chance, again and again.
//!
//! Whatever becomes of the links: what runs from manifests runs on as the same process, and no pod of the
//! API begins twice, wherever that would be. When the links are whole, all is soon as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::join::Cluster;
use crate::machines::Cut;
use crate::manifest::{command, container, pod};
use crate::node::Node;

/// How often links are cut.
const CUTS: usize = 100;
/// From which of them on one lasts until its node is taken to be away and pods go elsewhere.
const LONG_CUTS: [usize; 2] = [15, 55];
/// How long a node may be silent. Leases are renewed every 10 s.
const GRACE: &str = "--node-monitor-grace-period=12s";
/// How soon after the last heal all is as it should be.
const CONVERGENCE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How many pods there are that go elsewhere.
const MOVING: usize = 4;
/// The first one has the API.
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// A process that no other one is: its number, and when it began.
type Process = (i32, String);

/// The nodes, and what there should be on them.
struct Field {
    // In this order: agents go before their machines.
    joined: Vec<Node>,
    cluster: Cluster,
    /// Where each pod of the API writes a line into a file of its UID when it begins.
    told: PathBuf,
    /// The processes of the static pods `web`, by node.
    web: Vec<Process>,
    /// The nodes that have a static pod `more`.
    more: BTreeSet<usize>,
    /// The pods of the API that name their node, and it.
    bound: BTreeMap<String, usize>,
    /// How many of them were made.
    made: usize,
}

impl Field {
    fn new() -> Option<Self> {
        let cluster = Cluster::new(NODES.len(), &[GRACE])?;
        cluster.machines.prepare_losses();
        let joined = (1..NODES.len()).map(|at| cluster.joined(at, NODES[at])).collect();
        let told = cluster.control.host();
        let (more, bound) = (BTreeSet::new(), BTreeMap::new());
        let mut field = Self { joined, cluster, told, web: Vec::new(), more, bound, made: 0 };
        for at in 0..NODES.len() {
            field.node(at).put("web.yaml", &pod("web").script(": the static one"));
            field.node(at).wait_for_running("web");
            field.web.push(field.web_of(at));
        }
        field.create("moving", &deployment(&field.told));
        Some(field)
    }

    fn node(&self, at: usize) -> &Node {
        at.checked_sub(1).map_or(&self.cluster.control, |at| &self.joined[at])
    }

    /// The process of the static pod `web` of a node.
    #[track_caller]
    fn web_of(&self, at: usize) -> Process {
        let is = |pid: &i32| {
            let read = |file: &str| {
                // It may end at any time.
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&text).into_owned()
            };
            // Not what it has forked and is not another program yet. Source: proc_pid_status(5), `NSpid`.
            let first =
                read("status").lines().any(|it| it.starts_with("NSpid:") && it.ends_with("\t1"));
            first && read("cmdline").contains(": the static one")
        };
        let found: Vec<i32> = self.node(at).processes("").into_iter().filter(is).collect();
        let [pid] = found[..] else { panic!("{}: {found:?}", NODES[at]) };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name before that may be anything. Source: proc_pid_stat(5), `starttime`.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        (pid, rest.split_whitespace().nth(19).unwrap().to_owned())
    }

    fn create(&self, name: &str, object: &Value) {
        let path = self.cluster.control.stage(&format!("{name}.json"), object);
        self.cluster.kubectl(&["create", "-f", path.to_str().unwrap()]).success();
    }

    /// Has somebody want something else.
    fn change(&mut self, chance: &mut Chance) {
        let at = chance.index(NODES.len());
        match chance.below(3) {
            0 if self.more.remove(&at) => self.node(at).take("more.yaml"),
            0 => {
                self.node(at).put("more.yaml", &pod("more"));
                self.more.insert(at);
            }
            1 => {
                let name = format!("bound-{}", self.made);
                self.made += 1;
                let mut spec = spec(&self.told);
                spec["nodeName"] = NODES[at].into();
                let kind = json!({ "apiVersion": "v1", "kind": "Pod" });
                let mut bound = json!({ "metadata": { "name": name }, "spec": spec });
                bound.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
                self.create(&name, &bound);
                self.bound.insert(name, at);
            }
            _ => {
                let Some((name, _)) = self.bound.pop_first() else { return };
                let delete = ["delete", "pod", &name, "--wait=false"];
                self.cluster.kubectl(&delete).success();
            }
        }
    }

    /// Whether a node is taken to be away, and what does not stay there is to go.
    fn is_left(&self, at: usize) -> bool {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let ready = self.cluster.kubectl(&["get", "node", NODES[at], "-o", path]).success();
        let on = format!("--field-selector=spec.nodeName={}", NODES[at]);
        let path = "jsonpath={range .items[*]}{.metadata.deletionTimestamp};{end}";
        let get = ["get", "pod", "-l", "app=moving", &on, "-o", path];
        let ends = self.cluster.kubectl(&get).success();
        ready == "Unknown" && ends.split_terminator(';').all(|it| !it.is_empty())
    }

    /// What is not as it should be.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expect = |is: bool, what: String| wrong.extend((!is).then_some(what));
        let list = |kind: &str| -> Vec<Value> {
            let printed = self.cluster.kubectl(&["get", kind, "-o", "json"]).success();
            let list: Value = serde_json::from_str(&printed).unwrap();
            list["items"].as_array().unwrap().clone()
        };
        for node in list("nodes") {
            let ready = condition(&node, "Ready");
            expect(ready["status"] == "True", format!("{}: {ready}", node["metadata"]["name"]));
            let taints = &node["spec"]["taints"];
            expect(taints.is_null(), format!("{}: {taints}", node["metadata"]["name"]));
        }
        let mut expected: BTreeMap<String, usize> = self.bound.clone();
        expected.extend((0..NODES.len()).map(|at| (format!("web-{}", NODES[at]), at)));
        expected.extend(self.more.iter().map(|at| (format!("more-{}", NODES[*at]), *at)));
        let pods = list("pods");
        let mut moving = 0;
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let runs = condition(pod, "Ready")["status"] == "True"
                && pod["metadata"]["deletionTimestamp"].is_null();
            let ends = &pod["metadata"]["deletionTimestamp"];
            let on = &pod["spec"]["nodeName"];
            expect(runs, format!("{name} on {on}, ends {ends}: {}", pod["status"]));
            if name.starts_with("moving-") {
                moving += 1;
                continue;
            }
            let at = expected.remove(name).map(|at| NODES[at]);
            expect(at.is_some(), format!("{name} is there"));
            expect(at.is_none_or(|at| pod["spec"]["nodeName"] == at), format!("{name} elsewhere"));
        }
        expect(moving == MOVING, format!("there are {moving} that move"));
        expect(expected.is_empty(), format!("missing: {expected:?}"));
        // What the nodes have is what the API has.
        for (at, node) in NODES.into_iter().enumerate() {
            let of_api = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
            let of_api = of_api.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned());
            let of_api: BTreeSet<String> = of_api.collect();
            let status = self.node(at).status();
            let of_node: BTreeSet<String> = status.pods.into_iter().map(|pod| pod.name).collect();
            expect(of_node == of_api, format!("{node} has {of_node:?}, the API {of_api:?}"));
        }
        wrong
    }

    /// Checks what has to be so at any time.
    #[track_caller]
    fn check(&self) {
        for (at, before) in self.web.iter().enumerate() {
            assert_eq!(self.web_of(at), *before, "{}", NODES[at]);
        }
        for file in fs::read_dir(&self.told).unwrap() {
            let file = file.unwrap().path();
            let told = fs::read_to_string(&file).unwrap();
            assert!(told.lines().count() <= 1, "{} began more than once", file.display());
        }
    }
}

/// What a pod runs that tells when it begins.
fn spec(told: &Path) -> Value {
    let mut main = container("main", &command("echo began >> /host/$POD"));
    let uid = json!({ "fieldRef": { "fieldPath": "metadata.uid" } });
    main["env"] = json!([{ "name": "POD", "valueFrom": uid }]);
    json!({
        "hostNetwork": true, "terminationGracePeriodSeconds": 1, "containers": [main],
        "volumes": [{ "name": "host", "hostPath": { "path": told } }],
    })
}

/// A Deployment whose pods do not stay where a node is away.
fn deployment(told: &Path) -> Value {
    let mut spec = spec(told);
    let leave = |key: &str| {
        let key = format!("node.kubernetes.io/{key}");
        json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1 })
    };
    spec["tolerations"] = json!([leave("not-ready"), leave("unreachable")]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "moving" },
        "spec": {
            "replicas": MOVING,
            "selector": { "matchLabels": { "app": "moving" } },
            "template": { "metadata": { "labels": { "app": "moving" } }, "spec": spec },
        },
    })
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|it| it["type"] == kind).unwrap_or(&Value::Null)
}

#[test]
fn a_hundred_cuts_stop_nothing_and_double_nothing() {
    let Some(mut field) = Field::new() else { return };
    let mut chance = Chance::new();
    // How the machines are cut off, and whether that is to last.
    let mut cuts: [Option<(Cut, bool)>; NODES.len()] = [None; NODES.len()];
    let (mut begun, mut long) = (0, LONG_CUTS.into_iter().peekable());
    let mut last_heal = Instant::now();
    while begun < CUTS || cuts.iter().any(Option::is_some) {
        let at = chance.index(NODES.len());
        let cut = chance.pick(&[Cut::Plug, Cut::Silence, Cut::Mute, Cut::Deaf]);
        match cuts[at] {
            Some((cut, lasts)) if !lasts || field.is_left(at) => {
                field.cluster.machines.end(cut, at);
                (cuts[at], last_heal) = (None, Instant::now());
                field.check();
            }
            None if begun < CUTS => {
                // Without the machine with the API nobody could say who is away.
                let lasts = at > 0 && long.next_if(|from| begun >= *from).is_some();
                field.cluster.machines.begin(cut, at);
                cuts[at] = Some((cut, lasts));
                begun += 1;
            }
            _ => {}
        }
        if chance.once_in(8) {
            field.change(&mut chance);
        }
        std::thread::sleep(Duration::from_millis(chance.below(200)));
    }
    loop {
        let wrong = field.wrong();
        field.check();
        if wrong.is_empty() {
            break;
        }
        assert!(last_heal.elapsed() < CONVERGENCE, "{wrong:#?}");
        std::thread::sleep(LOOK);
    }
    let began = fs::read_dir(&field.told).unwrap().count();
    println!("converged after {:?}; {began} pods of the API began", last_heal.elapsed());
}
