//! Every field of `KubeletConfiguration`, and what becomes of it.
//!
//! Source: `staging/src/k8s.io/kubelet/config/v1beta1/types.go` of Kubernetes 1.36; for defaults,
//! `pkg/kubelet/apis/config/v1beta1/defaults.go`.

use serde_json::Value;

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    /// As in the file.
    pub(super) name: &'static str,
    /// What becomes of it.
    pub(super) effect: Effect,
    /// The same for people, as the page has it.
    #[cfg(test)]
    pub(super) note: &'static str,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// What it says.
    Taken,
    /// Nothing. It is named, unless it says one of these, as JSON, or nothing: that is done anyway.
    Named(&'static [&'static str]),
}

#[cfg_attr(
    not(test),
    expect(unused_variables, reason = "notes are for the page, which a test writes")
)]
const fn taken(name: &'static str, note: &'static str) -> Field {
    Field {
        name,
        effect: Effect::Taken,
        #[cfg(test)]
        note,
    }
}

#[cfg_attr(not(test), expect(unused_variables, reason = "as above"))]
const fn named(name: &'static str, unless: &'static [&'static str], note: &'static str) -> Field {
    Field {
        name,
        effect: Effect::Named(unless),
        #[cfg(test)]
        note,
    }
}

/// All, by name.
pub(super) const FIELDS: &[Field] = &[
    taken("address", "where the node API listens; `0.0.0.0` by default"),
    taken("allowedUnsafeSysctls", "kernel settings that pods may set beside the safe ones"),
    taken(
        "authentication",
        "who may ask the node API: whether the API is asked whose a token is (`webhook`), and for how long its answer holds; whether who shows nothing is asked for (`anonymous`); with `--kubeconfig`, the authorities of clients' certificates (`x509.clientCAFile`), which are the API's own without",
    ),
    taken(
        "authorization",
        "`Webhook` or `AlwaysAllow`: whether the API is asked what somebody may, and for how long its answers hold",
    ),
    taken("cgroupDriver", "`cgroupfs` or `systemd`; by default what suits the machine"),
    named("cgroupRoot", &[r#""/""#], "pods are in the control group of the instance"),
    named(
        "cgroupsPerQOS",
        &["true"],
        "pods are in the groups of their classes, whose weights are a kubelet's",
    ),
    taken(
        "clusterDNS",
        "resolvers of pods with `dnsPolicy: ClusterFirst`; by default the node's own",
    ),
    taken("clusterDomain", "the domain that pods' names end in, `cluster.local` by default"),
    named("configMapAndSecretChangeDetectionStrategy", &[r#""Watch""#], "they are watched"),
    taken(
        "containerLogMaxFiles",
        "files of one container's log, 5 by default, none of them compressed",
    ),
    taken("containerLogMaxSize", "bytes of one of them, `10Mi` by default"),
    named("containerLogMaxWorkers", &["1"], "one task rotates logs, which renames files only"),
    taken(
        "containerLogMonitorInterval",
        "how often logs are looked at, `10s` by default and `3s` at least",
    ),
    taken(
        "containerRuntimeEndpoint",
        "the socket of the container runtime that runs the pods; the embedded one by default",
    ),
    named("contentType", &[r#""application/json""#], "the API is asked in JSON"),
    taken("cpuCFSQuota", "whether limits of processor time are kept"),
    taken("cpuCFSQuotaPeriod", "the period that they count in, `100ms` by default"),
    named("cpuManagerPolicy", &[r#""none""#], "no processor is one container's alone"),
    named("cpuManagerPolicyOptions", &[], "as of `cpuManagerPolicy`"),
    named("cpuManagerReconcilePeriod", &[r#""10s""#], "as of `cpuManagerPolicy`"),
    taken(
        "crashLoopBackOff",
        "`maxContainerRestartPeriod`: the longest wait before a container is started again, `300s` by default",
    ),
    named("enableContentionProfiling", &["false"], "there are no profiles"),
    named("enableControllerAttachDetach", &["true"], "there are no volumes to attach"),
    named("enableDebugFlagsHandler", &["false"], "there are no such paths"),
    taken(
        "enableDebuggingHandlers",
        "whether the node API has logs, exec, attach, port-forward, run and runningpods",
    ),
    named("enableProfilingHandler", &["false"], "there are no profiles"),
    taken("enableServer", "whether there is a node API at all"),
    named("enableSystemLogHandler", &["false"], "the node API does not show the system's logs"),
    named("enableSystemLogQuery", &["false"], "as of `enableSystemLogHandler`"),
    taken(
        "enforceNodeAllocatable",
        "`pods` or `none`: whether all pods together are held to what they can have; of the other words see `systemReservedCgroup`",
    ),
    named("eventBurst", &["100"], "events are counted together and never lost for being many"),
    named("eventRecordQPS", &["50"], "as of `eventBurst`"),
    taken("evictionHard", "from where on something is short; so much pods cannot have"),
    taken("evictionMaxPodGracePeriod", "how long pods have to end for soft thresholds"),
    taken("evictionMinimumReclaim", "how much more there has to be again"),
    taken("evictionPressureTransitionPeriod", "how long something is called short after it was"),
    taken("evictionSoft", "from where on something is short for a while"),
    taken("evictionSoftGracePeriod", "how long"),
    taken(
        "failCgroupV1",
        "if it says so, the agent does not start on control groups of version 1; by default it does",
    ),
    taken(
        "failSwapOn",
        "if it says so, the agent does not start on a machine with swap; by default it does",
    ),
    taken(
        "featureGates",
        "gates of Kubernetes 1.36: what a gate asks for that is not its default is named in the warning, one that there is not is an error",
    ),
    taken(
        "fileCheckFrequency",
        "how often manifests are looked at without having been told, `5s` by default",
    ),
    named(
        "hairpinMode",
        &[r#""promiscuous-bridge""#, r#""hairpin-veth""#],
        "a pod reaches itself by its host port",
    ),
    taken("healthzBindAddress", "where `/healthz` is, `127.0.0.1` by default"),
    taken("healthzPort", "its port, 10248 by default; 0 is none"),
    taken("httpCheckFrequency", "how often `staticPodURL` is asked, `20s` by default"),
    taken("imageGCHighThresholdPercent", "from where on unused images are removed"),
    taken("imageGCLowThresholdPercent", "down to where"),
    taken("imageMaximumGCAge", "after what time they are removed in any case"),
    taken("imageMinimumGCAge", "for what time they are kept in any case"),
    named(
        "imagePullCredentialsVerificationPolicy",
        &[r#""NeverVerify""#],
        "who may use an image that is there is not checked again",
    ),
    named("imageServiceEndpoint", &[], "images are those of the runtime that runs the pods"),
    named("iptablesDropBit", &["15"], "packets are not marked"),
    named("iptablesMasqueradeBit", &["14"], "packets are not marked"),
    named("kernelMemcgNotification", &["false"], "memory is looked at every ten seconds"),
    named("kubeAPIBurst", &["100"], "the API is asked as often as there is something to say"),
    named("kubeAPIQPS", &["50"], "as of `kubeAPIBurst`"),
    named("kubeletCgroups", &[], "the agent stays in the control group that it is started in"),
    taken("kubeReserved", "what is kept for Kubernetes: cpu, memory, ephemeral-storage, pid"),
    named("kubeReservedCgroup", &[], "limits are set for pods only"),
    taken(
        "localStorageCapacityIsolation",
        "whether disk is a resource that pods ask for and are held to",
    ),
    named("logging", &[], "what is logged is said by `MAINSTAY_LOG`"),
    named("makeIPTablesUtilChains", &["false"], "there are no chains of iptables"),
    named(
        "maxOpenFiles",
        &["1000000"],
        "it stays as whoever starts the agent sets it; pods would inherit it",
    ),
    taken(
        "maxParallelImagePulls",
        "how many images are pulled at the same time; no limit by default",
    ),
    taken("maxPods", "how many pods the node takes, 110 by default"),
    named("memoryManagerPolicy", &[r#""None""#], "memory is no matter of NUMA nodes"),
    taken(
        "memoryReservationPolicy",
        "with the feature gate `MemoryQoS`: whether the memory that pods request is kept for them, on control groups of version 2",
    ),
    taken(
        "memorySwap",
        "`swapBehavior`: `NoSwap`, the default, or `LimitedSwap`, which needs control groups of version 2",
    ),
    taken(
        "memoryThrottlingFactor",
        "with the feature gate `MemoryQoS`: how far a container goes towards its limit unhindered, `0.9` by default",
    ),
    taken(
        "mergeDefaultEvictionSettings",
        "whether `evictionHard` leaves the other defaults as they are",
    ),
    taken("nodeLeaseDurationSeconds", "how long the node's lease holds, 40 by default"),
    taken("nodeStatusMaxImages", "how many images the Node shows, 50 by default; -1 is all"),
    taken("nodeStatusReportFrequency", "how often the Node's status is written without news"),
    taken("nodeStatusUpdateFrequency", "how often the node is looked at, `10s` by default"),
    taken("oomScoreAdj", "how soon the kernel kills the agent, -999 by default"),
    taken("podCIDR", "the addresses of pods"),
    taken("podLogsDir", "where containers' logs are"),
    taken(
        "podPidsLimit",
        "how many processes a pod can have; -1, the default, is as many as there can be",
    ),
    taken("podsPerCore", "how many pods the node takes for each processor"),
    taken("port", "the node API's port, 10250 by default"),
    named(
        "preloadedImagesVerificationAllowlist",
        &[],
        "as of `imagePullCredentialsVerificationPolicy`",
    ),
    named("protectKernelDefaults", &["false"], "kernel settings stay as they are"),
    taken("providerID", "what a cloud calls the machine"),
    named("qosReserved", &[], "requests are not reserved by class"),
    taken(
        "readOnlyPort",
        "a port where everybody may read pods, usage and metrics; none by default",
    ),
    taken("registerNode", "whether the node makes its own Node"),
    taken("registerWithTaints", "taints that it makes it with"),
    taken(
        "registryBurst",
        "how many pulls may begin at once, 10 by default, if `registryPullQPS` is set",
    ),
    taken("registryPullQPS", "how many pulls may begin in a second; no limit by default"),
    named("reservedMemory", &[], "as of `memoryManagerPolicy`"),
    taken(
        "reservedSystemCPUs",
        "the processors that are kept for the system and Kubernetes, instead of amounts of `systemReserved` and `kubeReserved`",
    ),
    taken(
        "resolvConf",
        "the resolver settings that pods get, and whom the node's own resolver asks",
    ),
    taken(
        "rotateCertificates",
        "with `--kubeconfig`: whether the node has client certificates of its own, in `--cert-dir`, and renews them; a node that joins with a token does in any case",
    ),
    taken("runOnce", "an error, as with a kubelet"),
    taken(
        "runtimeRequestTimeout",
        "how long a call of that runtime may take, `2m` by default; the embedded one has its own",
    ),
    taken("seccompDefault", "whether containers that say nothing get `RuntimeDefault`"),
    taken(
        "serializeImagePulls",
        "whether images are pulled one after the other; by default they are not",
    ),
    taken(
        "serverTLSBootstrap",
        "with `--kubeconfig`: whether the API is asked for the node API's certificate, which else is of the instance's own authority; a node that joins with a token asks in any case",
    ),
    named("showHiddenMetricsForVersion", &[], "there are no hidden metrics"),
    taken(
        "shutdownGracePeriod",
        "how long pods have to end, in the order of their priorities, when logind says that the machine goes down; not at all by default",
    ),
    taken("shutdownGracePeriodByPodPriority", "the same, for each priority by itself"),
    taken(
        "shutdownGracePeriodCriticalPods",
        "how much of `shutdownGracePeriod` is for critical pods",
    ),
    named("singleProcessOOMKill", &["false"], "all of a container ends when its memory runs out"),
    taken("staticPodPath", "where manifests are, if `--pod-manifest-path` does not say"),
    taken("staticPodURL", "a URL with manifests"),
    taken("staticPodURLHeader", "headers that it is asked with"),
    taken(
        "streamingConnectionIdleTimeout",
        "how long a stream of exec, attach or port-forward may be silent, `4h` by default",
    ),
    named(
        "syncFrequency",
        &[r#""1m""#, r#""1m0s""#, r#""60s""#],
        "every pod has its own worker, which is told of changes",
    ),
    named("systemCgroups", &[], "processes stay in their control groups"),
    taken("systemReserved", "what is kept for the system: cpu, memory, ephemeral-storage, pid"),
    named("systemReservedCgroup", &[], "limits are set for pods only"),
    taken(
        "tlsCertFile",
        "the node API's certificate; by default one that the API's authority has signed",
    ),
    taken("tlsCipherSuites", "what the node API can be asked with in TLS 1.2"),
    named("tlsCurvePreferences", &[], "the usual curves"),
    taken("tlsMinVersion", "the oldest TLS that the node API speaks, `VersionTLS12` by default"),
    taken("tlsPrivateKeyFile", "the key of `tlsCertFile`"),
    named("topologyManagerPolicy", &[r#""none""#], "devices and processors are not aligned"),
    named("topologyManagerPolicyOptions", &[], "as of `topologyManagerPolicy`"),
    named("topologyManagerScope", &[r#""container""#], "as of `topologyManagerPolicy`"),
    named("tracing", &[], "there are no traces"),
    named(
        "userNamespaces",
        &[r#"{"idsPerPod":65536}"#],
        "a pod with `hostUsers: false` has 65536 users",
    ),
    named(
        "volumePluginDir",
        &[r#""/usr/libexec/kubernetes/kubelet-plugins/volume/exec/""#],
        "there are no plug-ins of volumes",
    ),
    named(
        "volumeStatsAggPeriod",
        &[r#""1m""#, r#""1m0s""#, r#""60s""#],
        "volumes are measured when somebody asks",
    ),
];

/// The field of this name.
pub(super) fn field(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

impl Field {
    /// Whether a value of it asks for something that is not done.
    pub(super) fn is_in_vain(&self, value: &Value) -> bool {
        match self.effect {
            Effect::Taken => false,
            Effect::Named(unless) => {
                let bare = bare(value);
                let is =
                    |text: &&str| serde_json::from_str::<Value>(text).is_ok_and(|it| it == bare);
                !says_nothing(value) && !unless.iter().any(is)
            }
        }
    }
}

/// Without what says nothing in it.
fn bare(value: &Value) -> Value {
    let Value::Object(map) = value else { return value.clone() };
    let said = map.iter().filter(|(_, value)| !says_nothing(value));
    Value::Object(said.map(|(name, value)| (name.clone(), bare(value))).collect())
}

/// What Go writes for a field that was not set; of a switch that is on by default `false` says something.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0s" || text == "0",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(says_nothing),
    }
}

#[cfg(test)]
mod tests;
