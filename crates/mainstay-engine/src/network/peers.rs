//! Other machines whose sandboxes reach those of this one: which range each has, and the way there.
//!
//! There is no overlay: a machine is reached if it is on one network with this one. What leads there
//! are routes of the main table that carry a protocol number of our own ([`PROTOCOL`]) and the
//! instance's number as their priority; no others are ever touched.

use std::net::IpAddr;

use mainstay_linux::netlink::{Address, Route, RouteSocket, unless_exists, unless_gone};

use super::{Base, Finding, Network, NetworkError, Range, bridge};

/// Who made a route, as `ip route` shows it: `proto 109`. Nobody else is known to use that number.
pub(super) const PROTOCOL: u8 = 109;

/// What is known of the machines that this one belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The ranges that were given to this machine, at most one of a kind.
    pub ranges: Vec<Range>,
    /// The others, once for each kind of addresses.
    pub peers: Vec<Peer>,
}

/// Another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What people call it.
    pub name: String,
    /// The addresses of its sandboxes.
    pub range: Range,
    /// Its own address, of the same kind.
    pub address: IpAddr,
}

impl Network {
    /// Takes in which ranges this machine was given, and which others there are: new sandboxes get
    /// addresses of those ranges, and there are routes to the sandboxes of the others, and to no more.
    ///
    /// # Errors
    ///
    /// What could not be done is tried again by [`check`](Self::check).
    pub fn join(&self, cluster: Cluster) -> Result<(), NetworkError> {
        let mut base = self.base();
        base.cluster = Some(cluster);
        self.look_at_cluster(&mut base)?;
        let in_use = !self.leases().is_empty();
        match in_use {
            true => self.ensure(&mut base).map(drop),
            false => Ok(()),
        }
    }

    /// Sees to the range and to the routes.
    pub(super) fn look_at_cluster(&self, base: &mut Base) -> Result<(), NetworkError> {
        let mut socket = self.socket()?;
        let routes = socket.routes().map_err(self.failed("find the routes besides"))?;
        let addresses = socket.addresses().map_err(self.failed("find the addresses besides"))?;
        let taken = bridge::taken(&routes, &addresses);
        base.lasting
            .retain(|it| !matches!(it, Finding::RefusedRange { .. } | Finding::Unreachable { .. }));
        self.adopt(base, &taken);
        self.leave_ranges(base);
        self.route(base, &mut socket, (&routes, &addresses), &taken)
    }

    /// Has new sandboxes get addresses of the ranges that this machine was given. Of a kind that was
    /// not given the machine keeps its own.
    fn adopt(&self, base: &mut Base, taken: &[(IpAddr, u8)]) {
        let given = base.cluster.as_ref().map(|cluster| cluster.ranges.clone()).unwrap_or_default();
        for given in given.into_iter().filter(|it| self.families.contains(&it.family())) {
            self.adopt_range(base, given, taken);
        }
    }

    fn adopt_range(&self, base: &mut Base, given: Range, taken: &[(IpAddr, u8)]) {
        let mut ranges = base.ranges.clone().unwrap_or_default();
        match ranges.current_of(given.family()) {
            Some(current) if current == given => {}
            None => ranges.current.push(given),
            Some(used) => {
                // The addresses of our own bridge are no hindrance, unless they are others'.
                let own = |network: &(IpAddr, u8)| {
                    ranges.all().any(|range| range.overlaps_any(&[*network]))
                };
                let others: Vec<_> = taken.iter().copied().filter(|it| !own(it)).collect();
                if given.overlaps_any(&others) || ranges.all().any(|it| is_part(it, given)) {
                    base.lasting.push(Finding::RefusedRange { given, used });
                    return;
                }
                ranges.current.retain(|range| *range != used);
                ranges.current.push(given);
                ranges.older.retain(|range| *range != given);
                ranges.older.push(used);
            }
        }
        self.sort(&mut ranges);
        if base.ranges.as_ref() != Some(&ranges) {
            base.moving |= base.ranges.is_some();
            base.bridge = None;
            base.ranges = Some(ranges);
        }
        self.remember(base);
    }

    /// Lets go of ranges whose last sandbox has gone, and makes the routes that they stood in the way of.
    pub(super) fn leave_older_ranges(&self) -> Result<(), NetworkError> {
        let mut base = self.base();
        let older = |base: &Base| base.ranges.as_ref().map_or(0, |ranges| ranges.older.len());
        let before = older(&base);
        if before == 0 {
            return Ok(());
        }
        self.leave_ranges(&mut base);
        if older(&base) == before {
            return Ok(());
        }
        // It takes the addresses of these ranges off the bridge, which nobody else did.
        base.moving = true;
        self.ensure(&mut base)?;
        self.look_at_cluster(&mut base)?;
        // The filter has to know of the routes.
        self.ensure(&mut base).map(drop)
    }

    /// Lets go of ranges that no sandbox has an address of any more.
    fn leave_ranges(&self, base: &mut Base) {
        let Some(ranges) = &mut base.ranges else { return };
        let before = ranges.older.len();
        let leases = self.leases();
        ranges.older.retain(|range| leases.any_in(*range));
        drop(leases);
        if ranges.older.len() != before {
            base.bridge = None;
            self.remember(base);
        }
    }

    /// Makes the routes be those to the other machines.
    fn route(
        &self,
        base: &mut Base,
        socket: &mut RouteSocket,
        (routes, addresses): (&[Route], &[Address]),
        taken: &[(IpAddr, u8)],
    ) -> Result<(), NetworkError> {
        let Some(cluster) = base.cluster.clone() else { return Ok(()) };
        let mut wanted = Vec::new();
        for Peer { name, range, address } in &cluster.peers {
            let address = *address;
            // An instance on this machine, whose bridge is here.
            if addresses.iter().any(|own| own.address == address) {
                continue;
            }
            let mut unreachable = |reason: String| {
                base.lasting.push(Finding::Unreachable { machine: name.clone(), reason });
            };
            if range.overlaps_any(taken) {
                unreachable(format!("their range {range} overlaps with a network of this machine"));
                continue;
            }
            let way = socket.route_to(address).map_err(self.failed("find the machines besides"))?;
            match way.filter(|way| way.gateway.is_none() && way.link != 0) {
                Some(way) => wanted.push(self.route_through(*range, address, way.link)),
                None => unreachable(format!("{address} is on none of this machine's networks")),
            }
        }
        let there = self.own(routes);
        for route in there.iter().filter(|route| !wanted.contains(route)) {
            self.delete_route(socket, *route)?;
        }
        for route in wanted.iter().filter(|route| !there.contains(route)) {
            unless_exists(socket.add_route(*route)).map_err(self.failed("add a route besides"))?;
        }
        // They know a way back to what this machine was given only.
        let current = |range: &Range| base.ranges.as_ref()?.current_of(range.family());
        let is_known =
            |range: &Range| current(range).is_some_and(|it| cluster.ranges.contains(&it));
        base.routed = wanted.iter().filter_map(range_of).filter(is_known).collect();
        Ok(())
    }

    /// What the routes that there are say of other machines, before anybody else does.
    pub(super) fn take_over_routes(&self, base: &mut Base) -> Result<(), NetworkError> {
        let routes = self.own_routes(&mut self.socket()?)?;
        base.routed = routes.iter().filter_map(range_of).collect();
        Ok(())
    }

    /// Deletes all routes of this instance.
    pub(super) fn delete_routes(&self, socket: &mut RouteSocket) -> Result<(), NetworkError> {
        for route in self.own_routes(socket)? {
            self.delete_route(socket, route)?;
        }
        Ok(())
    }

    fn delete_route(&self, socket: &mut RouteSocket, route: Route) -> Result<(), NetworkError> {
        unless_gone(socket.delete_route(route)).map_err(self.failed("delete a route besides"))
    }

    fn own_routes(&self, socket: &mut RouteSocket) -> Result<Vec<Route>, NetworkError> {
        Ok(self.own(&socket.routes().map_err(self.failed("find the routes besides"))?))
    }

    fn own(&self, routes: &[Route]) -> Vec<Route> {
        let is_own = |it: &&Route| it.protocol == PROTOCOL && it.priority == self.names.group;
        routes.iter().filter(is_own).copied().collect()
    }

    fn route_through(&self, range: Range, gateway: IpAddr, link: u32) -> Route {
        Route {
            destination: range.network(),
            prefix: range.prefix(),
            gateway: Some(gateway),
            link,
            priority: self.names.group,
            table: Route::MAIN,
            protocol: PROTOCOL,
        }
    }

    /// Which sandboxes are on ranges that this machine has no more.
    pub(super) fn on_older_ranges(&self, base: &Base) -> Vec<Finding> {
        let Some(ranges) = &base.ranges else { return Vec::new() };
        let leases = self.leases();
        let found = ranges.older.iter().filter_map(|range| {
            let held = leases.iter().filter(|(_, lease)| lease.is_in(*range));
            let sandboxes: Vec<_> = held.map(|(sandbox, _)| sandbox.to_owned()).collect();
            let current = ranges.current_of(range.family())?;
            (!sandboxes.is_empty()).then_some(Finding::OlderRange {
                range: *range,
                current,
                sandboxes,
            })
        });
        found.collect()
    }
}

/// Whether one of two ranges is a part of the other, and not the same.
fn is_part(one: Range, other: Range) -> bool {
    one != other && one.overlaps_range(other)
}

fn range_of(route: &Route) -> Option<Range> {
    Range::new(route.destination, route.prefix)
}
