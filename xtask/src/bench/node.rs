//! mainstay itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::Programs;
use super::client::{Client, Job};
use super::measure::{self, Samples, milliseconds, now};
use super::payload::{IMAGE, Payload};
use crate::process;

const PATIENCE: Duration = Duration::from_secs(120);
/// The node's name.
pub(crate) const NAME: &str = "bench";

/// Which network a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The machine's.
    Host,
    /// Its own, with an address and a port of the host.
    Own,
}

/// The first port that pods ask the host for.
const FIRST_PORT: usize = 21_000;

/// The manifest of the pod `name`, whose payload writes `out/<name>`.
pub(crate) fn manifest(payload: &Payload, name: &str, number: usize, network: Network) -> String {
    let (network, ports) = match network {
        Network::Host => ("\n  hostNetwork: true", String::new()),
        Network::Own => {
            let port = FIRST_PORT + number;
            ("", format!("\n    ports:\n    - containerPort: 80\n      hostPort: {port}"))
        }
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:{network}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: stamp\n    image: {IMAGE}\n    \
         imagePullPolicy: Never\n    command:\n    - /stamp\n    - /out/{name}{ports}\n    \
         volumeMounts:\n    - name: out\n      mountPath: /out\n  volumes:\n  - name: out\n    \
         hostPath:\n      path: {}\n",
        payload.out.display()
    )
}

/// A node of its own, with the Kubernetes API.
pub(crate) struct Node {
    mainstay: PathBuf,
    directory: PathBuf,
    /// What the agent is given beside what every one is.
    arguments: Vec<String>,
    agent: Child,
    /// Asks its API, as a user who may do everything.
    pub(crate) client: Client,
    /// Milliseconds from the first start of the agent to an API that is ready; its keys and its store
    /// were made in that time.
    pub(crate) first_ready: f64,
    /// The pods whose manifests are there, each with where its payload wrote.
    pods: Vec<(PathBuf, PathBuf)>,
    /// Nothing of it is left.
    ended: bool,
}

impl Node {
    /// One that is ready. All of it lies below `directory`.
    pub(crate) fn start(
        programs: &Programs,
        directory: &Path,
        payload: &Payload,
    ) -> anyhow::Result<Self> {
        // However full the disk of this machine is, nothing is ended or refused for it.
        Self::configured(programs, directory, payload, "evictionHard: {}\n")
    }

    /// The same with its objects in the etcd on this port, whose certificate an authority has signed.
    pub(crate) fn over_etcd(
        programs: &Programs,
        directory: &Path,
        payload: &Payload,
        port: u16,
        authority: &Path,
    ) -> anyhow::Result<Self> {
        let store = format!("--store=etcds://127.0.0.1:{port}");
        let authority = format!("--etcd-cafile={}", authority.display());
        let arguments = vec![store, authority];
        Self::embedded(programs, directory, payload, "evictionHard: {}\n", arguments)
    }

    /// One whose pods are run by whoever listens on this socket, and has the image.
    pub(crate) fn over_runtime(
        programs: &Programs,
        directory: &Path,
        socket: &Path,
    ) -> anyhow::Result<Self> {
        let fields = "evictionHard: {}\nimageGCHighThresholdPercent: 100\n";
        let runtime = format!("--container-runtime-endpoint=unix://{}", socket.display());
        Self::with(programs, directory, fields, vec![runtime])
    }

    /// The same with these fields of a `KubeletConfiguration`, as YAML.
    pub(crate) fn configured(
        programs: &Programs,
        directory: &Path,
        payload: &Payload,
        fields: &str,
    ) -> anyhow::Result<Self> {
        Self::embedded(programs, directory, payload, fields, Vec::new())
    }

    /// One that runs its pods itself.
    fn embedded(
        programs: &Programs,
        directory: &Path,
        payload: &Payload,
        fields: &str,
        arguments: Vec<String>,
    ) -> anyhow::Result<Self> {
        let mut import = command(&programs.mainstay, directory);
        process::run(import.args(["image", "import"]).arg(&payload.image))?;
        Self::with(programs, directory, fields, arguments)
    }

    fn with(
        programs: &Programs,
        directory: &Path,
        fields: &str,
        arguments: Vec<String>,
    ) -> anyhow::Result<Self> {
        let mainstay = programs.mainstay.clone();
        let directory = directory.to_owned();
        fs::create_dir_all(directory.join("manifests"))?;
        let client = Client {
            program: programs.client.clone(),
            root_dir: directory.join("root"),
            run_dir: run_dir(&directory),
            token: token()?,
        };
        let user = format!("{},bench,bench,\"system:masters\"\n", client.token);
        let mut tokens = File::options();
        let tokens = tokens.create_new(true).write(true).mode(0o600).open(tokens_in(&directory));
        tokens.and_then(|mut file| file.write_all(user.as_bytes()))?;
        let kind = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        fs::write(configuration_in(&directory), format!("{kind}{fields}"))?;
        let waiting = client.begin(&json!({ "do": "ready" }))?;
        let start = now()?;
        let agent = spawn(&mainstay, &directory, &arguments)?;
        let pods = Vec::new();
        let (first_ready, ended) = (0.0, false);
        let mut node =
            Self { mainstay, directory, arguments, agent, client, first_ready, pods, ended };
        node.first_ready = ready(waiting)? - start;
        node.wait_for(|status| status["agent"] == true)?;
        Ok(node)
    }

    /// Takes down what there is below `directory` of a node that was not taken down.
    pub(crate) fn clear(programs: &Programs, directory: &Path) -> anyhow::Result<()> {
        if directory.join("root").exists() { down(&programs.mainstay, directory) } else { Ok(()) }
    }

    /// Ends the agent in order and starts another: milliseconds from that to an API that is ready.
    pub(crate) fn restart(&mut self) -> anyhow::Result<f64> {
        let status = process::terminate(&mut self.agent)?;
        ensure!(status.success(), "mainstay ended: {status}");
        let waiting = self.client.begin(&json!({ "do": "ready" }))?;
        let start = now()?;
        self.agent = spawn(&self.mainstay, &self.directory, &self.arguments)?;
        Ok(ready(waiting)? - start)
    }

    /// The port of its API.
    pub(crate) fn port(&self) -> anyhow::Result<u16> {
        let path = self.client.run_dir.join("secure-port");
        let port = fs::read_to_string(&path);
        let port = port.with_context(|| format!("cannot read {}", path.display()))?;
        port.trim().parse().with_context(|| format!("{} holds no port", path.display()))
    }

    /// The files with the certificate and the key of its API.
    pub(crate) fn identity(&self) -> [PathBuf; 2] {
        ["crt", "key"].map(|kind| self.client.root_dir.join(format!("pki/apiserver.{kind}")))
    }

    /// The file with the certificate of its authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.client.root_dir.join("pki/ca.crt")
    }

    /// Places manifests and removes them, one after the other; what becomes of their mirrors.
    pub(crate) fn mirrors(
        &self,
        payload: &Payload,
        rounds: usize,
        pause: Duration,
    ) -> anyhow::Result<Value> {
        let pods = (0..rounds).map(|number| {
            let (ready, placed, _) = self.write(payload, number, Network::Host)?;
            let name = format!("pod-{number}");
            let command = json!(["/stamp", format!("/out/{name}")]);
            let mirror = format!("{name}-{NAME}");
            Ok(json!({ "name": mirror, "ready": ready, "placed": placed, "command": command }))
        });
        let pods: Vec<Value> = pods.collect::<anyhow::Result<_>>()?;
        let pause = u64::try_from(pause.as_millis())?;
        self.client.ask(&json!({ "do": "mirrors", "pods": pods, "pause_ms": pause }))
    }

    /// Takes the API away from a node with `count` pods, and gives it back when a third of them was
    /// replaced, a third removed and as many added: milliseconds from an API that is ready to mirrors
    /// that are right.
    pub(crate) fn return_of_the_api(
        &mut self,
        payload: &Payload,
        count: usize,
    ) -> anyhow::Result<f64> {
        let (store, away) = (self.client.root_dir.join("api.redb"), self.directory.join("away"));
        let some = count / 3;
        self.all_at_once(payload, Network::Host, count)?;
        process::terminate(&mut self.agent)?;
        fs::rename(&store, &away)?;
        // It is no store, so the agent leaves it as it is and tries again.
        fs::write(&store, "away")?;
        self.agent = spawn(&self.mainstay, &self.directory, &self.arguments)?;
        self.wait_for(|status| running(status) == count)?;
        for (number, (placed, stamp)) in self.pods[..some].iter().enumerate() {
            fs::remove_file(stamp)?;
            let ready = self.directory.join("replaced");
            let text = manifest(payload, &format!("pod-{number}"), number, Network::Host);
            fs::write(&ready, text.replace("spec:", "  labels:\n    new: \"yes\"\nspec:"))?;
            fs::rename(ready, placed)?;
        }
        for (placed, _) in self.pods.drain(some..2 * some) {
            fs::remove_file(placed)?;
        }
        for number in count..count + some {
            let (ready, placed, stamp) = self.write(payload, number, Network::Host)?;
            fs::rename(ready, &placed)?;
            self.pods.push((placed, stamp));
        }
        for (_, stamp) in &self.pods {
            payload.wait_for(stamp)?;
        }
        self.wait_for(|status| {
            let all = status["pods"].as_array().map_or(0, Vec::len);
            all == count && running(status) == count
        })?;
        let work = json!({ "do": "return", "mirrors": mirrors(&self.status()?) });
        let waiting = self.client.begin(&work)?;
        fs::rename(away, store)?;
        let took = waiting.answer()?;
        let took = took.as_f64().context("the client does not know when the mirrors were right")?;
        self.remove_all()?;
        Ok(took)
    }

    /// Renames a manifest into the directory, and waits for its pod's payload.
    pub(crate) fn single_starts(
        &mut self,
        payload: &Payload,
        network: Network,
        rounds: usize,
        pause: Duration,
    ) -> anyhow::Result<Samples> {
        let mut samples = Vec::new();
        for number in 0..rounds {
            std::thread::sleep(pause);
            samples.push(self.start_one(payload, number, network)?);
        }
        self.remove_all()?;
        Ok(Samples::new(samples))
    }

    /// The same once. The pod is there until all are removed.
    pub(crate) fn start_one(
        &mut self,
        payload: &Payload,
        number: usize,
        network: Network,
    ) -> anyhow::Result<f64> {
        let (ready, placed, stamp) = self.write(payload, number, network)?;
        let start = now()?;
        fs::rename(&ready, &placed)?;
        let began = payload.wait_for(&stamp)?;
        self.pods.push((placed, stamp));
        Ok(began - start)
    }

    /// Writes a manifest beside the directory: where it is, where it goes, where its payload
    /// writes.
    fn write(
        &self,
        payload: &Payload,
        number: usize,
        network: Network,
    ) -> anyhow::Result<(PathBuf, PathBuf, PathBuf)> {
        let name = format!("pod-{number}");
        let stamp = payload.fresh(&name)?;
        let ready = self.directory.join(&name);
        fs::write(&ready, manifest(payload, &name, number, network))?;
        Ok((ready, self.manifest(&name), stamp))
    }

    /// Places a manifest of another kind of pod than the others, whose payload writes `out/<name>`, and waits
    /// for that. Returns where it writes.
    pub(crate) fn place(
        &mut self,
        payload: &Payload,
        name: &str,
        manifest: &Value,
    ) -> anyhow::Result<PathBuf> {
        let stamp = payload.fresh(name)?;
        let (ready, placed) = (self.directory.join(name), self.manifest(name));
        fs::write(&ready, serde_json::to_vec_pretty(manifest)?)?;
        fs::rename(ready, &placed)?;
        self.pods.push((placed, stamp.clone()));
        payload.wait_for(&stamp)?;
        Ok(stamp)
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.directory.join("manifests").join(format!("{name}.yaml"))
    }

    /// Milliseconds from the first of many renames to the last entrypoint.
    pub(crate) fn all_at_once(
        &mut self,
        payload: &Payload,
        network: Network,
        count: usize,
    ) -> anyhow::Result<f64> {
        let written = (0..count).map(|number| self.write(payload, number, network));
        let written: Vec<_> = written.collect::<anyhow::Result<_>>()?;
        let start = now()?;
        for (ready, placed, _) in &written {
            fs::rename(ready, placed)?;
        }
        let mut last = start;
        for (_, placed, stamp) in written {
            last = last.max(payload.wait_for(&stamp)?);
            self.pods.push((placed, stamp));
        }
        self.wait_for(|status| running(status) == count)?;
        Ok(last - start)
    }

    /// Removes manifests one by one, and waits for their processes to be gone.
    pub(crate) fn removals(
        &mut self,
        payload: &Payload,
        rounds: usize,
        pause: Duration,
    ) -> anyhow::Result<Samples> {
        let mut samples = Vec::new();
        for number in 0..rounds {
            self.start_one(payload, number, Network::Host)?;
            let path = format!("/out/pod-{number}");
            let pid = payload_process(&path)?.context("the payload does not run")?;
            std::thread::sleep(pause);
            let (placed, _) = self.pods.pop().context("there is no pod")?;
            let start = Instant::now();
            fs::remove_file(placed)?;
            wait_for_end(pid)?;
            samples.push(milliseconds(start.elapsed()));
        }
        self.remove_all()?;
        Ok(Samples::new(samples))
    }

    /// Removes all manifests and waits until nothing of their pods is left.
    pub(crate) fn remove_all(&mut self) -> anyhow::Result<()> {
        for (placed, _) in self.pods.drain(..) {
            fs::remove_file(placed)?;
        }
        self.wait_for(|status| status["pods"].as_array().is_some_and(Vec::is_empty))?;
        let start = Instant::now();
        while !self.shims()?.is_empty() {
            ensure!(start.elapsed() < PATIENCE, "a shim does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The process of the agent.
    pub(crate) fn agent(&self) -> u32 {
        self.agent.id()
    }

    /// Waits until so many pods run.
    pub(crate) fn wait_for_running(&self, count: usize) -> anyhow::Result<()> {
        self.wait_for(|status| running(status) == count)
    }

    pub(crate) fn agent_memory(&self) -> anyhow::Result<u64> {
        measure::memory(self.agent.id())
    }

    pub(crate) fn shim_memory(&self) -> anyhow::Result<u64> {
        self.shims()?.into_iter().map(measure::memory).sum()
    }

    /// The part of one processor's time that the agent and the shims use.
    pub(crate) fn cpu_share(&self, during: Duration) -> anyhow::Result<f64> {
        let before = self.cpu_seconds()?;
        std::thread::sleep(during);
        Ok((self.cpu_seconds()? - before) / during.as_secs_f64())
    }

    /// The processor time that the agent and the shims have used so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let pids = self.shims()?.into_iter().chain([self.agent.id()]);
        pids.map(measure::cpu_seconds).sum()
    }

    /// The shims of this instance: those that listen below its run directory. What they fork for a
    /// moment, to enter a container, is none.
    fn shims(&self) -> anyhow::Result<Vec<u32>> {
        let mut parents = BTreeMap::new();
        for pid in processes()? {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field = |name| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.map(str::trim).unwrap_or_default()
            };
            // Its log is open as long as it is there.
            let log = fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
            if field("Name:") == "mainstay-shim" && log.starts_with(&self.client.run_dir) {
                parents.insert(pid, field("PPid:").parse::<u32>()?);
            }
        }
        let of_a_shim = |parent: &u32| parents.contains_key(parent);
        Ok(parents.iter().filter(|(_, parent)| !of_a_shim(parent)).map(|(pid, _)| *pid).collect())
    }

    /// Kills the agent, starts another, and measures until it knows all pods.
    pub(crate) fn kill_and_start(&mut self, count: usize) -> anyhow::Result<f64> {
        let before = containers(&self.status()?);
        ensure!(before.len() == count, "{} of {count} pods run", before.len());
        self.agent.kill()?;
        self.agent.wait()?;
        let start = Instant::now();
        self.agent = spawn(&self.mainstay, &self.directory, &self.arguments)?;
        self.wait_for(|status| running(status) == count)?;
        let took = milliseconds(start.elapsed());
        ensure!(containers(&self.status()?) == before, "a container was restarted");
        Ok(took)
    }

    fn wait_for(&self, done: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if status.as_ref().is_ok_and(&done) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("after {PATIENCE:?} the node is like this: {status:#?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks the agent itself: starting a command would be measured too.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(self.client.run_dir.join("mainstay.sock"))?;
        stream.write_all(b"GET /status HTTP/1.0\r\nHost: mainstay\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let body = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let body = body.context("the agent's answer has no end")?;
        Ok(serde_json::from_slice(&answer[body + 4..])?)
    }

    /// Takes everything down.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.down()?;
        self.ended = true;
        let status = self.agent.wait()?;
        ensure!(status.success(), "mainstay ended: {status}");
        Ok(())
    }

    fn down(&self) -> anyhow::Result<()> {
        down(&self.mainstay, &self.directory)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // After an error: nothing is to run on. Pods do, whatever became of their agent; one that
        // does not end stands in the way.
        let down = self.down().or_else(|_| {
            self.agent.kill()?;
            self.agent.wait()?;
            self.down()
        });
        if let Err(error) = down {
            eprintln!("the node in {} is not down: {error:#}", self.directory.display());
        }
    }
}

fn spawn(mainstay: &Path, directory: &Path, arguments: &[String]) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(directory.join("agent.log"))?;
    let mut run = command(mainstay, directory);
    run.arg("run").arg(format!("--hostname-override={NAME}"));
    run.args(["--secure-port=0", "--port=0", "--healthz-port=0", "--token-auth-file"]);
    run.arg(tokens_in(directory)).arg("--pod-manifest-path").arg(directory.join("manifests"));
    run.arg("--config").arg(configuration_in(directory)).args(arguments);
    run.stderr(log);
    run.spawn().context("cannot start mainstay")
}

/// When an API that is waited for was ready, in milliseconds since the epoch.
fn ready(waiting: Job) -> anyhow::Result<f64> {
    waiting.answer()?.as_f64().context("the client does not know when the API was ready")
}

/// What nobody guesses.
fn token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The file with the users' tokens.
fn tokens_in(directory: &Path) -> PathBuf {
    directory.join("tokens.csv")
}

fn configuration_in(directory: &Path) -> PathBuf {
    directory.join("config.yaml")
}

fn down(mainstay: &Path, directory: &Path) -> anyhow::Result<()> {
    process::run(command(mainstay, directory).args(["down", "--purge"]))
}

fn command(mainstay: &Path, directory: &Path) -> Command {
    let mut command = process::command(mainstay);
    command.arg("--root-dir").arg(directory.join("root"));
    command.arg("--run-dir").arg(run_dir(directory));
    command
}

/// The `--run-dir` of the node in `directory`: in the `run` that all have together.
pub(crate) fn run_dir(directory: &Path) -> PathBuf {
    directory.with_file_name("run").join(directory.file_name().unwrap_or_default())
}

fn running(status: &Value) -> usize {
    let pods = status["pods"].as_array().into_iter().flatten();
    pods.filter(|pod| pod["state"] == "Running" && pod["ready"] == pod["containers"]).count()
}

/// The ids of all containers, in order.
fn containers(status: &Value) -> Vec<String> {
    let pods = status["pods"].as_array().into_iter().flatten();
    let containers = pods.flat_map(|pod| pod["status"]["containerStatuses"].as_array());
    let mut ids: Vec<String> = containers
        .flatten()
        .filter_map(|container| container["containerID"].as_str().map(str::to_owned))
        .collect();
    ids.sort();
    ids
}

/// What mirrors should tell: the ids of each pod's containers.
fn mirrors(status: &Value) -> BTreeMap<&str, Vec<&str>> {
    fn mirror(pod: &Value) -> Option<(&str, Vec<&str>)> {
        let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let ids = containers.filter_map(|container| container["containerID"].as_str()).collect();
        Some((pod["name"].as_str()?, ids))
    }
    status["pods"].as_array().into_iter().flatten().filter_map(mirror).collect()
}

fn processes() -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("cannot list /proc")?;
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(entries.flatten().filter_map(pid).collect())
}

/// Waits until there is no such process.
pub(crate) fn wait_for_end(pid: u32) -> anyhow::Result<()> {
    let start = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        ensure!(start.elapsed() < PATIENCE, "process {pid} does not end");
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// The process of the payload that writes to `path`, as it calls it.
pub(crate) fn payload_process(path: &str) -> anyhow::Result<Option<u32>> {
    let wanted = format!("/stamp\0{path}\0");
    let is = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    };
    Ok(processes()?.into_iter().find(is))
}
