//! Pods that containerd runs.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use mainstay_linux::namespace::in_network;
use mainstay_testkit::containerd::Containerd;
use serde_json::json;
use tempfile::TempDir;

use crate::bad_input::problem;
use crate::http;
use crate::machines::{Machines, enter};
use crate::manifest::{Manifest, command, exactly, pod};
use crate::node::{Node, Status, wait_for};
use crate::program::run;

/// An instance on a containerd, in the order in which they go.
struct OnContainerd {
    node: Node,
    containerd: Option<Containerd>,
    directory: TempDir,
}

impl OnContainerd {
    /// With nothing started yet. None if this is not root, which is printed.
    fn prepare() -> Option<Self> {
        let mut node = Node::prepare()?;
        let directory = tempfile::Builder::new().prefix("mc-").tempdir().unwrap();
        let socket = directory.path().join("c.sock");
        let endpoint = format!("--container-runtime-endpoint=unix://{}", socket.display());
        node.arguments.push(endpoint);
        Some(Self { node, containerd: None, directory })
    }

    fn start() -> Option<Self> {
        let mut on = Self::prepare()?;
        on.begin();
        on.node.launch();
        Some(on)
    }

    /// Starts containerd.
    fn begin(&mut self) {
        let group = format!("/{}", self.node.names().table);
        let (machine, user) = (self.node.machine.as_deref(), self.node.manifests());
        let directory = self.directory.path();
        self.containerd = Some(Containerd::start_in(machine, directory, &group, Some(&user)));
    }

    fn log_of(&self, pod: &str) -> PathBuf {
        let logs = self.node.path("root/log/pods");
        let prefix = format!("default_{pod}-n1_");
        let mut found = fs::read_dir(logs).unwrap().flatten();
        let found = found.find(|it| it.file_name().to_string_lossy().starts_with(&prefix));
        found.unwrap().path().join("main/0.log")
    }
}

/// Tells in a file how often it was started, and that it goes on.
fn lasting(node: &Node, name: &str) -> Manifest {
    let script = format!(
        "echo hello; echo start >> /host/{name}; (while :; do echo beat >> /host/{name}.beats; sleep 0.1; done) &"
    );
    pod(name).with_host_directory(&node.host()).script(&script)
}

/// Whether the runtime is told to be there.
fn runtime_is(status: &Status, ready: bool) -> bool {
    status.runtime.iter().any(|it| it.kind == "RuntimeReady" && it.status == ready)
}

#[test]
fn a_manifest_runs_on_containerd() {
    let Some(mut on) = OnContainerd::start() else { return };
    let node = &on.node;
    let web = pod("web")
        .set("spec.hostNetwork", false)
        .set(
            "spec.volumes",
            json!([
                { "name": "host", "hostPath": { "path": node.host() } },
                { "name": "empty", "emptyDir": {} },
            ]),
        )
        .set(
            "spec.initContainers",
            json!([{
                "name": "first", "image": "local/busybox:1",
                "command": exactly("mkdir /empty/part; echo made > /empty/part/file"),
                "volumeMounts": [{ "name": "empty", "mountPath": "/empty" }],
            }]),
        )
        .main("command", command("echo hello; cat /part/file; echo $POD_IP > /host/ip"))
        .main(
            "env",
            json!([{ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }]),
        )
        .main(
            "volumeMounts",
            json!([
                { "name": "host", "mountPath": "/host" },
                { "name": "empty", "mountPath": "/part", "subPath": "part" },
            ]),
        )
        .main("readinessProbe", json!({ "exec": { "command": ["test", "-e", "/part/file"] } }));
    node.put("web.yaml", &web);
    let running = node.wait_for_running("web");
    assert_eq!(node.wait_for_told("ip", 1), [running.status.pod_ip.clone().unwrap()]);
    assert_eq!(node.sh("web", "main", "cat /part/file; hostname"), "made\nweb-n1\n");
    node.wait_for_said("web", "hello\nmade\n");
    assert!(fs::read_to_string(on.log_of("web")).unwrap().contains(" stdout F hello"));
    let id = running.container("main").container_id.clone().unwrap();
    assert!(id.starts_with("containerd://"), "{id}");

    // What ends is started anew.
    let failing = pod("failing")
        .with_host_directory(&node.host())
        .exactly("echo start >> /host/failing; exit 3");
    node.put("failing.yaml", &failing);
    node.wait_for_told("failing", 2);
    let failed = node.wait_until("its end is told", |status| {
        let pod = status.pod("failing").map(|pod| pod.container("main"));
        let last = pod.and_then(|it| it.last_state.as_ref()?.terminated.as_ref());
        last.is_some_and(|end| end.exit_code == 3 && end.reason.as_deref() == Some("Error"))
    });
    assert!(runtime_is(&failed, true));

    // What containerd does not have is said of the pod that wants it.
    let users = pod("users").set("spec.hostNetwork", false).set("spec.hostUsers", false);
    node.put("users.yaml", &users);
    let refused = node.wait_until("it is refused", |status| !problem(status, "users").is_empty());
    let why = problem(&refused, "users");
    assert!(why.contains("containerd 1.6.") && why.contains("user namespaces"), "{why}");

    // Another agent finds what runs, and no other runtime is put on it.
    on.node.kill();
    let arguments = on.node.arguments.clone();
    on.node.arguments.pop();
    on.node.spawn();
    on.node.wait_for_log("the pods of this instance are with the runtime at");
    on.node.arguments = arguments;
    on.node.launch();
    let node = &on.node;
    let found = node.wait_for_running("web");
    assert_eq!(found.container("main").container_id, Some(id));
    for pod in ["web", "failing", "users"] {
        node.take(&format!("{pod}.yaml"));
        node.wait_for_gone(pod);
    }
}

#[test]
fn containerd_comes_late_and_goes_and_pods_run_on() {
    let Some(mut on) = OnContainerd::prepare() else { return };
    on.node.put("web.yaml", &lasting(&on.node, "web"));
    on.node.launch();
    on.node
        .wait_until("it is told that the runtime is missing", |status| runtime_is(status, false));
    on.node.wait_for_log("there is no such socket; is it started?");
    on.begin();
    let before = on.node.wait_for_running("web");
    on.node.wait_until("it is told that the runtime is there", |status| runtime_is(status, true));
    on.node.wait_for_said("web", "hello\n");

    on.containerd.as_mut().unwrap().kill();
    on.node.wait_until("it is told that the runtime is away", |status| runtime_is(status, false));
    let beats = on.node.told("web.beats").len();
    on.node.wait_for_told("web.beats", beats + 3);
    // Without an agent it is told, too, and what was logged is there.
    on.node.kill();
    let (away, status) = ("no container runtime at ", on.node.mainstay(&["status"]));
    assert!(status.stdout.contains(&format!("\nRuntimeReady: {away}")), "{status:?}");
    assert!(!status.stdout.contains("no pods"), "{status:?}");
    let told = on.node.mainstay(&["status", "web"]).failure(1);
    assert!(told.contains(away), "{told}");
    let logs = on.node.mainstay(&["logs", "web"]);
    assert!(logs.stderr.contains(away) && logs.stdout == "hello\n", "{logs:?}");
    on.node.launch();
    // What is asked for meanwhile is done when it is back.
    on.node.put("next.yaml", &lasting(&on.node, "next"));
    on.containerd.as_mut().unwrap().begin();
    on.node.wait_for_running("next");
    let after = on.node.wait_for_running("web");
    assert_eq!(after.container("main"), before.container("main"));
    assert_eq!(on.node.told("web"), ["start"]);

    // One that says nothing keeps nothing from running, either.
    on.containerd.as_ref().unwrap().suspend(true);
    let beats = on.node.told("web.beats").len();
    on.node.wait_for_told("web.beats", beats + 3);
    on.containerd.as_ref().unwrap().suspend(false);
    on.node.take("web.yaml");
    on.node.wait_for_gone("web");
    assert!(
        wait_for(|| {
            let beats = on.node.told("web.beats").len();
            std::thread::sleep(std::time::Duration::from_millis(300));
            (on.node.told("web.beats").len() == beats).then_some(())
        })
        .is_some()
    );
}

#[test]
fn ports_of_the_machine_lead_to_pods_where_the_network_has_portmap() {
    let Some(machines) = Machines::new(1) else { return };
    let Some(mut on) = OnContainerd::prepare() else { return };
    on.node.machine = Some(machines.path(0));
    on.begin();
    on.node.launch();
    let ports = json!([
        { "containerPort": 80, "hostPort": 8080 },
        { "containerPort": 80, "hostPort": 8081, "hostIP": "127.0.0.1" },
    ]);
    let own = |name: &str| pod(name).set("spec.hostNetwork", false);
    let web = own("web").main("ports", ports).set("spec.terminationGracePeriodSeconds", 0);
    on.node.put("web.yaml", &web.exactly("echo page > /index.html; exec httpd -f -p 80 -h /"));
    on.node.put("other.yaml", &own("other"));
    for name in ["web", "other"] {
        on.node.wait_for_running(name);
    }
    let space = fs::File::open(machines.path(0)).unwrap();
    let get = |address: &str| {
        in_network(space.as_fd(), || http::get(address.parse().unwrap()))
            .is_ok_and(|answer| answer.ends_with("page\n"))
    };
    let here = Machines::address(0);
    for address in ["127.0.0.1:8080", "127.0.0.1:8081", &format!("{here}:8080")] {
        assert!(wait_for(|| get(address).then_some(())).is_some(), "{address}");
    }
    assert!(!get(&format!("{here}:8081")));
    let seen = on.node.sh("other", "main", &format!("wget -qO- http://{here}:8080"));
    assert_eq!(seen, "page\n");
    on.node.take("web.yaml");
    on.node.wait_for_gone("web");
    assert!(!get("127.0.0.1:8080"));
    let rules = run(&mut enter(&machines.path(0), "iptables-save")).success();
    assert!(!rules.contains("8080"), "{rules}");
}
