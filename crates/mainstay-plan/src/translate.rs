//! From a pod to what the runtime is asked for.
//!
//! Source: `pkg/kubelet/kuberuntime/{kuberuntime_sandbox,kuberuntime_container,security_context}.go`.

mod env_file;
mod environment;
pub(crate) mod expand;
mod host_name;
mod security;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};
use mainstay_cri::{
    ContainerConfig, ContainerId, ContainerMetadata, DNS_NAMES, DnsConfig, ImageSpec,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, Mount,
    MountPropagation, NamespaceMode, NamespaceOptions, PodSandboxConfig, PodSandboxMetadata,
    PortMapping, Protocol, SeccompProfile,
};
use mainstay_pod::{Amounts, Pod, Role, bandwidth};

pub use env_file::{EnvFile, EnvFiles, files as env_files};
pub use environment::{Given, environment};
pub use host_name::HostName;
pub(crate) use security::run_as_user;
pub use security::{RunsAsRoot, verify_non_root};

use crate::admission::Kernel;
use crate::dns::{self, ClusterDns};
use crate::exclusive::Exclusive;
use crate::labels;
use crate::lifecycle;
use crate::memory_qos::MemoryQos;
use crate::pod::{ContainerPlan, RunGoal, SeenPod, SourceKind};
use crate::projection::Projection;
use crate::resize::Requirements;
use crate::resources::{CpuQuotas, Limits, huge_pages_of_container, limited_swap, oom_score_adj};
use crate::sysctls;
use crate::termination_message;

/// The file of the pod's directory that its containers see as `/etc/hosts`. Source:
/// `pkg/kubelet/kubelet_pods.go`, `etcHostsPath`.
const HOSTS_FILE: &str = "etc-hosts";

/// What the node knows that a pod does not.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The name that the pods' names end in.
    pub name: String,
    /// Where pods have their directories: `<root-dir>/pods`.
    pub pods_directory: PathBuf,
    /// Where container logs go.
    pub log_directory: PathBuf,
    /// The control group of all pods.
    pub cgroup_root: String,
    /// Bytes.
    pub machine_memory: u64,
    /// How memory is kept and throttled; `None` if it is not.
    pub memory_qos: Option<MemoryQos>,
    /// The sizes of huge pages that the processor has, in bytes.
    pub huge_page_sizes: Vec<u64>,
    /// What of the machine pods can have: what its Node says.
    pub allocatable: Amounts,
    /// How limits of processor time are kept.
    pub cpu_quotas: CpuQuotas,
    /// Bytes of the machine's swap, if containers may have some of it. Source: `LimitedSwap` of
    /// `memorySwap.swapBehavior`.
    pub limited_swap: Option<u64>,
    /// How many processes and threads a pod can have; `None` is as many as there can be. Source:
    /// `podPidsLimit`.
    pub pod_pids_limit: Option<u64>,
    /// Where the files of `seccompProfile.localhostProfile` are: `<root-dir>/seccomp`.
    pub seccomp_directory: PathBuf,
    /// What containers get that say nothing: `seccompDefault` of the configuration.
    pub seccomp_default: SeccompProfile,
    /// The longest wait before a container is started again; `None` is [`backoff::LONGEST`]. Source:
    /// `crashLoopBackOff.maxContainerRestartPeriod`.
    ///
    /// [`backoff::LONGEST`]: crate::backoff::LONGEST
    pub longest_wait: Option<Duration>,
    /// The DNS of the cluster that the node is in.
    pub cluster_dns: ClusterDns,
    /// What the names end in that pods of this node have for each other; `None` if they have none.
    pub pod_domain: Option<String>,
    /// What of pods is a matter of the kernel.
    pub kernel: Kernel,
}

impl NodeFacts {
    /// A pod's own directory.
    pub fn pod_directory(&self, uid: &str) -> PathBuf {
        self.pods_directory.join(uid)
    }

    /// The log directory of a pod. Source: `BuildPodLogsDirectory`.
    pub fn pod_log_directory(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_directory.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The file that a pod's containers see as `/etc/hosts`.
    pub fn hosts_file(&self, uid: &str) -> PathBuf {
        self.pod_directory(uid).join(HOSTS_FILE)
    }

    /// The file of a container's termination message, of the one with this number of its name. Source:
    /// `makeMounts` in `pkg/kubelet/kuberuntime/kuberuntime_container.go`.
    pub fn termination_message_file(&self, uid: &str, container: &str, number: u32) -> PathBuf {
        self.pod_directory(uid).join("containers").join(container).join(number.to_string())
    }

    /// Where a volume is on this machine; `None` for one that has no place of its own.
    pub fn volume_path(&self, uid: &str, volume: &Volume) -> Option<PathBuf> {
        if let Some(host_path) = &volume.host_path {
            return Some(PathBuf::from(&host_path.path));
        }
        let kind = match Projection::of(volume) {
            Some(projection) => projection.directory(),
            None if volume.nfs.is_some() => "kubernetes.io~nfs",
            None => volume.empty_dir.as_ref().map(|_| "kubernetes.io~empty-dir")?,
        };
        Some(self.pod_directory(uid).join("volumes").join(kind).join(&volume.name))
    }
}

/// A pod or a container that cannot be asked for as it stands. Validation refuses all of this, but
/// not in a pod that another version of mainstay stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TranslateError {
    /// A mount of a volume that the pod does not have.
    NoSuchVolume(String),
    /// A sub path that refers to variables that are not there, or are empty.
    MissingVariables(Vec<String>),
    /// A sub path that leads out of its volume.
    SubPath(String),
    /// A field with a value that there is not.
    Invalid {
        /// The field, as in the manifest.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A host name with its domain that is longer than the kernel takes.
    LongName(String),
    /// A container whose processes are to be seen, and that was never made.
    NoTarget(String),
}

impl TranslateError {
    fn invalid(field: &'static str, value: impl fmt::Display) -> Self {
        Self::Invalid { field, value: value.to_string() }
    }
}

impl std::error::Error for TranslateError {}

impl fmt::Display for TranslateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchVolume(name) => {
                write!(
                    f,
                    "the pod has no volume {name:?}; name one of spec.volumes, or add it there"
                )
            }
            Self::MissingVariables(names) => write!(f, "missing value for {}", names.join(", ")),
            Self::SubPath(path) if path.starts_with('/') => {
                write!(f, "error SubPath `{path}` must not be an absolute path")
            }
            Self::SubPath(path) => {
                write!(f, "unable to provision SubPath `{path}`: must not contain '..'")
            }
            Self::Invalid { field, value } => {
                write!(f, "{field} cannot be {value:?}; correct it in the manifest")
            }
            Self::NoTarget(name) => write!(f, "unable to find target container {name}"),
            // In the kubelet's words.
            Self::LongName(name) => write!(
                f,
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too \
                 long (64 characters is the max, {} characters requested)",
                name.len()
            ),
        }
    }
}

/// The sandbox of a pod.
///
/// # Errors
///
/// When the runtime cannot be asked for what the pod says; nothing is left out or replaced.
pub fn sandbox(
    run: &RunGoal,
    source: SourceKind,
    attempt: u32,
    facts: &NodeFacts,
    resolv_conf: DnsConfig,
    cgroup: &str,
) -> Result<PodSandboxConfig, TranslateError> {
    let pod = &run.pod;
    let network = if pod.is_host_network() { NamespaceMode::Node } else { NamespaceMode::Pod };
    let privileged = pod.containers().any(|(_, container)| security::is_privileged(container));
    let mut labels: BTreeMap<String, String> = pod.metadata().labels.clone().unwrap_or_default();
    labels.extend(pod_labels(pod));
    labels.insert(labels::SOURCE.to_owned(), source.as_str().to_owned());
    let mut annotations = pod.metadata().annotations.clone().unwrap_or_default();
    let grace = pod.termination_grace_period().as_secs().to_string();
    annotations.insert(labels::GRACE_PERIOD.to_owned(), grace);
    annotations.insert(labels::NODE_NAME.to_owned(), facts.name.clone());
    let names: Vec<&str> = pod.spec().containers.iter().map(|it| it.name.as_str()).collect();
    annotations.insert(labels::CONTAINERS.to_owned(), names.join(","));
    let sidecars = pod.containers().filter(|(role, _)| *role == Role::Sidecar);
    let sidecars: Vec<&str> = sidecars.map(|(_, container)| container.name.as_str()).collect();
    if !sidecars.is_empty() {
        annotations.insert(labels::SIDECARS.to_owned(), sidecars.join(","));
    }
    Exclusive::of(pod).note(&mut annotations);
    // Nobody says by himself what he is called.
    annotations.remove(DNS_NAMES);
    if facts.pod_domain.is_some() {
        annotations.insert(DNS_NAMES.to_owned(), dns::names(pod, &facts.name).join(","));
    }
    if let Some(incarnation) = run.incarnation {
        annotations.insert(labels::INCARNATION.to_owned(), incarnation.to_string());
    }
    // The runtime gets plain numbers, which every one understands.
    for name in [bandwidth::INGRESS_ANNOTATION, bandwidth::EGRESS_ANNOTATION] {
        if let Some(text) = annotations.get_mut(name).filter(|_| !pod.is_host_network()) {
            let bits = bandwidth::parse(text).map_err(|_| TranslateError::invalid(name, &text))?;
            *text = bits.to_string();
        }
    }
    Ok(PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        },
        // On the host's network a pod has the host's name.
        hostname: match pod.is_host_network() {
            true => String::new(),
            false => HostName::of(pod, &facts.cluster_dns.domain).of_kernel(pod)?,
        },
        log_directory: text(&facts.pod_log_directory(pod.namespace(), pod.name(), pod.uid())),
        dns: resolv_conf,
        port_mappings: if pod.is_host_network() { Vec::new() } else { port_mappings(pod)? },
        labels,
        annotations,
        cgroup_parent: cgroup.to_owned(),
        security_context: LinuxSandboxSecurityContext {
            namespaces: NamespaceOptions {
                network,
                pid: process_namespace(pod),
                ipc: if is(pod.spec().host_ipc) { NamespaceMode::Node } else { NamespaceMode::Pod },
                // Whoever makes the sandbox knows which ones are free.
                users: None,
            },
            privileged,
            seccomp: security::pod_seccomp(pod, facts)?,
        },
        sysctls: sysctls::of(pod),
    })
}

/// Whose process numbers a container has. Source: `pkg/kubelet/kuberuntime/util/util.go`,
/// `pidNamespaceForPod`.
fn process_namespace(pod: &Pod) -> NamespaceMode {
    let spec = pod.spec();
    match (is(spec.host_pid), is(spec.share_process_namespace)) {
        (true, _) => NamespaceMode::Node,
        (false, true) => NamespaceMode::Pod,
        (false, false) => NamespaceMode::Container,
    }
}

fn is(field: Option<bool>) -> bool {
    field.unwrap_or(false)
}

/// The container whose process numbers an ephemeral one of this name is to have; `None` if it does not ask for
/// one, or they are those of all containers anyway.
///
/// # Errors
///
/// When it asks for one of which there is nothing.
///
/// Source: `getTargetID` in `pkg/kubelet/kuberuntime/kuberuntime_container.go`,
/// `generateLinuxContainerConfig` in `kuberuntime_container_linux.go`.
pub fn target(
    pod: &Pod,
    container: &str,
    seen: &SeenPod,
) -> Result<Option<ContainerId>, TranslateError> {
    let Some(name) = pod.target_of(container) else { return Ok(None) };
    let mut own = seen.sandboxes.iter().filter(|sandbox| sandbox.uid == pod.uid());
    let found = own.find_map(|sandbox| sandbox.newest(name));
    let found = found.ok_or_else(|| TranslateError::NoTarget(name.to_owned()))?;
    Ok((process_namespace(pod) == NamespaceMode::Container).then(|| found.id.clone()))
}

/// A container of a pod, with the variables that [`environment()`] says, and the [`target()`] if it has one.
///
/// # Errors
///
/// As of [`sandbox`].
pub fn container(
    pod: &Pod,
    container: &Container,
    plan: &ContainerPlan,
    facts: &NodeFacts,
    envs: Vec<(String, String)>,
    target: Option<ContainerId>,
) -> Result<ContainerConfig, TranslateError> {
    let mut annotations = BTreeMap::new();
    annotations.insert(labels::RESTART_COUNT.to_owned(), plan.restart_count.to_string());
    if plan.round > 0 {
        annotations.insert(labels::ROUND.to_owned(), plan.round.to_string());
    }
    if pod.container(&plan.name).is_some_and(|(role, _)| role == Role::Ephemeral) {
        annotations.insert(labels::EPHEMERAL.to_owned(), true.to_string());
    }
    if let Some(backoff) = &plan.backoff {
        annotations.insert(labels::BACKOFF.to_owned(), backoff.to_string());
    }
    if let Some(handler) = lifecycle::pre_stop(container) {
        let note = lifecycle::note(handler, container);
        annotations.insert(labels::PRE_STOP_HANDLER.to_owned(), note);
    }
    let mut mounts = mounts(pod, container, facts, &envs)?;
    if let Some(path) = termination_message::path(container) {
        let policy = container.termination_message_policy.clone().unwrap_or_default();
        annotations.insert(labels::TERMINATION_MESSAGE_PATH.to_owned(), path.to_owned());
        annotations.insert(labels::TERMINATION_MESSAGE_POLICY.to_owned(), policy);
        let file = facts.termination_message_file(pod.uid(), &container.name, plan.restart_count);
        // Last, so that no volume lies over it.
        mounts.push(Mount {
            container_path: absolute(path),
            host_path: text(&file),
            image: None,
            readonly: false,
            recursive_read_only: false,
            propagation: MountPropagation::Private,
            sub_path: String::new(),
        });
    }
    let mut labels: BTreeMap<String, String> = pod_labels(pod).into_iter().collect();
    labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    let expand = |list: &Option<Vec<String>>| {
        let list = list.iter().flatten();
        list.map(|text| expand::expand(text, |name| lookup(&envs, name))).collect::<Vec<_>>()
    };
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: plan.restart_count },
        image: ImageSpec(plan.image.clone()),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        labels,
        annotations,
        log_path: format!("{}/{}.log", container.name, plan.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        stop_signal: container.lifecycle.as_ref().and_then(|it| it.stop_signal.clone()),
        resources: resources(pod, container, facts),
        security_context: LinuxContainerSecurityContext {
            target,
            ..security::of(pod, container, facts)?
        },
        envs,
    })
}

fn pod_labels(pod: &Pod) -> [(String, String); 3] {
    [
        (labels::POD_NAME.to_owned(), pod.name().to_owned()),
        (labels::POD_NAMESPACE.to_owned(), pod.namespace().to_owned()),
        (labels::POD_UID.to_owned(), pod.uid().to_owned()),
    ]
}

fn port_mappings(pod: &Pod) -> Result<Vec<PortMapping>, TranslateError> {
    let number =
        |field, port: i32| u16::try_from(port).map_err(|_| TranslateError::invalid(field, port));
    let mapping = |port: mainstay_pod::HostPort| {
        Ok(PortMapping {
            protocol: match port.protocol.as_str() {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                "SCTP" => Protocol::Sctp,
                other => return Err(TranslateError::invalid("protocol", other)),
            },
            container_port: number("containerPort", port.container_port)?,
            host_port: number("hostPort", port.host_port)?,
            host_ip: match port.host_ip.as_str() {
                "" => None,
                text => {
                    let invalid = |_| TranslateError::invalid("hostIP", text);
                    Some(text.parse::<IpAddr>().map_err(invalid)?)
                }
            },
        })
    };
    pod.host_ports().into_iter().map(mapping).collect()
}

fn lookup(variables: &[(String, String)], name: &str) -> Option<String> {
    variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

fn mounts(
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
    envs: &[(String, String)],
) -> Result<Vec<Mount>, TranslateError> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = pod.volume(&mount.name);
        let image = volume.and_then(image_of);
        let path = volume.and_then(|volume| facts.volume_path(pod.uid(), volume));
        if path.is_none() && image.is_none() {
            return Err(TranslateError::NoSuchVolume(mount.name.clone()));
        }
        // What is in it is the agent's alone to change, or nobody's.
        let is_made =
            image.is_some() || volume.is_some_and(|volume| Projection::of(volume).is_some());
        mounts.push(Mount {
            container_path: absolute(&mount.mount_path),
            host_path: path.as_deref().map(text).unwrap_or_default(),
            image: image.map(|reference| ImageSpec(reference.to_owned())),
            readonly: is(mount.read_only) || is_made,
            recursive_read_only: is_recursively_read_only(mount),
            propagation: propagation(mount)?,
            sub_path: sub_path(mount, envs)?.unwrap_or_default(),
        });
    }
    let own_hosts = mounts.iter().any(|mount| mount.container_path == "/etc/hosts");
    if !own_hosts {
        mounts.push(Mount {
            container_path: "/etc/hosts".to_owned(),
            host_path: text(&facts.hosts_file(pod.uid())),
            image: None,
            // Whatever the root is. Source: `makeHostsMount` in `pkg/kubelet/kubelet_pods.go`.
            readonly: false,
            recursive_read_only: false,
            propagation: MountPropagation::Private,
            sub_path: String::new(),
        });
    }
    Ok(mounts)
}

/// The image that a volume shows; `None` if it is of another kind.
pub fn image_of(volume: &Volume) -> Option<&str> {
    volume.image.as_ref()?.reference.as_deref()
}

/// Source: `translateMountPropagation`.
fn propagation(mount: &VolumeMount) -> Result<MountPropagation, TranslateError> {
    match mount.mount_propagation.as_deref() {
        None | Some("None") => Ok(MountPropagation::Private),
        Some("HostToContainer") => Ok(MountPropagation::HostToContainer),
        Some("Bidirectional") => Ok(MountPropagation::Bidirectional),
        Some(other) => Err(TranslateError::invalid("mountPropagation", other)),
    }
}

/// Whether what is mounted below a volume on the host cannot be written either. The kernels that mainstay
/// runs on can do it, so that what is asked for if possible is. Source: `resolveRecursiveReadOnly`.
pub(crate) fn is_recursively_read_only(mount: &VolumeMount) -> bool {
    let asked = mount.recursive_read_only.as_deref();
    is(mount.read_only) && matches!(asked, Some("Enabled" | "IfPossible"))
}

/// What of its volume a mount is of; `None` for all of it.
///
/// # Errors
///
/// When it cannot be told, or leads out of the volume by its words. Where links lead is found out when it is
/// opened.
pub fn sub_path(
    mount: &VolumeMount,
    envs: &[(String, String)],
) -> Result<Option<String>, TranslateError> {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let path = match some(&mount.sub_path_expr) {
        None => some(&mount.sub_path),
        Some(expression) => {
            let missing = RefCell::new(BTreeSet::new());
            // Source: `ExpandContainerVolumeMounts` in `pkg/kubelet/container/helpers.go`.
            let path = expand::expand(&expression, |name| {
                let value = lookup(envs, name).filter(|value| !value.is_empty());
                if value.is_none() {
                    missing.borrow_mut().insert(name.to_owned());
                }
                value
            });
            let missing = missing.into_inner();
            if !missing.is_empty() {
                return Err(TranslateError::MissingVariables(missing.into_iter().collect()));
            }
            some(&Some(path))
        }
    };
    match path {
        Some(path) if path.starts_with('/') || path.split('/').any(|name| name == "..") => {
            Err(TranslateError::SubPath(path))
        }
        path => Ok(path),
    }
}

/// A relative mount path counts from the root, as the kubelet has it (`makeMounts`).
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn resources(pod: &Pod, container: &Container, facts: &NodeFacts) -> LinuxContainerResources {
    given(&Requirements::of_container(pod, container), pod, container, facts)
}

/// What a container of a pod may use that is given this much of CPU and memory.
pub fn given(
    has: &Requirements,
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
) -> LinuxContainerResources {
    let limits = Limits::of(has, facts.cpu_quotas);
    let swap = facts
        .limited_swap
        .map_or(0, |swap| limited_swap(pod, container, facts.machine_memory, swap));
    let allocatable = facts.allocatable.memory_bytes;
    let qos = facts.memory_qos.map(|qos| qos.of_container(pod, container, allocatable));
    // All of a container ends when its memory runs out, and not some process of it. Source:
    // `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go`, `memory.oom.group`; for swap
    // `configureContainerSwapResources` in the same file.
    let own = [
        ("memory.oom.group".to_owned(), "1".to_owned()),
        ("memory.swap.max".to_owned(), swap.to_string()),
    ];
    LinuxContainerResources {
        cpu_period: facts.cpu_quotas.period,
        cpu_quota: limits.cpu_quota.and_then(|quota| i64::try_from(quota).ok()).unwrap_or(0),
        cpu_shares: limits.cpu_shares,
        memory_limit: limits.memory.unwrap_or(0),
        // Swap is not used, but for `LimitedSwap`: what is limited to so much memory is not to use more
        // of the machine in another way.
        memory_swap_limit: limits.memory.unwrap_or(0),
        oom_score_adj: oom_score_adj(pod, container, facts.machine_memory),
        hugepage_limits: huge_pages_of_container(pod, container, &facts.huge_page_sizes),
        unified: qos.unwrap_or_default().into_iter().chain(own).collect(),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
