//! What a node does for pods that run: probing them, keeping their logs, making room.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::measure::{self, Samples, milliseconds};
use super::mounts::Mount;
use super::node::{Node, payload_process, wait_for_end};
use super::others::Podman;
use super::payload::{IMAGE, Payload};
use super::table::Table;

/// Where the nodes are, one after the other.
pub(crate) const NODES: [&str; 3] = ["probes", "logs", "pressure"];

/// How many containers a probed pod has. Each is asked twice a second.
const CONTAINERS: usize = 10;
/// How many probes of commands there are in a second, where those are what is measured.
const COMMANDS: usize = 100;

/// Small enough for several files.
const LOGS: &str = "containerLogMaxSize: 50Mi\ncontainerLogMaxFiles: 1000\n\
                    containerLogMonitorInterval: 3s\nevictionHard: {}\n";

/// How large the disk is on which it becomes short, and what is to be left of it, in MiB.
const DISK: usize = 512;
const LEAST: usize = 256;
/// What the pod writes that has to go, in MiB: too much.
const GREED: usize = 300;
/// Nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured. Times are in milliseconds, shares those of one processor's time.
pub(crate) struct Figures<'a> {
    bench: &'a Bench,
    /// Requests that are no probes.
    bare: Probes,
    probes: Probes,
    commands: Probes,
    logs: Logs,
    /// The same program's lines, kept by conmon.
    podman: Option<f64>,
    evicted: Samples,
    returned: Samples,
}

/// Probes of one kind.
struct Probes {
    /// How many there were in a second.
    rate: f64,
    share: f64,
}

/// The lines of one container.
struct Logs {
    /// Lines in a second.
    rate: f64,
    /// Files in which they are.
    files: usize,
    /// Processor time of agent and shim, as a part of the time that it took.
    share: f64,
}

impl<'a> Figures<'a> {
    pub(crate) fn measure(bench: &'a Bench) -> anyhow::Result<Self> {
        bench.settle()?;
        println!("measuring probes");
        let [bare, probes, commands] = probes(bench)?;
        bench.settle()?;
        println!("measuring logs");
        let logs = Logs::measure(bench)?;
        let mut podman = None;
        if !bench.alone {
            let other = Podman::prepare(&bench.payload, &bench.directory)?;
            let took = other.print(&bench.payload, bench.extent.lines)?;
            podman = Some(per_second(bench.extent.lines, took));
        }
        bench.settle()?;
        println!("measuring a disk that becomes short");
        let (evicted, returned) = pressure(bench)?;
        Ok(Self { bench, bare, probes, commands, logs, podman, evicted, returned })
    }

    pub(crate) fn tell(&self, table: &mut Table) {
        let extent = self.bench.extent;
        let probes = |probes: &Probes| {
            let (rate, percent) = (probes.rate, probes.share * 100.0);
            format!("{rate:.0}/s, {percent:.1} % of a core")
        };
        table.compare("requests of HTTP without any work around them", &probes(&self.bare));
        let name = format!("HTTP probes of {} containers", extent.probed * CONTAINERS);
        let shown = format!(
            "{}; {:.2} × the bare requests",
            probes(&self.probes),
            self.probes.share / self.bare.share
        );
        table.row(&name, &shown, "≤ 5 % for 1000/s", self.probes.share <= 0.05);
        table.compare("probes that run a command", &probes(&self.commands));
        let lines = extent.lines;
        if let Some(podman) = self.podman {
            table.compare(&format!("{lines} log lines, podman"), &format!("{podman:.0}/s"));
        }
        let Logs { rate, files, share } = self.logs;
        let ratio = self.podman.map(|podman| rate / podman);
        let ratio_shown = ratio.map_or(String::new(), |ratio| format!("{ratio:.2} × podman, "));
        table.row(
            &format!("{lines} log lines, rotated while they come"),
            &format!(
                "{rate:.0}/s, {ratio_shown}none lost in {files} files, {:.0} % of a core",
                share * 100.0
            ),
            // Both keep up with a program that uses a processor for itself; what is left is noise.
            "none lost, ≥ 0.95 × podman",
            ratio.is_none_or(|ratio| ratio >= 0.95),
        );
        let row = |table: &mut Table, name: &str, samples: &Samples| {
            table.row(name, &samples.to_string(), "p50 ≤ 11 s", samples.median() <= 11_000.0);
        };
        row(table, "disk short → the pod that fills it has ended", &self.evicted);
        row(table, "that pod ended → it runs again", &self.returned);
    }
}

fn per_second(count: u64, milliseconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "there are not that many")]
    let count = count as f64;
    count / milliseconds * 1000.0
}

// === Probes ===

/// Two probes a second for each container, of a server; the same requests without any of mainstay's work; and
/// then as many fewer that run a command.
fn probes(bench: &Bench) -> anyhow::Result<[Probes; 3]> {
    let Bench { programs, directory, payload, extent, .. } = bench;
    let server = Answers::begin()?;
    let mut node = Node::start(programs, &directory.join(NODES[0]), payload)?;
    let http = json!({
        "httpGet": { "host": "127.0.0.1", "port": server.port, "path": "/healthz" },
        "periodSeconds": 1,
    });
    let both = json!({ "readinessProbe": http, "livenessProbe": http });
    for number in 0..extent.probed {
        node.place(payload, &format!("probed-{number}"), &probed(payload, number, &both))?;
    }
    node.wait_for_running(extent.probed)?;
    std::thread::sleep(extent.idle);
    let (before, start) = (server.count(), Instant::now());
    let share = node.cpu_share(extent.idle)?;
    let rate = per_second(server.count() - before, milliseconds(start.elapsed()));
    let wanted = extent.probed * CONTAINERS * 2;
    ensure!(rate >= 0.95 * per_second(wanted as u64, 1000.0), "{rate} probes of {wanted}");
    let http = Probes { rate, share };
    node.remove_all()?;
    let bare = asked(server.port, wanted, extent.idle)?;

    // The program runs anew for each of them, and ends at once.
    let exec =
        json!({ "exec": { "command": ["/stamp", "/out/probe", "once"] }, "periodSeconds": 1 });
    let one = json!({ "readinessProbe": exec });
    let pods = (COMMANDS / CONTAINERS).min(extent.probed);
    for number in 0..pods {
        node.place(payload, &format!("probed-{number}"), &probed(payload, number, &one))?;
    }
    node.wait_for_running(pods)?;
    std::thread::sleep(extent.idle);
    let share = node.cpu_share(extent.idle)?;
    node.end()?;
    let commands = Probes { rate: per_second((pods * CONTAINERS) as u64, 1000.0), share };
    Ok([bare, http, commands])
}

/// As many requests a second, by a thread that only connects, writes, reads and closes: what is the kernel's
/// part of probes. Twenty go out together, fifty times a second, as the prober has it.
fn asked(port: u16, wanted: usize, during: Duration) -> anyhow::Result<Probes> {
    const ROUND: Duration = Duration::from_millis(20);
    let rounds = during.as_millis().div_ceil(ROUND.as_millis());
    let in_one = (wanted / 50).max(1);
    let work = move || -> anyhow::Result<Probes> {
        let (start, before) = (Instant::now(), measure::cpu_seconds("thread-self")?);
        let mut due = start;
        for _ in 0..rounds {
            let connect = |_| TcpStream::connect((Ipv4Addr::LOCALHOST, port));
            let mut streams = (0..in_one).map(connect).collect::<Result<Vec<_>, _>>()?;
            for stream in &mut streams {
                stream.write_all(
                    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: kube-probe/1.36\r\n\
                      Accept: */*\r\nConnection: close\r\n\r\n",
                )?;
            }
            for stream in &mut streams {
                ensure!(stream.read(&mut [0; 1024])? > 0, "a request is not answered");
            }
            drop(streams);
            due += ROUND;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let took = start.elapsed();
        let share = (measure::cpu_seconds("thread-self")? - before) / took.as_secs_f64();
        let count = u64::try_from(rounds)? * in_one as u64;
        Ok(Probes { rate: per_second(count, milliseconds(took)), share })
    };
    let thread = std::thread::spawn(work);
    thread.join().map_err(|_| anyhow!("the thread that asks panicked"))?
}

/// A pod of several containers, of which the first says when it begins.
fn probed(payload: &Payload, number: usize, probes: &Value) -> Value {
    let name = format!("probed-{number}");
    let containers = (0..CONTAINERS).map(|container| {
        let file = if container == 0 { name.clone() } else { format!("{name}-{container}") };
        let mut container = json!({
            "name": format!("c{container}"), "command": ["/stamp", format!("/out/{file}")],
        });
        if let (Some(all), Some(more)) = (container.as_object_mut(), probes.as_object()) {
            all.extend(more.clone());
        }
        container
    });
    pod(payload, &name, containers.collect(), json!([]))
}

/// A server of HTTP that answers everything with 200, and counts.
struct Answers {
    port: u16,
    count: Arc<AtomicU64>,
}

impl Answers {
    /// It ends with xtask.
    fn begin() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            // One that goes away while it is answered is answered no further.
            for stream in listener.incoming().flatten() {
                if answer(stream).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { port, count })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

// === Logs ===

impl Logs {
    /// One container that prints as fast as it can.
    fn measure(bench: &Bench) -> anyhow::Result<Self> {
        let Bench { programs, directory, payload, extent, .. } = bench;
        let lines = extent.lines;
        let mut node = Node::configured(programs, &directory.join(NODES[1]), payload, LOGS)?;
        let end = payload.fresh("lines.end")?;
        let command = json!(["/stamp", "/out/lines", lines.to_string()]);
        let containers = vec![json!({ "name": "main", "command": command })];
        let manifest = pod(payload, "lines", containers, json!([]));
        let begin = node.place(payload, "lines", &manifest)?;
        let took = payload.wait_for(&end)? - payload.wait_for(&begin)?;
        let used = node.cpu_seconds()?;
        let files = whole(&logs_below(&node.client.root_dir.join("log/pods"))?, lines)?;
        node.end()?;
        let rate = per_second(lines, took);
        Ok(Self { rate, files, share: used / took * 1000.0 })
    }
}

/// The directory of the only container's log.
fn logs_below(pods: &Path) -> anyhow::Result<PathBuf> {
    let mut path = pods.to_owned();
    for _ in ["pod", "container"] {
        let inner = fs::read_dir(&path).and_then(|mut entries| entries.next().transpose());
        let inner = inner.with_context(|| format!("cannot list {}", path.display()))?;
        path = inner.with_context(|| format!("{} is empty", path.display()))?.path();
    }
    Ok(path)
}

/// Sees that every line is there, once and in order. Returns in how many files.
fn whole(directory: &Path, lines: u64) -> anyhow::Result<usize> {
    // What the program has printed may still be in its pipe.
    let last = format!("{:0100}\n", lines - 1);
    let start = Instant::now();
    let files = loop {
        let files = files(directory)?;
        // A log that was rotated just now is empty.
        let newest = files.iter().rev().find(|(_, file)| length(file) > 0);
        if newest.is_some_and(|(_, file)| ends_with(file, &last)) {
            break files;
        }
        ensure!(start.elapsed() < PATIENCE, "the last line is not in {}", directory.display());
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut next = 0;
    for (name, file) in &files {
        for line in BufReader::new(file).lines() {
            let line = line?;
            let number = line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok());
            let place = name.display();
            ensure!(number == Some(next), "{place}: line {next} is expected and there is {line}");
            next += 1;
        }
    }
    ensure!(next == lines, "{next} of {lines} lines are there");
    Ok(files.len())
}

/// The files of a log, the oldest first, of one moment: none is rotated while they are opened.
fn files(directory: &Path) -> anyhow::Result<Vec<(PathBuf, File)>> {
    let names = || -> anyhow::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
        // The one that is written to has no time in its name, and is the last one.
        names.sort_by_key(|name| (name.extension().is_some_and(|it| it == "log"), name.clone()));
        Ok(names)
    };
    loop {
        let before = names()?;
        let files = before.iter().map(|name| Ok((name.clone(), File::open(name)?)));
        let files: std::io::Result<Vec<_>> = files.collect();
        if names()? == before {
            return files.context("cannot open a log");
        }
    }
}

fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

fn ends_with(file: &File, end: &str) -> bool {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; end.len()];
    let from = length(file).checked_sub(end.len() as u64);
    from.is_some_and(|from| file.read_exact_at(&mut bytes, from).is_ok()) && bytes == end.as_bytes()
}

// === Pressure ===

/// How long it takes until the pod that fills the disk has ended, and then until it is there again.
fn pressure(bench: &Bench) -> anyhow::Result<(Samples, Samples)> {
    let Bench { programs, directory, payload, extent, .. } = bench;
    let place = directory.join(NODES[2]);
    let options = format!("size={DISK}m,mode=755");
    let _disk = Mount::memory(&place.join("root"), &options)?;
    let fields = format!(
        "evictionHard: {{nodefs.available: {LEAST}Mi}}\nevictionPressureTransitionPeriod: 1ms\n\
         imageMinimumGCAge: 1ms\n"
    );
    let mut node = Node::configured(programs, &place, payload, &fields)?;
    for number in 0..extent.some {
        node.place(payload, &format!("room-{number}"), &roomy(payload, number))?;
    }
    node.wait_for_running(extent.some)?;
    let (mut evicted, mut returned) = (Vec::new(), Vec::new());
    for _ in 0..extent.short {
        let stamp = payload.fresh("room-0")?;
        let pid = payload_process("/out/room-0")?.context("the payload does not run")?;
        let cache = cache(&node)?;
        let mut file = File::create(cache.join("file"))?;
        for _ in 0..GREED {
            file.write_all(&[b'x'; 1 << 20]).context("cannot fill the disk")?;
        }
        drop(file);
        let start = Instant::now();
        wait_for_end(pid)?;
        evicted.push(milliseconds(start.elapsed()));
        let end = Instant::now();
        payload.wait_for(&stamp)?;
        returned.push(milliseconds(end.elapsed()));
        node.wait_for_running(extent.some)?;
    }
    node.end()?;
    Ok((Samples::new(evicted), Samples::new(returned)))
}

/// Where the first pod keeps what it has.
fn cache(node: &Node) -> anyhow::Result<PathBuf> {
    let status = node.status()?;
    let mut pods = status["pods"].as_array().into_iter().flatten();
    let is = |pod: &&Value| pod["name"].as_str().is_some_and(|name| name.starts_with("room-0-"));
    let pod = pods.find(is).context("there is no pod room-0")?;
    let uid = pod["uid"].as_str().context("the pod has no UID")?;
    Ok(node.client.root_dir.join(format!("pods/{uid}/volumes/kubernetes.io~empty-dir/cache")))
}

/// A pod with room for much on the disk.
fn roomy(payload: &Payload, number: usize) -> Value {
    let name = format!("room-{number}");
    let command = json!(["/stamp", format!("/out/{name}")]);
    let cache = json!([{ "name": "cache", "emptyDir": {} }]);
    let mut pod = pod(payload, &name, vec![json!({ "name": "main", "command": command })], cache);
    let mount = json!({ "name": "cache", "mountPath": "/cache" });
    if let Some(mounts) = pod["spec"]["containers"][0]["volumeMounts"].as_array_mut() {
        mounts.push(mount);
    }
    pod
}

/// A pod on the host's network whose containers have what they do not say themselves.
fn pod(payload: &Payload, name: &str, mut containers: Vec<Value>, mut volumes: Value) -> Value {
    for container in &mut containers {
        container["image"] = IMAGE.into();
        container["imagePullPolicy"] = "Never".into();
        container["volumeMounts"] = json!([{ "name": "out", "mountPath": "/out" }]);
    }
    let out = json!({ "name": "out", "hostPath": { "path": payload.out } });
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(out);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": containers,
            "volumes": volumes,
        },
    })
}
