//! How the pods of an old template are replaced, in numbers.
//!
//! Source: `ResolveFenceposts`, `MaxSurge` and `MaxUnavailable` in
//! `pkg/controller/deployment/util/deployment_util.go`.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How many pods there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strategy {
    /// Whether all old pods go before the first new one comes.
    pub(super) recreate: bool,
    /// How many pods there should be.
    pub(super) wanted: i64,
    /// How many pods there may be beyond that.
    pub(super) surge: i64,
    /// How many of them may be unavailable.
    pub(super) unavailable: i64,
}

impl Strategy {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1).into();
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return Self { recreate: true, wanted, surge: 0, unavailable: 0 };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let surge = surge.map_or(0, |it| pods(it, wanted, Round::Up));
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let unavailable = match unavailable.map_or(0, |it| pods(it, wanted, Round::Down)) {
            // A percentage of a few pods is none, and without either nothing would ever move.
            0 if surge == 0 => 1,
            unavailable => unavailable,
        };
        Self { recreate: false, wanted, surge, unavailable: unavailable.min(wanted) }
    }

    /// The most pods that there may be.
    pub(super) fn most(&self) -> i64 {
        self.wanted + self.surge
    }

    /// The fewest pods that may be available.
    pub(super) fn fewest_available(&self) -> i64 {
        self.wanted - self.unavailable
    }
}

#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
}

/// Source: `GetScaledValueFromIntOrPercent`.
fn pods(value: &IntOrString, wanted: i64, round: Round) -> i64 {
    match value {
        IntOrString::Int(number) => (*number).into(),
        IntOrString::String(text) => {
            // The API takes nothing but percentages.
            let percent: i32 =
                text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0);
            // Neither is more than 31 bits.
            let hundredths = wanted * i64::from(percent);
            match round {
                Round::Up => (hundredths + 99) / 100,
                Round::Down => hundredths / 100,
            }
        }
    }
}
