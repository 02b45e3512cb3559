//! Shims that end too soon, or speak another language.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use expect_test::expect;
use mainstay_shim_protocol::{Hello, PROTOCOL, encode};

use crate::killed::witness;
use crate::manifest::pod;
use crate::node::{Node, Status, wait_for};

/// The shim of the only pod.
fn shim(node: &Node) -> i32 {
    let shims = node.processes("shims");
    assert_eq!(shims.len(), 1);
    shims.into_iter().next().unwrap()
}

#[test]
fn a_pod_whose_shim_is_killed_ends_before_it_is_started_anew() {
    let Some(node) = Node::start() else { return };
    for host_network in [true, false] {
        let web = witness("web", 1, &node.host());
        node.put("web.yaml", &web.set("spec.hostNetwork", host_network));
        node.wait_for_told("web", 1);
        let first = node.wait_for_running("web");
        // The one of the pod before may still be ending.
        wait_for(|| (node.processes("shims").len() == 1).then_some(())).unwrap();
        node.kill_shims();
        node.wait_for_told("web", 2);
        let status = node.wait_until("the pod is started anew", |status| {
            status.pod("web").is_some_and(|pod| pod.runs() && pod.id() != first.id())
        });
        assert_eq!(node.told("web"), ["start 1", "start 1"]);
        assert_eq!(status.pod("web").unwrap().restarts, 1);
        assert!(node.log().contains("the pod's shim has ended before its time"));
        node.take("web.yaml");
        node.wait_for_gone("web");
        fs::remove_file(node.host().join("web")).unwrap();
    }
}

#[test]
fn a_pod_whose_shim_is_killed_while_no_agent_runs_ends_before_it_is_started_anew() {
    let Some(mut node) = Node::start() else { return };
    node.put("web.yaml", &witness("web", 1, &node.host()));
    let once = pod("once").with_host_directory(&node.host());
    let once = once.set("spec.restartPolicy", "Never").script("echo ran >> /host/once");
    node.wait_for_told("web", 1);
    node.put("once.yaml", &once);
    node.wait_for_told("once", 1);
    node.wait_for_running("web");
    node.wait_for_running("once");
    node.kill();
    node.kill_shims();
    node.launch();
    node.wait_for_told("web", 2);
    assert_eq!(node.wait_for_running("web").restarts, 1);
    assert_eq!(node.told("web"), ["start 1", "start 1"]);
    // What may run once has run.
    node.wait_for_state("once", "ContainerStatusUnknown");
    assert_eq!(node.told("once"), ["ran"]);
}

/// Stands in front of the only pod's shim and greets in its place.
struct Impostor {
    socket: PathBuf,
}

impl Impostor {
    fn of(node: &Node, protocol: u32) -> Self {
        let mut sandboxes = fs::read_dir(node.path("run/sandboxes")).unwrap();
        let socket = sandboxes.next().unwrap().unwrap().path().join("shim.sock");
        fs::rename(&socket, socket.with_extension("aside")).unwrap();
        let version = "9.8.7".to_owned();
        let hello = Hello { protocol, version, pid: shim(node), attach: false, apparmor: false };
        let hello = encode(&hello).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            // Connections stay open, whatever comes on them.
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // The other side may have what it wanted.
                let _ = stream.write_all(&hello);
                connections.push(stream);
            }
        });
        Self { socket }
    }

    fn step_aside(self) {
        fs::rename(self.socket.with_extension("aside"), self.socket).unwrap();
    }
}

/// Waits until there is one sandbox for each pod: the impostor greets on when its shim has ended.
fn wait_for_sandboxes(node: &Node) {
    let pods = node.status().pods.len();
    let count = || fs::read_dir(node.path("run/sandboxes")).unwrap().count();
    wait_for(|| (count() == pods).then_some(())).unwrap();
}

fn runtime(status: &Status) -> &str {
    let condition = status.runtime.iter().find(|condition| condition.kind == "RuntimeReady");
    let condition = condition.unwrap();
    assert!(condition.status);
    &condition.message
}

#[test]
fn a_pod_whose_shim_speaks_another_version_runs_on_until_it_is_changed() {
    for protocol in [0, PROTOCOL + 1] {
        let Some(mut node) = Node::start() else { return };
        let grace = 600;
        let web = |version| {
            let web = witness("web", version, &node.host());
            web.set("spec.terminationGracePeriodSeconds", grace).set("spec.hostNetwork", false)
        };
        let (first, second) = (web(1), web(2));
        node.put("web.yaml", &first);
        node.wait_for_told("web", 1);
        let before = node.wait_for_running("web");
        node.kill();
        let impostor = Impostor::of(&node, protocol);
        // Without an agent it is seen to run, too.
        let status = node.status();
        assert_eq!(status.pod("web").unwrap().state, "Running");

        node.launch();
        node.put("other.yaml", &pod("other"));
        node.wait_for_running("other");
        let status = node.wait_until("it is told", |status| {
            status.runtime.iter().any(|condition| condition.message.contains("web"))
        });
        let message = runtime(&status).replace(&format!("protocol {protocol}"), "protocol N");
        expect!["pod default/web-n1 runs on as it is: the pod's shim is of mainstay 9.8.7 and speaks protocol N, and this mainstay drives 1 to 1; until the pod is restarted or changed, its containers are not started again when they end, no command can be run in them, and their logs are not rotated"].assert_eq(&message);
        let web = status.pod("web").unwrap();
        assert_eq!((web.id(), web.restarts, web.runs()), (before.id(), 0, true));
        assert_eq!(web.status.pod_ip, before.status.pod_ip);
        let refused = node.mainstay(&["exec", "web", "--", "true"]).failure(1);
        assert!(refused.contains("speaks protocol"), "{refused}");
        assert_eq!(node.told("web"), ["start 1"]);

        if protocol == 0 {
            // The mainstay that knows it comes back.
            impostor.step_aside();
            node.kill();
            node.launch();
            node.mainstay(&["exec", "web", "--", "true"]).success();
            assert_eq!(runtime(&node.status()), "");
            assert_eq!(node.status().pod("web").unwrap().id(), before.id());
        }
        node.put("web.yaml", &second);
        node.wait_for_told("web", 3);
        node.wait_for_running("web");
        assert_eq!(node.told("web"), ["start 1", "end 1", "start 2"]);
        node.mainstay(&["exec", "web", "--", "true"]).success();
        wait_for_sandboxes(&node);
    }
}

#[test]
fn a_container_that_ends_under_a_foreign_shim_waits_for_the_restart_of_its_pod() {
    let Some(mut node) = Node::start() else { return };
    let script = "echo start >> /host/web; until [ -e /host/go ]; do sleep 0.02; done; exit 3";
    let web = pod("web").with_host_directory(&node.host()).exactly(script);
    node.put("web.yaml", &web.set("spec.terminationGracePeriodSeconds", 1));
    node.wait_for_running("web");
    node.kill();
    let _impostor = Impostor::of(&node, PROTOCOL + 1);
    node.launch();
    fs::write(node.host().join("go"), "").unwrap();
    let status = node.wait_until("its end is seen", |status| {
        let problem = status.pod("web").and_then(|pod| pod.problem.clone());
        problem.is_some_and(|problem| problem.contains("until the pod is restarted"))
    });
    let web = status.pod("web").unwrap();
    assert_eq!(web.restarts, 0);
    fs::remove_file(node.host().join("go")).unwrap();
    node.mainstay(&["restart", "web"]).success();
    node.wait_for_told("web", 2);
    node.wait_for_running("web");
    assert_eq!(node.told("web"), ["start", "start"]);
    wait_for_sandboxes(&node);
}

#[test]
fn records_of_a_newer_mainstay_keep_an_agent_from_doubling_their_pod() {
    let Some(mut node) = Node::start() else { return };
    node.put("web.yaml", &witness("web", 1, &node.host()));
    node.wait_for_told("web", 1);
    let before = node.wait_for_running("web");
    node.kill();
    let sandbox = fs::read_dir(node.path("run/sandboxes")).unwrap().next().unwrap().unwrap();
    let record = sandbox.path().join("sandbox.json");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains(r#""version":1"#));
    fs::write(&record, text.replace(r#""version":1"#, r#""version":2"#)).unwrap();
    let refused = node.mainstay(&["run", "--hostname-override=n1"]).failure(1);
    assert!(refused.contains("sandbox.json"), "{refused}");
    assert!(refused.contains("if a newer mainstay made it"), "{refused}");
    let refused = node.mainstay(&["down"]).failure(1);
    assert!(refused.contains("if a newer mainstay made it"), "{refused}");
    fs::write(&record, text).unwrap();
    node.launch();
    assert_eq!(node.status().pod("web").unwrap().id(), before.id());
    assert_eq!(node.told("web"), ["start 1"]);
}
