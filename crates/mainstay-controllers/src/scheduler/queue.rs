//! Pods that wait for a node, and when each is looked at.
//!
//! Time is how long it is since some moment. Source: `pkg/scheduler/backend/queue`.

mod hint;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::hint::Event;
use super::filter::Plugin;
use super::pod::PodInfo;
use super::snapshot::Snapshot;

/// How long a pod waits after its first attempt, and the longest that it waits; in between it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long a pod that nothing seems to help is left alone. Source:
/// `DefaultPodMaxInUnschedulablePodsDuration`.
const LEFT_ALONE: Duration = Duration::from_secs(300);

/// Which pod, in the order in which they came.
type Number = u64;

/// All pods that have no node yet.
#[derive(Debug, Default)]
pub(super) struct SchedulingQueue {
    pods: BTreeMap<Number, Waiting>,
    by_uid: HashMap<String, Number>,
    last: Number,
    /// To be looked at: the most important first, then who has waited longest.
    active: BTreeSet<(Reverse<i32>, Duration, Number)>,
    /// To be looked at from some time on, or earlier if there is nothing else to do.
    backoff: BTreeSet<(Duration, Reverse<i32>, Number)>,
    /// To be looked at again from some time on, after something went wrong.
    failed: BTreeSet<(Duration, Number)>,
    /// By when they were looked at last.
    unschedulable: BTreeSet<(Duration, Number)>,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    /// When it came, or was looked at last.
    since: Duration,
    /// How often no node could have it.
    unschedulable: u32,
    /// How often in a row something went wrong.
    errors: u32,
    /// Who said no the last time.
    rejectors: BTreeSet<Plugin>,
    place: Place,
}

/// Where a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    Backoff {
        until: Duration,
    },
    Failed {
        until: Duration,
    },
    Unschedulable,
    /// It is not to be looked at before its gates are gone.
    Gated,
    /// It was taken out, and it is not known yet what comes of it.
    Taken,
}

impl SchedulingQueue {
    /// Puts a pod in that is new, or what it is like now.
    pub(super) fn set(&mut self, pod: &Arc<PodInfo>, snapshot: &Snapshot, now: Duration) {
        if let Some(number) = self.by_uid.get(&pod.uid).copied() {
            return self.update(number, pod, snapshot, now);
        }
        self.last += 1;
        let place = if pod.is_gated() { Place::Gated } else { Place::Active };
        let waiting = Waiting {
            pod: pod.clone(),
            since: now,
            unschedulable: 0,
            errors: 0,
            rejectors: BTreeSet::new(),
            place: Place::Taken,
        };
        self.by_uid.insert(pod.uid.clone(), self.last);
        self.pods.insert(self.last, waiting);
        self.put(self.last, place);
    }

    fn update(&mut self, number: Number, pod: &Arc<PodInfo>, snapshot: &Snapshot, now: Duration) {
        let place = self.take(number);
        let Some(waiting) = self.pods.get_mut(&number) else { return };
        let old = std::mem::replace(&mut waiting.pod, pod.clone());
        let place = match place {
            Place::Gated if !pod.is_gated() => Place::Active,
            Place::Unschedulable => {
                let event = Event::Itself { old: &old };
                match event.may_help(pod, &waiting.rejectors, snapshot) {
                    true => waiting.after_backoff(now),
                    false => Place::Unschedulable,
                }
            }
            place => place,
        };
        self.put(number, place);
    }

    pub(super) fn remove(&mut self, uid: &str) {
        if let Some(number) = self.by_uid.remove(uid) {
            self.take(number);
            self.pods.remove(&number);
        }
    }

    /// The pod of this UID, if it waits or is being bound.
    pub(super) fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        let waiting = self.pods.get(self.by_uid.get(uid)?)?;
        Some(&waiting.pod)
    }

    /// Takes the pod out that is next to be looked at and is none of these UIDs; it is to be put back or removed.
    pub(super) fn pop(
        &mut self,
        besides: &BTreeSet<String>,
        now: Duration,
    ) -> Option<Arc<PodInfo>> {
        self.advance(now);
        let active = self.active.iter().map(|(_, _, number)| *number);
        let backoff = self.backoff.iter().map(|(_, _, number)| *number);
        let may = |number: &Number| {
            self.pods.get(number).is_some_and(|waiting| !besides.contains(&waiting.pod.uid))
        };
        let number = active.chain(backoff).find(may)?;
        self.take(number);
        self.pods.get(&number).map(|waiting| waiting.pod.clone())
    }

    /// When there is something to be looked at, if nothing happens before.
    pub(super) fn due(&self) -> Option<Duration> {
        let failed = self.failed.first().map(|(until, _)| *until);
        let alone = self.unschedulable.first().map(|(since, _)| *since + LEFT_ALONE);
        failed.into_iter().chain(alone).min()
    }

    /// Puts a pod back that no node can have.
    pub(super) fn unschedulable(&mut self, uid: &str, rejectors: BTreeSet<Plugin>, now: Duration) {
        let Some(number) = self.by_uid.get(uid).copied() else { return };
        if let Some(waiting) = self.pods.get_mut(&number) {
            waiting.since = now;
            waiting.unschedulable = waiting.unschedulable.saturating_add(1);
            waiting.errors = 0;
            waiting.rejectors = rejectors;
            self.put(number, Place::Unschedulable);
        }
    }

    /// Puts a pod back with which something went wrong.
    pub(super) fn failed(&mut self, uid: &str, now: Duration) {
        let Some(number) = self.by_uid.get(uid).copied() else { return };
        self.take(number);
        if let Some(waiting) = self.pods.get_mut(&number) {
            waiting.since = now;
            waiting.errors = waiting.errors.saturating_add(1);
            waiting.rejectors.clear();
            let until = now + wait_after(waiting.errors);
            self.put(number, Place::Failed { until });
        }
    }

    /// Has those pods looked at again which something may help that happened.
    pub(super) fn happened(&mut self, event: &Event<'_>, snapshot: &Snapshot, now: Duration) {
        let mut helped = Vec::new();
        for (_, number) in &self.unschedulable {
            if let Some(waiting) = self.pods.get(number)
                && event.may_help(&waiting.pod, &waiting.rejectors, snapshot)
            {
                helped.push((*number, waiting.after_backoff(now)));
            }
        }
        for (number, place) in helped {
            self.take(number);
            self.put(number, place);
        }
    }

    /// Makes those active whose time has come.
    fn advance(&mut self, now: Duration) {
        let backoff = self.backoff.iter().map(|(until, _, number)| (*until, *number));
        let backoff = backoff.take_while(|(until, _)| *until <= now).map(|(_, number)| number);
        let failed = self.failed.iter().take_while(|(until, _)| *until <= now);
        let alone = self.unschedulable.iter().take_while(|(since, _)| *since + LEFT_ALONE <= now);
        let due: Vec<Number> =
            backoff.chain(failed.chain(alone).map(|(_, number)| *number)).collect();
        for number in due {
            self.take(number);
            self.put(number, Place::Active);
        }
    }

    /// Takes a pod out of where it is; answers where that was.
    fn take(&mut self, number: Number) -> Place {
        let Some(waiting) = self.pods.get_mut(&number) else { return Place::Taken };
        let (priority, since) = (Reverse(waiting.pod.priority), waiting.since);
        match waiting.place {
            Place::Active => drop(self.active.remove(&(priority, since, number))),
            Place::Backoff { until } => drop(self.backoff.remove(&(until, priority, number))),
            Place::Failed { until } => drop(self.failed.remove(&(until, number))),
            Place::Unschedulable => drop(self.unschedulable.remove(&(since, number))),
            Place::Gated | Place::Taken => {}
        }
        std::mem::replace(&mut waiting.place, Place::Taken)
    }

    /// Puts a pod that is nowhere somewhere.
    fn put(&mut self, number: Number, place: Place) {
        let Some(waiting) = self.pods.get_mut(&number) else { return };
        let (priority, since) = (Reverse(waiting.pod.priority), waiting.since);
        match place {
            Place::Active => drop(self.active.insert((priority, since, number))),
            Place::Backoff { until } => drop(self.backoff.insert((until, priority, number))),
            Place::Failed { until } => drop(self.failed.insert((until, number))),
            Place::Unschedulable => drop(self.unschedulable.insert((since, number))),
            Place::Gated | Place::Taken => {}
        }
        waiting.place = place;
    }
}

impl Waiting {
    fn after_backoff(&self, now: Duration) -> Place {
        let until = self.since + wait_after(self.unschedulable);
        if until > now { Place::Backoff { until } } else { Place::Active }
    }
}

fn wait_after(attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        _ => FIRST_WAIT.saturating_mul(1 << (attempts - 1).min(10)).min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests;
