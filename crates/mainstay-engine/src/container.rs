//! Containers: one verb, one file.

pub(crate) mod attach;
pub(crate) mod create;
pub(crate) mod details;
pub(crate) mod exec;
pub(crate) mod log;
pub(crate) mod remove;
pub(crate) mod start;
pub(crate) mod stop;
mod streams;
mod target;
pub(crate) mod update;

use mainstay_cri::{ContainerState, LinuxContainerResources};
use mainstay_linux::cgroup::{CpuQuota, Limits};

use crate::sandbox::Container;

impl Container {
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, ContainerState::Exited { .. })
    }
}

/// What a container may use, as its control group is told.
fn limits(resources: &LinuxContainerResources) -> Limits {
    let some = |value: u64| (value != 0).then_some(value);
    Limits {
        cpu_shares: some(resources.cpu_shares),
        cpu_quota: (resources.cpu_quota != 0).then(|| CpuQuota {
            quota: u64::try_from(resources.cpu_quota).ok(),
            period: some(resources.cpu_period).unwrap_or(100_000),
        }),
        memory: some(resources.memory_limit),
        memory_and_swap: some(resources.memory_swap_limit),
        pids: None,
        huge_pages: resources
            .hugepage_limits
            .iter()
            .map(|limit| (limit.page_size.clone(), limit.limit))
            .collect(),
        unified: resources.unified.clone().into_iter().collect(),
    }
}
