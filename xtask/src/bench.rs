//! `cargo xtask bench`: the promises of SPECIFICATION.md, measured.
//!
//! Everything is measured in one run, on one machine, in one state. What others need for the same work
//! stands beside it, and the ratios are what counts: absolute times hold for this machine only.
//!
//! - `--pods` measures starts, ends and memory of pods only.
//! - `--api` measures the Kubernetes API only.
//! - `--scale` measures many nodes and pods only.
//! - `--upkeep` measures probes, logs and what becomes of a short disk only.
//! - `--containerd` measures starts of pods on Debian's containerd only.
//! - `--alone` measures nobody but mainstay.
//! - `--quick` does little of everything, and does not wait until the machine is quiet: to see whether
//!   all of it works.
//! - `--programs=DIR` measures the programs there, as cargo leaves them in `target/debug`, and builds
//!   none: `cargo build -p mainstay -p mainstay-shim` and
//!   `cargo build -p mainstay-e2e --example api_client --example cri_client` make them.

mod api;
mod client;
mod containerd;
mod load;
mod measure;
mod mounts;
mod node;
mod others;
mod payload;
mod pods;
mod scale;
mod servers;
mod table;
mod upkeep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::debian::Scratch;
use crate::{install, process};
use mounts::Mount;
use node::Node;
use payload::Payload;
use table::Table;

/// The client of the API, which is an example of `mainstay-e2e`.
const CLIENT: &str = "api_client";

/// The client of a container runtime, which is another.
const CRI_CLIENT: &str = "cri_client";

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    alone: bool,
    api: bool,
    containerd: bool,
    pods: bool,
    quick: bool,
    scale: bool,
    upkeep: bool,
    programs: Option<PathBuf>,
}

/// How much is done.
struct Extent {
    /// How often single starts and other short things are measured.
    rounds: usize,
    /// How often what takes long by itself is.
    few: usize,
    /// How many pods are many.
    many: usize,
    /// How many are some.
    some: usize,
    /// How long idle pods are watched.
    idle: Duration,
    /// How long after a start of many pods an agent is at rest: the fresh part of the store's history
    /// (`mainstay_store::embedded::Window`) has gone by then.
    rest: Duration,
    /// How long nothing is done between two starts, as on a machine where now and then a pod is
    /// started.
    pause: Duration,
    /// How long a server is asked as fast as it answers. Whole seconds.
    load: Duration,
    /// How many pods are listed.
    listed: usize,
    /// How many watch the same pod.
    watchers: usize,
    /// How many nodes there are that nobody runs.
    nodes: usize,
    /// How many pods these get, each more than the one before.
    sizes: [usize; 3],
    /// How many pods are drained.
    drained: usize,
    /// How many pods are probed.
    probed: usize,
    /// How many lines a container prints.
    lines: u64,
    /// How often the disk becomes short.
    short: usize,
    /// Whether what one program leaves to be done is waited for before the next one.
    settle: bool,
}

const FULL: Extent = Extent {
    rounds: 20,
    few: 10,
    many: 100,
    some: 20,
    idle: Duration::from_secs(30),
    rest: Duration::from_secs(90),
    pause: Duration::from_millis(600),
    load: Duration::from_secs(10),
    listed: 500,
    watchers: 1000,
    nodes: 100,
    sizes: [10, 100, 1000],
    drained: 100,
    probed: 50,
    lines: 5_000_000,
    short: 5,
    settle: true,
};

const QUICK: Extent = Extent {
    rounds: 2,
    few: 2,
    many: 4,
    some: 3,
    idle: Duration::from_secs(1),
    rest: Duration::from_secs(1),
    pause: Duration::from_millis(200),
    load: Duration::from_secs(1),
    listed: 10,
    watchers: 20,
    nodes: 4,
    sizes: [2, 10, 50],
    drained: 4,
    probed: 2,
    lines: 100_000,
    short: 1,
    settle: false,
};

/// A little of everything with as many pods as there are on a full node: some functions run for many only, as those
/// that sort more than a few, or split a full page.
const EXERCISE: Extent = Extent { many: FULL.many, some: FULL.some, ..QUICK };

/// The programs that take part, absolutely.
#[derive(Clone)]
pub(crate) struct Programs {
    pub(crate) mainstay: PathBuf,
    /// A client of the API: `crates/mainstay-e2e/examples/api_client`.
    pub(crate) client: PathBuf,
    /// Where they are.
    directory: PathBuf,
}

/// What all measurements need.
struct Bench {
    programs: Programs,
    /// Holds the sockets of nodes, and what else may vanish at boot. Unmounted before what it lies in.
    _run: Mount,
    /// What `directory` is, if not the machine's.
    _disk: Option<Mount>,
    /// Where everything is; absolute, since paths in manifests and bundles are.
    directory: PathBuf,
    payload: Payload,
    extent: &'static Extent,
    /// Whether nobody else is measured.
    alone: bool,
    /// Whether nothing but the API is.
    api: bool,
}

/// What is measured.
struct Wanted {
    pods: bool,
    api: bool,
    scale: bool,
    upkeep: bool,
    containerd: bool,
}

/// Measures, prints, and says what is promised and not kept.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let options = Options::parse(arguments)?;
    let extent = if options.quick { &QUICK } else { &FULL };
    measure_all(&options, extent)
}

fn measure_all(options: &Options, extent: &'static Extent) -> anyhow::Result<()> {
    process::require_root()?;
    let programs = match &options.programs {
        Some(directory) => Programs::below(directory)?,
        None => Programs::build()?,
    };
    let directory = place()?;
    let fresh = directory.join("fresh");
    // What a run left that was killed.
    Node::clear(&programs, &fresh.join(pods::NODE))?;
    for node in [api::NODE, api::BEHIND, scale::NODE].iter().chain(&upkeep::NODES) {
        Node::clear(&programs, &directory.join(node))?;
    }
    containerd::clear(&programs, &directory);
    mounts::clear(&directory)?;
    let _scratch = Scratch::new(&directory)?;
    let wanted = options.wanted();
    let starts = match wanted.pods {
        true => {
            let disk = Mount::disk(&fresh)?;
            Some(Bench::new(options, extent, &programs, &fresh, Some(disk))?)
        }
        false => None,
    };
    let bench = Bench::new(options, extent, &programs, &directory, None)?;
    let mut table = Table::default();

    table.say(&measure::machine()?);
    if options.quick {
        table.say("little is done, on a machine that may be busy: the figures mean nothing");
    }
    let pods =
        starts.as_ref().map(|bench| pods::Figures::measure(bench, &mut table)).transpose()?;
    let api = wanted.api.then(|| api::Figures::measure(&bench)).transpose()?;
    let scale = wanted.scale.then(|| scale::Figures::measure(&bench)).transpose()?;
    let upkeep = wanted.upkeep.then(|| upkeep::Figures::measure(&bench)).transpose()?;
    let containerd = wanted.containerd.then(|| containerd::Figures::measure(&bench)).transpose()?;
    table.head();
    if let Some(pods) = &pods {
        pods.tell(&mut table);
    }
    if let Some(api) = &api {
        api.tell(&mut table)?;
    }
    if let Some(scale) = &scale {
        scale.tell(&mut table);
    }
    if let Some(upkeep) = &upkeep {
        upkeep.tell(&mut table);
    }
    if let Some(containerd) = &containerd {
        containerd.tell(&mut table);
    }
    println!("\n{table}");
    Ok(())
}

/// Has the programs in `directory` look after many pods for a while, and then a little of everything that is measured.
pub(crate) fn exercise(directory: &Path, idle: Duration) -> anyhow::Result<()> {
    let programs = Programs::below(directory)?;
    let place = place()?;
    let node = place.join(pods::NODE);
    Node::clear(&programs, &node)?;
    let scratch = Scratch::new(&place)?;
    let payload = Payload::make(&place)?;
    let mut node = Node::start(&programs, &node, &payload)?;
    node.all_at_once(&payload, node::Network::Own, EXERCISE.many)?;
    std::thread::sleep(idle);
    node.remove_all()?;
    node.end()?;
    drop(scratch);
    let programs = Some(directory.to_owned());
    measure_all(&Options { alone: true, quick: true, programs, ..Options::default() }, &EXERCISE)
}

/// Where all that is measured is.
fn place() -> anyhow::Result<PathBuf> {
    std::path::absolute("target/bench").context("there is no current directory")
}

/// Builds the client of the API, and says where it is.
pub(crate) fn build_client(release: &Path) -> anyhow::Result<PathBuf> {
    build_examples(&[CLIENT])?;
    Ok(release.join("examples").join(CLIENT))
}

fn build_examples(names: &[&str]) -> anyhow::Result<()> {
    let mut command = process::cargo();
    // What is measured is built without them, so that it has no features but its own.
    command.args(["build", "--release", "--locked", "--package=mainstay-e2e"]);
    process::run(command.args(names.iter().flat_map(|name| ["--example", name])))
}

// === impl Options ===

impl Options {
    fn parse(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        for argument in arguments {
            match *argument {
                "--alone" => options.alone = true,
                "--api" => options.api = true,
                "--containerd" => options.containerd = true,
                "--pods" => options.pods = true,
                "--quick" => options.quick = true,
                "--scale" => options.scale = true,
                "--upkeep" => options.upkeep = true,
                other => match other.strip_prefix("--programs=") {
                    Some(directory) => options.programs = Some(directory.into()),
                    None => bail!(
                        "bench has no option {other}; there are --alone, --api, --containerd, --pods, \
                         --quick, --scale, --upkeep and --programs=DIR"
                    ),
                },
            }
        }
        Ok(options)
    }

    /// All of it, or only what is named.
    fn wanted(&self) -> Wanted {
        let all = !(self.pods || self.api || self.scale || self.upkeep || self.containerd);
        Wanted {
            pods: all || self.pods,
            api: all || self.api,
            scale: all || self.scale,
            upkeep: all || self.upkeep,
            // It is nothing without others.
            containerd: all && !self.alone || self.containerd,
        }
    }
}

// === impl Programs ===

impl Programs {
    fn build() -> anyhow::Result<Self> {
        let release = install::build()?;
        build_examples(&[CLIENT, CRI_CLIENT])?;
        Self::below(&release)
    }

    fn below(directory: &Path) -> anyhow::Result<Self> {
        let program = |name: &str| {
            std::fs::canonicalize(directory.join(name))
                .with_context(|| format!("there is no {name} in {}", directory.display()))
        };
        let (mainstay, client) = (program("mainstay")?, program(&format!("examples/{CLIENT}"))?);
        Ok(Self { mainstay, client, directory: directory.to_owned() })
    }

    /// A client of a container runtime: `crates/mainstay-e2e/examples/cri_client`.
    pub(crate) fn cri_client(&self) -> PathBuf {
        self.directory.join("examples").join(CRI_CLIENT)
    }
}

// === impl Bench ===

impl Bench {
    fn new(
        options: &Options,
        extent: &'static Extent,
        programs: &Programs,
        directory: &Path,
        disk: Option<Mount>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            programs: programs.clone(),
            _run: Mount::memory(&directory.join("run"), "mode=755")?,
            _disk: disk,
            payload: Payload::make(directory)?,
            directory: directory.to_owned(),
            extent,
            alone: options.alone,
            api: options.api,
        })
    }

    /// Waits until what others have left to be done is done.
    fn settle(&self) -> anyhow::Result<()> {
        if self.extent.settle { measure::settle() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn options_are_told_apart() {
        let options = Options::parse(&["--api", "--programs=target/debug"]).unwrap();
        let programs = Some("target/debug".into());
        assert_eq!(options, Options { api: true, programs, ..Options::default() });
        assert!(Options::parse(&["--apis"]).is_err());
    }
}
