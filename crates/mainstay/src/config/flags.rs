//! The flags of a kubelet, as far as they are not `mainstay run`'s own.
//!
//! A flag that a kubelet has for a field of its configuration is that field, and counts more than the
//! file. None of them is shown in the help: docs/configuration.md has them.
//!
//! Source: `AddKubeletConfigFlags` and `AddFlags` in `cmd/kubelet/app/options/options.go` of Kubernetes
//! 1.36, and of 1.33 for what was there before.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use mainstay_pod::node_labels::{is_of_kubelet, is_of_kubernetes};
use mainstay_pod::validate::names;
use serde_json::{Map, Value, json};

/// How the text of a flag is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// A file's name, from the working directory.
    Path,
    Number,
    /// `--flag`, `--flag=true` or `--flag=false`.
    Switch,
    /// Parts between commas.
    List,
    /// Keys and values with this between them, between commas.
    Map(char),
    /// As [`Form::Map`], with switches.
    Gates,
    /// `name:value` between commas.
    Headers,
    /// `key=value:effect` between commas.
    Taints,
}

/// Flags, each with the field that it sets.
const FLAGS: &[(&str, &str, Form)] = &[
    ("address", "address", Form::Text),
    ("allowed-unsafe-sysctls", "allowedUnsafeSysctls", Form::List),
    ("anonymous-auth", "authentication.anonymous.enabled", Form::Switch),
    ("authentication-token-webhook", "authentication.webhook.enabled", Form::Switch),
    ("authentication-token-webhook-cache-ttl", "authentication.webhook.cacheTTL", Form::Text),
    ("authorization-mode", "authorization.mode", Form::Text),
    (
        "authorization-webhook-cache-authorized-ttl",
        "authorization.webhook.cacheAuthorizedTTL",
        Form::Text,
    ),
    (
        "authorization-webhook-cache-unauthorized-ttl",
        "authorization.webhook.cacheUnauthorizedTTL",
        Form::Text,
    ),
    ("cgroup-driver", "cgroupDriver", Form::Text),
    ("cgroup-root", "cgroupRoot", Form::Text),
    ("cgroups-per-qos", "cgroupsPerQOS", Form::Switch),
    ("client-ca-file", "authentication.x509.clientCAFile", Form::Path),
    ("cluster-dns", "clusterDNS", Form::List),
    ("cluster-domain", "clusterDomain", Form::Text),
    ("container-log-max-files", "containerLogMaxFiles", Form::Number),
    ("container-log-max-size", "containerLogMaxSize", Form::Text),
    ("container-runtime-endpoint", "containerRuntimeEndpoint", Form::Text),
    ("contention-profiling", "enableContentionProfiling", Form::Switch),
    ("cpu-cfs-quota", "cpuCFSQuota", Form::Switch),
    ("cpu-cfs-quota-period", "cpuCFSQuotaPeriod", Form::Text),
    ("cpu-manager-policy", "cpuManagerPolicy", Form::Text),
    ("cpu-manager-policy-options", "cpuManagerPolicyOptions", Form::Map('=')),
    ("cpu-manager-reconcile-period", "cpuManagerReconcilePeriod", Form::Text),
    ("enable-controller-attach-detach", "enableControllerAttachDetach", Form::Switch),
    ("enable-debugging-handlers", "enableDebuggingHandlers", Form::Switch),
    ("enable-server", "enableServer", Form::Switch),
    ("enforce-node-allocatable", "enforceNodeAllocatable", Form::List),
    ("event-burst", "eventBurst", Form::Number),
    ("event-qps", "eventRecordQPS", Form::Number),
    ("eviction-hard", "evictionHard", Form::Map('<')),
    ("eviction-max-pod-grace-period", "evictionMaxPodGracePeriod", Form::Number),
    ("eviction-minimum-reclaim", "evictionMinimumReclaim", Form::Map('=')),
    ("eviction-pressure-transition-period", "evictionPressureTransitionPeriod", Form::Text),
    ("eviction-soft", "evictionSoft", Form::Map('<')),
    ("eviction-soft-grace-period", "evictionSoftGracePeriod", Form::Map('=')),
    ("fail-cgroupv1", "failCgroupV1", Form::Switch),
    ("fail-swap-on", "failSwapOn", Form::Switch),
    ("feature-gates", "featureGates", Form::Gates),
    ("file-check-frequency", "fileCheckFrequency", Form::Text),
    ("hairpin-mode", "hairpinMode", Form::Text),
    ("healthz-bind-address", "healthzBindAddress", Form::Text),
    ("http-check-frequency", "httpCheckFrequency", Form::Text),
    ("image-gc-high-threshold", "imageGCHighThresholdPercent", Form::Number),
    ("image-gc-low-threshold", "imageGCLowThresholdPercent", Form::Number),
    ("image-service-endpoint", "imageServiceEndpoint", Form::Text),
    ("kernel-memcg-notification", "kernelMemcgNotification", Form::Switch),
    ("kube-api-burst", "kubeAPIBurst", Form::Number),
    ("kube-api-content-type", "contentType", Form::Text),
    ("kube-api-qps", "kubeAPIQPS", Form::Number),
    ("kube-reserved", "kubeReserved", Form::Map('=')),
    ("kube-reserved-cgroup", "kubeReservedCgroup", Form::Text),
    ("kubelet-cgroups", "kubeletCgroups", Form::Text),
    ("local-storage-capacity-isolation", "localStorageCapacityIsolation", Form::Switch),
    ("make-iptables-util-chains", "makeIPTablesUtilChains", Form::Switch),
    ("manifest-url", "staticPodURL", Form::Text),
    ("manifest-url-header", "staticPodURLHeader", Form::Headers),
    ("max-open-files", "maxOpenFiles", Form::Number),
    ("max-pods", "maxPods", Form::Number),
    ("memory-manager-policy", "memoryManagerPolicy", Form::Text),
    ("minimum-image-ttl-duration", "imageMinimumGCAge", Form::Text),
    ("node-status-max-images", "nodeStatusMaxImages", Form::Number),
    ("node-status-update-frequency", "nodeStatusUpdateFrequency", Form::Text),
    ("oom-score-adj", "oomScoreAdj", Form::Number),
    ("pod-cidr", "podCIDR", Form::Text),
    ("pod-max-pids", "podPidsLimit", Form::Number),
    ("pods-per-core", "podsPerCore", Form::Number),
    ("protect-kernel-defaults", "protectKernelDefaults", Form::Switch),
    ("provider-id", "providerID", Form::Text),
    ("qos-reserved", "qosReserved", Form::Map('=')),
    ("read-only-port", "readOnlyPort", Form::Number),
    ("register-node", "registerNode", Form::Switch),
    ("register-with-taints", "registerWithTaints", Form::Taints),
    ("registry-burst", "registryBurst", Form::Number),
    ("registry-qps", "registryPullQPS", Form::Number),
    ("reserved-cpus", "reservedSystemCPUs", Form::Text),
    ("resolv-conf", "resolvConf", Form::Path),
    ("rotate-certificates", "rotateCertificates", Form::Switch),
    ("rotate-server-certificates", "serverTLSBootstrap", Form::Switch),
    ("runonce", "runOnce", Form::Switch),
    ("runtime-request-timeout", "runtimeRequestTimeout", Form::Text),
    ("seccomp-default", "seccompDefault", Form::Switch),
    ("serialize-image-pulls", "serializeImagePulls", Form::Switch),
    ("streaming-connection-idle-timeout", "streamingConnectionIdleTimeout", Form::Text),
    ("sync-frequency", "syncFrequency", Form::Text),
    ("system-cgroups", "systemCgroups", Form::Text),
    ("system-reserved", "systemReserved", Form::Map('=')),
    ("system-reserved-cgroup", "systemReservedCgroup", Form::Text),
    ("tls-cert-file", "tlsCertFile", Form::Path),
    ("tls-cipher-suites", "tlsCipherSuites", Form::List),
    ("tls-min-version", "tlsMinVersion", Form::Text),
    ("tls-private-key-file", "tlsPrivateKeyFile", Form::Path),
    ("topology-manager-policy", "topologyManagerPolicy", Form::Text),
    ("topology-manager-policy-options", "topologyManagerPolicyOptions", Form::Map('=')),
    ("topology-manager-scope", "topologyManagerScope", Form::Text),
    ("volume-plugin-dir", "volumePluginDir", Form::Text),
    ("volume-stats-agg-period", "volumeStatsAggPeriod", Form::Text),
];

/// Flags that a kubelet has, and that have no meaning here.
const IN_VAIN: [&str; 12] = [
    "cloud-provider",
    "exit-on-lock-contention",
    "experimental-allocatable-ignore-eviction",
    "experimental-mounter-path",
    "lock-file",
    "log-flush-frequency",
    "logging-format",
    "maximum-dead-containers",
    "maximum-dead-containers-per-container",
    "minimum-container-ttl-duration",
    // Until 1.34.
    "pod-infra-container-image",
    "vmodule",
];

/// Flags that a kubelet has, and what is to be done instead.
const REFUSED: [(&str, &str); 1] = [("config-dir", "put everything into one file, for --config")];

const VERBOSITY: &str = "v";
const NODE_LABELS: &str = "node-labels";

/// What was given of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct KubeletFlags {
    /// By the path of the field.
    fields: BTreeMap<&'static str, Value>,
    /// Labels that the node is registered with. Source: `--node-labels`.
    pub(crate) node_labels: BTreeMap<String, String>,
    /// Those that have no meaning here.
    pub(crate) in_vain: Vec<String>,
}

// === impl KubeletFlags ===

impl KubeletFlags {
    /// What a configuration says, with what was given.
    pub(super) fn over(&self, mut configuration: Value) -> Value {
        for (path, value) in &self.fields {
            put(&mut configuration, path, value);
        }
        configuration
    }

    fn read(matches: &ArgMatches) -> anyhow::Result<Self> {
        let given = |flag: &str| -> Option<Vec<&str>> {
            Some(matches.get_many::<String>(flag)?.map(String::as_str).collect())
        };
        for (flag, instead) in REFUSED {
            ensure!(given(flag).is_none(), "--{flag}: mainstay does not have it yet; {instead}");
        }
        let mut flags = Self::default();
        for (flag, path, form) in FLAGS {
            if let Some(texts) = given(flag) {
                let value = form.value(&texts).with_context(|| format!("--{flag}"))?;
                flags.fields.insert(path, value);
            }
        }
        if let Some(texts) = given(NODE_LABELS) {
            flags.node_labels = node_labels(&texts).context("--node-labels")?;
        }
        let in_vain = IN_VAIN.into_iter().chain([VERBOSITY]);
        let in_vain = in_vain.filter(|flag| given(flag).is_some_and(|it| it.last() != Some(&"")));
        flags.in_vain = in_vain.map(|flag| format!("--{flag}")).collect();
        Ok(flags)
    }
}

impl Args for KubeletFlags {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str| {
            Arg::new(name).long(name).action(ArgAction::Append).hide(true).value_name("VALUE")
        };
        let of_fields = FLAGS.iter().map(|(name, _, form)| match form {
            Form::Switch => {
                flag(name).num_args(0..=1).require_equals(true).default_missing_value("true")
            }
            _ => flag(name),
        });
        let others = IN_VAIN.into_iter().chain(REFUSED.map(|(name, _)| name)).chain([NODE_LABELS]);
        let verbosity = flag(VERBOSITY).short('v');
        command.args(of_fields).args(others.map(flag)).arg(verbosity)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KubeletFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::read(matches)
            .map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error:#}\n")))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

// === impl Form ===

impl Form {
    fn value(self, texts: &[&str]) -> anyhow::Result<Value> {
        let last = texts.last().copied().unwrap_or_default();
        let parts = || texts.iter().flat_map(|text| text.split(',')).map(str::trim);
        let parts = || parts().filter(|part| !part.is_empty());
        let pair = |part: &str, between: char| match part.split_once(between) {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => bail!("malformed pair, expect string{between}string: {part:?}"),
        };
        Ok(match self {
            Self::Text => json!(last),
            Self::Path if last.is_empty() => json!(last),
            Self::Path => json!(std::path::absolute(last)?.to_string_lossy()),
            Self::Number => match last.parse::<i64>() {
                Ok(number) => json!(number),
                Err(_) => bail!("{last:?} is no number"),
            },
            Self::Switch => json!(switch(last)?),
            Self::List => json!(parts().collect::<Vec<_>>()),
            Self::Map(between) => {
                let pairs = parts().map(|part| pair(part, between));
                json!(pairs.collect::<anyhow::Result<BTreeMap<_, _>>>()?)
            }
            Self::Gates => {
                let gate = |part: &str| {
                    let (name, state) = pair(part, '=')?;
                    Ok((name, switch(&state)?))
                };
                json!(parts().map(gate).collect::<anyhow::Result<BTreeMap<_, _>>>()?)
            }
            Self::Headers => {
                let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for part in parts() {
                    // What is in it may be a secret.
                    let Some((name, value)) = part.split_once(':') else {
                        bail!("malformed pair, expect string:string");
                    };
                    headers
                        .entry(name.trim().to_owned())
                        .or_default()
                        .push(value.trim().to_owned());
                }
                json!(headers)
            }
            Self::Taints => json!(parts().map(taint).collect::<anyhow::Result<Vec<_>>>()?),
        })
    }
}

/// Source: `strconv.ParseBool`.
fn switch(text: &str) -> anyhow::Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => bail!("{text:?} is neither true nor false"),
    }
}

/// Source: `parseTaint` in `pkg/util/taints/taints.go`.
fn taint(text: &str) -> anyhow::Result<Value> {
    let invalid = || format!("invalid taint spec: {text}");
    let (pair, effect) = text.split_once(':').with_context(invalid)?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty()
        && let Some(map) = taint.as_object_mut()
    {
        map.insert("value".to_owned(), json!(value));
    }
    Ok(taint)
}

/// Source: `ValidateKubeletFlags`.
fn node_labels(texts: &[&str]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let parts = texts.iter().flat_map(|text| text.split(',')).map(str::trim);
    for part in parts.filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        ensure!(
            !is_of_kubernetes(key) || is_of_kubelet(key),
            "unknown 'kubernetes.io' or 'k8s.io' label {key:?}; in these namespaces a node gives itself \
             those of *.kubelet.kubernetes.io and *.node.kubernetes.io only, and some known ones"
        );
        let messages: Vec<_> =
            names::label_key(key).into_iter().chain(names::label_value(value)).collect();
        ensure!(messages.is_empty(), "{part:?}: {}", messages.join("; "));
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// Sets a field, with what is above it. Gates count one by one.
fn put(value: &mut Value, path: &str, given: &Value) {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Some(map) = value.as_object_mut() else { return };
    let field = map.entry(name).or_insert(Value::Null);
    if !rest.is_empty() {
        return put(field, rest, given);
    }
    match (field.as_object_mut().filter(|_| name == "featureGates"), given) {
        (Some(gates), Value::Object(given)) => gates.extend(given.clone()),
        _ => *field = given.clone(),
    }
}

#[cfg(test)]
mod tests;
