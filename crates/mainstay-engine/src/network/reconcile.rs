//! Making the machine's state what it should be: at the start, at the first need, now and then,
//! and at the end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use mainstay_cri::chain;
use mainstay_linux::netlink::{Link, RouteSocket};

use super::attach::attach;
use super::bridge::{self, Ensured};
use super::filter::Filter;
use super::host_ports::{HostPort, HostPorts};
use super::leases::{Leases, Stage};
use super::range::Ranges;
use super::ruleset::Territory;
use super::settle::Settling;
use super::{
    Base, Finding, LiveSandbox, Names, Network, NetworkConfig, NetworkError, Ports, Range, Repair,
    holder, lock, range,
};

impl Network {
    /// Takes over the network of the sandboxes that live, mends what is missing of it, and deletes
    /// what is left of sandboxes that do not live.
    ///
    /// Does not fail: what could not be done is told by [`Self::check`], which should be called
    /// next, and tried again then.
    pub fn open(config: NetworkConfig, live: &[LiveSandbox<'_>]) -> Self {
        let names = Names::of(&config.root_dir);
        let mut untold = Vec::new();
        let mut lasting = Vec::new();
        let remembered = range::remembered(&config.range_file).unwrap_or_else(|error| {
            untold.push(Finding::NotRepaired { error: chain(&error) });
            None
        });
        let addresses: Vec<_> = live.iter().filter_map(ipv4).collect();
        let (ranges, reason) = decide(config.range, remembered.as_ref(), &addresses);
        if let (Some(ranges), Some(reason)) = (&ranges, reason) {
            let used = ranges.current;
            lasting.push(Finding::OtherRange { used, reason });
        }
        let mut leases = Leases::starting_at(random());
        let mut book = HostPorts::default();
        for sandbox in live {
            let Some(address) = ipv4(sandbox) else { continue };
            leases.hold(&sandbox.id, address, Stage::Attached);
            for port in book.adopt(&sandbox.id, address, &sandbox.port_mappings) {
                let HostPort { protocol, address, port: number } = port;
                untold.push(Finding::PortNotReserved {
                    sandbox: sandbox.id.clone(),
                    protocol,
                    address: address.map(IpAddr::V4),
                    port: number,
                    holder: holder::find(port, &names.table),
                });
            }
        }
        let filter = Filter::new(&names.table, &names.bridge, !live.is_empty());
        let network = Self {
            config,
            names,
            base: Base {
                ranges,
                remembered,
                cluster: None,
                routed: Vec::new(),
                bridge: None,
                moving: false,
                untold,
                lasting,
            }
            .into(),
            ports: Ports { book, filter }.into(),
            leases: leases.into(),
            settling: Settling::default().into(),
        };
        network.take_over(live);
        network
    }

    fn take_over(&self, live: &[LiveSandbox<'_>]) {
        let take_over = || {
            if live.is_empty() {
                let leftover = self.remove()?;
                let mut base = self.base();
                if leftover > 0 {
                    base.untold.push(Finding::Repaired(Repair::Leftovers(leftover)));
                }
                return self.settle_range(&mut base, &mut self.socket()?);
            }
            let mut base = self.base();
            self.take_over_routes(&mut base)?;
            let (bridge, _) = self.ensure(&mut base)?;
            self.mend_links(&mut base, &mut self.socket()?, bridge, live)
        };
        if let Err(error) = take_over() {
            self.base().untold.push(Finding::NotRepaired { error: chain(&error) });
        }
    }

    /// Mends what others broke, and tells what is wrong or was put right.
    ///
    /// Costs about a millisecond when nothing changed; meant to be called twice a minute, and
    /// after [`Self::open`].
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut failed =
            |error: NetworkError| findings.push(Finding::NotRepaired { error: chain(&error) });
        if let Err(error) = self.settle() {
            failed(error);
        }
        let mut base = self.base();
        let in_use = !self.leases().is_empty();
        if base.cluster.is_some()
            && let Err(error) = self.look_at_cluster(&mut base)
        {
            failed(error);
        }
        if in_use {
            // Have it looked at more closely than a setup does.
            base.bridge = None;
            let result = (|| {
                let (bridge, _) = self.ensure(&mut base)?;
                self.mend_links(&mut base, &mut self.socket()?, bridge, &[])
            })();
            if let Err(error) = result {
                failed(error);
            }
        }
        findings.append(&mut base.untold);
        findings.extend(base.lasting.iter().cloned());
        findings.extend(self.on_older_ranges(&base));
        if in_use {
            findings.extend(self.ports().filter.findings());
        }
        findings
    }

    /// Deletes everything that this instance has on the machine's network, and forgets all
    /// sandboxes. The remembered range stays. What other instances have is not touched, and IPv4
    /// forwarding stays on, because others may have come to rely on it.
    pub fn remove_all(&self) -> Result<(), NetworkError> {
        self.remove()?;
        let mut base = self.base();
        base.untold.clear();
        base.lasting.clear();
        Ok(())
    }

    /// Returns how many links of sandboxes there were.
    fn remove(&self) -> Result<usize, NetworkError> {
        let mut settling = lock(&self.settling);
        let mut base = self.base();
        let mut ports = self.ports();
        let mut leases = self.leases();
        ports.filter.remove()?;
        let mut socket = self.socket()?;
        self.delete_routes(&mut socket)?;
        let mut links = socket.links().map_err(self.failed("find the links of"))?;
        links.retain(|link| self.is_ours(link));
        self.delete_links(&mut socket, &links)?;
        settling.begin_anew();
        ports.book.clear();
        *leases = Leases::starting_at(random());
        base.bridge = None;
        base.cluster = None;
        base.routed.clear();
        if let Some(ranges) = &mut base.ranges {
            ranges.older.clear();
        }
        Ok(links.iter().filter(|link| link.name != self.names.bridge).count())
    }

    /// Sees to it that all that sandboxes share is there, and returns the number of the bridge
    /// and the ranges.
    pub(super) fn ensure(&self, base: &mut Base) -> Result<(u32, Ranges), NetworkError> {
        let mut socket = self.socket()?;
        let found = socket.link(&self.names.bridge).map_err(self.failed("find"))?;
        let whole = found.as_ref().filter(|link| link.up && base.bridge == Some(link.index));
        let (bridge, ranges) = match (whole, base.ranges.clone()) {
            (Some(link), Some(ranges)) => (link.index, ranges),
            _ => {
                if found.is_none() || base.ranges.is_none() {
                    self.settle_range(base, &mut socket)?;
                }
                let ranges = base.ranges.clone().ok_or(NetworkError::NoFreeRange)?;
                let in_use = !self.leases().is_empty();
                let (bridge, ensured) = bridge::ensure(&mut socket, &self.names, &ranges, found)?;
                // Another instance chose at the same time: whoever sees the other chooses again.
                if !self.is_settled(base) {
                    let shared = bridge::is_shared(&mut socket, bridge, ranges.current);
                    if shared.map_err(self.failed("find a range for"))? {
                        base.ranges = None;
                        return self.ensure(base);
                    }
                }
                base.bridge = Some(bridge);
                let moved = std::mem::take(&mut base.moving) && ensured == Ensured::Mended;
                if in_use && ensured != Ensured::Found && !moved {
                    base.untold.push(Finding::Repaired(Repair::Bridge));
                }
                if in_use && ensured == Ensured::Made {
                    self.mend_links(base, &mut socket, bridge, &[])?;
                }
                (bridge, ranges)
            }
        };
        if bridge::ensure_forwarding()? {
            base.untold.push(Finding::ForwardingSwitchedOn);
        }
        let mut ports = self.ports();
        let elements = ports.book.published();
        let territory = Territory { ranges: ranges.clone(), peers: base.routed.clone() };
        ports.filter.ensure(&territory, &elements)?;
        Ok((bridge, ranges))
    }

    /// Chooses a range if there is none, or if nobody uses it and it came to overlap with a
    /// network that the machine is in now; and remembers it.
    fn settle_range(&self, base: &mut Base, socket: &mut RouteSocket) -> Result<(), NetworkError> {
        if !self.is_settled(base) || base.ranges.is_none() {
            let routes = socket.routes().map_err(self.failed("find a range for"))?;
            let addresses = socket.addresses().map_err(self.failed("find a range for"))?;
            let taken = bridge::taken(&routes, &addresses);
            let overlaps = |range: &Range| range.overlaps_any(&taken);
            let range = base.ranges.take().map(|ranges| ranges.current);
            base.ranges = range
                .filter(|range| !overlaps(range))
                .or_else(|| range::choose(&self.config.machine_id, &self.config.root_dir, &taken))
                .map(Ranges::of);
        }
        if base.ranges.is_none() {
            return Err(NetworkError::NoFreeRange);
        }
        self.remember(base);
        Ok(())
    }

    /// Whether the range was given, or is used.
    fn is_settled(&self, base: &Base) -> bool {
        let given = base.cluster.as_ref().and_then(|cluster| cluster.range);
        let is_given = given.is_some() && given == base.ranges.as_ref().map(|it| it.current);
        self.config.range.is_some() || is_given || !self.leases().is_empty()
    }

    /// Keeps the ranges over a restart.
    pub(super) fn remember(&self, base: &mut Base) {
        let Some(ranges) = base.ranges.clone() else { return };
        if base.remembered.as_ref() == Some(&ranges) {
            return;
        }
        match range::remember(&self.config.range_file, &ranges) {
            Ok(()) => base.remembered = Some(ranges),
            // Without the file they may be others after a restart, and that is all.
            Err(error) => {
                let error = NetworkError::RangeFile(error);
                base.untold.push(Finding::NotRepaired { error: chain(&error) });
            }
        }
    }

    /// Puts the links of attached sandboxes back on the bridge, makes those of `live` sandboxes
    /// that are gone, and deletes those of nobody.
    fn mend_links(
        &self,
        base: &mut Base,
        socket: &mut RouteSocket,
        bridge: u32,
        live: &[LiveSandbox<'_>],
    ) -> Result<(), NetworkError> {
        // 1. What is there, before what should be: a sandbox is noted before its link is made and
        // until after it is deleted, so a link of nobody in this list really is nobody's.
        let links = socket.links().map_err(self.failed("find the links of"))?;
        let wanted: BTreeMap<_, _> = self
            .leases()
            .iter()
            .map(|(sandbox, lease)| (self.names.link(sandbox), (sandbox.to_owned(), lease)))
            .collect();

        // 2. Links that are there.
        let mut leftover = Vec::new();
        for link in &links {
            match wanted.get(&link.name) {
                None if self.is_ours(link) && link.name != self.names.bridge => {
                    leftover.push(link.clone());
                }
                Some((sandbox, lease)) if lease.stage == Stage::Attached => {
                    let on_bridge = link.up && link.master == Some(bridge);
                    if !on_bridge || link.group != self.names.group {
                        self.put_back(socket, link, bridge)?;
                        base.untold.push(Finding::Repaired(Repair::Link(sandbox.clone())));
                    }
                }
                _ => {}
            }
        }

        // 3. Links that are not. One that was made since the list was read is no loss.
        base.lasting.retain(|finding| !matches!(finding, Finding::Detached { .. }));
        for (name, (sandbox, lease)) in &wanted {
            if lease.stage != Stage::Attached || links.iter().any(|link| link.name == *name) {
                continue;
            }
            let there = socket.link(name).map_err(self.failed("find a link of"))?;
            if there.is_some() || self.stage(sandbox) != Some(Stage::Attached) {
                continue;
            }
            let live = live.iter().find(|live| live.id == *sandbox);
            let range = base.ranges.as_ref().and_then(|it| it.of_address(lease.address));
            match (live, range) {
                (Some(live), Some(range)) => {
                    let address = (range, lease.address);
                    attach(&self.names, sandbox, live.namespace, bridge, address)?;
                    base.untold.push(Finding::Repaired(Repair::Link(sandbox.clone())));
                }
                _ => base.lasting.push(Finding::Detached { sandbox: sandbox.clone() }),
            }
        }

        // 4. Links of nobody.
        if !leftover.is_empty() {
            self.delete_links(socket, &leftover)?;
            base.untold.push(Finding::Repaired(Repair::Leftovers(leftover.len())));
        }
        Ok(())
    }

    fn put_back(
        &self,
        socket: &mut RouteSocket,
        link: &Link,
        bridge: u32,
    ) -> Result<(), NetworkError> {
        let put = |socket: &mut RouteSocket| {
            socket.set_group(link.index, self.names.group)?;
            socket.set_master(link.index, bridge)?;
            socket.set_hairpin(link.index)?;
            socket.set_up(link.index)
        };
        match put(socket) {
            // Its namespace ended meanwhile.
            Err(error) if error.is_not_found() => Ok(()),
            result => result.map_err(self.failed("put a link back on")),
        }
    }

    fn is_ours(&self, link: &Link) -> bool {
        link.group == self.names.group || link.group == self.names.doomed
    }
}

/// Which ranges to use, and what to tell if the current one is not the wanted one. Addresses that
/// sandboxes hold cannot be changed, so theirs go before all others.
fn decide(
    wanted: Option<Range>,
    remembered: Option<&Ranges>,
    live: &[Ipv4Addr],
) -> (Option<Ranges>, Option<String>) {
    let with_older = |mut ranges: Ranges| {
        ranges.older.retain(|range| live.iter().any(|address| range.holds(*address)));
        live.iter().all(|address| ranges.of_address(*address).is_some()).then_some(ranges)
    };
    let older = remembered.map(|ranges| ranges.older.clone()).unwrap_or_default();
    let wanted_now = wanted.map(|current| Ranges { current, older });
    let as_wanted = wanted_now.or_else(|| remembered.cloned()).map(with_older);
    match as_wanted {
        None if live.is_empty() => return (None, None),
        Some(Some(ranges)) => return (Some(ranges), None),
        _ => {}
    }
    if let Some(ranges) = remembered.cloned().and_then(with_older) {
        let wanted = wanted.map(|range| range.to_string()).unwrap_or_default();
        let reason = format!("podCIDR {wanted} takes effect when all of them are gone");
        return (Some(ranges), Some(reason));
    }
    let derived = live.first().and_then(|address| Range::new(*address, 24)).map(Ranges::of);
    let reason = "the file that remembers the range does not fit the sandboxes that run; it is \
                  written anew when they are gone";
    let reason = derived.as_ref().map(|_| reason.into());
    (derived, reason)
}

fn ipv4(sandbox: &LiveSandbox<'_>) -> Option<Ipv4Addr> {
    sandbox.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// Where the search for free addresses begins: after a restart nobody knows which addresses were
/// given back last, and this way the chance to give out one of them at once is small.
fn random() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // Its keys come from the kernel's random numbers.
    let number = RandomState::new().hash_one(());
    u32::try_from(number >> 32).expect("half of 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `used` is the range that is used, or `!` and that when it is not the wanted one.
    fn check(wanted: &str, remembered: &str, live: &[&str], used: &str) {
        let range = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        let live: Vec<_> = live.iter().map(|address| address.parse().unwrap()).collect();
        let remembered = remembered.split_once('<').map_or_else(
            || range(remembered).map(Ranges::of),
            |(current, older)| {
                let older = older.split(',').filter_map(range).collect();
                Some(Ranges { current: range(current).unwrap(), older })
            },
        );
        let (found, reason) = decide(range(wanted), remembered.as_ref(), &live);
        let mark = if reason.is_some() { "!" } else { "" };
        let found = found.map(|ranges| ranges.all().map(|it| it.to_string()).collect::<Vec<_>>());
        let found = found.unwrap_or_default().join("<");
        assert_eq!(format!("{mark}{found}"), used, "{wanted} {remembered:?} {live:?}");
    }

    #[test]
    fn the_range_that_living_sandboxes_are_in_goes_before_all_others() {
        let (a, b, in_a, in_b) = ("10.1.0.0/16", "10.2.0.0/24", "10.1.7.7", "10.2.0.9");
        check("", "", &[], "");
        check("", b, &[], b);
        check(a, b, &[], a);
        check(a, b, &[in_a], a);
        check(a, b, &[in_b], &format!("!{b}"));
        check("", a, &[in_b], "!10.2.0.0/24");
        check("", "", &[in_b], "!10.2.0.0/24");
        check(a, "", &[in_b], "!10.2.0.0/24");
        // Sandboxes in a range that the node had before.
        let (both, c) = ("10.1.0.0/16<10.2.0.0/24,10.4.0.0/24", "10.3.0.0/24");
        check("", both, &[], a);
        check("", both, &[in_a], a);
        check("", both, &[in_a, in_b], "10.1.0.0/16<10.2.0.0/24");
        check(a, both, &[in_b], "10.1.0.0/16<10.2.0.0/24");
        check(c, both, &[in_b], "10.3.0.0/24<10.2.0.0/24");
        check(c, both, &[in_a, in_b], "!10.1.0.0/16<10.2.0.0/24");
        check("", both, &[in_a, "10.9.0.1"], "!10.1.7.0/24");
    }
}
