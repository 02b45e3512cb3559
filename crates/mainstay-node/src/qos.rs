//! What follows from the pods that may run, for all of them together: what the control groups of the classes of
//! service weigh, and how long their end takes at most.

use std::sync::Arc;
use std::time::Duration;

use mainstay_linux::cgroup::{CgroupError, Limits};
use mainstay_plan::qos::class_shares;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::pods_group::PodsGroup;
use crate::publish::Board;
use crate::worker::Performer;

/// Pods that come or go together are counted together.
const PACE: Duration = Duration::from_secs(1);

/// How often it is written anew, whoever else has done so since or kept it from being done. Source:
/// `periodicQOSCgroupUpdateInterval` in `pkg/kubelet/cm/qos_container_manager_linux.go`.
const AGAIN: Duration = Duration::from_secs(60);

/// Gives the groups their weight in the one of all pods, and tells that one. Never ends.
pub(crate) async fn keep(
    performer: Arc<Performer>,
    all: Arc<dyn PodsGroup>,
    mut board: watch::Receiver<Arc<Board>>,
) {
    let mut told = None;
    loop {
        let seen = board.borrow_and_update().clone();
        // Before all are known, those that are would weigh for the rest.
        if seen.is_complete() {
            let (performer, all) = (performer.clone(), all.clone());
            let set = spawn_blocking(move || {
                let weighed = weigh(&performer, &seen);
                // Those that are ending are not on the board any more.
                let kept = all.keep_longest_grace(performer.observer.longest_grace());
                weighed.and(kept)
            });
            let set = set.await;
            let failed = set.unwrap_or_else(|error| Err(error.to_string())).err();
            if told != failed
                && let Some(error) = &failed
            {
                tracing::warn!(
                    error,
                    "what all pods have together is as it was before; it is tried again"
                );
            }
            told = failed;
        }
        sleep(PACE).await;
        if let Ok(Err(_)) = timeout(AGAIN, board.changed()).await {
            return std::future::pending().await;
        }
    }
}

fn weigh(performer: &Performer, board: &Board) -> Result<(), String> {
    let pods = board.active().map(|report| &*report.pod);
    let set = |(group, shares): (String, u64)| -> Result<(), CgroupError> {
        let group = performer.hierarchies.at(&group);
        group.create()?;
        group.limit(&Limits { cpu_shares: Some(shares), ..Limits::default() })
    };
    class_shares(&performer.facts.cgroup_root, pods)
        .try_for_each(set)
        .map_err(|error| mainstay_cri::chain(&error))
}
