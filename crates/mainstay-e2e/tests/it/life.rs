//! What becomes of containers: they start beside each other, end, and are started anew or not.

use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::image::Image;
use crate::manifest::{Manifest, command, container, exactly, pod};
use crate::node::{Node, Pod};

/// A pod that tells in the file of its name when it starts, and ends with this status.
fn ending(node: &Node, name: &str, policy: &str, code: u8) -> Manifest {
    pod(name)
        .with_host_directory(&node.host())
        .set("spec.restartPolicy", policy)
        .exactly(&format!("echo start >> /host/{name}; exit {code}"))
}

/// A pod that tells in the file of its name when it starts, and runs.
fn lasting(node: &Node, name: &str, policy: &str) -> Manifest {
    pod(name)
        .with_host_directory(&node.host())
        .set("spec.restartPolicy", policy)
        .script(&format!("echo start >> /host/{name}"))
}

/// Shows that the agent has done what there was to do by now: a pod of which it hears only now
/// runs.
fn fence(node: &Node, name: &str) {
    node.put(&format!("{name}.yaml"), &pod(name));
    node.wait_for_running(name);
}

/// The exit code and the reason of the end of the container `main`.
fn end(pod: &Pod) -> (i32, &str) {
    let state = pod.container("main").state.as_ref().unwrap();
    let end = state.terminated.as_ref().unwrap_or_else(|| panic!("it has not ended: {pod:#?}"));
    (end.exit_code, end.reason.as_deref().unwrap())
}

#[test]
fn nothing_of_a_pod_is_left_in_the_agents_control_group_of_any_hierarchy() {
    let Some(node) = Node::start() else { return };
    if node.skips_on_containerd("our shims") {
        return;
    }
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    let groups = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let group = |line: &str| line.splitn(3, ':').nth(2).unwrap().to_owned();
        text.lines().map(group).collect::<Vec<_>>()
    };
    let shims = node.processes("shims");
    let [shim] = *Vec::from_iter(&shims) else { panic!("{shims:?}") };
    let root = groups(shim)[0].strip_suffix("/shims").unwrap().to_owned();
    assert!(
        groups(shim).iter().all(|group| *group == format!("{root}/shims")),
        "{:?}",
        groups(shim)
    );
    let all = node.processes("");
    assert!(all.len() > 1, "{all:?}");
    for pid in &all {
        let below = |group: &String| group.starts_with(&format!("{root}/"));
        assert!(groups(pid).iter().all(below), "{:?}", groups(pid));
    }
}

#[test]
fn containers_start_beside_each_other_and_wait_for_nobody() {
    let Some(node) = Node::start() else { return };
    // Each waits for the other one; the third has no image yet.
    let meet = |own: &str, other: &str| {
        command(&format!("touch /host/{own}; until [ -e /host/{other} ]; do sleep 0.02; done"))
    };
    let container = |name: &str, image: &str, command| {
        json!({
            "name": name, "image": image, "command": command, "imagePullPolicy": "Never",
            "volumeMounts": [{ "name": "host", "mountPath": "/host" }],
        })
    };
    let web = pod("web").with_host_directory(&node.host()).set(
        "spec.containers",
        json!([
            container("late", "local/late:1", command("touch /host/late")),
            container("a", "local/busybox:1", meet("a", "b")),
            container("b", "local/busybox:1", meet("b", "a")),
        ]),
    );
    node.put("web.yaml", &web);
    let before = node.wait_until("both have met, and the third is missed", |status| {
        status.state("web") == "ErrImageNeverPull" && status.pod("web").unwrap().ready == 2
    });
    let before = before.pod("web").unwrap();
    let problem = before.problem.as_deref().unwrap();
    assert!(
        problem.starts_with("late: Container image \"local/late:1\" is not present"),
        "{problem}"
    );
    assert!(!node.host().join("late").exists());

    let image = node.path("late.tar");
    Image::busybox().docker_archive("local/late:1", &image);
    node.import(&image);
    let after = node.wait_for_running("web");
    for name in ["a", "b"] {
        assert_eq!(after.container(name).container_id, before.container(name).container_id);
    }
}

#[test]
fn a_container_that_ends_is_started_anew_or_not_as_its_pod_says() {
    let Some(node) = Node::start() else { return };
    let pods = [
        ("always-0", "Always", 0),
        ("always-3", "Always", 3),
        ("failure-0", "OnFailure", 0),
        ("failure-3", "OnFailure", 3),
        ("never-0", "Never", 0),
        ("never-3", "Never", 3),
    ];
    for (name, policy, code) in pods {
        node.put(&format!("{name}.yaml"), &ending(&node, name, policy, code));
    }
    // The first time at once, then it waits, each time twice as long.
    for (name, code, reason) in
        [("always-0", 0, "Completed"), ("always-3", 3, "Error"), ("failure-3", 3, "Error")]
    {
        node.wait_for_told(name, 2);
        let pod = node.wait_for_state(name, "CrashLoopBackOff");
        let wait = match pod.restarts {
            1 => "10s",
            2 => "20s",
            _ => "40s",
        };
        let expected = format!(
            "main: back-off {wait} restarting failed container=main pod={name}-n1_default({})",
            pod.uid
        );
        assert_eq!(pod.problem.as_deref(), Some(&*expected));
        let main = pod.container("main");
        let last = main.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (code, Some(reason)));
        assert_eq!((pod.ready, pod.status.phase.as_deref()), (0, Some("Running")));
    }
    for (name, state, phase, code, reason) in [
        ("failure-0", "Completed", "Succeeded", 0, "Completed"),
        ("never-0", "Completed", "Succeeded", 0, "Completed"),
        ("never-3", "Error", "Failed", 3, "Error"),
    ] {
        let pod = node.wait_for_state(name, state);
        assert_eq!(end(&pod), (code, reason));
        assert_eq!((pod.restarts, pod.status.phase.as_deref()), (0, Some(phase)));
        assert_eq!(node.told(name), ["start"]);
    }
    // A new version of what has finished runs.
    node.put("never-3.yaml", &ending(&node, "never-3", "Never", 0));
    node.wait_for_state("never-3", "Completed");
    assert_eq!(node.told("never-3"), ["start", "start"]);
}

#[test]
fn one_container_that_ends_leaves_the_others_alone() {
    let Some(node) = Node::start() else { return };
    let ends = container("ends", &exactly("echo start >> /host/ends; exit 7"));
    let web = pod("web")
        .with_host_directory(&node.host())
        .script("echo start >> /host/main")
        .set("spec.containers.1", ends);
    node.put("web.yaml", &web);
    node.wait_for_told("ends", 2);
    let pod = node.wait_for_state("web", "CrashLoopBackOff");
    assert_eq!((pod.ready, pod.container("main").restart_count), (1, 0));
    assert_eq!(node.wait_for_told("main", 1), ["start"]);
}

#[test]
fn a_container_that_is_killed_is_started_anew() {
    let Some(node) = Node::start() else { return };
    node.put("web.yaml", &lasting(&node, "web", "Always"));
    let before = node.wait_for_running("web");
    node.wait_for_told("web", 1);
    // The first process of the container, as the machine sees it.
    let is_shell = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with("sh\0-c\0")
    };
    let shell = node.processes("").into_iter().find(is_shell).unwrap();
    kill_process(Pid::from_raw(shell).unwrap(), Signal::KILL).unwrap();
    node.wait_for_told("web", 2);
    let pod = node.wait_for_running("web");
    assert_ne!(pod.id(), before.id());
    assert_eq!((&pod.uid, pod.restarts), (&before.uid, 1));
    let last = pod.container("main").last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("Error")));
}

/// The wait between the second and the third start is that of the first agent, although the third
/// start is the work of the second one.
#[test]
fn the_wait_of_a_container_that_keeps_ending_outlives_the_agent() {
    let Some(mut node) = Node::start() else { return };
    let web = pod("web")
        .with_host_directory(&node.host())
        .exactly("cut -d' ' -f1 /proc/uptime >> /host/web; exit 3");
    node.put("web.yaml", &web);
    node.wait_for_told("web", 2);
    let before = node.wait_for_state("web", "CrashLoopBackOff");
    node.kill();
    node.launch();
    let told = node.wait_for_told("web", 3);
    let started: Vec<f64> = told.iter().map(|time| time.parse().unwrap()).collect();
    let waits: Vec<f64> = started.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[1] >= 10.0, "{waits:?}");
    let status = node.wait_until("it waits longer", |status| {
        let problem = status.pod("web").and_then(|pod| pod.problem.as_deref());
        problem.is_some_and(|problem| problem.starts_with("main: back-off 20s restarting"))
    });
    let pod = status.pod("web").unwrap();
    assert_eq!((pod.restarts, &pod.uid), (2, &before.uid));
    assert_eq!(pod.status.start_time, before.status.start_time);
}

#[test]
fn what_has_finished_does_not_run_again_with_the_next_agent_nor_after_a_reboot() {
    let Some(mut node) = Node::start() else { return };
    let pods = [
        ("never-0", "Never", 0, "Completed"),
        ("never-3", "Never", 3, "Error"),
        ("failure-0", "OnFailure", 0, "Completed"),
    ];
    for (name, policy, code, _) in pods {
        node.put(&format!("{name}.yaml"), &ending(&node, name, policy, code));
    }
    node.put("runs.yaml", &lasting(&node, "runs", "Always"));
    let running = node.wait_for_running("runs");
    node.wait_for_told("runs", 1);
    let before = pods.map(|(name, _, _, state)| node.wait_for_state(name, state));
    let check = |node: &Node, starts: usize| {
        for ((name, _, code, state), before) in pods.iter().zip(&before) {
            let pod = node.wait_for_state(name, state);
            assert_eq!(end(&pod), end(before));
            assert_eq!((end(&pod).0, &pod.uid), (i32::from(*code), &before.uid));
            assert_eq!(pod.status.start_time, before.status.start_time);
            assert_eq!(node.told(name), ["start"]);
        }
        assert_eq!(node.told("runs").len(), starts);
    };
    node.kill();
    node.launch();
    fence(&node, "fence-1");
    check(&node, 1);
    assert_eq!(node.wait_for_running("runs").id(), running.id());
    node.terminate();
    node.launch();
    fence(&node, "fence-2");
    check(&node, 1);
    // The others are wanted still.
    node.cut_power();
    node.launch();
    node.wait_for_told("runs", 2);
    fence(&node, "fence-3");
    check(&node, 2);
    // Its manifest put again is another request, and so is the order to.
    node.take("never-0.yaml");
    node.wait_for_gone("never-0");
    node.put("never-0.yaml", &ending(&node, "never-0", "Never", 0));
    node.wait_for_told("never-0", 2);
    node.mainstay(&["restart", "never-3"]).success();
    node.wait_for_told("never-3", 2);
    node.wait_for_state("never-3", "Error");
}

#[test]
fn when_a_pod_began_is_the_same_for_every_agent_until_the_machine_restarts() {
    let Some(mut node) = Node::start() else { return };
    let began = |pod: &Pod| pod.status.start_time.clone().unwrap().0;
    let later_than = |begin: Timestamp| {
        let next = begin.checked_add(SignedDuration::from_secs(1)).unwrap();
        while Timestamp::now() < next {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // It has its sandbox in another second than it was accepted in.
    let volume = json!([{ "name": "late", "configMap": { "name": "late" } }]);
    node.put("web.yaml", &pod("web").set("spec.volumes", volume));
    let accepted = began(&node.wait_for_state("web", "FailedMount"));
    later_than(accepted);
    let late = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "late" } });
    node.put("late.yaml", &late);
    assert_eq!(began(&node.wait_for_running("web")), accepted);
    node.kill();
    node.launch();
    assert_eq!(began(&node.wait_for_running("web")), accepted);

    node.cut_power();
    node.launch();
    let anew = began(&node.wait_for_running("web"));
    // Containerd has not forgotten what ended with the machine, so something of the pod is there.
    match node.is_on_containerd() {
        true => assert_eq!(anew, accepted),
        false => assert!(anew > accepted, "{anew}"),
    }
    later_than(anew);
    node.terminate();
    node.launch();
    assert_eq!(began(&node.wait_for_running("web")), anew);
    node.mainstay(&["restart", "web"]).success();
    let again = node.wait_until("it runs again", |status| {
        status.pods.iter().any(|pod| pod.state == "Running" && began(pod) > anew)
    });
    let again = began(again.pod("web").unwrap());
    node.kill();
    node.launch();
    assert_eq!(began(&node.wait_for_running("web")), again);
}

#[test]
fn after_a_reboot_what_was_running_runs_unless_it_was_to_run_once_only() {
    let Some(mut node) = Node::start() else { return };
    let pods = ["Always", "OnFailure", "Never"].map(|policy| (policy.to_lowercase(), policy));
    for (name, policy) in &pods {
        node.put(&format!("{name}.yaml"), &lasting(&node, name, policy));
    }
    // It is not in the manifests any more when the machine is back.
    node.put("removed.yaml", &lasting(&node, "removed", "Always"));
    let names = ["always", "onfailure", "never", "removed"];
    let before = names.map(|name| node.wait_for_running(name));
    for name in names {
        node.wait_for_told(name, 1);
    }
    node.cut_power();
    node.take("removed.yaml");
    node.launch();
    for name in ["always", "onfailure"] {
        node.wait_for_told(name, 2);
        let pod = node.wait_for_running(name);
        assert!(before.iter().all(|before| before.id() != pod.id()));
        // The machine's end was one of the container, with a log of its own.
        assert_eq!(pod.restarts, 1);
    }
    if node.is_on_containerd() {
        // It has a container still, of whose end it knows nothing.
        let never = node.wait_for_state("never", "Unknown");
        assert_eq!(never.status.phase.as_deref(), Some("Failed"));
        assert_eq!(end(&never), (255, "Unknown"));
    } else {
        let never = node.wait_for_state("never", "Interrupted");
        assert_eq!(never.status.phase.as_deref(), Some("Failed"));
        let problem = "The pod was ended before it could finish, by `mainstay down` or with the \
                       machine, and its restartPolicy Never does not let it run twice.";
        assert_eq!(never.problem.as_deref(), Some(problem));
    }
    fence(&node, "fence");
    assert_eq!(node.told("always"), ["start", "start"]);
    assert_eq!(node.told("onfailure"), ["start", "start"]);
    assert_eq!(node.told("never"), ["start"]);
    assert_eq!(node.told("removed"), ["start"]);
    assert!(node.status().pod("removed").is_none());
}

#[test]
fn a_pod_is_restarted_by_order_with_its_grace_period() {
    let Some(node) = Node::start() else { return };
    let slow = "trap 'echo asked >> /host/web; until [ -e /host/go ]; do sleep 0.02; done
        echo ended >> /host/web; exit' TERM
        echo start >> /host/web; sleep infinity & wait";
    let web = pod("web").with_host_directory(&node.host()).exactly(slow);
    let web = web.set("spec.terminationGracePeriodSeconds", 600);
    node.put("web.yaml", &web);
    node.put("other.yaml", &pod("other"));
    let (before, other) = (node.wait_for_running("web"), node.wait_for_running("other"));
    node.wait_for_told("web", 1);
    node.mainstay(&["restart", "web"]).success();
    node.wait_for_told("web", 2);
    assert_eq!(node.told("web"), ["start", "asked"]);
    fs::write(node.host().join("go"), "").unwrap();
    node.wait_for_told("web", 4);
    let after = node.wait_for_running("web");
    assert_eq!(node.told("web"), ["start", "asked", "ended", "start"]);
    assert_ne!(after.id(), before.id());
    assert_eq!((&after.uid, after.restarts), (&before.uid, 1));
    // By its full name, too; and the other one was left alone.
    node.mainstay(&["restart", "default/web-n1"]).success();
    node.wait_for_told("web", 7);
    assert_eq!(node.wait_for_running("other").id(), other.id());
    let complaint = node.mainstay(&["restart", "no-such"]).failure(1);
    assert!(complaint.contains("there is no pod no-such"), "{complaint}");
}
