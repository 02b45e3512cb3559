//! The Kubernetes API: nginx for reads and etcd for durable writes stand beside it.

use serde_json::{Value, json};

use super::Bench;
use super::load::{Load, Wrk};
use super::measure::{self, Samples};
use super::node::Node;
use super::servers::Server;
use super::table::{Table, megabytes};
use crate::test_tools;

/// Where the node is.
pub(crate) const NODE: &str = "api";
/// Where one is whose objects are in etcd.
pub(crate) const BEHIND: &str = "api-etcd";
/// How many connections are many.
const CONNECTIONS: usize = 8;
/// Where the objects that are made are.
const NAMESPACE: &str = "bench";
/// Where those are that are listed.
const LISTED: &str = "bench-list";
/// The characters in a value that is written.
const TEXT: usize = 600;

const MB: u64 = 1_000_000;

/// What was measured. Times are in milliseconds, memory and sizes in bytes.
pub(crate) struct Figures<'a> {
    bench: &'a Bench,
    first_ready: f64,
    ready: Samples,
    idle: u64,
    reads: Reads,
    watchers: Value,
    mirrors: Value,
    /// From an API that is back to mirrors that are right.
    returned: f64,
    writes: Writes,
    /// The agent's memory in the end.
    after: u64,
}

struct Reads {
    /// The size of one namespace, and of the list.
    sizes: [usize; 2],
    nginx: Option<Load>,
    get: Load,
    list: Load,
}

/// What one connection writes, and what many do.
struct Writes {
    disk: Samples,
    /// The size of an object.
    size: usize,
    etcd: Option<Etcd>,
    creates: [Load; 2],
}

/// The same with etcd, which is asked directly, and by an API.
struct Etcd {
    puts: [Load; 2],
    creates: [Load; 2],
}

impl<'a> Figures<'a> {
    pub(crate) fn measure(bench: &'a Bench) -> anyhow::Result<Self> {
        let Bench { programs, directory, payload, extent, .. } = bench;
        let wrk = Wrk {
            tools: test_tools::bring_for_bench()?,
            directory: directory.clone(),
            duration: extent.load,
        };
        bench.settle()?;
        println!("measuring the API");
        let mut node = Node::start(programs, &directory.join(NODE), payload)?;
        let ready = (0..extent.few).map(|_| {
            std::thread::sleep(extent.pause);
            node.restart()
        });
        let ready = Samples::new(ready.collect::<anyhow::Result<_>>()?);
        bench.settle()?;
        let idle = node.agent_memory()?;
        node.client.ask(&json!({ "do": "create", "objects": objects(extent.listed) }))?;
        let reads = Reads::measure(bench, &node, &wrk)?;
        bench.settle()?;
        println!("measuring watchers and mirrors");
        let pause = u64::try_from(extent.pause.as_millis())?;
        let watchers = node.client.ask(&json!({
            "do": "watchers", "path": format!("/api/v1/namespaces/{NAMESPACE}/pods"),
            "name": "watched", "watchers": extent.watchers, "connections": CONNECTIONS,
            "rounds": extent.few, "pause_ms": pause,
        }))?;
        let mirrors = node.mirrors(payload, extent.rounds, extent.pause)?;
        bench.settle()?;
        let returned = node.return_of_the_api(payload, extent.some)?;
        let writes = Writes::measure(bench, &node, &wrk)?;
        let after = node.agent_memory()?;
        let first_ready = node.first_ready;
        node.end()?;
        Ok(Self {
            bench,
            first_ready,
            ready,
            idle,
            reads,
            watchers,
            mirrors,
            returned,
            writes,
            after,
        })
    }

    pub(crate) fn tell(&self, table: &mut Table) -> anyhow::Result<()> {
        let most = |table: &mut Table, name: &str, measured: &str, median: f64, limit: f64| {
            table.row(name, measured, &format!("p50 ≤ {limit} ms"), median <= limit);
        };
        let ready = &self.ready;
        let first = format!("{ready}; {:.1} ms the first time, with new keys", self.first_ready);
        most(table, "start → `/readyz` over TLS", &first, ready.median(), 150.0);
        if self.bench.api {
            // With the pods, there is a row of that name already.
            table.memory("agent, no pod (PSS)", self.idle, 20 * MB);
        }
        self.reads.tell(self.bench, table);
        self.writes.tell(table);

        let samples = |answer: &Value, name: &str| Samples::read(&answer[name]);
        let last = samples(&self.watchers, "last")?;
        let written = samples(&self.watchers, "written")?;
        let name = format!(
            "change of a pod → the last of {} watchers has the event ({CONNECTIONS} TLS connections, \
             HTTP/2)",
            self.bench.extent.watchers
        );
        let shown = format!("{last}; the change itself p50 {:.1} ms", written.median());
        most(table, &name, &shown, last.median(), 50.0);
        let running = samples(&self.mirrors, "running")?;
        most(table, "manifest → mirror Running", &running.to_string(), running.median(), 60.0);
        let gone = samples(&self.mirrors, "gone")?;
        let removed = samples(&self.mirrors, "removed")?;
        let shown = format!("{gone}; p50 {:.1} ms after the file was removed", removed.median());
        most(table, "container ended → mirror gone", &shown, gone.median(), 100.0);
        let name = format!("API back → {} mirrors right", self.bench.extent.some);
        let shown = format!("{:.0} ms", self.returned);
        table.row(&name, &shown, "≤ 1000 ms", self.returned <= 1000.0);
        let name = "agent after all that was read and written (PSS)";
        table.compare(name, &format!("{} MB", megabytes(self.after)));
        Ok(())
    }
}

// === impl Reads ===

impl Reads {
    fn measure(bench: &Bench, node: &Node, wrk: &Wrk) -> anyhow::Result<Self> {
        let one = "/api/v1/namespaces/default";
        let list = format!("/api/v1/namespaces/{LISTED}/pods");
        let size = |path: &str| -> anyhow::Result<usize> {
            let size = node.client.ask(&json!({ "do": "get", "path": path }))?;
            Ok(serde_json::from_value(size)?)
        };
        let sizes = [size(one)?, size(&list)?];
        let nginx = if bench.alone {
            None
        } else {
            bench.settle()?;
            println!("measuring nginx");
            let nginx = Server::nginx(&wrk.tools, &bench.directory, &node.identity(), sizes[0])?;
            let url = format!("https://127.0.0.1:{}/", nginx.port);
            Some(wrk.get(&url, "", CONNECTIONS)?)
        };
        bench.settle()?;
        println!("measuring reads");
        let server = format!("https://127.0.0.1:{}", node.port()?);
        let token = &node.client.token;
        let get = wrk.get(&format!("{server}{one}"), token, CONNECTIONS)?;
        let list = wrk.get(&format!("{server}{list}"), token, 1)?;
        Ok(Self { sizes, nginx, get, list })
    }

    fn tell(&self, bench: &Bench, table: &mut Table) {
        let [one, list] = self.sizes;
        if let Some(nginx) = &self.nginx {
            let name = format!("nginx, the same {one} bytes, {CONNECTIONS} TLS connections");
            table.compare(&name, &nginx.to_string());
        }
        let name = format!("GET of a namespace, {CONNECTIONS} TLS connections");
        match self.nginx.as_ref().map(|nginx| self.get.rate / nginx.rate) {
            Some(ratio) => {
                let shown = format!("{}; {ratio:.2} × nginx", self.get);
                table.row(&name, &shown, "≥ 0.6 × nginx", ratio >= 0.6);
            }
            None => table.compare(&name, &self.get.to_string()),
        }
        let name = format!("list of {} pods, {} MB", bench.extent.listed, megabytes(list as u64));
        table.row(&name, &self.list.to_string(), "p50 ≤ 5 ms", self.list.p50 <= 5.0);
    }
}

// === impl Writes ===

impl Writes {
    fn measure(bench: &Bench, node: &Node, wrk: &Wrk) -> anyhow::Result<Self> {
        bench.settle()?;
        println!("measuring durable writes");
        let disk = measure::durable_write(&bench.directory, 10 * bench.extent.rounds)?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        let first = json!({ "path": path, "object": config_map("first") });
        let size = node.client.ask(&json!({ "do": "create", "objects": [first] }))?;
        let size: usize = serde_json::from_value(size)?;
        let etcd = if bench.alone { None } else { Some(Etcd::measure(bench, node, wrk, size)?) };
        bench.settle()?;
        let url = format!("https://127.0.0.1:{}{path}", node.port()?);
        let (body, token) = (config_map("NAME").to_string(), &node.client.token);
        let creates = [
            wrk.post(&url, token, 1, 1, (&body, "c%d-%d-%d"))?,
            wrk.post(&url, token, CONNECTIONS, 2, (&body, "c%d-%d-%d"))?,
        ];
        Ok(Self { disk, size, etcd, creates })
    }

    fn tell(&self, table: &mut Table) {
        table.compare("4 KiB more in a file, fdatasync", &self.disk.to_string());
        let name = |connections: usize| match connections {
            1 => "one connection".to_owned(),
            more => format!("{more} connections"),
        };
        for (number, (connections, least)) in
            [(1, 900.0), (CONNECTIONS, 2300.0)].into_iter().enumerate()
        {
            let (connections, ours) = (name(connections), &self.creates[number]);
            let theirs = self.etcd.as_ref().map(|etcd| &etcd.puts[number]);
            if let Some(theirs) = theirs {
                let name = format!("etcd, put of {} bytes over TLS, {connections}", self.size);
                table.compare(&name, &theirs.to_string());
            }
            let ratio = theirs.map(|theirs| format!("{:.2} × etcd", ours.rate / theirs.rate));
            let shown = format!("{ours}; {}", ratio.unwrap_or_default());
            let name = format!("durable creates of {} bytes, {connections}", self.size);
            table.row(&name, &shown, &format!("≥ {least}/s"), ours.rate >= least);
            if let Some(Etcd { puts, creates }) = &self.etcd {
                let ratio = creates[number].rate / puts[number].rate;
                let shown = format!("{}; {ratio:.2} × etcd", creates[number]);
                let name = format!("the same with `--store etcds://`, {connections}");
                match number {
                    // One waits for etcd, and for the API, and there is nobody who asks meanwhile.
                    0 => table.compare(&name, &shown),
                    _ => table.row(&name, &shown, "≥ 0.8 × etcd", ratio >= 0.8),
                }
            }
        }
    }
}

// === impl Etcd ===

impl Etcd {
    /// Puts of values of this size, and creates through an API whose objects are in the same etcd.
    fn measure(bench: &Bench, node: &Node, wrk: &Wrk, size: usize) -> anyhow::Result<Self> {
        let etcd = Server::etcd(&wrk.tools, &bench.directory, &node.identity())?;
        let url = format!("https://127.0.0.1:{}/v3/kv/put", etcd.port);
        // Both are base64: the name has a multiple of four characters, the value's are three bytes
        // each.
        let value = "eHh4".repeat(size.div_ceil(3));
        let body = json!({ "key": "NAME", "value": value }).to_string();
        let puts = [
            wrk.post(&url, "", 1, 1, (&body, "%d%03d%08d"))?,
            wrk.post(&url, "", CONNECTIONS, 2, (&body, "%d%03d%08d"))?,
        ];
        bench.settle()?;
        println!("measuring durable writes to etcd through the API");
        let Bench { programs, directory, payload, .. } = bench;
        let directory = directory.join(BEHIND);
        let behind = Node::over_etcd(programs, &directory, payload, etcd.port, &node.authority())?;
        behind.client.ask(&json!({ "do": "create", "objects": [namespace(NAMESPACE)] }))?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        let url = format!("https://127.0.0.1:{}{path}", behind.port()?);
        let (body, token) = (config_map("NAME").to_string(), &behind.client.token);
        let creates = [
            wrk.post(&url, token, 1, 1, (&body, "c%d-%d-%d"))?,
            wrk.post(&url, token, CONNECTIONS, 2, (&body, "c%d-%d-%d"))?,
        ];
        behind.end()?;
        Ok(Self { puts, creates })
    }
}

fn namespace(name: &str) -> Value {
    json!({ "path": "/api/v1/namespaces",
        "object": { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } } })
}

/// The namespaces, the pods that are listed and the one that is watched. Nobody schedules them, so that
/// none of them runs.
fn objects(listed: usize) -> Vec<Value> {
    let pod = |namespace: &str, name: &str| {
        json!({ "path": format!("/api/v1/namespaces/{namespace}/pods"), "object": {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": "web", "tier": "front" } },
            "spec": { "schedulerName": "nobody", "containers": [{
                "name": "web",
                "image": "registry.example/team/web:1.2.3",
                "args": ["--listen=:8080", "--log-format=json"],
                "env": [
                    { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "LEVEL", "value": "information" },
                ],
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "resources": {
                    "requests": { "cpu": "100m", "memory": "64Mi" },
                    "limits": { "memory": "128Mi" },
                },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } },
            }] },
        } })
    };
    let mut objects = vec![namespace(NAMESPACE), namespace(LISTED), pod(NAMESPACE, "watched")];
    objects.extend((0..listed).map(|number| pod(LISTED, &format!("web-{number}"))));
    objects
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        "data": { "text": "x".repeat(TEXT) } })
}
