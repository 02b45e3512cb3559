//! Which pods are started again that took more of the disk than they may, and when.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use mainstay_pod::{Pod, RestartPolicy};

use crate::backoff::{Backoff, FORGOTTEN_AFTER, Verdict, judge};

/// Whether a pod is started anew, with empty volumes, when it has ended for that. One of an API has somebody
/// who makes another one, and a static pod that is not to be restarted has failed.
pub fn comes_back(pod: &Pod) -> bool {
    pod.source().is_static() && pod.restart_policy() != RestartPolicy::Never
}

/// When each of them is started again: as late as a container that keeps ending.
#[derive(Clone, Debug, Default)]
pub struct Returns(BTreeMap<String, Course>);

/// What is remembered of one version of a pod.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// As of its last start.
    backoff: Option<Backoff>,
    /// When it was first seen to have ended, while it has.
    ended: Option<Timestamp>,
}

impl Returns {
    /// Which of the pods that have ended for it, and of which nothing is left, are started again now. They are
    /// counted as started.
    pub fn due<'a>(
        &mut self,
        ended: impl IntoIterator<Item = &'a Pod>,
        now: Timestamp,
    ) -> Vec<&'a Pod> {
        let mut seen = BTreeSet::new();
        let mut due = Vec::new();
        for pod in ended {
            seen.insert(pod.uid());
            let course = self.0.entry(pod.uid().to_owned()).or_default();
            let at = *course.ended.get_or_insert(now);
            if let Verdict::Start(backoff) = judge(course.backoff, at, now) {
                *course = Course { backoff: Some(backoff), ended: None };
                due.push(pod);
            }
        }
        self.0.retain(|uid, course| {
            if seen.contains(uid.as_str()) {
                return true;
            }
            course.ended = None;
            // By then it starts over anyway.
            course
                .backoff
                .is_some_and(|it| now.duration_since(it.since).unsigned_abs() <= FORGOTTEN_AFTER)
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pod(policy: &str) -> Arc<Pod> {
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  restartPolicy: {policy}\n  \
             containers: [{{name: a, image: i}}]\n"
        ))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1000 + seconds).unwrap()
    }

    #[test]
    fn what_is_not_to_be_restarted_has_failed() {
        for (policy, expected) in [("Always", true), ("OnFailure", true), ("Never", false)] {
            assert_eq!(comes_back(&pod(policy)), expected, "{policy}");
        }
    }

    /// Each time it ends at once.
    #[test]
    fn one_that_takes_too_much_again_and_again_waits_longer_and_longer() {
        let (pod, mut returns) = (pod("Always"), Returns::default());
        let (mut waits, mut ended) = (Vec::new(), 0);
        for second in 0..900 {
            if !returns.due([&*pod], at(second)).is_empty() {
                waits.push(second - ended);
                ended = second + 1;
            }
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300]);
    }

    #[test]
    fn one_that_ran_for_long_is_started_at_once() {
        let (pod, mut returns) = (pod("Always"), Returns::default());
        assert_eq!(returns.due([&*pod], at(0)).len(), 1);
        // It runs.
        assert!(returns.due([], at(10)).is_empty());
        assert!(returns.due([&*pod], at(20)).is_empty());
        assert_eq!(returns.due([&*pod], at(30)).len(), 1);
        for second in 40..=700 {
            returns.due([], at(second));
        }
        assert!(returns.0.is_empty());
        assert_eq!(returns.due([&*pod], at(701)).len(), 1);
    }
}
