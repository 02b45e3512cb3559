//! Making the machine's state what it should be: at the start, at the first need, now and then,
//! and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mainstay_cri::{Bandwidth, chain};
use mainstay_linux::netlink::{Link, RouteSocket, unless_gone};

use super::attach::attach;
use super::bridge::{self, Ensured};
use super::decide::decide;
use super::filter::Filter;
use super::host_ports::{HostPort, HostPorts};
use super::leases::{Leases, Stage};
use super::range::Ranges;
use super::settle::Settling;
use super::{
    Base, Finding, IpFamily, LiveSandbox, Names, Network, NetworkConfig, NetworkError, Ports,
    Range, Repair, holder, lock, places, range,
};

impl Network {
    /// Takes over the network of the sandboxes that live, mends what is missing of it, and deletes
    /// what is left of sandboxes that do not live. Sandboxes on the machine's network ask `servers` for names.
    ///
    /// Does not fail: what could not be done is told by [`Self::check`], which should be called
    /// next, and tried again then.
    pub fn open(config: NetworkConfig, live: &[LiveSandbox<'_>], servers: &[IpAddr]) -> Self {
        let names = Names::of(&config.root_dir);
        let mut untold = Vec::new();
        let mut lasting = Vec::new();
        let remembered = range::remembered(&config.range_file).unwrap_or_else(|error| {
            untold.push(Finding::NotRepaired { error: chain(&error) });
            None
        });
        let has_ipv6 = bridge::has_ipv6();
        let families = match config.ranges.as_slice() {
            [] => vec![IpFamily::V4, IpFamily::V6],
            ranges => ranges.iter().map(|range| range.family()).collect(),
        };
        let (families, lacking): (Vec<_>, Vec<_>) =
            families.into_iter().partition(|it| *it == IpFamily::V4 || has_ipv6);
        if !lacking.is_empty() {
            untold.push(Finding::NoIpv6);
        }
        // What the machine does not have any more, nobody can use.
        let usable = |range: &Range| range.family() == IpFamily::V4 || has_ipv6;
        let usable_address = |address: &IpAddr| address.is_ipv4() || has_ipv6;
        let known = remembered.clone().map(|mut ranges| {
            ranges.current.retain(usable);
            ranges.older.retain(usable);
            ranges
        });
        let wanted: Vec<_> = config.ranges.iter().copied().filter(usable).collect();
        let addresses_of = |sandbox: &LiveSandbox<'_>| -> Vec<IpAddr> {
            sandbox.addresses.iter().copied().filter(usable_address).collect()
        };
        let addresses: Vec<_> = live.iter().flat_map(&addresses_of).collect();
        // Nor is anything else given to sandboxes that are to have what it does not have.
        let known = known.filter(|ranges| {
            !ranges.current.is_empty() && (!families.is_empty() || !addresses.is_empty())
        });
        let (ranges, reason) = decide(&wanted, known.as_ref(), &addresses);
        if let (Some(ranges), Some(reason)) = (&ranges, reason) {
            let used = ranges.current.clone();
            lasting.push(Finding::OtherRange { used, reason });
        }
        let mut leases = Leases::starting_at(random());
        let mut book = HostPorts::default();
        for sandbox in live {
            let addresses = addresses_of(sandbox);
            if addresses.is_empty() {
                continue;
            }
            for port in book.adopt(&sandbox.id, &addresses, &sandbox.port_mappings) {
                let HostPort { protocol, address, port: number } = port;
                let finding = Finding::PortNotReserved {
                    sandbox: sandbox.id.clone(),
                    protocol,
                    address,
                    port: number,
                    holder: holder::find(port, &names.table),
                };
                // Of both kinds of addresses it reads the same.
                if !untold.iter().any(|other| other.to_string() == finding.to_string()) {
                    untold.push(finding);
                }
            }
            leases.hold(&sandbox.id, addresses, Stage::Attached);
            leases.set_bandwidth(&sandbox.id, sandbox.bandwidth);
        }
        // They go on to ask, whether there are to be names or not.
        let is_asked = |range: &Range| servers.contains(&range.gateway());
        let resolver = live.iter().any(|sandbox| sandbox.asks)
            || ranges.as_ref().is_some_and(|ranges| ranges.all().any(|range| is_asked(&range)));
        let filter = Filter::new(&names.table, &names.bridge, !live.is_empty());
        let network = Self {
            config,
            names,
            families,
            base: Base {
                ranges,
                remembered,
                cluster: None,
                routed: Vec::new(),
                bridge: None,
                resolver,
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
            if live.is_empty() && !self.base().resolver {
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
        let in_use = base.resolver || !self.leases().is_empty();
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
        drop(base);
        // What began while the table was not whole leads where it should not.
        if in_use && let Err(error) = self.settle() {
            failed(error);
        }
        let mut base = self.base();
        findings.append(&mut base.untold);
        findings.extend(base.lasting.iter().cloned());
        findings.extend(self.on_older_ranges(&base));
        if in_use {
            findings.extend(self.ports().filter.findings());
        }
        findings
    }

    /// Deletes everything that this instance has on the machine's network, and forgets all
    /// sandboxes. The remembered ranges stay. What other instances have is not touched, and
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
        base.resolver = false;
        base.cluster = None;
        base.routed.clear();
        if let Some(ranges) = &mut base.ranges {
            ranges.older.clear();
        }
        Ok(links.iter().filter(|link| link.kind == "veth").count())
    }

    /// Sees to it that all that sandboxes share is there, and returns the number of the bridge
    /// and the ranges.
    pub(super) fn ensure(&self, base: &mut Base) -> Result<(u32, Ranges), NetworkError> {
        let mut socket = self.socket()?;
        let found = socket.link(&self.names.bridge).map_err(self.failed("find"))?;
        let whole = found.as_ref().filter(|link| link.up && base.bridge == Some(link.index));
        let bridge = match whole {
            Some(link) if base.ranges.is_some() => link.index,
            _ => {
                let lacks_one = self.is_settled(base) && !self.is_complete(base);
                if found.is_none() || base.ranges.is_none() || lacks_one {
                    self.settle_range(base, &mut socket)?;
                }
                let ranges = base.ranges.clone().ok_or(NetworkError::NoFreeRange)?;
                let in_use = !self.leases().is_empty();
                let (bridge, ensured) = bridge::ensure(&mut socket, &self.names, &ranges, found)?;
                // Another instance chose at the same time: whoever sees the other chooses again.
                if !self.is_settled(base) {
                    let shared = bridge::is_shared(&mut socket, bridge, &ranges.current);
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
                bridge
            }
        };
        let territory = self.territory(base).ok_or(NetworkError::NoFreeRange)?;
        let switched = bridge::ensure_forwarding(&territory.ranges)?;
        if !switched.is_empty() {
            base.untold.push(Finding::ForwardingSwitchedOn(switched));
        }
        let mut ports = self.ports();
        let elements = ports.book.published();
        ports.filter.ensure(&territory, &elements)?;
        Ok((bridge, territory.ranges))
    }

    /// Whether there is a range of each kind that sandboxes get addresses of.
    fn is_complete(&self, base: &Base) -> bool {
        let ranges = base.ranges.as_ref();
        let has = |family: &IpFamily| ranges.is_some_and(|it| it.current_of(*family).is_some());
        self.families.iter().all(has)
    }

    /// Chooses a range of each kind of which there is none, or which nobody uses and which came to
    /// overlap with a network that the machine is in now; and remembers them.
    fn settle_range(&self, base: &mut Base, socket: &mut RouteSocket) -> Result<(), NetworkError> {
        let is_settled = self.is_settled(base);
        if !is_settled || !self.is_complete(base) {
            let routes = socket.routes().map_err(self.failed("find a range for"))?;
            let addresses = socket.addresses().map_err(self.failed("find a range for"))?;
            let taken = bridge::taken(&routes, &addresses);
            let mut ranges = base.ranges.take().unwrap_or_default();
            if !is_settled {
                ranges.current.retain(|range| !range.overlaps_any(&taken));
                ranges.older.clear();
            }
            base.lasting.retain(|finding| !matches!(finding, Finding::NoRange(_)));
            for family in self.families.iter().copied() {
                if ranges.current_of(family).is_some() {
                    continue;
                }
                let (machine, root_dir) = (&self.config.machine_id, &self.config.root_dir);
                match range::choose(family, machine, root_dir, &taken) {
                    Some(range) => {
                        ranges.current.push(range);
                        // That the bridge gets an address more, and the table rules, is no damage.
                        if is_settled {
                            base.moving = true;
                            self.ports().filter.outdate();
                        }
                    }
                    None => base.lasting.push(Finding::NoRange(family)),
                }
            }
            self.sort(&mut ranges);
            base.ranges = (!ranges.current.is_empty()).then_some(ranges);
        }
        if base.ranges.is_none() {
            return Err(match self.families.as_slice() {
                [] => NetworkError::NoIpv6,
                _ => NetworkError::NoFreeRange,
            });
        }
        self.remember(base);
        Ok(())
    }

    /// The range of the primary kind first.
    pub(super) fn sort(&self, ranges: &mut Ranges) {
        let place = |range: &Range| self.families.iter().position(|it| *it == range.family());
        ranges.current.sort_by_key(place);
    }

    /// Whether the ranges were given, or are used.
    fn is_settled(&self, base: &Base) -> bool {
        let given = base.cluster.as_ref().map(|cluster| cluster.ranges.as_slice());
        let current = base.ranges.as_ref().map(|ranges| ranges.current.as_slice());
        let (given, current) = (given.unwrap_or_default(), current.unwrap_or_default());
        let is_given = !given.is_empty() && given.iter().all(|range| current.contains(range));
        !self.config.ranges.is_empty() || is_given || !self.leases().is_empty()
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
            .map(|(sandbox, lease)| (self.names.link(sandbox), (sandbox.to_owned(), lease.clone())))
            .collect();

        let detours: BTreeSet<_> =
            wanted.values().map(|(sandbox, _)| self.names.detour(sandbox)).collect();

        // 2. Links that are there.
        let mut leftover = Vec::new();
        for link in &links {
            match wanted.get(&link.name) {
                None if detours.contains(&link.name) => {}
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
            let places = base.ranges.as_ref().map(|ranges| places(ranges, Some(lease)));
            match (live, places.filter(|places| !places.is_empty())) {
                (Some(live), Some(places)) => {
                    attach(&self.names, sandbox, live.namespace, bridge, &places)?;
                    self.limit(sandbox, lease.bandwidth)?;
                    base.untold.push(Finding::Repaired(Repair::Link(sandbox.clone())));
                }
                _ => base.lasting.push(Finding::Detached { sandbox: sandbox.clone() }),
            }
        }

        // 4. Bounds of what goes over them.
        let bounded = wanted.into_iter().filter(|(_, (_, lease))| {
            lease.stage == Stage::Attached && lease.bandwidth != Bandwidth::default()
        });
        let bounded = bounded.map(|(name, (sandbox, lease))| (name, sandbox, lease.bandwidth));
        self.mend_bounds(base, socket, bounded.collect())?;

        // 5. Links of nobody.
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
        // Its namespace may have ended meanwhile.
        unless_gone(put(socket)).map_err(self.failed("put a link back on"))
    }

    fn is_ours(&self, link: &Link) -> bool {
        link.group == self.names.group || link.group == self.names.doomed
    }
}

/// Where the search for free addresses begins: after a restart nobody knows which addresses were
/// given back last, and this way the chance to give out one of them at once is small.
fn random() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // Its keys come from the kernel's random numbers.
    let number = RandomState::new().hash_one(());
    u32::try_from(number >> 32).expect("half of 64 bits")
}
