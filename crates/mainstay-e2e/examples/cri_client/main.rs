//! Debian's containerd for an agent, and a client of it that asks for the same as that agent, for
//! `cargo xtask bench`.
//!
//! The first line of the standard input says whose containerd it is, the others what there is to do; each is JSON,
//! and is answered by a line of JSON: `done` and what came of it, or `failed` and why. With the end of the input it
//! all ends: the instance, if it is still there, and then containerd.

mod recorder;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, ensure};
use mainstay_cri_grpc::methods::{
    CREATE_CONTAINER, REMOVE_POD_SANDBOX, RUN_POD_SANDBOX, START_CONTAINER, STOP_POD_SANDBOX,
};
use mainstay_e2e::replay::{Copy, Raw};
use mainstay_engine::network::Names;
use mainstay_grpc::{Channel, Endpoint};
use mainstay_linux::cgroup::Hierarchies;
use mainstay_testkit::containerd::Containerd;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use recorder::Recorder;

/// The label by which an agent knows what is its own.
const MARK: &str = "mainstay.dev/instance";

/// The recorder's socket.
const RECORDER: &str = "recorder.sock";

/// Whose containerd it is.
#[derive(Deserialize)]
struct Job {
    instance: Instance,
    /// Files with images that it has.
    images: Vec<PathBuf>,
}

/// An instance of mainstay, which need not be there yet.
#[derive(Deserialize)]
struct Instance {
    program: PathBuf,
    root_dir: PathBuf,
    run_dir: PathBuf,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Work {
    /// Leads who connects to the agent's socket from now on to one of the two.
    Lead { to: Way },
    /// Asks for what was asked for when this pod was started, and for no more: when that began, in milliseconds
    /// since the epoch, and how long each of the calls took.
    Start { pod: String },
    /// Removes all that was started.
    Remove,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// Remembers what is asked for.
    Recorder,
    Containerd,
}

/// The id that a request is about, or that an answer gives to what was made.
#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

/// Everything, in the order in which it goes.
struct Client {
    runtime: Arc<Channel>,
    recorder: Arc<Recorder>,
    _listening: JoinSet<()>,
    /// The sandboxes that were started.
    started: Vec<String>,
    /// How many there were ever.
    count: u32,
    /// The instance's control group.
    cgroup: String,
    instance: Instance,
    containerd: Containerd,
    directory: TempDir,
}

fn main() -> anyhow::Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let job = lines.next().context("nobody says whose containerd it is")??;
    let job: Job = serde_json::from_str(&job).context("this is not a job")?;
    // One thread that asks, and one for what carries it.
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build()?;
    let mut client = runtime.block_on(async { Client::new(job) })?;
    say(&json!({ "done": client.socket() }))?;
    for line in lines {
        let done = serde_json::from_str(&line?).context("there is no such work");
        let done = done.and_then(|work| runtime.block_on(client.carry_out(work)));
        // The agent needs its runtime to end its pods.
        say(&match done {
            Ok(answer) => json!({ "done": answer }),
            Err(error) => json!({ "failed": format!("{error:#}") }),
        })?;
    }
    // They are in the instance's control group.
    runtime.block_on(client.remove())?;
    client.end()
}

/// Whoever is not there any more ends the input, too.
fn say(answer: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{answer}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

// === impl Client ===

impl Client {
    /// A containerd that runs, to which nobody is led yet.
    fn new(Job { instance, images }: Job) -> anyhow::Result<Self> {
        // Short, since names of sockets have 107 bytes.
        let directory = tempfile::Builder::new().prefix("mc-").tempdir()?;
        let cgroup = format!("/{}", Names::of(&instance.root_dir).table);
        let containerd = Containerd::start(directory.path(), &cgroup, Some(&instance.root_dir));
        for image in images {
            containerd.import(&image);
        }
        let runtime = Arc::new(Channel::new(Endpoint::Unix(containerd.socket()), "containerd"));
        let recorder = Recorder::new(runtime.clone());
        let mut listening = JoinSet::new();
        listening.spawn(recorder.clone().listen(&directory.path().join(RECORDER))?);
        Ok(Self {
            runtime,
            recorder,
            _listening: listening,
            started: Vec::new(),
            count: 0,
            cgroup,
            instance,
            containerd,
            directory,
        })
    }

    /// The agent's.
    fn socket(&self) -> PathBuf {
        self.directory.path().join("cri.sock")
    }

    async fn carry_out(&mut self, work: Work) -> anyhow::Result<Value> {
        match work {
            Work::Lead { to } => {
                let to = match to {
                    Way::Recorder => self.directory.path().join(RECORDER),
                    Way::Containerd => self.containerd.socket(),
                };
                self.lead(&to)?;
                Ok(Value::Null)
            }
            Work::Start { pod } => self.start(&pod).await,
            Work::Remove => self.remove().await.map(|()| Value::Null),
        }
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        while let Some(id) = self.started.pop() {
            let request = Id { id };
            for method in [STOP_POD_SANDBOX, REMOVE_POD_SANDBOX] {
                let _: Raw = self.runtime.call(method, &request, None).await?;
            }
        }
        Ok(())
    }

    fn lead(&self, to: &Path) -> anyhow::Result<()> {
        let new = self.directory.path().join("new.sock");
        symlink(to, &new)?;
        fs::rename(new, self.socket()).context("cannot lead the agent to another socket")
    }

    async fn start(&mut self, pod: &str) -> anyhow::Result<Value> {
        let asked = self.recorder.pod(pod).with_context(|| format!("nobody asked for {pod}"))?;
        self.count += 1;
        let copy = Copy {
            // The first ones are the agent's.
            attempt: 1000 + self.count,
            labels: BTreeMap::from([(MARK.to_owned(), "nobody".to_owned())]),
            // All that is below the instance's is ended with containerd, at the latest.
            cgroup_parent: format!("{}/copy-{}", self.cgroup, self.count),
        };
        // As an agent has it made before it asks.
        Hierarchies::mounted()?.at(&copy.cgroup_parent).create()?;
        let sandbox = copy.sandbox(&asked.sandbox);
        self.runtime.connect().await?;
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut clock = Instant::now();
        let mut calls = Vec::new();
        let mut lap = || {
            calls.push(clock.elapsed().as_secs_f64() * 1000.0);
            clock = Instant::now();
        };
        let made: Id = self.runtime.call(RUN_POD_SANDBOX, &sandbox, None).await?;
        lap();
        self.started.push(made.id.clone());
        let container = copy.container(&asked.container, &made.id);
        let made: Id = self.runtime.call(CREATE_CONTAINER, &container, None).await?;
        lap();
        let _: Raw = self.runtime.call(START_CONTAINER, &made, None).await?;
        lap();
        let began = began.context("the clock is before 1970")?.as_secs_f64() * 1000.0;
        Ok(json!({ "began": began, "calls": calls }))
    }

    /// Ends the instance, if nobody has, while there is a runtime that can end its pods.
    fn end(self) -> anyhow::Result<()> {
        if !self.instance.root_dir.exists() {
            return Ok(());
        }
        let mut down = command(&self.instance.program);
        down.arg("--root-dir").arg(&self.instance.root_dir);
        down.arg("--run-dir").arg(&self.instance.run_dir).args(["down", "--purge"]);
        let status = down.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "the instance is not down: {status}");
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "mainstay is a program")]
fn command(program: &Path) -> Command {
    Command::new(program)
}
