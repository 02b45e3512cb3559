//! A node joins another machine's API, and what goes wrong there.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use mainstay_testkit::tools;

use crate::api::wait_for_words;
use crate::machines::{Machines, enter};
use crate::manifest::pod;
use crate::node::{Node, wait_for};
use crate::program::{Outcome, run};

const PORT: u16 = 6443;

/// A machine with the API, and others.
pub(crate) struct Cluster {
    // In this order: agents go before their machines.
    pub(crate) control: Node,
    pub(crate) machines: Machines,
}

impl Cluster {
    /// With so many machines, of which the first has the API, with these arguments beside what it needs.
    pub(crate) fn new(machines: usize, arguments: &[&str]) -> Option<Self> {
        let machines = Machines::new(machines)?;
        let mut control = Node::prepare()?;
        control.machine = Some(machines.path(0));
        // Nothing is short, however full its disk is.
        control.configure("evictionHard: {}");
        control.secure_port = PORT;
        let address = Machines::address(0);
        control.arguments.push(format!("--node-ip={address}"));
        control.arguments.push("--bind-address=0.0.0.0".to_owned());
        control.arguments.extend(arguments.iter().map(|it| (*it).to_owned()));
        control.launch();
        let cluster = Self { control, machines };
        let ready = || cluster.kubectl(&["get", "--raw=/readyz"]).status.success().then_some(());
        assert!(wait_for(ready).is_some(), "the API does not become ready");
        Some(cluster)
    }

    pub(crate) fn server() -> String {
        format!("https://{}:{PORT}", Machines::address(0))
    }

    /// A node on a machine, with no agent yet.
    pub(crate) fn node(&self, at: usize, name: &str) -> Node {
        let mut node = Node::prepare().unwrap();
        node.machine = Some(self.machines.path(at));
        node.configure("evictionHard: {}");
        name.clone_into(&mut node.name);
        node.arguments.push(format!("--node-ip={}", Machines::address(at)));
        node
    }

    /// A node that joins.
    pub(crate) fn joined(&self, at: usize, name: &str) -> Node {
        let mut node = self.node(at, name);
        node.join(&Self::server(), Some(&self.token(&[])));
        node.launch();
        self.wait_for_ready(name);
        node
    }

    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        let printed = self.control.mainstay(&[&["token", "create"], arguments].concat()).success();
        printed.trim().to_owned()
    }

    fn command(&self, kubeconfig: PathBuf) -> Command {
        let mut kubectl = enter(&self.machines.path(0), tools::kubectl());
        kubectl.arg("--kubeconfig").arg(kubeconfig);
        kubectl
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Outcome {
        run(self.command(self.control.path("root/kubeconfig")).args(arguments))
    }

    /// Waits until kubectl prints this.
    #[track_caller]
    pub(crate) fn wait_for_output(&self, arguments: &[&str], expected: &str) {
        let mut last = None;
        let is = || {
            let outcome = self.kubectl(arguments);
            let found = (outcome.stdout.trim() == expected).then_some(());
            last = Some(outcome);
            found
        };
        assert!(wait_for(is).is_some(), "kubectl {arguments:?}: {last:#?}");
    }

    #[track_caller]
    pub(crate) fn wait_for_ready(&self, node: &str) {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.wait_for_output(&["get", "node", node, "-o", path], "True");
    }

    #[track_caller]
    pub(crate) fn wait_for_running(&self, pod: &str) {
        let path = "jsonpath={.status.phase}";
        self.wait_for_output(&["get", "pod", pod, "-o", path], "Running");
    }

    /// Waits until a port of a pod that is forwarded says this.
    #[track_caller]
    fn wait_for_forwarded(&self, pod: &str, expected: &str) {
        let mut forward = self.command(self.control.path("root/kubeconfig"));
        forward.args(["port-forward", pod, "18080:8080"]).stdout(Stdio::null());
        let mut forward = forward.stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
        let mut last = None;
        let said = || {
            let mut client = enter(&self.machines.path(0), "bash");
            let outcome = run(client.args(["-c", "cat < /dev/tcp/127.0.0.1/18080"]));
            let found = (outcome.stdout.trim() == expected).then_some(());
            last = Some(outcome);
            found
        };
        let found = wait_for(said);
        forward.kill().unwrap();
        forward.wait().unwrap();
        assert!(found.is_some(), "{last:#?}");
    }

    /// Makes a pod of the API that says a word and stays, and another one on a port, on a node.
    pub(crate) fn run_on(&self, node: &str, name: &str) {
        let script = "echo hello; while true; do echo ported | nc -l -p 8080; done &";
        let manifest = pod(name).script(script).set("spec.nodeName", node);
        let path = self.control.path(&format!("{name}.json"));
        fs::write(&path, manifest.to_string()).unwrap();
        self.kubectl(&["create", "-f", path.to_str().unwrap()]).success();
    }
}

#[test]
fn a_node_joins_and_kubectl_reaches_its_pods() {
    let Some(cluster) = Cluster::new(2, &[]) else { return };
    let node = cluster.joined(1, "n2");
    node.put("web.yaml", &pod("web").script("echo static"));
    node.wait_for_running("web");
    cluster.wait_for_running("web-n2");
    cluster.run_on("n2", "api");
    cluster.wait_for_running("api");
    for (pod, word) in [("web-n2", "static"), ("api", "hello")] {
        cluster.wait_for_output(&["logs", pod], word);
        let told = cluster.kubectl(&["exec", pod, "--", "echo", "inside"]).success();
        assert_eq!(told.trim(), "inside");
    }
    cluster.wait_for_forwarded("api", "ported");
    let path = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    cluster.wait_for_output(&["get", "node", "n2", "-o", path], &Machines::address(1).to_string());
    // What it does not need any more is not asked for.
    assert!(node.path("root/joined/kubelet-client.pem").exists());
    assert!(!node.path("root/api.redb").exists());
    cluster.kubectl(&["delete", "pod", "api", "--now"]).success();
    let gone = || (!cluster.kubectl(&["get", "pod", "api"]).status.success()).then_some(());
    assert!(wait_for(gone).is_some());
    assert!(node.status().pod("web").unwrap().runs());
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let Some(cluster) = Cluster::new(1, &[]) else { return };
    let token = cluster.token(&["--description=for the kiosk", "--node=kiosk", "--ttl=1h"]);
    let (id, rest) = token.split_once('.').unwrap();
    let (secret, hash) = rest.split_once('.').unwrap();
    assert_eq!((id.len(), secret.len(), hash.len()), (6, 16, 64));
    let control = &cluster.control;
    let list = control.mainstay(&["token", "list"]).success();
    assert!(
        list.contains(id) && list.contains("kiosk") && list.contains("for the kiosk"),
        "{list}"
    );
    assert!(!list.contains(secret), "{list}");
    let ask = |bearer: &str| {
        let mut whoami = enter(&cluster.machines.path(0), tools::kubectl());
        whoami.args(["--kubeconfig=/dev/null", "--server", &Cluster::server()]);
        whoami.args(["--insecure-skip-tls-verify", "--token", bearer, "auth", "whoami"]);
        run(&mut whoami)
    };
    let known = ask(&format!("{id}.{secret}")).success();
    assert!(known.contains(&format!("system:bootstrap:{id}")), "{known}");
    assert!(known.contains("system:bootstrappers") && known.contains("kiosk"), "{known}");
    let revoked = control.mainstay(&["token", "revoke", &token]).success();
    assert_eq!(revoked.trim(), format!("token {id} revoked"));
    assert!(ask(&format!("{id}.{secret}")).failure(1).contains("Unauthorized"));
    let again = control.mainstay(&["token", "revoke", id]).failure(1);
    assert!(again.contains(&format!("there is no token {id}")), "{again}");
    assert!(!control.mainstay(&["token", "list"]).success().contains(id));
}

#[test]
fn whoever_is_refused_hears_why_once_and_runs_on() {
    let Some(cluster) = Cluster::new(2, &[]) else { return };
    let good = cluster.token(&[]);
    let mut node = cluster.node(1, "n2");
    // Nobody answers there.
    node.join("https://10.0.0.99:6443", Some(&good));
    node.spawn();
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    node.wait_for_log("cannot join https://10.0.0.99:6443");
    let (rest, hash) = good.rsplit_once('.').unwrap();
    let (id, secret) = rest.split_once('.').unwrap();
    let turn = |text: &str| text.chars().rev().collect::<String>();
    let revoked = cluster.token(&[]);
    cluster.control.mainstay(&["token", "revoke", &revoked]).success();
    let other = format!("{id}.{secret}.{}", turn(hash));
    for (token, why) in [
        (Some(format!("{id}.{}.{hash}", turn(secret))), "does not take the token"),
        (Some(revoked), "does not take the token"),
        (Some(cluster.token(&["--ttl=1ms"])), "does not take the token"),
        (Some(other), "has not shown the authority"),
        (Some(cluster.token(&["--node=n3"])), "the token is for node n3 and not for n2"),
        (None, "no token to ask for one"),
    ] {
        node.terminate();
        fs::remove_file(node.path("log")).unwrap();
        node.join(&Cluster::server(), token.as_deref());
        node.spawn();
        node.wait_for_log(why);
        assert_eq!(node.log().matches("cannot join").count(), 1, "{}", node.log());
    }
    let unknown = cluster.kubectl(&["get", "node", "n2"]).failure(1);
    assert!(unknown.contains("NotFound"), "{unknown}");
    node.terminate();
    node.join(&Cluster::server(), Some(&good));
    node.spawn();
    cluster.wait_for_ready("n2");
    cluster.wait_for_running("web-n2");
    // Alone again, and joined once more without a token.
    node.terminate();
    node.leave();
    node.launch();
    assert_eq!(node.status().pod("web").unwrap().id(), before.id());
    node.terminate();
    node.join(&Cluster::server(), None);
    node.launch();
    node.wait_for_log("joined");
    cluster.wait_for_ready("n2");
    let after = node.status().pod("web").unwrap().clone();
    assert_eq!((after.id(), after.restarts, after.runs()), (before.id(), 0, true));
}

#[test]
fn nobody_takes_the_name_of_another() {
    let Some(cluster) = Cluster::new(3, &[]) else { return };
    let mut first = cluster.joined(1, "n2");
    let mut second = cluster.node(2, "n2");
    second.join(&Cluster::server(), Some(&cluster.token(&[])));
    second.spawn();
    second.wait_for_log("a node n2 is registered");
    let path = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    cluster.wait_for_output(&["get", "node", "n2", "-o", path], &Machines::address(1).to_string());
    // The first one goes, and the admin says that it is for good.
    first.terminate();
    cluster.kubectl(&["delete", "node", "n2"]).success();
    // Its name stays taken for a while, in case it is only joining; what was asked for shows that.
    cluster.kubectl(&["delete", "csr", "--all"]).success();
    cluster.wait_for_output(&["get", "node", "n2", "-o", path], &Machines::address(2).to_string());
}

#[test]
fn a_node_writes_nothing_of_another() {
    let Some(cluster) = Cluster::new(2, &[]) else { return };
    let node = cluster.joined(1, "n2");
    let own = node.path("root/joined/kubelet-client.pem");
    let as_node = |arguments: &[&str]| {
        let mut kubectl = enter(&cluster.machines.path(1), tools::kubectl());
        kubectl.args(["--kubeconfig=/dev/null", "--server", &Cluster::server()]);
        kubectl.arg("--certificate-authority").arg(node.path("root/joined/ca.crt"));
        kubectl.arg("--client-certificate").arg(&own).arg("--client-key").arg(&own);
        run(kubectl.args(arguments))
    };
    as_node(&["get", "node", "n2"]).success();
    as_node(&["label", "node", "n2", "a=b"]).success();
    for arguments in [
        &["label", "node", "n1", "a=b"][..],
        &["delete", "node", "n1"],
        &["get", "secrets", "-A"],
        &["label", "lease", "n1", "-n", "kube-node-lease", "a=b"],
    ] {
        let refused = as_node(arguments).failure(1);
        assert!(refused.contains("Forbidden") || refused.contains("forbidden"), "{refused}");
    }
}

#[test]
fn certificates_are_renewed_with_themselves_as_the_proof() {
    let Some(cluster) = Cluster::new(2, &["--cluster-signing-duration=15s"]) else { return };
    let mut node = cluster.joined(1, "n2");
    let files = ["kubelet-client.pem", "kubelet-serving.pem"];
    let read = |file: &str| fs::read_to_string(node.path("root/joined").join(file)).ok();
    for file in files {
        let first = wait_for(|| read(file)).unwrap();
        assert!(wait_for(|| read(file).filter(|it| *it != first)).is_some(), "{file}");
    }
    cluster.run_on("n2", "api");
    cluster.wait_for_running("api");
    cluster.wait_for_output(&["logs", "api"], "hello");
    // The token is not needed for that, as long as the last one is good: it has just come.
    let last = read(files[0]);
    assert!(wait_for(|| (read(files[0]) != last).then_some(())).is_some());
    node.terminate();
    node.join(&Cluster::server(), None);
    node.launch();
    cluster.wait_for_output(&["logs", "api"], "hello");
}

/// Has the agent of a node see another time, as far off as this says, such as `-5h`.
fn set_clock(node: &mut Node, skew: &str) {
    let library = tools::program("libfaketime.so.1").canonicalize().unwrap();
    node.environment = vec![
        ("LD_PRELOAD", library.to_str().unwrap().to_owned()),
        ("FAKETIME", skew.to_owned()),
        // A clock that is wrong is not one that runs wrong, and files have their times from the kernel.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
}

#[test]
fn a_clock_that_is_hours_off_is_survived_and_one_of_another_year_is_told() {
    let Some(cluster) = Cluster::new(4, &[]) else { return };
    let mut nodes = Vec::new();
    for (at, name, skew) in [(1, "n2", "+5h"), (2, "n3", "-5h"), (3, "n4", "-2y")] {
        let mut node = cluster.node(at, name);
        set_clock(&mut node, skew);
        node.join(&Cluster::server(), Some(&cluster.token(&[])));
        node.launch();
        node.put("web.yaml", &pod("web"));
        node.wait_for_running("web");
        nodes.push(node);
    }
    for name in ["n2", "n3"] {
        cluster.wait_for_ready(name);
        cluster.wait_for_running(&format!("web-{name}"));
        let api = format!("api-{name}");
        cluster.run_on(name, &api);
        cluster.wait_for_running(&api);
        cluster.wait_for_output(&["logs", &api], "hello");
        cluster.kubectl(&["delete", "pod", &api, "--now"]).success();
        cluster
            .kubectl(&["wait", "--for=delete", &format!("pod/{api}"), "--timeout=30s"])
            .success();
    }
    // There the API's certificate is not valid yet, so it is sent nothing.
    nodes[2].wait_for_log("cannot join");
    nodes[2].wait_for_log("certificate not valid yet");
    assert!(nodes[2].status().pod("web").unwrap().runs());
}

#[test]
fn two_nodes_that_chose_one_range_have_two_and_what_runs_keeps_its_address() {
    const RANGE: &str = "10.77.1.0/24";
    let Some(cluster) = Cluster::new(3, &[]) else { return };
    let own = |name: &str| pod(name).set("spec.hostNetwork", false);
    let address = |node: &Node, name: &str| node.wait_for_running(name).status.pod_ip.unwrap();
    let mut nodes = [cluster.node(1, "n2"), cluster.node(2, "n3")];
    let mut before = Vec::new();
    for node in &mut nodes {
        let config = fs::read_to_string(node.path("config.yaml")).unwrap();
        fs::write(node.path("config.yaml"), format!("{config}podCIDR: {RANGE}\n")).unwrap();
        // Nobody has told it yet.
        node.launch();
        node.put("old.yaml", &own("old"));
        assert!(address(node, "old").starts_with("10.77.1."));
        before.push(node.wait_for_running("old"));
        node.terminate();
        node.join(&Cluster::server(), Some(&cluster.token(&[])));
        node.launch();
    }
    let range = |name: &str| {
        let path = "jsonpath={.spec.podCIDR}";
        let range = || {
            let told = cluster.kubectl(&["get", "node", name, "-o", path]).stdout;
            Some(told).filter(|it| it.ends_with("/24"))
        };
        wait_for(range).unwrap()
    };
    let ranges = [range("n2"), range("n3")];
    assert_ne!(ranges[0], ranges[1]);
    let lost = ranges.iter().position(|range| range != RANGE).unwrap();
    assert!(ranges.contains(&RANGE.to_owned()), "{ranges:?}");
    let says = |node: &Node| {
        let about = "which is not this node's range any more: they are reached on this node only";
        node.status().runtime.iter().any(|it| it.message.contains(about))
    };
    // It is looked at twice a minute.
    assert!(wait_for(|| says(&nodes[lost]).then_some(())).is_some());
    assert!(!says(&nodes[1 - lost]));
    // New pods have new addresses.
    let new: Vec<String> = nodes
        .iter()
        .zip(&ranges)
        .map(|(node, range)| {
            node.put("new.yaml", &own("new"));
            let address = address(node, "new");
            let prefix = range.trim_end_matches("0/24");
            assert!(address.starts_with(prefix), "{address} is not of {range}");
            address
        })
        .collect();
    // What ran before runs on, and is reached where it is.
    let loser = &nodes[lost];
    let old = loser.wait_for_running("old");
    assert_eq!((old.id(), old.restarts), (before[lost].id(), 0));
    loser.sh("new", "main", &format!("ping -c 1 -w 5 {}", old.status.pod_ip.unwrap()));
    loser.mainstay(&["restart", "old"]).success();
    let prefix = ranges[lost].trim_end_matches("0/24");
    loser.wait_until("it has an address of the new range", |status| {
        let old = status.pod("old").filter(|pod| pod.runs());
        old.and_then(|pod| pod.status.pod_ip.clone()).is_some_and(|it| it.starts_with(prefix))
    });
    // Now that there is no other use of the range, all reach each other.
    for (node, there) in nodes.iter().zip([&new[1], &new[0]]) {
        let ping = ["exec", "new", "--", "ping", "-c", "1", "-w", "1", there];
        let reached = || node.mainstay(&ping).status.success().then_some(());
        assert!(wait_for(reached).is_some(), "{} does not reach {there}", node.name);
    }
}

#[test]
fn pods_of_two_nodes_reach_each_other_by_both_kinds_of_addresses() {
    let Some(cluster) = Cluster::new(3, &[]) else { return };
    let nodes = [(1, "n2"), (2, "n3")].map(|(at, name)| {
        let mut node = cluster.node(at, name);
        node.arguments.retain(|it| !it.starts_with("--node-ip"));
        let both = format!("--node-ip={},{}", Machines::address(at), Machines::address6(at));
        node.arguments.push(both);
        node.join(&Cluster::server(), Some(&cluster.token(&[])));
        node.launch();
        node.put("web.yaml", &pod("web").set("spec.hostNetwork", false));
        node
    });
    let told = |kind: &str, name: &str, path: &str| -> Vec<String> {
        let path = format!("jsonpath={{{path}}}");
        wait_for_words(|| cluster.kubectl(&["get", kind, name, "-o", &path]).stdout, 2)
    };
    for (at, node) in nodes.iter().enumerate() {
        let name = &node.name;
        let addresses = told("node", name, ".status.addresses[?(@.type==\"InternalIP\")].address");
        let own = [Machines::address(at + 1).to_string(), Machines::address6(at + 1).to_string()];
        assert_eq!(addresses, own);
        let ranges = told("node", name, ".spec.podCIDRs[*]");
        assert!(ranges[0].ends_with(".0/24") && ranges[1].ends_with("::/64"), "{ranges:?}");
        let ips = told("pod", &format!("web-{name}"), ".status.podIPs[*].ip");
        for (ip, range) in ips.iter().zip(&ranges) {
            let prefix = range.trim_end_matches("0/24").trim_end_matches(":/64");
            assert!(ip.starts_with(prefix), "{ip} is not of {range}");
        }
        assert_eq!(told("pod", &format!("web-{name}"), ".status.hostIPs[*].ip"), own);
    }
    for (from, to) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        for ip in told("pod", &format!("web-{}", to.name), ".status.podIPs[*].ip") {
            let ping = ["exec", "web", "--", "ping", "-c", "1", "-w", "1", &ip];
            let reached = || from.mainstay(&ping).status.success().then_some(());
            assert!(wait_for(reached).is_some(), "{} does not reach {ip}", from.name);
        }
    }
}

#[test]
fn a_link_that_is_cut_stops_nothing() {
    let Some(cluster) = Cluster::new(2, &[]) else { return };
    let node = cluster.joined(1, "n2");
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    cluster.wait_for_running("web-n2");
    cluster.machines.cut(1);
    node.wait_for_log("cannot keep the Node object");
    // Files count as they do otherwise.
    node.put("more.yaml", &pod("more"));
    node.wait_for_running("more");
    node.take("more.yaml");
    node.wait_for_gone("more");
    node.put("other.yaml", &pod("other"));
    node.wait_for_running("other");
    cluster.run_on("n2", "api");
    cluster.machines.heal(1);
    cluster.wait_for_running("other-n2");
    cluster.wait_for_running("api");
    let after = node.status().pod("web").unwrap().clone();
    assert_eq!((after.id(), after.restarts, after.runs()), (before.id(), 0, true));
}

#[test]
fn a_drain_goes_on_when_the_link_is_back() {
    let Some(cluster) = Cluster::new(2, &[]) else { return };
    let node = cluster.joined(1, "n2");
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    cluster.wait_for_running("web-n2");
    cluster.run_on("n2", "api");
    cluster.wait_for_running("api");
    cluster.machines.cut(1);
    let mut drain = cluster.command(cluster.control.path("root/kubeconfig"));
    let drain = drain.args(["drain", "n2", "--force"]).stdin(Stdio::null());
    let drain = drain.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let evicted = || {
        let path = "jsonpath={.metadata.deletionTimestamp}";
        let found = cluster.kubectl(&["get", "pod", "api", "-o", path]).success();
        (!found.is_empty()).then_some(())
    };
    assert!(wait_for(evicted).is_some(), "nothing is evicted");
    // Nobody has heard of its end, so it is not over.
    let api = || node.status().pods.into_iter().find(|pod| pod.name == "api");
    assert!(api().unwrap().runs());
    cluster.machines.heal(1);
    let drained = drain.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&drained.stdout);
    assert!(drained.status.success() && printed.ends_with("node/n2 drained\n"), "{drained:?}");
    assert!(wait_for(|| api().is_none().then_some(())).is_some());
    let after = node.status().pod("web").unwrap().clone();
    assert_eq!((after.id(), after.restarts, after.runs()), (before.id(), 0, true));
}

#[test]
fn the_api_may_be_killed_and_come_back() {
    let Some(mut cluster) = Cluster::new(2, &[]) else { return };
    let node = cluster.joined(1, "n2");
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    cluster.control.kill();
    node.wait_for_log("cannot keep the Node object");
    node.put("more.yaml", &pod("more"));
    node.wait_for_running("more");
    cluster.control.launch();
    cluster.wait_for_running("more-n2");
    cluster.run_on("n2", "api");
    cluster.wait_for_running("api");
    cluster.wait_for_output(&["logs", "api"], "hello");
    assert_eq!(node.status().pod("web").unwrap().id(), before.id());
}
