//! What of a machine its pods can have, and what is kept from them.
//!
//! Source: `pkg/kubelet/cm/node_container_manager_linux.go`, `MachineInfo` in
//! `pkg/kubelet/nodestatus/setters.go`, `cmd/kubelet/app/server.go` of Kubernetes 1.36.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_pod::{Amounts, Quantity};

use crate::node_status::Machine;
use crate::pressure::{Level, Signal, Threshold, Thresholds};
use crate::resources::shares;

/// How many pods a node takes. Source: `maxPods` of the kubelet's configuration.
const MAX_PODS: u32 = 110;

/// More processors than Linux can have: a list that names higher ones is a mistake.
const MOST_CPUS: u32 = 1 << 16;

/// What is kept for something else than pods, by the resource's name: `systemReserved` or `kubeReserved`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved(BTreeMap<&'static str, Quantity>);

/// What the machine's owner has said of what pods can have.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// For the system.
    pub system: Reserved,
    /// For Kubernetes.
    pub kube: Reserved,
    /// The processors that are kept for both, whatever they say of processors.
    pub cpus: BTreeSet<u32>,
    /// Hard thresholds, below which pods are ended: of them pods cannot have anything either.
    pub hard: Vec<Threshold>,
    /// Whether pods together are held to what they can have. Source: `pods` in
    /// `enforceNodeAllocatable`.
    pub enforced: bool,
    /// How many pods there can be.
    pub max_pods: u32,
    /// How many there can be for each processor; 0 is as many as `max_pods` says.
    pub pods_per_core: u32,
    /// Whether disk is a resource that pods ask for. Source: `localStorageCapacityIsolation`.
    pub has_storage: bool,
}

/// What all pods together may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// 2 to 262144; 1024 stands for one processor.
    pub cpu_shares: u64,
    /// Bytes.
    pub memory: u64,
    /// Processes and threads; `None` where the kernel does not tell how many there can be.
    pub pids: Option<u64>,
}

impl Reserved {
    const CPU: &str = "cpu";
    const MEMORY: &str = "memory";
    const STORAGE: &str = "ephemeral-storage";
    const PIDS: &str = "pid";

    /// Reads a list such as `{cpu: 500m, memory: 1Gi}`.
    ///
    /// # Errors
    ///
    /// What cannot be reserved, or so much of it not; in the kubelet's words (`parseResourceList`).
    pub fn parse(list: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut reserved = BTreeMap::new();
        for (name, text) in list {
            let known = [Self::CPU, Self::MEMORY, Self::STORAGE, Self::PIDS];
            let Some(known) = known.into_iter().find(|it| it == name) else {
                return Err(format!("cannot reserve {name:?} resource"));
            };
            let quantity = Quantity::parse(text).map_err(|error| {
                format!("failed to parse quantity {text:?} for {name:?} resource: {error}")
            })?;
            if quantity.is_negative() {
                return Err(format!("resource quantity for {name:?} cannot be negative: {text}"));
            }
            reserved.insert(known, quantity);
        }
        Ok(Self(reserved))
    }

    fn of(&self, name: &str) -> Quantity {
        self.0.get(name).copied().unwrap_or(Quantity::ZERO)
    }
}

/// Reads a list of processors such as `0-1,4`.
///
/// # Errors
///
/// When it is none; the message says why.
///
/// Source: `cpuset.Parse` in `k8s.io/utils/cpuset`.
pub fn cpus(list: &str) -> Result<BTreeSet<u32>, String> {
    let mut all = BTreeSet::new();
    for range in list.split(',').filter(|_| !list.is_empty()) {
        let invalid = || format!("{range:?} is neither a processor's number nor a range of them");
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u32>().ok().filter(|it| *it < MOST_CPUS);
        let (first, last) = number(first).zip(number(last)).ok_or_else(invalid)?;
        if first > last {
            return Err(invalid());
        }
        all.extend(first..=last);
    }
    Ok(all)
}

impl Default for Allocation {
    fn default() -> Self {
        Self {
            system: Reserved::default(),
            kube: Reserved::default(),
            cpus: BTreeSet::new(),
            hard: Thresholds::default().iter().copied().collect(),
            enforced: true,
            max_pods: MAX_PODS,
            pods_per_core: 0,
            has_storage: true,
        }
    }
}

impl Allocation {
    /// What the machine has, as its Node says. Source: `CapacityFromMachineInfo` in
    /// `pkg/kubelet/cadvisor/util.go`.
    pub fn capacity(&self, machine: &Machine) -> BTreeMap<String, Quantity> {
        let units = |count: u64| Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX));
        // Whole kibibytes, as the kernel tells them.
        let bytes = |bytes: u64| Quantity::from_bytes(bytes / 1024 * 1024);
        let of_cores = machine.processors.saturating_mul(self.pods_per_core.into());
        let pods = match self.pods_per_core {
            0 => u64::from(self.max_pods),
            _ => of_cores.min(self.max_pods.into()),
        };
        let own = [
            (Reserved::CPU, units(machine.processors)),
            (Reserved::MEMORY, bytes(machine.memory)),
            ("pods", units(pods)),
        ];
        let storage = self.has_storage.then(|| (Reserved::STORAGE, bytes(machine.storage)));
        let own = own.into_iter().chain(storage).map(|(name, amount)| (name.to_owned(), amount));
        let huge = machine.huge_pages.iter();
        let huge = huge.map(|(size, amount)| (format!("hugepages-{size}"), bytes(*amount)));
        own.chain(huge).collect()
    }

    /// What of it pods can have, as its Node says.
    pub fn allocatable(&self, machine: &Machine) -> BTreeMap<String, Quantity> {
        let mut all = self.capacity(machine);
        let huge: u64 = machine.huge_pages.values().sum();
        for (name, amount) in &mut all {
            *amount = less(*amount, self.reservation(name, machine));
            // Huge pages are memory that nobody can use otherwise.
            if name == Reserved::MEMORY {
                *amount = less(*amount, Quantity::from_bytes(huge));
            }
        }
        all
    }

    /// The same, as amounts.
    pub fn amounts(&self, machine: &Machine) -> Amounts {
        let all = self.allocatable(machine);
        let of = |name: &str| all.get(name).copied();
        let units = |name: &str| of(name).and_then(|it| u64::try_from(it.units()).ok());
        Amounts {
            cpu_milli: of(Reserved::CPU).and_then(|it| u64::try_from(it.milli()).ok()),
            memory_bytes: units(Reserved::MEMORY),
            ephemeral_storage_bytes: units(Reserved::STORAGE),
        }
    }

    /// What the control group above all pods is limited to, of so many processes that there can be. What is
    /// left below a threshold is not taken off: pods are to be ended there, and not killed before. Source:
    /// `enforceNodeAllocatableCgroups`, `getNodeAllocatableInternalAbsolute`.
    pub fn limits(&self, machine: &Machine, most_pids: Option<u64>) -> NodeLimits {
        let left = |name: &str, amount: Quantity| match self.enforced {
            true => less(amount, self.reserved(name)),
            false => amount,
        };
        let capacity = self.capacity(machine);
        let of = |name: &str| left(name, capacity.get(name).copied().unwrap_or(Quantity::ZERO));
        let whole = |quantity: Quantity| u64::try_from(quantity.units()).unwrap_or(0);
        let pids = |most: u64| {
            let most = Quantity::from_units(i64::try_from(most).unwrap_or(i64::MAX));
            whole(left(Reserved::PIDS, most))
        };
        NodeLimits {
            cpu_shares: shares(u64::try_from(of(Reserved::CPU).milli()).unwrap_or(0)),
            memory: whole(of(Reserved::MEMORY)),
            pids: most_pids.map(pids),
        }
    }

    /// Whether the machine has what is kept from its pods.
    ///
    /// # Errors
    ///
    /// What it has less of, in the kubelet's words (`validateNodeAllocatable`), or a processor that it does
    /// not have among those that are `online` (`getReservedCPUs`).
    pub fn check(&self, machine: &Machine, online: &BTreeSet<u32>) -> Result<(), String> {
        if let Some(absent) = self.cpus.iter().find(|cpu| !online.contains(cpu)) {
            return Err(format!("reservedSystemCPUs: there is no processor {absent} online"));
        }
        let short = self.capacity(machine).into_iter().filter_map(|(name, capacity)| {
            let reservation = self.reservation(&name, machine);
            (reservation > capacity).then(|| {
                format!(
                    "Resource {name:?} has a reservation of {reservation} but capacity of \
                     {capacity}. Expected capacity >= reservation."
                )
            })
        });
        let short: Vec<String> = short.collect();
        if short.is_empty() {
            return Ok(());
        }
        Err(format!("invalid Node Allocatable configuration. {}", short.join(" ")))
    }

    /// What of a resource is kept for something else than pods.
    fn reserved(&self, name: &str) -> Quantity {
        if name == Reserved::CPU && !self.cpus.is_empty() {
            return Quantity::from_units(i64::try_from(self.cpus.len()).unwrap_or(i64::MAX));
        }
        self.system.of(name).plus(self.kube.of(name))
    }

    /// All that is kept from pods. Source: `GetNodeAllocatableReservation`, `hardEvictionReservation`.
    fn reservation(&self, name: &str, machine: &Machine) -> Quantity {
        let (signal, capacity) = match name {
            Reserved::MEMORY => (Signal::MemoryAvailable, machine.memory / 1024 * 1024),
            Reserved::STORAGE => (Signal::NodefsAvailable, machine.storage / 1024 * 1024),
            _ => return self.reserved(name),
        };
        let level = Level { available: 0, capacity };
        let least = self.hard.iter().find(|it| it.is_hard() && it.signal == signal);
        let least = least.map_or(Quantity::ZERO, |it| it.quantity(level));
        self.reserved(name).plus(least)
    }
}

/// What is left of an amount, which is never less than nothing.
fn less(amount: Quantity, taken: Quantity) -> Quantity {
    amount.minus(taken).max(Quantity::from_bytes(0))
}

#[cfg(test)]
mod tests;
