//! Who has which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Range;

/// The addresses that sandboxes hold. There is no other record of them: after a restart it is
/// made from what the sandboxes that live say of themselves, so that nothing can leak.
#[derive(Debug, Default)]
pub(super) struct Leases {
    sandboxes: BTreeMap<String, Lease>,
    /// The number of the address to try next. It only moves on, so that an address that was
    /// given back is used again as late as possible.
    next: u32,
}

/// One sandbox's hold on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The link is being made: it need not be there yet.
    Attaching,
    /// The link is there.
    Attached,
    /// The sandbox is gone, its link perhaps not yet; until then the address stays taken.
    Releasing,
}

impl Leases {
    /// Nobody holds anything; the search for free addresses begins with that number.
    pub(super) fn starting_at(next: u32) -> Self {
        Self { sandboxes: BTreeMap::new(), next }
    }

    pub(super) fn get(&self, sandbox: &str) -> Option<Lease> {
        self.sandboxes.get(sandbox).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Lease)> {
        self.sandboxes.iter().map(|(sandbox, lease)| (sandbox.as_str(), *lease))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sandboxes.is_empty()
    }

    /// Gives the sandbox an address of the range that nobody holds; `None` if there is none.
    pub(super) fn lease(&mut self, range: Range, sandbox: &str) -> Option<Lease> {
        let held: BTreeSet<_> = self.sandboxes.values().map(|lease| lease.address).collect();
        let number = (0..range.capacity())
            .map(|step| self.next.wrapping_add(step) % range.capacity())
            .find(|number| !held.contains(&range.address(*number)))?;
        self.next = number + 1;
        self.hold(sandbox, range.address(number), Stage::Attaching);
        self.get(sandbox)
    }

    /// Notes that a sandbox holds an address.
    pub(super) fn hold(&mut self, sandbox: &str, address: Ipv4Addr, stage: Stage) {
        self.sandboxes.insert(sandbox.into(), Lease { address, stage });
    }

    pub(super) fn set_stage(&mut self, sandbox: &str, stage: Stage) {
        if let Some(lease) = self.sandboxes.get_mut(sandbox) {
            lease.stage = stage;
        }
    }

    /// Gives the sandbox's address back.
    pub(super) fn free(&mut self, sandbox: &str) {
        self.sandboxes.remove(sandbox);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_used_again_as_late_as_possible() {
        let range: Range = "10.88.0.0/29".parse().unwrap();
        let mut leases = Leases::starting_at(3);
        let mut last = |sandbox: &str| {
            let lease = leases.lease(range, sandbox);
            leases.free(sandbox);
            lease.map(|lease| lease.address.octets()[3])
        };
        let given: Vec<_> = ["a", "b", "c", "d", "e", "f"].into_iter().map(&mut last).collect();
        assert_eq!(given, [5, 6, 2, 3, 4, 5].map(Some));
    }

    proptest! {
        /// Whatever the order of calls: no address is given twice, none outside of the range,
        /// and there is one as long as fewer are held than there are.
        #[test]
        fn addresses_are_unique(
            start in any::<u32>(),
            calls in proptest::collection::vec((0..12_u8, any::<bool>()), 0..200),
        ) {
            let range: Range = "10.88.0.0/29".parse().unwrap();
            let mut leases = Leases::starting_at(start);
            let mut held = BTreeMap::new();
            for (number, take) in calls {
                let sandbox = number.to_string();
                if !take {
                    leases.free(&sandbox);
                    held.remove(&sandbox);
                } else if !held.contains_key(&sandbox) {
                    match leases.lease(range, &sandbox) {
                        Some(Lease { address, .. }) => {
                            prop_assert!(range.holds(address));
                            prop_assert!(held.values().all(|other| *other != address));
                            held.insert(sandbox, address);
                        }
                        None => prop_assert_eq!(held.len(), 5),
                    }
                }
            }
        }
    }
}
