//! The built-in network: a bridge on the machine, addresses per sandbox, ports of the host.
//!
//! Every sandbox that does not use the machine's own network gets a veth pair onto the instance's
//! bridge, and an address of each of the instance's ranges: one of IPv4, and one of IPv6 if the
//! machine has that. Sandboxes reach each other, the machine,
//! and what the machine reaches, the latter under the machine's address; those of machines that
//! were joined see them under their own ([`peers`]). [`ruleset`] has the rules for that and for
//! host ports. What an instance has on the machine carries names derived
//! from its root-dir ([`Names`]), so several live side by side.
//!
//! # Flow
//!
//! [`Network::open`] takes over what the living sandboxes have and deletes what is left of dead
//! ones. [`Network::setup`] makes the bridge and the table when they are missing, gives a sandbox
//! an address and its ports, and makes its link. [`Network::teardown`] takes them back. Both are
//! quick, and leave to [`Network::settle`] what takes its time and nobody has to wait for.
//! [`Network::check`], called now and then, mends what others broke. [`Network::remove_all`]
//! leaves no trace.
//!
//! # Guarantees
//!
//! - Until the first sandbox needs it, or there are other machines ([`Network::join`]), nothing on
//!   the machine is touched.
//! - Who holds which address and port is known from the living sandboxes alone; there is no file
//!   of it. Only the ranges are remembered, in a file.
//! - Which kinds of addresses there are is found out when the network is opened.
//! - An address stays taken until its link is gone, and is used again as late as possible.
//! - Everything may be called again after it was cut off, by an error or by the agent's death.
//! - No traffic of a running sandbox is disturbed by anything that is done for another one, by
//!   a restart, or by a repair.
//!
//! # Assumptions
//!
//! All calls come from threads in one network namespace, the machine's; one process at a time
//! serves a root-dir; and calls for one sandbox do not overlap. Otherwise every call may come
//! from any thread at any time.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mainstay_cri::{Bandwidth, PortMapping, chain};
use mainstay_linux::netlink::{self, RouteSocket};

mod attach;
mod bandwidth;
mod bridge;
mod decide;
mod error;
mod filter;
mod finding;
mod firewall;
mod holder;
mod host_ports;
mod leases;
mod names;
mod peers;
mod range;
mod reconcile;
mod resolver;
mod ruleset;
mod settle;
#[cfg(test)]
mod tests;

pub(crate) use attach::{INSIDE, LOOPBACK};
pub use error::{Holder, NetworkError};
pub use finding::{DroppingRule, Finding, Repair, Traffic};
pub use names::Names;
pub use peers::{Cluster, Peer};
pub use range::{
    InvalidRange, InvalidRanges, IpFamily, Range, RangeFileError, parse_ranges, show_ranges,
};
pub(crate) use resolver::{Counter, Sockets};

use filter::Filter;
use host_ports::{HostPort, HostPorts};
use leases::{Lease, Leases, Stage};
use range::Ranges;
use ruleset::Territory;
use settle::Settling;

/// What a [`Network`] needs to know.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The instance's root-dir; only names are made from it.
    pub root_dir: PathBuf,
    /// Where the chosen ranges are remembered; its directory exists.
    pub range_file: PathBuf,
    /// The contents of `/etc/machine-id`, so that two machines rarely choose the same range.
    pub machine_id: String,
    /// The ranges to use, at most one of a kind, the primary one first; with none they are chosen
    /// (`podCIDR` of a KubeletConfiguration).
    pub ranges: Vec<Range>,
}

/// A sandbox that lives already when the network is opened.
#[derive(Clone, Debug)]
pub struct LiveSandbox<'a> {
    /// Its id.
    pub id: String,
    /// Its network namespace.
    pub namespace: BorrowedFd<'a>,
    /// As [`Network::setup`] returned them.
    pub addresses: Vec<IpAddr>,
    /// As [`Network::setup`] got them.
    pub port_mappings: Vec<PortMapping>,
    /// As [`Network::limit`] got it.
    pub bandwidth: Bandwidth,
    /// Whether it may ask the resolver.
    pub asks: bool,
}

/// The network of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxNetwork {
    /// Its addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// The machine's addresses on the bridge, through which everything else is reached; one per
    /// family.
    pub gateways: Vec<IpAddr>,
}

/// The built-in network of one instance.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    names: Names,
    /// Which kinds of addresses sandboxes get, the primary one first.
    families: Vec<IpFamily>,
    // Taken in this order, and none of them while a link is made or deleted.
    base: Mutex<Base>,
    ports: Mutex<Ports>,
    leases: Mutex<Leases>,
    /// Taken before all of these.
    settling: Mutex<Settling>,
}

/// What all sandboxes share.
#[derive(Debug)]
struct Base {
    /// `None` until one could be chosen.
    ranges: Option<Ranges>,
    /// What the file says.
    remembered: Option<Ranges>,
    /// What is known of other machines; `None` until that is said.
    cluster: Option<Cluster>,
    /// The ranges of those to which there is a way.
    routed: Vec<Range>,
    /// The number of the bridge when it was last seen whole.
    bridge: Option<u32>,
    /// Whether what is asked at its addresses is for the resolver.
    resolver: bool,
    /// Whether the bridge is to get an address that it did not have: that is no damage.
    moving: bool,
    /// What [`Network::check`] has to tell once.
    untold: Vec<Finding>,
    /// What it has to tell each time.
    lasting: Vec<Finding>,
}

#[derive(Debug)]
struct Ports {
    book: HostPorts,
    filter: Filter,
}

impl Network {
    /// Gives a sandbox its network: addresses, a link named `eth0` inside, default routes, and the
    /// host ports that its mappings name.
    ///
    /// `namespace` is its network namespace. Called again for a sandbox that has its network
    /// already, it makes what is missing of it and returns the same; the mappings do not change
    /// during a sandbox's life.
    ///
    /// # Errors
    ///
    /// [`NetworkError::PortInUse`] names who has a port that the mappings ask for; the call may
    /// succeed later. After an error the sandbox holds nothing, unless it did before.
    pub fn setup(
        &self,
        sandbox: &str,
        namespace: BorrowedFd<'_>,
        mappings: &[PortMapping],
    ) -> Result<SandboxNetwork, NetworkError> {
        if self.stage(sandbox) == Some(Stage::Releasing) {
            self.settle()?;
        }
        let known = self.stage(sandbox).is_some();
        let result = self.setup_or_leave(sandbox, namespace, mappings);
        if result.is_err() && !known {
            // The error at hand tells more than one from cleaning up.
            let cleanup = self.teardown(sandbox);
            if let Err(error) = cleanup {
                self.base().untold.push(Finding::NotRepaired { error: chain(&error) });
            }
        }
        result
    }

    fn setup_or_leave(
        &self,
        sandbox: &str,
        namespace: BorrowedFd<'_>,
        mappings: &[PortMapping],
    ) -> Result<SandboxNetwork, NetworkError> {
        let (master, places) = {
            let mut base = self.base();
            let (master, ranges) = self.ensure(&mut base)?;
            let mut leases = self.leases();
            if leases.get(sandbox).is_none() && leases.lease(&ranges.current, sandbox).is_none() {
                let smallest = ranges.current.into_iter().min_by_key(|range| range.capacity());
                let range = smallest.ok_or(NetworkError::NoFreeRange)?;
                return Err(NetworkError::RangeExhausted { range });
            }
            (master, places(&ranges, leases.get(sandbox)))
        };
        let addresses: Vec<_> = places.iter().map(|(_, address)| *address).collect();
        self.claim(sandbox, &addresses, mappings)?;
        attach::attach(&self.names, sandbox, namespace, master, &places)?;
        self.publish(sandbox)?;
        self.leases().set_stage(sandbox, Stage::Attached);
        let gateways = places.iter().map(|(range, _)| range.gateway()).collect();
        Ok(SandboxNetwork { addresses, gateways })
    }

    /// Bounds what a sandbox receives and sends, after its setup and before anything runs in it.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Limit`] also when the kernel lacks what it takes. What was done of it goes with
    /// the sandbox. [`Self::check`] restores what others take away of it.
    pub fn limit(&self, sandbox: &str, bandwidth: Bandwidth) -> Result<(), NetworkError> {
        bandwidth::limit(&self.names, sandbox, bandwidth)?;
        self.leases().set_bandwidth(sandbox, bandwidth);
        Ok(())
    }

    /// Takes from a sandbox what [`Self::setup`] gave it. Its ports are free when this returns;
    /// its addresses are when [`Self::settle`] has deleted its link. Quick, and without effect on a
    /// sandbox that has nothing.
    pub fn teardown(&self, sandbox: &str) -> Result<(), NetworkError> {
        let mut ports = self.ports();
        let elements = ports.book.of_sandbox(sandbox);
        ports.filter.delete(&elements)?;
        ports.book.release(sandbox);
        drop(ports);
        self.leases().set_stage(sandbox, Stage::Releasing);
        Ok(())
    }

    /// The ranges that new sandboxes get addresses of, the primary one first; none while they could
    /// not be chosen.
    pub fn ranges(&self) -> Vec<Range> {
        self.base().ranges.as_ref().map(|ranges| ranges.current.clone()).unwrap_or_default()
    }

    /// The addresses of a sandbox, if it has any.
    pub fn addresses(&self, sandbox: &str) -> Vec<IpAddr> {
        self.leases().get(sandbox).map(|lease| lease.addresses.clone()).unwrap_or_default()
    }

    fn stage(&self, sandbox: &str) -> Option<Stage> {
        self.leases().get(sandbox).map(|lease| lease.stage)
    }

    fn claim(
        &self,
        sandbox: &str,
        addresses: &[IpAddr],
        mappings: &[PortMapping],
    ) -> Result<(), NetworkError> {
        let result = self.ports().book.claim(sandbox, addresses, mappings);
        match result {
            Err(NetworkError::PortInUse { protocol, address, port, holder: Holder::Unknown }) => {
                let port = HostPort { protocol, address, port };
                Err(port.in_use(holder::find(port, &self.names.table)))
            }
            result => result,
        }
    }

    /// Makes the sandbox's host ports lead into it.
    fn publish(&self, sandbox: &str) -> Result<(), NetworkError> {
        let territory = self.territory(&self.base());
        let mut ports = self.ports();
        let Ports { book, filter } = &mut *ports;
        book.publish(sandbox);
        if filter.add(&book.of_sandbox(sandbox)).is_err() {
            // The table is not as it was a moment ago: put all of it right, or fail at that.
            let territory = territory.ok_or(NetworkError::NoFreeRange)?;
            filter.ensure(&territory, &book.published())?;
        }
        Ok(())
    }

    /// Whose addresses are whose, if there are any.
    fn territory(&self, base: &Base) -> Option<Territory> {
        let (ranges, peers) = (base.ranges.clone()?, base.routed.clone());
        Some(Territory { ranges, peers, resolver: base.resolver })
    }

    fn socket(&self) -> Result<RouteSocket, NetworkError> {
        RouteSocket::open().map_err(self.failed("reach"))
    }

    fn failed(&self, step: &'static str) -> impl FnOnce(netlink::Error) -> NetworkError {
        let bridge = self.names.bridge.clone();
        move |source| NetworkError::Bridge { step, bridge, source }
    }

    fn base(&self) -> MutexGuard<'_, Base> {
        lock(&self.base)
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        lock(&self.ports)
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        lock(&self.leases)
    }
}

/// The addresses of a sandbox, with the range that each is of.
fn places(ranges: &Ranges, lease: Option<&Lease>) -> Vec<(Range, IpAddr)> {
    let addresses = lease.into_iter().flat_map(|lease| lease.addresses.iter().copied());
    addresses.filter_map(|address| Some((ranges.of_address(address)?, address))).collect()
}

/// What the mutexes guard is valid between any two statements, so a panic elsewhere spoils
/// nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
