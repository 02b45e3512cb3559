//! The conditions of a node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::NodeFacts;
use crate::node_shutdown::NOT_READY;

/// The reason of a `RuntimeReady` that does not hold because the runtime does not answer.
pub const UNREACHABLE: &str = "Unreachable";

/// A condition that turned: what the event about it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// One word, as the kubelet has it: `NodeReady`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// What a condition is called and says, either way. Tools know these words.
struct Words {
    kind: &'static str,
    /// Reason, message and the event's reason when it does not hold.
    fine: (&'static str, &'static str, &'static str),
    /// The same when it holds.
    short: (&'static str, &'static str, &'static str),
}

const MEMORY: Words = Words {
    kind: "MemoryPressure",
    fine: (
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
        "NodeHasSufficientMemory",
    ),
    short: (
        "KubeletHasInsufficientMemory",
        "kubelet has insufficient memory available",
        "NodeHasInsufficientMemory",
    ),
};
const DISK: Words = Words {
    kind: "DiskPressure",
    fine: ("KubeletHasNoDiskPressure", "kubelet has no disk pressure", "NodeHasNoDiskPressure"),
    short: ("KubeletHasDiskPressure", "kubelet has disk pressure", "NodeHasDiskPressure"),
};
const PID: Words = Words {
    kind: "PIDPressure",
    fine: (
        "KubeletHasSufficientPID",
        "kubelet has sufficient PID available",
        "NodeHasSufficientPID",
    ),
    short: (
        "KubeletHasInsufficientPID",
        "kubelet has insufficient PID available",
        "NodeHasInsufficientPID",
    ),
};
const READY: &str = "Ready";

/// All conditions: those of others first, as they are, then the node's own four. `Ready` is the last
/// one, as old control planes want it.
pub(super) fn all(
    held: Option<&[NodeCondition]>,
    facts: &NodeFacts,
    now: Timestamp,
) -> Vec<NodeCondition> {
    let held = held.unwrap_or_default();
    let own = [MEMORY.kind, DISK.kind, PID.kind, READY];
    let others = held.iter().filter(|it| !own.contains(&it.type_.as_str()));
    let mut all: Vec<NodeCondition> = others.cloned().collect();
    let pressure = facts.pressure;
    for (words, holds) in
        [(&MEMORY, pressure.memory), (&DISK, pressure.disk), (&PID, pressure.processes)]
    {
        let (reason, message, _) = if holds { words.short } else { words.fine };
        all.push(condition(held, words.kind, holds, reason, message.to_owned(), now));
    }
    let (ready, reason, message) = match why_not_ready(facts) {
        None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(why) => (false, "KubeletNotReady", why),
    };
    all.push(condition(held, READY, ready, reason, message, now));
    all
}

/// Source: `pkg/kubelet/runtime.go` (`runtimeErrors`, `networkErrors`) and `ReadyCondition` in
/// `pkg/kubelet/nodestatus/setters.go`.
fn why_not_ready(facts: &NodeFacts) -> Option<String> {
    let mut whys: Vec<String> = Vec::new();
    if facts.runtime.is_empty() {
        whys.push("container runtime status check may not have completed yet".to_owned());
    }
    for condition in facts.runtime.iter().filter(|condition| !condition.status) {
        let (kind, reason, message) = (&condition.kind, &condition.reason, &condition.message);
        if reason == UNREACHABLE {
            whys.push("container runtime is down".to_owned());
            continue;
        }
        let subject = match kind.as_str() {
            "RuntimeReady" => "container runtime",
            "NetworkReady" => "container runtime network",
            // It concerns single pods.
            _ => continue,
        };
        whys.push(format!("{subject} not ready: {kind}=false reason:{reason} message:{message}"));
    }
    if facts.shutting_down {
        whys.push(NOT_READY.to_owned());
    }
    match whys.len() {
        0 => None,
        1 => whys.pop(),
        // As Go prints an aggregate of errors.
        _ => Some(format!("[{}]", whys.join(", "))),
    }
}

fn condition(
    held: &[NodeCondition],
    kind: &str,
    holds: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) -> NodeCondition {
    let status = if holds { "True" } else { "False" };
    let same = held.iter().find(|held| held.type_ == kind && held.status == status);
    let since = same.and_then(|same| same.last_transition_time.clone());
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    }
}

/// What turned from one status to the next. Of a node that is new, or whose agent is, that it is not
/// ready yet is no news.
pub fn transitions(name: &str, before: &NodeStatus, after: &NodeStatus) -> Vec<Transition> {
    let status_of = |status: &NodeStatus, kind: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|it| it.type_ == kind).map(|it| it.status == "True")
    };
    let mut turned = Vec::new();
    for words in [&MEMORY, &DISK, &PID] {
        let (old, new) = (status_of(before, words.kind), status_of(after, words.kind));
        match new {
            Some(holds) if old != new => {
                turned.push(if holds { words.short.2 } else { words.fine.2 });
            }
            _ => {}
        }
    }
    match (status_of(before, READY), status_of(after, READY)) {
        (Some(false) | None, Some(true)) => turned.push("NodeReady"),
        (Some(true), Some(false)) => turned.push("NodeNotReady"),
        _ => {}
    }
    let transition =
        |reason| Transition { reason, message: format!("Node {name} status is now: {reason}") };
    turned.into_iter().map(transition).collect()
}
