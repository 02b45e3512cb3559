//! What was short when, from one look at the machine to the next.
//!
//! Source: `synchronize` in `pkg/kubelet/eviction/eviction_manager.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Levels, Pressure, Resource, Threshold, Thresholds};

/// What is remembered. Times are those of a clock that only goes forward, since any beginning.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Since when thresholds are crossed, by their place in the list.
    since: BTreeMap<usize, Duration>,
    /// Those that were crossed for longer than they may be.
    due: BTreeSet<usize>,
    /// When each condition was seen last.
    memory: Option<Duration>,
    disk: Option<Duration>,
    processes: Option<Duration>,
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// What the Node shows.
    pub pressure: Pressure,
    /// For what room has to be made now, the most urgent first.
    pub due: Vec<Threshold>,
    /// What is short, or was a moment ago.
    pub short: Pressure,
}

impl Course {
    /// Takes in a look.
    pub fn judge(&mut self, thresholds: &Thresholds, levels: &Levels, now: Duration) -> Judgement {
        let mut crossed: BTreeSet<usize> = thresholds.crossed(levels).collect();
        crossed.extend(self.due.iter().filter(|it| thresholds.lasts(**it, levels)));
        self.since.retain(|index, _| crossed.contains(index));
        for index in &crossed {
            self.since.entry(*index).or_insert(now);
        }
        for threshold in crossed.iter().filter_map(|index| thresholds.get(*index)) {
            let last = match threshold.signal.resource() {
                Resource::Memory => &mut self.memory,
                Resource::EphemeralStorage | Resource::Inodes => &mut self.disk,
                Resource::Pids => &mut self.processes,
            };
            *last = Some(now);
        }
        let within = |least: Duration| {
            let is = move |last: Option<Duration>| {
                last.is_some_and(|last| now.saturating_sub(last) < least)
            };
            Pressure { memory: is(self.memory), disk: is(self.disk), processes: is(self.processes) }
        };
        let pressure = within(thresholds.transition);
        let is_due = |index: &&usize| {
            let since = self.since.get(*index).copied().unwrap_or(now);
            let grace = thresholds.get(**index).map(|it| it.grace).unwrap_or_default();
            now.saturating_sub(since) >= grace
        };
        self.due = crossed.iter().filter(is_due).copied().collect();
        Judgement {
            pressure,
            due: self.due.iter().filter_map(|index| thresholds.get(*index)).copied().collect(),
            // What is short now is, however short the transition is.
            short: within(thresholds.transition.max(Duration::from_nanos(1))),
        }
    }
}
