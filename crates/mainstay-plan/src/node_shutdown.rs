//! In which order pods end when their machine is shut down, and how long they have.
//!
//! Pods are ended in groups, the least important first, and the next group's turn comes when the last one has
//! ended or has had its time. Pods of an API end for good, as a kubelet ends them, and are made anew elsewhere.
//! Of static pods nothing is written down: they run again when the machine does.
//!
//! Source: `pkg/kubelet/nodeshutdown/nodeshutdown_manager.go`.

use std::sync::Arc;
use std::time::Duration;

use mainstay_pod::Pod;
use mainstay_pod::priority::SYSTEM_CRITICAL;

/// Why a pod has failed whose machine was shut down.
pub const TERMINATED: &str = "Terminated";

/// The same for people.
pub const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// What keeps a node from being ready.
pub const NOT_READY: &str = "node is shutting down";

/// The priority of pods that say none. Source: `DefaultPriorityWhenNoDefaultClassExists` in
/// `pkg/apis/scheduling/types.go`.
const DEFAULT: i32 = 0;

/// How long the pods of each group have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods(Vec<Period>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period {
    /// The least priority of the group's pods.
    priority: i32,
    time: Duration,
}

/// A shutdown, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    periods: Arc<Periods>,
    /// How many groups have had their turn, or have it.
    begun: usize,
}

// === impl Periods ===

impl Periods {
    /// Of `shutdownGracePeriod` and `shutdownGracePeriodCriticalPods`, or of `shutdownGracePeriodByPodPriority`:
    /// priorities and seconds. Nothing of it is no graceful shutdown.
    ///
    /// # Errors
    ///
    /// As a kubelet refuses its configuration. Source: `pkg/kubelet/apis/config/validation/validation.go`.
    pub fn new(
        all: Duration,
        critical: Duration,
        by_priority: &[(i32, i64)],
    ) -> Result<Self, String> {
        if critical > all {
            return Err(format!(
                "shutdownGracePeriodCriticalPods {critical:?} must be <= shutdownGracePeriod {all:?}"
            ));
        }
        for (field, time) in
            [("shutdownGracePeriod", all), ("shutdownGracePeriodCriticalPods", critical)]
        {
            if !time.is_zero() && time < Duration::from_secs(1) {
                return Err(format!("{field} {time:?} must be either zero or otherwise >= 1 sec"));
            }
        }
        if !by_priority.is_empty() && !all.is_zero() {
            return Err(
                "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
                    .to_owned(),
            );
        }
        let mut periods = Vec::new();
        for (priority, seconds) in by_priority {
            let Ok(seconds) = u64::try_from(*seconds) else {
                return Err(format!(
                    "shutdownGracePeriodByPodPriority: shutdownGracePeriodSeconds {seconds} must be >= 0"
                ));
            };
            periods.push(Period { priority: *priority, time: Duration::from_secs(seconds) });
        }
        if !all.is_zero() {
            let whole = |time: Duration| Duration::from_secs(time.as_secs());
            periods.push(Period { priority: DEFAULT, time: whole(all - critical) });
            periods.push(Period { priority: SYSTEM_CRITICAL, time: whole(critical) });
        }
        periods.sort_by_key(|it| it.priority);
        Ok(Self(periods))
    }

    /// Whether pods are ended in an order at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How long all groups have together.
    pub fn total(&self) -> Duration {
        self.0.iter().map(|it| it.time).sum()
    }

    /// The group of pods of a priority: the last one that begins with it or below, or the first one.
    fn group_of(&self, priority: i32) -> usize {
        let above = self.0.iter().position(|it| it.priority >= priority);
        let last = self.0.len().saturating_sub(1);
        above.map_or(last, |at| match self.0.get(at) {
            Some(group) if group.priority > priority => at.saturating_sub(1),
            _ => at,
        })
    }
}

// === impl Shutdown ===

impl Shutdown {
    /// One that begins: no pod ends yet.
    pub fn new(periods: Arc<Periods>) -> Self {
        Self { periods, begun: 0 }
    }

    /// Gives the next group its turn, and answers how long it has; `None` when all have had theirs.
    pub fn advance(&mut self) -> Option<Duration> {
        let period = self.periods.0.get(self.begun)?;
        self.begun += 1;
        Some(period.time)
    }

    /// Whether a pod is of the group that has its turn.
    pub fn is_turn_of(&self, pod: &Pod) -> bool {
        self.periods.group_of(pod.priority()) + 1 == self.begun
    }

    /// How long a pod has to end, if it is to: its own grace period, if that is shorter than its group's time.
    pub fn grace_of(&self, pod: &Pod) -> Option<Duration> {
        let group = self.periods.group_of(pod.priority());
        let period = self.periods.0.get(group).filter(|_| group < self.begun)?;
        Some(period.time.min(pod.termination_grace_period()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pod(priority: i32, grace: u64) -> Arc<Pod> {
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  priority: {priority}\n  \
             terminationGracePeriodSeconds: {grace}\n  containers: [{{name: a, image: i}}]\n"
        ))
    }

    #[test]
    fn a_priority_belongs_to_the_group_below_it() {
        let periods =
            Periods::new(Duration::ZERO, Duration::ZERO, &[(100, 1), (-5, 3), (0, 2)]).unwrap();
        for (priority, group) in
            [(i32::MIN, 0), (-5, 0), (-1, 0), (0, 1), (99, 1), (100, 2), (101, 2), (i32::MAX, 2)]
        {
            assert_eq!(periods.group_of(priority), group, "{priority}");
        }
        assert_eq!(periods.total(), SECOND * 6);
        assert_eq!(Periods::default().group_of(7), 0);
    }

    #[test]
    fn two_periods_are_those_of_critical_pods_and_of_all_others() {
        let periods = Periods::new(SECOND * 30, SECOND * 10, &[]).unwrap();
        let expected = [
            Period { priority: 0, time: SECOND * 20 },
            Period { priority: 2_000_000_000, time: SECOND * 10 },
        ];
        assert_eq!(periods.0, expected);
        // What the seconds are of.
        let half = Periods::new(Duration::from_millis(2500), SECOND, &[]).unwrap();
        assert_eq!(half.total(), SECOND * 2);
        assert!(Periods::new(Duration::ZERO, Duration::ZERO, &[]).unwrap().is_empty());
    }

    #[test]
    fn what_a_kubelet_refuses_is_refused() {
        let ms = Duration::from_millis;
        for (all, critical, by_priority, expected) in [
            (
                ms(0),
                ms(1000),
                &[][..],
                "shutdownGracePeriodCriticalPods 1s must be <= shutdownGracePeriod 0ns",
            ),
            (
                ms(500),
                ms(0),
                &[],
                "shutdownGracePeriod 500ms must be either zero or otherwise >= 1 sec",
            ),
            (
                ms(2000),
                ms(500),
                &[],
                "shutdownGracePeriodCriticalPods 500ms must be either zero or otherwise >= 1 sec",
            ),
            (
                ms(2000),
                ms(0),
                &[(0, 1)],
                "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time",
            ),
            (
                ms(0),
                ms(0),
                &[(0, -1)],
                "shutdownGracePeriodByPodPriority: shutdownGracePeriodSeconds -1 must be >= 0",
            ),
        ] {
            let error = Periods::new(all, critical, by_priority).unwrap_err();
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_pod_ends_when_its_group_has_its_turn() {
        let periods = Arc::new(Periods::new(SECOND * 30, SECOND * 10, &[]).unwrap());
        let mut shutdown = Shutdown::new(periods);
        let pods = [pod(0, 5), pod(7, 60), pod(2_000_001_000, 60)];
        let graces = |shutdown: &Shutdown| pods.each_ref().map(|pod| shutdown.grace_of(pod));
        let turns = |shutdown: &Shutdown| pods.each_ref().map(|pod| shutdown.is_turn_of(pod));
        assert_eq!(graces(&shutdown), [None, None, None]);
        assert_eq!(shutdown.advance(), Some(SECOND * 20));
        assert_eq!(graces(&shutdown), [Some(SECOND * 5), Some(SECOND * 20), None]);
        assert_eq!(turns(&shutdown), [true, true, false]);
        assert_eq!(shutdown.advance(), Some(SECOND * 10));
        let last = [Some(SECOND * 5), Some(SECOND * 20), Some(SECOND * 10)];
        assert_eq!((graces(&shutdown), turns(&shutdown)), (last, [false, false, true]));
        assert_eq!(shutdown.advance(), None);
        assert_eq!((graces(&shutdown), turns(&shutdown)), (last, [false, false, true]));
    }
}
