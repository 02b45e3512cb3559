//! How many images are pulled at the same time, and how soon one after the other.

use std::sync::{Mutex, PoisonError};

use mainstay_plan::rate::Rate;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// What the machine's owner has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullLimits {
    /// How many at the same time; `None` is no limit. Source: `serializeImagePulls`,
    /// `maxParallelImagePulls`.
    pub parallel: Option<usize>,
    /// How many in a second, and how many at once after a pause; `None` is no limit. Source:
    /// `registryPullQPS`, `registryBurst`.
    pub rate: Option<(u32, u32)>,
}

/// The pulls of all pods.
pub(super) struct Pulls {
    room: Option<Semaphore>,
    rate: Option<Mutex<Rate>>,
    begun: Instant,
}

impl Pulls {
    pub(super) fn new(limits: PullLimits) -> Self {
        Self {
            room: limits.parallel.map(Semaphore::new),
            rate: limits.rate.map(|(rate, burst)| Mutex::new(Rate::new(rate, burst))),
            begun: Instant::now(),
        }
    }

    /// Waits for its turn. As long as what is returned lives, it is one's own.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        match &self.room {
            // Never closed.
            Some(room) => room.acquire().await.ok(),
            None => None,
        }
    }

    /// Whether one more may begin now.
    pub(super) fn may_begin(&self) -> bool {
        let rate = self.rate.as_ref();
        rate.is_none_or(|rate| {
            let mut rate = rate.lock().unwrap_or_else(PoisonError::into_inner);
            rate.allows(self.begun.elapsed())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pulls_take_turns_where_they_have_to() {
        let free = Pulls::new(PullLimits::default());
        assert!(free.turn().await.is_none() && free.may_begin());
        let pulls = Pulls::new(PullLimits { parallel: Some(2), rate: Some((1, 1)) });
        let (first, second) = (pulls.turn().await, pulls.turn().await);
        assert!(pulls.turn().now_or_never().is_none());
        drop(first);
        assert!(pulls.turn().now_or_never().is_some());
        drop(second);
        assert!(pulls.may_begin() && !pulls.may_begin());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pulls.may_begin());
    }
}
