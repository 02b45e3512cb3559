//! The embedded runtime as clients of the CRI have it: crictl, a kubelet, another mainstay.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, iter};

use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::Api;
use mainstay_cri::{ContainerState, NamespaceMode, PodSandboxFilter, Runtime};
use mainstay_cri_grpc::{REQUEST_TIMEOUT, RemoteConfig, RemoteRuntime};
use mainstay_testkit::contract::{self, Sample};
use tokio::io::AsyncReadExt;

use crate::kube_rs::with_client;
use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};
use crate::security::run_images_with_groups;

fn socket(node: &Node) -> PathBuf {
    node.path("run/cri.sock")
}

/// A client of a node's runtime.
fn client(node: &Node) -> RemoteRuntime {
    RemoteRuntime::new(RemoteConfig {
        socket: socket(node),
        mark: ("client".to_owned(), "this".to_owned()),
        sub_paths: node.path("sub-paths"),
        timeout: REQUEST_TIMEOUT,
    })
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work);
}

/// A running node that has its image, which it imports when it is started.
fn start() -> Option<Node> {
    let node = Node::start()?;
    node.put("first.yaml", &pod("first"));
    node.wait_for_running("first");
    Some(node)
}

/// Tells in a file how often it was started, and that it goes on.
fn lasting(node: &Node, name: &str) -> Manifest {
    let script = format!(
        "echo start >> /host/{name}; (while :; do echo beat >> /host/{name}.beats; sleep 0.1; done) &"
    );
    pod(name).with_host_directory(&node.host()).script(&script)
}

/// Another agent, whose pods a node's runtime runs.
fn above(node: &Node) -> Node {
    let mut above = Node::prepare().unwrap();
    above.name = "n2".to_owned();
    let endpoint = format!("--container-runtime-endpoint=unix://{}", socket(node).display());
    above.arguments.push(endpoint);
    above
}

#[test]
fn the_contract_is_kept_through_the_socket_of_an_agent() {
    let Some(node) = start() else { return };
    let client = client(&node);
    run(async {
        let sample = |name: &str| Sample::new(name, &node.path("client-logs").join(name));
        contract::stats(&client, &sample("stats")).await;
        contract::streams(&client, &sample("streams")).await;
        contract::terminals(&client, &sample("terminals")).await;
        contract::updates(&client, &sample("updates")).await;
        contract::late_updates(&client, &sample("late")).await;
        assert_eq!(client.list_pod_sandboxes(&PodSandboxFilter::default()).await.unwrap(), []);
    });
}

#[test]
fn another_agent_runs_its_pods_here_and_both_leave_the_others_alone() {
    let Some(mut below) = Node::start() else { return };
    let mut above = above(&below);
    above.launch();
    below.put("own.yaml", &lasting(&below, "own"));
    let own = below.wait_for_running("own");
    let script = "while :; do echo pong | nc -l -p 7000; done & echo hello; echo a > /host/web";
    let web = pod("web").with_host_directory(&above.host()).set("spec.hostNetwork", false);
    above.put("web.yaml", &web.script(script));
    above.put("beats.yaml", &lasting(&above, "beats"));
    let web = above.wait_for_running("web");
    let beats = above.wait_for_running("beats");
    above.wait_for_told("web", 1);
    assert_eq!(above.sh("web", "main", "echo $((1 + 1)); hostname"), "2\nweb-n2\n");
    above.wait_for_said("web", "hello\n");
    with_client(&above, |client| async move {
        let pods: Api<KubePod> = Api::default_namespaced(client);
        let connected = async || {
            let mut forwarder = pods.portforward("web-n2", &[7000]).await.unwrap();
            let mut stream = forwarder.take_stream(7000).unwrap();
            let mut text = String::new();
            // Nobody may listen yet.
            let _ = stream.read_to_string(&mut text).await;
            text
        };
        while connected().await != "pong\n" {
            tokio::task::yield_now().await;
        }
    });
    assert!(below.status().pod("web").is_none() && below.status().pod("beats").is_none());
    assert!(above.status().pod("own").is_none());
    // The users and groups of images are what they are beside.
    run_images_with_groups(&above, &below);
    // A client is shown what both have, with all that belongs to it.
    run(async {
        let everybodys = RemoteRuntime::new(RemoteConfig {
            socket: socket(&below),
            mark: ("io.kubernetes.pod.namespace".to_owned(), "default".to_owned()),
            sub_paths: below.path("sub-paths"),
            timeout: REQUEST_TIMEOUT,
        });
        let all = everybodys.list_pod_sandboxes(&PodSandboxFilter::default()).await.unwrap();
        let mut names: Vec<_> = all.iter().map(|it| it.metadata.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["beats-n2", "own-n1", "web-n2"]);
    });

    // An agent that ends, however, takes nobody's pods along.
    below.kill();
    let count = above.told("beats.beats").len();
    above.wait_for_told("beats.beats", count + 3);
    below.launch();
    let after = above.wait_for_running("beats");
    assert_eq!(after.container("main"), beats.container("main"));
    assert_eq!(above.wait_for_running("web").container("main"), web.container("main"));
    assert_eq!(below.wait_for_running("own").container("main"), own.container("main"));
    assert_eq!(above.told("beats"), ["start"]);
    // What is asked for later is done by the one that came back.
    above.put("next.yaml", &lasting(&above, "next"));
    above.wait_for_running("next");
    for name in ["web", "beats", "next"] {
        above.take(&format!("{name}.yaml"));
        above.wait_for_gone(name);
    }
    assert_eq!(below.wait_for_running("own").container("main"), own.container("main"));
}

#[test]
fn with_the_instance_go_the_pods_of_its_clients() {
    let Some(mut node) = start() else { return };
    let client = client(&node);
    run(async {
        let mut sample = Sample::new("left", &node.path("client-logs"));
        sample.sandbox.security_context.namespaces.network = NamespaceMode::Pod;
        // No logs, and the runtime's own choice of a control group.
        sample.sandbox.log_directory = String::new();
        let config = sample.container("main");
        let sandbox = client.run_pod_sandbox(&sample.sandbox).await.unwrap();
        let id = client.create_container(&sandbox, &config, &sample.sandbox).await.unwrap();
        client.start_container(&id).await.unwrap();
        let status = client.container_status(&id).await.unwrap();
        assert!(matches!(status.state, ContainerState::Running { .. }), "{status:?}");
        assert_eq!(status.log_path, "");
    });
    assert!(node.status().pod("left").is_none());
    node.mainstay(&["down", "--purge"]).success();
    node.terminated();
    assert_eq!(node.left(), [""; 0]);
}

#[test]
fn the_socket_is_roots_and_garbage_on_it_costs_nothing_else() {
    let Some(node) = Node::start() else { return };
    let metadata = fs::metadata(socket(&node)).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    // Some say nothing for as long as this takes.
    let silent: Vec<_> =
        iter::repeat_with(|| UnixStream::connect(socket(&node)).unwrap()).take(100).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for garbage in [&b"GET /healthz HTTP/1.1\r\n\r\n"[..], &[0xff; 1 << 16], preface, b"\0"] {
        let mut stream = UnixStream::connect(socket(&node)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // It may be hung up on before it has said it all.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let client = client(&node);
    run(async { assert_eq!(client.version().await.unwrap().runtime_name, "mainstay") });
    node.put("web.yaml", &pod("web").script("echo a"));
    node.wait_for_running("web");
    drop(silent);
    assert!(wait_for(|| node.status().agent.then_some(())).is_some());
}
