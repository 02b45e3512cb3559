//! What of the machine a pod has for itself: who has it, and who waits for it.
//!
//! Ports of the host: whatever the network and the runtime, no two pods of an agent have one at a time. With a
//! network of the pod's own it could lead to one of them only, and on the host's network the second one would find
//! it taken. And huge pages, of which a machine has as many as were set aside: a program that finds none does not
//! run slower, it fails.
//!
//! # Guarantees
//!
//! - Whoever has a sandbox goes on. Of those without that want one port, the one that was accepted first is first,
//!   and then the one whose name is: no two wait for each other. Huge pages go to whoever fits; one that asks for
//!   more than there will ever be is in nobody's way.
//! - What a pod has is its own until nothing of it runs any more.
//! - A pod whose turn it is not waits. It has not failed: it can begin any time.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use mainstay_pod::Pod;
use mainstay_pod::resources::{is_huge_page, requests_of};

use crate::host_ports::HostPort;
use crate::labels;
use crate::pod::PodKey;

/// What a pod has for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusive {
    /// Ports of the host.
    pub ports: Vec<HostPort>,
    /// Bytes of huge pages, by resource: `hugepages-2Mi`.
    pub huge_pages: BTreeMap<String, i64>,
}

/// What a pod does with what one pod only can have.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Which pod.
    pub key: &'a PodKey,
    /// What.
    pub what: &'a Exclusive,
    /// Whether it has that.
    pub standing: Standing,
}

/// How far a pod is that needs something for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has a sandbox, or one is being made.
    Has,
    /// It is to have one, and was accepted at this moment; `None` if that is not known any more.
    Wants(Option<Timestamp>),
}

/// Why a pod waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// A port is not free.
    Port {
        /// As whoever asks wants it.
        port: HostPort,
        /// Whose it is.
        holder: PodKey,
        /// Whether that one has it already.
        has: bool,
    },
    /// There are not so many huge pages; all in bytes.
    HugePages {
        /// The resource.
        name: String,
        /// How much of it the pod asks for.
        requested: i64,
        /// How much others have.
        used: i64,
        /// How much there is.
        capacity: i64,
    },
}

// === impl Exclusive ===

impl Exclusive {
    /// What a pod needs.
    pub fn of(pod: &Pod) -> Self {
        let huge_pages = huge_pages_of(pod).filter(|(_, bytes)| *bytes > 0);
        Self { ports: HostPort::of(pod), huge_pages: huge_pages.collect() }
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.huge_pages.is_empty()
    }

    /// Writes it down with a sandbox, in place of what the pod says of itself.
    pub(crate) fn note(&self, annotations: &mut BTreeMap<String, String>) {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        let pages: Vec<String> =
            self.huge_pages.iter().map(|(name, bytes)| format!("{name}={bytes}")).collect();
        for (annotation, list) in [(labels::HOST_PORTS, ports), (labels::HUGE_PAGES, pages)] {
            annotations.remove(annotation);
            if !list.is_empty() {
                annotations.insert(annotation.to_owned(), list.join(","));
            }
        }
    }

    /// Reads it back.
    pub(crate) fn noted(annotations: &BTreeMap<String, String>) -> Self {
        let list = |annotation: &str| {
            let text = annotations.get(annotation).map_or("", String::as_str);
            text.split_terminator(',')
        };
        let page = |text: &str| {
            let (name, bytes) = text.split_once('=')?;
            Some((name.to_owned(), bytes.parse().ok()?))
        };
        Self {
            ports: list(labels::HOST_PORTS).filter_map(|text| text.parse().ok()).collect(),
            huge_pages: list(labels::HUGE_PAGES).filter_map(page).collect(),
        }
    }
}

// === impl Conflict ===

/// A port as the built-in network says it of other users; pages as a kubelet does (`InsufficientResourceError` in
/// `pkg/kubelet/lifecycle/predicate.go`).
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { port, holder, has: true } => {
                write!(f, "{} is in use by pod {holder}", port.in_words())
            }
            Self::Port { port, holder, has: false } => {
                write!(f, "{} is for pod {holder}, which was accepted first", port.in_words())
            }
            Self::HugePages { name, requested, used, capacity } => {
                f.write_str(&not_enough(name, *requested, *used, *capacity))
            }
        }
    }
}

/// What is said where there is too little of a resource.
pub(crate) fn not_enough(name: &str, requested: i64, used: i64, capacity: i64) -> String {
    format!(
        "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, \
         capacity: {capacity}"
    )
}

/// What a pod requests of huge pages in bytes, by the name of the resource.
pub(crate) fn huge_pages_of(pod: &Pod) -> impl Iterator<Item = (String, i64)> {
    let requests = requests_of(pod.spec()).into_iter();
    requests.filter(|(name, _)| is_huge_page(name)).map(|(name, amount)| (name, amount.units()))
}

/// When a pod was accepted, if it says; the same for every agent, and over restarts of the machine.
pub fn accepted(pod: &Pod) -> Option<Timestamp> {
    let seen = pod.config_seen().and_then(|text| text.parse().ok());
    seen.or_else(|| pod.metadata().creation_timestamp.as_ref().map(|time| time.0))
}

/// Why a pod that has no sandbox, and was accepted `since` then, may not have this now. The machine has these huge
/// pages, in bytes by their size: `2Mi`.
///
/// # Errors
///
/// When one of the others has some of it, or goes first.
pub fn admit(
    key: &PodKey,
    since: Option<Timestamp>,
    what: &Exclusive,
    others: &[Claim<'_>],
    huge_pages: &BTreeMap<String, u64>,
) -> Result<(), Conflict> {
    let others = || others.iter().filter(|it| it.key != key);
    let goes_first = |claim: &&Claim<'_>| match claim.standing {
        Standing::Has => true,
        Standing::Wants(other) => (other, claim.key) < (since, key),
    };
    let conflicts = others().filter(goes_first).filter_map(|claim| {
        let taken = |port: &&HostPort| claim.what.ports.iter().any(|other| port.conflicts(other));
        let port = what.ports.iter().find(taken)?.clone();
        let (holder, has) = (claim.key.clone(), claim.standing == Standing::Has);
        Some((!has, Conflict::Port { port, holder, has }))
    });
    // Whoever has it is what people look for.
    if let Some((_, conflict)) = conflicts.min_by_key(|(wants, _)| *wants) {
        return Err(conflict);
    }
    for (name, requested) in &what.huge_pages {
        let size = name.strip_prefix("hugepages-").and_then(|size| huge_pages.get(size));
        let capacity = i64::try_from(size.copied().unwrap_or(0)).unwrap_or(i64::MAX);
        let having = others().filter(|claim| claim.standing == Standing::Has);
        let used = having.filter_map(|claim| claim.what.huge_pages.get(name));
        let used = used.fold(0, |sum: i64, bytes| sum.saturating_add(*bytes));
        if requested.saturating_add(used) > capacity {
            let (name, requested) = (name.clone(), *requested);
            return Err(Conflict::HugePages { name, requested, used, capacity });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
