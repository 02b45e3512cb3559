//! What a configuration changes, and manifests that a server has.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::api::{create, kubectl, shown, wait_for_event, wait_for_phase};
use crate::container::{MEMORY, in_group};
use crate::http::free_port;
use crate::manifest::pod;
use crate::node::{Node, wait_for};

const KI: u64 = 1 << 10;

/// What the API has of the node, when it has it.
#[track_caller]
fn node_object(node: &Node) -> Value {
    let read = || {
        let outcome = kubectl(node, &["get", "node", "n1", "-o", "json"]);
        outcome.status.success().then(|| serde_json::from_str(&outcome.stdout).unwrap())
    };
    wait_for(read).unwrap_or_else(|| panic!("the node never registered\n{}", node.log()))
}

/// How many kibibytes an amount of memory is.
pub(crate) fn kibibytes(text: &str) -> u64 {
    let units = [("Ki", 1), ("Mi", KI), ("Gi", KI * KI)];
    let (digits, unit) =
        units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit))).unwrap();
    digits.parse::<u64>().unwrap() * unit
}

#[test]
fn pods_have_what_is_not_kept_from_them() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure(
        "maxPods: 2\nsystemReserved: {cpu: 100m, memory: 64Mi, pid: '1000'}\n\
         kubeReserved: {memory: 64Mi}\nevictionHard: {memory.available: 1Mi}\n\
         providerID: here://n1\nnodeLeaseDurationSeconds: 30\nenforceNodeAllocatable: [pods]",
    );
    node.arguments.extend([
        "--node-labels=topology.kubernetes.io/zone=a,mine=yes".to_owned(),
        "--register-with-taints=only=mine:NoSchedule".to_owned(),
    ]);
    node.launch();
    let object = node_object(&node);
    let (capacity, allocatable) = (&object["status"]["capacity"], &object["status"]["allocatable"]);
    assert_eq!(allocatable["pods"], "2");
    let [all, left] = [capacity, allocatable].map(|it| kibibytes(it["memory"].as_str().unwrap()));
    assert_eq!(left, all - 129 * KI);
    let cpus: u64 = capacity["cpu"].as_str().unwrap().parse().unwrap();
    assert_eq!(allocatable["cpu"], format!("{}m", cpus * 1000 - 100));
    let labels = &object["metadata"]["labels"];
    assert_eq!(
        (&labels["mine"], &labels["topology.kubernetes.io/zone"]),
        (&json!("yes"), &json!("a"))
    );
    assert_eq!(object["spec"]["providerID"], "here://n1");
    let taint = json!({"key": "only", "value": "mine", "effect": "NoSchedule"});
    let taints = object["spec"]["taints"].as_array().unwrap();
    assert!(taints.contains(&taint), "{taints:?}");

    // All pods together are held to what is not reserved.
    let message = "Updated Node Allocatable limit across pods";
    wait_for_event(&node, "reason=NodeAllocatableEnforced", message);
    // The kernel counts pages.
    let expected = (all - 128 * KI) / 4 * 4 * KI;
    assert_eq!(in_group(&node, &node.names().table, MEMORY), expected.to_string());

    // A static pod that prefers the node's own zone, and is one of two pods that there can be.
    node.put("static.yaml", &pod("static").set("spec.nodeSelector.mine", "yes"));
    node.wait_for_running("static");
    let asks = |name: &str, memory: String| {
        let pod = pod(name).set("spec.nodeName", "n1").set("spec.restartPolicy", "Never");
        pod.main("resources.requests.memory", memory)
    };
    create(&node, &asks("much", format!("{}Ki", all - 128 * KI)));
    wait_for_phase(&node, "much", "Failed");
    let told = |name: &str, path: &str| shown(&node, &["pod", name], path).unwrap();
    assert_eq!(told("much", "{.status.reason}"), "OutOfmemory");
    let message = format!(
        "Pod was rejected: Node didn't have enough resource: memory, requested: {}, used: 0, \
         capacity: {}",
        (all - 128 * KI) * KI,
        (all - 129 * KI) * KI
    );
    assert_eq!(told("much", "{.status.message}"), message);
    create(&node, &asks("second", "1Mi".to_owned()));
    wait_for_phase(&node, "second", "Running");
    create(&node, &asks("third", "1Mi".to_owned()));
    wait_for_phase(&node, "third", "Failed");
    assert_eq!(told("third", "{.status.reason}"), "OutOfpods");
    let message = "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 2, \
                   capacity: 2";
    assert_eq!(told("third", "{.status.message}"), message);
    let described = kubectl(&node, &["describe", "node", "n1"]).success();
    assert!(described.contains("only=mine:NoSchedule"), "{described}");
}

#[test]
fn a_pod_has_no_more_processes_than_it_may() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("podPidsLimit: 24\ncpuCFSQuotaPeriod: 10ms");
    node.launch();
    // A shell that cannot fork ends.
    let forks = "(n=0; while [ $n -lt 100 ]; do sleep 1000 & n=$((n + 1)); echo $n > /host/n; done)\n\
                 echo done >> /host/end";
    let manifest = pod("web").with_host_directory(&node.host()).script(forks);
    node.put("web.yaml", &manifest.main("resources.limits.cpu", "1"));
    node.wait_for_told("end", 1);
    let forked: u32 = node.told("n")[0].parse().unwrap();
    assert!((10..24).contains(&forked), "{forked}");
    let uid = node.status().pod("web").unwrap().uid.clone();
    let group = format!("pod{uid}");
    assert_eq!(in_group(&node, &group, ["pids.max"; 2]), "24");
    let period = in_group(&node, &group, ["cpu.max", "cpu.cfs_period_us"]);
    assert_eq!(period.split_whitespace().last(), Some("10000"), "{period}");
}

/// A server whose answer can be changed, and that can go away.
struct Server {
    port: u16,
    answer: Arc<Mutex<Option<(u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, asked) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let server = Self { port, answer: answer.clone(), asked: asked.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    request.push(byte[0]);
                }
                asked.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                // Without one the connection is closed without a word.
                let Some((status, body)) = answer.lock().unwrap().clone() else { continue };
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        server
    }

    fn says(&self, status: u16, body: &impl ToString) {
        *self.answer.lock().unwrap() = Some((status, body.to_string()));
    }

    fn is_silent(&self) {
        *self.answer.lock().unwrap() = None;
    }

    /// Waits until it has been asked again, and what it said has been heard.
    fn wait_until_asked(&self) {
        let count = || self.asked.lock().unwrap().len();
        let before = count();
        // When it is asked for the second time, the first answer has been taken in.
        assert!(wait_for(|| (count() >= before + 2).then_some(())).is_some(), "nobody asks");
    }
}

#[test]
fn what_a_server_has_runs_whatever_becomes_of_the_server() {
    let Some(mut node) = Node::prepare() else { return };
    let server = Server::start();
    node.configure("httpCheckFrequency: 50ms");
    node.arguments.push(format!("--manifest-url=http://127.0.0.1:{}/pods?key=hidden", server.port));
    node.arguments.push("--manifest-url-header=X-Key:secret,X-Key:twice".to_owned());
    server.says(200, &pod("web"));
    node.launch();
    let first = node.wait_for_running("web");
    wait_for_phase(&node, "web-n1", "Running");
    let annotations = shown(&node, &["pod", "web-n1"], "{.metadata.annotations}").unwrap();
    let annotations: Value = serde_json::from_str(&annotations).unwrap();
    assert_eq!(annotations["kubernetes.io/config.source"], "http");
    let name = format!("http://127.0.0.1:{}/pods", server.port);
    assert_eq!(annotations["mainstay.dev/config.path"], *name);
    let asked = server.asked.lock().unwrap()[0].clone();
    assert!(asked.starts_with("GET /pods?key=hidden HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("X-Key: secret\r\n") && asked.contains("X-Key: twice\r\n"), "{asked}");

    let same = |node: &Node| {
        let pod = node.wait_for_running("web");
        assert_eq!((pod.id(), pod.restarts), (first.id(), 0), "{}", node.log());
    };
    for (status, body) in [(500, "{}"), (200, ""), (200, "<html>ill</html>"), (200, "null")] {
        server.says(status, &body);
        server.wait_until_asked();
        same(&node);
    }
    // An agent that never hears of the server has what the last one had.
    server.is_silent();
    node.terminate();
    node.launch();
    server.wait_until_asked();
    same(&node);
    node.wait_until("the server is seen to be ill", |status| {
        status.sources.iter().any(|source| source.path == name && source.error.is_some())
    });

    node.mainstay(&["restart", "web"]).success();
    let again = wait_for(|| {
        let status = node.status();
        status.pod("web").filter(|pod| pod.runs() && pod.id() != first.id()).cloned()
    });
    let first = again.expect("it is restarted by its name");
    server.says(200, &pod("web").set("metadata.labels.new", "yes"));
    let next = wait_for(|| {
        let status = node.status();
        status.pod("web").filter(|pod| pod.runs() && pod.id() != first.id()).cloned()
    });
    assert!(next.is_some(), "{}", node.log());
    server.says(200, &json!({"apiVersion": "v1", "kind": "PodList", "items": []}));
    node.wait_for_gone("web");
    let log = node.log();
    assert!(!log.contains("secret") && !log.contains("hidden"), "{log}");
}

#[test]
fn a_configuration_that_asks_for_more_is_named_once() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("cpuManagerPolicy: static\ncpuManagerReconcilePeriod: 0s\nsyncFrequency: 5m");
    node.arguments.push("--pod-infra-container-image=registry.k8s.io/pause:3.10".to_owned());
    node.launch();
    let log = node.log();
    let named: Vec<_> = log.lines().filter(|line| line.contains("is not done here")).collect();
    let expected = "cpuManagerPolicy, syncFrequency, --pod-infra-container-image";
    assert!(matches!(*named, [line] if line.contains(expected)), "{log}");
    node.terminate();
    // More than there is cannot be kept, and nothing begins.
    node.configure("systemReserved: {memory: 1Ei}");
    let mut run = vec!["run", "--secure-port=0", "--port=0", "--healthz-port=0"];
    run.extend(node.arguments.iter().map(String::as_str));
    let run = node.mainstay(&run);
    let error = run.failure(1);
    let expected =
        "invalid Node Allocatable configuration. Resource \"memory\" has a reservation of 1Ei";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_node_api_is_as_open_as_it_is_said_to_be() {
    let Some(mut node) = Node::prepare() else { return };
    let port = free_port();
    node.configure(&format!("readOnlyPort: {port}\nenableDebuggingHandlers: false"));
    node.launch();
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    wait_for_phase(&node, "web-n1", "Running");
    for arguments in [&["logs", "web-n1"][..], &["exec", "web-n1", "--", "true"]] {
        let outcome = kubectl(&node, arguments);
        let refused = outcome.stderr.contains("Debug endpoints are disabled.");
        assert!(!outcome.status.success() && refused, "{outcome:#?}");
    }
    let read = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok().map(|_| answer)
    };
    let pods = wait_for(|| read("/pods")).expect("the port is open");
    assert!(pods.starts_with("HTTP/1.0 200") && pods.contains("web-n1"), "{pods}");
    let logs = read("/containerLogs/default/web-n1/main").unwrap();
    assert!(logs.starts_with("HTTP/1.0 404"), "{logs}");
}
