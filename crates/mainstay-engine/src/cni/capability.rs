//! What plugins are told of a pod.
//!
//! Source: `CONVENTIONS.md` of the CNI, and `cniNamespaceOpts` in `internal/cri/server/sandbox_run.go`
//! of containerd.

use mainstay_cri::{Bandwidth, PodSandboxConfig, PortMapping};
use serde_json::{Value, json};

use super::attachment::CniNetwork;
use super::config::Object;
use super::error::CniError;

/// Host ports.
const PORT_MAPPINGS: &str = "portMappings";
/// Bounds of what a sandbox receives and sends.
const BANDWIDTH: &str = "bandwidth";

/// What may go through at once, in bits, since annotations do not say. Source: `toCNIBandWidth`.
const BURST: u32 = u32::MAX;

/// Something that a pod asks for and no plugin of its network can do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the pod asks for {wanted}, and no plugin of network {network} ({file}) has the capability \
     {capability}; add a plugin that does, such as {{\"type\": {plugin:?}, \"capabilities\": \
     {{{capability:?}: true}}}}"
)]
pub(crate) struct Incapable {
    wanted: String,
    network: String,
    file: String,
    capability: &'static str,
    plugin: &'static str,
}

/// What plugins are told that say that they want to know it.
///
/// # Errors
///
/// What must not be dropped in silence, and nobody of this network wants to know.
pub(crate) fn capability_args(
    network: &CniNetwork,
    config: &PodSandboxConfig,
) -> Result<Object, CniError> {
    let mut args = Object::new();
    if let Some(first) = config.port_mappings.first() {
        if !network.has_capability(PORT_MAPPINGS) {
            let wanted = format!("host port {}/{}", first.host_port, first.protocol);
            return Err(incapable(network, wanted, PORT_MAPPINGS, "portmap").into());
        }
        let mappings = config.port_mappings.iter().map(port_mapping).collect();
        args.insert(PORT_MAPPINGS.into(), Value::Array(mappings));
    }
    let bandwidth = Bandwidth::of(&config.annotations)?;
    if bandwidth != Bandwidth::default() {
        if !network.has_capability(BANDWIDTH) {
            let wanted = "bounds of its bandwidth".to_owned();
            return Err(incapable(network, wanted, BANDWIDTH, "bandwidth").into());
        }
        args.insert(BANDWIDTH.into(), Value::Object(bounds(bandwidth)));
    }
    let dns = &config.dns;
    args.insert(
        "dns".into(),
        json!({ "servers": dns.servers, "searches": dns.searches, "options": dns.options }),
    );
    args.insert("cgroupPath".into(), config.cgroup_parent.clone().into());
    args.insert("io.kubernetes.cri.pod-annotations".into(), json!(config.annotations));
    Ok(args)
}

fn incapable(
    network: &CniNetwork,
    wanted: String,
    capability: &'static str,
    plugin: &'static str,
) -> Incapable {
    let (network, file) = (network.name.clone(), network.file.display().to_string());
    Incapable { wanted, network, file, capability, plugin }
}

fn bounds(Bandwidth { ingress, egress }: Bandwidth) -> Object {
    let mut bounds = Object::new();
    for (rate, burst, bits) in
        [("ingressRate", "ingressBurst", ingress), ("egressRate", "egressBurst", egress)]
    {
        if let Some(bits) = bits {
            bounds.insert(rate.into(), bits.into());
            bounds.insert(burst.into(), BURST.into());
        }
    }
    bounds
}

fn port_mapping(mapping: &PortMapping) -> Value {
    let mut fields = json!({
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": mapping.protocol.to_string().to_lowercase(),
    });
    if let (Some(ip), Some(fields)) = (mapping.host_ip, fields.as_object_mut()) {
        fields.insert("hostIP".into(), ip.to_string().into());
    }
    fields
}

/// `CNI_ARGS`: whose sandbox it is. Names and UIDs have no characters that part arguments. Source:
/// `toCNILabels` in the same file of containerd.
pub(crate) fn args(id: &str, config: &PodSandboxConfig) -> Vec<(String, String)> {
    let metadata = &config.metadata;
    let args = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", &metadata.namespace),
        ("K8S_POD_NAME", &metadata.name),
        ("K8S_POD_INFRA_CONTAINER_ID", id),
        ("K8S_POD_UID", &metadata.uid),
    ];
    args.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[cfg(test)]
mod tests;
