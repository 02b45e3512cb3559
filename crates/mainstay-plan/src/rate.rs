//! How often something may be done.

use std::time::Duration;

/// So many a second, and so many at once after a pause.
///
/// Source: `golang.org/x/time/rate`, which the kubelet's limits are; here as the moment at which the next
/// one would be due if they came evenly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// From one to the next.
    interval: Duration,
    /// How far ahead of an even course they may be.
    ahead: Duration,
    /// When the next one is due.
    due: Duration,
}

impl Rate {
    /// `per_second` and `burst` are at least 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, ahead: interval * burst.saturating_sub(1), due: Duration::ZERO }
    }

    /// Whether one more may be done at a moment, which counts from any beginning; if so, it counts as done.
    pub fn allows(&mut self, now: Duration) -> bool {
        let due = self.due.max(now);
        if due - now > self.ahead {
            return false;
        }
        self.due = due + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_come_at_once_and_the_others_one_after_the_other() {
        let mut rate = Rate::new(2, 3);
        let mut at = |millis| rate.allows(Duration::from_millis(millis));
        // Three at once, then one every half second.
        assert_eq!(
            [0, 0, 0, 0, 499, 500, 501, 1000].map(&mut at),
            [true, true, true, false, false, true, false, true]
        );
        // After a pause three again, and no more.
        assert_eq!([9000, 9000, 9000, 9000].map(&mut at), [true, true, true, false]);
    }
}
