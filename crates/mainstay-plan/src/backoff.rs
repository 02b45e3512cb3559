//! How long a container that keeps ending has to wait.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

/// The first wait; each further one is twice as long. Source: `pkg/kubelet/kubelet.go`,
/// `initialCrashLoopBackOff`, 10 s.
pub const FIRST: Duration = Duration::from_secs(10);
/// The longest wait. Source: `MaxContainerBackOff`, 300 s.
pub const LONGEST: Duration = Duration::from_secs(300);
/// A container that ended longer than this after the last change of its wait starts over.
/// Source: `pkg/kubelet/kubelet.go`, `crashLoopBackOff.HasExpiredFunc`, 600 s.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The wait of one container, and when it was last made longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How long after its end the next restart is due.
    pub wait: Duration,
    /// When the wait was last changed.
    pub since: Timestamp,
}

/// Whether a container that has ended may be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Now; the next end is then measured with this.
    Start(Backoff),
    /// Not before this moment.
    Wait(Timestamp),
}

/// Judges the restart of a container that ended at `ended`, with the wait that was in force.
///
/// The first restart is due at once, since nothing was known to go wrong before it.
pub fn judge(backoff: Option<Backoff>, ended: Timestamp, now: Timestamp) -> Verdict {
    let fresh = Verdict::Start(Backoff { wait: FIRST, since: now });
    let Some(Backoff { wait, since }) = backoff else { return fresh };
    if ended.duration_since(since).unsigned_abs() > FORGOTTEN_AFTER && ended > since {
        return fresh;
    }
    match ended.checked_add(wait) {
        // An end that is still to come was written down before the clock was set back: how long it
        // is ago nobody knows.
        Ok(due) if due > now && ended <= now => Verdict::Wait(due),
        _ => Verdict::Start(Backoff { wait: (wait * 2).min(LONGEST), since: now }),
    }
}

/// The wait before the n-th repetition of an action that failed, from 1; its own scale, for what
/// is not a container's end: 1 s, doubling, to `longest`.
pub fn after_failures(count: u32, longest: Duration) -> Duration {
    let doubled = 1u64.checked_shl(count.saturating_sub(1)).filter(|_| count < 32);
    doubled.map_or(longest, |seconds| Duration::from_secs(seconds).min(longest))
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s {}", self.wait.as_secs(), self.since)
    }
}

/// What [`Backoff`]'s `Display` wrote was changed by somebody else.
#[derive(Debug, PartialEq, Eq)]
pub struct NotABackoff;

impl FromStr for Backoff {
    type Err = NotABackoff;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (wait, since) = text.split_once("s ").ok_or(NotABackoff)?;
        Ok(Self {
            wait: Duration::from_secs(wait.parse().map_err(|_| NotABackoff)?),
            since: since.parse().map_err(|_| NotABackoff)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// A container that ends at once, each time.
    #[test]
    fn a_crashing_container_waits_twice_as_long_each_time_up_to_the_longest() {
        let (mut backoff, mut now, mut waits) = (None, at(1000), Vec::new());
        for _ in 0..8 {
            let ended = now;
            if let Verdict::Wait(due) = judge(backoff, ended, now) {
                now = due;
            }
            let Verdict::Start(next) = judge(backoff, ended, now) else { panic!("not due") };
            waits.push(now.duration_since(ended).as_secs());
            backoff = Some(next);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_long_life_is_a_fresh_start() {
        let backoff = Some(Backoff { wait: LONGEST, since: at(0) });
        assert_eq!(judge(backoff, at(600), at(600)), Verdict::Wait(at(900)));
        let fresh = Verdict::Start(Backoff { wait: FIRST, since: at(601) });
        assert_eq!(judge(backoff, at(601), at(601)), fresh);
    }

    #[test]
    fn a_backoff_survives_as_text() {
        let backoff = Backoff { wait: Duration::from_secs(40), since: at(12345) };
        assert_eq!(backoff.to_string().parse(), Ok(backoff));
        assert_eq!("soon".parse::<Backoff>(), Err(NotABackoff));
    }

    #[test]
    fn failures_are_repeated_more_and_more_rarely() {
        let longest = Duration::from_secs(10);
        let waits: Vec<_> = (1..=6).map(|n| after_failures(n, longest).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(after_failures(u32::MAX, longest), longest);
    }
}
