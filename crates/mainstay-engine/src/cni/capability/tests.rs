use std::path::Path;

use mainstay_cri::{DnsConfig, Protocol};
use mainstay_testkit::contract::Sample;

use super::super::config::{Form, NetworkConfigList};
use super::*;

fn network(capabilities: &Value) -> CniNetwork {
    let list = json!({
        "cniVersion": "1.0.0", "name": "dbnet",
        "plugins": [{ "type": "bridge" }, { "type": "x", "capabilities": capabilities }],
    });
    let list = NetworkConfigList::parse(list.to_string().as_bytes(), Form::List).unwrap();
    let version = list.versions[0];
    CniNetwork::new("/n/a.conflist".into(), list, version, Vec::new())
}

fn config() -> PodSandboxConfig {
    let mut config = Sample::new("web", Path::new("/logs")).sandbox;
    config.cgroup_parent = "/kubepods/pod1".into();
    config.annotations.insert("a".into(), "b".into());
    config.dns = DnsConfig { servers: vec!["192.0.2.1".into()], ..DnsConfig::default() };
    config
}

#[test]
fn plugins_are_told_what_the_conventions_say() {
    let mut config = config();
    let mapping =
        PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 5353, host_ip: None };
    let local = PortMapping { host_ip: Some([127, 0, 0, 1].into()), ..mapping.clone() };
    config.port_mappings = vec![mapping, local];
    let args = capability_args(&network(&json!({ "portMappings": true })), &config).unwrap();
    assert_eq!(
        Value::Object(args),
        json!({
            "portMappings": [
                { "hostPort": 5353, "containerPort": 53, "protocol": "udp" },
                {
                    "hostPort": 5353, "containerPort": 53, "protocol": "udp",
                    "hostIP": "127.0.0.1",
                },
            ],
            "dns": { "servers": ["192.0.2.1"], "searches": [], "options": [] },
            "cgroupPath": "/kubepods/pod1",
            "io.kubernetes.cri.pod-annotations": { "a": "b" },
        })
    );
    let error = capability_args(&network(&json!({ "portMappings": false })), &config);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the pod asks for host port 5353/UDP, and no plugin of network dbnet (/n/a.conflist) has \
         the capability portMappings; add a plugin that does, such as {\"type\": \"portmap\", \
         \"capabilities\": {\"portMappings\": true}}"
    );
    let bound = (Bandwidth::EGRESS_ANNOTATION.to_owned(), "8000".to_owned());
    config.annotations.extend([bound]);
    let able = network(&json!({ "portMappings": true, "bandwidth": true }));
    assert_eq!(
        capability_args(&able, &config).unwrap()["bandwidth"],
        json!({ "egressRate": 8000, "egressBurst": 4_294_967_295_u32 })
    );
    let error = capability_args(&network(&json!({ "portMappings": true })), &config).unwrap_err();
    assert!(
        error.to_string().starts_with("the pod asks for bounds of its bandwidth, and no plugin")
    );
    config.annotations.clear();
    // Who asks for nothing needs nobody.
    config.port_mappings.clear();
    assert!(!capability_args(&network(&json!({})), &config).unwrap().contains_key("portMappings"));
}

#[test]
fn plugins_are_told_whose_sandbox_it_is() {
    let args: Vec<_> = args("ab12", &config())
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        args.join(";"),
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;\
         K8S_POD_INFRA_CONTAINER_ID=ab12;K8S_POD_UID=web-uid"
    );
}
