//! What is read from the machine.

use std::fmt::{self, Display};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use serde_json::Value;

/// Milliseconds, in order.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn new(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        Self(milliseconds)
    }

    /// From an array in an answer.
    pub(crate) fn read(value: &Value) -> anyhow::Result<Self> {
        let numbers = value.as_array().map(|all| all.iter().filter_map(Value::as_f64));
        Ok(Self::new(numbers.context("the answer has no measurements")?.collect()))
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(50)
    }

    fn at(&self, percent: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p90, most) = (self.at(50), self.at(90), self.at(100));
        write!(f, "p50 {p50:.1} ms, p90 {p90:.1}, max {most:.1} (n={})", self.0.len())
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> anyhow::Result<f64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(now.context("the clock is before 1970")?.as_secs_f64() * 1000.0)
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// What this machine is.
pub(crate) fn machine() -> anyhow::Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let mounts = read("/proc/mounts")?;
    let version = if mounts.contains(" cgroup ") { "1 (or hybrid)" } else { "2" };
    // It changes what moving a process costs, and stays until the machine is booted again.
    let dynamic = if mounts.contains("favordynmods") { "set" } else { "not set" };
    let kernel = kernel.trim();
    Ok(format!(
        "kernel {kernel}, {processors} processors, cgroup version {version}, favordynmods {dynamic}"
    ))
}

/// How long it takes to move a process into a control group, after `pause` without one.
pub(crate) fn cgroup_write(pause: Duration, rounds: usize) -> anyhow::Result<Samples> {
    let root = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory", "/sys/fs/cgroup"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.join("cgroup.procs").exists())
        .context("there are no control groups")?;
    let group = root.join(format!("mainstay-bench-{}", std::process::id()));
    fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
    let measured = measure_moves(&root, &group, pause, rounds);
    fs::remove_dir(&group).with_context(|| format!("cannot remove {}", group.display()))?;
    measured
}

fn measure_moves(
    root: &Path,
    group: &Path,
    pause: Duration,
    rounds: usize,
) -> anyhow::Result<Samples> {
    let mut child = crate::process::command("sleep").arg("600").spawn()?;
    let pid = child.id().to_string();
    let moved = |to: &Path| -> anyhow::Result<f64> {
        let mut file = fs::File::options().write(true).open(to.join("cgroup.procs"))?;
        let start = Instant::now();
        file.write_all(pid.as_bytes()).context("cannot move a process")?;
        Ok(milliseconds(start.elapsed()))
    };
    let mut samples = Vec::new();
    let mut measure = || -> anyhow::Result<()> {
        for _ in 0..rounds {
            std::thread::sleep(pause);
            samples.push(moved(group)?);
            std::thread::sleep(pause);
            moved(root)?;
        }
        Ok(())
    };
    let measured = measure();
    child.kill()?;
    child.wait()?;
    measured.map(|()| Samples::new(samples))
}

/// How long it takes until 4 KiB more of a file are on the disk, in a directory on that disk.
pub(crate) fn durable_write(directory: &Path, rounds: usize) -> anyhow::Result<Samples> {
    let path = directory.join("durable");
    let context = || format!("cannot write {}", path.display());
    let mut file = fs::File::create(&path).with_context(context)?;
    let mut samples = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        file.write_all(&[b'x'; 4096]).and_then(|()| file.sync_data()).with_context(context)?;
        samples.push(milliseconds(start.elapsed()));
    }
    fs::remove_file(&path).with_context(context)?;
    Ok(Samples::new(samples))
}

/// Bytes of memory that a process has to itself, with its part of what it shares.
/// Source: proc_pid_smaps(5).
pub(crate) fn memory(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("{path} has no Pss"))? * 1024)
}

/// Waits until the machine does nothing, so that what one program leaves to be done afterwards is not
/// counted against the next one.
pub(crate) fn settle() -> anyhow::Result<()> {
    const WINDOW: Duration = Duration::from_secs(2);
    const QUIET: f64 = 0.02;
    for _ in 0..60 {
        let (busy, all) = processor_time()?;
        std::thread::sleep(WINDOW);
        let (busy_then, all_then) = processor_time()?;
        if (busy_then - busy) / (all_then - all) <= QUIET {
            return Ok(());
        }
    }
    bail!("the machine is busy with other things, so nothing can be measured; try again later")
}

/// How much of the processors' time was used, and all of it. Source: proc_stat(5).
fn processor_time() -> anyhow::Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let times = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let times: Vec<f64> = times.map(str::parse).collect::<Result<_, _>>()?;
    let idle: f64 = times.iter().skip(3).take(2).sum();
    let all: f64 = times.iter().take(8).sum();
    Ok((all - idle, all))
}

/// Seconds of processor time that a process has used, in steps of a hundredth, with those of its
/// threads that have ended; `thread-self` is the thread that asks. Source: proc_pid_stat(5), `utime`
/// and `stime`.
pub(crate) fn cpu_seconds(process: impl Display) -> anyhow::Result<f64> {
    const TICKS: f64 = 100.0;
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, rest) = text.rsplit_once(')').with_context(|| format!("{path} is not understood"))?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks = ticks.collect::<Result<Vec<f64>, _>>();
    let ticks = ticks.with_context(|| format!("{path} is not understood"))?;
    Ok(ticks.iter().sum::<f64>() / TICKS)
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn the_median_is_in_the_middle() {
        let samples = Samples::new(vec![3.0, 1.0, 2.0]);
        assert_eq!(samples.to_string(), "p50 2.0 ms, p90 2.0, max 3.0 (n=3)");
    }
}
