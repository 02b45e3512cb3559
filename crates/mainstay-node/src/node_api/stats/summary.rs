//! `/stats/summary`. Source: `staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go`.

use std::path::Path;

use jiff::Timestamp;
use mainstay_cri::{CpuUsage, MemoryUsage, NetworkInterfaceUsage};
use serde_json::{Map, Value, json};

use super::{MeasuredPod, Measurement};

/// The summary. What nobody knows is not in it. `root` is a directory on the file system that pods
/// write to.
pub(in super::super) fn summary(node_name: &str, measured: &Measurement, root: &Path) -> Value {
    let at = stamp(measured.timestamp);
    let machine = &measured.machine;
    let working_set = machine.memory_usage.saturating_sub(machine.inactive_file);
    let booted = i64::try_from(machine.booted_at).ok();
    let mut node = json!({
        "nodeName": node_name,
        "startTime": booted.and_then(|it| Timestamp::from_second(it).ok()).map(stamp),
        "cpu": {"time": at, "usageCoreNanoSeconds": machine.cpu},
        "memory": {
            "time": at,
            "availableBytes": machine.memory.saturating_sub(working_set),
            "usageBytes": machine.memory_usage,
            "workingSetBytes": working_set,
            "rssBytes": machine.anonymous,
        },
    });
    if let Some(rate) = measured.machine_nano_cores {
        node["cpu"]["usageNanoCores"] = rate.into();
    }
    if let Some(fs) = file_system(root, measured.timestamp) {
        node["fs"] = fs;
    }
    let pods: Vec<Value> = measured.pods.iter().map(|it| pod(it, measured.timestamp)).collect();
    json!({"node": node, "pods": pods})
}

fn pod(measured: &MeasuredPod, at: Timestamp) -> Value {
    let MeasuredPod { stats, created_at, nano_cores, containers } = measured;
    let listed = stats.containers.iter().zip(containers).map(|(container, rate)| {
        let mut one = Map::new();
        one.insert("name".to_owned(), container.metadata.name.as_str().into());
        one.insert("startTime".to_owned(), stamp(container.started_at).into());
        usage(&mut one, container.cpu, *rate, container.memory);
        Value::Object(one)
    });
    let mut pod = Map::new();
    let metadata = &stats.metadata;
    let reference =
        json!({"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid});
    pod.insert("podRef".to_owned(), reference);
    pod.insert("startTime".to_owned(), stamp(*created_at).into());
    pod.insert("containers".to_owned(), listed.collect());
    usage(&mut pod, stats.cpu, *nano_cores, stats.memory);
    if let Some((default, _)) = stats.network.split_first() {
        let mut network = interface(default);
        network["time"] = stamp(at).into();
        network["interfaces"] = stats.network.iter().map(interface).collect();
        pod.insert("network".to_owned(), network);
    }
    if let Some(count) = stats.process_count {
        pod.insert("process_stats".to_owned(), json!({"process_count": count}));
    }
    Value::Object(pod)
}

fn usage(
    into: &mut Map<String, Value>,
    cpu: Option<CpuUsage>,
    rate: Option<u64>,
    memory: Option<MemoryUsage>,
) {
    if let Some(cpu) = cpu {
        let time = stamp(cpu.timestamp);
        let mut one = json!({"time": time, "usageCoreNanoSeconds": cpu.usage_core_nano_seconds});
        if let Some(rate) = rate {
            one["usageNanoCores"] = rate.into();
        }
        into.insert("cpu".to_owned(), one);
    }
    if let Some(memory) = memory {
        let mut one = json!({
            "time": stamp(memory.timestamp),
            "usageBytes": memory.usage_bytes,
            "workingSetBytes": memory.working_set_bytes,
            "rssBytes": memory.rss_bytes,
            "pageFaults": memory.page_faults,
            "majorPageFaults": memory.major_page_faults,
        });
        if let Some(available) = memory.available_bytes {
            one["availableBytes"] = available.into();
        }
        into.insert("memory".to_owned(), one);
    }
}

fn interface(it: &NetworkInterfaceUsage) -> Value {
    json!({
        "name": it.name,
        "rxBytes": it.rx_bytes,
        "rxErrors": it.rx_errors,
        "txBytes": it.tx_bytes,
        "txErrors": it.tx_errors,
    })
}

fn file_system(root: &Path, at: Timestamp) -> Option<Value> {
    let status = rustix::fs::statvfs(root).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
    Some(json!({
        "time": stamp(at),
        "availableBytes": bytes(status.f_bavail),
        "capacityBytes": bytes(status.f_blocks),
        "usedBytes": bytes(status.f_blocks.saturating_sub(status.f_bfree)),
        "inodesFree": status.f_ffree,
        "inodes": status.f_files,
        "inodesUsed": status.f_files.saturating_sub(status.f_ffree),
    }))
}

/// Whole seconds, as `metav1.Time` is written.
fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
