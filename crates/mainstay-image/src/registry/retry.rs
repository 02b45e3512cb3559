//! When to try again.

use std::time::Duration;

/// How often and when something that failed for the moment is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often in a row it may fail, the first time included. A download that got somewhere
    /// starts counting anew.
    pub attempts: u32,
    /// How long to wait after the first failure; after each further one twice as long.
    pub first: Duration,
    /// The longest wait, also if the registry asks for more.
    pub longest: Duration,
    /// Differs from machine to machine, so that many that lost the same registry at the same time
    /// do not come back at the same time.
    pub seed: u64,
}

impl Default for RetryPolicy {
    /// 5 attempts, 500 ms, 10 s.
    fn default() -> Self {
        let (first, longest) = (Duration::from_millis(500), Duration::from_secs(10));
        Self { attempts: 5, first, longest, seed: 0 }
    }
}

impl RetryPolicy {
    /// How long to wait after the `failures`th failure in a row of what `key` names, or `None` if
    /// it is to be given up: half of the doubling time, and up to the other half by chance.
    /// `asked` is what the registry asks for.
    pub fn delay(&self, key: &str, failures: u32, asked: Option<Duration>) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        if let Some(asked) = asked {
            return Some(asked.min(self.longest));
        }
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        let half = whole / 2;
        // FNV-1a: any hash will do that spreads keys and seeds.
        let bytes = key.bytes().chain(failures.to_le_bytes()).chain(self.seed.to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let share = u32::try_from(hash % 1000).unwrap_or(0);
        Some(half + half * share / 1000)
    }
}

/// The wait that a `Retry-After` header asks for, if it is given in seconds. Source: RFC 9110
/// section 10.2.3; the other form, a date, would need a clock that is right.
pub(super) fn retry_after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let policy = RetryPolicy { attempts: 8, ..RetryPolicy::default() };
        let mut whole = Duration::from_millis(500);
        for failures in 1..8 {
            let delay = policy.delay("key", failures, None).unwrap();
            assert!((whole / 2..=whole).contains(&delay), "{failures}: {delay:?}");
            whole = (whole * 2).min(policy.longest);
        }
        assert_eq!(policy.delay("key", 8, None), None);
        assert_eq!(policy.delay("key", u32::MAX, None), None);
        let endless = RetryPolicy { attempts: u32::MAX, ..policy };
        assert!(endless.delay("key", 1000, None).unwrap() <= policy.longest);
    }

    #[test]
    fn machines_and_layers_wait_differently() {
        let policy = RetryPolicy::default();
        let other = RetryPolicy { seed: 1, ..policy };
        assert_eq!(policy.delay("a", 1, None), policy.delay("a", 1, None));
        assert_ne!(policy.delay("a", 1, None), other.delay("a", 1, None));
        assert_ne!(policy.delay("a", 1, None), policy.delay("b", 1, None));
    }

    #[test]
    fn the_registry_may_ask_for_a_wait() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay("a", 1, retry_after(" 3")), Some(Duration::from_secs(3)));
        assert_eq!(policy.delay("a", 1, retry_after("3600")), Some(policy.longest));
        assert_eq!(policy.delay("a", 5, retry_after("3")), None);
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(retry_after("-1"), None);
    }
}
