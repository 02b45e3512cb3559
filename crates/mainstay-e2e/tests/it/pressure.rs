//! When something is short on the machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mainstay_testkit::tools;
use rustix::fs::statvfs;
use serde_json::json;

use crate::api::{create, shown, wait_for_phase, wait_for_shown};
use crate::bad_input::Small;
use crate::image::Image;
use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};

const MI: u64 = 1 << 20;

/// A pod with a volume of its own that tells how many files it found in it, and the first time writes so many MiB
/// there before.
fn writes(node: &Node, name: &str, mebibytes: u32) -> Manifest {
    pod(name)
        .with_host_directory(&node.host())
        .with_volume(json!({ "name": "cache", "emptyDir": {} }))
        .script(&format!(
            "found=$(ls /cache | wc -l); \
             test -e /host/{name} || dd if=/dev/zero of=/cache/file bs=1M count={mebibytes}; \
             echo $found files >> /host/{name}"
        ))
}

/// Leaves so much room on the file system of a directory.
fn leave(directory: &Path, bytes: u64) {
    let disk = statvfs(directory).unwrap();
    let spare = (disk.f_bavail * disk.f_frsize).checked_sub(bytes).expect("a larger small disk");
    let ballast = File::create(directory.join("ballast")).unwrap();
    rustix::fs::fallocate(ballast, rustix::fs::FallocateFlags::empty(), 0, spare).unwrap();
}

/// What is to be left of it.
const LEAST: u64 = 60 * MI;

/// A node on a disk of so many bytes, which soon knows what images might go.
fn on_small_disk(bytes: u64) -> Option<(Node, Small)> {
    let mut node = Node::prepare()?;
    let small = Small::below(&node, bytes);
    node.configure(
        "evictionHard: {nodefs.available: 60Mi}\nevictionPressureTransitionPeriod: 1ms\n\
         imageMinimumGCAge: 1ms",
    );
    node.launch();
    Some((node, small))
}

#[test]
fn the_least_important_static_pod_makes_room_on_the_disk_and_comes_back() {
    let Some((mut node, small)) = on_small_disk(160 * MI) else { return };
    let important = writes(&node, "important", 20).set("spec.priority", 7);
    node.put("important.yaml", &important);
    // However it is restarted by itself: it did not end by itself.
    let cheap = writes(&node, "cheap", 20).set("spec.restartPolicy", "Never");
    node.put("cheap.yaml", &cheap);
    let critical = writes(&node, "critical", 20);
    node.put("critical.yaml", &critical.set("spec.priorityClassName", "system-node-critical"));
    let before = ["important", "cheap", "critical"].map(|name| {
        node.wait_for_told(name, 1);
        node.wait_for_running(name)
    });
    let [important, _, critical] = &before;

    leave(&node.path("root"), LEAST - 5 * MI);
    // What it had makes enough room, and nobody else has to go; it begins with an empty volume.
    assert_eq!(node.wait_for_told("cheap", 2), ["0 files", "0 files"]);
    let back = node.wait_for_running("cheap");
    let (ends, returns) = (back.events("Evicted"), back.events("Returned"));
    assert_eq!((ends.len(), &*ends[0].kind, returns.len()), (1, "Warning", 1), "{back:#?}");
    let message = &ends[0].message;
    let beginning = "The node was low on resource: ephemeral-storage. Threshold quantity: 60Mi, \
                     available: ";
    assert!(message.starts_with(beginning), "{message}");
    assert!(message.ends_with("It is started again when the node has enough again. "), "{message}");
    let status = node.status();
    for pod in [important, critical] {
        let name = pod.name.trim_end_matches("-n1");
        assert_eq!(status.pod(name).unwrap().id(), pod.id(), "{name}");
    }
    node.mainstay(&["down"]).success();
    node.terminated();
    drop(small);
}

#[test]
fn images_that_nobody_needs_make_room_before_a_pod_has_to_end() {
    let Some((mut node, small)) = on_small_disk(200 * MI) else { return };
    for (name, size) in [("first", 1), ("second", 2), ("done", 3), ("unused", 20 << 20)] {
        let file = node.path(&format!("{name}.tar"));
        let image = Image::busybox().with_file("content", &"x".repeat(size));
        image.docker_archive(&format!("local/{name}:1"), &file);
        node.import(&file);
        std::fs::remove_file(file).unwrap();
    }
    let version = |name: &str| {
        let web = pod("web").with_host_directory(&node.host());
        web.main("image", format!("local/{name}:1")).script("wc -c < /content >> /host/web")
    };
    node.put("web.yaml", &version("first"));
    node.wait_for_told("web", 1);
    node.put("web.yaml", &version("second"));
    assert_eq!(node.wait_for_told("web", 2), ["1", "2"]);
    let web = node.wait_for_running("web");
    let done = pod("done").main("image", "local/done:1").exactly("exit 0");
    node.put("done.yaml", &done.set("spec.restartPolicy", "OnFailure"));
    node.wait_for_state("done", "Completed");

    leave(&node.path("root"), 55 * MI);
    let images = || node.mainstay(&["image", "ls"]).success();
    let removed = wait_for(|| (!images().contains("local/unused")).then_some(()));
    assert!(removed.is_some(), "{}\n{}", images(), node.log());
    // The one that runs, the one before, and those of pods that may be started again.
    let left = images();
    for name in ["first", "second", "done", "busybox"] {
        assert!(left.contains(&format!("local/{name}")), "{name}\n{left}");
    }
    // Of what has come to its end only that is known.
    let sandboxes = || std::fs::read_dir(node.path("run/sandboxes")).unwrap().count();
    assert!(wait_for(|| (sandboxes() == 1).then_some(())).is_some(), "{}", node.log());
    let status = node.status();
    assert_eq!(status.pod("done").unwrap().status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(status.pod("web").unwrap().id(), web.id());
    assert!(status.pod("web").unwrap().events("Evicted").is_empty());
    node.mainstay(&["down"]).success();
    node.terminated();
    drop(small);
}

/// A pod of the API, called as a static one would be.
fn of_api(name: &str) -> Manifest {
    let own = pod(&format!("{name}-n1")).set("spec.nodeName", "n1");
    own.main("imagePullPolicy", "Never")
}

#[test]
fn when_memory_is_short_pods_of_both_kinds_end_and_static_ones_come_back_under_a_later_agent() {
    let Some(mut node) = Node::start() else { return };
    for name in ["low", "critical"] {
        let class = if name == "critical" { "system-cluster-critical" } else { "" };
        let script = format!("echo start >> /host/{name}");
        let own = pod(name).with_host_directory(&node.host()).script(&script);
        let own = match class {
            "" => own,
            class => own.set("spec.priorityClassName", class),
        };
        node.put(&format!("{name}.yaml"), &own);
    }
    create(&node, &of_api("ours"));
    wait_for_phase(&node, "ours-n1", "Running");
    let critical = node.wait_for_running("critical");
    node.wait_for_running("low");
    node.wait_for_told("low", 1);

    node.terminate();
    // So much is never there, and less than the machine has.
    node.configure("evictionHard: {memory.available: 99.9%}\nevictionPressureTransitionPeriod: 1h");
    node.launch();
    wait_for_phase(&node, "ours-n1", "Failed");
    let ended = node.wait_for_state("low", "Evicted");
    let message = ended.status.message.as_deref().unwrap();
    let beginning = "The node was low on resource: memory. Threshold quantity: ";
    assert!(message.starts_with(beginning), "{message}");
    let told = |object: &str, path: &str| shown(&node, &[object], path).unwrap();
    assert_eq!(told("pod/ours-n1", "{.status.reason}"), "Evicted");
    let condition = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    assert_eq!(told("pod/ours-n1", condition), "TerminationByKubelet");
    let pressure = "{.status.conditions[?(@.type==\"MemoryPressure\")].status}";
    wait_for_shown(&node, &["node", "n1"], pressure, Some("True"));
    let taints = || told("node/n1", "{.spec.taints[*].key}");
    let tainted = wait_for(|| taints().contains("memory-pressure").then_some(()));
    assert!(tainted.is_some(), "{}", node.log());
    // A new one that asks for nothing is not taken.
    create(&node, &of_api("late"));
    wait_for_phase(&node, "late-n1", "Failed");
    let why = "Pod was rejected: The node had condition: [MemoryPressure]. ";
    assert_eq!(told("pod/late-n1", "{.status.message}"), why);
    assert_eq!(node.status().pod("critical").unwrap().id(), critical.id());

    // The next agent finds that there is enough.
    node.kill();
    node.configure("");
    node.launch();
    node.wait_for_told("low", 2);
    node.wait_for_running("low");
    wait_for_phase(&node, "low-n1", "Running");
    assert_eq!(node.status().pod("critical").unwrap().id(), critical.id());
    assert_eq!(node.told("critical"), ["start"]);
    wait_for_phase(&node, "ours-n1", "Failed");
}

/// Tells of each start, and does this at the first one only, however early it is ended for it.
fn first(name: &str, script: &str) -> String {
    let tell = format!("test -e /host/{name}; again=$?; echo start >> /host/{name}");
    format!("{tell}; test $again = 0 || {{ {script}; }}")
}

#[test]
fn what_is_kept_from_pods_is_kept_by_ending_one_and_not_by_the_kernel() {
    let Some(mut node) = Node::prepare() else { return };
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = machine.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    // All pods together may have 400 MiB, and there should always be 250 of them.
    let kept = total - 400 * 1024;
    node.configure(&format!(
        "systemReserved: {{memory: {kept}Ki}}\nevictionHard: {{memory.available: 250Mi}}\n\
         evictionPressureTransitionPeriod: 1ms"
    ));
    node.launch();
    let holds = |name: &str, mebibytes: u32| {
        let script = format!("dd if=/dev/zero of=/memory/file bs=1M count={mebibytes}");
        pod(name)
            .with_host_directory(&node.host())
            .with_volume(json!({ "name": "memory", "emptyDir": { "medium": "Memory" } }))
            .script(&first(name, &script))
    };
    node.put("important.yaml", &holds("important", 30).set("spec.priority", 7));
    node.put("idle.yaml", &holds("idle", 0).set("spec.priority", 1));
    let others = ["important", "idle"].map(|name| (name, node.wait_for_running(name)));
    node.put("cheap.yaml", &holds("cheap", 125));
    // It comes back, and takes nothing this time.
    assert_eq!(node.wait_for_told("cheap", 2), ["start", "start"]);
    let back = node.wait_for_running("cheap");
    let [evicted] = back.events("Evicted")[..] else { panic!("{back:#?}") };
    let beginning = "The node was low on resource: memory. Threshold quantity: 250Mi, available: ";
    assert!(evicted.message.starts_with(beginning), "{}", evicted.message);
    for (name, before) in others {
        let now = node.wait_for_running(name);
        assert_eq!((now.id(), now.restarts), (before.id(), 0), "{now:#?}");
    }
}

/// Takes as many files or processes as its script does at its first start, and none later.
fn takes(node: &Node, name: &str, script: &str) -> Manifest {
    let own = pod(name).with_host_directory(&node.host());
    own.with_volume(json!({ "name": "cache", "emptyDir": {} })).script(&first(name, script))
}

/// Runs a pod that takes too much beside one that is more important, until it has been ended for that and runs
/// again. What is said of it begins so.
fn the_one_that_takes_ends_and_comes_back(node: &Node, script: &str, beginning: &str) {
    let important = takes(node, "important", "true").set("spec.priority", 7);
    node.put("important.yaml", &important);
    let important = node.wait_for_running("important");
    node.put("takes.yaml", &takes(node, "takes", script));
    let ended = node.wait_for_state("takes", "Evicted");
    let status = &ended.status;
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("Evicted"))
    );
    let message = status.message.as_deref().unwrap();
    assert!(message.starts_with(beginning), "{message}");
    assert!(message.ends_with("It is started again when the node has enough again. "), "{message}");
    node.wait_for_told("takes", 2);
    let back = node.wait_for_running("takes");
    let [evicted] = back.events("Evicted")[..] else { panic!("{back:#?}") };
    assert_eq!((&*evicted.kind, &*evicted.message), ("Warning", message));
    assert_eq!(back.events("Returned").len(), 1, "{back:#?}");
    let now = node.wait_for_running("important");
    assert_eq!((now.id(), now.restarts), (important.id(), 0));
}

#[test]
fn a_pod_with_too_many_files_makes_room_for_those_of_others() {
    let Some(mut node) = Node::prepare() else { return };
    let small = Small::below(&node, 160 * MI);
    // The node has some hundred of its own there, and the pod twice as many as there may be beside them. One more
    // than an even number, since thousands are told by a letter.
    let least = (statvfs(node.path("root")).unwrap().f_ffree - 4000) | 1;
    node.configure(&format!(
        "evictionHard: {{nodefs.inodesFree: \"{least}\"}}\nevictionPressureTransitionPeriod: 5s\n\
         imageMinimumGCAge: 1ms"
    ));
    node.launch();
    let beginning =
        format!("The node was low on resource: inodes. Threshold quantity: {least}, available: ");
    let script = "cd /cache; seq 8000 | xargs touch";
    the_one_that_takes_ends_and_comes_back(&node, script, &beginning);
    node.mainstay(&["down"]).success();
    node.terminated();
    drop(small);
}

/// How many more processes and threads there may be on this machine, as a kubelet counts them.
fn processes_left() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let most = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let most: u64 = most.iter().map(|path| read(path).trim().parse().unwrap()).min().unwrap();
    let load = read("/proc/loadavg");
    let (_, all) = load.split_whitespace().nth(3).unwrap().split_once('/').unwrap();
    most - all.parse::<u64>().unwrap()
}

#[test]
fn a_pod_with_too_many_processes_makes_room_for_those_of_others() {
    let Some(mut node) = Node::prepare() else { return };
    // Other tests begin and end processes too, but not so many.
    let least = (processes_left() - 1000) | 1;
    node.configure(&format!(
        "evictionHard: {{pid.available: \"{least}\"}}\nevictionPressureTransitionPeriod: 5s"
    ));
    node.launch();
    let beginning =
        format!("The node was low on resource: pids. Threshold quantity: {least}, available: ");
    let script = "for _ in $(seq 2000); do sleep infinity & done";
    the_one_that_takes_ends_and_comes_back(&node, script, &beginning);
}

#[test]
fn for_a_soft_threshold_pods_end_after_a_while_and_have_time_for_it() {
    let Some(mut node) = Node::prepare() else { return };
    // So much is never there.
    node.arguments.extend([
        "--eviction-soft=memory.available<99.9%".to_owned(),
        "--eviction-soft-grace-period=memory.available=11s".to_owned(),
        "--eviction-max-pod-grace-period=5".to_owned(),
    ]);
    node.launch();
    let ends = |name: &str, at_end: &str| {
        let own = pod(name).with_host_directory(&node.host());
        own.set("spec.terminationGracePeriodSeconds", 90).exactly(&format!(
            "trap 'echo {name} >> /host/ends; {at_end}' TERM; while true; do sleep 0.1; done"
        ))
    };
    // One of them takes longer than those have that are ended for a hard threshold, the other one for ever.
    let polite = ends("polite", "sleep 2; echo done >> /host/ends; exit 3");
    node.put("polite.yaml", &polite.set("spec.priority", 1));
    node.put("stubborn.yaml", &ends("stubborn", ""));
    node.wait_for_running("polite");
    node.wait_for_running("stubborn");
    let pressure = "{.status.conditions[?(@.type==\"MemoryPressure\")].status}";
    wait_for_shown(&node, &["node", "n1"], pressure, Some("True"));
    // It is told at the first look, and nobody has to end before the third.
    assert_eq!(node.told("ends"), [""; 0]);
    for (name, code) in [("stubborn", 137), ("polite", 3)] {
        let status = node.wait_until(&format!("{name} has ended"), |status| {
            let state = status.pod(name).and_then(|pod| pod.container("main").state.clone());
            let ended = state.and_then(|state| state.terminated);
            ended.is_some_and(|ended| ended.exit_code == code)
        });
        let ended = &status.pod(name).unwrap().status;
        assert_eq!(ended.reason.as_deref(), Some("Evicted"), "{ended:#?}");
        let message = ended.message.as_deref().unwrap();
        let beginning = "The node was low on resource: memory. Threshold quantity: ";
        assert!(message.starts_with(beginning), "{message}");
    }
    assert_eq!(node.told("ends"), ["stubborn", "polite", "done"]);
}

/// A clock of an agent that goes forward when it is told to. Whoever gives the kernel a time to wait for, as the
/// store of the API does, does not hear of it: nothing is asked of the API.
struct Clock {
    file: PathBuf,
    seconds: u64,
}

impl Clock {
    /// The one of this node's next agent.
    fn of(node: &mut Node) -> Self {
        let library = tools::program("libfaketime.so.1").canonicalize().unwrap();
        let clock = Self { file: node.path("clock"), seconds: 0 };
        node.environment = vec![
            ("LD_PRELOAD", library.to_str().unwrap().to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", clock.file.to_str().unwrap().to_owned()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        clock.write();
        clock
    }

    fn advance(&mut self, seconds: u64) {
        self.seconds += seconds;
        self.write();
    }

    fn write(&self) {
        let whole = self.file.with_extension("new");
        fs::write(&whole, format!("+{}\n", self.seconds)).unwrap();
        fs::rename(whole, &self.file).unwrap();
    }
}

#[test]
fn a_disk_that_is_fuller_than_it_should_be_loses_the_images_that_nobody_needs() {
    let Some(mut node) = Node::prepare() else { return };
    let small = Small::below(&node, 200 * MI);
    node.configure(
        "imageGCHighThresholdPercent: 80\nimageGCLowThresholdPercent: 75\nimageMinimumGCAge: 7m",
    );
    let mut clock = Clock::of(&mut node);
    node.launch();
    let provide = |name: &str, mebibytes: usize| {
        let file = node.path(&format!("{name}.tar"));
        let image = Image::busybox().with_file("content", &"x".repeat(mebibytes << 20));
        image.docker_archive(&format!("local/{name}:1"), &file);
        node.import(&file);
        fs::remove_file(file).unwrap();
    };
    for (name, mebibytes) in [("web", 25), ("past", 26)] {
        provide(name, mebibytes);
        node.put(&format!("{name}.yaml"), &pod(name).main("image", format!("local/{name}:1")));
    }
    node.put("plain.yaml", &pod("plain"));
    let web = node.wait_for_running("web");
    node.wait_for_running("past");
    node.wait_for_running("plain");
    // With the next image more than 80 of 100 parts are taken.
    leave(&node.path("root"), 60 * MI);
    provide("never", 30);

    // That one is too new to go.
    let in_vain = || node.log().matches("unused images (freed 0 bytes)").count();
    clock.advance(300);
    assert!(wait_for(|| (in_vain() > 0).then_some(())).is_some(), "{}", node.log());
    assert!(node.images().contains("local/never"));

    // Of those that nobody needs the one goes that was not needed for longer, which is enough.
    node.take("past.yaml");
    node.wait_for_gone("past");
    clock.advance(600);
    wait_for_images(&node, &["busybox", "past", "web"]);
    // And when even the other one is not enough, those that are needed stay.
    let more = File::create(node.path("root/more")).unwrap();
    rustix::fs::fallocate(more, rustix::fs::FallocateFlags::empty(), 0, 50 * MI).unwrap();
    clock.advance(300);
    wait_for_images(&node, &["busybox", "web"]);
    let before = in_vain();
    clock.advance(300);
    assert!(wait_for(|| (in_vain() > before).then_some(())).is_some(), "{}", node.log());
    wait_for_images(&node, &["busybox", "web"]);
    let now = node.wait_for_running("web");
    assert_eq!((now.id(), now.restarts), (web.id(), 0));
    node.mainstay(&["down"]).success();
    node.terminated();
    drop(small);
}

/// Waits until these images are there and no others.
#[track_caller]
fn wait_for_images(node: &Node, names: &[&str]) {
    let is = || {
        let all = node.images();
        let names = names.iter().filter(|name| all.contains(&format!("local/{name}:1"))).count();
        (names, all.lines().count())
    };
    // The first line is a head.
    let expected = (names.len(), names.len() + 1);
    assert!(
        wait_for(|| (is() == expected).then_some(())).is_some(),
        "{}\n{}",
        node.images(),
        node.log()
    );
}
