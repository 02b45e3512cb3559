//! What is in a container: its command, its environment, its volumes, its limits.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use mainstay_linux::cgroup::Hierarchies;
use serde_json::{Value, json};

use crate::bad_input::{problem, wait_for_problem};
use crate::image::Image;
use crate::manifest::{command, pod};
use crate::node::{Node, Pod, Status, wait_for};

#[test]
fn commands_arguments_and_variables_reach_the_program() {
    let Some(node) = Node::start() else { return };
    let image = node.path("told.tar");
    Image::busybox()
        .set(
            "Entrypoint",
            json!(["sh", "-c", "echo \"$0 $* $GIVEN\" > /host/$NAME; sleep infinity"]),
        )
        .set("Cmd", json!(["image", "arguments"]))
        .set("Env", json!(["PATH=/bin", "GIVEN=by-the-image", "NAME=plain"]))
        .set("WorkingDir", "/srv")
        .docker_archive("local/told:1", &image);
    node.import(&image);
    let told = |name: &str, fields: &[(&str, Value)]| {
        let mut told = pod(name).with_host_directory(&node.host());
        told = told.main("image", "local/told:1").main("command", Value::Null);
        told = told.set("spec.terminationGracePeriodSeconds", 0);
        for (field, value) in fields {
            told = told.main(field, value.clone());
        }
        node.put(&format!("{name}.yaml"), &told);
    };
    told("plain", &[]);
    told(
        "args",
        &[
            ("args", json!(["$(A)", "$$(A)", "$(MISSING)", "$(B)"])),
            (
                "env",
                json!([
                    { "name": "A", "value": "one" },
                    { "name": "B", "value": "$(A)-two" },
                    { "name": "GIVEN", "value": "by-the-pod" },
                    { "name": "NAME", "value": "args" },
                ]),
            ),
        ],
    );
    told("command", &[("command", json!(["sh", "-c", "pwd > /host/command; sleep infinity"]))]);
    told(
        "place",
        &[
            ("command", json!(["sh", "-c"])),
            ("args", json!(["pwd > /host/place; sleep infinity"])),
            ("workingDir", json!("/made/for/it")),
        ],
    );
    assert_eq!(node.wait_for_told("plain", 1), ["image arguments by-the-image"]);
    assert_eq!(node.wait_for_told("args", 1), ["one $(A) $(MISSING) one-two by-the-pod"]);
    assert_eq!(node.wait_for_told("command", 1), ["/srv"]);
    assert_eq!(node.wait_for_told("place", 1), ["/made/for/it"]);
}

#[test]
fn a_terminal_and_an_open_input_are_there_when_they_are_asked_for() {
    let Some(node) = Node::start() else { return };
    let told = "echo in=$(readlink /proc/1/fd/0) out=$(readlink /proc/1/fd/1 | sed s/[0-9].*//)";
    node.put("plain.yaml", &pod("plain"));
    node.put("tty.yaml", &pod("tty").main("tty", true).main("stdin", true));
    node.put("open.yaml", &pod("open").main("stdin", true));
    for name in ["plain", "tty", "open"] {
        node.wait_for_running(name);
    }
    let sh = |pod: &str| node.sh(pod, "main", told);
    assert_eq!(sh("plain"), "in=/dev/null out=pipe:[\n");
    assert_eq!(sh("tty"), "in=/dev/pts/0 out=/dev/pts/\n");
    assert!(sh("open").starts_with("in=pipe:["), "{}", sh("open"));
    // A terminal for one more command, with what comes in passed on.
    let mut exec =
        node.command(&["exec", "-i", "-t", "plain", "--", "sh", "-c", "tty; read a; echo got $a"]);
    let mut exec = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    exec.stdin.take().unwrap().write_all(b"word\n").unwrap();
    let output = exec.wait_with_output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains("/dev/pts/") && output.contains("got word\r\n"), "{output}");
}

#[test]
fn volumes_that_begin_empty_are_shared_survive_restarts_and_end_with_the_pod() {
    let Some(node) = Node::start() else { return };
    let mounts = json!([
        { "name": "disk", "mountPath": "/disk" },
        { "name": "memory", "mountPath": "/memory" },
    ]);
    let beside = json!({
        "name": "beside", "image": "local/busybox:1", "command": command(""), "volumeMounts": mounts,
    });
    let web = pod("web")
        .with_host_directory(&node.host())
        .set(
            "spec.volumes",
            json!([
                { "name": "disk", "emptyDir": {} },
                { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
                { "name": "host", "hostPath": { "path": node.host() } },
            ]),
        )
        .main("volumeMounts.1", mounts[0].clone())
        .main("volumeMounts.2", mounts[1].clone())
        .main(
            "command",
            crate::manifest::exactly(
                "ls /disk /memory | sort | xargs >> /host/web; touch /disk/a /memory/b
            until [ -e /host/go ]; do sleep 0.02; done; rm /host/go; exit 1",
            ),
        )
        .set("spec.terminationGracePeriodSeconds", 1)
        .set("spec.containers.1", beside);
    node.put("web.yaml", &web);
    node.wait_for_running("web");
    let sh =
        |script: &str| node.mainstay(&["exec", "web", "-c", "beside", "--", "sh", "-c", script]);
    crate::node::wait_for(|| sh("test -e /disk/a -a -e /memory/b").status.success().then_some(()))
        .unwrap();
    let full = sh("dd if=/dev/zero of=/memory/c bs=1k count=2000").failure(1);
    assert!(full.contains("No space left"), "{full}");
    assert!(sh("grep ' /memory tmpfs ' /proc/mounts").success().contains("size=1024k"));
    sh("rm /memory/c").success();
    fs::write(node.host().join("go"), "").unwrap();
    let told = node.wait_for_told("web", 2);
    assert_eq!(told, ["/disk: /memory:", "/disk: /memory: a b"]);
    let uid = node.status().pod("web").unwrap().uid.clone();
    let place = node.path(&format!("root/pods/{uid}"));
    assert!(place.exists());
    node.take("web.yaml");
    node.wait_for_gone("web");
    assert!(!place.exists());
}

#[test]
fn every_kind_of_host_path_is_what_it_says_or_its_pod_waits_for_it() {
    let Some(node) = Node::start() else { return };
    let at = |name: &str| node.path(&format!("things/{name}"));
    fs::create_dir_all(at("directory")).unwrap();
    fs::write(at("file"), "content\n").unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let put = |name: &str, kind: &str, path: &std::path::Path| {
        let mut source = json!({ "path": path });
        if !kind.is_empty() {
            source["type"] = kind.into();
        }
        let web = pod(name)
            .set("spec.volumes", json!([{ "name": "it", "hostPath": source }]))
            .main("volumeMounts", json!([{ "name": "it", "mountPath": "/it" }]));
        node.put(&format!("{name}.yaml"), &web);
    };
    let null = std::path::Path::new("/dev/null");
    let good = [
        ("plain", "", at("new"), "-d"),
        ("directory", "Directory", at("directory"), "-d"),
        ("made", "DirectoryOrCreate", at("a/b"), "-d"),
        ("file", "File", at("file"), "-f"),
        ("touched", "FileOrCreate", at("new-file"), "-f"),
        ("socket", "Socket", at("socket"), "-S"),
        ("device", "CharDevice", null.to_owned(), "-c"),
    ];
    for (name, kind, path, _) in &good {
        put(name, kind, path);
    }
    let bad = [
        ("absent", "Directory", at("late"), "does not exist"),
        ("wrong", "File", at("directory"), "is not a file"),
        ("block", "BlockDevice", null.to_owned(), "is not a block device"),
        ("nosocket", "Socket", at("file"), "is not a socket"),
    ];
    for (name, kind, path, _) in &bad {
        put(name, kind, path);
    }
    for (name, _, _, test) in good {
        node.wait_for_running(name);
        node.mainstay(&["exec", name, "--", "test", test, "/it"]).success();
    }
    for (name, _, path, why) in bad {
        let status = wait_for_problem(&node, name, &[why]);
        let problem = problem(&status, name);
        assert!(problem.contains(path.to_str().unwrap()), "{problem}");
        assert_eq!(status.pod(name).unwrap().ready, 0);
    }
    // It comes, and with it the pod.
    fs::create_dir(at("late")).unwrap();
    node.wait_for_running("absent");
    // Nothing of the host went with a pod.
    node.take("file.yaml");
    node.wait_for_gone("file");
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "content\n");
}

/// The file with the most memory that a control group may have, in both versions.
pub(crate) const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

/// What a file of the container's control group holds, whatever the version.
fn limit(node: &Node, pod: &str, names: [&str; 2]) -> String {
    let id = node.status().pod(pod).unwrap().id().rsplit('/').next().unwrap().to_owned();
    in_group(node, &id, names)
}

/// What a file of a control group of this name holds, whatever the version.
pub(crate) fn in_group(node: &Node, group: &str, names: [&str; 2]) -> String {
    let mut found = Vec::new();
    let root = format!("/{}", node.names().table);
    let hierarchies = Hierarchies::mounted().unwrap();
    let mut places: Vec<_> = hierarchies.at(&root).directories().collect();
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(&place).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places.push(path);
            } else if place.ends_with(group) && names.iter().any(|name| path.ends_with(name)) {
                found.push(fs::read_to_string(&path).unwrap().trim().to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    found.join(",")
}

#[test]
fn requests_and_limits_are_the_kernels() {
    let Some(node) = Node::start() else { return };
    let resources = json!({
        "requests": { "cpu": "250m", "memory": "16Mi" },
        "limits": { "cpu": "500m", "memory": "32Mi" },
    });
    node.put("web.yaml", &pod("web").main("resources", resources));
    node.wait_for_running("web");
    assert_eq!(limit(&node, "web", MEMORY), "33554432");
    let quota = limit(&node, "web", ["cpu.cfs_quota_us", "cpu.max"]);
    assert!(["50000", "50000 100000"].contains(&&*quota), "{quota}");
    // 256 shares; as a weight the kernel has 10 of them.
    let shares = limit(&node, "web", ["cpu.shares", "cpu.weight"]);
    assert!(["256", "10"].contains(&&*shares), "{shares}");
    // What is said of the pod as a whole is for a container that says nothing.
    let all =
        json!({ "requests": { "cpu": "250m" }, "limits": { "cpu": "500m", "memory": "32Mi" } });
    node.put("whole.yaml", &pod("whole").set("spec.resources", all));
    let whole = node.wait_for_running("whole");
    assert_eq!(limit(&node, "whole", MEMORY), "33554432");
    let quota = limit(&node, "whole", ["cpu.cfs_quota_us", "cpu.max"]);
    assert!(["50000", "50000 100000"].contains(&&*quota), "{quota}");
    assert_eq!(whole.status.qos_class.as_deref(), Some("Burstable"));
    assert_eq!(in_group(&node, &format!("burstable/pod{}", whole.uid), MEMORY), "33554432");
}

#[test]
fn pods_of_a_class_weigh_together_what_they_ask_for() {
    let Some(node) = Node::start() else { return };
    let burstable = |name, cpu: &str| pod(name).main("resources.requests.cpu", cpu);
    node.put("web.yaml", &burstable("web", "250m"));
    node.put("more.yaml", &burstable("more", "500m"));
    node.put("idle.yaml", &pod("idle"));
    let all = json!({ "limits": { "cpu": "1", "memory": "32Mi" } });
    node.put("whole.yaml", &pod("whole").main("resources", all));
    let shares = |group: &str| in_group(&node, group, ["cpu.shares", "cpu.weight"]);
    // As shares, or as the kernel weighs them.
    for (name, class, own) in [
        ("web", "burstable/", ["256", "10"]),
        ("more", "burstable/", ["512", "20"]),
        ("idle", "besteffort/", ["2", "1"]),
        ("whole", "", ["1024", "39"]),
    ] {
        let group = format!("{}/{class}pod{}", node.names().table, node.wait_for_running(name).uid);
        assert!(own.contains(&&*shares(&group)), "{name}: {}", shares(&group));
    }
    let weigh = |classes: [[&str; 2]; 2]| {
        let are =
            ["burstable", "besteffort"].map(|class| format!("{}/{class}", node.names().table));
        let is = || are.iter().zip(classes).all(|(group, own)| own.contains(&&*shares(group)));
        assert!(wait_for(|| is().then_some(())).is_some(), "{:?}", are.map(|it| shares(&it)));
    };
    weigh([["768", "30"], ["2", "1"]]);
    node.take("more.yaml");
    weigh([["256", "10"], ["2", "1"]]);
}

#[test]
fn a_container_that_takes_more_memory_than_it_may_is_told_to_have_been_killed_for_it() {
    let Some(node) = Node::start() else { return };
    let resources = json!({ "limits": { "memory": "16Mi" } });
    // A file in memory is charged to whoever writes it.
    let web = pod("web")
        .set("spec.restartPolicy", "Never")
        .set("spec.volumes", json!([{ "name": "m", "emptyDir": { "medium": "Memory" } }]))
        .main("volumeMounts", json!([{ "name": "m", "mountPath": "/m" }]))
        .main("resources", resources)
        .exactly("exec dd if=/dev/zero of=/m/file bs=1M count=64");
    node.put("web.yaml", &web);
    node.put("other.yaml", &pod("other"));
    let web = node.wait_for_state("web", "OOMKilled");
    let state = web.container("main").state.clone().unwrap().terminated.unwrap();
    assert_eq!((state.exit_code, state.reason.as_deref()), (137, Some("OOMKilled")));
    node.wait_for_running("other");
}

/// What the last end of a pod's only container is told to have been.
fn message_of(pod: &Pod) -> Option<String> {
    let container = pod.container("main");
    let states = [&container.state, &container.last_state];
    let ended = states.into_iter().flatten().find_map(|state| state.terminated.as_ref());
    ended.and_then(|end| end.message.clone())
}

#[test]
fn what_a_container_says_at_its_end_is_told_whoever_it_runs_as() {
    let Some(mut node) = Node::start() else { return };
    // The path is not in the image, whose files it may not change.
    let long = "head -c 9000 /dev/zero | tr '\\0' x > /made/said; echo bye >> /made/said; \
                rm -f /made/said; ln -sf /etc/passwd /made/said; exit 3";
    let context = json!({ "runAsUser": 1000, "readOnlyRootFilesystem": true });
    let said = pod("said").exactly(long).main("securityContext", context);
    let said = said.main("terminationMessagePath", "/made/said");
    let logs = |name: &str, code: u32| {
        let script = format!("echo one; echo two >&2; exit {code}");
        pod(name).exactly(&script).main("terminationMessagePolicy", "FallbackToLogsOnError")
    };
    let pods = [("said", said), ("logged", logs("logged", 1)), ("quiet", logs("quiet", 0))];
    for (name, pod) in pods {
        node.put(&format!("{name}.yaml"), &pod.set("spec.restartPolicy", "Never"));
    }
    let over = |status: &Status| {
        let phase = |name| status.pod(name).and_then(|pod| pod.status.phase.clone());
        ["said", "logged", "quiet"]
            .map(phase)
            .iter()
            .all(|it| it.as_deref().is_some_and(|phase| ["Failed", "Succeeded"].contains(&phase)))
    };
    for _ in 0..2 {
        let status = node.wait_until("all have ended", over);
        let [said, logged, quiet] =
            ["said", "logged", "quiet"].map(|name| status.pod(name).unwrap());
        assert_eq!(message_of(said).unwrap(), format!("{}bye\n", "x".repeat(4092)));
        let logged = message_of(logged).unwrap();
        // Output and errors are written by their own ways.
        assert!(["one\ntwo\n", "two\none\n"].contains(&&*logged), "{logged}");
        assert_eq!(message_of(quiet), None);
        // Another agent tells the same.
        node.kill();
        node.launch();
    }
}

#[test]
fn a_pod_that_is_active_longer_than_it_may_is_ended_for_good() {
    let Some(mut node) = Node::start() else { return };
    // Its image is there.
    node.put("other.yaml", &pod("other"));
    node.wait_for_running("other");
    let manifest = pod("late").with_host_directory(&node.host());
    let manifest = manifest.set("spec.activeDeadlineSeconds", 2);
    node.put("late.yaml", &manifest.script("echo start >> /host/late"));
    let late = |status: &Status| {
        status
            .pod("late")
            .is_some_and(|pod| pod.status.reason.as_deref() == Some("DeadlineExceeded"))
    };
    let status = node.wait_until("its time is over", late);
    assert_eq!(status.pod("late").unwrap().status.phase.as_deref(), Some("Failed"));
    // On a machine that is slow its time may be over before it runs, or while it is started: with the end of its
    // sandbox that is over, too.
    let ended = |status: &Status| {
        let pod = status.pod("late").unwrap();
        let state = pod.container("main").state.as_ref();
        state.is_some_and(|state| state.running.is_none()) && node.processes("shims").len() == 1
    };
    node.wait_until("it ends", ended);
    let starts = node.told("late");
    node.kill();
    node.launch();
    let status = node.wait_until("another agent tells it", late);
    assert_eq!(status.pod("late").unwrap().container("main").restart_count, 0);
    assert_eq!(node.told("late"), starts);
}
