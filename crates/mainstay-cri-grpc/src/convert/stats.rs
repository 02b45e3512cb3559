//! What sandboxes and containers use. A value that is not there is not known.

use jiff::Timestamp;
use mainstay_cri::{
    ContainerId, ContainerStats, CpuUsage, FilesystemUsage, MemoryUsage, NetworkInterfaceUsage,
    PodSandboxStats, SandboxId,
};

use super::{ConvertError, Result, nanoseconds, timestamp};
use crate::wire;

fn known(value: u64) -> Option<wire::UInt64Value> {
    Some(wire::UInt64Value { value })
}

fn value(value: Option<wire::UInt64Value>) -> u64 {
    value.map_or(0, |it| it.value)
}

/// Without its containers, of which the protocol does not say since when they run.
impl TryFrom<wire::PodSandboxStats> for PodSandboxStats {
    type Error = ConvertError;

    fn try_from(stats: wire::PodSandboxStats) -> Result<Self> {
        let attributes = stats.attributes.ok_or(ConvertError::Missing("attributes"))?;
        let linux = stats.linux.unwrap_or_default();
        let network = linux.network.unwrap_or_default();
        let interfaces = network.default_interface.into_iter().chain(network.interfaces);
        Ok(Self {
            id: SandboxId(attributes.id),
            metadata: attributes.metadata.ok_or(ConvertError::Missing("metadata"))?.into(),
            cpu: linux.cpu.and_then(cpu),
            memory: linux.memory.and_then(memory),
            network: interfaces.map(Into::into).collect(),
            process_count: linux.process.and_then(|it| it.process_count).map(|it| it.value),
            containers: Vec::new(),
        })
    }
}

impl From<&PodSandboxStats> for wire::PodSandboxStats {
    fn from(stats: &PodSandboxStats) -> Self {
        let at = stats.cpu.map(|it| it.timestamp).or(stats.memory.map(|it| it.timestamp));
        let timestamp = at.map_or(0, nanoseconds);
        let mut interfaces = stats.network.iter().map(Into::into);
        Self {
            attributes: Some(wire::PodSandboxAttributes {
                id: stats.id.0.clone(),
                metadata: Some((&stats.metadata).into()),
                ..Default::default()
            }),
            linux: Some(wire::LinuxPodSandboxStats {
                cpu: stats.cpu.map(Into::into),
                memory: stats.memory.map(Into::into),
                network: Some(wire::NetworkUsage {
                    timestamp,
                    default_interface: interfaces.next(),
                    interfaces: interfaces.collect(),
                }),
                process: stats
                    .process_count
                    .map(|count| wire::ProcessUsage { timestamp, process_count: known(count) }),
                containers: stats.containers.iter().map(Into::into).collect(),
            }),
        }
    }
}

/// A container's; since when it runs is not in the protocol.
pub(crate) fn container_stats(
    stats: wire::ContainerStats,
    started_at: Timestamp,
) -> Result<ContainerStats> {
    let attributes = stats.attributes.ok_or(ConvertError::Missing("attributes"))?;
    Ok(ContainerStats {
        id: ContainerId(attributes.id),
        metadata: attributes.metadata.ok_or(ConvertError::Missing("metadata"))?.into(),
        started_at,
        cpu: stats.cpu.and_then(cpu),
        memory: stats.memory.and_then(memory),
    })
}

/// What it has written is another question.
impl From<&ContainerStats> for wire::ContainerStats {
    fn from(stats: &ContainerStats) -> Self {
        Self {
            attributes: Some(wire::ContainerAttributes {
                id: stats.id.0.clone(),
                metadata: Some((&stats.metadata).into()),
                ..Default::default()
            }),
            cpu: stats.cpu.map(Into::into),
            memory: stats.memory.map(Into::into),
            writable_layer: None,
            swap: None,
        }
    }
}

fn cpu(usage: wire::CpuUsage) -> Option<CpuUsage> {
    Some(CpuUsage {
        timestamp: timestamp(usage.timestamp),
        usage_core_nano_seconds: usage.usage_core_nano_seconds?.value,
    })
}

impl From<CpuUsage> for wire::CpuUsage {
    fn from(usage: CpuUsage) -> Self {
        Self {
            timestamp: nanoseconds(usage.timestamp),
            usage_core_nano_seconds: known(usage.usage_core_nano_seconds),
            usage_nano_cores: None,
        }
    }
}

fn memory(usage: wire::MemoryUsage) -> Option<MemoryUsage> {
    let working_set = usage.working_set_bytes?.value;
    Some(MemoryUsage {
        timestamp: timestamp(usage.timestamp),
        working_set_bytes: working_set,
        // Nothing stands for "no limit", too.
        available_bytes: usage.available_bytes.map(|it| it.value).filter(|it| *it > 0),
        // Older servers tell nothing but the working set.
        usage_bytes: usage.usage_bytes.map_or(working_set, |it| it.value),
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
    })
}

impl From<MemoryUsage> for wire::MemoryUsage {
    fn from(usage: MemoryUsage) -> Self {
        Self {
            timestamp: nanoseconds(usage.timestamp),
            working_set_bytes: known(usage.working_set_bytes),
            available_bytes: usage.available_bytes.and_then(known),
            usage_bytes: known(usage.usage_bytes),
            rss_bytes: known(usage.rss_bytes),
            page_faults: known(usage.page_faults),
            major_page_faults: known(usage.major_page_faults),
        }
    }
}

impl From<wire::NetworkInterfaceUsage> for NetworkInterfaceUsage {
    fn from(usage: wire::NetworkInterfaceUsage) -> Self {
        Self {
            name: usage.name,
            rx_bytes: value(usage.rx_bytes),
            rx_errors: value(usage.rx_errors),
            tx_bytes: value(usage.tx_bytes),
            tx_errors: value(usage.tx_errors),
        }
    }
}

impl From<&NetworkInterfaceUsage> for wire::NetworkInterfaceUsage {
    fn from(usage: &NetworkInterfaceUsage) -> Self {
        Self {
            name: usage.name.clone(),
            rx_bytes: known(usage.rx_bytes),
            rx_errors: known(usage.rx_errors),
            tx_bytes: known(usage.tx_bytes),
            tx_errors: known(usage.tx_errors),
        }
    }
}

impl From<wire::FilesystemUsage> for FilesystemUsage {
    fn from(usage: wire::FilesystemUsage) -> Self {
        Self { used_bytes: value(usage.used_bytes), inodes_used: value(usage.inodes_used) }
    }
}

/// Of what file system is for the server to say.
impl From<FilesystemUsage> for wire::FilesystemUsage {
    fn from(usage: FilesystemUsage) -> Self {
        Self {
            used_bytes: known(usage.used_bytes),
            inodes_used: known(usage.inodes_used),
            ..Self::default()
        }
    }
}
