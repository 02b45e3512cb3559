//! How often probes found what, and how long they took.
//!
//! Source: `ProberResults` and `ProberDuration` in `pkg/kubelet/prober/prober_manager.go`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_plan::pod::PodKey;
use mainstay_plan::probe::{Finding, ProbeKind};

/// The upper bounds of the histogram's buckets, in seconds. Source: `DefBuckets` of Prometheus.
pub(crate) const BUCKETS: [(&str, u64); 11] = [
    ("0.005", 5),
    ("0.01", 10),
    ("0.025", 25),
    ("0.05", 50),
    ("0.1", 100),
    ("0.25", 250),
    ("0.5", 500),
    ("1", 1000),
    ("2.5", 2500),
    ("5", 5000),
    ("10", 10_000),
];

/// What was counted of one probe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    /// Those that took no longer than each bound, less those that took no longer than the one before.
    pub(crate) buckets: [u64; BUCKETS.len()],
    /// How long those that were successful took in all.
    pub(crate) took: Duration,
}

/// Of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodCount {
    pub(crate) uid: String,
    /// By container and kind.
    pub(crate) probes: BTreeMap<(String, ProbeKind), Count>,
}

/// Of all pods that are probed. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<PodKey, PodCount>>>);

impl Counts {
    /// All, as they are now.
    pub(crate) fn all(&self) -> BTreeMap<PodKey, PodCount> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count(
        &self,
        (key, uid): (&PodKey, &str),
        container: &str,
        kind: ProbeKind,
        finding: Finding,
        took: Duration,
    ) {
        // What says nothing of the container is not counted by a kubelet either.
        if finding == Finding::Unknown {
            return;
        }
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pod = pods.entry(key.clone()).or_default();
        if pod.uid != uid {
            *pod = PodCount { uid: uid.to_owned(), probes: BTreeMap::new() };
        }
        let count = pod.probes.entry((container.to_owned(), kind)).or_default();
        if finding == Finding::Failure {
            count.failed += 1;
            return;
        }
        count.successful += 1;
        count.took += took;
        let within = |(_, bound): &(&str, u64)| took <= Duration::from_millis(*bound);
        if let Some(bucket) =
            BUCKETS.iter().position(within).and_then(|at| count.buckets.get_mut(at))
        {
            *bucket += 1;
        }
    }

    pub(super) fn forget(&self, key: &PodKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
