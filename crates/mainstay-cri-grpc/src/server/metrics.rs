//! Measurements by name, in the names of cAdvisor. Source: `internal/cri/server/metrics.go` of containerd and
//! `pkg/kubelet/metrics/collectors/cri_metrics.go`.

use std::sync::Arc;

use jiff::Timestamp;
use mainstay_cri::{ContainerStats, ContainerStatus, NetworkInterfaceUsage};

use super::usage::Measured;
use super::{Answer, Labels, Server};
use crate::convert::nanoseconds;
use crate::wire;
use wire::MetricType::{self, Counter, Gauge};

/// One kind of measurement of `T`, of which a value that is not there is not known.
struct Metric<T> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&T) -> Option<u64>,
}

const CONTAINER: [Metric<ContainerStats>; 7] = [
    Metric {
        name: "container_cpu_usage_seconds_total",
        help: "Cumulative cpu time consumed in seconds.",
        kind: Counter,
        value: |it| Some(it.cpu?.usage_core_nano_seconds / 1_000_000_000),
    },
    Metric {
        name: "container_memory_usage_bytes",
        help: "Current memory usage in bytes, including all memory regardless of when it was accessed.",
        kind: Gauge,
        value: |it| Some(it.memory?.usage_bytes),
    },
    Metric {
        name: "container_memory_working_set_bytes",
        help: "Current working set in bytes.",
        kind: Gauge,
        value: |it| Some(it.memory?.working_set_bytes),
    },
    Metric {
        name: "container_memory_rss",
        help: "Size of RSS in bytes.",
        kind: Gauge,
        value: |it| Some(it.memory?.rss_bytes),
    },
    Metric {
        name: "container_memory_page_faults_total",
        help: "Cumulative count of page faults.",
        kind: Counter,
        value: |it| Some(it.memory?.page_faults),
    },
    Metric {
        name: "container_memory_major_page_faults_total",
        help: "Cumulative count of page faults that waited for a disk.",
        kind: Counter,
        value: |it| Some(it.memory?.major_page_faults),
    },
    Metric {
        name: "container_start_time_seconds",
        help: "Start time of the container since unix epoch in seconds.",
        kind: Gauge,
        value: |it| u64::try_from(it.started_at.as_second()).ok(),
    },
];

const NETWORK: [Metric<NetworkInterfaceUsage>; 4] = [
    Metric {
        name: "container_network_receive_bytes_total",
        help: "Cumulative count of bytes received.",
        kind: Counter,
        value: |it| Some(it.rx_bytes),
    },
    Metric {
        name: "container_network_receive_errors_total",
        help: "Cumulative count of errors encountered while receiving.",
        kind: Counter,
        value: |it| Some(it.rx_errors),
    },
    Metric {
        name: "container_network_transmit_bytes_total",
        help: "Cumulative count of bytes transmitted.",
        kind: Counter,
        value: |it| Some(it.tx_bytes),
    },
    Metric {
        name: "container_network_transmit_errors_total",
        help: "Cumulative count of errors encountered while transmitting.",
        kind: Counter,
        value: |it| Some(it.tx_errors),
    },
];

const CONTAINER_LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];
const NETWORK_LABELS: [&str; 4] = ["id", "interface", "namespace", "pod"];

impl Server {
    pub(super) async fn list_metric_descriptors(
        self: Arc<Self>,
        _: wire::ListMetricDescriptorsRequest,
    ) -> Answer<wire::ListMetricDescriptorsResponse> {
        let container = CONTAINER.iter().map(|it| descriptor(it, &CONTAINER_LABELS));
        let network = NETWORK.iter().map(|it| descriptor(it, &NETWORK_LABELS));
        Ok(wire::ListMetricDescriptorsResponse { descriptors: container.chain(network).collect() })
    }

    pub(super) async fn list_pod_sandbox_metrics(
        self: Arc<Self>,
        _: wire::ListPodSandboxMetricsRequest,
    ) -> Answer<wire::ListPodSandboxMetricsResponse> {
        let measured = self.measure("", &Labels::new()).await?;
        let timestamp = nanoseconds(Timestamp::now());
        let pod_metrics = measured.iter().map(|it| of_pod(it, timestamp)).collect();
        Ok(wire::ListPodSandboxMetricsResponse { pod_metrics })
    }
}

fn descriptor<T>(metric: &Metric<T>, labels: &[&str]) -> wire::MetricDescriptor {
    wire::MetricDescriptor {
        name: metric.name.to_owned(),
        help: metric.help.to_owned(),
        label_keys: labels.iter().map(|it| (*it).to_owned()).collect(),
    }
}

fn of_pod(Measured { stats, status }: &Measured, timestamp: i64) -> wire::PodSandboxMetrics {
    let metadata = &stats.metadata;
    let network = stats.network.iter().flat_map(|interface| {
        let labels = [&stats.id.0, &interface.name, &metadata.namespace, &metadata.name];
        values(&NETWORK, interface, &labels.map(String::clone), timestamp)
    });
    let containers = stats.containers.iter().filter_map(|container| {
        let ContainerStatus { image, id, .. } =
            status.containers.iter().find(|it| it.id == container.id)?;
        let name = &container.metadata.name;
        let labels = [name, &id.0, &image.0, &id.0, &metadata.namespace, &metadata.name];
        Some(wire::ContainerMetrics {
            container_id: id.0.clone(),
            metrics: values(&CONTAINER, container, &labels.map(String::clone), timestamp),
        })
    });
    wire::PodSandboxMetrics {
        pod_sandbox_id: stats.id.0.clone(),
        metrics: network.collect(),
        container_metrics: containers.collect(),
    }
}

fn values<T>(
    metrics: &[Metric<T>],
    of: &T,
    labels: &[String],
    timestamp: i64,
) -> Vec<wire::Metric> {
    let value = |metric: &Metric<T>| {
        Some(wire::Metric {
            name: metric.name.to_owned(),
            timestamp,
            metric_type: metric.kind.into(),
            label_values: labels.to_vec(),
            value: Some(wire::UInt64Value { value: (metric.value)(of)? }),
        })
    };
    metrics.iter().filter_map(value).collect()
}
