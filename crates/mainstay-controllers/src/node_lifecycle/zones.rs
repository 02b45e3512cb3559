//! How fast pods are moved off nodes that are not ready: the more of a zone is away, the slower; and
//! not at all when everything is, since then it is us who are cut off.
//!
//! Source: `handleDisruption` and `ComputeZoneState` in
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`, and
//! `pkg/controller/nodelifecycle/scheduler`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

/// The time between two nodes of a zone. Source: the default of `--node-eviction-rate`, 0.1 a second.
const NORMAL: Duration = Duration::from_secs(10);
/// And of a large zone of which much is away. Source: the default of `--secondary-node-eviction-rate`.
const SLOW: Duration = Duration::from_secs(100);
/// More nodes than that are a large zone. Source: the default of `--large-cluster-size-threshold`.
const LARGE: usize = 50;
/// When so many of a hundred nodes are away, and more than two, it is much of a zone. Source: the
/// default of `--unhealthy-zone-threshold`.
const MUCH: usize = 55;

/// Nodes with this label say nothing of their zone. Source: `labelNodeDisruptionExclusion`.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// All zones, by their keys.
#[derive(Debug, Default)]
pub(super) struct Zones(BTreeMap<String, Zone>);

/// How many nodes of a zone are ready, and how many are not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) ready: usize,
    pub(super) away: usize,
}

/// How all zones turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is ready any more.
    AllAway,
    /// Something is ready again.
    SomeBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Initial,
    Normal,
    /// Much is away.
    Partial,
    /// All is away.
    Full,
}

#[derive(Debug)]
struct Zone {
    state: State,
    limiter: Limiter,
    /// The nodes that are to get a taint, in this order.
    waiting: Vec<String>,
}

/// One thing at a time, and the next one only after a while.
#[derive(Debug)]
struct Limiter {
    /// `None` lets nothing through.
    interval: Option<Duration>,
    next: Instant,
}

/// The zone of a node; empty where nodes have none. Source: `GetZoneKey` in
/// `staging/src/k8s.io/component-helpers/node/topology/helpers.go`.
pub(super) fn key(node: &Node) -> String {
    let label = |keys: [&str; 2]| {
        let labels = node.metadata.labels.as_ref();
        let label = labels.and_then(|labels| keys.iter().find_map(|key| labels.get(*key)));
        label.map(String::as_str).unwrap_or_default()
    };
    let zone = label(["failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"]);
    let region =
        label(["failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"]);
    match (region, zone) {
        ("", "") => String::new(),
        (region, zone) => format!("{region}:\0:{zone}"),
    }
}

/// Whether a node says something of its zone.
pub(super) fn counts(node: &Node) -> bool {
    !node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED))
}

impl Zones {
    /// A node is to get a taint as soon as its zone may have another one.
    pub(super) fn wait(&mut self, zone: &str, node: &str, now: Instant) {
        let zone = self.0.entry(zone.to_owned()).or_insert_with(|| Zone::new(now));
        if !zone.waiting.iter().any(|it| it == node) {
            zone.waiting.push(node.to_owned());
        }
    }

    /// A node is to get none.
    pub(super) fn forget(&mut self, node: &str) {
        for zone in self.0.values_mut() {
            zone.waiting.retain(|it| it != node);
        }
    }

    /// The next node that is to get one now.
    pub(super) fn next(&mut self, now: Instant) -> Option<String> {
        let mut waiting = self.0.values_mut().filter(|zone| !zone.waiting.is_empty());
        let zone = waiting.find_map(|zone| zone.limiter.accept(now).then_some(zone))?;
        Some(zone.waiting.remove(0))
    }

    /// When there will be one, as far as is known.
    pub(super) fn due(&self) -> Option<Instant> {
        let waiting = self.0.values().filter(|zone| !zone.waiting.is_empty());
        waiting.filter_map(|zone| zone.limiter.interval.map(|_| zone.limiter.next)).min()
    }

    /// Takes in how many nodes of each zone are ready.
    pub(super) fn turn(&mut self, counts: &BTreeMap<String, Count>, now: Instant) -> Option<Turn> {
        self.0.retain(|key, zone| counts.contains_key(key) || !zone.waiting.is_empty());
        for key in counts.keys() {
            self.0.entry(key.clone()).or_insert_with(|| Zone::new(now));
        }
        let seen = || self.0.iter().filter(|(key, _)| counts.contains_key(*key));
        let all_were = seen().all(|(_, zone)| zone.state == State::Full);
        let all_are = counts.values().all(|count| count.state() == State::Full);
        let turn = match (all_were, all_are) {
            // And so it stays.
            (true, true) => return None,
            (false, true) => Some(Turn::AllAway),
            (true, false) => Some(Turn::SomeBack),
            (false, false) => None,
        };
        for (key, zone) in &mut self.0 {
            let Some(count) = counts.get(key) else { continue };
            let state = count.state();
            if zone.state == state && turn.is_none() {
                continue;
            }
            zone.state = state;
            zone.limiter.set(if all_are { None } else { count.interval() }, now);
        }
        turn
    }
}

impl Count {
    fn state(self) -> State {
        let Self { ready, away } = self;
        match () {
            () if ready == 0 && away > 0 => State::Full,
            () if away > 2 && away * 100 >= (away + ready) * MUCH => State::Partial,
            () => State::Normal,
        }
    }

    fn interval(self) -> Option<Duration> {
        match self.state() {
            State::Partial if self.ready + self.away > LARGE => Some(SLOW),
            State::Partial => None,
            State::Initial | State::Normal | State::Full => Some(NORMAL),
        }
    }
}

impl Zone {
    fn new(now: Instant) -> Self {
        let limiter = Limiter { interval: Some(NORMAL), next: now };
        Self { state: State::Initial, limiter, waiting: Vec::new() }
    }
}

impl Limiter {
    fn accept(&mut self, now: Instant) -> bool {
        match self.interval {
            Some(interval) if self.next <= now => {
                self.next = now + interval;
                true
            }
            _ => false,
        }
    }

    /// Source: `SwapLimiter`. Whoever waited waits on.
    fn set(&mut self, interval: Option<Duration>, now: Instant) {
        if self.interval == interval {
            return;
        }
        let waits = !self.accept(now);
        self.interval = interval;
        self.next = match interval {
            Some(interval) if waits => now + interval,
            _ => now,
        };
    }
}
