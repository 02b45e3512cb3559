//! The API over real connections, on a runtime without processes.

use std::net::Ipv4Addr;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use mainstay_cri::{ContainerId, ImageSpec, Runtime, SandboxId};
use mainstay_plan::pod::{PodKey, SourceKind};
use mainstay_testkit::contract::Sample;
use mainstay_testkit::runtime::{FakeRuntime, Stream};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::health::{Check, Health};
use super::pods::{NodePod, Pods};
use super::*;
use crate::probe::Counts;
use crate::publish::PodReport;

/// Pods that a test gives.
#[derive(Default)]
struct Given(Mutex<Vec<NodePod>>);

impl Pods for Given {
    fn list(&self) -> Vec<NodePod> {
        self.0.lock().unwrap().clone()
    }

    fn find(&self, namespace: &str, name: &str) -> Option<NodePod> {
        let is = |pod: &NodePod| pod.key().namespace == namespace && pod.key().name == name;
        self.list().into_iter().find(is)
    }

    fn mirrors(&self) -> Option<usize> {
        Some(1)
    }
}

struct Well;

impl Health for Well {
    fn checks(&self) -> Vec<Check> {
        vec![Check { name: "ping", failure: None }]
    }
}

/// Lets `token` do what its user may.
struct Tokens;

#[async_trait]
impl NodeAuth for Tokens {
    async fn authenticate(
        &self,
        _certificates: Option<&[CertificateDer<'static>]>,
        bearer: Option<&str>,
    ) -> Result<User, Unauthenticated> {
        let name = bearer.ok_or_else(|| Unauthenticated("no token".to_owned()))?.to_owned();
        Ok(User { name, ..User::default() })
    }

    async fn authorize(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String> {
        match user.name.as_str() {
            "admin" => Ok(true),
            "metrics-reader" => Ok(verb == "get" && subresource == "metrics"),
            "broken" => Err("no rules".to_owned()),
            _ => Ok(false),
        }
    }
}

/// A node with one pod, `web-n1`, of which the container `main` runs.
struct Node {
    api: NodeApi,
    runtime: FakeRuntime,
    pods: Arc<Given>,
    main: ContainerId,
    _directory: tempfile::TempDir,
    tasks: Mutex<JoinSet<()>>,
}

struct Answer {
    status: StatusCode,
    body: String,
}

impl Node {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut mainstay_cri::ContainerConfig)) -> Self {
        Self::of(change, NodeApiSettings::default()).await
    }

    async fn of(
        change: impl FnOnce(&mut mainstay_cri::ContainerConfig),
        settings: NodeApiSettings,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::default();
        let (_, main, tty) = run(&runtime, directory.path(), change).await;
        let pods = Arc::new(Given::default());
        let web = pod(&runtime, &main, tty).await;
        pods.0.lock().unwrap().push(web);
        let api = NodeApi::new(Context {
            node_name: "n1".to_owned(),
            pods: pods.clone(),
            runtime: Arc::new(runtime.clone()),
            health: Arc::new(Well),
            auth: Arc::new(Tokens),
            probes: Counts::default(),
            settings,
            root_dir: "/".into(),
        });
        let tasks = Mutex::default();
        Self { api, runtime, pods, main, _directory: directory, tasks }
    }

    /// A connection to it.
    fn connect(&self) -> DuplexStream {
        let (here, there) = duplex(64 << 10);
        let api = self.api.clone();
        self.tasks.lock().unwrap().spawn(async move {
            api.serve_connection(there, None).await;
        });
        here
    }

    async fn ask(&self, token: &str, method: Method, path: &str) -> Answer {
        let io = TokioIo::new(self.connect());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        self.tasks.lock().unwrap().spawn(async move { drop(connection.await) });
        let request = Request::builder().method(method).uri(format!("http://n1{path}"));
        let request = match token {
            "" => request,
            token => request.header("authorization", format!("Bearer {token}")),
        };
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("admin", Method::GET, path).await
    }

    async fn check(&self, path: &str, status: u16, body: &str) {
        let got = self.get(path).await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (status, body), "{path}");
    }

    /// The head of the answer to a request for an upgrade, and the connection.
    async fn upgrade(&self, path: &str, protocol: &str) -> (String, DuplexStream) {
        let mut stream = self.connect();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: n1\r\nAuthorization: Bearer admin\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (String::from_utf8(head).unwrap(), stream)
    }
}

/// Runs the pod.
async fn run(
    runtime: &FakeRuntime,
    logs: &Path,
    change: impl FnOnce(&mut mainstay_cri::ContainerConfig),
) -> (SandboxId, ContainerId, bool) {
    let mut sample = Sample::new("web-n1", logs);
    for (label, value) in [("namespace", "default"), ("name", "web-n1"), ("uid", "web-n1-uid")] {
        let label = format!("io.kubernetes.pod.{label}");
        sample.sandbox.labels.insert(label, value.to_owned());
    }
    sample.image = ImageSpec("busybox".to_owned());
    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let mut config = sample.container("main");
    change(&mut config);
    let main = runtime.create_container(&sandbox, &config, &sample.sandbox).await.unwrap();
    runtime.start_container(&main).await.unwrap();
    (sandbox, main, config.tty)
}

async fn pod(runtime: &FakeRuntime, main: &ContainerId, tty: bool) -> NodePod {
    let running = matches!(
        runtime.container_status(main).await.unwrap().state,
        mainstay_cri::ContainerState::Running { .. }
    );
    let state = if running {
        json!({"running": {"startedAt": "2026-01-02T03:04:05Z"}})
    } else {
        json!({"terminated": {"exitCode": 0, "containerID": format!("mainstay://{main}")}})
    };
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web-n1", "namespace": "default", "uid": "web-n1-uid"},
        "spec": {"containers": [{"name": "main", "tty": tty}, {"name": "second"}]},
        "status": {"containerStatuses": [{
            "name": "main", "image": "busybox", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": format!("mainstay://{main}"), "state": state,
        }]},
    }))
    .unwrap();
    let status = pod.status.clone().unwrap();
    let key = PodKey {
        source: SourceKind::File,
        namespace: "default".to_owned(),
        name: "web-n1".to_owned(),
    };
    let report = Arc::new(PodReport {
        key,
        pod: Arc::new(mainstay_pod::Pod::from_api(pod).unwrap()),
        manifest: None,
        status: Arc::new(status),
        waiting: None,
        ending: Vec::new(),
        stopping: false,
        ended: false,
    });
    NodePod { report, mirror_uid: Some("mirror-uid".to_owned()), leaving: false }
}

#[tokio::test]
async fn nobody_gets_more_than_they_may() {
    let node = Node::start().await;
    let answer = node.ask("", Method::GET, "/pods").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (401, "Unauthorized"));
    let answer = node.ask("metrics-reader", Method::GET, "/pods").await;
    let text = "Forbidden (user=metrics-reader, verb=get, resource=nodes, \
                subresource(s)=[pods proxy])\n";
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (403, text));
    let answer = node.ask("broken", Method::POST, "/run/default/web-n1/main").await;
    let text = "Authorization error (user=broken, verb=create, resource=nodes, subresource=proxy)";
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (500, text));
    // What is not there is not told to whoever may not ask.
    assert_eq!(node.ask("nobody", Method::GET, "/nothing").await.status.as_u16(), 403);
    node.check("/nothing", 404, "404: Page Not Found").await;
    let answer = node.ask("admin", Method::PUT, "/pods").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (405, "405: Method Not Allowed"));
}

#[tokio::test]
async fn without_debugging_nobody_gets_into_pods() {
    let settings = NodeApiSettings { debugging: false, ..NodeApiSettings::default() };
    let node = Node::of(|_| {}, settings).await;
    for path in [
        "/runningpods/",
        "/containerLogs/default/web-n1/main",
        "/exec/default/web-n1/main",
        "/attach/default/web-n1/main",
        "/portForward/default/web-n1",
    ] {
        node.check(path, 405, "Debug endpoints are disabled.").await;
    }
    // That too is told only to whoever may ask.
    assert_eq!(node.ask("nobody", Method::GET, "/runningpods/").await.status.as_u16(), 403);
    node.check("/healthz", 200, "ok").await;
    assert_eq!(node.get("/pods").await.status.as_u16(), 200);
}

#[tokio::test]
async fn everybody_may_read_at_the_read_only_port_and_no_more() {
    let node = Node::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    node.tasks.lock().unwrap().spawn(serve_read_only(listener, node.api.clone()));
    for (path, status) in [
        ("/healthz", "200 OK"),
        ("/pods", "200 OK"),
        ("/metrics", "200 OK"),
        ("/configz", "404 Not Found"),
        ("/runningpods/", "404 Not Found"),
        ("/containerLogs/default/web-n1/main", "404 Not Found"),
        ("/exec/default/web-n1/main", "404 Not Found"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn pods_health_and_configuration_are_told() {
    let configuration = serde_json::json!({ "seccompDefault": true });
    let settings = NodeApiSettings { configuration, ..NodeApiSettings::default() };
    let node = Node::of(|_| {}, settings).await;
    node.check("/healthz", 200, "ok").await;
    node.check("/configz", 200, r#"{"kubeletconfig":{"seccompDefault":true}}"#).await;
    let pods: Value = serde_json::from_str(&node.get("/pods").await.body).unwrap();
    assert_eq!(pods["kind"], "PodList");
    assert_eq!(pods["items"][0]["metadata"]["name"], "web-n1");
    assert_eq!(pods["items"][0]["status"]["containerStatuses"][0]["name"], "main");
    let running: Value = serde_json::from_str(&node.get("/runningpods/").await.body).unwrap();
    let metadata = json!({"name": "web-n1", "namespace": "default", "uid": "web-n1-uid"});
    assert_eq!(running["items"][0]["metadata"], metadata);
    assert_eq!(running["items"][0]["spec"]["containers"][0]["name"], "main");
}

#[tokio::test]
async fn logs_are_read_and_refusals_have_the_words_of_the_kubelet() {
    let node = Node::start().await;
    node.runtime.write(&node.main, Stream::Stdout, b"one\ntwo\n");
    node.runtime.write(&node.main, Stream::Stderr, b"three\n");
    let path = "/containerLogs/default/web-n1/main";
    node.check(path, 200, "one\ntwo\nthree\n").await;
    node.check(&format!("{path}?tailLines=2"), 200, "two\nthree\n").await;
    node.check(&format!("{path}?limitBytes=5"), 200, "one\nt").await;
    node.check(&format!("{path}?stream=Stderr"), 200, "three\n").await;
    node.check(&format!("{path}?sinceTime=2999-01-01T00:00:00Z"), 200, "").await;
    let stamped = node.get(&format!("{path}?timestamps=true&tailLines=1")).await.body;
    assert!(stamped.ends_with("Z three\n"), "{stamped}");
    node.check(&format!("{path}?tailLines=x"), 400, r#"{"message": "Unable to decode query."}"#)
        .await;
    node.check(&format!("{path}?limitBytes=0"), 422, r#"{"message": "Invalid request."}"#).await;
    node.check(
        &format!("{path}?previous=true"),
        400,
        "previous terminated container \"main\" in pod \"web-n1\" not found",
    )
    .await;
    let logs = "/containerLogs/default";
    node.check(&format!("{logs}/other/main"), 404, "pod \"other\" does not exist").await;
    let text = "container \"x\" not found in pod \"web-n1\"";
    node.check(&format!("{logs}/web-n1/x"), 404, text).await;
    let text = "container \"second\" in pod \"web-n1\" is not available";
    node.check(&format!("{logs}/web-n1/second"), 400, text).await;
    node.runtime.remove_container(&node.main).await.unwrap();
    let text = format!("unable to retrieve container logs for fake://{}", node.main);
    node.check(path, 400, &text).await;
}

#[tokio::test]
async fn a_log_is_followed_until_its_container_ends() {
    let node = Node::start().await;
    node.runtime.write(&node.main, Stream::Stdout, b"before\n");
    let io = TokioIo::new(node.connect());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    node.tasks.lock().unwrap().spawn(async move { drop(connection.await) });
    let request = Request::get("/containerLogs/default/web-n1/main?follow=true")
        .header("authorization", "Bearer admin")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let mut next = async || body.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
    assert_eq!(next().await.unwrap(), "before\n");
    node.runtime.write(&node.main, Stream::Stdout, b"during\n");
    assert_eq!(next().await.unwrap(), "during\n");
    node.runtime.exit(&node.main, 0);
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_command_gets_its_streams_and_its_code_is_told() {
    let node = Node::start().await;
    let exec = "/exec/default/web-n1";
    let query = "output=1&error=1&command=fail&command=3&command=so";
    for path in [
        format!("{exec}/main?{query}"),
        format!("{exec}/web-n1-uid/main?{query}"),
        format!("{exec}/mirror-uid/main?{query}"),
    ] {
        let (head, mut stream) = node.upgrade(&path, "v4.channel.k8s.io").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(said(&mut stream, 2).await, "so\n");
        let status: Value = serde_json::from_str(&said(&mut stream, 3).await).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }
    let path = format!("{exec}/main?input=1&output=1&command=cat");
    let (_, mut stream) = node.upgrade(&path, "v5.channel.k8s.io").await;
    send(&mut stream, b"\0there").await;
    assert_eq!(said(&mut stream, 1).await, "there");
    // Version 5 can end its input.
    send(&mut stream, &[255, 0]).await;
    let status: Value = serde_json::from_str(&said(&mut stream, 3).await).unwrap();
    assert_eq!(status["status"], "Success");
    let path = format!("{exec}/main?output=1&tty=1&command=size");
    let (_, mut stream) = node.upgrade(&path, "v4.channel.k8s.io").await;
    send(&mut stream, b"\x04{\"Width\":80,\"Height\":24}").await;
    assert_eq!(said(&mut stream, 1).await, "80x24\n");
}

#[tokio::test]
async fn what_cannot_be_run_is_told_as_kubectl_shows_it() {
    let node = Node::start().await;
    let exec = "/exec/default/web-n1/main";
    let (_, mut stream) =
        node.upgrade(&format!("{exec}?output=1&command=nothere"), "v4.channel.k8s.io").await;
    let status: Value = serde_json::from_str(&said(&mut stream, 3).await).unwrap();
    assert_eq!(status["reason"], "InternalError");
    assert_eq!(
        status["message"],
        "Internal error occurred: error executing command in container: failed to exec in \
         container: cannot execute \"nothere\": executable file not found in $PATH"
    );
    node.check(
        &format!("{exec}?command=cat"),
        400,
        "you must specify at least 1 of stdin, stdout, stderr",
    )
    .await;
    node.check(&format!("{exec}?output=1&command=cat"), 400, "Upgrade request required").await;
    let text = "container not found (\"second\")";
    node.check("/exec/default/web-n1/second?output=1", 500, text).await;
    node.check("/exec/default/other/main?output=1", 404, "pod does not exist").await;
    let text = "container not found (\"main\")";
    node.check("/exec/default/web-n1/other-uid/main?output=1", 500, text).await;
    let text = "container second not found in pod web-n1_default";
    node.check("/attach/default/web-n1/second?output=1", 500, text).await;
    node.runtime.exit(&node.main, 0);
    node.check(&format!("{exec}?output=1"), 500, "container not found (\"main\")").await;
}

#[tokio::test]
async fn a_container_is_attached_to_until_it_ends() {
    let node = Node::start().await;
    let path = "/attach/default/web-n1/main?input=1&output=1&error=1";
    let (head, mut stream) = node.upgrade(path, "v4.channel.k8s.io").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    send(&mut stream, b"\0echo\n").await;
    assert_eq!(said(&mut stream, 1).await, "echo\n");
    node.runtime.write(&node.main, Stream::Stderr, b"oops\n");
    assert_eq!(said(&mut stream, 2).await, "oops\n");
    node.runtime.exit(&node.main, 1);
    let status: Value = serde_json::from_str(&said(&mut stream, 3).await).unwrap();
    assert_eq!(status["status"], "Success");
}

#[tokio::test]
async fn a_container_with_a_terminal_is_attached_to_as_one() {
    let node = Node::with(|config| config.tty = true).await;
    // Whatever is asked for: whether there is a terminal is the container's matter.
    let path = "/attach/default/web-n1/main?input=1&output=1&error=1";
    let (_, mut stream) = node.upgrade(path, "v4.channel.k8s.io").await;
    send(&mut stream, b"\0x\n").await;
    assert_eq!(said(&mut stream, 1).await, "x\n");
}

#[tokio::test]
async fn a_command_without_streams_is_answered_when_it_has_ended() {
    let node = Node::start().await;
    let run = async |query: &str| {
        let path = format!("/run/default/web-n1/main?cmd={query}");
        let Answer { status, body } = node.ask("admin", Method::POST, &path).await;
        (status.as_u16(), body)
    };
    assert_eq!(run("echo+hello+you").await, (200, "hello you\n".to_owned()));
    let text = "command 'fail 2 no' exited with 2: no\n";
    assert_eq!(run("fail+2+no").await, (500, text.to_owned()));
    let (status, text) = run("nothere").await;
    assert!(status == 500 && text.contains("executable file not found in $PATH"), "{text}");
}

#[tokio::test]
async fn ports_of_a_pod_are_reached_and_refusals_are_told() {
    let node = Node::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = format!("/portForward/default/web-n1?port={port}");
    let (head, mut stream) = node.upgrade(&path, "v4.channel.k8s.io").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (mut pod, _) = listener.accept().await.unwrap();
    send(&mut stream, b"\0to").await;
    let mut bytes = [0; 2];
    pod.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"to");
    pod.write_all(b"fro").await.unwrap();
    let mut heard = String::new();
    // Each channel begins with the number of its port.
    while !heard.ends_with("fro") {
        heard += &said_by(&mut stream, 0).await;
    }
    drop((listener, pod));
    let (_, mut stream) = node.upgrade(&path, "v4.channel.k8s.io").await;
    let mut heard = String::new();
    while !heard.contains("refused") {
        heard += &said_by(&mut stream, 1).await;
    }
    let wanted = format!(
        "error forwarding port {port} to pod sandbox-1, uid : failed to connect to \
         localhost:{port} inside namespace \"sandbox-1\": Connection refused"
    );
    assert!(heard.contains(&wanted), "{heard}");
    let forward = "/portForward/default";
    node.check(&format!("{forward}/other"), 404, "pod does not exist").await;
    node.check(&format!("{forward}/web-n1/other-uid"), 404, "pod not found").await;
    node.check(&format!("{forward}/web-n1"), 400, "Upgrade request required").await;
    Arc::make_mut(&mut node.pods.0.lock().unwrap()[0].report).key.name = "gone".to_owned();
    let (head, _) = node.upgrade(&format!("{forward}/gone?port=1"), "v4.channel.k8s.io").await;
    assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
}

#[tokio::test(start_paused = true)]
async fn usage_is_measured_between_two_looks() {
    let node = Node::start().await;
    node.runtime.set_usage(&node.main, 1_000_000_000, 4096);
    let parsed =
        async || -> Value { serde_json::from_str(&node.get("/stats/summary").await.body).unwrap() };
    let summary = parsed().await;
    let pod = &summary["pods"][0];
    let reference = json!({"name": "web-n1", "namespace": "default", "uid": "web-n1-uid"});
    assert_eq!(pod["podRef"], reference);
    assert_eq!(pod["network"]["rxBytes"], 10);
    assert_eq!(pod["process_stats"]["process_count"], 1);
    let container = &pod["containers"][0];
    assert_eq!(container["name"], "main");
    assert_eq!(container["memory"]["workingSetBytes"], 4096);
    assert_eq!(container["cpu"]["usageCoreNanoSeconds"], 1_000_000_000);
    // Nothing was used between the two looks.
    assert_eq!(container["cpu"]["usageNanoCores"], 0);
    assert_eq!(summary["node"]["nodeName"], "n1");
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64().unwrap() > 0);
    assert!(summary["node"]["fs"]["capacityBytes"].as_u64().unwrap() > 0);
    // A second look, two seconds later.
    node.runtime.set_usage(&node.main, 2_000_000_000, 4096);
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    let container = parsed().await["pods"][0]["containers"][0].clone();
    assert_eq!(container["cpu"]["usageNanoCores"], 500_000_000);
}

#[tokio::test(start_paused = true)]
async fn metrics_have_the_names_that_dashboards_know() {
    let node = Node::start().await;
    node.runtime.set_usage(&node.main, 1_500_000_000, 4096);
    let has = async |path: &str, lines: &[&str]| {
        let Answer { status, body } = node.get(path).await;
        assert_eq!(status, StatusCode::OK);
        for line in lines {
            assert!(body.lines().any(|it| it.starts_with(line)), "{line}: {body}");
        }
        body
    };
    let pod = "namespace=\"default\",pod=\"web-n1\"";
    let body = has(
        "/metrics",
        &[
            "kubelet_node_name{node=\"n1\"} 1",
            "kubelet_desired_pods{static=\"\"} 0",
            "kubelet_desired_pods{static=\"true\"} 1",
            "kubelet_mirror_pods 1",
            "kubelet_running_pods 1",
            "kubelet_running_containers{container_state=\"running\"} 1",
            "process_start_time_seconds ",
        ],
    )
    .await;
    let working = body.lines().filter(|line| line.starts_with("kubelet_working_pods{"));
    assert_eq!(working.count(), 15);
    has(
        "/metrics/resource",
        &[
            &format!("container_cpu_usage_seconds_total{{container=\"main\",{pod}}} 1.500000000 "),
            &format!("container_memory_working_set_bytes{{container=\"main\",{pod}}} 4096 "),
            &format!("pod_memory_working_set_bytes{{{pod}}} 4096 "),
            "node_cpu_usage_seconds_total ",
            "resource_scrape_error 0",
        ],
    )
    .await;
    has(
        "/metrics/cadvisor",
        &[
            &format!("container_network_receive_bytes_total{{interface=\"eth0\",{pod}}} 10 "),
            &format!("container_memory_rss{{container=\"main\",{pod}}} 4096 "),
        ],
    )
    .await;
    has("/metrics/probes", &["process_start_time_seconds "]).await;
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    let error = mainstay_cri::Error::new(mainstay_cri::ErrorKind::Unavailable, "it sleeps");
    node.runtime.fail_next("list_pod_sandbox_stats", error);
    let body = has("/metrics/resource", &["resource_scrape_error 1"]).await;
    assert!(!body.contains("container_"), "{body}");
}

#[tokio::test]
async fn the_health_port_has_nothing_else() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let node = Node::start().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_health(listener, node.api.clone()));
    for (path, expected) in [("/healthz", "200"), ("/healthz/ping", "200"), ("/pods", "404")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{path}: {answer}");
    }
}

/// Tells the name of whoever's certificate came.
struct Certificates(Vec<CertificateDer<'static>>);

#[async_trait]
impl NodeAuth for Certificates {
    async fn authenticate(
        &self,
        certificates: Option<&[CertificateDer<'static>]>,
        _bearer: Option<&str>,
    ) -> Result<User, Unauthenticated> {
        match certificates {
            Some(shown) if shown == self.0 => Ok(User::default()),
            _ => Err(Unauthenticated("no certificate of a friend".to_owned())),
        }
    }

    async fn authorize(&self, _: &User, _: &str, _: &str) -> Result<bool, String> {
        Ok(true)
    }
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_tls_and_certificates_are_shown() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.der().clone(), rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key))
    };
    let ((server, key), (friend, friends_key)) = (own("n1"), own("friend"));
    let mut friends = rustls::RootCertStore::empty();
    friends.add(friend.clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(friends),
        provider.clone(),
    );
    let verifier = verifier.allow_unauthenticated().build().unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let api = NodeApi::new(Context {
        node_name: "n1".to_owned(),
        pods: Arc::new(Given::default()),
        runtime: Arc::new(FakeRuntime::default()),
        health: Arc::new(Well),
        auth: Arc::new(Certificates(vec![friend.clone()])),
        probes: Counts::default(),
        settings: NodeApiSettings::default(),
        root_dir: "/".into(),
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, Arc::new(tls), api));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(server).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let nobody = client.clone().with_no_client_auth();
    let friend = client.with_client_auth_cert(vec![friend], friends_key.into()).unwrap();
    for (mut config, protocol, expected) in [
        (nobody.clone(), "http/1.1", 401),
        (friend.clone(), "http/1.1", 200),
        (nobody, "h2", 401),
        (friend, "h2", 200),
    ] {
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect("n1".try_into().unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let io = TokioIo::new(stream);
        let request = Request::get("https://n1/healthz").body(Empty::<Bytes>::new()).unwrap();
        let response = if protocol == "h2" {
            let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = made.unwrap();
            tasks.spawn(async move { drop(connection.await) });
            sender.send_request(request).await
        } else {
            let made = hyper::client::conn::http1::handshake(io).await;
            let (mut sender, connection) = made.unwrap();
            tasks.spawn(async move { drop(connection.await) });
            sender.send_request(request).await
        };
        assert_eq!(response.unwrap().status().as_u16(), expected, "{protocol}");
    }
}

/// Sends a WebSocket message, masked with nothing.
async fn send(to: &mut (impl AsyncWrite + Unpin), payload: &[u8]) {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    to.write_all(&frame).await.unwrap();
}

/// Receives a WebSocket message: its channel, and the rest.
async fn receive(from: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    loop {
        let kind = from.read_u8().await.unwrap();
        let length = match from.read_u8().await.unwrap() {
            126 => u64::from(from.read_u16().await.unwrap()),
            127 => from.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        from.read_exact(&mut payload).await.unwrap();
        assert_eq!(kind, 0x82, "{payload:?}");
        if let Some((channel, rest)) = payload.split_first() {
            return (*channel, rest.to_vec());
        }
    }
}

/// What comes on a channel, as text; the others have to be silent until then.
async fn said(from: &mut (impl AsyncRead + Unpin), wanted: u8) -> String {
    loop {
        let (channel, payload) = receive(from).await;
        // Empty messages greet, and close a channel in version 5.
        if payload.is_empty() || channel == 255 {
            continue;
        }
        let text = String::from_utf8_lossy(&payload).into_owned();
        assert_eq!(channel, wanted, "{text}");
        return text;
    }
}

/// What comes on a channel, whatever comes on others.
async fn said_by(from: &mut (impl AsyncRead + Unpin), wanted: u8) -> String {
    loop {
        let (channel, payload) = receive(from).await;
        if channel == wanted {
            return String::from_utf8_lossy(&payload).into_owned();
        }
    }
}
