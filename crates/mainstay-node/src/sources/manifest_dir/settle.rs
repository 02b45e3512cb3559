//! When a file in a directory is read, and when it counts as taken away.
//!
//! Pure: names and moments go in, orders come out.
//!
//! | what is heard | what follows |
//! | --- | --- |
//! | renamed into place | read now |
//! | closed after writing | read when left alone for [`QUIET`] |
//! | made, written to | read when left alone for [`BUSY`], if no close comes before |
//! | its rights or times changed | read after [`QUIET`], if it is not to be read anyway |
//! | removed, or renamed away | dropped now |
//! | renamed to a name that is not read, in the same directory | dropped after [`BACKUP`]: editors put the old version aside before they write the new one |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a file that was closed has to be left alone.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// The same for a file that somebody may still have open.
pub(super) const BUSY: Duration = Duration::from_secs(1);
/// How long an editor may take from putting the old version aside to having the new one there.
pub(super) const BACKUP: Duration = Duration::from_secs(1);

/// What the kernel tells of a name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Renamed to this name.
    MovedTo { name: String, cookie: u32 },
    /// Renamed away from this name.
    MovedFrom { name: String, cookie: u32 },
    /// Closed by somebody who could write.
    Closed { name: String },
    /// Made, or written to.
    Touched { name: String },
    /// Its rights or times were changed.
    Attributes { name: String },
    /// Removed.
    Removed { name: String },
}

/// What to do about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Read it.
    Read,
    /// It is gone.
    Drop,
}

/// The orders of one directory that are not due yet.
#[derive(Debug, Default)]
pub(super) struct Settle {
    orders: BTreeMap<String, (Instant, Order)>,
}

impl Settle {
    /// Takes what was heard at one moment, in order.
    pub(super) fn hear(&mut self, events: &[Heard], now: Instant) {
        for event in events {
            match event {
                Heard::MovedTo { name, .. } => self.set(name, now, Order::Read),
                Heard::Closed { name } => self.set(name, now + QUIET, Order::Read),
                Heard::Touched { name } => self.set(name, now + BUSY, Order::Read),
                // What is to come anyway is neither hurried nor held up by it.
                Heard::Attributes { name } => {
                    self.orders.entry(name.clone()).or_insert((now + QUIET, Order::Read));
                }
                Heard::Removed { name } => self.set(name, now, Order::Drop),
                Heard::MovedFrom { name, cookie } => {
                    let aside = events.iter().any(|other| {
                        matches!(other, Heard::MovedTo { name, cookie: same } if same == cookie
                            && !super::entry::is_manifest_name(name.as_ref()))
                    });
                    self.set(name, if aside { now + BACKUP } else { now }, Order::Drop);
                }
            }
        }
    }

    /// A name was found by looking, with something new in it.
    pub(super) fn found(&mut self, name: &str, settled: bool, now: Instant) {
        let due = if settled { now } else { now + QUIET };
        // What was heard of it already is more exact.
        self.orders.entry(name.to_owned()).or_insert((due, Order::Read));
    }

    /// A name was not found by looking.
    pub(super) fn missed(&mut self, name: &str, now: Instant) {
        self.orders.entry(name.to_owned()).or_insert((now, Order::Drop));
    }

    fn set(&mut self, name: &str, due: Instant, order: Order) {
        self.orders.insert(name.to_owned(), (due, order));
    }

    /// The orders that are due, in the order of names.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(String, Order)> {
        let due: Vec<String> = self
            .orders
            .iter()
            .filter(|(_, (due, _))| *due <= now)
            .map(|(name, _)| name.clone())
            .collect();
        due.into_iter()
            .filter_map(|name| self.orders.remove(&name).map(|(_, order)| (name, order)))
            .collect()
    }

    /// When the next order is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.orders.values().map(|(due, _)| *due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as (milliseconds, event); returns orders as (milliseconds, name, order).
    fn play(events: &[(u64, Heard)]) -> Vec<(u128, String, Order)> {
        let start = Instant::now();
        let mut settle = Settle::default();
        let mut orders = Vec::new();
        let mut rest = events;
        let mut now = start;
        loop {
            // What happens at one moment is heard together.
            let until = rest.iter().take_while(|(at, _)| start + Duration::from_millis(*at) <= now);
            let heard: Vec<Heard> = until.map(|(_, event)| event.clone()).collect();
            rest = &rest[heard.len()..];
            settle.hear(&heard, now);
            for (name, order) in settle.take_due(now) {
                orders.push((now.duration_since(start).as_millis(), name, order));
            }
            let next = rest.first().map(|(at, _)| start + Duration::from_millis(*at));
            match next.into_iter().chain(settle.next_due()).min() {
                Some(later) => now = later,
                None => return orders,
            }
        }
    }

    fn order(at: u128, name: &str, order: Order) -> (u128, String, Order) {
        (at, name.to_owned(), order)
    }

    fn named(event: fn(String) -> Heard, name: &str) -> Heard {
        event(name.to_owned())
    }

    fn closed(name: &str) -> Heard {
        named(|name| Heard::Closed { name }, name)
    }

    fn touched(name: &str) -> Heard {
        named(|name| Heard::Touched { name }, name)
    }

    #[test]
    fn a_file_that_is_renamed_into_place_is_read_at_once() {
        let events = [
            (0, touched("web.yaml.tmp")),
            (5, closed("web.yaml.tmp")),
            (6, Heard::MovedFrom { name: "web.yaml.tmp".into(), cookie: 1 }),
            (6, Heard::MovedTo { name: "web.yaml".into(), cookie: 1 }),
        ];
        assert_eq!(play(&events)[..1], [order(6, "web.yaml", Order::Read)]);
    }

    #[test]
    fn a_file_that_is_written_in_pieces_is_read_when_it_is_left_alone() {
        let events = [
            (0, touched("a.yaml")),
            (10, closed("a.yaml")),
            (100, touched("a.yaml")),
            (150, touched("a.yaml")),
            (160, closed("a.yaml")),
        ];
        assert_eq!(play(&events), [order(360, "a.yaml", Order::Read)]);
    }

    #[test]
    fn a_change_of_rights_holds_nothing_up() {
        let changed = Heard::Attributes { name: "a.yaml".into() };
        let events = [(0, touched("a.yaml")), (10, closed("a.yaml")), (20, changed.clone())];
        assert_eq!(play(&events), [order(210, "a.yaml", Order::Read)]);
        assert_eq!(play(&[(0, changed)]), [order(200, "a.yaml", Order::Read)]);
    }

    #[test]
    fn a_file_that_stays_open_is_read_in_the_end() {
        assert_eq!(play(&[(0, touched("a.yaml"))]), [order(1000, "a.yaml", Order::Read)]);
    }

    #[test]
    fn a_removed_file_is_dropped_at_once() {
        let events = [(0, closed("a.yaml")), (50, Heard::Removed { name: "a.yaml".into() })];
        assert_eq!(play(&events), [order(50, "a.yaml", Order::Drop)]);
    }

    /// As vim saves: the old version is put aside, the new one is written, the old one removed.
    #[test]
    fn an_editor_that_puts_the_old_version_aside_drops_nothing() {
        let events = [
            (0, touched("4913")),
            (1, Heard::Removed { name: "4913".into() }),
            (2, Heard::MovedFrom { name: "a.yaml".into(), cookie: 7 }),
            (2, Heard::MovedTo { name: "a.yaml~".into(), cookie: 7 }),
            (3, touched("a.yaml")),
            (40, closed("a.yaml")),
            (41, Heard::Removed { name: "a.yaml~".into() }),
        ];
        let of_file: Vec<_> =
            play(&events).into_iter().filter(|(_, name, _)| name == "a.yaml").collect();
        assert_eq!(of_file, [order(240, "a.yaml", Order::Read)]);
    }

    #[test]
    fn a_file_that_was_put_aside_for_good_is_dropped() {
        let events = [
            (0, Heard::MovedFrom { name: "a.yaml".into(), cookie: 7 }),
            (0, Heard::MovedTo { name: "a.yaml.bak".into(), cookie: 7 }),
        ];
        let of_file: Vec<_> =
            play(&events).into_iter().filter(|(_, name, _)| name == "a.yaml").collect();
        assert_eq!(of_file, [order(1000, "a.yaml", Order::Drop)]);
    }

    #[test]
    fn a_renamed_manifest_is_dropped_and_read_in_one_go() {
        let events = [
            (0, Heard::MovedFrom { name: "b.yaml".into(), cookie: 7 }),
            (0, Heard::MovedTo { name: "a.yaml".into(), cookie: 7 }),
        ];
        assert_eq!(
            play(&events),
            [order(0, "a.yaml", Order::Read), order(0, "b.yaml", Order::Drop)]
        );
    }
}
