//! `/metrics/resource` and `/metrics/cadvisor`: what pods and containers use.

use mainstay_cri::{ContainerStats, NetworkInterfaceUsage, PodSandboxStats};

use super::super::stats::Measurement;
use super::exposition::{Exposition, Kind, Nanoseconds};

/// What autoscalers and `metrics-server` ask for; without a measurement only that there is none.
pub(in super::super) fn resource(measured: Option<&Measurement>) -> String {
    let mut out = Exposition::default();
    if let Some(measured) = measured {
        containers(&mut out, measured);
        node(&mut out, measured);
        pods(&mut out, measured);
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    out.family("resource_scrape_error", Kind::Gauge, help);
    out.sample(&[], u8::from(measured.is_none()));
    out.into()
}

fn containers(out: &mut Exposition, measured: &Measurement) {
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    out.family("container_cpu_usage_seconds_total", Kind::Counter, help);
    for (labels, container) in each(measured) {
        if let Some(cpu) = container.cpu {
            out.sample_at(&labels, Nanoseconds(cpu.usage_core_nano_seconds), cpu.timestamp);
        }
    }
    let help = "Current working set of the container in bytes";
    out.family("container_memory_working_set_bytes", Kind::Gauge, help);
    for (labels, container) in each(measured) {
        if let Some(memory) = container.memory {
            out.sample_at(&labels, memory.working_set_bytes, memory.timestamp);
        }
    }
    let help = "Start time of the container since unix epoch in seconds";
    out.family("container_start_time_seconds", Kind::Gauge, help);
    for (labels, container) in each(measured) {
        out.sample(&labels, started(container));
    }
}

fn node(out: &mut Exposition, measured: &Measurement) {
    let machine = &measured.machine;
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    out.family("node_cpu_usage_seconds_total", Kind::Counter, help);
    out.sample_at(&[], Nanoseconds(machine.cpu), measured.timestamp);
    let help = "Current working set of the node in bytes";
    out.family("node_memory_working_set_bytes", Kind::Gauge, help);
    let working_set = machine.memory_usage.saturating_sub(machine.inactive_file);
    out.sample_at(&[], working_set, measured.timestamp);
}

fn pods(out: &mut Exposition, measured: &Measurement) {
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    out.family("pod_cpu_usage_seconds_total", Kind::Counter, help);
    for pod in &measured.pods {
        if let Some(cpu) = pod.stats.cpu {
            let used = Nanoseconds(cpu.usage_core_nano_seconds);
            out.sample_at(&of_pod(&pod.stats), used, cpu.timestamp);
        }
    }
    let help = "Current working set of the pod in bytes";
    out.family("pod_memory_working_set_bytes", Kind::Gauge, help);
    for pod in &measured.pods {
        if let Some(memory) = pod.stats.memory {
            out.sample_at(&of_pod(&pod.stats), memory.working_set_bytes, memory.timestamp);
        }
    }
}

/// What dashboards ask for, with cadvisor's names and those of its labels that are known.
pub(in super::super) fn cadvisor(measured: &Measurement) -> String {
    let mut out = Exposition::default();
    let help = "Cumulative cpu time consumed in seconds.";
    out.family("container_cpu_usage_seconds_total", Kind::Counter, help);
    for (labels, container) in each(measured) {
        if let Some(cpu) = container.cpu {
            let [container, namespace, name] = labels;
            let labels = [container, ("cpu", "total"), namespace, name];
            let used = Nanoseconds(cpu.usage_core_nano_seconds);
            out.sample_at(&labels, used, cpu.timestamp);
        }
    }
    type Bytes = fn(&mainstay_cri::MemoryUsage) -> u64;
    let gauges: [(&'static str, &str, Bytes); 3] = [
        ("container_memory_working_set_bytes", "Current working set in bytes.", |it| {
            it.working_set_bytes
        }),
        (
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was \
             accessed",
            |it| it.usage_bytes,
        ),
        ("container_memory_rss", "Size of RSS in bytes.", |it| it.rss_bytes),
    ];
    for (name, help, bytes) in gauges {
        out.family(name, Kind::Gauge, help);
        for (labels, container) in each(measured) {
            if let Some(memory) = &container.memory {
                out.sample_at(&labels, bytes(memory), memory.timestamp);
            }
        }
    }
    let help = "Start time of the container since unix epoch in seconds.";
    out.family("container_start_time_seconds", Kind::Gauge, help);
    for (labels, container) in each(measured) {
        out.sample(&labels, started(container));
    }
    network(&mut out, measured);
    let help = "Amount of memory installed on the machine.";
    out.family("machine_memory_bytes", Kind::Gauge, help);
    out.sample(&[], measured.machine.memory);
    out.into()
}

fn network(out: &mut Exposition, measured: &Measurement) {
    type Count = fn(&NetworkInterfaceUsage) -> u64;
    let counters: [(&'static str, &str, Count); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |it| {
            it.rx_bytes
        }),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |it| it.rx_errors,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |it| {
            it.tx_bytes
        }),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |it| it.tx_errors,
        ),
    ];
    for (name, help, count) in counters {
        out.family(name, Kind::Counter, help);
        for pod in &measured.pods {
            for interface in &pod.stats.network {
                let [namespace, name] = of_pod(&pod.stats);
                let labels = [("interface", interface.name.as_str()), namespace, name];
                out.sample_at(&labels, count(interface), measured.timestamp);
            }
        }
    }
}

/// Every container with its labels.
fn each(
    measured: &Measurement,
) -> impl Iterator<Item = ([(&'static str, &str); 3], &ContainerStats)> {
    measured.pods.iter().flat_map(|pod| {
        let [namespace, name] = of_pod(&pod.stats);
        pod.stats.containers.iter().map(move |container| {
            let labels = [("container", container.metadata.name.as_str()), namespace, name];
            (labels, container)
        })
    })
}

fn of_pod(pod: &PodSandboxStats) -> [(&'static str, &str); 2] {
    [("namespace", pod.metadata.namespace.as_str()), ("pod", pod.metadata.name.as_str())]
}

/// Seconds since 1970.
fn started(container: &ContainerStats) -> Nanoseconds {
    Nanoseconds(u64::try_from(container.started_at.as_nanosecond()).unwrap_or_default())
}
