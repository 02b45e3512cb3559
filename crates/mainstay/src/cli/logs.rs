//! `mainstay logs`

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use mainstay_cri::{ContainerId, Runtime};
use mainstay_node::{LogOptions, LogReader};

use super::pods::{self, is_meant};
use crate::instance::{Instance, NodeRecord};

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
    writer: Option<(Arc<dyn Runtime>, ContainerId)>,
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
        let tail = usize::try_from(self.tail).ok();
        Ok(LogOptions { tail, since, timestamps: self.timestamps, stream: None })
    }

    async fn find(&self, instance: &Instance) -> anyhow::Result<Log> {
        let found = match pods::find(instance, &self.pod).await {
            // What was written is on the disk, and wanted then.
            Err(error) if pods::is_away(&error) => {
                eprintln!("mainstay: {error:#}; these are the logs that it left");
                None
            }
            other => other?,
        };
        let Some((runtime, sandbox)) = found else {
            return self.find_on_disk(&instance.node()?, &instance.pods()?);
        };
        let container = pods::container(&sandbox, self.container.as_deref())?;
        let path = PathBuf::from(&container.log_path);
        if self.previous {
            return Ok(Log { path: previous(&path)?, writer: None });
        }
        Ok(Log { path, writer: Some((runtime, container.id.clone())) })
    }

    /// The log of a pod of which nothing but its log is left, such as one that ended before the
    /// machine was started.
    ///
    /// The directory may have the logs of others, a kubelet's for one: `uids` are those of the
    /// instance's own pods.
    fn find_on_disk(&self, node: &NodeRecord, uids: &[String]) -> anyhow::Result<Log> {
        let mut found: Vec<PathBuf> = Vec::new();
        for path in listed(&node.log_directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Source: `BuildPodLogsDirectory`; none of the three has an underscore.
            let parts: Vec<&str> = name.split('_').collect();
            let &[namespace, full, uid] = parts.as_slice() else { continue };
            let is_own = uids.iter().any(|own| own == uid);
            if is_own && is_meant(&self.pod, namespace, full, &node.node_name) {
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
        let container = match (&self.container, containers.as_slice()) {
            (Some(wanted), all) => all.iter().find(|path| name(path) == Some(wanted.into())),
            (None, []) => None,
            (None, [only]) => Some(only),
            // Which was the first cannot be seen any more.
            (None, several) => {
                let names = several.iter().filter_map(name);
                let names: Vec<_> = names.map(|it| it.to_string_lossy().into_owned()).collect();
                bail!("name one of the pod's containers with -c: {}", names.join(", "));
            }
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
        let Some((runtime, id)) = &self.writer else { return true };
        let status = runtime.container_status(id).await;
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// The command line of `mainstay logs`.
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        logs: Logs,
    }

    #[test]
    fn of_logs_on_disk_only_those_of_the_pod_that_is_meant_are_taken() {
        let directory = tempfile::tempdir().unwrap();
        let log_directory = directory.path().to_owned();
        for log in [
            "default_web-n1_1/main/0.log",
            "default_web-n1_1/main/1.log",
            "default_web-frontend-n1_2/app/0.log",
            "default_web-frontend-n1_2/proxy/0.log",
            "other_web-n1_3/main/0.log",
            // A kubelet's.
            "default_web-n1_9/main/7.log",
            "default_etcd-n1_8/main/0.log",
        ] {
            let path = log_directory.join(log);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let node = NodeRecord {
            root_dir: PathBuf::new(),
            run_dir: PathBuf::new(),
            node_name: "n1".into(),
            cgroup_root: String::new(),
            log_directory: log_directory.clone(),
            runtime_socket: None,
        };
        let uids = ["1", "2", "3"].map(str::to_owned);
        let check = |arguments: &str, wanted: Result<&str, &str>| {
            let line = Line::try_parse_from(format!("logs {arguments}").split(' ')).unwrap();
            let found = line.logs.find_on_disk(&node, &uids);
            let found = found.map(|log| log.path).map_err(|error| error.to_string());
            let wanted = wanted.map(|path| log_directory.join(path)).map_err(str::to_owned);
            assert_eq!(found, wanted, "{arguments}");
        };
        check("default/web", Ok("default_web-n1_1/main/1.log"));
        check("default/web-n1 --previous", Ok("default_web-n1_1/main/0.log"));
        check("other/web", Ok("other_web-n1_3/main/0.log"));
        check("web", Err("\"web\" may be one of default_web-n1_1, other_web-n1_3"));
        check("web-front", Err("there is no pod web-front here; `mainstay status` lists them"));
        check("etcd", Err("there is no pod etcd here; `mainstay status` lists them"));
        check("web-frontend", Err("name one of the pod's containers with -c: app, proxy"));
        check("web-frontend -c proxy", Ok("default_web-frontend-n1_2/proxy/0.log"));
    }
}
