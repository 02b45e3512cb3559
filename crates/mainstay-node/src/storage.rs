//! Watching what pods take of the node's disk, of those that have a limit.
//!
//! # Flow
//!
//! Every [`INTERVAL`] one task looks at the board for running pods with limits, measures one after the
//! other, and tells the worker of one that takes more than it may to end it. Without limits nothing is
//! measured.
//!
//! Source: `pkg/kubelet/eviction/eviction_manager.go`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_linux::disk_usage::disk_usage;
use mainstay_plan::ephemeral_storage::{EVICTED, Usage, exceeded, is_limited, is_on_disk};
use mainstay_plan::pod::PodKey;
use mainstay_plan::status::is_over;
use mainstay_pod::Pod;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::publish::{Board, EventKind, about};
use crate::worker::Performer;

/// How often is measured. Source: `evictionMonitoringPeriod` in `pkg/kubelet/kubelet.go`.
const INTERVAL: Duration = Duration::from_secs(10);

/// Why a pod cannot be measured.
type Unmeasured = String;

/// Watches, for ever.
pub(crate) async fn watch(performer: Arc<Performer>, board: watch::Receiver<Arc<Board>>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let limited = limited(&board.borrow());
        for (key, pod) in limited {
            match measure(&performer, &key, &pod).await {
                Ok(usage) => {
                    if let Some(message) = exceeded(pod.spec(), &usage) {
                        evict(&performer, &key, &pod, message);
                    }
                }
                Err(why) => {
                    let message = format!("Its local storage cannot be measured: {why}");
                    performer.events.tell(&key, EventKind::Warning, "StorageNotMeasured", message);
                }
            }
        }
    }
}

/// The pods that may run and have limits.
fn limited(board: &Board) -> Vec<(PodKey, Arc<Pod>)> {
    let reports = board.pods.values().filter_map(|entry| entry.report.as_ref());
    let own = reports.filter(|it| !it.ended && !is_over(&it.status) && is_limited(it.pod.spec()));
    own.map(|report| (report.key.clone(), report.pod.clone())).collect()
}

async fn measure(
    performer: &Arc<Performer>,
    key: &PodKey,
    pod: &Arc<Pod>,
) -> Result<Usage, Unmeasured> {
    let facts = &performer.facts;
    let spec = pod.spec();
    let mut usage = Usage::default();
    for volume in spec.volumes.iter().flatten().filter(|volume| is_on_disk(volume)) {
        if let Some(path) = facts.volume_path(pod.uid(), volume) {
            usage.volumes.insert(volume.name.clone(), on_disk(path).await?);
        }
    }
    let seen = performer.observer.seen(key);
    let own = seen.sandboxes.iter().filter(|sandbox| sandbox.uid == pod.uid());
    let containers: Vec<_> = own.flat_map(|sandbox| &sandbox.containers).collect();
    let logs = facts.pod_log_directory(pod.namespace(), pod.name(), pod.uid());
    let all = pod.containers().map(|(_, container)| container);
    for container in all.chain(pod.ephemeral_containers()) {
        let name = &container.name;
        let of_name = containers.iter().filter(|seen| seen.name == *name && !seen.has_ended());
        let Some(newest) = of_name.max_by_key(|seen| seen.restart_count) else { continue };
        let written = match performer.runtime.writable_layer(&newest.id).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(error.chain()),
        };
        let logged = on_disk(logs.join(name)).await?;
        usage.containers.insert(name.clone(), written.saturating_add(logged));
    }
    Ok(usage)
}

async fn on_disk(path: PathBuf) -> Result<u64, Unmeasured> {
    let named = path.display().to_string();
    let counted = tokio::task::spawn_blocking(move || disk_usage(&path)).await;
    let counted = counted.map_err(|error| error.to_string())?;
    counted.map_err(|error| format!("{named}: {error}"))
}

fn evict(performer: &Performer, key: &PodKey, pod: &Pod, message: String) {
    let kind = EventKind::Warning;
    performer.events.show(about(pod, None), kind, EVICTED, message.clone());
    performer.events.tell(key, kind, EVICTED, message.clone());
    performer.evict(key, pod.uid(), message);
}
