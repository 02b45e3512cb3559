//! Whether a node takes a pod.
//!
//! Source: `pkg/kubelet/lifecycle/predicate.go` with the scheduler's plugins that it asks
//! (`pkg/scheduler/framework/plugins/{noderesources,nodeaffinity,nodename,nodeports,tainttoleration}`);
//! what the scheduler needs, too, is in [`mainstay_pod::scheduling`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, Node, PodSpec, PodStatus, SELinuxOptions, SecurityContext, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_pod::scheduling::host_ports::conflict;
use mainstay_pod::scheduling::{node_affinity, taints};
use mainstay_pod::{Amounts, Pod, QosClass, Quantity};

use crate::apparmor;
use crate::ephemeral_storage::EVICTED;
use crate::exclusive::{huge_pages_of, not_enough};
use crate::pressure::Pressure;
use crate::status::Phase;
use crate::sysctls::AllowedSysctls;

/// The operating system, as nodes and pods name it.
const OS: &str = "linux";
const OS_LABEL: &str = "kubernetes.io/os";
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// Why a pod is not taken. People search for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Rejection {
    pub(crate) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }

    fn predicate(name: &str, why: &str) -> Self {
        Self::new(name, format!("Predicate {name} failed: {why}"))
    }

    /// Of a pod that says something that is not carried out. `fields` names all of that.
    pub fn unsupported(fields: &str) -> Self {
        Self::new("UnsupportedFields", fields)
    }

    /// Of a pod that comes while the machine is being shut down. Source:
    /// `pkg/kubelet/nodeshutdown/nodeshutdown_manager.go`.
    pub fn node_shutdown() -> Self {
        Self::new("NodeShutdown", "Pod was rejected as the node is shutting down.")
    }

    /// Of a pod that requests more of a resource than is left.
    fn insufficient(name: &str, requested: i64, used: i64, capacity: i64) -> Self {
        let message = not_enough(name, requested, used, capacity);
        Self::new(&format!("OutOf{name}"), message)
    }

    /// The status of the pod. Source: `pkg/kubelet/kubelet.go`, `rejectPod`.
    pub fn status(&self, spec: &PodSpec) -> PodStatus {
        PodStatus {
            phase: Some(Phase::Failed.as_str().to_owned()),
            qos_class: Some(QosClass::of(spec).as_str().to_owned()),
            reason: Some(self.reason.clone()),
            message: Some(format!("Pod was rejected: {}", self.message)),
            ..PodStatus::default()
        }
    }
}

/// The status of a pod for whose class of runtime there is none on the node: it waits, as for anything that a
/// sandbox needs.
pub fn without_runtime(spec: &PodSpec) -> PodStatus {
    PodStatus {
        phase: Some(Phase::Pending.as_str().to_owned()),
        qos_class: Some(QosClass::of(spec).as_str().to_owned()),
        ..PodStatus::default()
    }
}

/// What of a pod is a matter of the node's kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// The settings that pods may set.
    pub sysctls: AllowedSysctls,
    /// Whether it has AppArmor.
    pub apparmor: bool,
    /// Whether it has SELinux, whose labels are not set yet. Without it there are none to set.
    pub selinux: bool,
}

impl Kernel {
    fn admit(&self, pod: &Pod) -> Result<(), Rejection> {
        let spec = pod.spec();
        self.sysctls.admit(spec)?;
        apparmor::admit(pod, self.apparmor)?;
        self.admit_label(label_of(spec))
    }

    /// Judges a container that is added to a pod.
    ///
    /// # Errors
    ///
    /// Why it is not started, which names the field.
    pub fn admit_added(&self, container: &EphemeralContainer) -> Result<(), Rejection> {
        let asks = is_labelled(container.security_context.as_ref());
        let name = &container.name;
        self.admit_label(
            asks.then(|| {
                format!("spec.ephemeralContainers{{{name}}}.securityContext.seLinuxOptions")
            }),
        )
    }

    /// `field` is what asks for a label, if anything does.
    fn admit_label(&self, field: Option<String>) -> Result<(), Rejection> {
        match field.filter(|_| self.selinux) {
            Some(field) => Err(Rejection::unsupported(&format!(
                "{field}: this kernel has SELinux, whose labels this version of mainstay does not \
                 set; take the field out, or SELinux"
            ))),
            None => Ok(()),
        }
    }
}

fn is_labelled(security: Option<&SecurityContext>) -> bool {
    let options = security.and_then(|it| it.se_linux_options.as_ref());
    options.is_some_and(|options| *options != SELinuxOptions::default())
}

/// The first field of a pod that asks for an SELinux label.
fn label_of(spec: &PodSpec) -> Option<String> {
    let shared = spec.security_context.as_ref().and_then(|it| it.se_linux_options.as_ref());
    if shared.is_some_and(|options| *options != SELinuxOptions::default()) {
        return Some("spec.securityContext.seLinuxOptions".to_owned());
    }
    let lists = [("initContainers", spec.init_containers.as_deref().unwrap_or_default())];
    lists.into_iter().chain([("containers", &*spec.containers)]).find_map(|(list, containers)| {
        let asks = |it: &Container| is_labelled(it.security_context.as_ref());
        let at = containers.iter().position(asks)?;
        Some(format!("spec.{list}[{at}].securityContext.seLinuxOptions"))
    })
}

/// Judges a static pod, on a node with these labels. They are what the node says of itself: whatever
/// an API has beside them, no static pod waits for it. Of what a machine can have more or less of nothing is looked
/// at: a pod runs slower then, or waits ([`crate::exclusive`]).
///
/// # Errors
///
/// As of [`admit`].
pub fn admit_static(
    pod: &Pod,
    labels: &BTreeMap<String, String>,
    kernel: &Kernel,
) -> Result<(), Rejection> {
    kernel.admit(pod)?;
    fits_system(pod)?;
    let name = labels.get(HOSTNAME_LABEL).cloned();
    let metadata = ObjectMeta { name, labels: Some(labels.clone()), ..ObjectMeta::default() };
    fits_affinity(pod, &Node { metadata, ..Node::default() })
}

/// Judges a pod of an API beside the pods that the node has already, none of which has ended for good.
///
/// # Errors
///
/// The first reason against it, in the order of the kubelet's.
pub fn admit<'a>(
    pod: &Pod,
    node: &Node,
    kernel: &Kernel,
    others: impl Iterator<Item = &'a Pod> + Clone,
) -> Result<(), Rejection> {
    kernel.admit(pod)?;
    fits_system(pod)?;
    fits_resources(pod, node, others.clone())?;
    fits_affinity(pod, node)?;
    if pod.spec().node_name != node.metadata.name {
        let why = "node(s) didn't match the requested node name";
        return Err(Rejection::predicate("NodeName", why));
    }
    let wanted = pod.host_ports();
    let mut used = others.flat_map(Pod::host_ports);
    if !wanted.is_empty() && used.any(|used| wanted.iter().any(|port| conflict(port, &used))) {
        let why = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::predicate("NodePorts", why));
    }
    let of_node = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    if taints::untolerated(of_node, tolerations, &[taints::NO_EXECUTE]).is_some() {
        let why = "node(s) had taints that the pod didn't tolerate";
        return Err(Rejection::predicate("TaintToleration", why));
    }
    Ok(())
}

/// Judges a new pod of an API on a node on which something is short. Static pods are not judged: one that
/// takes too much is ended like any other.
///
/// # Errors
///
/// When the pod would make it worse: when only memory is short, a best-effort pod that does not tolerate
/// that; otherwise every pod. Critical ones are taken.
///
/// Source: `Admit` in `pkg/kubelet/eviction/eviction_manager.go`.
pub fn admit_under(pressure: Pressure, pod: &Pod) -> Result<(), Rejection> {
    let conditions: Vec<&str> = pressure.conditions().collect();
    if conditions.is_empty() || pod.is_critical() {
        return Ok(());
    }
    if conditions == ["MemoryPressure"] {
        let taint = Taint {
            key: "node.kubernetes.io/memory-pressure".to_owned(),
            effect: taints::NO_SCHEDULE.to_owned(),
            ..Taint::default()
        };
        let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
        let tolerates =
            || taints::untolerated(&[taint], tolerations, &[taints::NO_SCHEDULE]).is_none();
        if pod.qos_class() != QosClass::BestEffort || tolerates() {
            return Ok(());
        }
    }
    let conditions = conditions.join(" ");
    Err(Rejection::new(EVICTED, format!("The node had condition: [{conditions}]. ")))
}

/// Source: `rejectPodAdmissionBasedOnOSSelector`, `rejectPodAdmissionBasedOnOSField`.
fn fits_system(pod: &Pod) -> Result<(), Rejection> {
    let label = pod.metadata().labels.as_ref().and_then(|labels| labels.get(OS_LABEL));
    if label.is_some_and(|os| os != OS) {
        return Err(Rejection::new(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ));
    }
    if pod.spec().os.as_ref().is_some_and(|os| os.name != OS) {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Rejection::new("PodOSNotSupported", message));
    }
    Ok(())
}

fn fits_affinity(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    if node_affinity::matches(pod.spec(), node) {
        return Ok(());
    }
    let why = "node(s) didn't match Pod's node affinity/selector";
    Err(Rejection::predicate("NodeAffinity", why))
}

/// Source: `noderesources.Fits`.
fn fits_resources<'a>(
    pod: &Pod,
    node: &Node,
    others: impl Iterator<Item = &'a Pod>,
) -> Result<(), Rejection> {
    let mut count = 0;
    let mut used = [0_i64; 3];
    let mut used_pages = BTreeMap::new();
    for other in others {
        count += 1;
        for (sum, amount) in used.iter_mut().zip(amounts(other)) {
            *sum = sum.saturating_add(amount);
        }
        for (name, amount) in huge_pages_of(other) {
            let sum: &mut i64 = used_pages.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let of_node = |name: &str, milli: bool| {
        let text = allocatable?.get(name)?;
        let quantity = Quantity::parse(&text.0).ok()?;
        Some(if milli { quantity.milli() } else { quantity.units() })
    };
    if let Some(pods) = of_node("pods", false)
        && count + 1 > pods
    {
        return Err(Rejection::insufficient("pods", 1, count, pods));
    }
    let fits = |name: &str, requested: i64, used: i64, capacity: i64| {
        if requested > 0 && requested > capacity.saturating_sub(used) {
            return Err(Rejection::insufficient(name, requested, used, capacity));
        }
        Ok(())
    };
    let names = [("cpu", true), ("memory", false), ("ephemeral-storage", false)];
    for (((name, milli), requested), used) in names.into_iter().zip(amounts(pod)).zip(used) {
        let Some(capacity) = of_node(name, milli) else { continue };
        fits(name, requested, used, capacity)?;
    }
    for (name, requested) in huge_pages_of(pod) {
        let used = used_pages.get(&name).copied().unwrap_or(0);
        // A size that the node does not name is one that it does not have.
        fits(&name, requested, used, of_node(&name, false).unwrap_or(0))?;
    }
    Ok(())
}

/// What a pod requests of CPU in thousandths, of memory and of local disk in bytes.
fn amounts(pod: &Pod) -> [i64; 3] {
    let amounts = Amounts::requested_by_pod(pod.spec());
    let list = [amounts.cpu_milli, amounts.memory_bytes, amounts.ephemeral_storage_bytes];
    list.map(|amount| i64::try_from(amount.unwrap_or(0)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
