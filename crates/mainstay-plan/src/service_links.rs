//! What containers are told of services in their variables.
//!
//! Source: `getServiceEnvVarMap` in `pkg/kubelet/kubelet_pods.go`, and `pkg/kubelet/envvars/envvars.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A service with an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// `clusterIP`.
    pub cluster_ip: Box<str>,
    /// Its ports, in their order.
    pub ports: Box<[ServicePort]>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty for one without a name.
    pub name: Box<str>,
    /// 1 to 65535.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
}

/// The variables of a pod in `namespace`: of all services there if it has `links`, and of the API always.
pub fn variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    // A service of the namespace that is called like the API's takes its place, as there.
    let mut shown: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let is_master = &*service.namespace == "default" && &*service.name == "kubernetes";
        if is_master {
            shown.entry(&service.name).or_insert(service);
        } else if links && &*service.namespace == namespace {
            shown.insert(&service.name, service);
        }
    }
    shown.into_values().flat_map(of_service).collect()
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let name = variable_name(&service.name);
    let mut all = vec![(format!("{name}_SERVICE_HOST"), service.cluster_ip.to_string())];
    for (at, port) in service.ports.iter().enumerate() {
        let ServicePort { name: port_name, port, protocol } = port;
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{}:{port}", host(&service.cluster_ip));
        if at == 0 {
            all.push((format!("{name}_SERVICE_PORT"), port.to_string()));
            all.push((format!("{name}_PORT"), url.clone()));
        }
        if !port_name.is_empty() {
            let port_name = variable_name(port_name);
            all.push((format!("{name}_SERVICE_PORT_{port_name}"), port.to_string()));
        }
        let prefix = format!("{name}_PORT_{port}_{}", protocol.to_uppercase());
        all.push((prefix.clone(), url));
        all.push((format!("{prefix}_PROTO"), lower));
        all.push((format!("{prefix}_PORT"), port.to_string()));
        all.push((format!("{prefix}_ADDR"), service.cluster_ip.to_string()));
    }
    all
}

/// Names of services and ports have nothing else that variables cannot have.
fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

/// An address before a port. Source: `net.JoinHostPort`.
fn host(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(_)) => format!("[{address}]"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str, ports: &[(&str, i32, &str)]) -> Service {
        let port = |(name, port, protocol): &(&str, i32, &str)| ServicePort {
            name: (*name).into(),
            port: *port,
            protocol: (*protocol).into(),
        };
        Service {
            namespace: namespace.into(),
            name: name.into(),
            cluster_ip: ip.into(),
            ports: ports.iter().map(port).collect(),
        }
    }

    #[test]
    fn services_of_the_namespace_and_the_api_are_told_of() {
        let services = [
            service("default", "kubernetes", "10.96.0.1", &[("https", 443, "TCP")]),
            service("default", "web", "10.96.0.2", &[("", 80, "TCP")]),
            service("ns", "my-dns", "fd00::2", &[("dns", 53, "UDP"), ("dns-tcp", 53, "TCP")]),
            service("ns", "none", "10.96.0.3", &[]),
        ];
        let shown = |namespace, links| {
            let variables = variables(&services, namespace, links);
            let lines = variables.iter().map(|(name, value)| format!("{name}={value}\n"));
            lines.collect::<String>()
        };
        let api = expect![[r#"
            KUBERNETES_PORT=tcp://10.96.0.1:443
            KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
            KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
            KUBERNETES_PORT_443_TCP_PORT=443
            KUBERNETES_PORT_443_TCP_PROTO=tcp
            KUBERNETES_SERVICE_HOST=10.96.0.1
            KUBERNETES_SERVICE_PORT=443
            KUBERNETES_SERVICE_PORT_HTTPS=443
        "#]];
        api.assert_eq(&shown("default", false));
        api.assert_eq(&shown("ns", false));
        let own = shown("ns", true);
        let own: String = own
            .lines()
            .filter(|line| !line.starts_with("KUBERNETES"))
            .map(|line| format!("{line}\n"))
            .collect();
        expect![[r#"
            MY_DNS_PORT=udp://[fd00::2]:53
            MY_DNS_PORT_53_TCP=tcp://[fd00::2]:53
            MY_DNS_PORT_53_TCP_ADDR=fd00::2
            MY_DNS_PORT_53_TCP_PORT=53
            MY_DNS_PORT_53_TCP_PROTO=tcp
            MY_DNS_PORT_53_UDP=udp://[fd00::2]:53
            MY_DNS_PORT_53_UDP_ADDR=fd00::2
            MY_DNS_PORT_53_UDP_PORT=53
            MY_DNS_PORT_53_UDP_PROTO=udp
            MY_DNS_SERVICE_HOST=fd00::2
            MY_DNS_SERVICE_PORT=53
            MY_DNS_SERVICE_PORT_DNS=53
            MY_DNS_SERVICE_PORT_DNS_TCP=53
            NONE_SERVICE_HOST=10.96.0.3
        "#]]
        .assert_eq(&own);
        assert!(shown("default", true).contains("WEB_SERVICE_HOST=10.96.0.2"));
    }
}
