//! What a test says that containers use.

use jiff::Timestamp;
use mainstay_cri::{
    ContainerState, ContainerStats, CpuUsage, MemoryUsage, NetworkInterfaceUsage, PodSandboxStats,
};

use super::Sandbox;

/// The sandbox uses what its containers use, and has an interface through which 10 bytes came and
/// 20 went.
pub(super) fn of(sandbox: &Sandbox) -> PodSandboxStats {
    let running =
        sandbox.containers.values().filter_map(|container| match container.status.state {
            ContainerState::Running { started_at } => Some((container, started_at)),
            ContainerState::Created | ContainerState::Exited { .. } => None,
        });
    let containers: Vec<ContainerStats> = running
        .map(|(container, started_at)| ContainerStats {
            id: container.status.id.clone(),
            metadata: container.status.metadata.clone(),
            started_at,
            cpu: Some(cpu(container.usage.0)),
            memory: Some(memory(container.usage.1)),
        })
        .collect();
    let used = sandbox.containers.values().map(|container| container.usage);
    let (time, bytes) = used.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    PodSandboxStats {
        id: sandbox.summary.id.clone(),
        metadata: sandbox.summary.metadata.clone(),
        cpu: Some(cpu(time)),
        memory: Some(memory(bytes)),
        network: vec![NetworkInterfaceUsage {
            name: "eth0".to_owned(),
            rx_bytes: 10,
            rx_errors: 0,
            tx_bytes: 20,
            tx_errors: 0,
        }],
        process_count: u64::try_from(containers.len()).ok(),
        containers,
    }
}

fn cpu(usage_core_nano_seconds: u64) -> CpuUsage {
    CpuUsage { timestamp: Timestamp::now(), usage_core_nano_seconds }
}

fn memory(bytes: u64) -> MemoryUsage {
    MemoryUsage {
        timestamp: Timestamp::now(),
        working_set_bytes: bytes,
        available_bytes: None,
        usage_bytes: bytes,
        rss_bytes: bytes,
        page_faults: 0,
        major_page_faults: 0,
    }
}
