//! From where on something is short.
//!
//! Source: `ParseThresholdConfig` in `pkg/kubelet/eviction/helpers.go`, `defaults_linux.go`.

use std::time::Duration;

use mainstay_pod::Quantity;

use super::{Level, Levels, Signal};

/// So much of something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many bytes, files or processes.
    Quantity(Quantity),
    /// This part of what there is, above 0.
    Share(f32),
}

/// When there is less of something than this, it is short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// There should be at least this much.
    pub least: Amount,
    /// How long it may be short before pods are ended for it. Zero is a hard threshold, whose pods have no
    /// time to end.
    pub grace: Duration,
    /// How much more than `least` there has to be again before it is not short any more.
    pub reclaim: Option<Amount>,
}

/// What the machine's owner has set.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// In the order in which room is made, hard ones first.
    list: Vec<Threshold>,
    /// How long something is called short after it was. Source: `evictionPressureTransitionPeriod`.
    pub transition: Duration,
    /// How long pods have to end that are ended for a soft threshold, at most. Source:
    /// `evictionMaxPodGracePeriod`.
    pub most_grace: Duration,
}

impl Default for Thresholds {
    /// Those of a kubelet.
    fn default() -> Self {
        let mut thresholds = Self::none();
        let hard =
            |signal, least| Threshold { signal, least, grace: Duration::ZERO, reclaim: None };
        thresholds.list = vec![
            hard(Signal::MemoryAvailable, Amount::Quantity(Quantity::from_bytes(100 << 20))),
            hard(Signal::NodefsAvailable, Amount::Share(0.10)),
            hard(Signal::NodefsInodesFree, Amount::Share(0.05)),
            hard(Signal::ImagefsAvailable, Amount::Share(0.15)),
            hard(Signal::ImagefsInodesFree, Amount::Share(0.05)),
        ];
        thresholds
    }
}

impl Thresholds {
    /// No thresholds: nothing is ever short.
    pub fn none() -> Self {
        Self { list: Vec::new(), transition: Duration::from_secs(300), most_grace: Duration::ZERO }
    }

    /// All, in the order in which room is made.
    pub fn iter(&self) -> impl Iterator<Item = &Threshold> {
        self.list.iter()
    }

    /// Sets the hard threshold of a signal such as `memory.available` to a quantity or a percentage; 0 %
    /// and 100 % take it away.
    ///
    /// # Errors
    ///
    /// When there is no such signal, or the text is none of both; the message says which.
    pub fn set_hard(&mut self, signal: &str, text: &str) -> Result<(), String> {
        self.set(signal, text, Duration::ZERO)
    }

    /// Sets the soft threshold of a signal, which may be short for a while.
    ///
    /// # Errors
    ///
    /// As of [`Self::set_hard`], and when nothing says for how long.
    pub fn set_soft(
        &mut self,
        signal: &str,
        text: &str,
        grace: Option<Duration>,
    ) -> Result<(), String> {
        let Some(grace) = grace else {
            return Err(format!("{signal} has no grace period; set evictionSoftGracePeriod too"));
        };
        self.set(signal, text, grace)
    }

    /// Has the hard threshold of memory count for what all pods may have too: before the kernel ends something of
    /// theirs for want of it, a pod is ended. Source: `addAllocatableThresholds`.
    #[must_use]
    pub fn with_allocatable(mut self) -> Self {
        let hard = self.list.iter().find(|it| it.signal == Signal::MemoryAvailable && it.is_hard());
        let signal = Signal::AllocatableMemoryAvailable;
        let own = hard.map(|hard| Threshold { signal, ..*hard });
        self.list.extend(own);
        self.list.sort_by_key(|it| (it.signal, it.grace));
        self
    }

    /// Sets how much more there has to be of a signal before it is not short any more.
    ///
    /// # Errors
    ///
    /// As of [`Self::set_hard`].
    pub fn set_reclaim(&mut self, signal: &str, text: &str) -> Result<(), String> {
        let signal = signal_named(signal)?;
        let invalid = || {
            let signal = signal.as_str();
            format!(
                "{signal}: {text:?} is neither a quantity of 0 or more nor a percentage above 0%"
            )
        };
        let amount = match text.strip_suffix('%') {
            Some(text) => share(text).filter(|share| *share > 0.0).map(Amount::Share),
            None => quantity(text).map(Amount::Quantity),
        };
        let amount = amount.ok_or_else(invalid)?;
        for threshold in self.list.iter_mut().filter(|it| it.signal == signal) {
            threshold.reclaim = Some(amount);
        }
        Ok(())
    }

    fn set(&mut self, signal: &str, text: &str, grace: Duration) -> Result<(), String> {
        let signal = signal_named(signal)?;
        let is_hard = grace.is_zero();
        let least = least(text).ok_or_else(|| {
            let signal = signal.as_str();
            format!(
                "{signal}: {text:?} is neither a quantity above 0 nor a percentage from 0% to 100%"
            )
        })?;
        self.list.retain(|known| known.signal != signal || known.grace.is_zero() != is_hard);
        self.list.extend(least.map(|least| Threshold { signal, least, grace, reclaim: None }));
        self.list.sort_by_key(|it| (it.signal, it.grace));
        Ok(())
    }

    /// What is below its threshold now.
    pub(super) fn crossed(&self, levels: &Levels) -> impl Iterator<Item = usize> {
        let all = self.list.iter().enumerate();
        all.filter(|(_, it)| it.is_crossed(levels.of(it.signal), false)).map(|(index, _)| index)
    }

    /// Whether a threshold that was crossed still counts.
    pub(super) fn lasts(&self, index: usize, levels: &Levels) -> bool {
        self.list.get(index).is_some_and(|it| !it.is_resolved(levels))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Threshold> {
        self.list.get(index)
    }
}

impl Threshold {
    /// Whether pods that are ended for it have no time to end.
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }

    /// How much there has to be, as it is told. Source: `GetThresholdQuantity`.
    pub fn quantity(&self, level: Level) -> Quantity {
        self.least.of(level)
    }

    /// Whether there is as much as has to be reclaimed when it was crossed.
    pub fn is_resolved(&self, levels: &Levels) -> bool {
        !self.is_crossed(levels.of(self.signal), true)
    }

    /// How much more there would have to be.
    pub fn missing(&self, levels: &Levels) -> u64 {
        let Some(level) = levels.of(self.signal) else { return 0 };
        let more = self.reclaim.map_or(Quantity::ZERO, |more| more.of(level));
        let least = u64::try_from(self.least.of(level).plus(more).units()).unwrap_or(0);
        least.saturating_sub(level.available)
    }

    /// What cannot be told is never short.
    fn is_crossed(&self, level: Option<Level>, with_reclaim: bool) -> bool {
        let Some(level) = level else { return false };
        let more = self.reclaim.filter(|_| with_reclaim).map(|more| more.of(level));
        let least = self.least.of(level);
        let least = more.map_or(least, |more| least.plus(more));
        least > Quantity::from_bytes(level.available)
    }
}

impl Amount {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share above 0 is not meant to the last byte"
    )]
    fn of(self, level: Level) -> Quantity {
        match self {
            Self::Quantity(quantity) => quantity,
            Self::Share(share) => {
                Quantity::from_bytes((level.capacity as f64 * f64::from(share)) as u64)
            }
        }
    }
}

fn signal_named(name: &str) -> Result<Signal, String> {
    Signal::named(name).ok_or_else(|| format!("{name:?} is no eviction signal"))
}

/// The inner `None` is no threshold. Source: `parseThresholdStatement`.
#[expect(clippy::option_option, reason = "no threshold is a threshold too")]
fn least(text: &str) -> Option<Option<Amount>> {
    let Some(percentage) = text.strip_suffix('%') else {
        return quantity(text).filter(|it| !it.is_zero()).map(|it| Some(Amount::Quantity(it)));
    };
    let share = share(percentage).filter(|share| (0.0..=1.0).contains(share))?;
    Some((share > 0.0 && share < 1.0).then_some(Amount::Share(share)))
}

fn share(percentage: &str) -> Option<f32> {
    let percentage: f32 = percentage.parse().ok()?;
    percentage.is_finite().then_some(percentage / 100.0)
}

fn quantity(text: &str) -> Option<Quantity> {
    Quantity::parse(text).ok().filter(|quantity| !quantity.is_negative())
}
