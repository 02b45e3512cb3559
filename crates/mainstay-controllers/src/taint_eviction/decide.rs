//! When a pod goes.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use mainstay_pod::scheduling::taints::{NO_EXECUTE, tolerates};
use tokio::time::Instant;

/// When a pod goes, and since when it is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) since: Instant,
    pub(super) fires: Instant,
}

/// The taints of a node with which pods do not stay.
pub(super) fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE)
}

/// When a pod goes from a node with these taints, if it does. `before` is what was decided last.
/// Source: `processPodOnNode`.
pub(super) fn decide(
    before: Option<Timer>,
    taints: &[&Taint],
    tolerations: &[Toleration],
    now: Instant,
) -> Option<Timer> {
    if taints.is_empty() {
        return None;
    }
    let timer = |wait| Some(Timer { since: now, fires: now.checked_add(wait)? });
    let Some(used) = used(taints, tolerations) else { return timer(Duration::ZERO) };
    let seconds = used.iter().filter_map(|toleration| toleration.toleration_seconds).min()?;
    // A time that is under way goes on, whatever it was for.
    before.or_else(|| timer(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

/// Of each taint the first toleration that tolerates it; `None` when one is not tolerated. Source:
/// `GetMatchingTolerations` in `pkg/apis/core/v1/helper/helpers.go`.
fn used<'a>(taints: &[&Taint], tolerations: &'a [Toleration]) -> Option<Vec<&'a Toleration>> {
    let first = |taint: &&Taint| tolerations.iter().find(|it| tolerates(it, taint));
    taints.iter().map(first).collect()
}
