//! Which images are removed because nobody uses them.
//!
//! Source: `pkg/kubelet/images/image_gc_manager.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_cri::{Image, ImageId};

use crate::pressure::Level;

/// When images are removed. Source: `ImageGCPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From this part of the disk on, in percent, images are removed. Source:
    /// `imageGCHighThresholdPercent`.
    pub high: u8,
    /// Down to this part, if they are enough. Source: `imageGCLowThresholdPercent`.
    pub low: u8,
    /// What has not been here for so long stays: it may be about to be used. Source: `imageMinimumGCAge`.
    pub min_age: Duration,
    /// What nobody has used for so long goes however much room there is; zero is never. Source:
    /// `imageMaximumGCAge`.
    pub max_age: Duration,
}

impl Default for Policy {
    /// A kubelet's.
    fn default() -> Self {
        Self { high: 85, low: 80, min_age: Duration::from_secs(120), max_age: Duration::ZERO }
    }
}

impl Policy {
    /// Whether nothing is ever removed unless the disk is short. Source: `StartGarbageCollection`.
    pub fn is_off(&self) -> bool {
        self.high == 100 && self.max_age.is_zero()
    }

    /// How many bytes are to be removed; `None` if there is room enough.
    pub fn excess(&self, disk: Level) -> Option<u64> {
        (used_percent(disk) >= u64::from(self.high)).then(|| {
            let free = u64::from(100_u8.saturating_sub(self.low));
            let wanted = u128::from(disk.capacity) * u128::from(free) / 100;
            u64::try_from(wanted).unwrap_or(u64::MAX).saturating_sub(disk.available)
        })
    }
}

/// What is known of images, from one look to the next. Times are those of a clock that only goes forward,
/// since the agent began.
#[derive(Clone, Debug, Default)]
pub struct Known {
    images: BTreeMap<ImageId, Record>,
}

#[derive(Clone, Debug)]
struct Record {
    detected: Duration,
    /// `None` if it was never used while this agent ran.
    used: Option<Duration>,
    size: u64,
    /// Whether it may go: nobody uses it, and the node does not want it to stay.
    is_free: bool,
}

/// An image that may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// Its name.
    pub id: ImageId,
    /// Bytes on disk, which it may share with others.
    pub size: u64,
    /// Whether it has not been used for too long.
    pub is_old: bool,
}

impl Known {
    /// Takes in the images that there are, and the ids of those that somebody uses.
    pub fn look(&mut self, images: &[Image], used: &BTreeSet<ImageId>, now: Duration) {
        let mut known = std::mem::take(&mut self.images);
        for image in images {
            let is_used = used.contains(&image.id);
            let before = known.remove(&image.id);
            let record = Record {
                detected: before.as_ref().map_or(now, |before| before.detected),
                used: if is_used { Some(now) } else { before.and_then(|before| before.used) },
                size: image.size,
                is_free: !is_used && !image.pinned,
            };
            self.images.insert(image.id.clone(), record);
        }
    }

    /// Those that may go, in the order in which they do: those that were used last the longest ago.
    pub fn unused(&self, policy: &Policy, now: Duration) -> Vec<Unused> {
        let max_age = policy.max_age;
        let mut free: Vec<_> = self.images.iter().filter(|(_, it)| it.is_free).collect();
        free.sort_by_key(|(_, it)| (it.used, it.detected));
        let may_go = |(id, it): (&ImageId, &Record)| {
            let unused = now.saturating_sub(it.used.unwrap_or_default());
            let is_old = !max_age.is_zero() && now > max_age && unused > max_age;
            let is_new = now.saturating_sub(it.detected) < policy.min_age;
            (is_old || !is_new).then(|| Unused { id: id.clone(), size: it.size, is_old })
        };
        free.into_iter().filter_map(may_go).collect()
    }
}

/// How much of a disk is used, in percent.
fn used_percent(disk: Level) -> u64 {
    let available = u128::from(disk.available.min(disk.capacity)) * 100;
    let free = available.checked_div(u128::from(disk.capacity)).unwrap_or(100);
    100_u64.saturating_sub(u64::try_from(free).unwrap_or(100))
}

/// What is told when the images that may go are not enough.
pub fn shortfall(disk: Level, freed: u64) -> String {
    format!(
        "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free \
         sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it \
         could be used by active images, logs, volumes, or other data.",
        used_percent(disk),
        size(disk.capacity)
    )
}

/// Source: `formatSize`.
#[expect(clippy::cast_precision_loss, reason = "one digit after the point is told")]
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while amount >= 1024.0
        && let Some(next) = units.next()
    {
        amount /= 1024.0;
        unit = Some(next);
    }
    format!("{amount:.1} {}", unit.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, size: u64, pinned: bool) -> Image {
        Image {
            id: ImageId(id.into()),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size,
            pinned,
            user: String::new(),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Looks at these moments with these images, of which those in capitals are used and those with a
    /// `!` pinned; what may go after the last one.
    fn unused(policy: &Policy, looks: &[(u64, &str)]) -> String {
        let mut known = Known::default();
        for (at, text) in looks {
            let all = text.split_whitespace().map(|word| {
                let id = word.trim_end_matches('!').to_lowercase();
                image(&id, 1, word.ends_with('!'))
            });
            let used = text.split_whitespace().filter(|word| word.starts_with(char::is_uppercase));
            let used = used.map(|word| ImageId(word.to_lowercase())).collect();
            known.look(&all.collect::<Vec<_>>(), &used, seconds(*at));
        }
        let last = seconds(looks.last().unwrap().0);
        let words = known.unused(policy, last).into_iter();
        words.map(|it| format!("{}{} ", it.id, if it.is_old { "*" } else { "" })).collect()
    }

    #[test]
    fn what_is_used_pinned_or_new_stays_and_the_rest_goes_in_order() {
        let policy = Policy::default();
        for (looks, expected) in [
            (&[(0, "a b"), (119, "a b")][..], ""),
            (&[(0, "a b!"), (120, "a b!")], "a "),
            (&[(0, "A"), (500, "A")], ""),
            // Never used, used long ago, used lately.
            (
                &[(0, "A b C d"), (100, "A c b d"), (200, "a b c d e"), (300, "a b c d e")],
                "b d c a ",
            ),
            // What went and came again is new.
            (&[(0, "a"), (100, ""), (200, "a"), (300, "a")], ""),
        ] {
            assert_eq!(unused(&policy, looks), expected, "{looks:?}");
        }
    }

    #[test]
    fn what_nobody_has_used_for_too_long_is_old() {
        let policy = Policy { max_age: seconds(1000), ..Policy::default() };
        // A new agent knows nothing of the time before.
        assert_eq!(unused(&policy, &[(0, "a"), (1000, "a")]), "a ");
        assert_eq!(unused(&policy, &[(0, "a B"), (500, "a B"), (1001, "a b")]), "a* b ");
        assert_eq!(unused(&policy, &[(0, "A"), (500, "A"), (1501, "a")]), "a* ");
    }

    #[test]
    fn between_the_thresholds_nothing_is_done() {
        let policy = Policy::default();
        let excess = |available, capacity| policy.excess(Level { available, capacity });
        assert_eq!(excess(16_000, 100_000), None);
        assert_eq!(excess(15_999, 100_000), Some(4001));
        assert_eq!(excess(15_000, 100_000), Some(5000));
        assert_eq!(excess(0, 100_000), Some(20_000));
        assert_eq!(excess(0, 0), None);
        assert!(Policy { high: 100, ..policy }.is_off());
        assert!(!Policy { high: 100, max_age: seconds(1), ..policy }.is_off());
    }

    #[test]
    fn a_shortfall_is_told_in_a_kubelets_words() {
        let told = shortfall(Level { available: 1 << 30, capacity: 10 << 30 }, 12);
        assert!(
            told.contains("(90% of 10.0 GiB used)") && told.contains("(freed 12 bytes)"),
            "{told}"
        );
        for (bytes, text) in
            [(1023, "1023 B"), (1024, "1.0 KiB"), (1536 << 10, "1.5 MiB"), (5 << 50, "5120.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
