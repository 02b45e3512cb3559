//! What goes wrong is told once, with its name and its place, and harms nothing else.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::json;

use crate::http;
use crate::image::Image;
use crate::manifest::pod;
use crate::node::{Node, Status};

/// What is wrong with a pod.
pub(crate) fn problem(status: &Status, name: &str) -> String {
    status.pod(name).and_then(|pod| pod.problem.clone()).unwrap_or_default()
}

/// Waits until something with these words is wrong with a pod.
#[track_caller]
pub(crate) fn wait_for_problem(node: &Node, name: &str, words: &[&str]) -> Status {
    node.wait_until(&format!("{name} has a problem with {words:?}"), |status| {
        words.iter().all(|word| problem(status, name).contains(word))
    })
}

/// The lines of the log with this word that are no details for developers.
fn logged(node: &Node, word: &str) -> Vec<String> {
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains(word) && !line.contains(" DEBUG "));
    lines.map(str::to_owned).collect()
}

/// A pod of which the agent hears only now runs.
#[track_caller]
fn fence(node: &Node, name: &str) {
    node.put(&format!("{name}.yaml"), &pod(name));
    node.wait_for_running(name);
}

#[test]
fn an_image_that_is_not_there_is_told_once_and_waited_for() {
    let Some(node) = Node::start() else { return };
    let web = pod("web").main("image", "local/late:1").main("imagePullPolicy", "Never");
    node.put("web.yaml", &web);
    wait_for_problem(&node, "web", &["local/late:1", "import it with"]);
    fence(&node, "other");
    assert_eq!(logged(&node, "local/late:1").len(), 1, "{:#?}", logged(&node, "local/late:1"));
    let image = node.path("late.tar");
    Image::busybox().docker_archive("local/late:1", &image);
    node.import(&image);
    node.wait_for_running("web");
    // It counts from now on, whatever there was before.
    node.wait_until("nothing is wrong", |status| problem(status, "web").is_empty());
}

#[test]
fn a_file_that_is_no_image_is_named_and_harms_no_other() {
    let Some(node) = Node::start() else { return };
    if node.skips_on_containerd("a directory for files of images") {
        return;
    }
    let at = |name: &str| node.path(&format!("root/images/{name}"));
    fs::write(at("garbage.tar"), "this is no archive at all, and long enough\n".repeat(50))
        .unwrap();
    fs::write(at("empty.tar"), "").unwrap();
    let half = node.path("half.tar");
    Image::busybox().docker_archive("local/half:1", &half);
    let bytes = fs::read(&half).unwrap();
    fs::write(at("half.tar"), &bytes[..bytes.len() / 2]).unwrap();
    fence(&node, "web");
    let names = ["garbage.tar", "empty.tar", "half.tar"];
    let told = |status: &Status| {
        let condition = status.runtime.iter().find(|it| it.kind == "ImagesReady");
        condition.map_or(String::new(), |it| it.message.clone())
    };
    node.wait_until("all are named", |status| names.iter().all(|name| told(status).contains(name)));
    assert_eq!(node.mainstay(&["status"]).status.code(), Some(1));
    for name in names {
        let refused = node.mainstay(&["image", "import", at(name).to_str().unwrap()]).failure(1);
        assert!(refused.contains(name), "{refused}");
    }
    assert!(!node.mainstay(&["image", "ls"]).success().contains("half"));
    // The rest of it comes.
    fs::write(at("half.tar"), bytes).unwrap();
    fs::remove_file(at("garbage.tar")).unwrap();
    fs::remove_file(at("empty.tar")).unwrap();
    node.wait_until("nothing is wrong", |status| told(status).is_empty());
    node.put("half.yaml", &pod("half").main("image", "local/half:1"));
    node.wait_for_running("half");
}

/// A small file system in memory, for as long as this lives.
pub(crate) struct Small(PathBuf);

impl Small {
    pub(crate) fn mount(place: PathBuf, bytes: u64) -> Self {
        fs::create_dir_all(&place).unwrap();
        mainstay_linux::mount::tmpfs(&place, Some(bytes), 0o755).unwrap();
        Self(place)
    }

    /// Has an instance that has not run yet keep all that it keeps in one.
    pub(crate) fn below(node: &Node, bytes: u64) -> Self {
        let images = node.path("root/images/busybox.tar");
        let image = fs::read_link(&images).unwrap();
        fs::remove_file(&images).unwrap();
        let small = Self::mount(node.path("root"), bytes);
        fs::create_dir_all(node.path("root/images")).unwrap();
        node.provide(&image);
        small
    }

    /// Leaves no room in it, and returns the file to remove for that.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        let block = vec![0; 4096];
        while file.write_all(&block).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // When a test fails its node still has pods in it, which the node ends before it unmounts all.
        if !std::thread::panicking() {
            mainstay_linux::mount::detach(&self.0).unwrap();
        }
    }
}

#[test]
fn a_full_disk_keeps_new_pods_from_starting_and_old_ones_running() {
    let Some(mut node) = Node::prepare() else { return };
    let small = Small::below(&node, 64 << 20);
    node.launch();
    node.put("old.yaml", &pod("old").with_host_directory(&node.host()));
    let old = node.wait_for_running("old");
    let ballast = small.fill();
    node.put("new.yaml", &pod("new"));
    let status = wait_for_problem(&node, "new", &["No space left on device"]);
    assert!(problem(&status, "new").contains(node.path("root").to_str().unwrap()));
    // Whoever wants to know gets to know, and commands work.
    node.mainstay(&["exec", "old", "--", "true"]).success();
    assert_eq!(status.pod("old").unwrap().id(), old.id());
    // An image does not fit either, and nothing of it stays.
    let more = node.path("more.tar");
    Image::busybox().with_file("big", &"x".repeat(8 << 20)).docker_archive("local/more:1", &more);
    if !node.skips_on_containerd("images on the disk of the root directory") {
        let refused = node.mainstay(&["image", "import", more.to_str().unwrap()]).failure(1);
        assert!(refused.contains("full") || refused.contains("No space left"), "{refused}");
        assert!(!node.mainstay(&["image", "ls"]).success().contains("local/more"));
    }
    // A manifest is still obeyed.
    node.take("old.yaml");
    node.wait_for_gone("old");
    fs::remove_file(ballast).unwrap();
    node.wait_for_running("new");
    node.import(&more);
    node.mainstay(&["down"]).success();
    node.terminated();
}

#[test]
fn directories_that_cannot_be_written_are_named_once_and_used_when_they_can() {
    let Some(mut node) = Node::prepare() else { return };
    for (name, place) in [("logs", "root/log"), ("pods", "root/pods")] {
        // Something else is in its place, against which not even root can do anything.
        let place = node.path(place);
        match fs::remove_dir_all(&place) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
        fs::write(&place, "").unwrap();
        node.launch();
        node.put(&format!("{name}.yaml"), &pod(name));
        wait_for_problem(&node, name, &[place.to_str().unwrap()]);
        // It has been tried again by then.
        node.wait_until("it was tried again", |status| {
            let pod = status.pod(name).unwrap();
            pod.events.iter().any(|event| event.kind == "Warning" && event.count >= 2)
        });
        let said = logged(&node, place.to_str().unwrap());
        let mut messages: Vec<_> = said.iter().filter_map(|line| line.split_once("Z ")).collect();
        messages.sort_by_key(|(_, message)| *message);
        messages.dedup_by_key(|(_, message)| *message);
        assert_eq!(messages.len(), said.len(), "{said:#?}");
        fs::remove_file(&place).unwrap();
        node.wait_for_running(name);
        node.take(&format!("{name}.yaml"));
        node.wait_for_gone(name);
        node.terminate();
    }
}

#[test]
fn a_port_that_somebody_has_is_named() {
    let Some(node) = Node::start() else { return };
    if node.skips_on_containerd("ports of the host in a network without the plugin portmap") {
        return;
    }
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ports = json!([{ "containerPort": 80, "hostPort": port }]);
    let server = |name: &str| {
        let server = pod(name).set("spec.hostNetwork", false).main("ports", ports.clone());
        let server = server.set("spec.terminationGracePeriodSeconds", 0);
        server.exactly(&format!("echo {name} > /index.html; exec httpd -f -p 80 -h /"))
    };
    node.put("a.yaml", &server("a"));
    let port_text = port.to_string();
    let told = |status: &Status| {
        let by_pod = problem(status, "a").contains(&port_text);
        by_pod || status.runtime.iter().any(|it| it.message.contains(&port_text))
    };
    node.wait_until("the port is told", |status| told(status));
    fence(&node, "other");
    drop(listener);
    node.wait_for_running("a");
    let get = || http::get(([127, 0, 0, 1], port).into()).unwrap_or_default();
    crate::node::wait_for(|| get().ends_with("a\n").then_some(())).unwrap();

    // Another pod wants the same one: it has it when the first one has gone.
    node.put("b.yaml", &server("b"));
    let status = wait_for_problem(&node, "b", &[&port_text]);
    assert!(status.pod("a").unwrap().runs());
    assert!(get().ends_with("a\n"));
    node.take("a.yaml");
    node.wait_for_running("b");
    crate::node::wait_for(|| get().ends_with("b\n").then_some(())).unwrap();
}

#[test]
fn a_program_that_cannot_have_its_port_says_so_and_is_started_again() {
    let Some(node) = Node::start() else { return };
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    node.put("web.yaml", &pod("web").exactly(&format!("exec httpd -f -p {port}")));
    node.wait_until("it fails", |status| {
        let pod = status.pod("web");
        pod.is_some_and(|pod| pod.state == "CrashLoopBackOff" && pod.restarts >= 1)
    });
    let told = node.mainstay(&["logs", "web", "--previous"]).success();
    assert!(told.contains("Address already in use"), "{told}");
    fence(&node, "other");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let Some(node) = Node::start() else { return };
    let web = pod("web").main("command", json!(["/no/such/program"]));
    node.put("web.yaml", &web.set("spec.restartPolicy", "Never"));
    node.wait_until("it has failed", |status| status.state("web") == "StartError");
    let status = node.status();
    let web = status.pod("web").unwrap();
    let end = web.container("main").state.clone().unwrap().terminated.unwrap();
    assert_eq!(end.exit_code, 128);
    assert!(end.message.unwrap().contains("/no/such/program"));
    fence(&node, "other");
}
