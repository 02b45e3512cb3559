//! What has to be done to the mirror pods of an API, so that it shows the static pods of a node.
//!
//! A mirror is a projection: nothing that happens to it touches a container. One step at a time is
//! decided for each name ([`next`]); after it, and after every change, the next one is.
//!
//! # Guarantees
//!
//! - Every static pod that has ever been valid has one, also when it waits, was refused or has
//!   finished. One that somebody deletes is made again.
//! - It has a `deletionTimestamp` while the containers that it shows are being stopped. That of a
//!   successor appears when they have ended.
//! - Nothing else that bears a static pod's name is touched.
//! - What the API holds is never taken for what should run, but for containers that somebody adds to a mirror to
//!   look into its pod. A mirror that is made anew gets those again that were added to an earlier one.
//!
//! Source: `pkg/kubelet/pod/mirror_client.go`, `pkg/kubelet/kubelet.go` (`tryReconcileMirrorPods`)
//! and `pkg/kubelet/status/status_manager.go`, with other answers where people suffer from those.

mod held;
mod object;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use mainstay_pod::Pod;
use serde_json::{Value, json};

pub use held::{Held, Mirror, Said};
pub use object::{CONFIG_MIRROR_ANNOTATION, INVALID_CONDITION, object};

use crate::patch;
use crate::pod::{RunGoal, SeenPod};
use crate::status::is_over;

/// What the agent knows of the static pod of a name.
#[derive(Clone, Debug)]
pub enum Static<'a> {
    /// Nothing yet: it has not been looked at since the agent started.
    Awaited,
    /// It should run.
    Wanted(Wanted<'a>),
    /// It is being taken away.
    Leaving {
        /// What still runs of it.
        ending: &'a [Ending],
    },
}

/// A static pod that should run.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The last good version.
    pub pod: &'a Pod,
    /// How it is.
    pub status: &'a PodStatus,
    /// Why its manifest, as it is now, is not what runs.
    pub invalid: Option<&'a str>,
    /// Older versions and incarnations of which something still runs.
    pub ending: &'a [Ending],
}

/// A version of a pod that is being ended, and runs still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its static UID.
    pub uid: String,
    /// How long its containers have from when their end began.
    pub grace: Duration,
}

/// One thing to do to the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the mirror, as [`object()`] makes it.
    Create,
    /// Delete a mirror with a grace period, so that it shows that its containers are being stopped.
    Terminate {
        /// The mirror's own UID: a precondition.
        uid: String,
        /// The grace period, in whole seconds, never zero.
        seconds: u32,
    },
    /// Delete a mirror at once.
    Delete {
        /// The mirror's own UID: a precondition.
        uid: String,
    },
    /// Patch its status: a strategic merge patch of the `status` subresource that holds for this
    /// UID only.
    PatchStatus {
        /// The patch.
        patch: Value,
    },
    /// Add the containers that were added to the static pod by another mirror of it: a strategic merge patch of
    /// the `ephemeralcontainers` subresource that holds for this UID only. Nothing depends on it.
    AddContainers {
        /// The patch.
        patch: Value,
    },
}

/// What is alive of a pod and not its goal's own, or of a pod without a goal.
pub fn endings(seen: &SeenPod, run: Option<&RunGoal>) -> Vec<Ending> {
    let mut endings: Vec<Ending> = Vec::new();
    for sandbox in &seen.sandboxes {
        let own = run.is_some_and(|run| run.is_own(&sandbox.uid, sandbox.incarnation));
        if own || sandbox.containers.iter().all(crate::pod::SeenContainer::has_ended) {
            continue;
        }
        match endings.iter_mut().find(|ending| ending.uid == sandbox.uid) {
            Some(ending) => ending.grace = ending.grace.max(sandbox.grace),
            None => endings.push(Ending { uid: sandbox.uid.clone(), grace: sandbox.grace }),
        }
    }
    endings
}

/// The next thing to do about one name; `None` when the API shows what is.
///
/// `known` is `None` if there is no static pod of that name, `node` the UID of the Node object, if
/// there is one: without it, mirrors would belong to nobody.
pub fn next(
    known: Option<&Static<'_>>,
    held: Option<&Held>,
    node: Option<&str>,
    now: Timestamp,
) -> Option<Action> {
    let mirror = match held {
        Some(Held::Mirror(mirror)) => Some(mirror),
        // Not ours to touch, and its name is taken.
        Some(Held::Foreign(_)) => return None,
        None => None,
    };
    let delete = |mirror: &Mirror| Some(Action::Delete { uid: mirror.uid.clone() });
    match (known, mirror) {
        (Some(Static::Awaited), _) | (None | Some(Static::Leaving { .. }), None) => None,
        (None, Some(orphan)) => delete(orphan),
        (Some(Static::Leaving { ending }), Some(mirror)) => {
            match ending.iter().map(|it| it.grace).max() {
                Some(grace) => terminate(mirror, grace),
                None => delete(mirror),
            }
        }
        (Some(Static::Wanted(_)), None) => node.map(|_| Action::Create),
        (Some(Static::Wanted(wanted)), Some(mirror)) => {
            if let Some(old) = wanted.ending.iter().find(|it| it.uid == mirror.hash) {
                return terminate(mirror, old.grace);
            }
            if mirror.deleting || !mirror.shows(wanted.pod, node) {
                return delete(mirror);
            }
            let said = mirror.status.read();
            let status = object::status(wanted, &said, now);
            // No API lets what has ended for good run again.
            if is_over(&said) && !is_over(&status) {
                return delete(mirror);
            }
            if let Some(patch) = patch_of(&said, &status, &mirror.uid) {
                return Some(Action::PatchStatus { patch });
            }
            let missing = object::missing(wanted.pod, mirror);
            (!missing.is_empty()).then(|| {
                let spec = json!({ "ephemeralContainers": missing });
                let patch = json!({ "metadata": { "uid": mirror.uid }, "spec": spec });
                Action::AddContainers { patch }
            })
        }
    }
}

/// The patch that makes one status of a pod into another, for this UID only. Source:
/// `pkg/util/pod/pod.go`, `preparePatchBytesForPodStatus`.
pub fn patch_of(before: &PodStatus, after: &PodStatus, uid: &str) -> Option<Value> {
    // A status has string keys and no values that JSON lacks.
    let json = |status: &PodStatus| serde_json::to_value(status).unwrap_or_default();
    let status = patch::of_status(&json(before), &json(after), patch::POD_STATUS)?;
    Some(json!({"metadata": {"uid": uid}, "status": status}))
}

fn terminate(mirror: &Mirror, grace: Duration) -> Option<Action> {
    let seconds = u32::try_from(grace.as_secs()).unwrap_or(u32::MAX).max(1);
    (!mirror.deleting).then(|| Action::Terminate { uid: mirror.uid.clone(), seconds })
}

#[cfg(test)]
mod tests;
