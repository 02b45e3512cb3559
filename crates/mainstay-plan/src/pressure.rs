//! What is short on a machine, by the thresholds that its owner has set.
//!
//! Source: `pkg/kubelet/eviction/helpers.go`, `defaults_linux.go` of Kubernetes 1.36.

use mainstay_pod::Quantity;

/// From where on something is short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// Less than so many bytes, files or processes.
    Amount(u64),
    /// Less than this part of what there is, above 0 and below 1.
    Share(f64),
}

/// The thresholds of `evictionHard`. Without one, nothing is ever short.
///
/// Images and containers lie in the root directory, as what pods write does: `nodefs` and
/// `imagefs` are the same file system.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// `memory.available`
    pub memory: Option<Threshold>,
    /// `nodefs.available` and `imagefs.available`
    pub disk: [Option<Threshold>; 2],
    /// `nodefs.inodesFree` and `imagefs.inodesFree`
    pub inodes: [Option<Threshold>; 2],
    /// `pid.available`
    pub processes: Option<Threshold>,
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What nobody has.
    pub available: u64,
    /// All.
    pub capacity: u64,
}

/// How much there is; `None` is what cannot be told, which is never short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Bytes of memory.
    pub memory: Option<Level>,
    /// Bytes of the root directory's file system.
    pub disk: Option<Level>,
    /// Files of the root directory's file system.
    pub inodes: Option<Level>,
    /// Processes and threads.
    pub processes: Option<Level>,
}

/// What is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory is.
    pub memory: bool,
    /// Space for files is, or their number.
    pub disk: bool,
    /// The number of processes is.
    pub processes: bool,
}

impl Default for Thresholds {
    /// Those of a kubelet.
    fn default() -> Self {
        let share = |share| Some(Threshold::Share(share));
        Self {
            memory: Some(Threshold::Amount(100 << 20)),
            disk: [share(0.10), share(0.15)],
            inodes: [share(0.05), share(0.05)],
            processes: None,
        }
    }
}

impl Thresholds {
    /// No thresholds.
    pub const NONE: Self =
        Self { memory: None, disk: [None; 2], inodes: [None; 2], processes: None };

    /// Sets the threshold of a signal such as `memory.available` to a quantity or a percentage;
    /// 0 % and 100 % take it away.
    ///
    /// # Errors
    ///
    /// When there is no such signal, or the text is none of both; the message says which.
    pub fn set(&mut self, signal: &str, text: &str) -> Result<(), String> {
        let place = match signal {
            "memory.available" => &mut self.memory,
            "nodefs.available" => &mut self.disk[0],
            "imagefs.available" => &mut self.disk[1],
            "nodefs.inodesFree" => &mut self.inodes[0],
            "imagefs.inodesFree" => &mut self.inodes[1],
            "pid.available" => &mut self.processes,
            _ => return Err(format!("{signal:?} is no eviction signal")),
        };
        *place = threshold(text).ok_or_else(|| {
            format!(
                "{signal}: {text:?} is neither a quantity above 0 nor a percentage from 0% to 100%"
            )
        })?;
        Ok(())
    }

    /// What is short.
    pub fn pressure(&self, levels: &Levels) -> Pressure {
        let short = |thresholds: &[Option<Threshold>], level: Option<Level>| {
            level.is_some_and(|level| thresholds.iter().flatten().any(|it| it.is_crossed(level)))
        };
        Pressure {
            memory: short(&[self.memory], levels.memory),
            disk: short(&self.disk, levels.disk) || short(&self.inodes, levels.inodes),
            processes: short(&[self.processes], levels.processes),
        }
    }
}

impl Threshold {
    #[expect(clippy::cast_precision_loss, reason = "a share is not meant to the last byte")]
    fn is_crossed(self, level: Level) -> bool {
        match self {
            Self::Amount(least) => level.available < least,
            Self::Share(share) => (level.available as f64) < level.capacity as f64 * share,
        }
    }
}

/// The inner `None` is no threshold. Source: `parseThresholdStatement`.
#[expect(clippy::option_option, reason = "no threshold is a threshold too")]
fn threshold(text: &str) -> Option<Option<Threshold>> {
    if let Some(percentage) = text.strip_suffix('%') {
        let percentage: f64 = percentage.parse().ok()?;
        let share = Threshold::Share(percentage / 100.0);
        return match percentage {
            0.0 | 100.0 => Some(None),
            _ if percentage > 0.0 && percentage < 100.0 => Some(Some(share)),
            _ => None,
        };
    }
    let amount = u64::try_from(Quantity::parse(text).ok()?.units()).ok()?;
    (amount > 0).then_some(Some(Threshold::Amount(amount)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(available: u64, capacity: u64) -> Option<Level> {
        Some(Level { available, capacity })
    }

    #[test]
    fn a_level_below_its_threshold_is_short() {
        let thresholds = Thresholds::default();
        let fine = Levels {
            memory: level(100 << 20, 1 << 30),
            disk: level(15, 100),
            inodes: level(5, 100),
            processes: level(0, 100),
        };
        assert_eq!(thresholds.pressure(&fine), Pressure::default());
        assert_eq!(thresholds.pressure(&Levels::default()), Pressure::default());
        let memory = Levels { memory: level((100 << 20) - 1, 1 << 30), ..fine };
        assert!(thresholds.pressure(&memory).memory);
        for disk in
            [Levels { disk: level(14, 100), ..fine }, Levels { inodes: level(4, 100), ..fine }]
        {
            let disk = thresholds.pressure(&disk);
            assert_eq!(disk, Pressure { disk: true, ..Pressure::default() });
        }
        let none = Levels { memory: level(0, 1), disk: level(0, 1), inodes: level(0, 1), ..fine };
        assert_eq!(Thresholds::NONE.pressure(&none), Pressure::default());
    }

    #[test]
    fn thresholds_are_quantities_or_percentages() {
        let set = |signal: &str, text: &str| {
            let mut thresholds = Thresholds::NONE;
            thresholds.set(signal, text).map(|()| thresholds)
        };
        let bytes = set("memory.available", "1Gi").unwrap();
        assert_eq!(bytes.memory, Some(Threshold::Amount(1 << 30)));
        let share = set("imagefs.available", "25%").unwrap();
        assert_eq!(share.disk, [None, Some(Threshold::Share(0.25))]);
        let files = set("nodefs.inodesFree", "1k").unwrap();
        assert_eq!(files.inodes, [Some(Threshold::Amount(1000)), None]);
        let processes = set("pid.available", "10%").unwrap();
        assert!(
            processes.pressure(&Levels { processes: level(9, 100), ..Levels::default() }).processes
        );
        for none in ["0%", "100%"] {
            assert_eq!(set("memory.available", none), Ok(Thresholds::NONE), "{none}");
        }
        for wrong in ["", "%", "-1%", "101%", "NaN%", "0", "-5Mi", "much"] {
            assert!(set("memory.available", wrong).is_err(), "{wrong}");
        }
        assert_eq!(set("disk", "1%").unwrap_err(), "\"disk\" is no eviction signal");
    }
}
