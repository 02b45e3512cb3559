//! `mainstay logs`

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use mainstay_cri::{ContainerId, Runtime};
use mainstay_engine::Engine;
use mainstay_node::{LogOptions, LogReader};

use super::pods;
use crate::instance::Instance;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How much is printed at a time.
const CHUNK: usize = 1 << 20;

/// Print the log of a container, with or without an agent, also after it ended.
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// The pod's name, with or without the node's name; NAMESPACE/NAME where there are several.
    pod: String,
    /// The container. Default: the pod's first.
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on with what is written later, until the container ends.
    #[arg(short, long)]
    follow: bool,
    /// The log of the container before the last restart.
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Only the last so many lines; -1 is all.
    #[arg(long, value_name = "LINES", default_value = "-1", allow_hyphen_values = true)]
    tail: i64,
    /// Only what is not older than this: 30s, 5m, 2h.
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Only what was written since this time, such as 2026-01-02T03:04:05Z.
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<Timestamp>,
    /// Put its time before each line.
    #[arg(long)]
    timestamps: bool,
}

/// A log, and the container that may still write it.
struct Log {
    path: PathBuf,
    writer: Option<(Engine, ContainerId)>,
}

impl Logs {
    pub(super) fn run(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        super::runtime()?.block_on(self.print(instance))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn print(self, instance: &Instance) -> anyhow::Result<()> {
        let options = self.options()?;
        let log = self.find(instance).await?;
        let mut reader = match LogReader::open(&log.path, options) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.previous => {
                bail!("the container has not been restarted")
            }
            other => other.with_context(|| format!("cannot read {}", log.path.display()))?,
        };
        loop {
            // Asked first: what it wrote before it ended is there when it is seen to have ended.
            let ended = !self.follow || log.has_ended().await;
            if !print_all(&mut reader)? || ended {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn options(&self) -> anyhow::Result<LogOptions> {
        let since = match &self.since {
            Some(text) => {
                let since: SignedDuration =
                    text.parse().with_context(|| format!("--since {text:?}: not a duration"))?;
                Some(Timestamp::now().checked_sub(since)?)
            }
            None => self.since_time,
        };
        // As kubectl has it: all below 0.
        Ok(LogOptions { tail: usize::try_from(self.tail).ok(), since, timestamps: self.timestamps })
    }

    async fn find(&self, instance: &Instance) -> anyhow::Result<Log> {
        let engine = pods::visit(instance).await?;
        let Some(sandbox) = pods::find(&engine, &self.pod).await? else {
            return self.find_on_disk(&instance.log_directory());
        };
        let container = pods::container(&sandbox, self.container.as_deref())?;
        let path = PathBuf::from(&container.log_path);
        if self.previous {
            return Ok(Log { path: previous(&path)?, writer: None });
        }
        Ok(Log { path, writer: Some((engine, container.id.clone())) })
    }

    /// The log of a pod of which nothing but its log is left, such as one that ended before the
    /// machine was started.
    fn find_on_disk(&self, directory: &Path) -> anyhow::Result<Log> {
        let (namespace, wanted) = match self.pod.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, self.pod.as_str()),
        };
        let mut found: Vec<PathBuf> = Vec::new();
        for path in listed(directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Source: `BuildPodLogsDirectory`; none of the three has an underscore.
            let parts: Vec<&str> = name.split('_').collect();
            let &[in_namespace, full, _uid] = parts.as_slice() else { continue };
            let is_meant = full == wanted || full.starts_with(&format!("{wanted}-"));
            if is_meant && namespace.is_none_or(|namespace| namespace == in_namespace) {
                found.push(path);
            }
        }
        let pod = match found.as_slice() {
            [] => bail!("there is no pod {} here; `mainstay status` lists them", self.pod),
            [pod] => pod,
            several => {
                let names: Vec<String> = several
                    .iter()
                    .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into())
                    .collect();
                bail!("{:?} may be one of {}", self.pod, names.join(", "));
            }
        };
        let containers = listed(pod)?;
        let name = |path: &PathBuf| path.file_name().map(ToOwned::to_owned);
        let container = match &self.container {
            Some(wanted) => containers.iter().find(|path| name(path) == Some(wanted.into())),
            None => containers.first(),
        };
        let container = container.context("the pod has no log of such a container")?;
        let newest = attempts(container)?;
        let newest = newest.last().context("the container has not written a log")?;
        let path = container.join(format!("{newest}.log"));
        let path = if self.previous { previous(&path)? } else { path };
        Ok(Log { path, writer: None })
    }
}

impl Log {
    async fn has_ended(&self) -> bool {
        let Some((engine, id)) = &self.writer else { return true };
        let status = engine.container_status(id).await;
        !status.is_ok_and(|status| pods::is_running(&status))
    }
}

/// The log of the attempt before that of `log`.
fn previous(log: &Path) -> anyhow::Result<PathBuf> {
    let directory = log.parent().context("the log has no directory")?;
    let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u32>().ok();
    let present = number(log);
    let before = attempts(directory)?.into_iter().rfind(|attempt| Some(*attempt) < present);
    let before = before.context("the container has not been restarted")?;
    Ok(directory.join(format!("{before}.log")))
}

/// The attempts of a container that have logs, in order.
fn attempts(directory: &Path) -> anyhow::Result<Vec<u32>> {
    let number =
        |path: &PathBuf| path.file_name()?.to_str()?.strip_suffix(".log")?.parse::<u32>().ok();
    let mut attempts: Vec<u32> = listed(directory)?.iter().filter_map(number).collect();
    attempts.sort_unstable();
    Ok(attempts)
}

fn listed(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("cannot list {}", directory.display()))?,
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

/// Prints what there is. Returns whether somebody still listens.
fn print_all(reader: &mut LogReader) -> anyhow::Result<bool> {
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        reader.read(&mut chunk, CHUNK).context("cannot read the log")?;
        if chunk.is_empty() {
            return Ok(true);
        }
        let mut out = io::stdout().lock();
        match out.write_all(&chunk).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            other => other.context("cannot print the log")?,
        }
    }
}
