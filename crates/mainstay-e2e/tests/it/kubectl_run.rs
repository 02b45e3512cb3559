//! What `kubectl run NAME --image=IMAGE --dry-run=client -o yaml` writes, as it is.
//!
//! The fixtures were written so by kubectl 1.20.2, of Debian 12, and 1.32.4; a file is called like
//! its pod.

use std::net::SocketAddr;

use mainstay_testkit::tools;

use crate::http::get;
use crate::image::Image;
use crate::node::{Node, Pod, wait_for};

/// With `--image=local/nginx:1`.
const TAGGED: [(&str, &str); 2] = [
    ("tagged-1-20", include_str!("kubectl_run/tagged-1-20.yaml")),
    ("tagged-1-32", include_str!("kubectl_run/tagged-1-32.yaml")),
];

/// With `--image=local/web:latest`.
const LATEST: [(&str, &str); 2] = [
    ("latest-1-20", include_str!("kubectl_run/latest-1-20.yaml")),
    ("latest-1-32", include_str!("kubectl_run/latest-1-32.yaml")),
];

/// Waits until a pod answers as nginx does, and nothing is wrong with it.
fn wait_for_page(node: &Node, name: &str) -> Pod {
    node.wait_for_running(name);
    // Its address is another one after its machine started again.
    let answer = wait_for(|| {
        let pod_ip = node.status().pod(name)?.status.pod_ip.clone()?;
        get(SocketAddr::new(pod_ip.parse().unwrap(), 80)).ok()
    });
    let answer = answer.unwrap_or_else(|| panic!("{name} does not answer"));
    assert!(answer.contains("Welcome to nginx!"), "{answer}");
    node.status().pod(name).unwrap().clone()
}

/// Nothing is said about a pod, nor about anything else.
fn assert_nothing_to_say(node: &Node, name: &str) {
    let status = node.status();
    let pod = status.pod(name).unwrap();
    assert_eq!((&pod.problem, &pod.warning), (&None, &None));
    assert!(pod.events.iter().all(|event| event.kind == "Normal"), "{:#?}", pod.events);
    assert!(status.manifests.is_empty(), "{:#?}", status.manifests);
    assert!(!node.log().contains(" WARN "), "{}", node.log());
    node.mainstay(&["status"]).success();
}

#[test]
fn what_kubectl_run_writes_runs_unchanged_and_without_a_warning() {
    let Some(mut node) = Node::prepare() else { return };
    node.provide(&tools::image("nginx"));
    node.launch();
    for (name, text) in TAGGED {
        let file = format!("{name}.yaml");
        node.put(&file, &text);
        wait_for_page(&node, name);
        assert_nothing_to_say(&node, name);
        let checked = node.mainstay(&["check", node.manifests().join(&file).to_str().unwrap()]);
        assert!(!checked.success().contains("warning"));
    }
}

/// Where the image comes from, of which no registry knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// A file that is there to be imported.
    Directory,
    /// A command.
    Import,
}

fn latest_runs_without_a_registry(from: From) {
    let Some(mut node) = Node::prepare() else { return };
    let file = match from {
        From::Directory => node.path("root/images/web.tar"),
        From::Import => node.path("web.tar"),
    };
    Image::of("nginx").docker_archive("local/web:latest", &file);
    if from == From::Import {
        node.import(&file);
    }
    node.launch();
    for (name, text) in LATEST {
        node.put(&format!("{name}.yaml"), &text);
    }
    let before = LATEST.map(|(name, _)| wait_for_page(&node, name));
    node.cut_power();
    node.launch();
    let after = LATEST.map(|(name, _)| wait_for_page(&node, name));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.uid, after.uid);
        // containerd does not know where an image came from.
        let is_told = from == From::Import || node.is_on_containerd();
        assert_eq!(after.warning.is_some(), is_told, "{after:#?}");
    }
}

#[test]
fn latest_from_a_file_runs_without_a_registry_also_after_a_reboot() {
    latest_runs_without_a_registry(From::Directory);
}

#[test]
fn latest_that_was_imported_runs_without_a_registry_also_after_a_reboot() {
    latest_runs_without_a_registry(From::Import);
}
