//! Fields of the Pod API that this version of mainstay does not carry out yet, refused by name.
//!
//! Every field is decided in [`DECISIONS`]; a test walks the schema and proves it. Supporting a field
//! means changing its row, and nothing else here.

use crate::diagnostic::{Cause, Finding};
use crate::path::Path;
use crate::tree::{Node, Span, Value};

/// Fields of one pod that are named: nobody reads more.
const MAX_FINDINGS: usize = 200;

const NOT_YET: &str = "not supported by this version of mainstay yet";

/// What is done about a field. A row holds for everything below its path that has no row of its own.
#[derive(Clone, Copy, Debug)]
enum Decision {
    /// Carried out. Only on fields that have nothing below them, so that a new one has to be decided.
    Supported,
    /// Accepted and ignored, as a kubelet ignores it in a static pod, or dropped before it gets here.
    NoEffect,
    /// Refused, in this case.
    Refused(When),
}

#[derive(Clone, Copy, Debug)]
enum When {
    /// It is there, even if empty.
    Present,
    /// It is there and not empty.
    Set,
    /// It is any other value than these; what is in angle brackets at their end may be anything.
    Not(&'static [&'static str]),
    /// It has other keys than these, with angle brackets as above.
    Keys(&'static [&'static str]),
}

use Decision::{NoEffect, Refused, Supported};
use When::{Keys, Not, Present, Set};

/// Resources of which the kernel gives a container no more than its share.
const RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage", "hugepages-<size>"];

/// Lists of containers of a pod: what is decided of a field of one holds for the same field of all of them.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Paths as in the schema: `[]` is any item of a list. What is said of [`CONTAINERS`] stands below the first.
const DECISIONS: &[(&str, Decision)] = &[
    ("apiVersion", Supported),
    ("kind", Supported),
    ("metadata.annotations", Supported),
    ("metadata.creationTimestamp", NoEffect),
    ("metadata.deletionGracePeriodSeconds", NoEffect),
    ("metadata.deletionTimestamp", NoEffect),
    ("metadata.finalizers", Refused(Set)),
    ("metadata.generateName", NoEffect),
    ("metadata.generation", NoEffect),
    ("metadata.labels", Supported),
    ("metadata.managedFields", NoEffect),
    ("metadata.name", Supported),
    ("metadata.namespace", Supported),
    ("metadata.ownerReferences", NoEffect),
    ("metadata.resourceVersion", NoEffect),
    ("metadata.selfLink", NoEffect),
    ("metadata.uid", NoEffect),
    ("spec.activeDeadlineSeconds", Supported),
    ("spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution", NoEffect),
    (
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[].key",
        Supported,
    ),
    (
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[].operator",
        Supported,
    ),
    (
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[].values",
        Supported,
    ),
    (
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchFields[].key",
        Supported,
    ),
    (
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchFields[].operator",
        Supported,
    ),
    (
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchFields[].values",
        Supported,
    ),
    ("spec.affinity.podAffinity", NoEffect),
    ("spec.affinity.podAntiAffinity", NoEffect),
    // A static pod gets no token.
    ("spec.automountServiceAccountToken", NoEffect),
    ("spec.containers[].args", Supported),
    ("spec.containers[].command", Supported),
    ("spec.containers[].envFrom[].configMapRef.name", Supported),
    ("spec.containers[].envFrom[].configMapRef.optional", Supported),
    ("spec.containers[].envFrom[].prefix", Supported),
    ("spec.containers[].envFrom[].secretRef.name", Supported),
    ("spec.containers[].envFrom[].secretRef.optional", Supported),
    ("spec.containers[].env[].name", Supported),
    ("spec.containers[].env[].value", Supported),
    ("spec.containers[].env[].valueFrom.configMapKeyRef.key", Supported),
    ("spec.containers[].env[].valueFrom.configMapKeyRef.name", Supported),
    ("spec.containers[].env[].valueFrom.configMapKeyRef.optional", Supported),
    ("spec.containers[].env[].valueFrom.fieldRef.apiVersion", Supported),
    ("spec.containers[].env[].valueFrom.fieldRef.fieldPath", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef.key", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef.optional", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef.path", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef.volumeName", Supported),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.containerName", Supported),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.divisor", Supported),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.resource", Supported),
    ("spec.containers[].env[].valueFrom.secretKeyRef.key", Supported),
    ("spec.containers[].env[].valueFrom.secretKeyRef.name", Supported),
    ("spec.containers[].env[].valueFrom.secretKeyRef.optional", Supported),
    ("spec.containers[].image", Supported),
    ("spec.containers[].imagePullPolicy", Supported),
    ("spec.containers[].lifecycle.postStart.exec.command", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.host", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.path", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.port", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.scheme", Supported),
    ("spec.containers[].lifecycle.postStart.sleep.seconds", Supported),
    // There is no such hook: where a kubelet takes it, it fails.
    ("spec.containers[].lifecycle.postStart.tcpSocket", Refused(Present)),
    ("spec.containers[].lifecycle.preStop.exec.command", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.host", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.path", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.port", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.scheme", Supported),
    ("spec.containers[].lifecycle.preStop.sleep.seconds", Supported),
    ("spec.containers[].lifecycle.preStop.tcpSocket", Refused(Present)),
    ("spec.containers[].lifecycle.stopSignal", Supported),
    ("spec.containers[].livenessProbe.exec.command", Supported),
    ("spec.containers[].livenessProbe.failureThreshold", Supported),
    ("spec.containers[].livenessProbe.grpc.port", Supported),
    ("spec.containers[].livenessProbe.grpc.service", Supported),
    ("spec.containers[].livenessProbe.httpGet.host", Supported),
    ("spec.containers[].livenessProbe.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].livenessProbe.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].livenessProbe.httpGet.path", Supported),
    ("spec.containers[].livenessProbe.httpGet.port", Supported),
    ("spec.containers[].livenessProbe.httpGet.scheme", Supported),
    ("spec.containers[].livenessProbe.initialDelaySeconds", Supported),
    ("spec.containers[].livenessProbe.periodSeconds", Supported),
    ("spec.containers[].livenessProbe.successThreshold", Supported),
    ("spec.containers[].livenessProbe.tcpSocket.host", Supported),
    ("spec.containers[].livenessProbe.tcpSocket.port", Supported),
    ("spec.containers[].livenessProbe.terminationGracePeriodSeconds", Supported),
    ("spec.containers[].livenessProbe.timeoutSeconds", Supported),
    ("spec.containers[].name", Supported),
    ("spec.containers[].ports[].containerPort", Supported),
    ("spec.containers[].ports[].hostIP", Supported),
    ("spec.containers[].ports[].hostPort", Supported),
    ("spec.containers[].ports[].name", Supported),
    ("spec.containers[].ports[].protocol", Supported),
    ("spec.containers[].readinessProbe.exec.command", Supported),
    ("spec.containers[].readinessProbe.failureThreshold", Supported),
    ("spec.containers[].readinessProbe.grpc.port", Supported),
    ("spec.containers[].readinessProbe.grpc.service", Supported),
    ("spec.containers[].readinessProbe.httpGet.host", Supported),
    ("spec.containers[].readinessProbe.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].readinessProbe.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].readinessProbe.httpGet.path", Supported),
    ("spec.containers[].readinessProbe.httpGet.port", Supported),
    ("spec.containers[].readinessProbe.httpGet.scheme", Supported),
    ("spec.containers[].readinessProbe.initialDelaySeconds", Supported),
    ("spec.containers[].readinessProbe.periodSeconds", Supported),
    ("spec.containers[].readinessProbe.successThreshold", Supported),
    ("spec.containers[].readinessProbe.tcpSocket.host", Supported),
    ("spec.containers[].readinessProbe.tcpSocket.port", Supported),
    ("spec.containers[].readinessProbe.terminationGracePeriodSeconds", Supported),
    ("spec.containers[].readinessProbe.timeoutSeconds", Supported),
    ("spec.containers[].resizePolicy[].resourceName", Supported),
    ("spec.containers[].resizePolicy[].restartPolicy", Supported),
    ("spec.containers[].resources.claims", Refused(Set)),
    ("spec.containers[].resources.limits", Refused(Keys(RESOURCES))),
    ("spec.containers[].resources.requests", Refused(Keys(RESOURCES))),
    ("spec.containers[].restartPolicy", Supported),
    ("spec.containers[].restartPolicyRules[].action", Supported),
    ("spec.containers[].restartPolicyRules[].exitCodes.operator", Supported),
    ("spec.containers[].restartPolicyRules[].exitCodes.values", Supported),
    ("spec.containers[].securityContext.allowPrivilegeEscalation", Supported),
    ("spec.containers[].securityContext.appArmorProfile.localhostProfile", Supported),
    ("spec.containers[].securityContext.appArmorProfile.type", Supported),
    ("spec.containers[].securityContext.capabilities.add", Supported),
    ("spec.containers[].securityContext.capabilities.drop", Supported),
    ("spec.containers[].securityContext.privileged", Supported),
    ("spec.containers[].securityContext.procMount", Supported),
    ("spec.containers[].securityContext.readOnlyRootFilesystem", Supported),
    ("spec.containers[].securityContext.runAsGroup", Supported),
    ("spec.containers[].securityContext.runAsNonRoot", Supported),
    ("spec.containers[].securityContext.runAsUser", Supported),
    ("spec.containers[].securityContext.seLinuxOptions", NoEffect),
    ("spec.containers[].securityContext.seccompProfile.localhostProfile", Supported),
    ("spec.containers[].securityContext.seccompProfile.type", Supported),
    ("spec.containers[].securityContext.windowsOptions", Refused(Set)),
    ("spec.containers[].startupProbe.exec.command", Supported),
    ("spec.containers[].startupProbe.failureThreshold", Supported),
    ("spec.containers[].startupProbe.grpc.port", Supported),
    ("spec.containers[].startupProbe.grpc.service", Supported),
    ("spec.containers[].startupProbe.httpGet.host", Supported),
    ("spec.containers[].startupProbe.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].startupProbe.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].startupProbe.httpGet.path", Supported),
    ("spec.containers[].startupProbe.httpGet.port", Supported),
    ("spec.containers[].startupProbe.httpGet.scheme", Supported),
    ("spec.containers[].startupProbe.initialDelaySeconds", Supported),
    ("spec.containers[].startupProbe.periodSeconds", Supported),
    ("spec.containers[].startupProbe.successThreshold", Supported),
    ("spec.containers[].startupProbe.tcpSocket.host", Supported),
    ("spec.containers[].startupProbe.tcpSocket.port", Supported),
    ("spec.containers[].startupProbe.terminationGracePeriodSeconds", Supported),
    ("spec.containers[].startupProbe.timeoutSeconds", Supported),
    ("spec.containers[].stdin", Supported),
    ("spec.containers[].stdinOnce", Supported),
    ("spec.containers[].terminationMessagePath", Supported),
    ("spec.containers[].terminationMessagePolicy", Supported),
    ("spec.containers[].tty", Supported),
    ("spec.containers[].volumeDevices", Refused(Set)),
    ("spec.containers[].volumeMounts[].mountPath", Supported),
    ("spec.containers[].volumeMounts[].mountPropagation", Supported),
    ("spec.containers[].volumeMounts[].name", Supported),
    ("spec.containers[].volumeMounts[].readOnly", Supported),
    ("spec.containers[].volumeMounts[].recursiveReadOnly", Supported),
    ("spec.containers[].volumeMounts[].subPath", Supported),
    ("spec.containers[].volumeMounts[].subPathExpr", Supported),
    ("spec.containers[].workingDir", Supported),
    ("spec.dnsConfig.nameservers", Supported),
    ("spec.dnsConfig.options[].name", Supported),
    ("spec.dnsConfig.options[].value", Supported),
    ("spec.dnsConfig.searches", Supported),
    ("spec.dnsPolicy", Supported),
    ("spec.enableServiceLinks", Supported),
    // No API server lets one have these.
    ("spec.ephemeralContainers[].lifecycle", Refused(Set)),
    ("spec.ephemeralContainers[].livenessProbe", Refused(Set)),
    ("spec.ephemeralContainers[].ports", Refused(Set)),
    ("spec.ephemeralContainers[].readinessProbe", Refused(Set)),
    ("spec.ephemeralContainers[].resizePolicy", Refused(Set)),
    ("spec.ephemeralContainers[].resources", Refused(Set)),
    ("spec.ephemeralContainers[].restartPolicy", Refused(Set)),
    ("spec.ephemeralContainers[].restartPolicyRules", Refused(Set)),
    ("spec.ephemeralContainers[].startupProbe", Refused(Set)),
    ("spec.ephemeralContainers[].targetContainerName", Supported),
    ("spec.ephemeralContainers[].volumeMounts[].subPath", Refused(Set)),
    ("spec.ephemeralContainers[].volumeMounts[].subPathExpr", Refused(Set)),
    ("spec.hostAliases[].hostnames", Supported),
    ("spec.hostAliases[].ip", Supported),
    ("spec.hostIPC", Supported),
    ("spec.hostNetwork", Supported),
    ("spec.hostPID", Supported),
    ("spec.hostUsers", Supported),
    ("spec.hostname", Supported),
    ("spec.hostnameOverride", Supported),
    ("spec.imagePullSecrets[].name", Supported),
    ("spec.nodeName", NoEffect),
    ("spec.nodeSelector", Supported),
    ("spec.os.name", Refused(Not(&["linux"]))),
    ("spec.overhead", Refused(Keys(RESOURCES))),
    ("spec.preemptionPolicy", NoEffect),
    // Who is evicted and shut down first.
    ("spec.priority", Supported),
    ("spec.priorityClassName", Supported),
    ("spec.readinessGates[].conditionType", Supported),
    ("spec.resourceClaims", Refused(Set)),
    ("spec.resources.claims", Refused(Set)),
    ("spec.resources.limits", Refused(Keys(&["cpu", "memory", "hugepages-<size>"]))),
    ("spec.resources.requests", Refused(Keys(&["cpu", "memory", "hugepages-<size>"]))),
    ("spec.restartPolicy", Supported),
    ("spec.runtimeClassName", Refused(Set)),
    ("spec.schedulerName", NoEffect),
    ("spec.schedulingGates", Refused(Set)),
    ("spec.schedulingGroup", Refused(Set)),
    ("spec.securityContext.appArmorProfile.localhostProfile", Supported),
    ("spec.securityContext.appArmorProfile.type", Supported),
    ("spec.securityContext.fsGroup", Supported),
    ("spec.securityContext.fsGroupChangePolicy", Supported),
    ("spec.securityContext.runAsGroup", Supported),
    ("spec.securityContext.runAsNonRoot", Supported),
    ("spec.securityContext.runAsUser", Supported),
    ("spec.securityContext.seLinuxChangePolicy", NoEffect),
    ("spec.securityContext.seLinuxOptions", NoEffect),
    ("spec.securityContext.seccompProfile.localhostProfile", Supported),
    ("spec.securityContext.seccompProfile.type", Supported),
    ("spec.securityContext.supplementalGroups", Supported),
    ("spec.securityContext.supplementalGroupsPolicy", Supported),
    ("spec.securityContext.sysctls[].name", Supported),
    ("spec.securityContext.sysctls[].value", Supported),
    ("spec.securityContext.windowsOptions", Refused(Set)),
    ("spec.serviceAccount", Refused(Set)),
    ("spec.serviceAccountName", Refused(Set)),
    ("spec.setHostnameAsFQDN", Supported),
    ("spec.shareProcessNamespace", Supported),
    ("spec.subdomain", Supported),
    ("spec.terminationGracePeriodSeconds", Supported),
    ("spec.tolerations", NoEffect),
    ("spec.topologySpreadConstraints", NoEffect),
    ("spec.volumes[].awsElasticBlockStore", Refused(Present)),
    ("spec.volumes[].azureDisk", Refused(Present)),
    ("spec.volumes[].azureFile", Refused(Present)),
    ("spec.volumes[].cephfs", Refused(Present)),
    ("spec.volumes[].cinder", Refused(Present)),
    ("spec.volumes[].configMap.defaultMode", Supported),
    ("spec.volumes[].configMap.items[].key", Supported),
    ("spec.volumes[].configMap.items[].mode", Supported),
    ("spec.volumes[].configMap.items[].path", Supported),
    ("spec.volumes[].configMap.name", Supported),
    ("spec.volumes[].configMap.optional", Supported),
    ("spec.volumes[].csi", Refused(Present)),
    ("spec.volumes[].downwardAPI.defaultMode", Supported),
    ("spec.volumes[].downwardAPI.items[].fieldRef.apiVersion", Supported),
    ("spec.volumes[].downwardAPI.items[].fieldRef.fieldPath", Supported),
    ("spec.volumes[].downwardAPI.items[].mode", Supported),
    ("spec.volumes[].downwardAPI.items[].path", Supported),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.containerName", Supported),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.divisor", Supported),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.resource", Supported),
    (
        "spec.volumes[].emptyDir.medium",
        Refused(Not(&["", "Memory", "HugePages", "HugePages-<size>"])),
    ),
    ("spec.volumes[].emptyDir.sizeLimit", Supported),
    ("spec.volumes[].ephemeral", Refused(Present)),
    ("spec.volumes[].fc", Refused(Present)),
    ("spec.volumes[].flexVolume", Refused(Present)),
    ("spec.volumes[].flocker", Refused(Present)),
    ("spec.volumes[].gcePersistentDisk", Refused(Present)),
    ("spec.volumes[].gitRepo", Refused(Present)),
    ("spec.volumes[].glusterfs", Refused(Present)),
    ("spec.volumes[].hostPath.path", Supported),
    ("spec.volumes[].hostPath.type", Supported),
    ("spec.volumes[].image.pullPolicy", Supported),
    ("spec.volumes[].image.reference", Supported),
    ("spec.volumes[].iscsi", Refused(Present)),
    ("spec.volumes[].name", Supported),
    ("spec.volumes[].nfs.path", Supported),
    ("spec.volumes[].nfs.readOnly", Supported),
    ("spec.volumes[].nfs.server", Supported),
    ("spec.volumes[].persistentVolumeClaim", Refused(Present)),
    ("spec.volumes[].photonPersistentDisk", Refused(Present)),
    ("spec.volumes[].portworxVolume", Refused(Present)),
    ("spec.volumes[].projected.defaultMode", Supported),
    ("spec.volumes[].projected.sources[].clusterTrustBundle", Refused(Present)),
    ("spec.volumes[].projected.sources[].configMap.items[].key", Supported),
    ("spec.volumes[].projected.sources[].configMap.items[].mode", Supported),
    ("spec.volumes[].projected.sources[].configMap.items[].path", Supported),
    ("spec.volumes[].projected.sources[].configMap.name", Supported),
    ("spec.volumes[].projected.sources[].configMap.optional", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].fieldRef.apiVersion", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].fieldRef.fieldPath", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].mode", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].path", Supported),
    (
        "spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.containerName",
        Supported,
    ),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.divisor", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.resource", Supported),
    ("spec.volumes[].projected.sources[].podCertificate", Refused(Present)),
    ("spec.volumes[].projected.sources[].secret.items[].key", Supported),
    ("spec.volumes[].projected.sources[].secret.items[].mode", Supported),
    ("spec.volumes[].projected.sources[].secret.items[].path", Supported),
    ("spec.volumes[].projected.sources[].secret.name", Supported),
    ("spec.volumes[].projected.sources[].secret.optional", Supported),
    ("spec.volumes[].projected.sources[].serviceAccountToken.audience", Supported),
    ("spec.volumes[].projected.sources[].serviceAccountToken.expirationSeconds", Supported),
    ("spec.volumes[].projected.sources[].serviceAccountToken.path", Supported),
    ("spec.volumes[].quobyte", Refused(Present)),
    ("spec.volumes[].rbd", Refused(Present)),
    ("spec.volumes[].scaleIO", Refused(Present)),
    ("spec.volumes[].secret.defaultMode", Supported),
    ("spec.volumes[].secret.items[].key", Supported),
    ("spec.volumes[].secret.items[].mode", Supported),
    ("spec.volumes[].secret.items[].path", Supported),
    ("spec.volumes[].secret.optional", Supported),
    ("spec.volumes[].secret.secretName", Supported),
    ("spec.volumes[].storageos", Refused(Present)),
    ("spec.volumes[].vsphereVolume", Refused(Present)),
    ("status", NoEffect),
];

/// Every field of a Pod that is not supported yet. The tree fits the schema and is cleaned.
pub(crate) fn check(pod: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, decision) in DECISIONS {
        if let Refused(when) = decision {
            visit(pod, pod.span, path, &Path::ROOT, *when, &mut findings);
        }
    }
    findings
}

/// Follows what is left of a row's path, through every item of its lists.
fn visit(
    node: &Node,
    name_span: Span,
    pattern: &'static str,
    path: &Path<'_>,
    when: When,
    findings: &mut Vec<Finding>,
) {
    if findings.len() >= MAX_FINDINGS {
        return;
    }
    if pattern.is_empty() {
        judge(node, name_span, path, when, findings);
        return;
    }
    if let Some(rest) = pattern.strip_prefix("[]") {
        for (index, item) in node.items().iter().enumerate() {
            visit(item, item.span, rest, &path.index(index), when, findings);
        }
        return;
    }
    let pattern = pattern.strip_prefix('.').unwrap_or(pattern);
    let end = pattern.find(['.', '[']).unwrap_or(pattern.len());
    let (name, rest) = pattern.split_at(end);
    let names = if name == CONTAINERS[0] { &CONTAINERS[..] } else { &[name] };
    for name in names {
        if let Some(entry) = node.entries().iter().rev().find(|entry| &*entry.key == *name) {
            visit(&entry.node, entry.key_span, rest, &path.field(name), when, findings);
        }
    }
}

fn judge(node: &Node, name_span: Span, path: &Path<'_>, when: When, findings: &mut Vec<Finding>) {
    let mut refuse = |span: Span, path: Path<'_>, message: String| {
        findings.push(Finding::error(span, path, message).cause(Cause::Unsupported));
    };
    let empty = node.is_empty() || node.as_str() == Some("");
    match when {
        When::Present => refuse(name_span, *path, NOT_YET.to_owned()),
        When::Set if empty => {}
        When::Set => refuse(name_span, *path, NOT_YET.to_owned()),
        When::Not(values) => {
            let text = match &node.value {
                Value::Bool(value) => value.to_string(),
                Value::Number(text) | Value::String(text) => String::from(&**text),
                Value::Null | Value::List(_) | Value::Map(_) => return,
            };
            if !is_among(values, &text) {
                refuse(node.span, *path, format!("{text} is {NOT_YET}"));
            }
        }
        When::Keys(keys) => {
            for entry in node.entries().iter().filter(|entry| !is_among(keys, &entry.key)) {
                refuse(entry.key_span, path.key(&entry.key), NOT_YET.to_owned());
            }
        }
    }
}

fn is_among(list: &[&str], text: &str) -> bool {
    list.iter().any(|known| match known.split_once('<') {
        Some((prefix, _)) => text.starts_with(prefix),
        None => text == *known,
    })
}

#[cfg(test)]
mod tests;
