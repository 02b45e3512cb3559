//! The probes of one container, from its start to its end.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};

use super::ProbeKind;
use crate::pod::Health;

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Success,
    /// It is not.
    Failure,
    /// The probe itself failed, which says nothing of the container.
    Unknown,
}

/// How the probes of a container begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// How long it has been running.
    pub age: Duration,
    /// What an earlier agent knew of it.
    pub known: Option<Health>,
    /// How much of a period the first probe waits, in 65536ths, so that a new agent does not ask all
    /// containers at the same moment.
    pub spread: u16,
}

/// The probes of one container that runs. Times are since any one moment, by a clock that nobody sets.
#[derive(Clone, Debug)]
pub struct Probes {
    startup: Option<Course>,
    liveness: Option<Course>,
    readiness: Option<Course>,
    /// Whether its pod is being ended.
    ending: bool,
}

/// One of its probes.
#[derive(Clone, Debug)]
struct Course {
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    /// When it is asked next, unless it waits for something else.
    due: Duration,
    under_way: bool,
    /// The last finding, and how often in a row it was found.
    run: Option<(bool, u32)>,
    /// What counts; `None` before the first threshold was reached.
    result: Option<bool>,
}

impl Probes {
    /// `None` for a container that has none.
    pub fn new(container: &Container, start: &Start, now: Duration) -> Option<Self> {
        let known = start.known.filter(|known| known.started);
        let course = |kind: ProbeKind, result| {
            kind.of(container).map(|probe| Course::new(probe, start, result, now))
        };
        let all = Self {
            startup: course(ProbeKind::Startup, known.map(|_| true)),
            liveness: course(ProbeKind::Liveness, None),
            readiness: course(ProbeKind::Readiness, known.map(|known| known.ready)),
            ending: false,
        };
        let some = all.startup.is_some() || all.liveness.is_some() || all.readiness.is_some();
        some.then_some(all)
    }

    /// What they say.
    pub fn health(&self) -> Health {
        let result = |course: &Option<Course>| course.as_ref().map(|course| course.result);
        let has_failed = |course: &Option<Course>| result(course) == Some(Some(false));
        Health {
            started: self.has_started(),
            ready: result(&self.readiness).is_none_or(|it| it == Some(true)),
            alive: !has_failed(&self.startup) && !has_failed(&self.liveness),
        }
    }

    fn has_started(&self) -> bool {
        self.startup.as_ref().is_none_or(|course| course.result == Some(true))
    }

    /// The pod is being ended: only whether the container is ready still matters.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// When the next probe is to be begun; `None` when that is not for time to say.
    pub fn due(&self) -> Option<Duration> {
        let due = |kind: &ProbeKind| self.waiting(*kind).map(|course| course.due);
        ProbeKind::ALL.iter().filter_map(due).min()
    }

    /// The probes that are due, which are under way from now on.
    pub fn begin(&mut self, now: Duration) -> Vec<ProbeKind> {
        let is_due = |kind: &ProbeKind| self.waiting(*kind).is_some_and(|it| it.due <= now);
        let begun: Vec<ProbeKind> = ProbeKind::ALL.into_iter().filter(is_due).collect();
        for kind in &begun {
            if let Some(course) = self.course_mut(*kind) {
                course.under_way = true;
                // In step with the first one, as long as they keep up.
                let next = course.due.saturating_add(course.period);
                course.due = if next > now { next } else { now.saturating_add(course.period) };
            }
        }
        begun
    }

    /// A probe that was under way has ended. Returns whether that changes the health.
    pub fn finish(&mut self, kind: ProbeKind, finding: Finding, now: Duration) -> bool {
        let before = self.health();
        if let Some(course) = self.course_mut(kind) {
            course.under_way = false;
            // What was missed meanwhile is made up for once.
            course.due = course.due.max(now);
            match finding {
                Finding::Success => course.find(true),
                Finding::Failure => course.find(false),
                Finding::Unknown => {}
            }
        }
        let after = self.health();
        if after.started && !before.started {
            // The others have waited for this, and keep time from here on.
            for course in [&mut self.liveness, &mut self.readiness].into_iter().flatten() {
                course.due = course.due.max(now);
            }
        }
        after != before
    }

    /// A probe that waits for its time and for nothing else.
    fn waiting(&self, kind: ProbeKind) -> Option<&Course> {
        let (course, wanted) = match kind {
            ProbeKind::Startup => (&self.startup, !self.ending),
            ProbeKind::Liveness => (&self.liveness, !self.ending && self.has_started()),
            ProbeKind::Readiness => (&self.readiness, self.has_started()),
        };
        let is_open = |course: &&Course| match kind {
            ProbeKind::Startup => course.result.is_none(),
            ProbeKind::Liveness => course.result != Some(false),
            ProbeKind::Readiness => true,
        };
        course.as_ref().filter(|course| wanted && !course.under_way).filter(is_open)
    }

    fn course_mut(&mut self, kind: ProbeKind) -> Option<&mut Course> {
        match kind {
            ProbeKind::Startup => self.startup.as_mut(),
            ProbeKind::Liveness => self.liveness.as_mut(),
            ProbeKind::Readiness => self.readiness.as_mut(),
        }
    }
}

impl Course {
    fn new(probe: &Probe, start: &Start, result: Option<bool>, now: Duration) -> Self {
        // Defaults and validation have seen to it that all are there and sensible; 1 is the least.
        let number = |field: Option<i32>| field.and_then(|it| u32::try_from(it).ok()).unwrap_or(1);
        let seconds = |field| Duration::from_secs(u64::from(number(field).max(1)));
        let period = seconds(probe.period_seconds);
        let initial = probe.initial_delay_seconds.and_then(|it| u64::try_from(it).ok());
        let initial = Duration::from_secs(initial.unwrap_or(0)).saturating_sub(start.age);
        let spread = period.saturating_mul(u32::from(start.spread)) / (1 << 16);
        Self {
            period,
            success_threshold: number(probe.success_threshold).max(1),
            failure_threshold: number(probe.failure_threshold).max(1),
            due: now.saturating_add(initial.max(spread)),
            under_way: false,
            run: None,
            result,
        }
    }

    fn find(&mut self, success: bool) {
        let count = match self.run {
            Some((same, count)) if same == success => count.saturating_add(1),
            _ => 1,
        };
        self.run = Some((success, count));
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if count >= threshold {
            self.result = Some(success);
        }
    }
}

#[cfg(test)]
mod tests;
