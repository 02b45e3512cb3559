//! Who has which addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mainstay_cri::Bandwidth;

use super::Range;

/// The addresses that sandboxes hold. There is no other record of them: after a restart it is
/// made from what the sandboxes that live say of themselves, so that nothing can leak.
#[derive(Debug, Default)]
pub(super) struct Leases {
    sandboxes: BTreeMap<String, Lease>,
    /// The number of the addresses to try next. It only moves on, so that an address that was
    /// given back is used again as late as possible.
    next: u32,
}

/// One sandbox's hold on its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// The primary one first, at most one of a kind.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) stage: Stage,
    /// How much the sandbox receives and sends at most.
    pub(super) bandwidth: Bandwidth,
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

    pub(super) fn get(&self, sandbox: &str) -> Option<&Lease> {
        self.sandboxes.get(sandbox)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Lease)> {
        self.sandboxes.iter().map(|(sandbox, lease)| (sandbox.as_str(), lease))
    }

    /// Whether a sandbox has an address of the range.
    pub(super) fn any_in(&self, range: Range) -> bool {
        self.sandboxes.values().any(|lease| lease.is_in(range))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sandboxes.is_empty()
    }

    /// Gives the sandbox the addresses of one number in all of the ranges, which nobody holds; `None`
    /// if there is no such number.
    ///
    /// Of one number, because a link's hardware address follows from the first one: so it belongs to
    /// each of them, whoever has them.
    pub(super) fn lease(&mut self, ranges: &[Range], sandbox: &str) -> Option<&Lease> {
        let held: BTreeSet<_> =
            self.sandboxes.values().flat_map(|lease| lease.addresses.iter().copied()).collect();
        let capacity = ranges.iter().map(|range| range.capacity()).min()?;
        let number = (0..capacity)
            .map(|step| (self.next % capacity).wrapping_add(step) % capacity)
            .find(|number| !ranges.iter().any(|range| held.contains(&range.address(*number))))?;
        self.next = number.wrapping_add(1);
        let addresses = ranges.iter().map(|range| range.address(number)).collect();
        self.hold(sandbox, addresses, Stage::Attaching);
        self.get(sandbox)
    }

    /// Notes that a sandbox holds addresses.
    pub(super) fn hold(&mut self, sandbox: &str, addresses: Vec<IpAddr>, stage: Stage) {
        let lease = Lease { addresses, stage, bandwidth: Bandwidth::default() };
        self.sandboxes.insert(sandbox.into(), lease);
    }

    pub(super) fn set_stage(&mut self, sandbox: &str, stage: Stage) {
        if let Some(lease) = self.sandboxes.get_mut(sandbox) {
            lease.stage = stage;
        }
    }

    pub(super) fn set_bandwidth(&mut self, sandbox: &str, bandwidth: Bandwidth) {
        if let Some(lease) = self.sandboxes.get_mut(sandbox) {
            lease.bandwidth = bandwidth;
        }
    }

    /// Gives the sandbox's addresses back.
    pub(super) fn free(&mut self, sandbox: &str) {
        self.sandboxes.remove(sandbox);
    }
}

impl Lease {
    /// Whether one of its addresses is of that range.
    pub(super) fn is_in(&self, range: Range) -> bool {
        self.addresses.iter().any(|address| range.holds(*address))
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
            let address = leases.lease(&[range], sandbox)?.addresses[0];
            leases.free(sandbox);
            Some(address.to_string())
        };
        let given: Vec<_> = ["a", "b", "c", "d", "e", "f"].into_iter().map(&mut last).collect();
        assert_eq!(given, [5, 6, 2, 3, 4, 5].map(|last| Some(format!("10.88.0.{last}"))));
    }

    proptest! {
        /// Whatever the order of calls: no address is given twice, none outside of the ranges,
        /// those of one sandbox have one number, and there are some as long as fewer are held than
        /// there are.
        #[test]
        fn addresses_are_unique(
            start in any::<u32>(),
            calls in proptest::collection::vec((0..12_u8, any::<bool>()), 0..200),
        ) {
            let ranges: [Range; 2] =
                ["10.88.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap()];
            let mut leases = Leases::starting_at(start);
            let mut held: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
            for (number, take) in calls {
                let sandbox = number.to_string();
                if !take {
                    leases.free(&sandbox);
                    held.remove(&sandbox);
                } else if !held.contains_key(&sandbox) {
                    match leases.lease(&ranges, &sandbox) {
                        Some(Lease { addresses, .. }) => {
                            let number = (0..5).find(|it| ranges[0].address(*it) == addresses[0]);
                            let second = ranges[1].address(number.unwrap());
                            prop_assert_eq!(&addresses[1..], [second]);
                            prop_assert!(held.values().all(|other| other != addresses));
                            held.insert(sandbox, addresses.clone());
                        }
                        None => prop_assert_eq!(held.len(), 5),
                    }
                }
            }
        }
    }
}
