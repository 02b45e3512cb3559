//! Measurements by name.

use super::UInt64Value;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListMetricDescriptorsRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListMetricDescriptorsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) descriptors: Vec<MetricDescriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MetricDescriptor {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) help: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) label_keys: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListPodSandboxMetricsRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListPodSandboxMetricsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pod_metrics: Vec<PodSandboxMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodSandboxMetrics {
    #[prost(string, tag = "1")]
    pub(crate) pod_sandbox_id: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) metrics: Vec<Metric>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) container_metrics: Vec<ContainerMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerMetrics {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Metric {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int64, tag = "2")]
    pub(crate) timestamp: i64,
    #[prost(enumeration = "MetricType", tag = "3")]
    pub(crate) metric_type: i32,
    #[prost(string, repeated, tag = "4")]
    pub(crate) label_values: Vec<String>,
    #[prost(message, optional, tag = "5")]
    pub(crate) value: Option<UInt64Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum MetricType {
    Counter = 0,
    Gauge = 1,
}
