//! Ports of the host, which no two pods have at a time.

use k8s_openapi::api::core::v1::PodSpec;

use crate::containers::{self, Role};
use crate::pod::HostPort;

/// Ports of the host that a pod occupies, in the order of its containers. What only prepares a pod is not there
/// to be reached; its ports may be those of others. Source: `GetHostPorts` in
/// `pkg/scheduler/util/utils.go`.
pub fn of(spec: &PodSpec) -> Vec<HostPort> {
    let lasting = containers::of(spec).filter(|(role, _)| *role != Role::Init);
    let ports = lasting
        .map(|(_, container)| container)
        .flat_map(|container| container.ports.iter().flatten().map(move |port| (container, port)));
    ports
        .filter_map(|(container, port)| {
            let host_port = port.host_port.filter(|port| *port != 0)?;
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                host_ip: port.host_ip.clone().unwrap_or_default(),
                host_port,
                container_port: port.container_port,
                container: container.name.clone(),
            })
        })
        .collect()
}

/// Whether two pods cannot have these at a time. Source: `HostPortInfo.CheckConflict` in
/// `staging/src/k8s.io/kube-scheduler/framework/types.go`.
pub fn conflict(one: &HostPort, other: &HostPort) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
    one.host_port == other.host_port
        && one.protocol == other.protocol
        && (any(&one.host_ip) || any(&other.host_ip) || one.host_ip == other.host_ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_part_of_all_addresses() {
        let port = |protocol: &str, host_ip: &str, host_port| HostPort {
            protocol: protocol.into(),
            host_ip: host_ip.into(),
            host_port,
            container_port: 1,
            container: String::new(),
        };
        let rows = [
            (port("TCP", "", 80), true),
            (port("TCP", "0.0.0.0", 80), true),
            (port("TCP", "10.0.0.1", 80), true),
            (port("TCP", "10.0.0.2", 80), false),
            (port("UDP", "10.0.0.1", 80), false),
            (port("TCP", "10.0.0.1", 81), false),
        ];
        let taken = port("TCP", "10.0.0.1", 80);
        for (wanted, expected) in rows {
            assert_eq!(conflict(&wanted, &taken), expected, "{wanted:?}");
            assert_eq!(conflict(&taken, &wanted), expected, "{wanted:?}");
        }
    }
}
