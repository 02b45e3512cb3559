//! Probes: when a pod is ready, when a container is given up, and what outlives the agent.

use std::fs;

use jiff::Timestamp;
use mainstay_pki::{Pki, Wanted};
use mainstay_testkit::tools;
use serde_json::{Value, json};

use crate::api::{create, kubectl};
use crate::manifest::{Manifest, pod};
use crate::node::{Node, Pod, wait_for};

/// A pod that sees [`Node::host`] and ends when it is told to.
fn probed(node: &Node, name: &str) -> Manifest {
    pod(name).with_host_directory(&node.host())
}

/// A probe that asks every second whether a file of the host's directory is there.
fn exists(file: &str) -> Value {
    let command = ["sh", "-c", &format!("cat /host/{file}")];
    json!({ "exec": { "command": command }, "periodSeconds": 1, "timeoutSeconds": 10 })
}

/// What kubectl shows of a pod's containers: `0/1`.
fn shown(node: &Node, name: &str) -> Option<String> {
    let printed = kubectl(node, &["get", "pod", "--no-headers", name]).stdout;
    printed.split_whitespace().nth(1).map(str::to_owned)
}

#[test]
fn a_pod_is_ready_as_long_as_its_probe_says_so() {
    let Some(node) = Node::start() else { return };
    let mut readiness = exists("ready");
    readiness["failureThreshold"] = 2.into();
    node.put("web.yaml", &probed(&node, "web").main("readinessProbe", readiness));
    let unready = |status: &crate::node::Status| {
        status.pod("web").is_some_and(|pod| {
            pod.state == "Running" && pod.ready == 0 && !pod.events("Unhealthy").is_empty()
        })
    };
    let web = node.wait_until("it runs and is not ready", unready);
    let web = web.pod("web").unwrap();
    let why = "containers with unready status: [main]";
    for kind in ["ContainersReady", "Ready"] {
        assert_eq!(web.condition(kind).status, "False");
        assert_eq!(web.condition(kind).message.as_deref(), Some(why));
    }
    assert_eq!(web.container("main").started, Some(true));
    let failed = &web.events("Unhealthy")[0].message;
    let missing = "cat: can't open '/host/ready': No such file or directory\n";
    assert_eq!(failed, &format!("Readiness probe failed: {missing}"));
    assert!(wait_for(|| shown(&node, "web-n1").filter(|it| it == "0/1")).is_some());
    fs::write(node.host().join("ready"), "").unwrap();
    let ready = node.wait_for_running("web");
    assert_eq!(ready.condition("Ready").status, "True");
    assert!(wait_for(|| shown(&node, "web-n1").filter(|it| it == "1/1")).is_some());
    fs::remove_file(node.host().join("ready")).unwrap();
    node.wait_until("it is not ready any more", |status| status.pod("web").unwrap().ready == 0);
    assert!(wait_for(|| shown(&node, "web-n1").filter(|it| it == "0/1")).is_some());
    assert_eq!(node.wait_for_state("web", "Running").id(), ready.id());
}

#[test]
fn a_container_that_its_probe_gives_up_is_ended_and_started_again() {
    let Some(node) = Node::start() else { return };
    let mut liveness = exists("alive");
    liveness["failureThreshold"] = 2.into();
    liveness["terminationGracePeriodSeconds"] = 1.into();
    // It is alive when it has begun, and does not end by itself when it is told to.
    let script = "trap '' TERM; touch /host/alive; until [ -e /host/end ]; do sleep 0.1; done";
    let web = probed(&node, "web").main("livenessProbe", liveness);
    node.put("web.yaml", &web.exactly(script));
    let first = node.wait_for_running("web");
    wait_for(|| fs::remove_file(node.host().join("alive")).ok()).unwrap();
    node.wait_until("it was started again", |status| {
        status.pod("web").is_some_and(|pod| pod.restarts == 1)
    });
    let second = node.wait_for_running("web");
    assert_ne!(second.id(), first.id());
    let last = second.container("main").last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.container_id.as_deref()), (137, Some(first.id())));
    let [killing] = second.events("Killing")[..] else { panic!("{:?}", second.events) };
    assert_eq!(killing.message, "Container main failed liveness probe, will be restarted");
    let failed = &second.events("Unhealthy")[0].message;
    assert!(failed.starts_with("Liveness probe failed: cat: "), "{failed}");
    fs::write(node.host().join("end"), "").unwrap();
}

/// A probe that notes in a file of the host's directory that it asked, and fails as the script says; `$n` is how
/// often it has asked.
fn counted(file: &str, script: &str) -> Value {
    let script = format!("echo asked >> /host/{file}; n=$(grep -c . /host/{file}); {script}");
    json!({
        "exec": { "command": ["sh", "-c", script] }, "periodSeconds": 1, "timeoutSeconds": 60,
    })
}

/// Waits for a file of the host's directory, in a script.
fn gate(name: &str) -> String {
    format!("until [ -e /host/{name} ]; do sleep 0.02; done")
}

#[test]
fn a_pod_becomes_ready_and_unready_by_so_many_answers_in_a_row() {
    let Some(node) = Node::start() else { return };
    // Two good ones do not count after a bad one, and one bad one does not after a good one.
    let script = format!(
        "case $n in 3|7|9) exit 1;; 6) {};; ??) {}; exit 1;; esac",
        gate("good"),
        gate("bad")
    );
    let mut readiness = counted("asked", &script);
    readiness["successThreshold"] = 3.into();
    readiness["failureThreshold"] = 2.into();
    node.put("web.yaml", &probed(&node, "web").main("readinessProbe", readiness));
    node.wait_for_told("asked", 6);
    let web = node.wait_for_state("web", "Running");
    assert_eq!(web.ready, 0);
    assert_eq!(web.events("Unhealthy").iter().map(|it| it.count).sum::<u32>(), 1);
    fs::write(node.host().join("good"), "").unwrap();
    let ready = node.wait_for_running("web");
    node.wait_for_told("asked", 10);
    let web = node.wait_for_running("web");
    assert_eq!(web.events("Unhealthy").iter().map(|it| it.count).sum::<u32>(), 3);
    let since = |pod: &Pod| pod.condition("Ready").last_transition_time.clone();
    assert_eq!(since(&web), since(&ready), "it was ready all the time");
    fs::write(node.host().join("bad"), "").unwrap();
    node.wait_until("it is not ready any more", |status| status.pod("web").unwrap().ready == 0);
    assert_eq!(node.wait_for_state("web", "Running").restarts, 0);
}

#[test]
fn a_container_is_given_up_after_so_many_answers_in_a_row() {
    let Some(node) = Node::start() else { return };
    let script = format!("case $n in 1|2|4|5) exit 1;; 6) {}; exit 1;; esac", gate("bad"));
    let mut liveness = counted("asked", &script);
    liveness["failureThreshold"] = 3.into();
    node.put("web.yaml", &probed(&node, "web").main("livenessProbe", liveness));
    node.wait_for_told("asked", 6);
    let first = node.wait_for_running("web");
    let failed = |pod: &Pod| pod.events("Unhealthy").iter().map(|it| it.count).sum::<u32>();
    assert_eq!((first.restarts, failed(&first), first.events("Killing").len()), (0, 4, 0));
    fs::write(node.host().join("bad"), "").unwrap();
    node.wait_until("it was started again", |status| {
        status.pod("web").is_some_and(|pod| pod.restarts == 1 && pod.runs())
    });
    // Of the next one nothing is known yet.
    node.wait_for_told("asked", 9);
    let second = node.wait_for_running("web");
    assert_eq!((second.restarts, failed(&second)), (1, 5));
    let [killing] = second.events("Killing")[..] else { panic!("{:?}", second.events) };
    assert_eq!(killing.message, "Container main failed liveness probe, will be restarted");
}

#[test]
fn a_container_is_asked_nothing_else_before_it_has_started_and_an_agent_forgets_nothing() {
    let Some(mut node) = Node::start() else { return };
    let asked = |file: &str| {
        let command = ["sh", "-c", &format!("echo asked >> /host/{file}")];
        json!({ "exec": { "command": command }, "periodSeconds": 1, "timeoutSeconds": 10 })
    };
    let mut startup = exists("started");
    startup["failureThreshold"] = 1000.into();
    let mut readiness = asked("readiness");
    // As long as no test is.
    readiness["periodSeconds"] = 1000.into();
    let web = probed(&node, "web").main("startupProbe", startup);
    let web = web.main("livenessProbe", asked("liveness")).main("readinessProbe", readiness);
    node.put("web.yaml", &web);
    node.wait_until("its startup probe has failed often", |status| {
        let pod = status.pod("web");
        let failed = pod.map(|pod| pod.events("Unhealthy").iter().map(|it| it.count).sum());
        failed >= Some(3)
    });
    let web = node.wait_for_state("web", "Running");
    assert_eq!(web.container("main").started, Some(false));
    assert_eq!([node.told("liveness"), node.told("readiness")], [[""; 0]; 2]);
    fs::write(node.host().join("started"), "").unwrap();
    let first = node.wait_for_running("web");
    node.wait_for_told("liveness", 2);
    assert_eq!(node.told("readiness").len(), 1);
    // It would take its time until it was found to be ready again.
    fs::remove_file(node.host().join("started")).unwrap();
    wait_for(|| {
        let kept = fs::read_to_string(node.path(&format!("root/pods/{}/probes.json", first.uid)));
        kept.is_ok_and(|kept| kept.contains("\"ready\":true")).then_some(())
    })
    .unwrap();
    node.kill();
    let before = node.told("liveness").len();
    node.launch();
    let second = node.status();
    let second = second.pod("web").unwrap();
    assert!(second.runs(), "{second:#?}");
    node.wait_for_told("liveness", before + 2);
    let second = node.wait_for_running("web");
    assert_eq!((second.id(), second.restarts), (first.id(), 0));
}

#[test]
fn a_server_is_asked_at_its_pods_own_address_by_the_name_of_its_port() {
    let Some(node) = Node::start() else { return };
    let get =
        |path: &str| json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": 1 });
    let web = probed(&node, "web").set("spec.hostNetwork", false);
    let web = web.main("ports", json!([{ "name": "http", "containerPort": 8080 }]));
    let mut startup = get("/started");
    // It has time to begin.
    startup["failureThreshold"] = 1000.into();
    let web = web.main("startupProbe", startup).main("readinessProbe", get("/ready"));
    let web =
        web.main("livenessProbe", json!({ "tcpSocket": { "port": "http" }, "periodSeconds": 1 }));
    fs::write(node.host().join("started"), "").unwrap();
    node.put("web.yaml", &web.script("httpd -f -p 8080 -h /host &"));
    let asked = node.wait_until("it was asked", |status| {
        let failed = |pod: &Pod| {
            let all = pod.events("Unhealthy").into_iter();
            all.filter(|it| {
                it.message == "Readiness probe failed: HTTP probe failed with statuscode: 404"
            })
            .count()
                > 0
        };
        status.pod("web").is_some_and(failed)
    });
    assert_eq!(asked.pod("web").unwrap().ready, 0);
    fs::write(node.host().join("ready"), "").unwrap();
    assert_eq!(node.wait_for_running("web").restarts, 0);
}

/// nginx, which serves only who says so in a header, and for a name.
const PICKY: &str = "events {}
pid /tmp/nginx.pid;
http {
  access_log off;
  server { listen 8080 default_server; return 404; }
  server {
    listen 8080;
    server_name probed.example;
    location / { if ($http_x_probe != yes) { return 403; } return 200; }
  }
}
";

/// Puts a server that goes by the configuration in the host's directory, and is ready when a probe says so.
fn put_nginx(node: &Node, name: &str, probe: Value) {
    let manifest = probed(node, name)
        .set("spec.hostNetwork", false)
        .main("image", "local/nginx:1")
        .main("command", json!(["nginx", "-c", "/host/nginx.conf", "-g", "daemon off;"]))
        .main("readinessProbe", probe);
    node.put(&format!("{name}.yaml"), &manifest);
}

#[test]
fn a_server_is_asked_with_the_headers_that_are_written() {
    let Some(mut node) = Node::prepare() else { return };
    node.provide(&tools::image("nginx"));
    node.launch();
    fs::write(node.host().join("nginx.conf"), PICKY).unwrap();
    let nginx = |name: &str, headers: Value| {
        let get = json!({ "port": 8080, "httpHeaders": headers });
        let probe = json!({ "httpGet": get, "periodSeconds": 1, "initialDelaySeconds": 1 });
        put_nginx(&node, name, probe);
    };
    let header = |name: &str, value: &str| json!({ "name": name, "value": value });
    let host = header("Host", "probed.example");
    nginx("served", json!([host, header("X-Probe", "yes")]));
    nginx("nameless", json!([header("X-Probe", "yes")]));
    nginx("refused", json!([host]));
    node.wait_for_running("served");
    for (name, code) in [("nameless", 404), ("refused", 403)] {
        let expected = format!("Readiness probe failed: HTTP probe failed with statuscode: {code}");
        node.wait_until("the server says no", |status| {
            let pod = status.pod(name);
            pod.is_some_and(|it| it.events("Unhealthy").iter().any(|it| it.message == expected))
        });
    }
}

/// nginx, which speaks TLS, with a certificate of an authority that nobody knows.
const SEALED: &str = "events {}
pid /tmp/nginx.pid;
http {
  access_log off;
  server {
    listen 8443 ssl;
    ssl_certificate /host/tls.crt;
    ssl_certificate_key /host/tls.key;
    location / { return 200; }
  }
}
";

#[test]
fn a_server_is_asked_over_tls_whoever_vouches_for_it() {
    let Some(mut node) = Node::prepare() else { return };
    node.provide(&tools::image("nginx"));
    node.launch();
    let (pki, _) = Pki::open(&node.path("pki"), &Wanted::default(), Timestamp::now()).unwrap();
    let identity = pki.api_server();
    fs::write(node.host().join("tls.crt"), identity.certificate_pem()).unwrap();
    fs::write(node.host().join("tls.key"), identity.key_pem()).unwrap();
    fs::write(node.host().join("nginx.conf"), SEALED).unwrap();
    let nginx = |name: &str, scheme: &str| {
        let probe = json!({ "httpGet": { "port": 8443, "scheme": scheme }, "periodSeconds": 1 });
        put_nginx(&node, name, probe);
    };
    nginx("sealed", "HTTPS");
    nginx("open", "HTTP");
    node.wait_for_running("sealed");
    // This is what nginx says to whoever speaks no TLS.
    let expected = "Readiness probe failed: HTTP probe failed with statuscode: 400";
    let status = node.wait_until("the server says no", |status| {
        let pod = status.pod("open");
        pod.is_some_and(|it| it.events("Unhealthy").iter().any(|it| it.message == expected))
    });
    assert_eq!(status.pod("open").unwrap().ready, 0);
}

#[test]
fn etcd_is_asked_in_its_own_protocol() {
    let Some(mut node) = Node::prepare() else { return };
    node.provide(&tools::image("etcd"));
    node.launch();
    let etcd = |name: &str, grpc: Value| {
        let listen = ["--listen-client-urls=http://0.0.0.0:2379", "--data-dir=/tmp/etcd"];
        let advertise = "--advertise-client-urls=http://127.0.0.1:2379";
        let manifest = probed(&node, name)
            .set("spec.hostNetwork", false)
            .main("image", "local/etcd:1")
            .main("command", json!(["etcd", listen[0], listen[1], advertise]))
            .main("readinessProbe", json!({ "grpc": grpc, "periodSeconds": 1 }));
        node.put(&format!("{name}.yaml"), &manifest);
    };
    etcd("whole", json!({ "port": 2379 }));
    etcd("part", json!({ "port": 2379, "service": "nobody" }));
    node.wait_for_running("whole");
    let status = node.wait_until("there is no such service", |status| {
        let pod = status.pod("part");
        pod.is_some_and(|it| {
            it.events("Unhealthy").iter().any(|it| it.message.contains("unknown service"))
        })
    });
    assert_eq!(status.pod("part").unwrap().ready, 0);
}

#[test]
fn a_container_that_never_comes_up_is_started_again() {
    let Some(node) = Node::start() else { return };
    let mut startup = exists("up");
    startup["failureThreshold"] = 1.into();
    node.put("web.yaml", &probed(&node, "web").main("startupProbe", startup));
    node.wait_until("it was started again", |status| {
        status.pod("web").is_some_and(|pod| pod.restarts == 1)
    });
    fs::write(node.host().join("up"), "").unwrap();
    let web = node.wait_for_running("web");
    let killing = web.events("Killing");
    assert_eq!(killing[0].message, "Container main failed startup probe, will be restarted");
    assert!(web.events("Unhealthy")[0].message.starts_with("Startup probe failed: cat: "));
}

#[test]
fn a_pod_with_a_gate_is_ready_when_somebody_opens_it() {
    let Some(node) = Node::start() else { return };
    let gates = json!([{ "conditionType": "example.com/open" }]);
    let web = pod("web").set("spec.nodeName", "n1").set("spec.readinessGates", gates);
    create(&node, &web);
    let ready = || {
        let path = "-o=jsonpath={.status.phase} {.status.conditions[?(@.type=='Ready')]['status','reason']}";
        kubectl(&node, &["get", "pod", "web", path]).stdout
    };
    let closed = wait_for(|| Some(ready()).filter(|it| it.starts_with("Running")));
    assert_eq!(closed.as_deref(), Some("Running False ReadinessGatesNotReady"));
    let open = r#"{"status":{"conditions":[{"type":"example.com/open","status":"True"}]}}"#;
    kubectl(&node, &["patch", "pod", "web", "--subresource=status", "-p", open]).success();
    let opened = wait_for(|| Some(ready()).filter(|it| it.starts_with("Running True")));
    assert!(opened.is_some(), "{}", ready());
}
