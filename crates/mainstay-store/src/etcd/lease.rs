//! Which lease a value is bound to that is wanted for some time only.
//!
//! Leases are expensive, so values whose time ends about together share one.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/storage/etcd3/lease_manager.go`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many values share one lease. Source: `defaultLeaseMaxObjectCount`.
const VALUES_MAX: u32 = 1000;

/// How much longer than asked for a value is kept at most, so that others may share its lease. Source:
/// `defaultLeaseReuseDurationSeconds`.
const SPARE_MAX: Duration = Duration::from_secs(60);

/// The leases that were granted last, by how long values are wanted.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    last: BTreeMap<Duration, Lease>,
}

#[derive(Debug)]
struct Lease {
    id: i64,
    ends: Instant,
    values: u32,
}

impl Leases {
    /// The lease for a value that is wanted for `ttl`; `None` if one of [`lasting`] has to be granted first.
    pub(crate) fn lend(&mut self, ttl: Duration, now: Instant) -> Option<i64> {
        let last = self.last.get_mut(&ttl)?;
        if last.values >= VALUES_MAX || last.ends.saturating_duration_since(now) <= ttl {
            return None;
        }
        last.values += 1;
        Some(last.id)
    }

    /// Notes a lease that was asked for at `asked`, for values that are wanted for `ttl`, and lends it.
    pub(crate) fn granted(&mut self, id: i64, ttl: Duration, asked: Instant) {
        self.last.insert(ttl, Lease { id, ends: asked + lasting(ttl), values: 1 });
    }

    /// Forgets a lease that is not there any more.
    pub(crate) fn gone(&mut self, id: i64) {
        self.last.retain(|_, last| last.id != id);
    }
}

/// How long a lease has to last for values that are wanted for `ttl`: a twentieth longer. Source:
/// `getReuseDurationSecondsLocked`.
pub(crate) fn lasting(ttl: Duration) -> Duration {
    ttl + (ttl / 20).min(SPARE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_share_a_lease_that_ends_soon_after_them() {
        let hour = Duration::from_secs(3600);
        let start = Instant::now();
        let mut leases = Leases::default();
        assert_eq!(leases.lend(hour, start), None);
        leases.granted(7, hour, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        for (seconds, ttl, expected) in [
            (0, hour, Some(7)),
            (59, hour, Some(7)),
            // It would end too soon.
            (60, hour, None),
            (61, hour, None),
            // It would end much too late.
            (10, hour / 2, None),
            (10, hour, Some(7)),
        ] {
            assert_eq!(leases.lend(ttl, at(seconds)), expected, "{seconds} {ttl:?}");
        }
        leases.gone(8);
        assert_eq!(leases.lend(hour, start), Some(7));
        leases.gone(7);
        assert_eq!(leases.lend(hour, start), None);
    }

    #[test]
    fn a_lease_has_so_many_values_and_no_more() {
        let (ttl, now) = (Duration::from_secs(3600), Instant::now());
        let mut leases = Leases::default();
        leases.granted(1, ttl, now);
        let lent = (0..2000).map_while(|_| leases.lend(ttl, now)).count();
        assert_eq!(lent, 999);
    }

    #[test]
    fn how_long_leases_last() {
        for (ttl, expected) in [(3600, 3660), (600, 630), (20, 21), (10, 10)] {
            let lasting = lasting(Duration::from_secs(ttl));
            assert_eq!(lasting.as_secs(), expected, "{ttl}");
        }
    }
}
