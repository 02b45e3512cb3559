//! `activeDeadlineSeconds`: how long a pod may be active on a node.
//!
//! Source: `pkg/kubelet/active_deadline.go`.

use jiff::{SignedDuration, Timestamp};

use super::restart::{Restarts, all_ended};
use super::state::{Memory, RunGoal, SeenPod};

/// Why a pod that was ended by its deadline has failed.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// The same, as a sentence.
pub const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// From when on the pod is not to run any more; `None` without a deadline.
pub(super) fn deadline(run: &RunGoal, memory: &Memory) -> Option<Timestamp> {
    let seconds = run.pod.spec().active_deadline_seconds?;
    // One that no clock reaches is none.
    memory.began(run)?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Whether the deadline ends the pod, or did: it has passed, and the pod had not come to its end by itself
/// before.
pub(crate) fn is_exceeded(
    run: &RunGoal,
    restarts: Restarts<'_>,
    seen: &SeenPod,
    memory: &Memory,
    now: Timestamp,
) -> bool {
    let Some(deadline) = deadline(run, memory).filter(|deadline| *deadline <= now) else {
        return false;
    };
    all_ended(run, restarts, seen, memory, now).is_none_or(|ended| ended >= deadline)
}
