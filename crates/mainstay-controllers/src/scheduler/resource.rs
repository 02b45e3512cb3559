//! Amounts of what nodes have and pods request.
//!
//! Source: `Resource` in `pkg/scheduler/framework/types.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use mainstay_pod::resources::{self, ResourceList};

/// How much of what. Never more than fits into `i64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resource {
    /// Thousandths of a CPU.
    pub(super) cpu: i64,
    /// Bytes.
    pub(super) memory: i64,
    /// Bytes of local disk.
    pub(super) ephemeral_storage: i64,
    /// Whatever else there is, such as `hugepages-2Mi` and `example.com/gpu`, in whole units.
    pub(super) others: BTreeMap<String, i64>,
}

/// What a node has for pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) resources: Resource,
    /// How many pods it takes.
    pub(super) pods: i64,
}

impl Capacity {
    pub(super) fn of(node: &Node) -> Self {
        let list = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let list = resources::parse(list);
        let pods = list.get("pods").map_or(0, |quantity| quantity.units());
        Self { resources: Resource::of(&list), pods }
    }
}

impl Resource {
    pub(super) fn of(list: &ResourceList) -> Self {
        let mut of = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => of.cpu = quantity.milli(),
                "memory" => of.memory = quantity.units(),
                "ephemeral-storage" => of.ephemeral_storage = quantity.units(),
                "pods" => {}
                _ => {
                    of.others.insert(name.clone(), quantity.units());
                }
            }
        }
        of
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub(super) fn remove(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
        self.others.retain(|_, amount| *amount != 0);
    }

    /// Of a resource by its name, if it is one that not every machine has.
    pub(super) fn other(&self, name: &str) -> i64 {
        self.others.get(name).copied().unwrap_or(0)
    }

    /// Whether nothing is asked for.
    pub(super) fn is_nothing(&self) -> bool {
        let others = self.others.values().all(|amount| *amount == 0);
        self.cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && others
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.cpu = with(self.cpu, other.cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.others {
            let ours = self.others.entry(name.clone()).or_default();
            *ours = with(*ours, *amount);
        }
    }
}
