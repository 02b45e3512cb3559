//! The command line: what it prints, and what its exit statuses mean.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use expect_test::expect;
use serde_json::{Value, json};

use crate::image::Image;
use crate::manifest::pod;
use crate::node::{Node, wait_for};

#[test]
fn status_tells_with_and_without_an_agent_and_its_exit_status_says_whether_all_is_well() {
    let Some(mut node) = Node::prepare() else { return };
    let text = node.mainstay(&["status"]);
    assert_eq!(text.status.code(), Some(1));
    assert!(text.stdout.starts_with("no agent runs"), "{text:?}");
    assert!(!node.status().agent);
    node.launch();
    expect!["no pods\n"].assert_eq(&node.mainstay(&["status"]).success());
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    let ip = node.status().pod("web").unwrap().status.pod_ip.clone().unwrap();
    let table = node.mainstay(&["status"]).success().replace(&ip, "IP");
    expect![[r#"
        NAMESPACE  POD     READY  STATE    RESTARTS  IP
        default    web-n1  1/1    Running  0         IP
    "#]]
    .assert_eq(&table);
    for name in ["web", "web-n1", "default/web", "default/web-n1"] {
        let told = node.mainstay(&["status", name]).success();
        assert!(told.contains("Started: Container started: main"), "{told}");
        assert!(told.contains("manifests/web.yaml"), "{told}");
    }
    let missing = node.mainstay(&["status", "nothing"]).failure(1);
    assert!(missing.contains("there is no pod nothing"), "{missing}");

    node.put(
        "bad.yaml",
        &pod("bad").main("image", "local/nothing:1").main("imagePullPolicy", "Never"),
    );
    node.wait_for_state("bad", "ErrImageNeverPull");
    let told = node.mainstay(&["status"]);
    assert_eq!(told.status.code(), Some(1));
    let importer =
        if node.is_on_containerd() { "images import`" } else { "`mainstay image import`" };
    assert!(told.stdout.contains(importer), "{told:?}");
    node.take("bad.yaml");
    node.wait_for_gone("bad");

    node.kill();
    let told = node.mainstay(&["status"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(told.stdout.starts_with("no agent runs; what runs, runs on"), "{told:?}");
    assert_eq!(node.status().state("web"), "Running");
}

#[test]
fn check_judges_files_and_directories_without_running_them() {
    let Some(node) = Node::prepare() else { return };
    let directory = node.path("checked");
    fs::create_dir(&directory).unwrap();
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    fs::write(at("good.yaml"), pod("good").to_string()).unwrap();
    let bad = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: bad\nspec:\n  containers:\n  \
               - name: a\n    image: b\n    workingDirectory: /\n";
    fs::write(at("bad.yaml"), bad).unwrap();
    fs::write(at("notes.txt"), "kind: [").unwrap();
    let without_path = |text: &str| text.replace(directory.to_str().unwrap(), "DIR");

    let told = node.mainstay(&["check", &at("good.yaml")]).success();
    expect!["DIR/good.yaml: ok (pod default/good)\n"].assert_eq(&without_path(&told));
    let told = node.mainstay(&["check", directory.to_str().unwrap()]);
    assert_eq!(told.status.code(), Some(1));
    expect![[r#"
        error: spec.containers[0].workingDirectory: unknown field
         --> DIR/bad.yaml:9:5
          |
        9 |     workingDirectory: /
          |     ^^^^^^^^^^^^^^^^
        DIR/bad.yaml: refused
        DIR/good.yaml: ok (pod default/good)
    "#]]
    .assert_eq(&without_path(&told.stdout));
    node.mainstay(&["check", "--validate=warn", &at("bad.yaml")]).success();

    let told = node.mainstay(&["check", "-o", "json", &at("good.yaml"), &at("bad.yaml")]);
    assert_eq!(told.status.code(), Some(1));
    let verdicts: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(verdicts[0]["accepted"], true);
    assert_eq!(verdicts[0]["pods"], json!(["default/good"]));
    assert_eq!(verdicts[1]["accepted"], false);
    let diagnostic = &verdicts[1]["diagnostics"][0];
    assert_eq!((&diagnostic["line"], &diagnostic["column"]), (&json!(9), &json!(5)));
    let missing = node.mainstay(&["check", &at("nothing.yaml")]).failure(1);
    assert!(missing.contains("nothing.yaml"), "{missing}");
    // None of it needs an instance, nor makes one.
    assert!(!node.path("run").exists());
}

#[test]
fn logs_are_those_of_the_container_before_and_after_restarts() {
    let Some(mut node) = Node::start() else { return };
    let once = pod("web").with_host_directory(&node.host()).set("spec.restartPolicy", "OnFailure");
    let script = "n=$(ls /host | grep -c run); touch /host/run$n
        for i in 1 2 3; do echo run $n line $i; done; echo end of $n >&2
        [ $n = 0 ] && exit 1; until [ -e /host/go ]; do sleep 0.02; done; echo bye";
    node.put("web.yaml", &once.exactly(script));
    let logs = |node: &Node, arguments: &[&str]| {
        node.mainstay(&[&["logs", "web"], arguments].concat()).success()
    };
    let all = "run 1 line 1\nrun 1 line 2\nrun 1 line 3\n";
    wait_for(|| {
        let told = node.mainstay(&["logs", "web"]);
        (told.stdout.contains("run 1 line 3") && told.stdout.contains("end of 1")).then_some(())
    })
    .unwrap();
    // Output and errors are written by their own ways, so that only each of them is in order.
    let output = |text: &str| text.replace("end of 1\n", "").replace("end of 0\n", "");
    assert_eq!(output(&logs(&node, &[])), all);
    assert_eq!(output(&logs(&node, &["--previous"])), all.replace("run 1", "run 0"));
    assert_eq!(logs(&node, &["--tail=2"]).lines().count(), 2);
    assert_eq!(logs(&node, &["--tail=0"]), "");
    assert_eq!(output(&logs(&node, &["--since=1h"])), all);
    assert_eq!(logs(&node, &["--since-time=2999-01-01T00:00:00Z"]), "");
    for line in logs(&node, &["--timestamps"]).lines() {
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{line}");
    }
    // One that follows ends with the container, and so it does without an agent.
    let follow = |node: &Node| {
        let mut command = node.command(&["logs", "-f", "web"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let first = follow(&node);
    node.kill();
    let second = follow(&node);
    fs::write(node.host().join("go"), "").unwrap();
    for follower in [first, second] {
        let output = follower.wait_with_output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().ends_with("bye\n"));
    }
    assert!(logs(&node, &[]).ends_with("bye\n"));
    node.launch();
    node.wait_for_state("web", "Completed");
    assert!(logs(&node, &[]).ends_with("bye\n"));

    let missing = node.mainstay(&["logs", "nothing"]).failure(1);
    assert!(missing.contains("there is no pod nothing"), "{missing}");
    let missing = node.mainstay(&["logs", "web", "-c", "nothing"]).failure(1);
    assert!(missing.contains("main"), "{missing}");
}

#[test]
fn rotated_logs_are_read_as_one() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("containerLogMaxSize: 1Ki\ncontainerLogMaxFiles: 5");
    node.launch();
    let script = "seq 1 100; until [ -e /host/go ]; do sleep 0.02; done; seq 101 200";
    let web = pod("web").with_host_directory(&node.host());
    node.put("web.yaml", &web.script(script));
    let uid = node.wait_for_running("web").uid;
    let directory = node.path(&format!("root/log/pods/default_web-n1_{uid}/main"));
    wait_for(|| (fs::read_dir(&directory).unwrap().count() > 1).then_some(())).unwrap();
    fs::write(node.host().join("go"), "").unwrap();
    wait_for(|| node.mainstay(&["logs", "web"]).stdout.contains("\n200\n").then_some(())).unwrap();
    let expected: String = (1..=200).map(|number| format!("{number}\n")).collect();
    assert_eq!(node.mainstay(&["logs", "web"]).success(), expected);
    let expected: String = (51..=200).map(|number| format!("{number}\n")).collect();
    assert_eq!(node.mainstay(&["logs", "web", "--tail=150"]).success(), expected);
}

/// A container that writes as fast as it can while its log is rotated again and again.
#[test]
fn no_line_is_lost_or_told_twice_when_logs_are_rotated_under_load() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure(
        "containerLogMaxSize: 16Ki\ncontainerLogMaxFiles: 1000\ncontainerLogMonitorInterval: 3s",
    );
    node.launch();
    let script = "i=0; until [ -e /host/enough ]; do for _ in $(seq 500); do i=$((i+1)); echo $i; \
                  done; done; echo $i > /host/count";
    node.put("web.yaml", &pod("web").with_host_directory(&node.host()).script(script));
    let uid = node.wait_for_running("web").uid;
    // Somebody reads along, until the pod ends.
    let followed = node.path("followed");
    let mut follower = node.command(&["logs", "-f", "web"]);
    let mut follower = follower.stdout(fs::File::create(&followed).unwrap()).spawn().unwrap();
    let directory = node.path(&format!("root/log/pods/default_web-n1_{uid}/main"));
    let rotated = || fs::read_dir(&directory).unwrap().count() - 1;
    assert!(wait_for(|| (rotated() >= 3).then_some(())).is_some(), "{}", node.log());
    fs::write(node.host().join("enough"), "").unwrap();
    let count: usize = node.wait_for_told("count", 1)[0].parse().unwrap();
    let last = ["logs", "web", "--tail=1"];
    let is_written = || node.mainstay(&last).stdout == format!("{count}\n");
    assert!(wait_for(|| is_written().then_some(())).is_some(), "{}", node.mainstay(&last).stdout);
    // One line at a time: all of them are too many to be shown when one is wrong.
    let check = |place: &str, line: &str, number: &mut usize| {
        *number += 1;
        assert_eq!(line, number.to_string(), "{place}");
    };
    let end = format!("\n{count}\n");
    let is_whole = || fs::read_to_string(&followed).unwrap().ends_with(&end).then_some(());
    assert!(wait_for(is_whole).is_some(), "whoever follows does not hear of the last line");
    follower.kill().unwrap();
    follower.wait().unwrap();
    let read = node.mainstay(&["logs", "web"]).success();
    for (how, text) in [("followed", fs::read_to_string(&followed).unwrap()), ("read", read)] {
        let mut told = 0;
        text.lines().for_each(|line| check(how, line, &mut told));
        assert_eq!(told, count, "{how}");
    }
    // So it is for whoever reads the files, once nobody renames them any more.
    node.terminate();
    let mut files: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).collect();
    // Those of before have longer names, and end in times.
    files.sort_by_key(|file| (file.extension().is_some_and(|it| it == "log"), file.clone()));
    let (mut written, mut line) = (0, String::new());
    for file in files {
        let (text, place) = (fs::read_to_string(&file).unwrap(), file.to_str().unwrap());
        assert!(text.is_empty() || text.ends_with('\n'), "{place} ends within a line");
        for entry in text.lines() {
            // The time, the stream, whether the line ends here, and what of it. Source: the CRI's format.
            let [_, "stdout", tag, part] = entry.splitn(4, ' ').collect::<Vec<_>>()[..] else {
                panic!("{place}: {entry}")
            };
            line.push_str(part);
            if tag == "F" {
                check(place, &std::mem::take(&mut line), &mut written);
            }
        }
    }
    assert_eq!(written, count);
}

#[test]
fn those_who_collect_logs_find_that_of_each_run_by_its_name() {
    let Some(mut node) = Node::start() else { return };
    let script =
        "echo start >> /host/web; wc -l < /host/web; until [ -e /host/go ]; do sleep 0.02; done";
    node.put("web.yaml", &pod("web").with_host_directory(&node.host()).exactly(script));
    let containers = node.path("root/log/containers");
    let collected = || -> Vec<String> {
        let links = fs::read_dir(&containers).into_iter().flatten();
        let mut logs: Vec<String> = links
            .filter_map(|link| {
                let name = link.ok()?.file_name().into_string().ok()?;
                name.strip_prefix("web-n1_default_main-")?.strip_suffix(".log")?;
                fs::read_to_string(containers.join(name)).ok()
            })
            .collect();
        logs.sort();
        logs
    };
    let says = |run: u32| {
        let line = format!(" stdout F {run}\n");
        wait_for(|| collected().iter().any(|log| log.ends_with(&line)).then_some(()))
    };
    assert!(says(1).is_some(), "{:?}", collected());
    fs::write(node.host().join("go"), "").unwrap();
    assert!(says(2).is_some(), "{:?}", collected());
    assert!(collected().len() >= 2);
    // They go with the logs, by whatever agent.
    node.kill();
    node.take("web.yaml");
    node.launch();
    node.wait_for_gone("web");
    assert!(fs::read_dir(&containers).unwrap().next().is_none());
}

#[test]
fn exec_passes_on_input_output_and_how_the_command_ended() {
    let Some(mut node) = Node::start() else { return };
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    let exec =
        |node: &Node, command: &[&str]| node.mainstay(&[&["exec", "web", "--"], command].concat());
    let told = exec(&node, &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((told.status.code(), &*told.stdout, &*told.stderr), (Some(7), "out\n", "err\n"));
    assert_eq!(exec(&node, &["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    // For containerd this is its own failure.
    let code = if node.is_on_containerd() { 1 } else { 126 };
    for missing in ["no-such-program", "/no/such/program", "/etc/hosts"] {
        let told = exec(&node, &[missing]).failure(code);
        assert!(told.contains(missing), "{told}");
    }
    // Input, also more than a pipe holds.
    let input: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    let mut command = node.command(&["exec", "-i", "web", "--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = {
        let input = input.clone();
        std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap())
    };
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap() == input);
    // Without -i there is none.
    assert_eq!(exec(&node, &["cat"]).success(), "");
    for (arguments, why) in [
        (["exec", "nothing", "--", "true"].as_slice(), "there is no pod nothing"),
        (&["exec", "web", "-c", "nothing", "--", "true"], "nothing"),
    ] {
        let told = node.mainstay(arguments).failure(1);
        assert!(told.contains(why), "{told}");
    }
    node.kill();
    assert_eq!(exec(&node, &["echo", "still"]).success(), "still\n");
    // Nothing of it outlives it.
    assert_eq!(exec(&node, &["sh", "-c", "ps -o comm | grep -c sleep"]).success(), "1\n");
}

#[test]
fn down_stops_everything_and_the_next_run_goes_on_from_there() {
    let Some(mut node) = Node::start() else { return };
    let image = node.path("mine.tar");
    Image::busybox().docker_archive("local/mine:1", &image);
    node.import(&image);
    let script = "trap 'echo asked >> /host/web; exit' TERM; echo up >> /host/web
        sleep infinity & wait";
    let web = pod("web").with_host_directory(&node.host()).main("image", "local/mine:1");
    node.put("web.yaml", &web.exactly(script).set("spec.hostNetwork", false));
    let left = |node: &Node| {
        node.left().into_iter().filter(|thing| thing != "directory root").collect::<Vec<_>>()
    };
    for round in 1..=3 {
        node.wait_for_told("web", 2 * round - 1);
        node.wait_for_running("web");
        // With an agent, and with none.
        if round == 2 {
            node.kill();
        }
        node.mainstay(&["down"]).success();
        if round != 2 {
            node.terminated();
        }
        assert_eq!(node.told("web").len(), 2 * round);
        assert_eq!(left(&node), [""; 0]);
        // And once more.
        node.mainstay(&["down"]).success();
        if round != 3 {
            node.launch();
        }
    }
    assert!(node.images().contains("local/mine"));
    node.mainstay(&["down", "--purge"]).success();
    assert!(!node.path("root").exists());
    let nothing = node.mainstay(&["down", "--purge"]).success();
    assert!(nothing.contains("nothing of"), "{nothing}");
    // Manifests are the operator's.
    assert!(node.manifests().join("web.yaml").exists());
}

#[test]
fn restart_ends_a_pod_in_its_way_and_starts_it_anew() {
    let Some(mut node) = Node::start() else { return };
    let script = "trap 'echo asked >> /host/web; exit' TERM; echo up >> /host/web
        sleep infinity & wait";
    node.put("web.yaml", &pod("web").with_host_directory(&node.host()).exactly(script));
    let before = node.wait_for_running("web");
    node.wait_for_told("web", 1);
    let told = node.mainstay(&["restart", "web"]).success();
    assert!(told.contains("default/web-n1"), "{told}");
    node.wait_for_told("web", 3);
    let after = node.wait_for_running("web");
    assert_eq!(node.told("web"), ["up", "asked", "up"]);
    assert_ne!(after.id(), before.id());
    let missing = node.mainstay(&["restart", "nothing"]).failure(1);
    assert!(missing.contains("there is no pod nothing"), "{missing}");
    node.kill();
    let nobody = node.mainstay(&["restart", "web"]).failure(1);
    assert!(nobody.contains("no agent runs"), "{nobody}");
}

#[test]
fn every_command_explains_itself() {
    let Some(node) = Node::prepare() else { return };
    let help = node.mainstay(&["--help"]).success();
    for command in
        ["run", "check", "status", "logs", "exec", "restart", "image", "down", "completion"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let help = node.mainstay(&[command, "--help"]).success();
        assert!(help.contains("Usage: mainstay"), "{help}");
    }
    assert!(node.mainstay(&["--version"]).success().starts_with("mainstay "));
    let script = node.mainstay(&["completion", "bash"]).success();
    let mut bash = crate::program::command("bash");
    crate::program::run(bash.args(["-c", &script])).success();
    assert!(script.contains("--pod-manifest-path"));
    for wrong in [&["dance"][..], &["exec", "web"], &["run", "--no-such-flag"], &[]] {
        let told = node.mainstay(wrong).failure(2);
        assert!(told.contains("Usage"), "{told}");
    }
}
