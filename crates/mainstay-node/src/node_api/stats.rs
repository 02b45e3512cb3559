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
use mainstay_cri::{ContainerId, CpuUsage, PodSandboxFilter, PodSandboxStats, Runtime, SandboxId};
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
pub(crate) struct Measurement {
    /// When.
    pub(crate) timestamp: Timestamp,
    /// The whole machine.
    pub(crate) machine: Machine,
    /// Billionths of a processor that the machine was busy with.
    pub(crate) machine_nano_cores: Option<u64>,
    /// The pods that the runtime has.
    pub(crate) pods: Vec<MeasuredPod>,
}

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct MeasuredPod {
    /// What the runtime says.
    pub(crate) stats: PodSandboxStats,
    /// When the sandbox was made.
    pub(crate) created_at: Timestamp,
    /// Billionths of a processor; `None` of one that is younger than the look before.
    pub(crate) nano_cores: Option<u64>,
    /// The same of its containers, in the order of `stats`.
    pub(crate) containers: Vec<Option<u64>>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
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
    last: Mutex<Option<(Instant, Arc<Measurement>)>>,
}

impl Meter {
    /// What is used now, or was a moment ago.
    pub(super) async fn measure(
        &self,
        runtime: &dyn Runtime,
    ) -> Result<Arc<Measurement>, MeasureError> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(answer.clone());
        }
        let (began, before) = match last.take() {
            Some(last) if last.0.elapsed() < OLDEST => last,
            _ => {
                let (at, first) = look(runtime).await?;
                sleep(WINDOW).await;
                (at, Arc::new(first))
            }
        };
        let (at, mut now) = look(runtime).await?;
        now.rate(&before, at.duration_since(began));
        let answer = Arc::new(now);
        *last = Some((at, answer.clone()));
        Ok(answer)
    }
}

/// One look, without rates.
async fn look(runtime: &dyn Runtime) -> Result<(Instant, Measurement), MeasureError> {
    let all = PodSandboxFilter::default();
    let stats = runtime.list_pod_sandbox_stats(&all).await.map_err(MeasureError::Runtime)?;
    let sandboxes = runtime.list_pod_sandboxes(&all).await.map_err(MeasureError::Runtime)?;
    let made: BTreeMap<SandboxId, Timestamp> =
        sandboxes.into_iter().map(|sandbox| (sandbox.id, sandbox.created_at)).collect();
    // Small files that the kernel makes up: no disk is waited for.
    let machine = machine::machine().map_err(MeasureError::Machine)?;
    let (at, timestamp) = (Instant::now(), Timestamp::now());
    let pods = stats.into_iter().filter_map(|stats| {
        // One without went in between.
        let created_at = *made.get(&stats.id)?;
        Some(MeasuredPod { stats, created_at, nano_cores: None, containers: Vec::new() })
    });
    let pods = pods.collect();
    Ok((at, Measurement { timestamp, machine, machine_nano_cores: None, pods }))
}

impl Measurement {
    /// Fills in the rates since a look before.
    fn rate(&mut self, before: &Self, window: Duration) {
        let sum = |cpu: Option<CpuUsage>| cpu.map(|it| it.usage_core_nano_seconds);
        let sandboxes: BTreeMap<&SandboxId, Option<u64>> =
            before.pods.iter().map(|pod| (&pod.stats.id, sum(pod.stats.cpu))).collect();
        let all = before.pods.iter().flat_map(|pod| &pod.stats.containers);
        let containers: BTreeMap<&ContainerId, Option<u64>> =
            all.map(|container| (&container.id, sum(container.cpu))).collect();
        let rated = |before: Option<u64>, now: Option<u64>| rate(before?, now?, window);
        self.machine_nano_cores = rate(before.machine.cpu, self.machine.cpu, window);
        for pod in &mut self.pods {
            let known = sandboxes.get(&pod.stats.id).copied().flatten();
            pod.nano_cores = rated(known, sum(pod.stats.cpu));
            let rates = pod.stats.containers.iter().map(|container| {
                rated(containers.get(&container.id).copied().flatten(), sum(container.cpu))
            });
            pod.containers = rates.collect();
        }
    }
}

/// Nanoseconds per second; `None` when the sum has begun anew.
fn rate(before: u64, now: u64, window: Duration) -> Option<u64> {
    let used = u128::from(now.checked_sub(before)?);
    let rate = (used * 1_000_000_000).checked_div(window.as_nanos())?;
    u64::try_from(rate).ok()
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
