//! What the node, its pods and their containers use: measured when somebody asks, and not before.
//!
//! # Flow
//!
//! Processor time is told by the kernel as a sum, and wanted as a rate, which takes two looks. The
//! look before is that of whoever asked last, if it is not too old; otherwise one is taken and
//! followed by another after [`WINDOW`]. Those who ask at the same time share an answer.

mod summary;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_cri::{ContainerId, PodSandboxFilter, PodSandboxStats, Runtime, SandboxId};
use mainstay_linux::machine::{self, Machine};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

pub(super) use summary::summary;

/// The time between two looks when nobody has asked lately.
const WINDOW: Duration = Duration::from_millis(500);
/// How long an answer stays good.
const FRESH: Duration = Duration::from_secs(1);
/// How old a look may be that a rate begins with.
const OLDEST: Duration = Duration::from_secs(60);

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// When.
    pub timestamp: Timestamp,
    /// Over which time the rates are.
    pub window: Duration,
    /// The whole machine.
    pub machine: Machine,
    /// Billionths of a processor that the machine was busy with.
    pub machine_nano_cores: Option<u64>,
    /// The pods that the runtime has.
    pub pods: Vec<MeasuredPod>,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct MeasuredPod {
    /// What the runtime says.
    pub stats: PodSandboxStats,
    /// When the sandbox was made.
    pub created_at: Timestamp,
    /// Billionths of a processor; `None` of one that is younger than the window.
    pub nano_cores: Option<u64>,
    /// The same of its containers, in the order of `stats`.
    pub containers: Vec<Option<u64>>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The runtime does not tell.
    #[error("cannot learn from the runtime what pods use")]
    Runtime(#[source] mainstay_cri::Error),
    /// The kernel does not tell.
    #[error("cannot read what the machine uses")]
    Machine(#[source] io::Error),
}

/// Measures.
#[derive(Default)]
pub(super) struct Meter {
    last: Mutex<Option<Last>>,
}

struct Last {
    look: Look,
    answer: Option<Arc<Measurement>>,
}

/// One look.
struct Look {
    at: Instant,
    timestamp: Timestamp,
    machine: Machine,
    pods: Vec<(PodSandboxStats, Timestamp)>,
}

/// Sums of processor time, to compare with later ones.
struct Sums {
    machine: u64,
    sandboxes: BTreeMap<SandboxId, u64>,
    containers: BTreeMap<ContainerId, u64>,
}

impl Meter {
    /// What is used now, or was a moment ago.
    pub(super) async fn measure(
        &self,
        runtime: &dyn Runtime,
    ) -> Result<Arc<Measurement>, MeasureError> {
        let mut last = self.last.lock().await;
        if let Some(Last { look, answer: Some(answer) }) = last.as_ref()
            && look.at.elapsed() < FRESH
        {
            return Ok(answer.clone());
        }
        let before = match last.take() {
            Some(last) if last.look.at.elapsed() < OLDEST => last.look,
            _ => {
                let look = look(runtime).await?;
                sleep(WINDOW).await;
                look
            }
        };
        let now = look(runtime).await?;
        let answer = Arc::new(compare(&before, &now));
        *last = Some(Last { look: now, answer: Some(answer.clone()) });
        Ok(answer)
    }
}

async fn look(runtime: &dyn Runtime) -> Result<Look, MeasureError> {
    let all = PodSandboxFilter::default();
    let stats = runtime.list_pod_sandbox_stats(&all).await.map_err(MeasureError::Runtime)?;
    let sandboxes = runtime.list_pod_sandboxes(&all).await.map_err(MeasureError::Runtime)?;
    let made: BTreeMap<SandboxId, Timestamp> =
        sandboxes.into_iter().map(|sandbox| (sandbox.id, sandbox.created_at)).collect();
    // Small files that the kernel makes up: no disk is waited for.
    let machine = machine::machine().map_err(MeasureError::Machine)?;
    let (at, timestamp) = (Instant::now(), Timestamp::now());
    let pods = stats.into_iter().filter_map(|pod| {
        // One without went in between.
        let made = *made.get(&pod.id)?;
        Some((pod, made))
    });
    Ok(Look { at, timestamp, machine, pods: pods.collect() })
}

fn compare(before: &Look, now: &Look) -> Measurement {
    let window = now.at.duration_since(before.at);
    let sums = Sums::of(before);
    let rated = |before: Option<u64>, now: Option<u64>| rate(before?, now?, window);
    let pods = now.pods.iter().map(|(stats, created_at)| {
        let time = |cpu: &Option<mainstay_cri::CpuUsage>| cpu.map(|it| it.usage_core_nano_seconds);
        let containers = stats.containers.iter().map(|container| {
            rated(sums.containers.get(&container.id).copied(), time(&container.cpu))
        });
        MeasuredPod {
            containers: containers.collect(),
            nano_cores: rated(sums.sandboxes.get(&stats.id).copied(), time(&stats.cpu)),
            created_at: *created_at,
            stats: stats.clone(),
        }
    });
    Measurement {
        timestamp: now.timestamp,
        window,
        machine: now.machine,
        machine_nano_cores: rate(sums.machine, now.machine.cpu, window),
        pods: pods.collect(),
    }
}

/// Nanoseconds per second; `None` when the sum has begun anew.
fn rate(before: u64, now: u64, window: Duration) -> Option<u64> {
    let used = u128::from(now.checked_sub(before)?);
    let rate = (used * 1_000_000_000).checked_div(window.as_nanos())?;
    u64::try_from(rate).ok()
}

impl Sums {
    fn of(look: &Look) -> Self {
        let mut sums = Self {
            machine: look.machine.cpu,
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
        };
        for (pod, _) in &look.pods {
            if let Some(cpu) = pod.cpu {
                sums.sandboxes.insert(pod.id.clone(), cpu.usage_core_nano_seconds);
            }
            for container in &pod.containers {
                if let Some(cpu) = container.cpu {
                    sums.containers.insert(container.id.clone(), cpu.usage_core_nano_seconds);
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_a_time() {
        let second = Duration::from_secs(1);
        for (before, now, window, expected) in [
            (0, 500_000_000, second, Some(500_000_000)),
            (5, 5, second, Some(0)),
            (0, 500_000_000, second / 2, Some(1_000_000_000)),
            (5, 4, second, None),
            (0, 1, Duration::ZERO, None),
            (0, u64::MAX, Duration::from_nanos(1), None),
        ] {
            assert_eq!(rate(before, now, window), expected, "{before} {now} {window:?}");
        }
    }
}
