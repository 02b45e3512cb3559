//! What sandboxes use.

use std::sync::Arc;

use jiff::Timestamp;
use mainstay_cri::{
    ContainerState, ContainerStats, CpuUsage, MemoryUsage, NamespaceMode, NetworkInterfaceUsage,
    PodSandboxFilter, PodSandboxStats, Result,
};
use mainstay_linux::cgroup::{Memory, Usage};
use mainstay_linux::machine::interfaces_of;

use super::Sandbox;
use crate::Instance;
use crate::record::Maker;

/// Reads what all ready sandboxes that match use.
pub(crate) async fn list(
    engine: &Arc<Instance>,
    to: Maker,
    filter: &PodSandboxFilter,
) -> Result<Vec<PodSandboxStats>> {
    let all = engine.all().into_iter().filter(|sandbox| {
        let state = sandbox.state();
        state.ready && to.sees(state.record.maker) && state.record.labels.carry(&filter.labels)
    });
    let all: Vec<_> = all.collect();
    let engine = engine.clone();
    crate::blocking(move || Ok(all.iter().map(|sandbox| one(&engine, to, sandbox)).collect())).await
}

fn one(engine: &Instance, to: Maker, sandbox: &Sandbox) -> PodSandboxStats {
    let (record, running) = {
        let state = sandbox.state();
        let seen = state.containers.values().filter(|it| to.sees(it.record.maker));
        let running = seen.filter_map(|container| match container.state {
            ContainerState::Running { started_at } => Some((
                container.record.id.clone(),
                container.record.metadata.clone(),
                container.record.cgroup.clone(),
                started_at,
            )),
            ContainerState::Created | ContainerState::Exited { .. } => None,
        });
        (state.record.clone(), running.collect::<Vec<_>>())
    };
    let read = |cgroup: &str| Read::of(engine.hierarchies().at(cgroup).usage());
    let pod = read(&record.cgroup_parent);
    let own_network = record.namespaces.network == NamespaceMode::Pod;
    let shim = record.shim.filter(|_| own_network);
    // One that ended just now has no network any more.
    let interfaces = shim.and_then(|shim| interfaces_of(shim.pid).ok()).unwrap_or_default();
    PodSandboxStats {
        id: record.id,
        metadata: record.metadata,
        cpu: pod.cpu,
        memory: pod.memory,
        network: interfaces
            .into_iter()
            .map(|it| NetworkInterfaceUsage {
                name: it.name,
                rx_bytes: it.received_bytes,
                rx_errors: it.receive_errors,
                tx_bytes: it.sent_bytes,
                tx_errors: it.send_errors,
            })
            .collect(),
        process_count: pod.pids,
        containers: running
            .into_iter()
            .map(|(id, metadata, cgroup, started_at)| {
                let Read { cpu, memory, .. } = read(&cgroup);
                ContainerStats { id, metadata, started_at, cpu, memory }
            })
            .collect(),
    }
}

/// What was read of one group, in the words of the contract.
struct Read {
    cpu: Option<CpuUsage>,
    memory: Option<MemoryUsage>,
    pids: Option<u64>,
}

impl Read {
    fn of(usage: Usage) -> Self {
        let timestamp = Timestamp::now();
        let memory = |memory: Memory| {
            let working_set_bytes = memory.working_set();
            MemoryUsage {
                timestamp,
                working_set_bytes,
                available_bytes: memory.limit.map(|it| it.saturating_sub(working_set_bytes)),
                usage_bytes: memory.usage,
                rss_bytes: memory.anonymous,
                page_faults: memory.page_faults,
                major_page_faults: memory.major_page_faults,
            }
        };
        let cpu = |usage_core_nano_seconds| CpuUsage { timestamp, usage_core_nano_seconds };
        Self { cpu: usage.cpu.map(cpu), memory: usage.memory.map(memory), pids: usage.pids }
    }
}
