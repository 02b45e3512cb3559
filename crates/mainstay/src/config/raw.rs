//! The file as it is written.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

/// Fields that have an effect.
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
    #[serde(skip)]
    others: Vec<String>,
}

const EFFECTIVE: [&str; 23] = [
    "staticPodPath",
    "podLogsDir",
    "fileCheckFrequency",
    "containerLogMaxSize",
    "containerLogMaxFiles",
    "cgroupDriver",
    "podCIDR",
    "resolvConf",
    "seccompDefault",
    "evictionHard",
    "mergeDefaultEvictionSettings",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionMaxPodGracePeriod",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMinimumGCAge",
    "imageMaximumGCAge",
    "clusterDNS",
    "clusterDomain",
    "allowedUnsafeSysctls",
];

/// Fields that a kubelet knows and that have no effect here, or none yet.
///
/// Source: `staging/src/k8s.io/kubelet/config/v1beta1/types.go` of Kubernetes 1.36.
const WITHOUT_EFFECT: &str = "
    enableServer syncFrequency httpCheckFrequency staticPodURL staticPodURLHeader address port
    readOnlyPort tlsCertFile tlsPrivateKeyFile tlsCipherSuites tlsCurvePreferences tlsMinVersion
    rotateCertificates serverTLSBootstrap authentication authorization registryPullQPS registryBurst
    imagePullCredentialsVerificationPolicy preloadedImagesVerificationAllowlist eventRecordQPS
    eventBurst enableDebuggingHandlers enableContentionProfiling healthzPort healthzBindAddress
    oomScoreAdj streamingConnectionIdleTimeout nodeStatusUpdateFrequency
    nodeStatusReportFrequency nodeLeaseDurationSeconds volumeStatsAggPeriod kubeletCgroups
    systemCgroups cgroupRoot cgroupsPerQOS cpuManagerPolicy singleProcessOOMKill
    cpuManagerPolicyOptions cpuManagerReconcilePeriod memoryManagerPolicy topologyManagerPolicy
    topologyManagerScope topologyManagerPolicyOptions qosReserved runtimeRequestTimeout hairpinMode
    maxPods podPidsLimit runOnce cpuCFSQuota cpuCFSQuotaPeriod nodeStatusMaxImages maxOpenFiles
    contentType kubeAPIQPS kubeAPIBurst serializeImagePulls maxParallelImagePulls
    podsPerCore enableControllerAttachDetach
    protectKernelDefaults makeIPTablesUtilChains iptablesMasqueradeBit iptablesDropBit featureGates
    failSwapOn memorySwap containerLogMaxWorkers containerLogMonitorInterval
    configMapAndSecretChangeDetectionStrategy systemReserved kubeReserved reservedSystemCPUs
    showHiddenMetricsForVersion systemReservedCgroup kubeReservedCgroup enforceNodeAllocatable
    volumePluginDir providerID kernelMemcgNotification logging
    enableSystemLogHandler enableSystemLogQuery shutdownGracePeriod shutdownGracePeriodCriticalPods
    shutdownGracePeriodByPodPriority crashLoopBackOff reservedMemory enableProfilingHandler
    enableDebugFlagsHandler memoryThrottlingFactor memoryReservationPolicy registerWithTaints
    registerNode tracing localStorageCapacityIsolation containerRuntimeEndpoint imageServiceEndpoint
    failCgroupV1 userNamespaces
";

impl Raw {
    pub(super) fn parse(value: Value) -> anyhow::Result<Self> {
        let of = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        if (of("apiVersion"), of("kind"))
            != ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")
        {
            bail!("it is not a KubeletConfiguration of kubelet.config.k8s.io/v1beta1");
        }
        let mut others = Vec::new();
        for field in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
            if EFFECTIVE.contains(&field.as_str()) || field == "apiVersion" || field == "kind" {
                continue;
            }
            if !known().any(|known| known == field) {
                let similar = known().chain(EFFECTIVE).find(|it| is_similar(it, field));
                let hint = similar.map(|it| format!(" (did you mean {it}?)")).unwrap_or_default();
                bail!("unknown field {field:?}{hint}");
            }
            others.push(field.clone());
        }
        let raw: Self = serde_json::from_value(value).context("a field has the wrong type")?;
        Ok(Self { others, ..raw })
    }

    /// Fields of the file that have no effect.
    pub(super) fn without_effect(&self) -> Vec<String> {
        self.others.clone()
    }
}

fn known() -> impl Iterator<Item = &'static str> {
    WITHOUT_EFFECT.split_whitespace()
}

/// Alike but for case, or for one character that is missing, added or another.
fn is_similar(known: &str, written: &str) -> bool {
    let (a, b) = (known.to_lowercase(), written.to_lowercase());
    let front = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let back = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    a == b || a.len().abs_diff(b.len()) <= 1 && front + back + 1 >= a.len().max(b.len())
}
