//! The file as it is written.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;
use serde_json::Value;

use super::fields::{FIELDS, field};
use super::node_auth::{Authentication, Authorization};

pub(super) const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
pub(super) const KIND: &str = "KubeletConfiguration";

/// Fields that have an effect; all there are is in [`super::fields`].
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Raw {
    pub(super) static_pod_path: Option<String>,
    pub(super) pod_logs_dir: Option<String>,
    pub(super) file_check_frequency: Option<String>,
    pub(super) container_log_max_size: Option<String>,
    pub(super) container_log_max_files: Option<usize>,
    pub(super) cgroup_driver: Option<String>,
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<String>,
    pub(super) resolv_conf: Option<String>,
    pub(super) seccomp_default: Option<bool>,
    pub(super) eviction_hard: Option<BTreeMap<String, String>>,
    pub(super) merge_default_eviction_settings: Option<bool>,
    pub(super) eviction_soft: BTreeMap<String, String>,
    pub(super) eviction_soft_grace_period: BTreeMap<String, String>,
    pub(super) eviction_minimum_reclaim: BTreeMap<String, String>,
    pub(super) eviction_pressure_transition_period: Option<String>,
    pub(super) eviction_max_pod_grace_period: Option<i64>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub(super) image_gc_high_threshold_percent: Option<i64>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub(super) image_gc_low_threshold_percent: Option<i64>,
    #[serde(rename = "imageMinimumGCAge")]
    pub(super) image_minimum_gc_age: Option<String>,
    #[serde(rename = "imageMaximumGCAge")]
    pub(super) image_maximum_gc_age: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub(super) cluster_dns: Option<Vec<String>>,
    pub(super) cluster_domain: Option<String>,
    pub(super) allowed_unsafe_sysctls: Option<Vec<String>>,
    pub(super) pod_pids_limit: Option<i64>,
    pub(super) system_reserved: BTreeMap<String, String>,
    pub(super) kube_reserved: BTreeMap<String, String>,
    #[serde(rename = "reservedSystemCPUs")]
    pub(super) reserved_system_cpus: Option<String>,
    pub(super) system_reserved_cgroup: Option<String>,
    pub(super) kube_reserved_cgroup: Option<String>,
    pub(super) enforce_node_allocatable: Option<Vec<String>>,
    pub(super) max_pods: Option<i32>,
    pub(super) pods_per_core: Option<i32>,
    pub(super) local_storage_capacity_isolation: Option<bool>,
    pub(super) container_log_monitor_interval: Option<String>,
    pub(super) container_log_max_workers: Option<i32>,
    #[serde(rename = "cpuCFSQuota")]
    pub(super) cpu_cfs_quota: Option<bool>,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub(super) cpu_cfs_quota_period: Option<String>,
    pub(super) crash_loop_back_off: CrashLoopBackOff,
    pub(super) serialize_image_pulls: Option<bool>,
    pub(super) max_parallel_image_pulls: Option<i32>,
    #[serde(rename = "registryPullQPS")]
    pub(super) registry_pull_qps: Option<i32>,
    pub(super) registry_burst: Option<i32>,
    pub(super) node_status_max_images: Option<i32>,
    pub(super) register_node: Option<bool>,
    pub(super) register_with_taints: Vec<Taint>,
    #[serde(rename = "providerID")]
    pub(super) provider_id: Option<String>,
    pub(super) node_status_update_frequency: Option<String>,
    pub(super) node_status_report_frequency: Option<String>,
    pub(super) node_lease_duration_seconds: Option<i32>,
    pub(super) fail_swap_on: Option<bool>,
    pub(super) fail_cgroup_v1: Option<bool>,
    pub(super) memory_swap: MemorySwap,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) run_once: bool,
    pub(super) enable_server: Option<bool>,
    pub(super) address: Option<String>,
    pub(super) port: Option<i32>,
    pub(super) read_only_port: Option<i32>,
    pub(super) healthz_port: Option<i32>,
    pub(super) healthz_bind_address: Option<String>,
    pub(super) enable_debugging_handlers: Option<bool>,
    pub(super) streaming_connection_idle_timeout: Option<String>,
    pub(super) tls_cert_file: Option<String>,
    pub(super) tls_private_key_file: Option<String>,
    pub(super) tls_min_version: Option<String>,
    pub(super) tls_cipher_suites: Vec<String>,
    pub(super) feature_gates: BTreeMap<String, bool>,
    #[serde(rename = "staticPodURL")]
    pub(super) static_pod_url: Option<String>,
    #[serde(rename = "staticPodURLHeader")]
    pub(super) static_pod_url_header: Value,
    pub(super) http_check_frequency: Option<String>,
    pub(super) container_runtime_endpoint: Option<String>,
    pub(super) runtime_request_timeout: Option<String>,
    pub(super) shutdown_grace_period: Option<String>,
    pub(super) shutdown_grace_period_critical_pods: Option<String>,
    pub(super) shutdown_grace_period_by_pod_priority: Vec<ShutdownGracePeriod>,
    pub(super) authentication: Authentication,
    pub(super) authorization: Authorization,
    pub(super) rotate_certificates: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    pub(super) server_tls_bootstrap: Option<bool>,
    pub(super) memory_throttling_factor: Option<f64>,
    pub(super) memory_reservation_policy: Option<String>,
    #[serde(skip)]
    in_vain: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct CrashLoopBackOff {
    pub(super) max_container_restart_period: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct MemorySwap {
    pub(super) swap_behavior: Option<String>,
}

/// How long pods of a priority have at a shutdown.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ShutdownGracePeriod {
    pub(super) priority: i32,
    pub(super) shutdown_grace_period_seconds: i64,
}

impl Raw {
    pub(super) fn parse(value: Value) -> anyhow::Result<Self> {
        let of = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        if (of("apiVersion"), of("kind")) != (API_VERSION, KIND) {
            bail!("it is not a KubeletConfiguration of kubelet.config.k8s.io/v1beta1");
        }
        let mut in_vain = Vec::new();
        let mut value = value;
        // Go reads `null` as if nothing was said.
        let said = value.as_object_mut().map(|map| map.retain(|_, value| !value.is_null()));
        said.context("it is no object")?;
        for (name, value) in value.as_object().into_iter().flatten() {
            if name == "apiVersion" || name == "kind" {
                continue;
            }
            let Some(field) = field(name) else {
                let similar = FIELDS.iter().find(|it| is_similar(it.name, name));
                let hint = similar.map(|it| format!(" (did you mean {}?)", it.name));
                bail!("unknown field {name:?}{}", hint.unwrap_or_default());
            };
            if field.is_in_vain(value) {
                in_vain.push(name.clone());
            }
        }
        let raw: Self = serde_json::from_value(value).context("a field has the wrong type")?;
        Ok(Self { in_vain, ..raw })
    }

    /// Fields of the file that ask for something that is not done.
    pub(super) fn in_vain(&self) -> impl Iterator<Item = String> {
        self.in_vain.iter().cloned()
    }
}

/// Alike but for case, or for one character that is missing, added or another.
fn is_similar(known: &str, written: &str) -> bool {
    let (a, b) = (known.to_lowercase(), written.to_lowercase());
    let front = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let back = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    a == b || a.len().abs_diff(b.len()) <= 1 && front + back + 1 >= a.len().max(b.len())
}
