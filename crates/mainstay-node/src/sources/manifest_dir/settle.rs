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
//! | removed | dropped now |
//! | renamed away | dropped after [`PAIR`], if its new name is not heard before |
//! | renamed to another name that is read, in the same directory | dropped now, and read under the new one |
//! | renamed to a name that is not read, in the same directory | dropped after [`BACKUP`]: editors put the old version aside before they write the new one |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a file that was closed has to be left alone.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// The same for a file that somebody may still have open.
pub(super) const BUSY: Duration = Duration::from_secs(1);
/// How long the second half of a rename may take: the two are not told at one moment. Source:
/// inotify(7), "Dealing with rename() events".
pub(super) const PAIR: Duration = Duration::from_millis(50);
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
    orders: BTreeMap<String, Pending>,
}

#[derive(Debug)]
struct Pending {
    due: Instant,
    order: Order,
    /// Of the rename whose second half has not been heard.
    cookie: Option<u32>,
}

impl Settle {
    /// Takes what was heard at one moment, in order.
    pub(super) fn hear(&mut self, events: &[Heard], now: Instant) {
        for event in events {
            match event {
                Heard::MovedTo { name, cookie } => {
                    let aside = !super::entry::is_manifest_name(name.as_ref());
                    let due = if aside { now + BACKUP } else { now };
                    let mut orders = self.orders.values_mut();
                    if let Some(from) = orders.find(|it| it.cookie == Some(*cookie)) {
                        *from = Pending { due, order: Order::Drop, cookie: None };
                    }
                    self.set(name, now, Order::Read);
                }
                Heard::Closed { name } => self.set(name, now + QUIET, Order::Read),
                Heard::Touched { name } => self.set(name, now + BUSY, Order::Read),
                // What is to come anyway is neither hurried nor held up by it.
                Heard::Attributes { name } => {
                    self.set_if_none(name, now + QUIET, Order::Read);
                }
                Heard::Removed { name } => self.set(name, now, Order::Drop),
                Heard::MovedFrom { name, cookie } => {
                    let (due, order) = (now + PAIR, Order::Drop);
                    let pending = Pending { due, order, cookie: Some(*cookie) };
                    self.orders.insert(name.clone(), pending);
                }
            }
        }
    }

    /// A name was found by looking, with something new in it.
    pub(super) fn found(&mut self, name: &str, settled: bool, now: Instant) {
        let due = if settled { now } else { now + QUIET };
        // What was heard of it already is more exact.
        self.set_if_none(name, due, Order::Read);
    }

    /// A name was not found by looking.
    pub(super) fn missed(&mut self, name: &str, now: Instant) {
        self.set_if_none(name, now, Order::Drop);
    }

    fn set(&mut self, name: &str, due: Instant, order: Order) {
        self.orders.insert(name.to_owned(), Pending { due, order, cookie: None });
    }

    fn set_if_none(&mut self, name: &str, due: Instant, order: Order) {
        self.orders.entry(name.to_owned()).or_insert(Pending { due, order, cookie: None });
    }

    /// The orders that are due, in the order of names.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(String, Order)> {
        let due: Vec<String> = self
            .orders
            .iter()
            .filter(|(_, pending)| pending.due <= now)
            .map(|(name, _)| name.clone())
            .collect();
        due.into_iter()
            .filter_map(|name| self.orders.remove(&name).map(|it| (name, it.order)))
            .collect()
    }

    /// When the next order is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.orders.values().map(|pending| pending.due).min()
    }
}

#[cfg(test)]
mod tests;
